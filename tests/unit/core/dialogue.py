"""A dialogue with the scheduler: say what happened, see what it wants. The clock moves only when it is told to."""

from datetime import UTC, datetime, timedelta
from typing import Any

from fluxd.core.commands import AckAttempt, BeginWait, DagCursor, KillAttempt, Reply, Skip, StartAttempt, Turn
from fluxd.core.events import AttemptEnded, AttemptStarted, ClearTasks, DagLoaded, Event, TriggerRun
from fluxd.core.model import Attempt, Instance, InstanceKey, Run
from fluxd.core.moment import EPOCH, Moment
from fluxd.core.scheduler import Scheduler
from fluxd.core.snapshot import Revived, Snapshot
from fluxd.core.spec import DagSpec, TaskSpec

NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)
SUCCESS = {"state": "success"}
FAILED = {"state": "failed", "error": {"type": "ValueError", "message": "no", "retry": True}}
FOR_GOOD = {"state": "failed", "error": {"type": "TaskFailed", "message": "never", "retry": False}}
SKIPPED = {"state": "skipped"}


def task(task_id: str, *upstream: str, **fields: Any) -> TaskSpec:
    return TaskSpec(task_id=task_id, operator="PythonOperator", upstream=upstream, **fields)


def dag(*tasks: TaskSpec, dag_id: str = "d", **fields: Any) -> DagSpec:
    return DagSpec(dag_id=dag_id, tasks=tasks, **fields)


class Dialogue:
    """A scheduler, the rows it has saved, and what it asked for in its last turn."""

    def __init__(
        self,
        *specs: DagSpec,
        now: datetime = NOON,
        parallelism: int = 32,
        before: "Dialogue | None" = None,
        **snapshot: Any,
    ) -> None:
        self.now = now
        self.scheduler = Scheduler(parallelism)
        self.runs: dict[int, Run] = {}
        self.instances: dict[InstanceKey, Instance] = {}
        self.attempts: dict[int, Attempt] = {}
        self.cursors: dict[str, DagCursor] = {}
        self.skips: list[Skip] = []
        self.specs = dict(enumerate(specs, 1))
        self.slept = self.shift = timedelta()  # what the machine slept, and what its wall clock was set by
        since = None
        if before is not None:  # the same process goes on
            self.slept, self.shift, since = before.slept, before.shift, before.scheduler.last
        self.turn = self._saved(self.scheduler.recover(Snapshot(**snapshot), self.moment(), since))
        if specs:
            self.say(*(DagLoaded(spec, number) for number, spec in self.specs.items()))

    def _saved(self, turn: Turn) -> Turn:
        self.turn = turn
        self.runs.update({run.number: run for run in turn.saves.runs})
        self.instances.update({row.key: row for row in turn.saves.instances})
        self.attempts.update({row.fence: row for row in turn.saves.attempts})
        self.cursors.update({cursor.dag_id: cursor for cursor in turn.saves.cursors})
        self.skips.extend(turn.saves.skips)
        return turn

    def say(self, *events: Event) -> Turn:
        """These events, now."""
        return self._saved(self.scheduler.handle(events, self.moment()))

    def moment(self) -> Moment:
        elapsed = self.now - self.shift - EPOCH
        return Moment(self.now, elapsed - self.slept, elapsed)

    def wake_at(self) -> datetime | None:
        """When the scheduler wants to be called, as the wall clock stands."""
        delay = self.scheduler.wake_in(self.moment())
        return None if delay is None else self.now + delay

    def set_clock(self, seconds: float) -> Turn:
        """The wall clock is set forward, or back; no time passes."""
        self.now += timedelta(seconds=seconds)
        self.shift += timedelta(seconds=seconds)
        return self.say()

    def sleep(self, seconds: float) -> Turn:
        """The machine sleeps; the scheduler looks when it is awake again."""
        self.slept += timedelta(seconds=seconds)
        return self.wait(seconds)

    def wait(self, seconds: float) -> Turn:
        """Time passes and nothing else happens."""
        self.now += timedelta(seconds=seconds)
        return self.say()

    def trigger(self, dag_id: str = "d", **fields: Any) -> int:
        """Ask for a run; returns its number."""
        before = set(self.runs)
        self.say(TriggerRun(1, dag_id, **fields))
        (number,) = set(self.runs) - before
        return number

    def load(self, spec: DagSpec) -> Turn:
        """A new version of a dag."""
        number = max(self.specs, default=0) + 1
        self.specs[number] = spec
        return self.say(DagLoaded(spec, number))

    def clear(self, *task_ids: str, run: int = 1, **fields: Any) -> Turn:
        """Clear tasks of a run (all, if none is named)."""
        revive = None if self.scheduler.is_live(run) else self.revived(run)
        keys = tuple((run, task_id, -1) for task_id in task_ids)
        return self.say(ClearTasks(1, run, keys, revive=revive, **fields))

    def started(self, *fences: int) -> Turn:
        return self.say(*(AttemptStarted(fence, 1000 + fence, self.now) for fence in fences))

    def ended(self, fence: int, outcome: dict[str, Any] | None = SUCCESS, **fields: Any) -> Turn:
        return self.say(AttemptEnded(fence, 1000 + fence, self.now, self.now, outcome=outcome, **fields))

    def starts(self) -> list[str]:
        """The tasks that the last turn starts."""
        return [command.instance.task_id for command in self.turn.commands if isinstance(command, StartAttempt)]

    def fence(self, task_id: str, run: int = 1) -> int:
        found = self.instances[(run, task_id, -1)].fence
        assert found is not None
        return found

    def state(self, task_id: str, run: int = 1) -> str:
        return str(self.instances[(run, task_id, -1)].state)

    def states(self, run: int = 1) -> dict[str, str]:
        return {key[1]: str(row.state) for key, row in self.instances.items() if key[0] == run}

    def reply(self) -> Reply:
        (found,) = [command for command in self.turn.commands if isinstance(command, Reply)]
        return found

    def kills(self) -> list[tuple[int, str]]:
        return [
            (command.fence, str(command.reason)) for command in self.turn.commands if isinstance(command, KillAttempt)
        ]

    def acks(self) -> list[int]:
        return [command.fence for command in self.turn.commands if isinstance(command, AckAttempt)]

    def waits(self) -> list[BeginWait]:
        return [command for command in self.turn.commands if isinstance(command, BeginWait)]

    def revived(self, run: int = 1) -> Revived:
        """The rows of a run, as the engine reads them from the database."""
        rows = [row for key, row in self.instances.items() if key[0] == run]
        return Revived(self.runs[run], self.specs[self.runs[run].version_id], rows)

    def restarted(self, **fields: Any) -> "Dialogue":
        """Another scheduler that recovers from what this one has saved."""
        live = {number: run for number, run in self.runs.items() if run.state in ("queued", "running")}
        attempts = [row for row in self.attempts.values() if row.state in ("queued", "running", "waiting")]
        other = Dialogue(
            now=self.now,
            versions=self.specs,
            runs=list(live.values()),
            instances=[row for key, row in self.instances.items() if key[0] in live],
            attempts=attempts,
            last_run_number=max(self.runs, default=0),
            last_fence=max(self.attempts, default=0),
            **fields,
        )
        other.specs = self.specs
        for name in ("runs", "instances", "attempts", "cursors"):
            setattr(other, name, getattr(self, name) | getattr(other, name))
        return other


def ran_through(dialogue: Dialogue, outcomes: dict[str, dict[str, Any] | None]) -> None:
    """Let every started task end, as `outcomes` says (success where it says nothing), until nothing starts."""
    starting = [command for command in dialogue.turn.commands if isinstance(command, StartAttempt)]
    while starting:
        command = starting.pop(0)
        dialogue.ended(command.fence, outcomes.get(command.instance.task_id, SUCCESS))
        starting += [command for command in dialogue.turn.commands if isinstance(command, StartAttempt)]
