"""Dags come, change, pause and go, and their timetables with them. Live runs stay on the version they began with."""

from collections.abc import Sequence
from datetime import datetime

from fluxd.core.catchup import first_cursor, record_skip, skip_missed
from fluxd.core.events import DagLoaded, DagRemoved, ForgetDag, PauseDag
from fluxd.core.live import Dag
from fluxd.core.snapshot import DagRow, PastRun
from fluxd.core.spec import DagSpec
from fluxd.core.ticks import MICROSECOND
from fluxd.core.timetable import NO_TIMETABLE, Timetable, make_timetable
from fluxd.core.working_set import WorkingSet
from fluxd.errors import FluxError, NotFound, Refused


def loaded(working: WorkingSet, event: DagLoaded, now: datetime) -> None:
    """A new dag, a new version of one, or one that is back."""
    known = working.dags.get(event.spec.dag_id)
    if known is None:
        paused = event.spec.is_paused_upon_creation if event.paused is None else event.paused
        dag = _remember(working, DagRow(event.spec, event.version_id, bool(paused), None, seen_before=False))
        working.move_cursor(dag, first_cursor(dag, now))
        working.to_advance[dag.dag_id] = dag
        return
    update(working, known, event.spec, event.version_id, now)


def _remember(working: WorkingSet, row: DagRow) -> Dag:
    timetable, trouble = _timetable(row.spec)
    dag = Dag(
        spec=row.spec,
        version_id=row.version_id,
        plan=working.plan(row.version_id, row.spec),
        timetable=timetable,
        paused=row.paused,
        removed=row.removed,
        next_due_at=row.next_due_at,
        trouble=trouble,
    )
    working.dags[row.spec.dag_id] = dag
    return dag


def _timetable(spec: DagSpec) -> tuple[Timetable, str | None]:
    """The timetable; where a schedule can not be used any more (a zone is gone), none, and why."""
    try:
        return make_timetable(spec), None
    except FluxError as error:
        return NO_TIMETABLE, str(error)


def restore(
    working: WorkingSet, row: DagRow, past: Sequence[PastRun], newest: datetime | None, now: datetime, *, away: bool
) -> Dag:
    """A dag from the database, at start, with what is known of its finished scheduled runs; `newest`: the newest tick
    that has a live one. `away`: see `recover`."""
    dag = _remember(working, row)
    dag.last_due_at, dag.last_skipped = newest, row.last_skipped
    for run in past:
        dag.last_due_at = max(dag.last_due_at or run.due_at, run.due_at)
        dag.last_logical_date = max(dag.last_logical_date or run.logical_date, run.logical_date)
        if run.states:
            dag.add_past(run.due_at, dict(run.states))
    if not row.seen_before:
        working.move_cursor(dag, first_cursor(dag, now))
    else:
        _mend_cursor(working, dag, now)
        if away and not dag.paused and not dag.removed:
            skip_missed(working, dag, now, "fluxd was not running")
    working.to_advance[dag.dag_id] = dag
    return dag


def _mend_cursor(working: WorkingSet, dag: Dag, now: datetime) -> None:
    """The schedule, or the rules of its zone, may have changed since the cursor was stored: it must stand on a tick."""
    due, timetable, handled = dag.next_due_at, dag.timetable, dag.handled()
    if due is None:
        due = timetable.due_after(max(now, handled))
        if due is not None:
            working.move_cursor(dag, due)
    elif due > now and timetable.ticks is not None:
        # The new schedule may have ticks before the one that the old one would have had next.
        first = timetable.due_after(max(now, handled))
        if first != due:
            working.move_cursor(dag, first)
    elif dag.trouble is None and not timetable.is_due(due):
        if due <= now:
            record_skip(working, dag, timetable, due, due, "the dag's schedule was changed")
        working.move_cursor(dag, timetable.due_after(max(min(due, now), handled)))


def update(working: WorkingSet, dag: Dag, spec: DagSpec, version_id: int, now: datetime) -> None:
    """A known dag has a new version, or its file is back."""
    old, before = dag.timetable, dag.spec
    dag.spec, dag.version_id, dag.plan = spec, version_id, working.plan(version_id, spec)
    dag.timetable, dag.trouble = _timetable(spec)
    was_removed, dag.removed = dag.removed, False
    if dag.timetable != old and not _same_ticks(before, spec, dag, now):
        _change_ticks(working, dag, old, now)
    elif was_removed and not dag.paused:
        skip_missed(working, dag, now, "the dag's file was away")
    dag.watched = None
    working.to_advance[dag.dag_id] = dag


def _same_ticks(before: DagSpec, spec: DagSpec, dag: Dag, now: datetime) -> bool:
    """Whether the cursor still stands right: the schedule is the same and the dates still hold it."""
    if (before.schedule, before.timezone, before.dst) != (spec.schedule, spec.timezone, spec.dst):
        return False
    due = dag.next_due_at
    if due is None or dag.timetable.kind == "once" or not dag.timetable.is_due(due):
        return False
    # An earlier start_date brings ticks before the one that would have been next.
    return due <= now or dag.timetable.due_after(max(now, dag.handled())) == due


def _change_ticks(working: WorkingSet, dag: Dag, old: Timetable, now: datetime) -> None:
    """Another schedule from now on: nothing fires at once, and ticks of the old one that are owed are closed.

    A dag that catches up on everything goes on with the ticks of the new one from where it stands.
    """
    owed = dag.next_due_at
    if owed is not None and owed <= now and dag.spec.catchup is True and dag.timetable.ticks is not None:
        # From the end of the last stretch that has a run or a skip, or that nobody owes: so no time is left out.
        stood = old.due_before(owed) or owed - MICROSECOND
        working.move_cursor(dag, dag.timetable.due_after(max(stood, dag.handled())))
        return
    if owed is not None and owed <= now:
        record_skip(working, dag, old, owed, old.latest_due(now), "the dag's schedule was changed")
    handled = max(now, dag.handled())
    if dag.timetable.kind != "once":
        working.move_cursor(dag, dag.timetable.due_after(handled))
        return
    due = None if old.kind == "once" and owed is None else first_cursor(dag, now)
    # A tick of the old schedule may have been at the same instant: an instant is never used twice.
    working.move_cursor(dag, None if due is None else max(due, handled + MICROSECOND))


def removed(working: WorkingSet, event: DagRemoved) -> None:
    """The dag's file is gone: no new runs; live ones end on their version."""
    dag = working.dags.get(event.dag_id)
    if dag is not None:
        dag.removed = True


def pause(working: WorkingSet, event: PauseDag, now: datetime) -> None:
    """Pause or unpause the timetable of a dag. Runs that a person asks for start all the same."""
    dag = known_dag(working, event.dag_id)
    if dag.paused != event.paused:
        dag.paused = event.paused
        working.keep_cursor(dag)
        if not dag.paused and not dag.removed:
            skip_missed(working, dag, now, "the dag was paused")
            dag.watched = None
            working.to_advance[dag.dag_id] = dag
    working.reply(event.request, {"dag_id": dag.dag_id, "paused": dag.paused})


def forget(working: WorkingSet, event: ForgetDag) -> None:
    """Delete a dag and its history."""
    dag = known_dag(working, event.dag_id)
    live = len(dag.running) + len(dag.queued)
    if live:
        raise Refused(
            "FLX-4208",
            f"Dag {event.dag_id!r} has {live} live run{'s' * (live != 1)}: cancel them or wait until they have ended, "
            "then delete it.",
        )
    working.keep_cursor(dag, forgotten=True)
    del working.dags[dag.dag_id]
    working.to_advance.pop(dag.dag_id, None)
    working.lanes.forget(dag.dag_id)
    working.reply(event.request, {"dag_id": dag.dag_id})


def known_dag(working: WorkingSet, dag_id: str) -> Dag:
    """The dag of this name. Raises NotFound FLX-4201."""
    dag = working.dags.get(dag_id)
    if dag is None:
        raise NotFound("FLX-4201", f"There is no dag {dag_id!r}: fluxctl dags list shows those there are.")
    return dag
