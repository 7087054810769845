"""The rows that are remembered of live runs."""

from dataclasses import dataclass, field, fields
from datetime import datetime
from operator import attrgetter
from typing import Any

from fluxd.core.spec import LOCAL
from fluxd.core.states import AttemptState, RunState, State, StopReason

# (run number, task id, map index); the map index is -1 where the task is not mapped.
InstanceKey = tuple[int, str, int]
# How the instances of a finished run ended, by (task id, map index).
PastStates = dict[tuple[str, int], State]


@dataclass(slots=True)
class Run:
    """One execution of a dag. `number` is its key in the database, given by the scheduler in rising order."""

    number: int
    dag_id: str
    run_id: str
    run_type: str  # scheduled | manual
    state: RunState
    version_id: int  # the version of the dag this run is pinned to
    logical_date: datetime
    data_interval_start: datetime
    data_interval_end: datetime
    due_at: datetime | None  # the tick, for scheduled runs
    queued_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    conf: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None  # in words, why it ended as it did
    created_by: str = "scheduler"
    cancelling: bool = False

    def snapshot(self) -> "Run":
        """A copy that nobody changes: what is saved and handed out."""
        return Run(*_run_values(self))


@dataclass(slots=True)
class Instance:
    """One task in one run."""

    run_number: int
    task_id: str
    map_index: int = -1
    state: State = State.NONE
    try_number: int = 0  # tries begun so far
    max_tries: int = 1  # 1 + retries, raised when cleared
    fence: int | None = None  # the current (or last) leg of an attempt
    stop_reason: StopReason | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    retry_at: datetime | None = None
    wait: dict[str, Any] | None = None  # the request of a waiting sensor
    wait_until: datetime | None = None  # its deadline
    reason: str | None = None  # in words, with a code where it is an error

    @property
    def key(self) -> InstanceKey:
        return (self.run_number, self.task_id, self.map_index)

    def snapshot(self) -> "Instance":
        """A copy that nobody changes: what is saved and handed out."""
        return Instance(*_instance_values(self))


@dataclass(slots=True)
class Attempt:
    """One leg of a try: what one process does, or one wait of the daemon's. Each leg has a fence of its own.

    Fences are unique and increase over all legs there ever were; a message names the fence and its executor, or is
    nothing. A try begins with leg 1; where that hands its work over to a wait, the wait is leg 2 of the same try.
    """

    fence: int
    run_number: int
    task_id: str
    map_index: int
    try_number: int
    state: AttemptState
    queued_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    pid: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    usage: dict[str, Any] | None = None  # user_s, system_s, max_rss_kb
    rendered: dict[str, Any] | None = None  # template fields as the task saw them
    leg: int = 1
    executor: str = LOCAL  # who runs it; WAITING_ROOM for a wait of the daemon's
    progress: dict[str, Any] | None = None  # rows, bytes, note: as its process told at its end

    def snapshot(self) -> "Attempt":
        """A copy that nobody changes: what is saved and handed out."""
        return Attempt(*_attempt_values(self))


# Three times faster than copy.copy, and rows are copied in every turn.
_run_values = attrgetter(*(f.name for f in fields(Run)))
_instance_values = attrgetter(*(f.name for f in fields(Instance)))
_attempt_values = attrgetter(*(f.name for f in fields(Attempt)))
