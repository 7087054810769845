"""The world of the simulation: a clock that jumps from event to event, a daemon that crashes, a runner, and people.

One seed is one life: some hours of virtual time in which everything may go wrong, then a calm in which everything that
lives must come to its end. The same seed gives the same life, step for step.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import blake2b

from fluxd.core.commands import AckAttempt, BeginWait, Command, EndWait, KillAttempt, Reply, StartAttempt, Turn
from fluxd.core.events import (
    CancelRun,
    ClearTasks,
    DagLoaded,
    Event,
    MarkTasks,
    PauseDag,
    PoolSet,
    TriggerRun,
    WaitEnded,
)
from fluxd.core.scheduler import Scheduler
from fluxd.core.spec import LOCAL, WAITING_ROOM, DagSpec
from fluxd.core.states import AttemptState, RunState, State
from tests.sim import oracle
from tests.sim.authors import random_dag
from tests.sim.database import Database, Violation, require
from tests.sim.people import save_file, wish
from tests.sim.runner import FakeRunner
from tests.sim.timeline import Timeline

STEPS_MAX = 20_000


class World(Timeline):
    """One life. `live()` runs it; it raises Violation when a rule was broken."""

    def __init__(self, seed: int, traced: bool = False) -> None:
        super().__init__(seed)
        self.traced = traced  # the digest of all turns costs a fifth of the time
        self.digest = blake2b(digest_size=8)
        self.offset = timedelta()  # what the daemon's clock is wrong by
        self.ends = self.start + timedelta(minutes=self.rng.choice((30, 90, 240)))
        self.calm = False
        self.parallelism = self.rng.choice((1, 3, 8))
        self.db = Database()
        self.runner = FakeRunner(self.rng, self.faults)
        self._request = 0
        self._inbox: list[Event] = []
        self._turn_at: datetime | None = None
        self._connection = 0
        self._connected = False
        self._parted = False
        self._sent_until = self.now
        self._waits: dict[int, BeginWait] = {}
        self.scheduler: Scheduler | None = None
        self.specs: dict[str, DagSpec] = {}
        self._fresh: set[str] = set()  # dags edited in the turn that is being checked

    def live(self) -> None:
        for number in range(self.rng.choice((1, 1, 2, 3))):
            self._post(save_file(self.db, random_dag(self.rng, f"dag{number}", self.start)))
        for _ in range(self.rng.randrange(4, 16)):
            self.later(self.rng.uniform(0, (self.ends - self.start).total_seconds()), self._somebody_asks)
        self._boot()
        steps = 0
        while self._step():
            steps += 1
            require(steps < STEPS_MAX, "no end in sight after", steps, "steps")
            if not self.calm and self.now >= self.ends:
                self._calm_down()
        oracle.check_working_set(self.db, self.daemon)
        require(not self.runner.known(), "never acknowledged:", self.runner.known())
        seconds = int((self.now - self.start).total_seconds())
        self.counts += Counter(
            lives=1, steps=steps, runs=self.db.run_number, attempts=len(self.db.attempts), seconds=seconds
        )

    def _step(self) -> bool:
        """The next thing that happens. False: nothing will ever happen any more."""
        wake = None
        if self.scheduler is not None:
            wake_at = self.scheduler.wake_at()
            wake = None if wake_at is None else max(self.now, wake_at - self.offset)
            if self._turn_at is not None:
                wake = self._turn_at if wake is None else min(wake, self._turn_at)
        only_ticks = self.calm and not self._inbox and not self.db.live_runs
        ahead = self.next_at()
        if ahead is not None and (wake is None or only_ticks or ahead <= wake):
            self.happen()
            return True
        if wake is not None and only_ticks:
            return self._say_goodbye()
        if wake is None:
            self.now = max(self.now, self.ends)
            return self._unblock() if self.calm else True
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

    def _say_goodbye(self) -> bool:
        """The end of a life: one more hello, after which nothing may be left that was not acknowledged."""
        if self._parted:
            return False
        self._parted = True
        self._disconnect()
        self._connect(self._connection)
        return True

    def _unblock(self) -> bool:
        """In the calm only two things may be stuck, and somebody frees them: a process that never ends by itself, and
        a task that depends on a past that went wrong."""
        if not self.db.live_runs:
            return self._say_goodbye()
        require(not self._inbox, "messages left behind")
        for process in self.runner.running.values():
            attempt = self.db.attempts[process.fence]
            if self.db.instances[process.key].stop_reason is None and attempt.state is AttemptState.RUNNING:
                self.counts["endless"] += 1
                self._post(CancelRun(self._next_request(), process.key[0]))
                return True
        for number, run in self.db.live_runs.items():
            if run.due_at is None:
                continue
            for why in self.daemon.explain(number):
                if "depends on its past" not in why.words:
                    continue
                before = max(due for dag, due in self.db.ticks if dag == run.dag_id and due < run.due_at)
                other = self.db.ticks[(run.dag_id, before)]
                key = (other, why.task_id, why.map_index)
                self.counts["unblocked"] += 1
                self._post(MarkTasks(self._next_request(), other, (key,), State.SUCCESS))
                return True
        reasons = [str(why) for number in self.db.live_runs for why in self.daemon.explain(number)]
        raise Violation(f"stuck: {reasons} {list(self.db.live_runs.values())}")

    # -- the daemon ---------------------------------------------------------------------------------------------------

    @property
    def daemon(self) -> Scheduler:
        assert self.scheduler is not None
        return self.scheduler

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
        if isinstance(event, ClearTasks | MarkTasks) and not self.daemon.is_live(event.run_number):
            return replace(event, revive=self.db.revive(event.run_number))
        if isinstance(event, TriggerRun) and event.run_id is not None:
            return replace(event, taken=(event.dag_id, event.run_id) in self.db.run_ids)
        return event

    def _handle(self, events: list[Event]) -> None:
        scheduler = self.daemon
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
        if self.chance("crash before the save"):
            self._crash()
            return
        self._save(turn, specs)
        if self.chance("crash between save and commands"):
            self._crash()
            return
        for command in turn.commands:
            if self.chance("crash between two commands", 0.3):
                self._crash()
                return
            self._carry_out(command)

    def _save(self, turn: Turn, specs: dict[str, DagSpec]) -> None:
        db, saves = self.db, turn.saves
        if self.traced:
            self.digest.update(repr((self.now, turn)).encode())
        olds = {row.key: db.instances.get(row.key) for row in saves.instances}
        ran = {number for number, run in db.live_runs.items() if run.state is RunState.RUNNING}
        cursors = {cursor.dag_id: db.dags[cursor.dag_id].next_due_at for cursor in saves.cursors}
        paused = {dag_id for dag_id, row in db.dags.items() if row.paused}
        new = [run for run in saves.runs if run.number not in db.runs and run.due_at is not None]
        db.apply(saves)
        if self.rng.random() < 0.1:
            self.faults["commit repeated"] += 1
            db.apply(saves)
        oracle.check_turn(db, turn, olds, ran, self.specs, self.parallelism)
        for dag_id, owed in cursors.items():
            if owed is not None and dag_id in specs:
                old, newest = specs[dag_id], self.specs.get(dag_id, specs[dag_id])
                handled = max((due for whose, due in db.ticks if whose == dag_id), default=owed)
                oracle.check_ticks(turn, old, newest, owed, self._clock(), dag_id in self._fresh, new, handled)
        unpaused = {cursor.dag_id for cursor in saves.cursors if not cursor.paused}
        for run in new:
            require(run.dag_id not in paused - unpaused, "a paused dag made a run", run)
        self._fresh.clear()
        if self.scheduler is not None and self.rng.random() < 0.15:
            oracle.check_working_set(db, self.scheduler)
            oracle.check_explained(db, self.scheduler, self._clock())

    def _carry_out(self, command: Command) -> None:
        match command:
            case StartAttempt():
                self._send(lambda: self._runner_starts(command))
            case KillAttempt():
                self._send(lambda: self._runner_kills(command.fence))
            case AckAttempt():
                self._send(lambda: self.runner.acknowledge(command.fence))
            case BeginWait():
                self._begin_wait(command)
            case EndWait():
                self._waits.pop(command.fence, None)
            case Reply():
                self.counts["refused" if command.error is not None else "answered"] += 1

    def _boot(self) -> None:
        """A new daemon: memory from the database, then the runner's hello."""
        self.scheduler = Scheduler(self.parallelism)
        self._inbox, self._turn_at = [], None
        self._waits.clear()
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
        self.later(self.rng.choice((1, 5, 60, 3000)), self._boot)

    # -- the connection to the runner ---------------------------------------------------------------------------------

    def _disconnect(self) -> None:
        """Everything on its way, in both directions, is lost."""
        self._connection += 1
        self._connected = False

    def _break(self, seconds: tuple[float, float]) -> None:
        """The connection is gone, and comes back after one of these times."""
        self._disconnect()
        connection = self._connection
        self.later(self.rng.choice(seconds), lambda: self._connect(connection))

    def _connect(self, connection: int) -> None:
        """The runner says hello; the daemon compares, and repeats what may have been lost."""
        if self.scheduler is None or connection != self._connection or self._connected:
            return
        self._connected = True
        self._sent_until = self.now
        known = self.runner.known()
        self._inbox.extend(self.runner.hello())
        self._inbox.extend(self.scheduler.vanished(LOCAL, known, self._clock()))
        self._turn()
        if self.scheduler is not None and self._connected:
            for command in [*self.scheduler.unsettled(LOCAL, known), *self.scheduler.unsettled(WAITING_ROOM, set())]:
                self._carry_out(command)

    def _send(self, order: Callable[[], None]) -> None:
        """To the runner: in order, a little later, or never if the connection breaks first."""
        if not self._connected:
            return
        if self.chance("connection broken"):
            self._break((0.5, 20))
            return
        connection = self._connection
        self._sent_until = max(self._sent_until, self.now + timedelta(seconds=self.rng.choice((0, 0.01, 0.5))))

        def arrive() -> None:
            if connection == self._connection:
                order()

        self.later((self._sent_until - self.now).total_seconds(), arrive)

    def _tell(self, event: Event | None) -> None:
        """From the runner: late, twice or out of order, or never if the connection breaks first."""
        if event is None:
            return
        connection = self._connection
        delays = [self.rng.choice((0, 0, 0.01, 1))]
        if self.chance("message late", 3):
            delays = [self.rng.uniform(5, 900)]
        if self.chance("message repeated", 3):
            delays.append(self.rng.uniform(0, 900))
        for delay in delays:

            def arrive() -> None:
                if connection == self._connection and self._connected:
                    self._post(event)

            self.later(delay, arrive)

    def _runner_starts(self, command: StartAttempt) -> None:
        task = self.db.versions[command.version_id].by_id[command.instance.task_id]
        event = self.runner.start(command, task, self._clock())
        if event is None:
            return
        self._tell(event)
        seconds = self.rng.choice((0, 1, 5, 30, 120, 700, None))
        if seconds is not None:  # else it ends only when it is told to
            self.later(seconds, lambda: self._process_ends(command.fence))
        if self.chance("runner died"):
            self._runner_dies()

    def _process_ends(self, fence: int) -> None:
        self._tell(self.runner.end(fence, self._clock()))

    def _runner_kills(self, fence: int) -> None:
        if self.runner.kill(fence):
            self.later(self.rng.choice((0, 0.1, 10)), lambda: self._process_ends(fence))

    def _runner_dies(self) -> None:
        self.runner.die(self._clock())
        self._break((1, 30))

    def _begin_wait(self, command: BeginWait) -> None:
        if command.fence in self._waits:
            return
        self._waits[command.fence] = command
        seconds = self.rng.choice((1, 60, 600, 5000))
        self.later(seconds, lambda: self._poked(command))

    def _poked(self, command: BeginWait) -> None:
        if self._waits.get(command.fence) is not command:
            return
        if self.chance("wait repeated", 3):
            self._post(WaitEnded(command.fence, "success", self._clock()))
        else:
            del self._waits[command.fence]
        state = self.rng.choices(("success", "failed", "skipped"), (6, 2, 1))[0]
        error = "FileNotFoundError: no" if state == "failed" else None
        self._post(WaitEnded(command.fence, state, self._clock(), (("return_value", 1),), error))

    # -- what goes wrong by itself, and people ------------------------------------------------------------------------

    def _next_request(self) -> int:
        self._request += 1
        return self._request

    def _somebody_asks(self) -> None:
        if self.faulty and not self.calm and self.rng.random() < 0.1:
            self._world_fault()
        event = None if self.calm else wish(self.rng, self.db, self.start, self._next_request())
        if event is not None:
            self._post(event)

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
