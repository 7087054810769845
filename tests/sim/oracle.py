"""The rules that nothing may break, checked from the saved rows and not from what the scheduler believes.

Trigger rules are said here a second time, in other words than in the core, so that one mistake is not made twice.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

from fluxd.core.commands import StartAttempt, Turn
from fluxd.core.live import LiveRun
from fluxd.core.model import Instance, InstanceKey, Run
from fluxd.core.scheduler import Scheduler
from fluxd.core.spec import DagSpec
from fluxd.core.states import FINISHED, OCCUPYING, RunState, State
from fluxd.core.timetable import make_timetable
from tests.sim.database import Database, require

BAD = frozenset({State.FAILED, State.UPSTREAM_FAILED, State.CANCELLED})
SKIPPED = frozenset({State.SKIPPED, State.REMOVED})
JUDGED = FINISHED | {State.NONE, State.RESTARTING}


def may_run(rule: str, states: list[State]) -> bool:
    """Whether a task may start whose upstreams are in these states."""
    if not states or rule == "always":
        return True
    all_done = all(state in FINISHED for state in states)
    success = any(state is State.SUCCESS for state in states)
    failed = any(state in BAD for state in states)
    skipped = any(state in SKIPPED for state in states)
    match rule:
        case "one_success":
            return success
        case "one_failed":
            return failed
        case "one_done":
            return success or failed
        case "all_done":
            return all_done
        case "all_success":
            return all(state is State.SUCCESS for state in states)
        case "all_failed":
            return all(state in BAD for state in states)
        case "all_skipped":
            return all(state in SKIPPED for state in states)
        case "none_failed":
            return all_done and not failed
        case "none_failed_min_one_success":
            return all_done and not failed and success
        case "none_skipped":
            return all_done and not skipped
        case _:
            raise ValueError(rule)


def check_turn(
    db: Database,
    turn: Turn,
    olds: dict[InstanceKey, Instance | None],
    ran: set[int],
    specs: dict[str, DagSpec],
    parallelism: int,
) -> None:
    """What a turn has saved. `olds`: the rows before it; `ran`: the runs that ran before; `specs`: the newest."""
    for row in turn.saves.instances:
        old = olds[row.key]
        if old is None or old.state in JUDGED:
            _check_judgement(db, row)
    starts = [command for command in turn.commands if isinstance(command, StartAttempt)]
    if starts:
        _check_limits(db, starts, specs, parallelism)
    for run in turn.saves.runs:
        if run.state is RunState.RUNNING and run.number not in ran and run.dag_id in specs:
            running = sum(
                live.dag_id == run.dag_id and live.state is RunState.RUNNING for live in db.live_runs.values()
            )
            require(running <= specs[run.dag_id].max_active_runs, running, "runs of", run.dag_id)
        if run.state in (RunState.SUCCESS, RunState.FAILED, RunState.CANCELLED):
            rows = db.by_run[run.number].values()
            require(all(row.state in FINISHED for row in rows), "a run ended before its tasks:", run)


def _check_judgement(db: Database, row: Instance) -> None:
    """A task began, or was given up: its trigger rule must say so."""
    run = db.runs[row.run_number]
    spec = db.versions[run.version_id]
    task = spec.by_id[row.task_id]
    begins = row.state in (State.SCHEDULED, State.QUEUED)
    done_at_once = task.kind == "empty" and row.state is State.SUCCESS and row.reason is None
    given_up = (row.reason or "").startswith("its trigger rule")
    if not (begins or done_at_once or given_up):
        return
    rows = db.by_run[row.run_number]
    states = [rows[upstream].state for upstream in task.upstream]
    allowed = may_run(task.trigger_rule, states)
    require(allowed is not given_up, "trigger rule", task.trigger_rule, "broken:", row, states)
    if given_up:
        return
    require(run.state is RunState.RUNNING or row.state is State.SUCCESS, "a task began in", run)
    if task.depends_on_past and run.due_at is not None:
        _check_past(db, row, run.dag_id, run.due_at)


def _check_past(db: Database, row: Instance, dag_id: str, due_at: datetime) -> None:
    before = max((due for dag, due in db.ticks if dag == dag_id and due < due_at), default=None)
    if before is None:
        return
    other = db.by_run[db.ticks[(dag_id, before)]].get(row.task_id)
    require(other is None or other.state in (State.SUCCESS, State.SKIPPED), "it depends on its past:", row, other)


def _check_limits(db: Database, starts: Iterable[StartAttempt], specs: dict[str, DagSpec], parallelism: int) -> None:
    total = 0
    pools: Counter[str] = Counter()
    dags: Counter[str] = Counter()
    for number, run in db.live_runs.items():
        spec = db.versions[run.version_id]
        for row in db.by_run[number].values():
            if row.state in OCCUPYING:
                total += 1
                pools[spec.by_id[row.task_id].pool] += spec.by_id[row.task_id].pool_slots
                dags[run.dag_id] += 1
    require(total <= parallelism, total, "of", parallelism, "places taken")
    for start in starts:
        run, row = start.run, start.instance
        saved = db.instances[row.key]
        require(saved == row and saved.state is State.QUEUED and saved.fence == start.fence, "start before save", row)
        require(not run.cancelling, "a start in a run that is being cancelled:", row)
        pinned = db.versions[run.version_id]
        pool = pinned.by_id[row.task_id].pool
        require(pools[pool] <= db.pools[pool], pools[pool], "slots taken of pool", pool, db.pools[pool])
        limit = specs.get(run.dag_id, pinned).max_active_tasks
        require(dags[run.dag_id] <= limit, dags[run.dag_id], "tasks of", run.dag_id, "run, its limit is", limit)


def check_ticks(
    turn: Turn,
    spec: DagSpec,
    newest: DagSpec,
    owed: datetime,
    now: datetime,
    edited: bool,
    new: Iterable[Run],
    handled: datetime,
) -> None:
    """A cursor that moves on leaves one run or one skip for each tick it passes.

    `new`: the new scheduled runs; `handled`: the newest tick that has a run.
    """
    dag_id = spec.dag_id
    cursor = next(cursor for cursor in turn.saves.cursors if cursor.dag_id == dag_id)
    if cursor.forgotten or cursor.next_due_at == owed:
        return
    timetable = make_timetable(spec)
    made = [run.due_at for run in new if run.dag_id == dag_id]
    skipped = sum(skip.count for skip in turn.saves.skips if skip.dag_id == dag_id)
    if edited:
        until = timetable.latest_due(now) if owed <= now else None
        expected = 0 if until is None or until < owed else timetable.count(owed, until)
        served = skipped + len(made)
        # An edit of the dates alone keeps the ticks within the new dates, and only those.
        still_owed = (
            len({(spec.schedule, spec.timezone, spec.dst), (newest.schedule, newest.timezone, newest.dst)}) == 1
        )
        after = make_timetable(newest)
        if newest.catchup is True and after.ticks is not None and not still_owed:
            first = after.due_after(handled) if handled >= owed else after.due_from(owed)
            went_on = first is None or made or (cursor.next_due_at is not None and cursor.next_due_at <= first)
            require(went_on, dag_id, "catches up and was edited; it owes", first, "and goes on at", cursor.next_due_at)
            return
        require(
            still_owed or served >= expected, dag_id, "was edited and owed", expected, "ticks,", served, "were served"
        )
        return
    if timetable.kind == "once":
        expected = 1
    else:
        until = timetable.last
        if cursor.next_due_at is not None:
            until = timetable.latest_due(cursor.next_due_at - timedelta(microseconds=1))
        first = timetable.due_from(owed)
        expected = 0 if until is None or first is None else timetable.count(first, until)
        if not timetable.is_due(owed) and owed <= now:
            expected += 1  # the schedule was changed while the daemon was down
    require(len(made) + skipped == expected, dag_id, expected, "ticks, but", len(made), "runs and", skipped, "skips")


def check_explained(db: Database, scheduler: Scheduler, now: datetime) -> None:
    """Every instance that has not ended is explained, and nothing idles that could run."""
    for dag_id, dag in scheduler._working.dags.items():
        due = dag.next_due_at
        if due is not None and dag.ticking and len(dag.running) < dag.spec.max_active_runs:
            late = due <= now and not scheduler._working.to_advance
            require(not late, "a tick is due, there is room, and nothing begins:", dag_id, due)
            wake_at = scheduler.wake_at()
            require(due <= now or (wake_at is not None and wake_at <= due), "nobody wakes for", dag_id, due)
    for number in db.live_runs:
        words = {(why.task_id, why.map_index): why.words for why in scheduler.explain(number)}
        for row in db.by_run[number].values():
            if row.state in FINISHED:
                continue
            why = words.get((row.task_id, row.map_index))
            require(why, "not explained:", row)
            idle = "next turn" in (why or "") and not scheduler._working.to_advance
            require(not idle, "it could run and does not:", row, why)


def check_working_set(db: Database, scheduler: Scheduler) -> None:
    """What the scheduler remembers is what is saved, and its counters are what a count gives."""
    working = scheduler._working
    require(set(working.runs) == set(db.live_runs), "runs in memory", set(working.runs), "saved", set(db.live_runs))
    taken = set()
    for number, live in working.runs.items():
        require(live.run == db.runs[number], "run differs:", live.run, db.runs[number])
        counted = LiveRun(live.run, live.spec, live.plan, live.dag, [node.instance for node in live.nodes])
        require(counted.open == live.open, "open tasks of run", number)
        for node, recounted in zip(live.nodes, counted.nodes, strict=True):
            require(node.instance == db.instances[node.key], "row differs:", node.instance, db.instances[node.key])
            require(node.counts == recounted.counts, "counters of", node.key, node.counts, recounted.counts)
            if node.instance.state in OCCUPYING:
                taken.add(node.key)
    require(taken == set(working.occupying), "slots", taken, set(working.occupying))
    require(set(working.attempts) == set(db.live_attempts.values()), "live attempts differ")
