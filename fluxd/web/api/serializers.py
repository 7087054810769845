"""The JSON of each thing, made from a row of the database. What is promised of it stands in `schemas.py`."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from fluxd.core.causes import failed_upstreams
from fluxd.core.spec import dag_from_json
from fluxd.core.timetable import words
from fluxd.errors import Invalid
from fluxd.web.api.upcoming import schedule_words
from fluxd.web.words import NO_REASON

Row = Mapping[str, Any]

RUN_COLUMNS = (
    "dag_id",
    "run_id",
    "number",
    "state",
    "run_type",
    "logical_date",
    "data_interval_start",
    "data_interval_end",
    "due_at",
    "queued_at",
    "started_at",
    "ended_at",
    "reason",
    "conf",
    "created_by",
    "version",
    "cancelling",
)
TASK_FIELDS = (
    "trigger_rule",
    "retries",
    "retry_delay",
    "execution_timeout",
    "pool",
    "pool_slots",
    "priority_weight",
    "queue",
    "depends_on_past",
    "group",
    "owner",
    "doc_md",
    "fields",
)


def run(row: Row) -> dict[str, Any]:
    """A run without its tasks."""
    return {name: row[name] for name in RUN_COLUMNS}


def run_with_tasks(rows: Sequence[Row], reasons: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    """A run with its task instances. `reasons` explains those that wait."""
    first = rows[0]
    shown = run(first)
    shown["words"] = words(
        first["data_interval_start"], first["data_interval_end"], first["due_at"], first["timezone"] or "UTC"
    )
    tasks = [row for row in rows if row["task_id"] is not None]
    before = failed_upstreams(
        (row["task_id"], row["task_state"], row["upstream"] or (), row["task_reason"]) for row in tasks
    )
    shown["tasks"] = [_instance(row, reasons, before.get(row["task_id"])) for row in tasks]
    return shown


def _instance(row: Row, reasons: Mapping[tuple[str, int], str], before: str | None) -> dict[str, Any]:
    """`before`: which task failed before it and of what, where it could not run."""
    key = (row["task_id"], row["map_index"])
    return {
        "task_id": row["task_id"],
        "map_index": row["map_index"],
        "state": row["task_state"],
        "try_number": row["try_number"],
        "max_tries": row["max_tries"],
        "queued_at": row["task_queued_at"],
        "started_at": row["task_started_at"],
        "ended_at": row["task_ended_at"],
        "retry_at": row["retry_at"],
        "wait_until": row["wait_until"],
        "reason": before or reasons.get(key) or row["task_reason"],
        "operator": row["operator"],
        "upstream": row["upstream"] or [],
    }


def task(rows: Sequence[Row]) -> dict[str, Any]:
    """A task instance with its tries."""
    row = rows[0]
    spec = row["spec"] or {}
    same = ("dag_id", "run_id", "task_id", "map_index", "state", "try_number", "max_tries", "queued_at", "started_at")
    more = ("ended_at", "retry_at", "wait", "wait_until", "reason")
    shown: dict[str, Any] = {name: row[name] for name in same + more}
    shown["operator"] = spec.get("operator")
    shown["upstream"] = spec.get("upstream", [])
    shown |= {name: spec.get(name) for name in TASK_FIELDS}
    shown["tries"] = [_try(one) for one in rows if one["try_fence"] is not None]
    shown["progress"] = shown["tries"][-1]["progress"] if shown["tries"] else None
    return shown


def _try(row: Row) -> dict[str, Any]:
    return {
        "try_number": row["try_of"],
        "fence": row["try_fence"],
        "state": row["try_state"],
        "queued_at": row["try_queued_at"],
        "started_at": row["try_started_at"],
        "ended_at": row["try_ended_at"],
        "pid": row["pid"],
        "exit_code": row["exit_code"],
        "signal": row["signal"],
        "reason": row["try_reason"],
        "usage": row["usage"],
        "rendered": row["rendered"],
        "legs": row["legs"],
        "executor": row["executor"],
        "progress": row["progress"],
    }


def dag_in_list(row: Row) -> dict[str, Any]:
    """A dag as the list shows it."""
    spec = row["spec"] or {}
    last = None
    if row["last_run_id"] is not None:
        last = {name: row[f"last_{name}"] for name in ("run_id", "state", "logical_date", "started_at", "ended_at")}
        last["reason"] = row["last_reason"]
    return {
        **_dag_start(row, spec),
        "error": dag_error_of(row["error"]),
        "last_run": last,
    }


def _dag_start(row: Row, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "dag_id": row["dag_id"],
        "description": spec.get("description"),
        "file": row["file"],
        "version": row["version"],
        "paused": row["paused"],
        "removed": row["removed"],
        "schedule": spec.get("schedule", {"kind": "none"}),
        "schedule_words": schedule_words(spec.get("schedule", {}), spec.get("timezone", "UTC")),
        "timezone": spec.get("timezone", "UTC"),
        "next_due_at": row["next_due_at"],
        "tags": spec.get("tags", []),
        "owner": spec.get("owner"),
        "running_runs": row["running_runs"],
        "queued_runs": row["queued_runs"],
    }


def dag(row: Row) -> dict[str, Any]:
    """A dag with its tasks."""
    spec = row["spec"] or {"dag_id": row["dag_id"]}
    full = dag_from_json(spec)
    return {
        **_dag_start(row, spec),
        "error": dag_error_of(row["error"]),
        "start_date": full.start_date,
        "end_date": full.end_date,
        "catchup": full.catchup,
        "dst": full.dst,
        "max_active_runs": full.max_active_runs,
        "max_active_tasks": full.max_active_tasks,
        "dagrun_timeout": full.dagrun_timeout,
        "params": full.params,
        "param_schemas": full.param_schemas,
        "doc_md": full.doc_md,
        "warnings": list(full.warnings),
        "spec_hash": row["spec_hash"],
        "bundle": row["bundle"],
        "first_seen_at": row["first_seen_at"],
        "version_created_at": row["version_created_at"],
        "loaded_at": row["loaded_at"],
        "tasks": [
            {
                "task_id": node.task_id,
                "operator": node.operator,
                "kind": node.kind,
                "upstream": list(node.upstream),
                "downstream": list(full.downstream[node.task_id]),
                **{name: getattr(node, name) for name in TASK_FIELDS},
            }
            for node in full.tasks
        ],
    }


def dag_error_of(error: dict[str, Any] | None) -> dict[str, Any] | None:
    """The error of a file's newest load, short: the traceback is in the list of errors.

    What is stored may lack any of it: only an error inside the file has a line, for example.
    """
    if error is None:
        return None
    reason = error.get("message") or NO_REASON
    return {"code": error.get("code"), "reason": reason, "line": error.get("line"), "at": error.get("at")}


def dag_error(row: Row) -> dict[str, Any]:
    """A file whose newest load failed."""
    error = row["error"] or {}
    return {
        "file": row["file"],
        **(dag_error_of(error) or {}),
        "traceback": error.get("traceback"),
        "dag_ids": row["dag_ids"],
    }


def pool(row: Row) -> dict[str, Any]:
    """A pool and what is used of it."""
    return {
        "name": row["name"],
        "slots": row["slots"],
        "used_slots": int(row["used_slots"]),
        "tasks": row["tasks"],
        "description": row["description"],
    }


def cursor_of(value: str | int) -> str:
    """Where the next page begins, as text that nobody should look into."""
    return base64.urlsafe_b64encode(orjson.dumps(value)).decode().rstrip("=")


def from_cursor(cursor: str, kind: type) -> Any:
    """The value in a cursor. Raises Invalid FLX-4106."""
    try:
        value = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        value = None
    if type(value) is not kind or (isinstance(value, int) and abs(value) >= 2**63):
        raise Invalid(
            "FLX-4106", f"The cursor {cursor[:80]!r} is not one of ours; take next_cursor of the page before."
        )
    return value
