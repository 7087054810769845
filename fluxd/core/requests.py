"""What people ask for: trigger, cancel, clear, mark. Each is answered by a Reply, with a value or with a FluxError."""

import re
from datetime import UTC, datetime, timedelta

from fluxd.core.attempts import cancel_unfinished, reset, stop
from fluxd.core.dags import known_dag
from fluxd.core.events import CancelRun, ClearTasks, Interrupt, MarkTasks, TriggerRun
from fluxd.core.live import Dag, LiveRun, Node, same_shape
from fluxd.core.model import InstanceKey, Run
from fluxd.core.params import check_names, check_values
from fluxd.core.run_starts import add_new_run
from fluxd.core.settle import end_run
from fluxd.core.snapshot import Revived
from fluxd.core.states import FINISHED, RUN_FINISHED, RunState, State, StopReason
from fluxd.core.timetable import NO_TIMETABLE, check_time
from fluxd.core.working_set import WorkingSet
from fluxd.errors import Invalid, NotFound, Refused

RUN_ID = re.compile(r"[A-Za-z0-9_:+@~][A-Za-z0-9_.:+@~-]{0,199}")
SCHEDULED_PREFIX = "scheduled__"
MARKS = {State.SUCCESS: StopReason.SUCCESS, State.FAILED: StopReason.FAIL, State.SKIPPED: StopReason.SKIP}
NOT_WELL = frozenset({State.FAILED, State.UPSTREAM_FAILED, State.CANCELLED})


def trigger(working: WorkingSet, event: TriggerRun, now: datetime) -> None:
    """A run that a person asks for. It starts at once, or when max_active_runs allows."""
    dag = known_dag(working, event.dag_id)
    if dag.removed:
        raise Refused(
            "FLX-4202", f"Dag {event.dag_id!r} cannot be triggered: its file is gone; put it back into the dags folder."
        )
    run_id = event.run_id or _manual_run_id(working, dag, now)
    _check_run_id(event.run_id)
    if event.taken or (dag.dag_id, run_id) in working.run_ids:
        raise Refused("FLX-4203", f"Dag {dag.dag_id!r} has a run {run_id!r} already: choose another run id.")
    if event.logical_date is not None:
        check_time(event.logical_date, "The logical date")
    check_names({**dag.spec.params, **dag.spec.param_schemas}, event.conf)
    check_values(dag.spec.param_schemas, dag.spec.params, event.conf, patterns=False)
    start, end = dag.timetable.covered_by_manual(event.logical_date, now)
    live = add_new_run(
        working,
        dag,
        Run(
            number=0,
            dag_id=dag.dag_id,
            run_id=run_id,
            run_type="manual",
            state=RunState.QUEUED,
            version_id=dag.version_id,
            logical_date=event.logical_date or now,
            data_interval_start=start,
            data_interval_end=end,
            due_at=None,
            queued_at=now,
            conf=event.conf,
            created_by=event.by,
        ),
    )
    working.to_advance[dag.dag_id] = dag
    working.reply_run(event.request, live)


def _check_run_id(run_id: str | None) -> None:
    if run_id is None:
        return
    if not RUN_ID.fullmatch(run_id):
        raise Invalid(
            "FLX-4204",
            f"The run id {run_id[:80]!r} cannot be used: it is 1 to 200 of the characters A-Z a-z 0-9 _ . : + @ ~ - "
            "and begins with neither . nor -.",
        )
    if run_id.startswith(SCHEDULED_PREFIX):
        raise Invalid(
            "FLX-4205", f"The run id {run_id!r} is of the kind that only the timetable gives: choose another beginning."
        )


def _manual_run_id(working: WorkingSet, dag: Dag, now: datetime) -> str:
    """A name from the time of asking; two that ask within one microsecond get different ones."""
    at = now
    if working.manual_stamp is not None and at <= working.manual_stamp < at + timedelta(seconds=1):
        at = working.manual_stamp + timedelta(microseconds=1)
    working.manual_stamp = at
    at = at.astimezone(UTC)
    return f"manual__{at:%Y%m%dT%H%M%S}.{at.microsecond:06}Z"


def cancel(working: WorkingSet, event: CancelRun, now: datetime) -> None:
    """Stop a live run: nothing of it starts any more, its processes are ended, then it is cancelled."""
    live = working.runs.get(event.run_number)
    if live is None:
        raise Refused("FLX-4206", "The run has ended already: there is nothing to cancel.")
    if not live.run.cancelling:
        live.run.cancelling = True
        live.run.reason = f"cancelled by {event.by}"
        working.touch_run(live)
    cancel_unfinished(working, live, live.run.reason or "cancelled", now)
    if not live.open:
        working.to_close[live.run.number] = live
    working.reply_run(event.request, live)


def clear(working: WorkingSet, event: ClearTasks, now: datetime) -> None:
    """Run tasks again, with what is behind them; the run becomes live again if it had ended.

    Who clears has often mended something: the run goes on with the newest version of its dag, if that fits.
    """
    live = _live(working, event.run_number, event.revive)
    nodes = _chosen(live, event.keys)
    if event.downstream:
        nodes = live.below(nodes)
    if event.only_failed:
        nodes = [node for node in nodes if node.instance.state in NOT_WELL]
    nodes = [node for node in nodes if node.instance.state is not State.NONE]
    note = _take_newest(working, live) if nodes else None
    if nodes:
        _reopen(working, live, now)
    for node in nodes:
        if node.instance.state in FINISHED:
            reset(working, node)
        else:
            stop(working, node, StopReason.RESTART, f"cleared by {event.by}", now)
    working.reply(event.request, {"cleared": [list(node.key[1:]) for node in nodes], "note": note})


def _take_newest(working: WorkingSet, live: LiveRun) -> str | None:
    """Have a run go on with the newest version of its dag. Returns what people should know of that."""
    dag = live.dag
    if dag.version_id == live.run.version_id:
        return None
    if not same_shape(live.plan, dag.plan):
        return (
            "The run stays on the version of the dag that it began with: the newest one has other tasks or edges. "
            "Trigger a new run to use that."
        )
    live.adopt(dag.spec, dag.plan)
    live.run.version_id = dag.version_id
    working.touch_run(live)
    working.watch_run(live)
    working.to_advance[dag.dag_id] = dag
    for node in live.nodes:
        if node.instance.state is State.SCHEDULED:
            working.lanes.add(node)  # its pool, slots or priority may be others now
        else:
            working.watch_process(node)
    return "The run goes on with the newest version of the dag."


def mark(working: WorkingSet, event: MarkTasks, now: datetime) -> None:
    """A person says how tasks ended. What was given up because of them is decided anew."""
    stop_reason = MARKS.get(event.state)
    if stop_reason is None:
        raise Invalid("FLX-4207", f"Tasks cannot be marked {event.state}: mark them success, failed or skipped.")
    live = _live(working, event.run_number, event.revive)
    nodes = _chosen(live, event.keys)
    changed = [node for node in nodes if node.instance.state is not event.state]
    reason = f"marked {event.state} by {event.by}"
    for node in changed:
        if node.instance.state in FINISHED:
            node.instance.reason = reason
            working.move(node, State(event.state))
        else:
            stop(working, node, stop_reason, reason, now)
    for node in live.below(changed):
        if node.instance.state is State.UPSTREAM_FAILED:
            reset(working, node)
    if live.open or live.run.number in working.runs:
        _reopen(working, live, now)
    elif changed:
        end_run(working, live)
        working.remember_past(live)
    working.reply(event.request, {"marked": [list(node.key[1:]) for node in nodes]})


def interrupt(working: WorkingSet, event: Interrupt, now: datetime) -> None:
    """Start nothing more; end what runs, which fails without another try."""
    working.parallelism = 0
    running = list(working.occupying.values())
    for node in running:
        stop(working, node, StopReason.FAIL, INTERRUPTED, now)
    working.reply(event.request, {"ending": [list(node.key[1:]) for node in running]})


def _live(working: WorkingSet, run_number: int, revive: Revived | None) -> LiveRun:
    """The run in memory, or one made from the rows of a finished run."""
    live = working.runs.get(run_number)
    if live is not None:
        if live.run.cancelling:
            raise Refused("FLX-4209", f"Run {live.run.run_id!r} is being cancelled: wait until it has ended.")
        return live
    if revive is None:
        raise NotFound("FLX-4210", "There is no such run any more: fluxctl runs list shows those there are.")
    run = revive.run.snapshot()
    dag = working.dags.get(run.dag_id)
    if dag is None:
        dag = Dag(revive.spec, run.version_id, working.plan(run.version_id, revive.spec), NO_TIMETABLE, removed=True)
        working.dags[run.dag_id] = dag
    if revive.before is not None and revive.before.due_at not in dag.ticks:
        dag.add_past(revive.before.due_at, dict(revive.before.states))
    instances = [instance.snapshot() for instance in revive.instances]
    return LiveRun(run, revive.spec, working.plan(run.version_id, revive.spec), dag, instances)


INTERRUPTED = "FLX-3510: Interrupted: fluxd was stopped from its terminal while this ran; clear it to run it again."


def _chosen(live: LiveRun, keys: tuple[InstanceKey, ...]) -> list[Node]:
    if not keys:
        return live.nodes
    nodes = []
    for _, task_id, map_index in keys:
        node = live.node(task_id, map_index)
        if node is None:
            named = f"task {task_id!r}" if map_index < 0 else f"task {task_id!r} with map index {map_index}"
            raise NotFound(
                "FLX-4211", f"Run {live.run.run_id!r} has no {named}: fluxctl tasks list shows those it has."
            )
        nodes.append(node)
    return nodes


def _reopen(working: WorkingSet, live: LiveRun, now: datetime) -> None:
    """A run that had ended is live again: it waits for its turn like a new one."""
    run = live.run
    if run.state in RUN_FINISHED:
        run.ended_at = run.started_at = run.reason = None
        run.cancelling = False
        run.queued_at = now
        working.move_run(live, RunState.QUEUED)
        working.add_run(live)
        working.to_advance[run.dag_id] = live.dag
    elif run.reason is not None:  # it had timed out and was dying: it has its whole time again
        run.reason = None
        run.started_at = now
        live.began = working.clock.awake
        working.touch_run(live)
        working.watch_run(live)
