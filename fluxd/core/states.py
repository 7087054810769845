"""The states of runs, task instances and attempts, and the table of legal moves.

Everything that may happen to a run or a task instance is in `RUN_MOVES` and `MOVES`; the database holds the same
lists as CHECKs, and the simulation verifies every change against them.
"""

from enum import StrEnum


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


class StopReason(StrEnum):
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
    """What one leg of a try is in. `lost` = its process is proved gone and left no result; `deferred` = it has ended
    and the next leg goes on with its work.
    """

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    LOST = "lost"
    DEFERRED = "deferred"


ATTEMPT_LIVE = frozenset({AttemptState.QUEUED, AttemptState.RUNNING, AttemptState.WAITING})


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
