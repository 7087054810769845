"""Each test begins and ends with no dags made, whatever an earlier one left."""

from collections.abc import Iterator

import pytest

from fluxd.authoring import registry


@pytest.fixture(autouse=True)
def nothing_made() -> Iterator[None]:
    registry.forget()
    yield
    registry.forget()
