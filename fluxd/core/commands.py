"""What the scheduler asks of the world.

One `Turn` is the answer to one call of `Scheduler.handle`: first everything that must be in Postgres (`saves`, each
row at most once, in its last form), then everything that is done only after it is there (`commands`). A turn can be
saved twice with the same effect as once: the engine repeats it when it does not know whether a commit arrived.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fluxd.core.model import Attempt, Instance, InstanceKey, Run
from fluxd.core.spec import LOCAL
from fluxd.errors import FluxError


@dataclass(frozen=True, slots=True)
class XCom:
    run_number: int
    task_id: str
    map_index: int
    key: str
    value: Any


@dataclass(frozen=True, slots=True)
class Skip:
    """Ticks that will have no run, as one range: `count` ticks, due from `first` to `last`, both included."""

    dag_id: str
    first: datetime
    last: datetime
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class DagCursor:
    """Where a dag's timetable stands: the next tick that has neither run nor skip (None: no more)."""

    dag_id: str
    next_due_at: datetime | None
    paused: bool
    forgotten: bool = False


@dataclass(slots=True)
class Saves:
    """All that must be stored before anything is done. Rows are snapshots: nobody changes them afterwards."""

    runs: list[Run] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    xcoms: list[XCom] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    cursors: list[DagCursor] = field(default_factory=list)
    # Cleared instances: their XComs are deleted (before `xcoms` are written).
    xcoms_dropped: list[InstanceKey] = field(default_factory=list)
    # Instances that begin anew: what their tries kept for one another (`ti.set_state`) is deleted.
    states_dropped: list[InstanceKey] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.runs
            or self.instances
            or self.attempts
            or self.xcoms
            or self.skips
            or self.cursors
            or self.xcoms_dropped
            or self.states_dropped
        )


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Start a process for this leg. `run`, `instance`, `version_id` say what; the executor knows how."""

    fence: int
    run: Run
    instance: Instance
    version_id: int
    executor: str = LOCAL


@dataclass(frozen=True, slots=True)
class KillAttempt:
    """End the process of this attempt: TERM, then KILL. The end is told by AttemptEnded."""

    fence: int
    reason: str  # cancel | restart | timeout | success | fail | skip
    executor: str = LOCAL


@dataclass(frozen=True, slots=True)
class BeginWait:
    """Poll for this until it comes, or until EndWait. `request`: {"sensor", "args", "poke_interval", …}."""

    fence: int
    run: Run
    instance: Instance
    request: dict[str, Any]


@dataclass(frozen=True, slots=True)
class EndWait:
    """Nobody waits for this any more."""

    fence: int


@dataclass(frozen=True, slots=True)
class AckAttempt:
    """The result of this attempt is stored (or is not wanted): its executor may forget it."""

    fence: int
    executor: str = LOCAL


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to the event with this `request` number: a value, or an error."""

    request: int
    value: Any = None
    error: FluxError | None = None


Command = StartAttempt | KillAttempt | BeginWait | EndWait | AckAttempt | Reply


@dataclass(slots=True)
class Turn:
    saves: Saves = field(default_factory=Saves)
    commands: list[Command] = field(default_factory=list)
