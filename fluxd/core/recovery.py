"""At start: memory from the database; and after it, or after the runner came back: what has to be asked again.

Nothing is decided twice. A turn was saved whole or not at all, so the rows are consistent; what may be missing is
what the turn asked of the world after it was saved. `unsettled` repeats exactly that: every such command names a
fence, and whoever gets it twice does it once.
"""

from collections import defaultdict
from collections.abc import Set
from datetime import datetime

from fluxd.core.attempts import FIRST_LOOK_S, retry_delay
from fluxd.core.commands import BeginWait, Command, KillAttempt, StartAttempt
from fluxd.core.dags import restore
from fluxd.core.events import AttemptLost
from fluxd.core.live import LiveRun, Node
from fluxd.core.model import Instance
from fluxd.core.moment import duration
from fluxd.core.snapshot import DagRow, PastRun, Snapshot
from fluxd.core.spec import LOCAL, DagSpec
from fluxd.core.states import AttemptState, RunState, State
from fluxd.core.working_set import WorkingSet

DEFAULT_POOL_SLOTS = 128


def recover(working: WorkingSet, snapshot: Snapshot, now: datetime, *, away: bool) -> None:
    """Fill an empty memory. Timers that are over fire in this turn.

    `away`: fluxd was not running; the ticks of that time follow the dags' catch-up.
    """
    working.pools = dict(snapshot.pools) or {"default_pool": DEFAULT_POOL_SLOTS}
    working.run_number = snapshot.last_run_number
    working.fence = snapshot.last_fence
    past: dict[str, list[PastRun]] = defaultdict(list)
    for ended in snapshot.past:
        past[ended.dag_id].append(ended)
    newest: dict[str, datetime] = {}  # the newest tick that has a live run
    for live in snapshot.runs:
        if live.due_at is not None:
            newest[live.dag_id] = max(live.due_at, newest.get(live.dag_id, live.due_at))
    for row in snapshot.dags:
        restore(working, row, past[row.spec.dag_id], newest.get(row.spec.dag_id), now, away=away)
    rows: dict[int, list[Instance]] = defaultdict(list)
    for instance in snapshot.instances:
        rows[instance.run_number].append(instance.snapshot())
    for run in sorted(snapshot.runs, key=lambda run: run.number):
        dag = working.dags.get(run.dag_id)
        spec = snapshot.versions.get(run.version_id) or (dag.spec if dag is not None else DagSpec(run.dag_id))
        if dag is None:
            gone = DagRow(spec, run.version_id, False, None, removed=True)
            dag = restore(working, gone, (), None, now, away=away)
        live_run = LiveRun(run.snapshot(), spec, working.plan(run.version_id, spec), dag, rows[run.number])
        _restore_run(working, live_run, away=away)
    for attempt in sorted(snapshot.attempts, key=lambda attempt: attempt.fence):
        node = working.find((attempt.run_number, attempt.task_id, attempt.map_index))
        if node is not None and node.instance.fence == attempt.fence:
            node.attempt = attempt.snapshot()
            working.attempts[attempt.fence] = node
            _watch(working, node, away=away)


def _restore_run(working: WorkingSet, live: LiveRun, *, away: bool) -> None:
    working.add_run(live)
    for node in live.nodes:
        instance = node.instance
        working.restore_slot(node)
        if instance.state is State.SCHEDULED:
            working.lanes.add(node)
        elif instance.state is State.NONE:
            working.to_judge.append(node)
        elif instance.state is State.UP_FOR_RETRY and instance.retry_at is not None:
            if away:  # the clock may have been set back unseen: a pause is never longer than its task asks for
                instance.retry_at = min(instance.retry_at, working.clock.wall + duration(retry_delay(node)))
                working.touch(node)
            working.watch_pause(node)
    if live.run.state is RunState.RUNNING:
        live.began = working.clock.awake - working.ago(live.run.started_at)
        working.watch_run(live)
        if not live.open:
            working.to_close[live.run.number] = live


def _watch(working: WorkingSet, node: Node, *, away: bool) -> None:
    instance = node.instance
    node.began = working.clock.awake - working.ago(instance.started_at)
    working.watch_process(node)
    if instance.state is State.WAITING and instance.wait_until is not None:
        limit = (instance.wait or {}).get("timeout")
        if away and limit is not None:  # as with pauses
            latest = working.clock.wall + duration(max(FIRST_LOOK_S, float(limit)))
            instance.wait_until = min(instance.wait_until, latest)
            working.touch(node)
        working.watch_wait(node)


def unsettled(working: WorkingSet, executor: str, known_fences: Set[int]) -> list[Command]:
    """What was asked of this executor and may not have arrived. `known_fences`: attempts it runs or has a record of."""
    commands: list[Command] = []
    for fence, node in sorted(working.attempts.items()):
        instance, attempt, run = node.instance, node.attempt, node.live.run
        if attempt is None or attempt.executor != executor:
            continue
        if attempt.state is AttemptState.WAITING:
            commands.append(BeginWait(fence, run.snapshot(), instance.snapshot(), instance.wait or {}))
        elif instance.stop_reason is not None:
            commands.append(KillAttempt(fence, instance.stop_reason, executor))
        elif attempt.state is AttemptState.QUEUED and fence not in known_fences:
            commands.append(StartAttempt(fence, run.snapshot(), instance.snapshot(), run.version_id, executor))
    return commands


def vanished(working: WorkingSet, executor: str, known_fences: Set[int], now: datetime) -> list[AttemptLost]:
    """Attempts that this executor can not know any more, to be posted as lost.

    Those that ran and of which it has no record; and those that were told to stop and never started there. What is
    with another executor is for that one to judge.
    """
    who = "the runner" if executor == LOCAL else f"the executor {executor}"
    return [
        AttemptLost(fence, now, f"{who} does not know it and has no record of it", executor=executor)
        for fence, node in sorted(working.attempts.items())
        if fence not in known_fences
        and node.attempt is not None
        and node.attempt.executor == executor
        and (
            node.attempt.state is AttemptState.RUNNING
            or (node.attempt.state is AttemptState.QUEUED and node.instance.stop_reason is not None)
        )
    ]
