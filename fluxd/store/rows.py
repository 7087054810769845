"""Rows of the database as the records of the core."""

from typing import Any

from fluxd.core.model import Attempt, Instance, Run
from fluxd.core.snapshot import DagRow, PastRun
from fluxd.core.spec import dag_from_json
from fluxd.core.states import AttemptState, RunState, State, StopReason


def dag(row: Any) -> DagRow:
    return DagRow(
        spec=dag_from_json(row["spec"]),
        version_id=row["version_id"],
        paused=row["paused"],
        next_due_at=row["next_due_at"],
        seen_before=row["seen_before"],
        removed=row["removed"],
        last_skipped=row["last_skipped"],
    )


def past(row: Any) -> PastRun:
    states = {(task_id, map_index): State(state) for task_id, map_index, state in row["states"] or ()}
    return PastRun(row["dag_id"], row["due_at"], row["logical_date"], states)


def run(row: Any) -> Run:
    return Run(**{**row, "state": RunState(row["state"])})


def instance(row: Any) -> Instance:
    stop_reason: str | None = row["stop_reason"]
    return Instance(
        **{**row, "state": State(row["state"]), "stop_reason": StopReason(stop_reason) if stop_reason else None}
    )


def attempt(row: Any) -> Attempt:
    return Attempt(**{**row, "state": AttemptState(row["state"])})
