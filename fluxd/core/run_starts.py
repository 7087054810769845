"""Runs begin: those that a person asked for and those that are due, oldest first, never more than max_active_runs.

Scheduled runs are made lazily: a tick that is due while its dag is busy stays with the timetable (its cursor lags)
and gets its run when there is room. It is not lost, because the cursor is stored with the run.
"""

from datetime import UTC, datetime

from fluxd.core.live import Dag, LiveRun, due_of, fresh_instance
from fluxd.core.model import Run
from fluxd.core.states import FINISHED, RunState, State
from fluxd.core.working_set import WorkingSet


def advance(working: WorkingSet, now: datetime, at_most: int) -> int:
    """Begin what may begin in the dags of `to_advance`, one run of each in turn; returns how many runs began."""
    begun = 0
    while begun < at_most and working.to_advance:
        dag_id, dag = next(iter(working.to_advance.items()))
        del working.to_advance[dag_id]
        begin = _next(dag, now) or _for_whom_others_make_place(working, dag)
        if begin is None:
            working.watch_tick(dag, now)
            continue
        if not isinstance(begin, LiveRun):
            begin = _begin_tick(working, dag, begin, now)
        begin_run(working, begin, now)
        begun += 1
        working.to_advance[dag_id] = dag  # the others first
    return begun


def _is_full(dag: Dag) -> bool:
    return len(dag.running) >= max(1, dag.spec.max_active_runs)


def _next(dag: Dag, now: datetime) -> LiveRun | datetime | None:
    """What begins next in a dag: a queued run or a tick, the older first; None: nothing may."""
    if _is_full(dag):
        return None
    waiting = dag.first_queued()
    due = dag.next_due_at
    if due is None or due > now or not dag.ticking:
        return waiting
    return waiting if waiting is not None and due_of(waiting.run) <= due else due


def _for_whom_others_make_place(working: WorkingSet, dag: Dag) -> LiveRun | None:
    """A queued run for which later ones make place, because they do nothing but wait for their past.

    Without that a dag whose tasks depend on their past could stand still for ever: the run that was cleared waits for
    a place, and whoever holds the place waits for that run. The later ones are queued again, and begin after it.
    """
    late = dag.first_late()
    if late is None:
        return None
    due = due_of(late.run)
    waiting = [live for live in dag.running.values() if live.run.due_at and live.run.due_at > due and _only_waits(live)]
    needed = len(dag.running) - max(1, dag.spec.max_active_runs) + 1
    if len(waiting) < needed:
        return None
    waiting.sort(key=lambda live: due_of(live.run))
    for live in waiting[-needed:]:
        live.run.started_at = None
        working.move_run(live, RunState.QUEUED)
    return late


def _only_waits(live: LiveRun) -> bool:
    """Whether nothing of a run goes on: what has not ended has not begun, and only another run can change that."""
    if live.run.cancelling or not live.open or not live.plan.looks_back:
        return False
    return all(node.instance.state is State.NONE or node.instance.state in FINISHED for node in live.nodes)


def begin_run(working: WorkingSet, live: LiveRun, now: datetime) -> None:
    """A queued run starts; its tasks are judged in this turn."""
    live.run.started_at = live.run.started_at or now
    live.began = working.clock.awake
    working.move_run(live, RunState.RUNNING)
    working.watch_run(live)
    working.to_judge.extend(live.nodes)
    if not live.open:
        working.to_close[live.run.number] = live


def _begin_tick(working: WorkingSet, dag: Dag, due: datetime, now: datetime) -> LiveRun:
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
    return live


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
