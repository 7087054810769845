"""The rules that nothing may break, checked from the saved rows and from what the world did, not from what the
scheduler believes.

The oracle sees each turn when it is decided, when it is committed, and each thing that the daemon does after it.
"""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

from fluxd.core.commands import BeginWait, Reply, Turn
from fluxd.core.events import (
    AttemptEnded,
    AttemptLost,
    ClearTasks,
    DagLoaded,
    DagRemoved,
    Event,
    MarkTasks,
    PoolSet,
    WaitEnded,
)
from fluxd.core.live import LiveRun
from fluxd.core.model import Attempt, Instance, InstanceKey, Run
from fluxd.core.moment import Moment
from fluxd.core.scheduler import Scheduler
from fluxd.core.snapshot import Snapshot
from fluxd.core.spec import DagSpec, TaskSpec
from fluxd.store.storable import JSON_NULL
from tests.sim import results
from tests.sim.deadlines import Deadlines
from tests.sim.ledger import Ledger
from tests.sim.rules import ATTEMPT_LIVE, DONE, HOLDS_SLOT, RUN_DONE, verdict
from tests.sim.stopwatches import NOTHING, Stopwatches, pause_s, set_by
from tests.sim.tables import Change
from tests.sim.violation import require

if TYPE_CHECKING:
    from tests.sim.daemon import Fluxd
    from tests.sim.world import World

IN_TIME_S = 2.0


@dataclass
class Decision:
    """A turn on its way: what went in, what came out, and whether it is saved."""

    scheduler: Scheduler
    events: list[Event] | None  # None: a recovery
    moment: Moment
    turn: Turn
    last: Moment | None  # the turn before it in this process
    committed: bool = False

    @property
    def now(self) -> datetime:
        return self.moment.wall

    @cached_property
    def step(self) -> timedelta:
        """What the wall clock was set by since the turn before."""
        return set_by(self.last, self.moment)


class Oracle:
    """Everything is checked as it happens."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.tables = world.tables
        self.watches = Stopwatches(world.tables)
        self.deadlines = Deadlines(world, self.watches)
        self.last: Moment | None = None
        self.ledger = Ledger(world)
        self.turns = 0
        self.decision: Decision | None = None
        self.specs: dict[str, DagSpec] = {}  # as the scheduler knows them
        self.removed: set[str] = set()
        self.pools: dict[str, int] = {}
        self.budgets: dict[InstanceKey, int] = {}
        self.waits_from: dict[InstanceKey, datetime] = {}  # sensors: the first wait of this go
        self.xcoms: dict[InstanceKey, dict[str, Any]] = {}  # what must be there
        self.replies: dict[int, Decision] = {}  # request number -> the turn that answers it
        self.wait_ended = 0.0
        self.sent: dict[str, int] = {}  # idempotency key -> fence

    # -- turns ----------------------------------------------------------------------------------------------------

    def recovered(
        self, scheduler: Scheduler, snapshot: Snapshot, now: Moment, since: Moment | None, turn: Turn
    ) -> None:
        before = dict(self.specs)
        self.specs = {row.spec.dag_id: row.spec for row in snapshot.dags}
        self.removed = {row.spec.dag_id for row in snapshot.dags if row.removed}
        self.pools = dict(snapshot.pools)
        self.watches.recovered(now)
        self.deadlines.recovered()
        self._decided(Decision(scheduler, None, now, turn, since), before)

    def decided(self, scheduler: Scheduler, events: list[Event], now: Moment, turn: Turn) -> None:
        before = dict(self.specs)
        edits: Counter[str] = Counter()
        for event in events:
            match event:
                case DagLoaded():
                    self.specs[event.spec.dag_id] = event.spec
                    self.removed.discard(event.spec.dag_id)
                    edits[event.spec.dag_id] += 1
                case DagRemoved():
                    self.removed.add(event.dag_id)
                case PoolSet():
                    self.pools[event.name] = event.slots
                case AttemptEnded() | AttemptLost():
                    self.deadlines.soon(now, "ack", event.fence)
        self._decided(Decision(scheduler, events, now, turn, self.last), before, edits)

    def _decided(self, decision: Decision, before: dict[str, DagSpec], edits: Counter[str] | None = None) -> None:
        require(self.decision is None or self.decision.committed, "a turn was decided before the last one was saved")
        self.turns += 1
        if self.world.traced:
            self.world.digest.update(repr((self.world.clock_time(), decision.turn)).encode())
        self.ledger.decided(edits or Counter(), decision.last, decision.moment)
        self.decision, self.last = decision, decision.moment
        for command in decision.turn.commands:
            if isinstance(command, Reply):
                self.replies[command.request] = decision
        if not decision.turn.saves:
            decision.committed = True
            if decision.events is None:
                self.ledger.committed(Change({}, {}, {}, {}, []), None, decision.now, self.specs)
            self._look(decision)

    def crashed(self) -> None:
        self.decision = self.last = None
        self.replies.clear()

    def committed(self, change: Change) -> None:
        decision = self.decision
        require(decision is not None, "a commit that no turn asked for")
        assert decision is not None
        if decision.committed:
            changed = change.runs or change.instances or change.attempts or change.skips
            moved = [old for old, new in change.cursors.values() if old != new]
            require(not changed and not moved, "saved twice, it has another effect:", change)
            return
        decision.committed = True
        touched = {key[0] for key in change.instances} | set(change.runs)
        for fence, (old, new) in change.attempts.items():
            results.check_attempt(decision, old, new, self.tables, fence)
            if old is not None and old.state == "waiting":
                self.wait_ended = self.world.clock_time()
        self.watches.committed(change, decision.moment, decision.step)
        for old_row, row in change.instances.values():
            self._check_row(decision, self._moved(decision, old_row, change), row, change)
        self._check_moved(decision, change)
        for old_run, run in change.runs.values():
            self._check_run(decision, old_run, run, change)
        for number in touched & set(self.tables.runs):
            self._check_idle(number, decision)
        self._check_limits(decision, change)
        self._check_xcoms(decision, change)
        self.ledger.committed(change, decision.events, decision.now, self.specs)
        self.deadlines.committed(change, decision.moment)
        self._look(decision)

    def _look(self, decision: Decision) -> None:
        self.deadlines.check()
        if self.world.rng.random() < 0.08:
            check_working_set(self.tables, decision.scheduler)
            check_explained(self.tables, decision.scheduler, decision.now)

    def look_at_the_clock(self) -> None:
        self.deadlines.check()

    def _was_live(self, number: int, change: Change) -> bool:
        before = change.runs[number][0] if number in change.runs else self.tables.runs.get(number)
        return before is not None and before.state not in RUN_DONE

    def _moved(self, decision: Decision, old: Instance | None, change: Change) -> Instance | None:
        """A row as it was; its dates have moved with the wall clock, where that was set."""
        if old is None or not decision.step or not self._was_live(old.run_number, change):
            return old
        retry_at = old.retry_at and old.retry_at + decision.step
        return replace(old, retry_at=retry_at, wait_until=old.wait_until and old.wait_until + decision.step)

    def _check_moved(self, decision: Decision, change: Change) -> None:
        """Where the wall clock was set, no date of a pause or a wait is left behind."""
        if decision.step == NOTHING:
            return
        for number in self.tables.live_runs:
            for row in self.tables.by_run[number].values():
                dated = row.retry_at is not None or row.wait_until is not None
                left = dated and row.key not in change.instances and self._was_live(number, change)
                require(not left, "the clock was set by", decision.step, "and not the dates of", row)

    # -- rows -----------------------------------------------------------------------------------------------------

    def task(self, row: Instance) -> TaskSpec:
        return self.tables.versions[self.tables.runs[row.run_number].version_id].by_id[row.task_id]

    def _check_row(self, decision: Decision, old: Instance | None, row: Instance, change: Change) -> None:
        task, run, now = self.task(row), self.tables.runs[row.run_number], decision.now
        requests = results.requests_on(decision, row.run_number)
        before = None if old is None else str(old.state)
        fresh = old is None or (row.fence is not None and row.fence != old.fence)
        # A task begins, or is given up: its trigger rule must say so.
        if before in (None, "none", "restarting") or before in DONE:
            self._check_judgement(row, task, run, before, change)
        if old is not None and before == "up_for_retry" and row.state in ("scheduled", "queued") and not requests:
            over = self.watches.pauses.get(row.key)
            require(over is not None and decision.moment.elapsed >= over, "a retry began too early:", old, now)
        if row.state == "up_for_retry" and (old is None or old.retry_at != row.retry_at):
            self._check_retry_at(decision, old, row, task)
        if row.stop_reason == "timeout" and (old is None or old.stop_reason != "timeout"):
            require(self._had_its_time(decision, row, task), "timed out too early:", row, now)
        reason = row.reason or ""
        if reason.startswith("FLX-3503") and old is not None and old.state == "waiting" and old.reason != reason:
            require(self._had_its_time(decision, old, task), "a wait was timed out too early:", old, now)
        if reason.startswith("FLX-3505") and (old is None or old.reason != reason):
            require(old is not None and old.wait_until is not None and now >= old.wait_until, "gave up early:", row)
            over = self.watches.waits.get(row.key) if old.state == "waiting" else None
            require(over is None or decision.moment.elapsed >= over, "gave up early:", row)
            soft = (old.wait or {}).get("soft_fail")
            require(old.state != "waiting" or row.state == ("skipped" if soft else "failed"), "soft_fail:", row)
        self._check_wait(old, row, now, decision.events is None)
        self._check_budget(decision, old, row, task, requests, change)
        begun = fresh and row.fence is not None and self.tables.attempts[row.fence].leg == 1
        if begun:
            require(row.try_number == (0 if old is None else old.try_number) + 1, "try number:", old, "->", row)
            require(row.state == "queued", "a try is born", row)
        elif old is not None:
            require(row.try_number == old.try_number, "try number without a try:", old, "->", row)
        results.check_instance(decision, old, row, task, change, self.budgets.get(row.key, 0))

    def _had_its_time(self, decision: Decision, row: Instance, task: TaskSpec) -> bool:
        limit, began = task.execution_timeout, self.watches.process_began(row)
        return limit is not None and began is not None and decision.moment.awake >= began + timedelta(seconds=limit)

    def _check_wait(self, old: Instance | None, row: Instance, now: datetime, recovery: bool) -> None:
        """The time of a wait is counted from its first beginning, and a cleared sensor has its whole time again."""
        key = row.key
        if row.state == "none" or (old is not None and old.state in DONE and row.state not in DONE):
            self.waits_from.pop(key, None)
        if row.state == "waiting" and (old is None or old.state != "waiting"):
            self.waits_from.setdefault(key, now)
            timeout = (row.wait or {}).get("timeout")
            if isinstance(timeout, int | float) and 0 < timeout < 10**7:
                latest = now + timedelta(seconds=timeout)
                require(row.wait_until is not None, "no deadline:", row)
                if old is None or old.wait_until is None:
                    require(row.wait_until == latest, "the deadline of", row, "is not", latest)
        if old is not None and old.wait_until is not None and row.wait_until is not None and row.state != "none":
            same = old.wait_until == row.wait_until or "none" in (old.state, row.state) or old.state in DONE
            # The clock was set back while nobody looked: a wait is never longer than its timeout.
            timeout = (row.wait or {}).get("timeout")
            if recovery and isinstance(timeout, int | float):
                same |= row.wait_until == min(old.wait_until, now + timedelta(seconds=max(1.0, timeout)))
            require(same or old.stop_reason == "restart", "a deadline moved:", old, "->", row)

    def _check_judgement(self, row: Instance, task: TaskSpec, run: Run, before: str | None, change: Change) -> None:
        begins = row.state in ("scheduled", "queued")
        done_at_once = task.kind == "empty" and row.state == "success" and row.reason is None and before != "success"
        given_up = (row.reason or "").startswith("its trigger rule") and row.state in ("skipped", "upstream_failed")
        if not (begins or done_at_once or given_up):
            require(row.state != "upstream_failed" or before == row.state, "upstream_failed without its words:", row)
            return
        if before == row.state:
            return  # only its words changed
        rows = self.tables.by_run[row.run_number]
        states = [str(rows[upstream].state) for upstream in task.upstream]
        said = verdict(task.trigger_rule, states)
        wanted = str(row.state) if given_up else "run"
        if said != wanted:
            # Those that ended in this very turn may have ended after it was judged.
            late = [number for number, name in enumerate(task.upstream) if rows[name].key in change.instances]
            for some in (some for size in range(1, len(late) + 1) for some in combinations(late, size)):
                if verdict(task.trigger_rule, ["none" if n in some else s for n, s in enumerate(states)]) == wanted:
                    said = wanted
        if given_up:
            require(said == row.state, "trigger rule", task.trigger_rule, states, "says", said, "not", row)
            return
        require(said == "run", "trigger rule", task.trigger_rule, states, "says", said, "not", row)
        require(run.state == "running" or row.state == "success", "a task began in", run)
        require(not run.cancelling or row.state == "success", "a task began in a run being cancelled", row)
        if task.depends_on_past and run.due_at is not None:
            ticks = self.tables.ticks[run.dag_id]
            earlier = max((due for due in ticks if due < run.due_at), default=None)
            if earlier is not None:
                other = self.tables.by_run[ticks[earlier]].get(row.task_id)
                good = other is None or other.state in ("success", "skipped")
                require(good, "it depends on its past:", row, other)

    def _check_retry_at(self, decision: Decision, old: Instance | None, row: Instance, task: TaskSpec) -> None:
        lost = [event for event in decision.events or () if isinstance(event, AttemptLost) and event.fence == row.fence]
        if lost and not lost[0].began:
            return  # nothing ran: it is not a retry of the task
        assert row.retry_at is not None
        wanted = decision.now + timedelta(seconds=pause_s(row, task))
        require(abs((row.retry_at - wanted).total_seconds()) < 1, "retry_at is not", wanted, "of", row)

    def _check_budget(
        self,
        decision: Decision,
        old: Instance | None,
        row: Instance,
        task: TaskSpec,
        requests: list[Event],
        change: Change,
    ) -> None:
        """How many tries it has: 1 + retries; after a clear as many again; one more for each that never began."""
        key = row.key
        tries = row.try_number if old is None or row.try_number == old.try_number else row.try_number - 1
        full = tries + 1 + task.retries
        if old is None:
            require(row.max_tries == 1 + task.retries, "tries of", row)
            self.budgets[key] = row.max_tries
            return
        lost = [
            event
            for event in decision.events or ()
            if isinstance(event, AttemptLost) and event.fence == old.fence and not event.began
        ]
        attempt = change.attempts.get(old.fence or 0)
        if lost and not requests and old.stop_reason is None and attempt is not None and attempt[1].state == "lost":
            given_up = (row.reason or "").startswith("FLX-7030")  # it was lost too often in a row
            require(given_up or row.max_tries == self.budgets[key] + 1, "nothing of it ran, and it counts:", row)
        if row.max_tries != self.budgets[key]:
            cleared = old.stop_reason == "restart" or any(isinstance(e, ClearTasks | MarkTasks) for e in requests)
            good = (cleared and row.max_tries == full) or (lost and row.max_tries == self.budgets[key] + 1)
            require(good, "tries of", row, "not", self.budgets[key], "nor", full)
        self.budgets[key] = row.max_tries

    def _check_run(self, decision: Decision, old: Run | None, run: Run, change: Change) -> None:
        rows = self.tables.by_run[run.number]
        if run.number in self.tables.runs and run.state in RUN_DONE:
            open_rows = [row for row in rows.values() if row.state not in DONE]
            require(not open_rows, "a run ended before its tasks:", run, open_rows)
            results.check_run(old, run, self.tables.versions[run.version_id], rows, decision)
        if old is None:
            spec = self.tables.versions[run.version_id]
            require(set(rows) == {task.task_id for task in spec.tasks}, "tasks of a new run", run)
            if run.due_at is not None:
                require(run.due_at <= decision.now, "a run began before it was due:", run, decision.now)
                require(not self.tables.dags[run.dag_id].paused, "a paused dag made a run", run)
                require(run.dag_id not in self.removed, "a removed dag made a run", run)
        if run.state == "running" and (old is None or old.state != "running"):
            live = self.tables.live_runs.values()
            running = sum(one.dag_id == run.dag_id and one.state == "running" for one in live)
            if run.dag_id in self.specs:
                limit = self.specs[run.dag_id].max_active_runs
                require(running <= limit, running, "runs of", run.dag_id, "its limit is", limit)
        reason = run.reason or ""
        if reason.startswith("FLX-3506") and (old is None or old.reason != reason):
            limit_s = self.tables.versions[run.version_id].dagrun_timeout
            begun = self.watches.run_began(run.number)
            over = begun is not None and decision.moment.awake >= begun + timedelta(seconds=limit_s or 0)
            require(
                limit_s is not None and over,
                "dagrun_timeout too early",
                run,
            )
        if run.state == "queued" and (old is None or old.state in RUN_DONE):
            same = [
                one for one in self.tables.live_runs.values() if one.dag_id == run.dag_id and one.state == "running"
            ]
            spec = self.specs.get(run.dag_id)
            room = spec is not None and len(same) < spec.max_active_runs
            require(not room, "there is room, and a run waits:", run)

    def _check_idle(self, number: int, decision: Decision) -> None:
        """No task of a running run waits whose trigger rule is decided."""
        run = self.tables.runs[number]
        if run.state != "running" or run.cancelling:
            return
        rows = self.tables.by_run[number]
        spec = self.tables.versions[run.version_id]
        for task in spec.tasks:
            row = rows[task.task_id]
            if row.state != "none":
                continue
            states = [str(rows[name].state) for name in task.upstream]
            said = verdict(task.trigger_rule, states)
            held = said == "run" and task.depends_on_past and run.due_at is not None
            require(said == "wait" or held, "decided, and left alone:", row, task.trigger_rule, states, said)
        require(any(row.state not in DONE for row in rows.values()), "all ended, and the run has not:", run)

    def _check_limits(self, decision: Decision, change: Change) -> None:
        begun = [
            row
            for old, row in change.instances.values()
            if row.state == "queued" and (old is None or old.fence != row.fence)
        ]
        ready: list[tuple[Instance, TaskSpec, Run]] = []
        total, pools, dags = 0, Counter[str](), Counter[str]()
        for number, run in self.tables.live_runs.items():
            spec = self.tables.versions[run.version_id]
            for row in self.tables.by_run[number].values():
                if row.state in HOLDS_SLOT:
                    task = spec.by_id[row.task_id]
                    total += 1
                    pools[task.pool] += task.pool_slots
                    dags[run.dag_id] += 1
                elif row.state == "scheduled":
                    ready.append((row, spec.by_id[row.task_id], run))
        require(total <= self.world.parallelism, total, "of", self.world.parallelism, "places taken")

        def limit_of(run: Run) -> int:
            return self.specs.get(run.dag_id, self.tables.versions[run.version_id]).max_active_tasks

        for row in begun:
            run, task = self.tables.runs[row.run_number], self.task(row)
            require(pools[task.pool] <= self.pools[task.pool], pools[task.pool], "slots taken of", task.pool, row)
            require(dags[run.dag_id] <= limit_of(run), dags[run.dag_id], "tasks of", run.dag_id, "run")
            for other, its, its_run in ready:
                same = (its.pool, its.pool_slots, its_run.dag_id) == (task.pool, task.pool_slots, run.dag_id)
                first = its.priority_weight > task.priority_weight
                require(not (same and first), "a lower priority went first:", row, other)
        for row, task, run in ready:
            closed = (
                total >= self.world.parallelism
                or pools[task.pool] + task.pool_slots > self.pools.get(task.pool, 0)
                or dags[run.dag_id] >= limit_of(run)
                # A task of more slots, of no lower priority, is waited for: it would be overtaken for ever.
                or any(
                    its.pool == task.pool
                    and its.priority_weight >= task.priority_weight
                    and pools[its.pool] + its.pool_slots > self.pools.get(its.pool, 0) >= its.pool_slots
                    and dags[its_run.dag_id] < limit_of(its_run)
                    for _, its, its_run in ready
                )
            )
            require(closed, "it could run and does not:", row)

    def _check_xcoms(self, decision: Decision, change: Change) -> None:
        """Exactly what the last try handed on: nothing of an earlier one, nothing after a clear."""
        for event in decision.events or ():
            if isinstance(event, AttemptEnded | WaitEnded) and event.fence in change.attempts:
                old, new = change.attempts[event.fence]
                if (
                    old is None
                    or old.state not in ATTEMPT_LIVE
                    or (old.state == "waiting") != isinstance(event, WaitEnded)
                ):
                    continue
                key = (new.run_number, new.task_id, new.map_index)
                if isinstance(event, WaitEnded):
                    given: Any = event.xcoms
                else:
                    given = event.outcome.get("xcoms") if isinstance(event.outcome, dict) else ()
                if isinstance(given, list | tuple) and all(
                    isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in given
                ):
                    self.xcoms.setdefault(key, {}).update(dict(given))
        for old_row, row in change.instances.values():
            begun = row.state == "queued" and old_row is not None and old_row.fence != row.fence
            if (
                row.state == "none"
                or begun
                or (old_row is not None and old_row.state in DONE and row.state not in DONE)
            ):
                self.xcoms.pop(row.key, None)
            elif old_row is not None and old_row.stop_reason == "restart" and row.fence == old_row.fence:
                self.xcoms.pop(row.key, None)  # cleared, and decided otherwise in the same turn
            there = {
                name: None if value is JSON_NULL else value
                for name, value in self.tables.xcoms.get(row.key, {}).items()
            }
            expected = self.xcoms.get(row.key, {})
            if results.requests_on(decision, row.run_number) and not there:
                self.xcoms.pop(row.key, None)  # cleared and ended anew within the turn
            else:
                require(there == expected, "XComs of", row, "are", there, "and not", expected)

    # -- what the daemon does -------------------------------------------------------------------------------------

    def saved(self, *what: Any) -> None:
        require(self.decision is None or self.decision.committed, "done before it was saved:", *what)

    def started(self, message: dict[str, Any]) -> None:
        self.saved("start", message["fence"])
        tables, fence = self.tables, message["fence"]
        attempt = tables.attempts.get(fence)
        if attempt is None:
            require(False, "a start without a row", message)
            return
        row, run = (
            tables.instances[attempt.run_number, attempt.task_id, attempt.map_index],
            tables.runs[attempt.run_number],
        )
        require(row.stop_reason is None or attempt.state != "queued", "a start of what was told to stop", row)
        require(attempt.state == "queued" and row.fence == fence, "a start of", attempt, row)
        require(not run.cancelling, "a start in a run that is being cancelled:", row)
        spec = tables.versions[run.version_id]
        task = spec.by_id[row.task_id]
        require(
            (message["dag_id"], message["run_id"], message["task_id"], message["map_index"])
            == (run.dag_id, run.run_id, row.task_id, row.map_index),
            "a start names another:",
            message,
        )
        require(message["try_number"] == row.try_number == attempt.try_number, "try number of", message)
        require(
            message["log"].endswith(f"/{run.dag_id}/{run.run_id}/{row.task_id}/{row.try_number}.log"), message["log"]
        )
        require(message["bundle"] == f"bundle{run.version_id}", "the source of another version:", message)
        environment = message["env"]
        require(
            environment["FLUX_FENCE"] == str(fence) and environment["FLUX_TRY_NUMBER"] == str(row.try_number),
            "environment of",
            message,
        )
        other = self.sent.get(environment["FLUX_IDEMPOTENCY_KEY"], fence)
        require(other == fence or other not in tables.attempts, "one key, two tries:", other, fence)
        self.sent[environment["FLUX_IDEMPOTENCY_KEY"]] = fence
        context = message["context"]
        require(context["max_tries"] == row.max_tries, "max_tries of", message)
        require(context["logical_date"].rstrip("Z") == run.logical_date.replace(tzinfo=None).isoformat(), message)
        handed = {
            name: {key: None if value is JSON_NULL else value for key, value in values.items()}
            for name in task.upstream
            if (values := tables.xcoms.get((run.number, name, -1)))
        }
        require(context["upstream_xcoms"] == handed, "handed on", context["upstream_xcoms"], "and not", handed)

    def killed(self, fence: int, reason: str) -> None:
        self.saved("kill", fence)
        attempt = self.tables.attempts.get(fence)
        require(attempt is not None, "a kill of nobody", fence)
        assert attempt is not None
        row = self.tables.instances[attempt.run_number, attempt.task_id, attempt.map_index]
        if row.fence == fence and attempt.state in ATTEMPT_LIVE:
            require(row.stop_reason is not None, "killed without a saved reason:", row, reason)

    def acked(self, fence: int) -> None:
        self.saved("ack", fence)
        attempt = self.tables.attempts.get(fence)
        live = attempt is not None and attempt.state in ("queued", "running")
        require(not live, "acknowledged before its end was saved:", attempt)

    def wait_begun(self, command: BeginWait) -> None:
        self.saved("wait", command.fence)
        attempt: Attempt | None = self.tables.attempts.get(command.fence)
        require(attempt is not None and attempt.state not in ("queued", "running"), "a wait of", attempt)
        self.deadlines.asked(command.fence, command.request)

    def poked(self, name: str) -> None:
        asked = [row for row in self.tables.live_attempts.values() if self.tables.attempts[row].state == "waiting"]
        quiet = self.world.clock_time() < max(self.world.ready_since, self.wait_ended + IN_TIME_S)
        require(asked or quiet, "a sensor is asked and nobody waits:", name)

    def answered(self, request: int, answer: Any, error: Exception | None) -> None:
        decision = self.replies.pop(request, None)
        require(decision is not None or error is not None, "answered by nobody:", answer)
        require(decision is None or decision.committed, "answered before it was saved:", answer, error)
        if isinstance(answer, dict) and "run_id" in answer:
            require(
                (answer["dag_id"], answer["run_id"]) in self.tables.run_ids or self.world.fluxd is None,
                "answered with a run that is not saved:",
                answer,
            )

    def in_time(self, what: str, since: float) -> None:
        late = self.world.clock_time() - max(since, self.world.ready_since)
        require(late <= IN_TIME_S, what, "came", late, "s late")

    def at_the_end(self, fluxd: "Fluxd") -> None:
        check_working_set(self.tables, fluxd.engine.scheduler)
        known = self.world.runner.known()
        require(not known, "never acknowledged:", known)
        require(not fluxd.sensing.waiting, "waits for ever:", fluxd.sensing._probe_of)
        require(not fluxd.sensing._probes, "polls for nobody:", fluxd.sensing._probes)
        for key, fence in self.tables.live_attempts.items():
            require(False, "a live attempt at the end:", key, fence)


def check_explained(tables: Any, scheduler: Scheduler, now: datetime) -> None:
    """Every instance that has not ended is explained."""
    for number in tables.live_runs:
        words = {(why.task_id, why.map_index): why.words for why in scheduler.explain(number)}
        for row in tables.by_run[number].values():
            if row.state in DONE:
                continue
            why = words.get((row.task_id, row.map_index))
            require(why, "not explained:", row)
            idle = "next turn" in (why or "") and not scheduler._working.to_advance
            require(not idle, "it could run and does not:", row, why)


def check_working_set(tables: Any, scheduler: Scheduler) -> None:
    """What the scheduler remembers is what is saved, and its counters are what a count gives."""
    working = scheduler._working
    require(set(working.runs) == set(tables.live_runs), "in memory", set(working.runs), "saved", set(tables.live_runs))
    taken = set()
    for number, live in working.runs.items():
        require(live.run == tables.runs[number], "run differs:", live.run, tables.runs[number])
        counted = LiveRun(live.run, live.spec, live.plan, live.dag, [node.instance for node in live.nodes])
        require(counted.open == live.open, "open tasks of run", number)
        for node, recounted in zip(live.nodes, counted.nodes, strict=True):
            require(node.instance == tables.instances[node.key], "row differs:", node.instance)
            require(node.counts == recounted.counts, "counters of", node.key, node.counts, recounted.counts)
            if node.instance.state in HOLDS_SLOT:
                taken.add(node.key)
    require(taken == set(working.occupying), "slots", taken, set(working.occupying))
    require(set(working.attempts) == set(tables.live_attempts.values()), "live attempts differ")
