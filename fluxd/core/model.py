"""The states, the table of legal moves, and the rows that are remembered of live runs.

Everything that may happen to a run or a task instance is in `RUN_MOVES` and `MOVES`; the database holds the same
lists as CHECKs, and the simulation verifies every change against them.
"""

from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any


class State(StrEnum):
    """What a task instance is in. `waiting` holds no process: a sensor, or an operator that deferred itself."""

    NONE = "none"
    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    UPSTREAM_FAILED = "upstream_failed"
    UP_FOR_RETRY = "up_for_retry"
    WAITING = "waiting"
    RESTARTING = "restarting"
    CANCELLED = "cancelled"
    REMOVED = "removed"


class RunState(StrEnum):
    """What a run is in."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Intent(StrEnum):
    """Why a live attempt was told to stop. It is saved with the instance, so that a restart of the daemon goes on."""

    CANCEL = "cancel"  # -> cancelled
    RESTART = "restart"  # cleared while running -> restarting, then again from the start
    TIMEOUT = "timeout"  # execution_timeout -> a failed try
    SUCCESS = "success"  # marked by a person
    FAIL = "fail"  # marked by a person
    SKIP = "skip"  # marked by a person


FINISHED = frozenset(
    {State.SUCCESS, State.FAILED, State.SKIPPED, State.UPSTREAM_FAILED, State.CANCELLED, State.REMOVED}
)
# States in which an attempt exists that the world may still speak of.
LIVE = frozenset({State.QUEUED, State.RUNNING, State.WAITING, State.RESTARTING})
# States that hold a slot: a process exists or is asked for. `waiting` holds none.
OCCUPYING = frozenset({State.QUEUED, State.RUNNING, State.RESTARTING})
RUN_FINISHED = frozenset({RunState.SUCCESS, RunState.FAILED, RunState.CANCELLED})


class AttemptState(StrEnum):
    """What one try is in. `lost` = its process is proved gone and left no result."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    LOST = "lost"


ATTEMPT_LIVE = frozenset({AttemptState.QUEUED, AttemptState.RUNNING, AttemptState.WAITING})

# (run number, task id, map index); the map index is -1 where the task is not mapped.
InstanceKey = tuple[int, str, int]


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
    fence: int | None = None  # the current (or last) attempt
    intent: Intent | None = None
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
    """One try. The fence is unique and rises over all attempts there ever were: a message names it or is nothing."""

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

    def snapshot(self) -> "Attempt":
        """A copy that nobody changes: what is saved and handed out."""
        return Attempt(*_attempt_values(self))


# Three times faster than copy.copy, and rows are copied in every turn.
_run_values = attrgetter(*(f.name for f in fields(Run)))
_instance_values = attrgetter(*(f.name for f in fields(Instance)))
_attempt_values = attrgetter(*(f.name for f in fields(Attempt)))


S = State
# From -> to. A clear may send any finished state back to none (and a live one over restarting).
MOVES: dict[State, frozenset[State]] = {
    S.NONE: frozenset({S.SCHEDULED, S.SUCCESS, S.FAILED, S.SKIPPED, S.UPSTREAM_FAILED, S.CANCELLED, S.REMOVED}),
    S.SCHEDULED: frozenset({S.NONE, S.QUEUED, S.SUCCESS, S.FAILED, S.SKIPPED, S.CANCELLED, S.REMOVED}),
    S.QUEUED: frozenset(
        {S.RUNNING, S.SUCCESS, S.FAILED, S.SKIPPED, S.UP_FOR_RETRY, S.WAITING, S.RESTARTING, S.CANCELLED}
    ),
    S.RUNNING: frozenset({S.SUCCESS, S.FAILED, S.SKIPPED, S.UP_FOR_RETRY, S.WAITING, S.RESTARTING, S.CANCELLED}),
    S.WAITING: frozenset({S.NONE, S.SUCCESS, S.FAILED, S.SKIPPED, S.UP_FOR_RETRY, S.QUEUED, S.CANCELLED}),
    S.UP_FOR_RETRY: frozenset({S.NONE, S.SCHEDULED, S.SUCCESS, S.FAILED, S.SKIPPED, S.CANCELLED, S.REMOVED}),
    S.RESTARTING: frozenset({S.NONE, S.CANCELLED, S.SUCCESS, S.FAILED, S.SKIPPED}),
    S.SUCCESS: frozenset({S.NONE, S.FAILED, S.SKIPPED}),
    S.FAILED: frozenset({S.NONE, S.SUCCESS, S.SKIPPED}),
    S.SKIPPED: frozenset({S.NONE, S.SUCCESS, S.FAILED}),
    S.UPSTREAM_FAILED: frozenset({S.NONE, S.SUCCESS, S.FAILED, S.SKIPPED}),
    S.CANCELLED: frozenset({S.NONE, S.SUCCESS, S.FAILED, S.SKIPPED}),
    S.REMOVED: frozenset({S.NONE}),
}

R = RunState
RUN_MOVES: dict[RunState, frozenset[RunState]] = {
    R.QUEUED: frozenset({R.RUNNING, R.CANCELLED, R.SUCCESS, R.FAILED}),
    R.RUNNING: frozenset({R.SUCCESS, R.FAILED, R.CANCELLED, R.QUEUED}),
    R.SUCCESS: frozenset({R.RUNNING, R.QUEUED, R.FAILED}),
    R.FAILED: frozenset({R.RUNNING, R.QUEUED, R.SUCCESS}),
    R.CANCELLED: frozenset({R.RUNNING, R.QUEUED, R.SUCCESS, R.FAILED}),
}
