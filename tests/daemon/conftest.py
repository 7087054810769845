"""A fluxd of one's own for each test that asks."""

from collections.abc import Iterator

import pytest

from tests.fluxd_process import Daemon


@pytest.fixture
def daemon(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A running fluxd with an empty dags folder. When the test fails, what the daemon said is shown with it."""
    running = Daemon()
    try:
        running.start()
        yield running
        if request.node.stash.get(FAILED, False):
            print("fluxd said:", *running.lines[-80:], sep="\n")
    finally:
        running.remove()


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> object:
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report
