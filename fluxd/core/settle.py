"""The end of every turn: what follows from what has happened.

Ready tasks are found (trigger rules), ended runs are closed, waiting runs and due ticks begin, and free slots are
filled; round and round until nothing follows any more. Empty tasks end here at once, so a chain of them costs no turn.
"""

from datetime import datetime

from fluxd.core.limits import Limits, Usage, choose
from fluxd.core.live import LiveRun, Node
from fluxd.core.rules import COLUMN, FAILED, Verdict
from fluxd.core.run_starts import advance
from fluxd.core.states import FINISHED, RunState, State
from fluxd.core.working_set import WorkingSet

REASON_MAX = 2000
NOT_PAST = frozenset({State.SUCCESS, State.SKIPPED})


def settle(working: WorkingSet, now: datetime, runs_at_most: int) -> None:
    """Draw every conclusion. At most so many runs begin: the rest is for the next turn, `to_advance` holds its dags."""
    begun = 0
    while True:
        while working.to_judge:
            _judge(working, working.to_judge.popleft(), now)
        for live in list(working.to_close.values()):
            _close(working, live, now)
        working.to_close.clear()
        begun += advance(working, now, runs_at_most - begun)
        if not working.to_judge and not working.to_close:
            break
    if not working.lanes or len(working.occupying) >= working.parallelism:
        return
    usage = Usage(working.occupying.values())
    for node in choose(working.lanes, Limits(working.parallelism, working.pools, usage)):
        working.begin_attempt(node, now)


def _judge(working: WorkingSet, node: Node, now: datetime) -> None:
    """Decide about a task that has not begun."""
    instance, live = node.instance, node.live
    if instance.state is not State.NONE or live.run.state is not RunState.RUNNING or live.run.cancelling:
        return
    verdict = node.place.verdict()
    if verdict is Verdict.WAIT:
        return
    if verdict is Verdict.RUN:
        if blocked_by_past(node) is not None:
            return
        if node.task.kind == "empty":
            instance.started_at = instance.ended_at = now
            working.move(node, State.SUCCESS)
        else:
            working.move(node, State.SCHEDULED)
            working.lanes.add(node)
        return
    instance.ended_at = now
    instance.reason = why_not(node)
    working.move(node, State.SKIPPED if verdict is Verdict.SKIP else State.UPSTREAM_FAILED)


def why_not(node: Node) -> str:
    """Why the trigger rule of a task says that it will not run, in words."""
    ended = [f"{up.name} {up.instance.state}" for up in node.live.upstream(node) if COLUMN[up.instance.state]]
    shown = ", ".join(ended[:3]) + (f" and {len(ended) - 3} more" if len(ended) > 3 else "")
    return f"its trigger rule {node.task.trigger_rule} cannot be met: {shown}"


def blocked_by_past(node: Node) -> str | None:
    """For depends_on_past: why this task waits for itself in the scheduled run before, in words; None: it need not."""
    live = node.live
    if not node.task.depends_on_past or live.run.due_at is None:
        return None
    tick = live.dag.run_before(live.run.due_at)
    if tick is None:
        return None
    before = live.dag.ticks.get(tick)
    if before is not None:
        other = before.node(*node.key[1:])
        state = None if other is None else other.instance.state
    else:
        state = live.dag.past[tick].get(node.key[1:])
    if state is None or state in NOT_PAST:
        return None
    return f"it depends on its past, and in the run due at {tick:%Y-%m-%d %H:%M} UTC it is {state}"


def _close(working: WorkingSet, live: LiveRun, now: datetime) -> None:
    """All tasks of a run have ended: so has the run. Its leaves decide how; a cancelled task spoils it."""
    run = live.run
    if live.open or run.number not in working.runs:
        return
    run.started_at = run.started_at or now
    run.ended_at = now
    end_run(working, live)
    working.drop_run(live)


def end_run(working: WorkingSet, live: LiveRun) -> None:
    """Give a run the state that its ended tasks make; also for one that had ended and whose tasks were marked."""
    run = live.run
    cancelled = any(node.instance.state is State.CANCELLED for node in live.nodes)
    stopped = run.cancelling or run.state is RunState.CANCELLED
    if stopped and (cancelled or not live.places):
        state = RunState.CANCELLED
    elif cancelled or any(COLUMN[leaf.instance.state] == FAILED for leaf in live.leaves()):
        state = RunState.FAILED
        timed_out = run.reason if run.state is RunState.RUNNING and not stopped else None
        run.reason = timed_out or _why_failed(live)
    else:
        state = RunState.SUCCESS
        run.reason = None
    run.cancelling = False
    if state is not run.state:
        working.move_run(live, state)
    working.touch_run(live)


def _why_failed(live: LiveRun) -> str:
    first = None
    for node in live.nodes:
        if node.instance.state is State.FAILED:
            first = node
            break
        if first is None and COLUMN[node.instance.state] == FAILED:
            first = node
    if first is None:
        return "a task was cancelled"
    reason = f"task {first.name} {first.instance.state}"
    if first.instance.reason:
        reason += f": {first.instance.reason}"
    return reason[:REASON_MAX]


def unfinished(live: LiveRun) -> list[Node]:
    return [node for node in live.nodes if node.instance.state not in FINISHED]
