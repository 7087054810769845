"""Runs begin: those that a person asked for and those that are due, oldest first, never more than max_active_runs.

Scheduled runs are made lazily: a tick that is due while its dag is busy stays with the timetable (its cursor lags)
and gets its run when there is room. It is not lost, because the cursor is stored with the run.
"""

from datetime import UTC, datetime

from fluxd.core.live import Dag, LiveRun, fresh_instance
from fluxd.core.model import Run
from fluxd.core.states import RunState
from fluxd.core.working_set import WorkingSet


def advance(working: WorkingSet, now: datetime, at_most: int) -> int:
    """Begin what may begin in the dags of `to_advance`; returns how many runs began."""
    begun = 0
    for dag_id, dag in list(working.to_advance.items()):
        while begun < at_most and (begin := _next(dag, now)) is not None:
            begin_run(working, begin, now) if isinstance(begin, LiveRun) else _begin_tick(working, dag, begin, now)
            begun += 1
        if begun < at_most:
            working.watch_tick(dag, now)
            del working.to_advance[dag_id]
    return begun


def _next(dag: Dag, now: datetime) -> LiveRun | datetime | None:
    """What begins next in a dag: a queued run or a tick, the older first; None: nothing may."""
    if len(dag.running) >= max(1, dag.spec.max_active_runs):
        return None
    waiting = min(dag.queued.values(), key=lambda live: (live.run.queued_at, live.run.number), default=None)
    due = dag.next_due_at
    if due is None or due > now or not dag.ticking:
        return waiting
    return waiting if waiting is not None and waiting.run.queued_at <= due else due


def begin_run(working: WorkingSet, live: LiveRun, now: datetime) -> None:
    """A queued run starts; its tasks are judged in this turn."""
    live.run.started_at = live.run.started_at or now
    working.move_run(live, RunState.RUNNING)
    working.watch_run(live)
    working.to_judge.extend(live.nodes)
    if not live.open:
        working.to_close[live.run.number] = live


def _begin_tick(working: WorkingSet, dag: Dag, due: datetime, now: datetime) -> None:
    start, end = dag.timetable.covered(due)
    run_id = f"scheduled__{stamp(start)}"
    if dag.last_logical_date is not None and start <= dag.last_logical_date:
        # The schedule was changed, and a run of the old one began at the same date: the tick makes the name unique.
        run_id = f"scheduled__{stamp(start)}__{stamp(due)}"
    live = add_new_run(
        working,
        dag,
        Run(
            number=0,
            dag_id=dag.dag_id,
            run_id=run_id,
            run_type="scheduled",
            state=RunState.QUEUED,
            version_id=dag.version_id,
            logical_date=start,
            data_interval_start=start,
            data_interval_end=end,
            due_at=due,
            queued_at=now,
        ),
    )
    working.move_cursor(dag, dag.timetable.due_after(due))
    begin_run(working, live, now)


def add_new_run(working: WorkingSet, dag: Dag, run: Run) -> LiveRun:
    """Give a new run its number and its rows."""
    working.run_number += 1
    run.number = working.run_number
    live = LiveRun(run, dag.spec, dag.plan, dag, (fresh_instance(run, task) for task in dag.plan.tasks))
    working.add_run(live)
    working.touch_run(live)
    for node in live.nodes:
        working.touch(node)
    return live


def stamp(at: datetime) -> str:
    """A time as run ids carry it: 20260102T060000Z, with a fraction only where there is one."""
    at = at.astimezone(UTC)
    return f"{at:%Y%m%dT%H%M%S}{f'.{at.microsecond:06}' if at.microsecond else ''}Z"
