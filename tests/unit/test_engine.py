"""The engine: nothing is done before it is saved, and every request gets its answer. With a real scheduler."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fluxd.containment import Containment
from fluxd.core.commands import BeginWait, Saves, StartAttempt
from fluxd.core.events import AttemptEnded, CancelRun, ClearTasks, DagLoaded, TriggerRun
from fluxd.core.model import Instance, InstanceKey, Run
from fluxd.core.moment import Moment
from fluxd.core.scheduler import Scheduler
from fluxd.core.snapshot import DagRow, Revived, Snapshot
from fluxd.core.spec import LOCAL
from fluxd.engine import Engine
from fluxd.errors import FluxError, Unavailable
from fluxd.store.loading import Loaded
from tests.unit.core.dialogue import NOON, SUCCESS, dag, task

SPEC = dag(task("a"), task("b", "a"))
LONG_S = 10.0


class World:
    """The database and the executor of an engine: what came to them, in order."""

    def __init__(self) -> None:
        self.journal: list[tuple[str, Any]] = []
        self.runs: dict[int, Run] = {}
        self.instances: dict[InstanceKey, Instance] = {}
        self.open = asyncio.Event()  # cleared: saving takes as long as the test wants
        self.open.set()
        self.saving = asyncio.Event()
        self.away: FluxError | None = None
        self.engine = Engine(
            Scheduler(),
            save=self.save,
            revive=self.revive,
            run_id_taken=self.run_id_taken,
            start_messages=self.start_messages,
            on_saved=lambda saves: self.journal.append(("told", saves)),
        )
        self.engine.executors = {LOCAL: self}
        self.engine.waiting = self

    async def save(self, saves: Saves) -> None:
        self.saving.set()
        await self.open.wait()
        self.runs.update({run.number: run for run in saves.runs})
        self.instances.update({row.key: row for row in saves.instances})
        self.journal.append(("saved", saves))

    async def revive(self, run_number: int) -> Revived | None:
        if self.away:
            raise self.away
        rows = [row for key, row in self.instances.items() if key[0] == run_number]
        return Revived(self.runs[run_number], SPEC, rows) if run_number in self.runs else None

    async def run_id_taken(self, event: TriggerRun) -> bool:
        return any(run.run_id == event.run_id for run in self.runs.values())

    async def start_messages(self, starts: list[StartAttempt]) -> list[dict[str, Any]]:
        return [{"fence": start.fence, "task_id": start.instance.task_id} for start in starts]

    def start(self, messages: list[dict[str, Any]]) -> None:
        self.journal += [("start", message["fence"]) for message in messages]

    def kill(self, fence: int, reason: str) -> None:
        self.journal.append(("kill", fence))

    def ack(self, fences: list[int]) -> None:
        self.journal.append(("ack", fences))

    def begin(self, command: BeginWait) -> None:
        self.journal.append(("begin", command.fence))

    def end(self, fence: int) -> None:
        self.journal.append(("end", fence))

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.journal]

    def starts(self) -> list[int]:
        return [value for kind, value in self.journal if kind == "start"]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(LONG_S):
            await self.engine.until(lambda: len(self.starts()) >= count)

    async def trigger(self, **fields: Any) -> Any:
        async with asyncio.timeout(LONG_S):
            return await self.engine.ask(lambda number: TriggerRun(number, "d", **fields))

    def ended(self, fence: int) -> None:
        self.engine.post(AttemptEnded(fence, 1, NOON, NOON, outcome=SUCCESS))

    async def whole_run(self) -> None:
        await self.trigger(run_id="one")
        self.ended(1)
        await self.until(2)
        self.ended(2)
        async with asyncio.timeout(LONG_S):
            await self.engine.until(lambda: not self.engine.scheduler.is_live(1))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.engine.perform(made.engine.scheduler.recover(Snapshot(), Moment.at(NOON)))
    made.engine.post(DagLoaded(SPEC, 1))
    task = asyncio.create_task(made.engine.run())
    async with asyncio.timeout(LONG_S):
        await made.engine.until(lambda: made.engine.scheduler.counts()["dags"] == 1)
    made.journal.clear()
    made.saving.clear()
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.anyio
async def test_saved_then_told_then_started_then_answered(world: World) -> None:
    world.open.clear()
    asked = asyncio.create_task(world.trigger())
    await world.saving.wait()
    assert not asked.done() and world.journal == []
    world.open.set()
    assert (await asked)["dag_id"] == "d"
    kinds = world.kinds()
    assert kinds.index("saved") < kinds.index("told") < kinds.index("start")
    assert world.starts() == [1]


@pytest.mark.anyio
async def test_what_comes_while_a_turn_is_saved_is_one_turn(world: World) -> None:
    await world.trigger()
    world.open.clear()
    world.saving.clear()
    first = asyncio.create_task(world.trigger())
    await world.saving.wait()
    turns = world.engine.turns
    world.ended(1)
    world.engine.post(DagLoaded(dag(task("x"), dag_id="e"), 2))
    world.open.set()
    await first
    await world.until(3)
    assert world.engine.turns == turns + 2


@pytest.mark.anyio
async def test_a_refusal_is_raised_where_it_was_asked(world: World) -> None:
    await world.trigger(run_id="one")
    with pytest.raises(FluxError, match="one"):
        await world.trigger(run_id="one")


@pytest.mark.anyio
async def test_clearing_a_finished_run_revives_it(world: World) -> None:
    await world.whole_run()
    assert world.runs[1].state == "success"
    answer = await world.engine.ask(lambda number: ClearTasks(number, 1, ((1, "b", -1),)))
    assert answer == {"cleared": [["b", -1]], "note": None}
    await world.until(3)
    assert world.engine.scheduler.is_live(1)
    assert world.instances[1, "a", -1].state == "success"


@pytest.mark.anyio
async def test_a_database_that_is_away_is_told_to_who_asked_and_harms_nobody(world: World) -> None:
    await world.whole_run()
    world.away = Unavailable("FLX-5009", "The database is away.")
    with pytest.raises(Unavailable, match="FLX-5009"):
        await world.engine.ask(lambda number: ClearTasks(number, 1))
    assert (await world.trigger())["dag_id"] == "d"


@pytest.mark.anyio
async def test_a_start_that_got_lost_is_repeated_and_one_that_arrived_is_not(world: World) -> None:
    await world.trigger()
    await world.trigger()
    await world.engine.reconcile(LOCAL, {1})
    await world.until(3)
    assert world.starts() == [1, 2, 2]


class Elsewhere:
    """Another executor: what came to it."""

    def __init__(self) -> None:
        self.journal: list[tuple[str, Any]] = []

    async def open(self) -> set[int]:
        return set()

    def start(self, messages: list[dict[str, Any]]) -> None:
        self.journal += [("start", message["fence"]) for message in messages]

    def kill(self, fence: int, reason: str) -> None:
        self.journal.append(("kill", fence))

    def ack(self, fences: list[int]) -> None:
        self.journal.append(("ack", fences))

    async def stop(self) -> None: ...

    async def close(self) -> None: ...


BOTH = dag(task("here"), task("there", executor="celery"))


@pytest.mark.anyio
async def test_commands_go_to_the_executor_of_their_attempt(world: World) -> None:
    world.engine.executors["celery"] = elsewhere = Elsewhere()
    world.engine.post(DagLoaded(BOTH, 2))
    run = await world.trigger()
    await world.until(1)
    assert (world.starts(), elsewhere.journal) == ([1], [("start", 2)])
    await world.engine.reconcile(LOCAL, set())  # the runner lost everything, and that is no news of the other
    await world.until(2)
    assert (world.starts(), elsewhere.journal) == ([1, 1], [("start", 2)])
    world.engine.post(AttemptEnded(1, 1, NOON, NOON, outcome=SUCCESS))
    number = next(number for number, row in world.runs.items() if row.run_id == run["run_id"])
    await world.engine.ask(lambda request: CancelRun(request, number))
    assert elsewhere.journal == [("start", 2), ("kill", 2)] and ("kill", 1) not in world.journal
    world.engine.post(AttemptEnded(2, 1, NOON, NOON, outcome=None, executor="celery"))
    async with asyncio.timeout(LONG_S):
        await world.engine.until(lambda: not world.engine.scheduler.is_live(number))
    assert elsewhere.journal[-1] == ("ack", [2]) and ("ack", [1]) in world.journal


@pytest.mark.anyio
async def test_what_is_with_an_executor_that_is_not_there_fails_with_a_sentence(world: World) -> None:
    world.engine.post(DagLoaded(BOTH, 2))
    await world.trigger()
    async with asyncio.timeout(LONG_S):
        await world.engine.until(lambda: world.instances[1, "there", -1].state == "failed")
    assert str(world.instances[1, "there", -1].reason).startswith("FLX-3521: There is no executor 'celery' here")
    assert world.instances[1, "here", -1].state == "queued"


@pytest.mark.anyio
async def test_who_gave_up_asking_is_no_trouble(world: World) -> None:
    world.open.clear()
    asked = asyncio.create_task(world.trigger())
    await world.saving.wait()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    world.open.set()
    assert (await world.trigger())["dag_id"] == "d"


@pytest.mark.anyio
async def test_who_waits_when_it_stops_hears_why() -> None:
    world = World()
    world.open.clear()
    world.engine.post(DagLoaded(SPEC, 1))
    running = asyncio.create_task(world.engine.run())
    asked = asyncio.create_task(world.trigger())
    await world.saving.wait()
    running.cancel()
    with pytest.raises(Unavailable, match="FLX-4090"):
        await asked
    with pytest.raises(Unavailable, match="FLX-4090"):
        await world.trigger()


class Undone(World):
    """A database from which a scheduler can recover, and a save that raises when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.now = Moment.at(NOON)
        self.spec = dag(task("a", retries=1, retry_delay=300.0))
        self.raises: list[Exception] = []
        self.engine = Engine(
            Scheduler(),
            contain=Containment(Scheduler, self),  # type: ignore[arg-type]
            save=self.save,
            revive=self.revive,
            run_id_taken=self.run_id_taken,
            start_messages=self.start_messages,
            on_saved=lambda saves: None,
            clock=lambda: self.now,
        )
        self.engine.executors = {LOCAL: self}
        self.engine.waiting = self

    async def save(self, saves: Saves) -> None:
        if self.raises:
            raise self.raises.pop()
        await super().save(saves)

    async def load(self) -> Loaded:
        dags = [DagRow(self.spec, 1, False, None)]
        runs, rows = list(self.runs.values()), list(self.instances.values())
        return Loaded(
            Snapshot(dags=dags, versions={1: self.spec}, runs=runs, instances=rows, last_run_number=1, last_fence=1)
        )

    async def rehearse(self, saves: Saves) -> None:
        """Nothing is wrong with what the recovery saves."""

    async def end_orphans(self, fences: list[int], reason: str) -> None:
        assert not fences


@pytest.mark.anyio
async def test_what_the_clock_was_set_by_is_not_lost_with_a_turn_that_is_undone() -> None:
    world, hour = Undone(), timedelta(hours=1)
    engine = world.engine
    await engine.perform(engine.scheduler.recover(Snapshot(), world.now))
    for event in (DagLoaded(world.spec, 1), TriggerRun(0, "d"), AttemptEnded(1, 1, NOON, NOON, exit_code=1)):
        await engine._turn([event])
    paused = world.instances[1, "a", -1]
    assert paused.retry_at == NOON + timedelta(minutes=5)
    world.now = replace(world.now, wall=NOON + hour)
    world.raises = [RuntimeError("on purpose")]
    await engine._turn([])
    assert not world.raises
    assert world.instances[1, "a", -1] == replace(paused, retry_at=paused.retry_at + hour)
