"""The world of the simulation: a clock that jumps from event to event, a daemon that crashes, a runner, and people.

One seed is one life: some hours of virtual time in which everything may go wrong, then a calm in which everything that
lives must come to its end. The same seed gives the same life, step for step.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from heapq import heappop, heappush
from random import Random

from fluxd.core.commands import AckAttempt, Act, BeginWait, EndWait, KillAttempt, Reply, StartAttempt, Turn
from fluxd.core.events import (
    CancelRun,
    ClearTasks,
    DagLoaded,
    DagRemoved,
    Event,
    ForgetDag,
    MarkTasks,
    PauseDag,
    PoolSet,
    TriggerRun,
    WaitEnded,
)
from fluxd.core.model import InstanceKey, Run, RunState, State
from fluxd.core.scheduler import Scheduler
from fluxd.core.spec import DagSpec
from tests.sim import oracle
from tests.sim.authors import edited, random_dag
from tests.sim.database import Database, Violation, require
from tests.sim.runner import FakeRunner

# Ordinary days, and the nights on which clocks change in the zones of the random dags.
STARTS = tuple(
    datetime(*parts, tzinfo=UTC)
    for parts in ((2026, 1, 10, 9), (2025, 3, 29, 22), (2025, 10, 25, 21), (2025, 11, 2, 3), (2025, 4, 5, 12))
)
REQUESTS = ("trigger", "cancel", "clear", "mark", "pause", "unpause", "edit", "remove", "forget", "pool")
WEIGHTS = (10, 3, 5, 3, 2, 3, 2, 1, 0.5, 2)
STEPS_MAX = 20_000


class World:
    """One life. `live()` runs it; it raises Violation when a rule was broken."""

    def __init__(self, seed: int, traced: bool = False) -> None:
        self.rng = Random(seed)
        self.traced = traced  # the digest of all turns costs a fifth of the time
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.digest = blake2b(digest_size=8)
        self.start = self.now = self.rng.choice(STARTS)
        self.offset = timedelta()  # what the daemon's clock is wrong by
        self.ends = self.start + timedelta(minutes=self.rng.choice((30, 90, 240)))
        self.calm = False
        self.faulty = self.rng.choice((0.0, 0.02, 0.1))
        self.parallelism = self.rng.choice((1, 3, 8))
        self.db = Database()
        self.runner = FakeRunner(self.rng, self.faults)
        self._heap: list[tuple[datetime, int, Callable[[], None]]] = []
        self._serial = 0
        self._request = 0
        self._inbox: list[Event] = []
        self._turn_at: datetime | None = None
        self._connection = 0
        self._connected = False
        self._sent_until = self.now
        self._waits: dict[int, BeginWait] = {}
        self.scheduler: Scheduler | None = None
        self.specs: dict[str, DagSpec] = {}
        self._fresh: set[str] = set()  # dags edited in the turn that is being checked

    # -- one life -----------------------------------------------------------------------------------------------------

    def live(self) -> None:
        for number in range(self.rng.choice((1, 1, 2, 3))):
            self._write(random_dag(self.rng, f"dag{number}", self.start))
        for _ in range(self.rng.randrange(4, 16)):
            self._later(self.rng.uniform(0, (self.ends - self.start).total_seconds()), self._somebody_asks)
        self._boot()
        steps = 0
        while self._step():
            steps += 1
            require(steps < STEPS_MAX, "no end in sight after", steps, "steps")
            if not self.calm and self.now >= self.ends:
                self._calm_down()
        oracle.check_memory(self.db, self._daemon())
        self.counts["lives"] += 1
        self.counts["steps"] += steps
        self.counts["runs"] += len(self.db.runs)
        self.counts["attempts"] += len(self.db.attempts)
        self.counts["processes"] += self.runner.starts
        self.counts["seconds"] += int((self.now - self.start).total_seconds())

    def _daemon(self) -> Scheduler:
        assert self.scheduler is not None
        return self.scheduler

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._serial += 1
        heappush(self._heap, (self.now + timedelta(seconds=seconds), self._serial, action))

    def _step(self) -> bool:
        """The next thing that happens. False: nothing will ever happen any more."""
        wake = None
        if self.scheduler is not None:
            wake_at = self.scheduler.wake_at()
            wake = None if wake_at is None else max(self.now, wake_at - self.offset)
            if self._turn_at is not None:
                wake = self._turn_at if wake is None else min(wake, self._turn_at)
        if self._heap and (wake is None or self._heap[0][0] <= wake):
            self.now, _, action = heappop(self._heap)
            action()
            return True
        if wake is not None and self.calm and not self._inbox and not self.db.live_runs:
            return False  # only ticks to come
        if wake is None:
            return self.calm and self._unblock()
        self.now = wake
        self._turn()
        return True

    def _calm_down(self) -> None:
        """No more faults and no more wishes; all limits wide; the timetables stand still."""
        self.calm = True
        self.faulty = 0.0
        for name in self.db.pools:
            self.db.pools[name] = 50
            self._post(PoolSet(name, 50))
        for dag_id in self.db.dags:
            self._post(PauseDag(self._next_request(), dag_id, True))

    def _unblock(self) -> bool:
        """In the calm only a task that depends on its past may be stuck: somebody marks that past a success."""
        if not self.db.live_runs:
            return False
        require(not self._inbox, "messages left behind")
        for number, run in self.db.live_runs.items():
            if run.due_at is None:
                continue
            for why in self._daemon().explain(number):
                if "depends on its past" not in why.words:
                    continue
                before = max(due for dag, due in self.db.ticks if dag == run.dag_id and due < run.due_at)
                other = self.db.ticks[(run.dag_id, before)]
                key = (other, why.task_id, why.map_index)
                self.counts["unblocked"] += 1
                self._post(MarkTasks(self._next_request(), other, (key,), State.SUCCESS))
                return True
        reasons = [str(why) for number in self.db.live_runs for why in self._daemon().explain(number)]
        raise Violation(f"stuck: {reasons} {list(self.db.live_runs.values())}")

    # -- the daemon ---------------------------------------------------------------------------------------------------

    def _clock(self) -> datetime:
        return self.now + self.offset

    def _post(self, event: Event) -> None:
        if self.scheduler is None:
            return  # nobody listens
        self._inbox.append(event)
        if self._turn_at is None:
            self._turn_at = self.now + timedelta(seconds=self.rng.choice((0, 0, 0, 0.01, 2)))

    def _turn(self) -> None:
        """Drain the inbox as the engine does: a request for a finished run begins a batch of its own."""
        self._turn_at = None
        events, self._inbox = self._inbox, []
        batches: list[list[Event]] = [[]]
        for event in events:
            if isinstance(event, ClearTasks | MarkTasks | TriggerRun):
                batches.append([])
            batches[-1].append(event)
        for batch in batches:
            if self.scheduler is None:
                return  # it crashed: the rest of its inbox is lost
            self._handle([self._prepared(event) for event in batch])

    def _prepared(self, event: Event) -> Event:
        if isinstance(event, ClearTasks | MarkTasks) and not self._daemon().is_live(event.run_number):
            return replace(event, revive=self.db.revive(event.run_number))
        if isinstance(event, TriggerRun) and event.run_id is not None:
            return replace(event, taken=(event.dag_id, event.run_id) in self.db.run_ids)
        return event

    def _handle(self, events: list[Event]) -> None:
        scheduler = self._daemon()
        turn = scheduler.handle(events, self._clock())
        before = dict(self.specs)
        for event in events:
            if isinstance(event, DagLoaded):
                old = self.specs.get(event.spec.dag_id)
                if old is not None and old != event.spec:
                    self._fresh.add(event.spec.dag_id)
                self.specs[event.spec.dag_id] = event.spec
        self._save_and_act(turn, before)

    def _save_and_act(self, turn: Turn, specs: dict[str, DagSpec]) -> None:
        if self._chance("crash before the save"):
            self._crash()
            return
        self._save(turn, specs)
        if self._chance("crash between save and acts"):
            self._crash()
            return
        for act in turn.acts:
            if self._chance("crash between two acts", 0.3):
                self._crash()
                return
            self._act(act)

    def _save(self, turn: Turn, specs: dict[str, DagSpec]) -> None:
        db, saves = self.db, turn.saves
        if self.traced:
            self.digest.update(repr((self.now, turn)).encode())
        olds = {row.key: db.instances.get(row.key) for row in saves.instances}
        begun = {run.number for run in saves.runs if not runs_now(db.runs.get(run.number))}
        cursors = {cursor.dag_id: db.dags[cursor.dag_id].next_due_at for cursor in saves.cursors}
        paused = {dag_id for dag_id, row in db.dags.items() if row.paused}
        new = [run for run in saves.runs if run.number not in db.runs and run.due_at is not None]
        db.apply(saves)
        if self.rng.random() < 0.1:
            self.faults["commit repeated"] += 1
            db.apply(saves)
        oracle.check_turn(db, turn, olds, begun, self.specs, self.parallelism)
        for dag_id, owed in cursors.items():
            if owed is not None and dag_id in specs:
                old, newest = specs[dag_id], self.specs.get(dag_id, specs[dag_id])
                oracle.check_ticks(turn, old, newest, owed, self._clock(), dag_id in self._fresh, new)
        unpaused = {cursor.dag_id for cursor in saves.cursors if not cursor.paused}
        for run in new:
            require(run.dag_id not in paused - unpaused, "a paused dag made a run", run)
        self._fresh.clear()
        if self.scheduler is not None and self.rng.random() < 0.15:
            oracle.check_memory(db, self.scheduler)
            oracle.check_explained(db, self.scheduler, self._clock())

    def _act(self, act: Act) -> None:
        match act:
            case StartAttempt():
                self._send(lambda: self._runner_starts(act))
            case KillAttempt():
                self._send(lambda: self._runner_kills(act.fence))
            case AckAttempt():
                self._send(lambda: self.runner.acknowledge(act.fence))
            case BeginWait():
                self._begin_wait(act)
            case EndWait():
                self._waits.pop(act.fence, None)
            case Reply():
                self.counts["refused" if act.error is not None else "answered"] += 1

    def _boot(self) -> None:
        """A new daemon: memory from the database, then the runner's hello."""
        self.scheduler = Scheduler(self.parallelism)
        self._inbox, self._turn_at = [], None
        self._waits.clear()
        self.specs = {dag_id: row.spec for dag_id, row in self.db.dags.items() if row.seen_before}
        turn = self.scheduler.recover(self.db.snapshot(), self._clock())
        self.specs = {dag_id: row.spec for dag_id, row in self.db.dags.items()}
        self._save_and_act(turn, dict(self.specs))
        if self.scheduler is not None:
            self._connect(self._connection)
        if self.calm:
            self._calm_down()  # nobody listened the first time

    def _crash(self) -> None:
        """kill -9: what is not saved is gone, and so are the messages on their way."""
        self.scheduler = None
        self._disconnect()
        self._inbox, self._turn_at = [], None
        self._later(self.rng.choice((1, 5, 60, 3000)), self._boot)

    def _chance(self, fault: str, share: float = 1.0) -> bool:
        if self.faulty and self.rng.random() < self.faulty * share * 0.3:
            self.faults[fault] += 1
            return True
        return False

    # -- the connection to the runner ---------------------------------------------------------------------------------

    def _disconnect(self) -> None:
        """Everything on its way, in both directions, is lost."""
        self._connection += 1
        self._connected = False

    def _connect(self, connection: int) -> None:
        """The runner says hello; the daemon compares, and repeats what may have been lost."""
        if self.scheduler is None or connection != self._connection or self._connected:
            return
        self._connected = True
        self._sent_until = self.now
        known = self.runner.known()
        self._inbox.extend(self.runner.hello())
        self._inbox.extend(self.scheduler.vanished(known, self._clock()))
        self._turn()
        if self.scheduler is not None and self._connected:
            for act in self.scheduler.unsettled(known):
                self._act(act)

    def _send(self, order: Callable[[], None]) -> None:
        """To the runner: in order, a little later, or never if the connection breaks first."""
        if not self._connected:
            return
        if self._chance("connection broken"):
            self._disconnect()
            connection = self._connection
            self._later(self.rng.choice((0.5, 20)), lambda: self._connect(connection))
            return
        connection = self._connection
        self._sent_until = max(self._sent_until, self.now + timedelta(seconds=self.rng.choice((0, 0.01, 0.5))))

        def arrive() -> None:
            if connection == self._connection:
                order()

        self._later((self._sent_until - self.now).total_seconds(), arrive)

    def _tell(self, event: Event | None) -> None:
        """From the runner: late, twice or out of order, or never if the connection breaks first."""
        if event is None:
            return
        connection = self._connection
        delays = [self.rng.choice((0, 0, 0.01, 1))]
        if self._chance("message late", 3):
            delays = [self.rng.uniform(5, 900)]
        if self._chance("message repeated", 3):
            delays.append(self.rng.uniform(0, 900))
        for delay in delays:

            def arrive() -> None:
                if connection == self._connection and self._connected:
                    self._post(event)

            self._later(delay, arrive)

    def _runner_starts(self, act: StartAttempt) -> None:
        task = self.db.versions[act.version_id].by_id[act.instance.task_id]
        event = self.runner.start(act, task, self._clock(), 0)
        if event is None:
            return
        self._tell(event)
        seconds = self.rng.choice((0, 1, 5, 30, 120, 700))
        self._later(seconds, lambda: self._process_ends(act.fence))
        if self._chance("runner died"):
            self._runner_dies()

    def _process_ends(self, fence: int) -> None:
        self._tell(self.runner.end(fence, self._clock()))

    def _runner_kills(self, fence: int) -> None:
        if self.runner.kill(fence):
            self._later(self.rng.choice((0, 0.1, 10)), lambda: self._process_ends(fence))

    def _runner_dies(self) -> None:
        self.runner.die(self._clock())
        self._disconnect()
        connection = self._connection
        self._later(self.rng.choice((1, 30)), lambda: self._connect(connection))

    # -- sensors ------------------------------------------------------------------------------------------------------

    def _begin_wait(self, act: BeginWait) -> None:
        if act.fence in self._waits:
            return
        self._waits[act.fence] = act
        seconds = self.rng.choice((1, 60, 600, 5000))
        self._later(seconds, lambda: self._poked(act))

    def _poked(self, act: BeginWait) -> None:
        """The poll came to an end, unless the daemon that polled is gone or was told to stop."""
        if self._waits.get(act.fence) is not act:
            return
        if self._chance("wait repeated", 3):
            self._post(WaitEnded(act.fence, "success", self._clock()))
        else:
            del self._waits[act.fence]
        state = self.rng.choices(("success", "failed", "skipped"), (6, 2, 1))[0]
        error = "FileNotFoundError: no" if state == "failed" else None
        self._post(WaitEnded(act.fence, state, self._clock(), (("return_value", 1),), error))

    # -- people -------------------------------------------------------------------------------------------------------

    def _next_request(self) -> int:
        self._request += 1
        return self._request

    def _write(self, spec: DagSpec) -> None:
        """A dag file is saved; the daemon loads it."""
        version = self.db.store_version(spec)
        self._post(DagLoaded(spec, version))

    def _somebody_asks(self) -> None:
        if self.calm:
            return
        if self.faulty and self.rng.random() < 0.1:
            self._world_fault()
        rng = self.rng
        dag_id = f"dag{rng.randrange(3)}"
        request = self._next_request()
        match rng.choices(REQUESTS, WEIGHTS)[0]:
            case "trigger":
                run_id = rng.choice((None, None, f"mine{rng.randrange(4)}"))
                date = rng.choice((None, None, self.start))
                self._post(TriggerRun(request, dag_id, run_id, date))
            case "pause":
                self._post(PauseDag(request, dag_id, True))
            case "unpause":
                self._post(PauseDag(request, dag_id, False))
            case "edit":
                known = self.db.dags.get(dag_id)
                self._write(
                    random_dag(rng, dag_id, self.start) if known is None else edited(rng, known.spec, self.start)
                )
            case "remove" if dag_id in self.db.dags:
                self.db.dags[dag_id].removed = True
                self._post(DagRemoved(dag_id))
            case "forget":
                self._post(ForgetDag(request, dag_id))
            case "pool":
                name = rng.choice(tuple(self.db.pools))
                self.db.pools[name] = rng.choice((0, 1, 2, 4))
                self._post(PoolSet(name, self.db.pools[name]))
            case about_a_run:
                self._somebody_asks_of_a_run(request, about_a_run)

    def _somebody_asks_of_a_run(self, request: int, verb: str) -> None:
        rng = self.rng
        if not self.db.runs:
            return
        number = rng.choice(list(self.db.runs)[-6:])
        rows = self.db.by_run[number]
        keys: tuple[InstanceKey, ...] = ()
        if rows:
            keys = tuple(
                rows[task_id].key for task_id in rng.sample(list(rows), rng.randrange(1, min(3, len(rows)) + 1))
            )
        match verb:
            case "cancel":
                self._post(CancelRun(request, number))
            case "clear":
                keys = keys if rng.random() < 0.6 else ()
                self._post(ClearTasks(request, number, keys, rng.random() < 0.7, rng.random() < 0.3))
            case "mark":
                self._post(MarkTasks(request, number, keys, rng.choice((State.SUCCESS, State.FAILED, State.SKIPPED))))

    def _world_fault(self) -> None:
        match self.rng.randrange(3):
            case 0:
                self.faults["clock set back"] += 1
                self.offset -= timedelta(seconds=self.rng.choice((1, 600, 4000)))
            case 1:
                self.faults["clock set forward"] += 1
                self.offset += timedelta(seconds=self.rng.choice((1, 600, 30000)))
            case _:
                self.faults["runner died"] += 1
                self._runner_dies()


def runs_now(run: Run | None) -> bool:
    return run is not None and run.state is RunState.RUNNING
