"""The tables of the model database, with what the schema's keys, checks and indexes refuse.

They are filled by committed statements only. What they refuse is a bug of whoever wrote it.
"""

from collections import defaultdict
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any

from fluxd.core.model import Attempt, Instance, InstanceKey, Run
from fluxd.core.spec import DagSpec, dag_from_json
from fluxd.core.states import AttemptState, RunState, State
from tests.sim.rules import ATTEMPT_LIVE, DONE, HAS_ATTEMPT, RUN_DONE, WITHIN, reachable, reachable_run
from tests.sim.violation import require

RUN_UPDATED = ("state", "version_id", "queued_at", "started_at", "ended_at", "reason", "cancelling")
ATTEMPT_FIXED = ("fence", "run_number", "task_id", "map_index", "try_number", "queued_at", "leg", "executor")
INSTANCE_FIXED = ("run_number", "task_id", "map_index")


@dataclass
class DagEntry:
    dag_id: str
    version_id: int
    paused: bool = False
    removed: bool = False
    next_due_at: datetime | None = None
    begun: bool = False


@dataclass(frozen=True)
class SkipRow:
    dag_id: str
    first: datetime
    last: datetime
    count: int
    reason: str


def spec_json(spec: DagSpec) -> dict[str, Any]:
    """A spec as the database keeps it."""
    data = asdict(spec)
    for name in ("start_date", "end_date"):
        data[name] = data[name] and data[name].isoformat()
    return data


@dataclass
class Change:
    """What one commit changed: rows before and after it."""

    runs: dict[int, tuple[Run | None, Run]]
    instances: dict[InstanceKey, tuple[Instance | None, Instance]]
    attempts: dict[int, tuple[Attempt | None, Attempt]]
    cursors: dict[str, tuple[DagEntry, DagEntry]]
    skips: list[SkipRow]

    def __bool__(self) -> bool:
        return bool(self.runs or self.instances or self.attempts or self.cursors or self.skips)


class Tables:
    """Rows by key."""

    def __init__(self) -> None:
        self.dags: dict[str, DagEntry] = {}
        self.versions: dict[int, DagSpec] = {}
        self.version_json: dict[int, dict[str, Any]] = {}
        self.pools: dict[str, int] = {"default_pool": 8, "narrow": 1, "wide": 4}
        self.runs: dict[int, Run] = {}
        self.live_runs: dict[int, Run] = {}
        self.instances: dict[InstanceKey, Instance] = {}
        self.by_run: dict[int, dict[str, Instance]] = defaultdict(dict)
        self.attempts: dict[int, Attempt] = {}
        self.live_attempts: dict[InstanceKey, int] = {}
        self.xcoms: dict[InstanceKey, dict[str, Any]] = defaultdict(dict)
        self.skips: dict[tuple[str, datetime], SkipRow] = {}
        self.tries: dict[tuple[InstanceKey, int, int], int] = {}
        self.run_ids: dict[tuple[str, str], int] = {}
        self.ticks: dict[str, dict[datetime, int]] = defaultdict(dict)
        self.fence = 0
        self.run_number = 0
        self.epoch = 0
        self.change = Change({}, {}, {}, {}, [])
        self.journal: list[list[tuple[str, tuple[Any, ...]]]] = []  # every commit: its statements and their values

    def newest(self, dag_id: str) -> DagSpec | None:
        entry = self.dags.get(dag_id)
        return None if entry is None else self.versions[entry.version_id]

    def store_version(self, spec: DagSpec) -> int:
        """What the load of a dag file stores, before the scheduler hears of it."""
        version = len(self.versions) + 1
        self.version_json[version] = spec_json(spec)
        self.versions[version] = dag_from_json(self.version_json[version])
        self.journal.append([("store_version", (version, spec.dag_id, self.version_json[version]))])
        entry = self.dags.get(spec.dag_id)
        if entry is None:
            self.dags[spec.dag_id] = DagEntry(spec.dag_id, version)
        else:
            entry.version_id, entry.removed = version, False
        return version

    def begin(self) -> None:
        self.change = Change({}, {}, {}, {}, [])

    # -- the statements of a turn ---------------------------------------------------------------------------------

    def save_runs(self, rows: list[tuple[Any, ...]]) -> None:
        require(len({row[0] for row in rows}) == len(rows), "a run twice in a statement")
        for row in rows:
            run = Run(*row)
            run.state = RunState(run.state)
            old = self.runs.get(run.number)
            if old is not None:
                run = replace(old, **{name: getattr(run, name) for name in RUN_UPDATED})
                if run == old:
                    continue
            require(run.dag_id in self.dags, "a run of a dag that is not there:", run)
            require(
                old is None or old.state == run.state or reachable_run(old.state, run.state), "illegal", old, "->", run
            )
            require((run.ended_at is not None) == (run.state in RUN_DONE), "ended_at of", run)
            require((run.due_at is not None) == (run.run_type == "scheduled"), "due_at of", run)
            require(self.run_ids.setdefault((run.dag_id, run.run_id), run.number) == run.number, "run id twice:", run)
            if run.due_at is not None:
                require(self.ticks[run.dag_id].setdefault(run.due_at, run.number) == run.number, "tick twice:", run)
            first = self.change.runs.get(run.number, (old,))[0]
            self.change.runs[run.number] = (first, run)
            self.runs[run.number] = run
            self.run_number = max(self.run_number, run.number)
            if run.state in RUN_DONE:
                self.live_runs.pop(run.number, None)
            else:
                self.live_runs[run.number] = run

    def save_instances(self, rows: list[tuple[Any, ...]]) -> None:
        require(len({row[:3] for row in rows}) == len(rows), "an instance twice in a statement")
        for values in rows:
            row = Instance(*values)
            row.state = State(row.state)
            key, old = row.key, self.instances.get(row.key)
            if old is not None:
                if old == row:
                    continue
                blocked = old.fence is not None and (row.fence is None or row.fence < old.fence)
                require(not blocked, "the fence fell:", old, "->", row)
            self._check_instance(old, row)
            self.change.instances[key] = (self.change.instances.get(key, (old,))[0], row)
            self.instances[key] = row
            self.by_run[row.run_number][row.task_id] = row

    def _check_instance(self, old: Instance | None, row: Instance) -> None:
        require(row.run_number in self.runs, "an instance without a run:", row)
        require(row.state not in HAS_ATTEMPT or row.fence is not None, "no fence:", row)
        require((row.state == "up_for_retry") == (row.retry_at is not None), "retry_at of", row)
        require(row.state not in DONE or row.stop_reason is None, "a stop reason outlived the process:", row)
        require(row.state != "none" or row.wait_until is None, "a deadline outlived the clear:", row)
        require(
            row.state not in DONE
            or row.wait_until is None
            or row.state not in ("success", "skipped")
            or row.reason is not None,
            "a deadline outlived its wait:",
            row,
        )
        if row.state == "none":
            left = (row.queued_at, row.started_at, row.ended_at, row.reason, row.wait)
            require(not any(left), "something outlived the clear:", row)
        if row.state == "queued" and row.stop_reason is None:
            require(row.ended_at is None and row.reason is None and row.retry_at is None, "old things of a try:", row)
        if old is not None:
            require(reachable(old.state, row.state), "illegal move", old, "->", row)

    def save_attempts(self, rows: list[tuple[Any, ...]]) -> None:
        require(len({row[0] for row in rows}) == len(rows), "an attempt twice in a statement")
        for values in rows:
            row = Attempt(*values)
            row.state = AttemptState(row.state)
            old = self.attempts.get(row.fence)
            if old == row:
                continue
            require((row.ended_at is None) == (row.state in ATTEMPT_LIVE), "ended_at of", row)
            key = (row.run_number, row.task_id, row.map_index)
            require(self.tries.setdefault((key, row.try_number, row.leg), row.fence) == row.fence, "a leg twice:", row)
            if old is None:
                require(row.fence > self.fence, "the fence does not rise:", row)
                # A turn may end a process and begin the wait that follows it, and even end that.
                require(row.state == "queued" or row.executor == "daemon", "born old:", row)
                require((row.leg == 1) == (row.executor != "daemon"), "the leg of", row)
                self.fence = row.fence
            else:
                require(old.state in ATTEMPT_LIVE, "an ended attempt changed:", old, "->", row)
                require(all(getattr(old, name) == getattr(row, name) for name in ATTEMPT_FIXED), old, "->", row)
            self.change.attempts[row.fence] = (self.change.attempts.get(row.fence, (old,))[0], row)
            self.attempts[row.fence] = row
            other = self.live_attempts.get(key)
            if row.state in ATTEMPT_LIVE:
                require(other in (None, row.fence), "two live attempts of", key, other, row)
                self.live_attempts[key] = row.fence
            elif other == row.fence:
                del self.live_attempts[key]

    def save_xcoms(self, rows: list[tuple[Any, ...]]) -> None:
        for run_number, task_id, map_index, key, value in rows:
            require((run_number, task_id, map_index) in self.instances, "xcom of nobody")
            self.xcoms[run_number, task_id, map_index][key] = value

    def drop_xcoms(self, numbers: list[int], task_ids: list[str], map_indexes: list[int]) -> None:
        for key in zip(numbers, task_ids, map_indexes, strict=True):
            self.xcoms.pop(key, None)

    def drop_states(self, numbers: list[int], task_ids: list[str], map_indexes: list[int]) -> None:
        """What tries keep for one another: nobody keeps anything in the simulation."""

    def save_skips(self, rows: list[tuple[Any, ...]]) -> None:
        for values in rows:
            skip = SkipRow(*values)
            require(skip.first <= skip.last and skip.count > 0, "bad skip", skip)
            old = self.skips.setdefault((skip.dag_id, skip.first), skip)
            require(old == skip, "two skips from one tick", skip)
            if old is skip:
                self.change.skips.append(skip)

    def save_cursors(self, dag_ids: list[str], next_due: list[datetime | None], paused: list[bool]) -> None:
        for dag_id, due, pausing in zip(dag_ids, next_due, paused, strict=True):
            entry = self.dags.get(dag_id)
            if entry is None:
                continue
            old = replace(entry)
            entry.next_due_at, entry.paused, entry.begun = due, pausing, True
            self.change.cursors[dag_id] = (self.change.cursors.get(dag_id, (old,))[0], replace(entry))

    def forget_dags(self, dag_ids: list[str]) -> None:
        for dag_id in dag_ids:
            self.dags.pop(dag_id, None)
            gone = {number for number, run in self.runs.items() if run.dag_id == dag_id}
            require(not gone & set(self.live_runs), "a dag with live runs was forgotten")
            for number in gone:
                del self.runs[number]
                for row in self.by_run.pop(number, {}).values():
                    del self.instances[row.key]
                    self.xcoms.pop(row.key, None)
            self.attempts = {fence: row for fence, row in self.attempts.items() if row.run_number not in gone}
            self.run_ids = {key: number for key, number in self.run_ids.items() if key[0] != dag_id}
            self.skips = {key: skip for key, skip in self.skips.items() if key[0] != dag_id}
            self.change.skips = [skip for skip in self.change.skips if skip.dag_id != dag_id]  # of this very turn
            self.ticks.pop(dag_id, None)

    def check_commit(self) -> None:
        """What foreign keys and the rules between tables say when all statements are done."""
        for old, row in self.change.instances.values():
            fence = row.fence or 0
            if row.state in HAS_ATTEMPT:
                attempt = self.attempts.get(fence)
                require(attempt is not None and attempt.state in ATTEMPT_LIVE, "live without a live attempt", row)
            if old is None or old.fence is None:
                continue
            if row.fence != old.fence:
                before = self.attempts[old.fence]
                require(before.state not in ATTEMPT_LIVE, "second attempt while the first lives", row)
            elif old.state in WITHIN and row.state != old.state and self.attempts[fence].state in ATTEMPT_LIVE:
                require(row.state in WITHIN[old.state], "illegal move within an attempt", old, "->", row)
        for _, attempt in self.change.attempts.values():
            key = (attempt.run_number, attempt.task_id, attempt.map_index)
            row = self.instances.get(key)
            require(row is not None, "an attempt of nobody:", attempt)
            if attempt.state in ATTEMPT_LIVE:
                require(row.fence == attempt.fence and row.state in HAS_ATTEMPT, "a live attempt of", row, attempt)
                require(row.try_number == attempt.try_number, "try numbers differ:", row, attempt)


def as_row(one: Any) -> dict[str, Any]:
    """A row as a query returns it: plain values by column."""
    found = {field.name: getattr(one, field.name) for field in fields(one)}
    found["state"] = str(found["state"])
    return found
