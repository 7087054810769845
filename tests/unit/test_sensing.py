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
from fluxd.core.model import Instance, Run
from fluxd.core.states import RunState
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
    made = Sensing(posted.put_nowait, poke_timeout_s=LONG_S, pokes_at_once=8, xcom_max_kb=8)
    yield made
    await made.close()


def wait(fence: int, *, wait_until: datetime | None = None, **request: Any) -> BeginWait:
    asked = {"sensor": "Scripted", "args": {}, "poke_interval": 0.01} | request
    return BeginWait(fence, RUN, Instance(1, "t", fence=fence, wait_until=wait_until), asked)


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
async def test_what_has_come_when_it_is_too_large_to_be_kept(sensing: Sensing, posted: asyncio.Queue[Event]) -> None:
    sensing.begin(wait(1))
    Scripted.answers.put_nowait(PokeResult(True, ["x" * 1024] * 10))
    over = await ended(posted)
    assert (over.state, over.xcoms) == ("failed", ())
    assert over.error == (
        "FLX-3005: What the sensor Scripted found is 10 KB of JSON and at most 8 KB are kept: "
        "write it to a file or a table and return its name."
    )


@pytest.mark.anyio
async def test_when_the_time_of_a_wait_is_over_is_not_decided_here(
    sensing: Sensing, posted: asyncio.Queue[Event]
) -> None:
    sensing.begin(wait(1, timeout=0.0, wait_until=NOW - timedelta(days=1)))
    for _ in range(3):
        Scripted.answers.put_nowait(False)
    for _ in range(3):
        await Scripted.looks.get()
    assert posted.empty() and sensing.waiting == 1


@pytest.mark.anyio
async def test_nothing_is_left_of_a_wait_that_was_ended(sensing: Sensing) -> None:
    sensing.begin(wait(1, poke_interval=3600))
    await Scripted.looks.get()
    Scripted.answers.put_nowait(False)
    (poll,) = [task for task in asyncio.all_tasks() if task.get_name() == "probe Scripted"]
    sensing.end(1)
    async with asyncio.timeout(LONG_S):
        await poll


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
    sensing = Sensing(posted.put_nowait, poke_timeout_s=0.01, pokes_at_once=1, xcom_max_kb=8)
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
