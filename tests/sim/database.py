"""The database of the simulation: rows in dicts, under the same checks as the schema's, and the rules of a saved turn.

It is filled by saved turns only, and gives back what a recovery reads. Whatever it refuses is a bug of the scheduler.
"""

from collections import defaultdict
from datetime import datetime
from functools import lru_cache

from fluxd.core.commands import Saves, Skip
from fluxd.core.model import Attempt, Instance, InstanceKey, Run
from fluxd.core.snapshot import DagRow, PastRun, Revived, Snapshot
from fluxd.core.spec import WAITING_ROOM, DagSpec
from fluxd.core.states import (
    ATTEMPT_LIVE,
    FINISHED,
    LIVE,
    MOVES,
    RUN_FINISHED,
    RUN_MOVES,
    AttemptState,
    RunState,
    State,
)


class Violation(AssertionError):
    """A rule that nothing may break was broken."""


def require(condition: object, *words: object) -> None:
    if not condition:
        raise Violation(" ".join(str(word) for word in words))


@lru_cache(maxsize=1024)
def reachable(old: State, new: State) -> bool:
    """Whether legal moves lead from one saved state to another: a turn may go through several states."""
    seen, edge = {old}, {old}
    for _ in range(6):
        edge = {after for state in edge for after in MOVES[state]} - seen
        seen |= edge
    return new in seen


@lru_cache(maxsize=64)
def reachable_run(old: RunState, new: RunState) -> bool:
    """The same for runs, through one state between at most: cleared and cancelled in one turn."""
    return new in RUN_MOVES[old] or any(new in RUN_MOVES[between] for between in RUN_MOVES[old])


# Within one attempt nothing goes back: these are the only saved changes that keep the fence while it lives.
SAME_FENCE: dict[State, frozenset[State]] = {
    State.QUEUED: MOVES[State.QUEUED] | {State.NONE},
    State.RUNNING: MOVES[State.RUNNING] | {State.NONE},
    State.WAITING: MOVES[State.WAITING] - {State.QUEUED},
    State.RESTARTING: MOVES[State.RESTARTING],
}


class Database:
    """Rows by key. `apply` is one transaction."""

    def __init__(self) -> None:
        self.dags: dict[str, DagRow] = {}
        self.versions: dict[int, DagSpec] = {}
        self.pools: dict[str, int] = {"default_pool": 8, "narrow": 1, "wide": 4}
        self.runs: dict[int, Run] = {}
        self.instances: dict[InstanceKey, Instance] = {}
        self.by_run: dict[int, dict[str, Instance]] = defaultdict(dict)
        self.attempts: dict[int, Attempt] = {}
        self.live_attempts: dict[InstanceKey, int] = {}
        self.xcoms: dict[tuple[int, str, int, str], object] = {}
        self.skips: dict[tuple[str, datetime], Skip] = {}
        self.tries: dict[tuple[InstanceKey, int, int], int] = {}
        self.run_ids: dict[tuple[str, str], int] = {}
        self.ticks: dict[tuple[str, datetime], int] = {}
        self.live_runs: dict[int, Run] = {}
        self.fence = 0
        self.run_number = 0

    # -- what a version of a dag is, before the scheduler hears of it ------------------------------------------------

    def store_version(self, spec: DagSpec) -> int:
        version = len(self.versions) + 1
        self.versions[version] = spec
        row = self.dags.get(spec.dag_id)
        if row is None:
            self.dags[spec.dag_id] = DagRow(spec, version, False, None, seen_before=False)
        else:
            row.spec, row.version_id, row.removed = spec, version, False
        return version

    # -- one transaction ----------------------------------------------------------------------------------------------

    def apply(self, saves: Saves) -> None:
        require(len({run.number for run in saves.runs}) == len(saves.runs), "a run twice in a turn")
        require(len({row.key for row in saves.instances}) == len(saves.instances), "an instance twice in a turn")
        require(len({row.fence for row in saves.attempts}) == len(saves.attempts), "an attempt twice in a turn")
        for run in saves.runs:
            self._apply_run(run)
        for attempt in saves.attempts:
            self._apply_attempt(attempt)
            self._one_live(attempt)  # in their order, as a unique index would look
        for instance in saves.instances:
            self._apply_instance(instance)
        for dropped in saves.xcoms_dropped:
            for key in [key for key in self.xcoms if key[:3] == dropped]:
                del self.xcoms[key]
        for xcom in saves.xcoms:
            self.xcoms[(xcom.run_number, xcom.task_id, xcom.map_index, xcom.key)] = xcom.value
        for skip in saves.skips:
            require(skip.first <= skip.last and skip.count > 0, "bad skip", skip)
            require(self.skips.setdefault((skip.dag_id, skip.first), skip) == skip, "two skips from one tick", skip)
        for cursor in saves.cursors:
            if cursor.forgotten:
                self._forget(cursor.dag_id)
                continue
            row = self.dags[cursor.dag_id]
            row.next_due_at, row.paused = cursor.next_due_at, cursor.paused
            row.seen_before = row.seen_before or cursor.next_due_at is not None

    def _apply_run(self, run: Run) -> None:
        old = self.runs.get(run.number)
        require(old is None or old.state == run.state or reachable_run(old.state, run.state), "illegal", old, "->", run)
        require((run.ended_at is not None) == (run.state in RUN_FINISHED), "ended_at of", run)
        require((run.due_at is not None) == (run.run_type == "scheduled"), "due_at of", run)
        require(self.run_ids.setdefault((run.dag_id, run.run_id), run.number) == run.number, "run id twice:", run)
        if run.due_at is not None:
            require(self.ticks.setdefault((run.dag_id, run.due_at), run.number) == run.number, "a tick twice:", run)
            self.dags[run.dag_id].seen_before = True
        self.runs[run.number] = run
        self.run_number = max(self.run_number, run.number)
        if run.state in RUN_FINISHED:
            self.live_runs.pop(run.number, None)
        else:
            self.live_runs[run.number] = run

    def _apply_instance(self, row: Instance) -> None:
        old = self.instances.get(row.key)
        require(row.state not in LIVE or row.fence is not None, "no fence:", row)
        require((row.state is State.UP_FOR_RETRY) == (row.retry_at is not None), "retry_at of", row)
        require(row.state not in FINISHED or row.stop_reason is None, "a stop reason outlived the process:", row)
        require(row.state is not State.NONE or row.wait_until is None, "a deadline outlived the clear:", row)
        if old is not None:
            require(reachable(old.state, row.state), "illegal move", old, "->", row)
            require((row.fence or 0) >= (old.fence or 0), "the fence fell:", old, "->", row)
            if row.fence == old.fence and old.state in SAME_FENCE and row.state is not old.state:
                attempt = self.attempts[row.fence or 0]
                legal = row.state in SAME_FENCE[old.state] or (
                    attempt.state not in ATTEMPT_LIVE and reachable(old.state, row.state)
                )
                require(legal, "illegal move within an attempt", old, "->", row)
            if row.fence != old.fence and old.fence is not None:
                require(self.attempts[old.fence].state not in ATTEMPT_LIVE, "second attempt while the first lives", row)
        if row.state in LIVE:
            require(self.attempts[row.fence or 0].state in ATTEMPT_LIVE, "live without a live attempt", row)
        self.instances[row.key] = row
        self.by_run[row.run_number][row.task_id] = row

    def _apply_attempt(self, row: Attempt) -> None:
        old = self.attempts.get(row.fence)
        require((row.ended_at is None) == (row.state in ATTEMPT_LIVE), "ended_at of", row)
        key = ((row.run_number, row.task_id, row.map_index), row.try_number, row.leg)
        require(self.tries.setdefault(key, row.fence) == row.fence, "a try number twice:", row)
        if old is None:
            require(row.fence > self.fence, "the fence does not rise:", row)
            self.fence = row.fence
            # A turn may end a leg and begin the wait that follows it, and even end that.
            require(row.state is AttemptState.QUEUED or row.executor == WAITING_ROOM, "born old:", row)
        elif old.state not in ATTEMPT_LIVE:
            require(old == row, "an ended attempt changed:", old, "->", row)
        self.attempts[row.fence] = row

    def _one_live(self, row: Attempt) -> None:
        key = (row.run_number, row.task_id, row.map_index)
        other = self.live_attempts.get(key)
        if row.state in ATTEMPT_LIVE:
            still = other is not None and other != row.fence and self.attempts[other].state in ATTEMPT_LIVE
            require(not still, "two live attempts of", key)
            self.live_attempts[key] = row.fence
        elif other == row.fence:
            del self.live_attempts[key]

    def _forget(self, dag_id: str) -> None:
        self.dags.pop(dag_id, None)
        gone = {number for number, run in self.runs.items() if run.dag_id == dag_id}
        require(not gone & set(self.live_runs), "a dag with live runs was forgotten")
        for number in gone:
            del self.runs[number]
            for row in self.by_run.pop(number, {}).values():
                del self.instances[row.key]
        self.run_ids = {key: number for key, number in self.run_ids.items() if key[0] != dag_id}
        self.ticks = {key: number for key, number in self.ticks.items() if key[0] != dag_id}
        self.skips = {key: skip for key, skip in self.skips.items() if key[0] != dag_id}

    # -- what is read -------------------------------------------------------------------------------------------------

    def revive(self, number: int) -> Revived | None:
        run = self.runs.get(number)
        if run is None:
            return None
        before = None
        if run.due_at is not None:
            ticks = [due for dag, due in self.ticks if dag == run.dag_id and due < run.due_at]
            before = self._past_run(run.dag_id, max(ticks)) if ticks else None
        return Revived(run, self.versions[run.version_id], list(self.by_run[number].values()), before)

    def _past_run(self, dag_id: str, due: datetime) -> PastRun:
        run = self.runs[self.ticks[(dag_id, due)]]
        states = {row.key[1:]: row.state for row in self.by_run[run.number].values()}
        return PastRun(dag_id, due, run.logical_date, states)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            dags=list(self.dags.values()),
            versions={run.version_id: self.versions[run.version_id] for run in self.live_runs.values()},
            runs=list(self.live_runs.values()),
            instances=[row for number in self.live_runs for row in self.by_run[number].values()],
            attempts=[self.attempts[fence] for fence in self.live_attempts.values()],
            pools=dict(self.pools),
            past=self._past(),
            last_run_number=self.run_number,
            last_fence=self.fence,
        )

    def _past(self) -> list[PastRun]:
        """Per dag: its newest finished scheduled run, and those that come directly before a live one."""
        found = []
        for dag_id in self.dags:
            ticks = sorted(due for dag, due in self.ticks if dag == dag_id)
            live = {due for due in ticks if self.ticks[(dag_id, due)] in self.live_runs}
            finished = [due for due in ticks if due not in live]
            wanted = {max((due for due in ticks if due < tick), default=tick) for tick in live} - live
            found.extend(self._past_run(dag_id, due) for due in wanted | set(finished[-1:]))
        return found
