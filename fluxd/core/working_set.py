"""What the scheduler remembers between turns, and the few ways to change it.

Every change of a state goes through `move` and `move_run`: they hold it against the table of legal moves, keep the
counters of the tasks behind it, and note the row for saving. Nothing else assigns a state.
"""

from collections import deque
from datetime import datetime, timedelta
from typing import Any

from fluxd.core.commands import Command, DagCursor, Reply, Saves, Skip, StartAttempt, Turn, XCom
from fluxd.core.limits import Lanes
from fluxd.core.live import Dag, LiveRun, Node, Plan, make_plan
from fluxd.core.model import Attempt, InstanceKey
from fluxd.core.moment import EPOCH, Moment, duration
from fluxd.core.rules import COLUMN, Verdict
from fluxd.core.run_json import run_to_json
from fluxd.core.spec import LOCAL, DagSpec
from fluxd.core.states import MOVES, OCCUPYING, RUN_MOVES, AttemptState, RunState, State
from fluxd.core.timers import Timer, Timers
from fluxd.errors import FluxError


class IllegalMove(AssertionError):
    """The scheduler tried a change that the table of moves does not have: a bug, never an answer to a user."""


class WorkingSet:
    """All rows of live runs, the dags, the limits; and the changes of the turn that is being made."""

    def __init__(self, parallelism: int) -> None:
        self.parallelism = parallelism
        self.dags: dict[str, Dag] = {}
        self.pools: dict[str, int] = {}
        self.runs: dict[int, LiveRun] = {}
        self.run_ids: set[tuple[str, str]] = set()
        self.attempts: dict[int, Node] = {}  # fence of a live leg -> its instance
        self.occupying: dict[InstanceKey, Node] = {}  # the rows that hold a slot; limits are counted from them
        self.lanes = Lanes()
        self.timers = Timers(self._timer_is_true)
        self.clock = Moment.at(EPOCH)  # the present, read once for the whole turn
        self.run_number = 0
        self.fence = 0
        self.manual_stamp: datetime | None = None
        # Work of this turn: what is to be looked at before it ends.
        self.to_judge: deque[Node] = deque()
        self.to_close: dict[int, LiveRun] = {}
        self.to_advance: dict[str, Dag] = {}
        self._plans: dict[int, Plan] = {}
        self._begin()

    def _begin(self) -> None:
        self._runs: dict[int, LiveRun] = {}
        self._nodes: dict[InstanceKey, Node] = {}
        self._attempts: dict[int, Attempt] = {}
        self._xcoms: dict[tuple[int, str, int, str], XCom] = {}
        self._dropped: dict[InstanceKey, None] = {}
        self._forgotten: dict[InstanceKey, None] = {}
        self._skips: list[Skip] = []
        self._cursors: dict[str, DagCursor] = {}
        self._commands: list[Command] = []
        self._starts: list[tuple[Node, Attempt]] = []
        self._replies: list[Reply] = []
        self._run_replies: list[tuple[int, LiveRun]] = []

    # -- rows -----------------------------------------------------------------------------------------------------

    def plan(self, version_id: int, spec: DagSpec) -> Plan:
        """The graph of a version, made once while it is in use."""
        plan = self._plans.get(version_id)
        if plan is None or plan.tasks is not spec.tasks:
            plan = self._plans[version_id] = make_plan(spec)
        return plan

    def forget_plans(self) -> None:
        """Drop the graphs that no dag and no live run uses."""
        if len(self._plans) > 2 * (len(self.dags) + 16):
            used = {dag.version_id for dag in self.dags.values()} | {run.run.version_id for run in self.runs.values()}
            self._plans = {version: plan for version, plan in self._plans.items() if version in used}

    def add_run(self, live: LiveRun) -> None:
        """A run becomes live: new, from the database, or brought back by a clear."""
        run, dag = live.run, live.dag
        self.runs[run.number] = live
        self.run_ids.add((run.dag_id, run.run_id))
        if run.state is RunState.RUNNING:
            dag.running[run.number] = live
        else:
            dag.enqueue(live)
        if run.due_at is not None:
            dag.add_tick(run.due_at, live)
            if dag.last_due_at is None or run.due_at > dag.last_due_at:
                dag.last_due_at = run.due_at
            if dag.last_logical_date is None or run.logical_date > dag.last_logical_date:
                dag.last_logical_date = run.logical_date

    def drop_run(self, live: LiveRun) -> None:
        """A run has ended: it lives on in the database only."""
        run, dag = live.run, live.dag
        del self.runs[run.number]
        self.run_ids.discard((run.dag_id, run.run_id))
        dag.running.pop(run.number, None)
        dag.queued.pop(run.number, None)
        self.remember_past(live)
        self.to_advance[dag.dag_id] = dag

    def remember_past(self, live: LiveRun) -> None:
        """How the tasks of a run that has ended stand now: later runs may depend on it."""
        due, dag = live.run.due_at, live.dag
        if due is not None:
            dag.add_past(due, {node.key[1:]: node.instance.state for node in live.nodes})
            dag.forget_past(due)

    def restore_slot(self, node: Node) -> None:
        """An instance from the database may hold a slot."""
        if node.instance.state in OCCUPYING:
            self.occupying[node.instance.key] = node

    def move(self, node: Node, state: State) -> None:
        """Change the state of an instance: legal moves only; the counters behind it follow."""
        instance = node.instance
        old = instance.state
        if state not in MOVES[old]:
            raise IllegalMove(f"{old} -> {state} of {instance.key}")
        instance.state = state
        key = instance.key
        self._nodes[key] = node
        if state in OCCUPYING:
            self.occupying[key] = node
        elif old in OCCUPYING:
            del self.occupying[key]
        before, after = COLUMN[old], COLUMN[state]
        if before != after:
            self._count(node, before, after)
        if state is State.NONE:
            self.to_judge.append(node)
        if (state is State.NONE or after) and node.live.plan.looks_back and node.live.dag.first_late() is not None:
            self.to_advance[node.live.run.dag_id] = node.live.dag  # its run may do nothing but wait now

    def _count(self, node: Node, before: int, after: int) -> None:
        live = node.live
        places = live.places
        for number in live.plan.downstream[node.index]:
            below = places[number]
            if before:
                below.counts[before] -= 1
            if after:
                below.counts[after] += 1
                if below.verdict() is not Verdict.WAIT:
                    self.to_judge.extend(one for one in below.members if one.instance.state is State.NONE)
        if not before:
            live.open -= 1
        elif not after:
            live.open += 1
        if not live.open:
            self.to_close[live.run.number] = live
        if after and live.run.due_at is not None:
            after_it = live.dag.run_after(live.run.due_at)
            other = None if after_it is None else live.dag.ticks.get(after_it)
            if other is not None and other.plan.looks_back:
                self._wake_later(other, node)

    def _wake_later(self, other: LiveRun, node: Node) -> None:
        """In another run of the dag, the same instance may have waited for its past."""
        later = other.node(*node.key[1:])
        if later is not None and later.task.depends_on_past and later.instance.state is State.NONE:
            self.to_judge.append(later)

    def touch(self, node: Node) -> None:
        """The row of this instance changed otherwise than by its state."""
        self._nodes[node.instance.key] = node

    def move_run(self, live: LiveRun, state: RunState) -> None:
        """Change the state of a run: legal moves only."""
        run = live.run
        if state not in RUN_MOVES[run.state]:
            raise IllegalMove(f"{run.state} -> {state} of run {run.number}")
        if run.state is RunState.QUEUED:
            live.dag.queued.pop(run.number, None)
        run.state = state
        if state is RunState.RUNNING:
            live.dag.running[run.number] = live
        elif state is RunState.QUEUED:
            live.dag.running.pop(run.number, None)
            live.dag.enqueue(live)
        self.touch_run(live)

    def touch_run(self, live: LiveRun) -> None:
        self._runs[live.run.number] = live

    def touch_attempt(self, attempt: Attempt) -> None:
        self._attempts[attempt.fence] = attempt

    def begin_attempt(self, node: Node, now: datetime) -> None:
        """Queue the next try of an instance: its first leg, and a start once that is saved."""
        instance = node.instance
        self.move(node, State.QUEUED)
        if instance.try_number:
            self.drop_xcoms(instance.key)  # a try begins with nothing of the one before
        instance.try_number += 1
        instance.queued_at = now
        instance.started_at = instance.ended_at = instance.retry_at = instance.stop_reason = instance.reason = None
        attempt = self.begin_leg(node, AttemptState.QUEUED, now, 1, node.task.executor or LOCAL)
        self._starts.append((node, attempt))

    def begin_leg(self, node: Node, state: AttemptState, now: datetime, leg: int, executor: str) -> Attempt:
        """The next leg of the current try: a new fence, a new row. The one before it must be over."""
        instance = node.instance
        self.fence += 1
        instance.fence = self.fence
        attempt = node.attempt = Attempt(
            fence=self.fence,
            run_number=instance.run_number,
            task_id=instance.task_id,
            map_index=instance.map_index,
            try_number=instance.try_number,
            state=state,
            queued_at=now,
            leg=leg,
            executor=executor,
        )
        self.attempts[attempt.fence] = node
        self._attempts[attempt.fence] = attempt
        return attempt

    def attempt_of(self, fence: int, executor: str) -> tuple[Node, Attempt] | None:
        """The live attempt that a message of this executor is about; None where the message is late or a stranger's."""
        node = self.attempts.get(fence)
        if node is None or node.attempt is None or node.attempt.executor != executor:
            return None
        return node, node.attempt

    def end_attempt(self, node: Node, state: AttemptState, now: datetime, reason: str | None) -> None:
        """The live attempt of this instance is over."""
        attempt = node.attempt
        if attempt is None:
            return
        attempt.state = state
        attempt.reason = reason
        if attempt.ended_at is None:
            attempt.ended_at = now
        node.attempt = None
        del self.attempts[attempt.fence]
        self._attempts[attempt.fence] = attempt

    # -- what else a turn carries ---------------------------------------------------------------------------------

    def command(self, command: Command) -> None:
        self._commands.append(command)

    def reply(self, request: int, value: Any = None, error: FluxError | None = None) -> None:
        self._replies.append(Reply(request, value, error))

    def reply_run(self, request: int, live: LiveRun) -> None:
        """Answer with a run as it is at the end of the turn."""
        self._run_replies.append((request, live))

    def keep_xcom(self, key: InstanceKey, name: str, value: Any) -> None:
        self._xcoms[(*key, name)] = XCom(*key, name, value)

    def drop_xcoms(self, key: InstanceKey) -> None:
        self._dropped[key] = None
        for known in [known for known in self._xcoms if known[:3] == key]:
            del self._xcoms[known]

    def forget_state(self, key: InstanceKey) -> None:
        """The instance begins anew: what its tries kept for one another goes."""
        self._forgotten[key] = None

    def skip_ticks(self, skip: Skip) -> None:
        self._skips.append(skip)

    def move_cursor(self, dag: Dag, next_due_at: datetime | None) -> None:
        """The dag's timetable stands here now."""
        dag.next_due_at = next_due_at
        self.to_advance[dag.dag_id] = dag
        self.keep_cursor(dag)

    def keep_cursor(self, dag: Dag, forgotten: bool = False) -> None:
        self._cursors[dag.dag_id] = DagCursor(dag.dag_id, dag.next_due_at, dag.paused, forgotten)

    def watch_tick(self, dag: Dag, now: datetime) -> None:
        """A timer wakes at the dag's next tick. One that is due already waits for room, not for time."""
        due = dag.next_due_at
        if due is not None and due > now and due != dag.watched and dag.ticking:
            dag.watched = due
            self.timers.push_tick(due, dag.dag_id)

    def ago(self, at: datetime | None) -> timedelta:
        """How long ago this was. All that is known of times from before this process is what the wall clock said."""
        return timedelta() if at is None else max(timedelta(), self.clock.wall - at)

    def watch_run(self, live: LiveRun) -> None:
        """A running run has a dagrun_timeout: a timer wakes when it is over."""
        if live.spec.dagrun_timeout is not None:
            self.timers.push_awake(live.began + duration(live.spec.dagrun_timeout), Timer.RUN, live.run.number)

    def watch_process(self, node: Node) -> None:
        """An attempt that runs or waits has an execution_timeout: a timer wakes when it is over."""
        limit = execution_limit(node)
        if limit is not None:
            self.timers.push_awake(node.began + limit, Timer.TIMEOUT, node.instance.fence)

    def watch_pause(self, node: Node) -> None:
        """An instance is tried again at its `retry_at`: a timer wakes then, as far from now as that is from now."""
        if node.instance.retry_at is not None:
            node.due = self.clock.elapsed + node.instance.retry_at - self.clock.wall
            self.timers.push_elapsed(node.due, Timer.RETRY, node.instance.key)

    def watch_wait(self, node: Node) -> None:
        """A waiting instance has a deadline, `wait_until`: a timer wakes then, as far from now as that is from now."""
        if node.instance.wait_until is not None:
            node.due = self.clock.elapsed + node.instance.wait_until - self.clock.wall
            self.timers.push_elapsed(node.due, Timer.WAIT, node.instance.fence)

    def shift_deadlines(self, step: timedelta) -> None:
        """The wall clock was set: what is stored as a date, and means a pause or a wait, moves with it."""
        for live in self.runs.values():
            for node in live.nodes:
                instance = node.instance
                if instance.retry_at is None and instance.wait_until is None:
                    continue
                instance.retry_at = shifted(instance.retry_at, step)
                instance.wait_until = shifted(instance.wait_until, step)
                self.touch(node)
                if instance.state is State.WAITING:
                    self.watch_wait(node)
                else:
                    self.watch_pause(node)

    def find(self, key: InstanceKey) -> Node | None:
        live = self.runs.get(key[0])
        return None if live is None else live.node(*key[1:])

    def _timer_is_true(self, at: timedelta, kind: Timer, key: Any) -> bool:
        match kind:
            case Timer.TICK:
                dag = self.dags.get(key)
                return dag is not None and dag.next_due_at == EPOCH + at and dag.ticking
            case Timer.RETRY:
                node = self.find(key)
                return node is not None and node.instance.retry_at is not None and node.due == at
            case Timer.WAIT:
                node = self.attempts.get(key)
                return node is not None and node.instance.state is State.WAITING and node.due == at
            case Timer.TIMEOUT:
                node = self.attempts.get(key)
                if node is None or node.instance.stop_reason is not None:
                    return False
                limit = execution_limit(node)
                return limit is not None and at == node.began + limit
            case Timer.RUN:
                live = self.runs.get(key)
                if live is None or live.run.state is not RunState.RUNNING or live.run.cancelling or live.run.reason:
                    return False
                seconds = live.spec.dagrun_timeout
                return seconds is not None and at == live.began + duration(seconds)

    def end_turn(self) -> Turn:
        """Everything that changed, as copies that nobody changes afterwards."""
        instances = {key: node.instance.snapshot() for key, node in self._nodes.items()}
        runs = {number: live.run.snapshot() for number, live in self._runs.items()}
        saves = Saves(
            runs=list(runs.values()),
            instances=list(instances.values()),
            attempts=[attempt.snapshot() for attempt in self._attempts.values()],
            xcoms=list(self._xcoms.values()),
            skips=self._skips,
            cursors=list(self._cursors.values()),
            xcoms_dropped=list(self._dropped),
            states_dropped=list(self._forgotten),
        )
        commands = self._commands
        for node, attempt in self._starts:
            run = runs.get(node.live.run.number) or node.live.run.snapshot()
            runs[run.number] = run
            instance = instances[node.instance.key]
            commands.append(StartAttempt(attempt.fence, run, instance, run.version_id, attempt.executor))
        commands.extend(self._replies)
        commands.extend(Reply(request, run_to_json(live.run)) for request, live in self._run_replies)
        self._begin()
        self.forget_plans()
        return Turn(saves, commands)


def execution_limit(node: Node) -> timedelta | None:
    """How long an attempt may take from its start, whether it runs or waits.

    None where it has no execution_timeout; and for a sensor whose own timeout is no longer, so that it is told what did
    not come.
    """
    instance, limit = node.instance, node.task.execution_timeout
    if limit is None or instance.state not in (State.RUNNING, State.WAITING):
        return None
    timeout = (instance.wait or {}).get("timeout") if instance.state is State.WAITING else None
    return None if timeout is not None and float(timeout) <= limit else duration(limit)


def shifted(at: datetime | None, step: timedelta) -> datetime | None:
    return None if at is None else at + step
