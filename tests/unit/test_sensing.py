"""The waiting: what is looked at once, how waits end, and that a bad request hurts only its own task."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fluxd import sensors
from fluxd.core.commands import BeginWait
from fluxd.core.events import Event, WaitEnded
from fluxd.core.model import Instance, Run, RunState
from fluxd.sensing import ERRORS_IN_A_ROW_MAX, Sensing
from fluxd.sensors import PokeResult

NOW = datetime.now(UTC)
RUN = Run(1, "d", "r", "manual", RunState.RUNNING, 1, NOW, NOW, NOW, None, NOW)
LONG_S = 10.0


class Scripted:
    """A sensor that answers what the test says; it tells of each look."""

    looks: asyncio.Queue[str]
    answers: asyncio.Queue[Any]

    def __init__(self, name: str = "") -> None:
        self.name = name

    async def poke(self, context: dict[str, Any] | None) -> Any:
        self.looks.put_nowait(self.name)
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Scripted]]:
    monkeypatch.setitem(sensors.SHIPPED, "Scripted", Scripted)
    Scripted.looks, Scripted.answers = asyncio.Queue(), asyncio.Queue()
    yield Scripted


@pytest.fixture
async def posted() -> asyncio.Queue[Event]:
    return asyncio.Queue()


@pytest.fixture
async def sensing(posted: asyncio.Queue[Event], scripted: type[Scripted]) -> AsyncIterator[Sensing]:
    made = Sensing(posted.put_nowait, poke_timeout_s=LONG_S, pokes_at_once=8)
    yield made
    await made.close()


def wait(fence: int, *, until: datetime | None = None, **request: Any) -> BeginWait:
    asked = {"sensor": "Scripted", "args": {}, "poke_interval": 0.01} | request
    return BeginWait(fence, RUN, Instance(1, "t", fence=fence), asked, until)


async def ended(posted: asyncio.Queue[Event]) -> WaitEnded:
    async with asyncio.timeout(LONG_S):
        event = await posted.get()
    assert isinstance(event, WaitEnded)
    return event


@pytest.mark.anyio
async def test_equal_waits_are_looked_at_once(sensing: Sensing, posted: asyncio.Queue[Event]) -> None:
    for fence in (1, 2, 3):
        sensing.begin(wait(fence, args={"name": "same"}))
    sensing.begin(wait(4, args={"name": "other"}))
    assert sensing.waiting == 4
    assert {await Scripted.looks.get(), await Scripted.looks.get()} == {"same", "other"}
    for _ in range(2):
        Scripted.answers.put_nowait(PokeResult(True, "there"))
    over = [await ended(posted) for _ in range(4)]
    assert {(one.fence, one.state, one.xcoms) for one in over} == {
        (fence, "success", (("return_value", "there"),)) for fence in (1, 2, 3, 4)
    }
    assert Scripted.looks.empty()
    assert sensing.waiting == 0


@pytest.mark.anyio
async def test_who_joins_later_is_looked_for_at_once(sensing: Sensing, posted: asyncio.Queue[Event]) -> None:
    sensing.begin(wait(1, poke_interval=3600))
    await Scripted.looks.get()
    Scripted.answers.put_nowait(False)
    sensing.begin(wait(2, poke_interval=3600))
    async with asyncio.timeout(LONG_S):
        await Scripted.looks.get()
    Scripted.answers.put_nowait(True)
    assert {(await ended(posted)).fence, (await ended(posted)).fence} == {1, 2}


@pytest.mark.anyio
async def test_a_wait_begun_twice_is_one(sensing: Sensing, posted: asyncio.Queue[Event]) -> None:
    sensing.begin(wait(1))
    sensing.begin(wait(1))
    assert sensing.waiting == 1
    Scripted.answers.put_nowait(True)
    assert (await ended(posted)).fence == 1
    assert posted.empty()


@pytest.mark.anyio
async def test_a_wait_that_was_ended_is_not_told_of(sensing: Sensing, posted: asyncio.Queue[Event]) -> None:
    sensing.begin(wait(1))
    sensing.begin(wait(2))
    await Scripted.looks.get()
    sensing.end(1)
    sensing.end(1)
    Scripted.answers.put_nowait(True)
    assert (await ended(posted)).fence == 2
    assert posted.empty()


@pytest.mark.anyio
@pytest.mark.parametrize(("soft_fail", "state"), [(False, "failed"), (True, "skipped")])
async def test_the_timeout_ends_a_wait_and_never_before_its_time(
    sensing: Sensing, posted: asyncio.Queue[Event], soft_fail: bool, state: str
) -> None:
    until = datetime.now(UTC) + timedelta(milliseconds=30)
    sensing.begin(wait(1, until=until, soft_fail=soft_fail, poke_interval=3600))
    for _ in range(3):
        Scripted.answers.put_nowait(False)
    over = await ended(posted)
    assert (over.fence, over.state) == (1, state)
    assert over.error is not None and over.error.startswith("FLX-3040")
    assert over.at >= until


@pytest.mark.anyio
async def test_errors_in_a_row_fail_the_wait(sensing: Sensing, posted: asyncio.Queue[Event]) -> None:
    sensing.begin(wait(1))
    for answer in [OSError("once"), False, *[OSError("disk gone")] * ERRORS_IN_A_ROW_MAX]:
        assert posted.empty()
        Scripted.answers.put_nowait(answer)
    over = await ended(posted)
    assert over.state == "failed"
    assert over.error is not None and "FLX-3041" in over.error and "OSError: disk gone" in over.error
    assert Scripted.looks.qsize() == ERRORS_IN_A_ROW_MAX + 2


@pytest.mark.anyio
async def test_a_look_that_hangs_counts_as_an_error(posted: asyncio.Queue[Event], scripted: type[Scripted]) -> None:
    sensing = Sensing(posted.put_nowait, poke_timeout_s=0.01, pokes_at_once=1)
    sensing.begin(wait(1))
    over = await ended(posted)
    assert over.error is not None and "did not answer within 0.01 s" in over.error
    await sensing.close()


@pytest.mark.anyio
async def test_a_request_that_makes_no_sense_fails_its_own_task(sensing: Sensing, posted: asyncio.Queue[Event]) -> None:
    sensing.begin(replace(wait(1), request={}))
    over = await ended(posted)
    assert over.state == "failed" and over.error is not None and over.error.startswith("FLX-3045")
    sensing.begin(wait(2, sensor="Unknown"))
    over = await ended(posted)
    assert over.state == "failed" and over.error is not None and "FLX-3042" in over.error
