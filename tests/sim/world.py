"""The world of the simulation: virtual time, a daemon that crashes, a database and a runner that fail, and people.

One seed is one life: some hours of virtual time in which everything may go wrong, then a calm in which everything that
lives must come to its end. The same seed gives the same life, step for step.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from random import Random
from typing import Any

from fluxd import sensors
from fluxd.core.events import CancelRun, Event, MarkTasks, PauseDag, PoolSet
from fluxd.core.moment import Moment
from fluxd.core.states import State
from fluxd.errors import Invalid
from fluxd.observations import LOG
from fluxd.sensors import PokeResult
from tests.sim.authors import random_dag
from tests.sim.clock import VirtualLoop
from tests.sim.daemon import Fluxd
from tests.sim.oracle import Oracle
from tests.sim.people import wish
from tests.sim.postgres import Server
from tests.sim.runner import Runner
from tests.sim.tables import Tables
from tests.sim.violation import Violation

# Ordinary days, and the nights on which clocks change in the zones of the random dags.
STARTS = tuple(
    datetime(*parts, tzinfo=UTC)
    for parts in ((2026, 1, 10, 9), (2025, 3, 29, 22), (2025, 10, 25, 21), (2025, 11, 2, 3), (2025, 4, 5, 12))
)
CALM_HOURS_MAX = 400
# The clocks that know no date count from anywhere.
AWAKE_FROM, ELAPSED_FROM = timedelta(days=3), timedelta(days=11)


@dataclass
class Question:
    """What some sensors wait for: how it answers, and from when."""

    true_at: datetime | None
    kind: str  # true | broken | hangs | refused
    value: Any
    last_poke: datetime | None = None


class Listener(logging.Handler):
    """Hears of turns that were undone: a bug that is contained is a bug all the same."""

    def __init__(self, broken: Callable[[BaseException], None]) -> None:
        super().__init__(logging.ERROR)
        self._broken = broken

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "seen", "") in ("turn_undone", "recovery_retried"):
            error = record.exc_info[1] if record.exc_info else None
            self._broken(error or Violation(record.getMessage()))


class SimSensor:
    """The sensor that the daemon polls; the present life answers."""

    world: "World"

    def __init__(self, name: str) -> None:
        self.name = name

    async def poke(self, context: Any) -> PokeResult:
        return await self.world.poked(self.name)


sensors.SHIPPED["Sim"] = SimSensor  # type: ignore[assignment]


class World:
    """One life. `live()` runs it; it raises Violation when a rule was broken."""

    def __init__(self, seed: int, traced: bool = False) -> None:
        self.rng = Random(seed)
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.traced = traced
        self.digest = blake2b(digest_size=8)
        self.start = self.rng.choice(STARTS)
        self.faulty = self.rng.choice((0.0, 0.02, 0.1))
        self.parallelism = self.rng.choice((1, 3, 8))
        self.minutes = self.rng.choice((30, 90, 240))
        self.offset = timedelta()  # what the wall clock is wrong by
        self.slept = timedelta()  # how long the machine was asleep
        self.nights = Random(seed + 1)  # apart, so that a seed is the same life but for its sleep
        self.calm = False
        self.ready_since = 0.0  # trouble is over from here on: now everything must be in time
        self.questions: dict[str, Question] = {}
        self.half = False  # only up to the calm
        self.tables = Tables()
        self.loop = VirtualLoop(self.start)
        self.server = Server(self, self.tables)
        self.runner = Runner(self)
        self.oracle = Oracle(self)
        self.fluxd: Fluxd | None = None
        self.broken: BaseException | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        SimSensor.world = self

    # -- time -----------------------------------------------------------------------------------------------------

    def clock_time(self) -> float:
        return self.loop.time()

    def daemon_now(self) -> datetime:
        """What the wall clock shows."""
        return self.loop.moment() + self.slept + self.offset

    def moment(self) -> Moment:
        """All three clocks. The event loop goes by the time awake, and so do the processes."""
        awake = self.loop.moment() - self.start
        return Moment(self.daemon_now(), AWAKE_FROM + awake, ELAPSED_FROM + awake + self.slept)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self.loop.call_later(max(0.0, seconds), action)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._break(error)

    def _break(self, error: BaseException) -> None:
        if self.broken is None:
            self.broken = error
        self.loop.stop()

    def chance(self, fault: str, share: float = 1.0) -> bool:
        """Whether this fault strikes now; it is counted if so."""
        if self.faulty and self.rng.random() < self.faulty * share * 0.3:
            self.faults[fault] += 1
            return True
        return False

    def disturbed(self, seconds: float) -> None:
        """For so long nothing needs to be in time."""
        self.ready_since = max(self.ready_since, self.clock_time() + seconds)

    # -- a life ---------------------------------------------------------------------------------------------------

    def live(self) -> None:
        level, propagate = LOG.level, LOG.propagate
        listener = Listener(self._break)
        LOG.setLevel(logging.ERROR)
        LOG.propagate = False
        LOG.addHandler(listener)
        asyncio.set_event_loop(self.loop)
        self.loop.set_exception_handler(lambda _, facts: self._break(facts.get("exception") or Violation(str(facts))))
        try:
            self.spawn(self._life())
            self.loop.run_forever()
            if self.broken is not None:
                raise self.broken
        finally:
            LOG.removeHandler(listener)
            LOG.setLevel(level)
            LOG.propagate = propagate
            self._close()
        seconds = int(self.clock_time())
        self.counts += Counter(
            lives=1,
            turns=self.oracle.turns,
            runs=self.tables.run_number,
            attempts=self.tables.fence,
            seconds=seconds,
        )

    def _close(self) -> None:
        self.loop.set_exception_handler(lambda _, facts: None)
        if self.fluxd is not None:
            self.fluxd.kill()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        self.loop.close()
        asyncio.set_event_loop(None)

    async def _life(self) -> None:
        for number in range(self.rng.choice((1, 1, 2, 3))):
            self.tables.store_version(random_dag(self.rng, f"dag{number}", self.start))
        for _ in range(self.rng.randrange(4, 18)):
            self.later(self.rng.uniform(0, self.minutes * 60), self._somebody_asks)
        for _ in range(self.nights.randrange(3) if self.faulty else 0):
            self.later(self.nights.uniform(0, self.minutes * 60), self._sleep)
        self._boot()
        for _ in range(self.minutes // 10):
            await asyncio.sleep(600)
            self.oracle.look_at_the_clock()
        if self.half:
            self.loop.stop()
            return
        await self._calm_down()
        await asyncio.sleep(60)
        if self.fluxd is not None and self.fluxd.link.connected:
            self.fluxd.link.lose()
            self.fluxd.link.reconnect()
            await asyncio.sleep(60)
        assert self.fluxd is not None
        self.oracle.at_the_end(self.fluxd)
        self.loop.stop()

    async def _calm_down(self) -> None:
        """No more faults and no more wishes; all limits wide; the timetables stand still. Then all must end."""
        self.calm = True
        self.faulty = 0.0
        self.disturbed(100)
        while self.fluxd is None or not self.fluxd.up or self.clock_time() < self.server.away_until:
            await asyncio.sleep(60)  # until whoever crashed is back
        for _ in range(CALM_HOURS_MAX):
            assert self.fluxd is not None
            for name in self.tables.pools:
                self.tables.pools[name] = 50
                self.fluxd.post(PoolSet(name, 50))
            for dag_id, entry in self.tables.dags.items():
                if not entry.paused:
                    self.ask(lambda number, dag_id=dag_id: PauseDag(number, dag_id, True))
            for _ in range(7):
                await asyncio.sleep(100)
                if not self.tables.live_runs:
                    break
            self.oracle.look_at_the_clock()
            if not self.tables.live_runs:
                return
            self._unblock()
        reasons = [str(why) for number in self.tables.live_runs for why in self.fluxd.engine.scheduler.explain(number)]
        raise Violation(f"stuck: {reasons} {list(self.tables.live_runs.values())}")

    def _unblock(self) -> None:
        """In the calm only two things may be stuck, and somebody frees them: a process that never ends by itself, and
        a task that depends on a past that went wrong."""
        assert self.fluxd is not None
        tables = self.tables
        for number in {process.key[0] for process in self.runner.running.values()}:
            if number in tables.live_runs:
                self.counts["endless"] += 1
                self.ask(lambda request, number=number: CancelRun(request, number))
        for number, run in tables.live_runs.items():
            for why in self.fluxd.engine.scheduler.explain(number):
                if run.due_at is not None and "depends on its past" in why.words:
                    ticks = tables.ticks[run.dag_id]
                    other = ticks[max(due for due in ticks if due < run.due_at)]
                    key = (other, why.task_id, why.map_index)
                    self.counts["unblocked"] += 1
                    self.ask(lambda request, other=other, key=key: MarkTasks(request, other, (key,), State.SUCCESS))

    # -- the daemon -----------------------------------------------------------------------------------------------

    def _boot(self) -> None:
        self.disturbed(15)
        self.fluxd = Fluxd(self)

    def crash(self) -> None:
        """kill -9 of fluxd; it is started again after a while."""
        if self.fluxd is not None:
            self.fluxd.kill()
            self.fluxd = None
            self.oracle.crashed()
            wait = 5 if self.calm else self.rng.choice((1, 5, 60, 3000))
            self.disturbed(wait + 80)
            self.later(wait, self._boot)

    def post(self, event: Event) -> None:
        if self.fluxd is not None:
            self.fluxd.post(event)

    def ask(self, make: Callable[[int], Event]) -> None:
        if self.fluxd is not None and self.fluxd.up:
            self.spawn(self._ask(self.fluxd, make))

    async def _ask(self, fluxd: Fluxd, make: Callable[[int], Event]) -> None:
        try:
            await fluxd.ask(make)
        except BaseException:
            if fluxd.alive:
                raise

    def tell(self, event: Event | None) -> None:
        if self.fluxd is not None:
            self.fluxd.link.tell(event)

    def process_ends(self, fence: int) -> None:
        self.tell(self.runner.end(fence, self.daemon_now()))

    def runner_dies(self) -> None:
        self.runner.die(self.daemon_now())
        if self.fluxd is not None:
            self.fluxd.link.break_for(self.rng.choice((1, 30)))

    # -- sensors --------------------------------------------------------------------------------------------------

    def new_wait(self) -> dict[str, Any]:
        """What a sensor's process asks the daemon to wait for."""
        rng = self.rng
        name = f"q{rng.randrange(len(self.questions) + 1)}"
        if name not in self.questions:
            name = f"q{len(self.questions)}"
            after = rng.choice((1, 60, 600, 5000, None))
            kind = rng.choices(("true", "broken", "hangs", "refused"), (12, 1, 1, 1))[0] if self.faulty else "true"
            true_at = None if after is None else self.loop.moment() + timedelta(seconds=after)
            self.questions[name] = Question(true_at, kind, rng.choice((None, 5, "x")))
        return {
            "sensor": "Sim",
            "args": {"name": name},
            "poke_interval": rng.choice((20.0, 60.0, 300.0)),
            "exponential_backoff": rng.random() < 0.3,
            "timeout": rng.choice((None, 120.0, 900.0)),
            "soft_fail": rng.random() < 0.3,
        }

    async def poked(self, name: str) -> PokeResult:
        question = self.questions.get(name)
        if question is None:
            return PokeResult(True, 1)
        question.last_poke = self.loop.moment()
        self.oracle.poked(name)
        there = self.calm or (question.true_at is not None and self.loop.moment() >= question.true_at)
        if not self.calm:
            if question.kind == "broken":
                raise OSError("no such disk")
            if question.kind == "hangs" and self.rng.random() < 0.5:
                await asyncio.sleep(100)
            if question.kind == "refused" and there:
                raise Invalid("FLX-3043", "It means nothing.")
        return PokeResult(there, question.value)

    # -- people, and what goes wrong by itself ---------------------------------------------------------------------

    def _somebody_asks(self) -> None:
        if self.calm:
            return
        if self.faulty and self.rng.random() < 0.1:
            self._world_fault()
        made = wish(self.rng, self.tables, self.start)
        if made is None:
            return
        if isinstance(made, Event):
            self.post(made)
        else:
            self.ask(made)

    def _world_fault(self) -> None:
        match self.rng.randrange(3):
            case 0:
                self.faults["clock set back"] += 1
                self.offset -= timedelta(seconds=self.rng.choice((1, 600, 4000)))
                self._clock_moved()
            case 1:
                self.faults["clock set forward"] += 1
                self.offset += timedelta(seconds=self.rng.choice((1, 600, 30000)))
                self._clock_moved()
            case _:
                self.faults["runner died"] += 1
                self.runner_dies()

    def _sleep(self) -> None:
        """The machine is put to sleep, and goes on later where it stood."""
        if not self.calm:
            self.faults["machine asleep"] += 1
            self.slept += timedelta(seconds=self.nights.choice((60, 600, 30000)))
            self._clock_moved()

    def _clock_moved(self) -> None:
        """The engine looks at the clock once a minute: then all that is due has happened."""
        self.disturbed(65)
        self.later(68, self.oracle.look_at_the_clock)
