"""What must come of what happened: of an attempt from its messages, of a task from its attempt, of a run from leaves.

Written from the documentation of states, and from nothing of the core.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from fluxd.core.events import (
    AttemptEnded,
    AttemptLost,
    AttemptStarted,
    CancelRun,
    ClearTasks,
    Event,
    MarkTasks,
    WaitEnded,
)
from fluxd.core.model import Attempt, Instance, Run
from fluxd.core.spec import DagSpec, TaskSpec
from tests.sim.rules import ATTEMPT_LIVE, BAD, DONE
from tests.sim.violation import require

if TYPE_CHECKING:
    from tests.sim.oracle import Decision
    from tests.sim.tables import Change, Tables

STOPPED = {"cancel": "cancelled", "success": "success", "fail": "failed", "skip": "skipped"}


def requests_on(decision: "Decision", run_number: int) -> list[Event]:
    """What people asked of this run in this turn."""
    return [
        event
        for event in decision.events or ()
        if isinstance(event, CancelRun | ClearTasks | MarkTasks) and event.run_number == run_number
    ]


def how(event: AttemptEnded | WaitEnded) -> str:
    """How a process or a wait ended: success | skipped | waiting | failed."""
    if isinstance(event, WaitEnded):
        return event.state if event.state in ("success", "skipped") else "failed"
    outcome = event.outcome if isinstance(event.outcome, dict) else {}
    state = outcome.get("state")
    if state not in ("success", "skipped", "waiting"):
        return "failed"
    return "failed" if event.killed is not None and state != "waiting" else state


def check_attempt(decision: "Decision", old: Attempt | None, new: Attempt, tables: "Tables", fence: int) -> None:
    """An attempt changes only by a message of its own, and says what the message said."""
    if old is None or old.state == new.state:
        return
    mine = [
        event
        for event in decision.events or ()
        if getattr(event, "fence", None) == fence and getattr(event, "executor", "daemon") == new.executor
    ]
    asked = requests_on(decision, new.run_number)
    row = tables.by_run[new.run_number][new.task_id]
    ends = [event for event in mine if isinstance(event, AttemptEnded | WaitEnded)]
    hows = {how(event) for event in ends}
    lost = [event for event in mine if isinstance(event, AttemptLost)]
    match str(new.state):
        case "running":
            require(any(isinstance(event, AttemptStarted) for event in mine), "runs, and nobody said so:", new)
        case "deferred":
            require("waiting" in hows, "waits, and nobody said so:", new, mine)
        case "success" | "skipped" as state:
            soft = state == "skipped" and (row.reason or "").startswith("FLX-3505")
            require(state in hows or soft, "ended", state, "and nobody said so:", new, mine)
        case "failed":
            waited = old.state == "waiting" and (new.reason or "").startswith(("FLX-3503", "FLX-3505"))
            hostile = any(isinstance(event, AttemptEnded) for event in mine)
            require("failed" in hows or waited or hostile, "failed, and nobody said so:", new, mine)
        case "lost":
            require(lost, "lost, and nobody said so:", new, mine)
        case "cancelled":
            timed_out = (new.reason or "").startswith("FLX-3506")
            require(asked or ends or lost or timed_out, "cancelled, and nobody asked:", new, mine)
    told = next((event for event in mine if isinstance(event, AttemptEnded)), None)
    if told is not None and old.state in ("queued", "running") and new.state != "running":
        same = (new.exit_code, new.signal) == (told.exit_code, told.signal)
        if not (lost and mine.index(lost[0]) < mine.index(told)):
            require(same and (told.pid is None or new.pid == told.pid), "an end is kept otherwise:", new, told)


def check_instance(
    decision: "Decision", old: Instance | None, row: Instance, task: TaskSpec, change: "Change", budget: int
) -> None:
    """What an instance becomes when its attempt ends; where nothing else happened to its run in this turn."""
    if old is None or old.fence is None or old.state not in ("queued", "running", "waiting", "restarting"):
        return
    if requests_on(decision, row.run_number) or (
        row.run_number in change.runs and change.runs[row.run_number][1].cancelling
    ):
        return
    attempt = change.attempts.get(old.fence)
    if attempt is None or attempt[1].state in ATTEMPT_LIVE:
        return
    mine = [event for event in decision.events or () if getattr(event, "fence", None) == old.fence]
    event = next(
        (
            one
            for one in mine
            if isinstance(one, AttemptEnded | WaitEnded | AttemptLost)
            and (old.state == "waiting") == isinstance(one, WaitEnded)
        ),
        None,
    )
    if event is None:
        return
    ended = "failed" if isinstance(event, AttemptLost) else how(event)
    if ended == "waiting":
        return  # it came and went within the turn
    told = None if old.stop_reason is None else str(old.stop_reason)
    timed_out = _run_timed_out(change, row.run_number)
    if timed_out and told == "restart":
        _check_cancelled(row)
    elif told == "restart":
        require(
            row.state in ("none", "scheduled", "queued", "skipped", "upstream_failed") or task.kind == "empty",
            "it was cleared, and is",
            row,
        )
    elif told is not None and told != "timeout" and not (told == "cancel" and ended in ("success", "skipped")):
        require(row.state == STOPPED[told], "it was told", told, "and is", row)
    elif ended in ("success", "skipped"):
        require(row.state == ended, "it ended", ended, "and is", row)
    else:
        _check_failed(old, row, event, decision.now, budget, timed_out)


def _run_timed_out(change: "Change", run_number: int) -> bool:
    """Whether the run's dagrun_timeout was over in this turn: at its end, what then is left of the run is cancelled."""
    if run_number not in change.runs:
        return False
    old, run = change.runs[run_number]
    reason = run.reason or ""
    return reason.startswith("FLX-3506") and (old is None or old.reason != reason)


def _check_cancelled(row: Instance) -> None:
    told = row.state == "cancelled" and (row.reason or "").startswith("FLX-3506")
    require(told, "its run has taken too long, and it is", row)


def _check_failed(old: Instance, row: Instance, event: Any, now: datetime, budget: int, timed_out: bool) -> None:
    error = event.outcome.get("error") if isinstance(event, AttemptEnded) and isinstance(event.outcome, dict) else None
    final = isinstance(error, dict) and error.get("retry") is False
    if isinstance(event, WaitEnded):
        final = old.wait_until is not None and now >= old.wait_until
    if isinstance(event, AttemptLost) and not event.began and not timed_out:
        require(row.state in ("up_for_retry", "scheduled", "queued", "failed"), "nothing ran, and it is", row)
        return
    if final or old.try_number >= budget:
        require(row.state == "failed", "it has no try left, and is", row)
    elif timed_out:
        _check_cancelled(row)
    else:
        require(row.state in ("up_for_retry", "scheduled", "queued"), "it has tries left, and is", row, budget)


def check_run(old: Run | None, run: Run, spec: DagSpec, rows: dict[str, Instance], decision: "Decision") -> None:
    """A run is what its leaves are; a cancelled task spoils it; it is cancelled if it was told to stop."""
    below = {upstream for task in spec.tasks for upstream in task.upstream}
    leaves = [str(rows[task.task_id].state) for task in spec.tasks if task.task_id not in below]
    cancelled = any(row.state == "cancelled" for row in rows.values())
    told = (old is not None and (old.cancelling or old.state == "cancelled")) or any(
        isinstance(event, CancelRun) for event in requests_on(decision, run.number)
    )
    if run.state == "cancelled":
        require(told, "a run is cancelled, and nobody asked:", run)
        require(cancelled or not rows, "a run is cancelled and none of its tasks:", run)
    elif cancelled:
        require(run.state == "failed", "a task was cancelled, and the run is", run, told)
    else:
        expected = "failed" if any(state in BAD for state in leaves) else "success"
        require(run.state == expected, "its leaves are", leaves, "and the run is", run)
    require((run.state == "success") == (run.reason is None), "the reason of", run)
    require(not run.cancelling and run.ended_at is not None, "ended, and still being cancelled:", run)
    require(all(row.state in DONE for row in rows.values()), "open tasks of", run)
