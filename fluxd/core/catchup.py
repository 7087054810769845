"""What becomes of ticks that came due while nobody could act on them: the daemon was away, or the dag was paused.

The dag's `catchup` says it: False and "latest" run the latest only, True runs all, a number of seconds runs those due
within that time. What is not run is recorded as one Skip, so that every tick has a run or a reason.
"""

from datetime import datetime, timedelta

from fluxd.core.commands import Skip
from fluxd.core.live import Dag
from fluxd.core.timetable import Timetable
from fluxd.core.working_set import WorkingSet


def first_cursor(dag: Dag, now: datetime) -> datetime | None:
    """Where the timetable of a dag begins that was never seen before. Its past is nobody's debt: nothing is skipped."""
    timetable, catchup = dag.timetable, dag.spec.catchup
    if timetable.kind == "none":
        return None
    if timetable.kind == "once":
        start = timetable.start or now
        return start if timetable.end is None or start <= timetable.end else None
    if catchup is False:
        return timetable.due_after(now)
    if catchup == "latest":
        return timetable.latest_due(now) or timetable.due_after(now)
    if catchup is True:
        return timetable.due_after(now if timetable.start is None else min(now, timetable.start))
    return timetable.due_from(now - timedelta(seconds=float(catchup)))


def skip_missed(working: WorkingSet, dag: Dag, now: datetime, cause: str) -> None:
    """Apply the catch-up rule to the ticks that are due by now; the cursor moves to the first that will be run."""
    first = dag.next_due_at
    if first is None or first > now or dag.timetable.ticks is None or dag.spec.catchup is True:
        return
    keep = dag.timetable.latest_due(now)
    if dag.spec.catchup is not False and dag.spec.catchup != "latest":
        keep = dag.timetable.due_from(now - timedelta(seconds=float(dag.spec.catchup)))
    if keep is not None and keep <= first:
        return
    # No tick to keep: the timetable has ended, longer ago than the catch-up reaches.
    last = dag.timetable.latest_due(now) if keep is None else dag.timetable.due_before(keep)
    record_skip(working, dag, dag.timetable, first, last, f"{cause}; catchup is {dag.spec.catchup!r}")
    working.move_cursor(dag, keep)


def record_skip(
    working: WorkingSet, dag: Dag, timetable: Timetable, first: datetime, last: datetime | None, reason: str
) -> None:
    """The ticks of this timetable from `first` to `last` have no run."""
    last = max(first, last or first)
    dag.last_skipped = max(last, dag.last_skipped or last)
    working.skip_ticks(Skip(dag.dag_id, first, last, max(1, timetable.count(first, last)), reason))
