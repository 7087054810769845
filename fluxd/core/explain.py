"""Why does it not run? For every task instance of a live run that has not ended: the reason, and what would free it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fluxd.core.limits import Limits, Usage
from fluxd.core.live import LiveRun, Node
from fluxd.core.rules import COLUMN, Verdict
from fluxd.core.settle import blocked_by_past
from fluxd.core.states import FINISHED, RunState, State
from fluxd.core.timetable import rfc3339
from fluxd.core.working_set import WorkingSet

RUNS = "it runs"


@dataclass(frozen=True, slots=True)
class Explanation:
    """One instance that has not ended, and why, in words."""

    task_id: str
    map_index: int
    state: State
    words: str


def why_not_running(explanations: Iterable[Explanation]) -> dict[tuple[str, int], str]:
    """(task id, map index) -> why it does not run, of those that do not."""
    return {(one.task_id, one.map_index): one.words for one in explanations if one.words != RUNS}


def explain(working: WorkingSet, live: LiveRun) -> list[Explanation]:
    """In topological order; what runs is said to run."""
    limits = Limits(working.parallelism, working.pools, Usage(working.occupying.values()))
    awaited = working.lanes.awaited
    return [
        Explanation(node.task.task_id, node.instance.map_index, node.instance.state, _words(node, limits, awaited))
        for node in live.nodes
        if node.instance.state not in FINISHED
    ]


def _words(node: Node, limits: Limits, awaited: Mapping[str, Node]) -> str:
    instance, run = node.instance, node.live.run
    if instance.stop_reason is not None:
        return f"its process was told to stop ({instance.stop_reason}); it goes on when the process is gone"
    match instance.state:
        case State.NONE:
            return _not_ready(node)
        case State.SCHEDULED:
            return "ready; " + (limits.closed(node) or _overtaken(node, awaited) or "it starts in the next turn")
        case State.QUEUED:
            return f"its process was asked for at {rfc3339(instance.queued_at or run.queued_at)} and is being started"
        case State.RUNNING:
            return RUNS
        case State.UP_FOR_RETRY:
            at = "soon" if instance.retry_at is None else f"at {rfc3339(instance.retry_at)}"
            return f"try {instance.try_number} of {instance.max_tries} failed ({instance.reason}); the next begins {at}"
        case State.WAITING:
            until = "" if instance.wait_until is None else f", until {rfc3339(instance.wait_until)} at most"
            return f"it waits for {_awaited(instance.wait or {})}{until}"
        case _:
            return f"it is {instance.state}"


def _overtaken(node: Node, awaited: Mapping[str, Node]) -> str | None:
    first = awaited.get(node.task.pool)
    if first is None or first is node:
        return None
    whose = f"{first.live.run.dag_id}.{first.task.task_id}"
    return f"it comes after {whose}, which waits for {first.task.pool_slots} slots of pool {node.task.pool!r}"


def _awaited(wait: Mapping[str, Any]) -> str:
    """What a sensor waits for: its name, with the path or the moment if the request carries one."""
    args = wait.get("args")
    named = [args[name] for name in ("path", "at") if args.get(name)] if isinstance(args, dict) else []
    return " ".join(str(word) for word in [wait.get("sensor", "a sensor"), *named])


def _not_ready(node: Node) -> str:
    live = node.live
    if live.run.state is RunState.QUEUED:
        active, limit = len(live.dag.running), live.dag.spec.max_active_runs
        runs = "1 run of the dag is" if active == 1 else f"{active} runs of the dag are"
        queued = f"its run is queued: {runs} active, its max_active_runs is {limit}"
        before = None if live.run.due_at is None else live.dag.run_before(live.run.due_at)
        if live.plan.looks_back and before in live.dag.ticks:
            return f"{queued}; runs before it, which it depends on, go first"
        return queued
    if node.place.verdict() is Verdict.RUN:
        return blocked_by_past(node) or "it is ready and starts in the next turn"
    waiting = [up.name for up in live.upstream(node) if not COLUMN[up.instance.state]]
    shown = ", ".join(waiting[:3]) + (f" and {len(waiting) - 3} more" if len(waiting) > 3 else "")
    return f"it waits for {shown} (trigger rule {node.task.trigger_rule})"
