"""What is promised of each answer, as JSON Schema (2020-12): the other half of `serializers.py`.

A test holds the two together. A field may be added at any time; one that is here keeps its meaning and does not go.
"""

from typing import Any

from fluxd.core.states import AttemptState, RunState, State

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
BOOLEAN: Schema = {"type": "boolean"}
TIME: Schema = {"type": "string", "format": "date-time"}
OBJECT: Schema = {"type": "object"}
ANY: Schema = {}


def maybe(schema: Schema) -> Schema:
    """That, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def many(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def one_of(values: Any) -> Schema:
    return {"type": "string", "enum": [str(value) for value in values]}


def record(fields: dict[str, Schema]) -> Schema:
    """An object that has all of these fields."""
    return {"type": "object", "properties": fields, "required": list(fields)}


def named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def page(name: str, item: str) -> Schema:
    """A page of a list: ask again with `cursor=next_cursor` until it is null."""
    return record({name: many(named(item)), "next_cursor": maybe(TEXT)})


RUN = {
    "dag_id": TEXT,
    "run_id": TEXT,
    "number": INTEGER,
    "state": one_of(RunState),
    "run_type": one_of(("scheduled", "manual")),
    "logical_date": TIME,
    "data_interval_start": TIME,
    "data_interval_end": TIME,
    "due_at": maybe(TIME),
    "queued_at": TIME,
    "started_at": maybe(TIME),
    "ended_at": maybe(TIME),
    "reason": maybe(TEXT),
    "conf": OBJECT,
    "created_by": TEXT,
    "version": INTEGER,
    "cancelling": BOOLEAN,
}
INSTANCE = {
    "task_id": TEXT,
    "map_index": INTEGER,
    "state": one_of(State),
    "try_number": INTEGER,
    "max_tries": INTEGER,
    "queued_at": maybe(TIME),
    "started_at": maybe(TIME),
    "ended_at": maybe(TIME),
    "retry_at": maybe(TIME),
    "wait_until": maybe(TIME),
    "reason": maybe(TEXT),
    "operator": maybe(TEXT),
    "upstream": many(TEXT),
}
TRY = {
    "try_number": INTEGER,
    "fence": INTEGER,
    "state": one_of(AttemptState),
    "queued_at": TIME,
    "started_at": maybe(TIME),
    "ended_at": maybe(TIME),
    "pid": maybe(INTEGER),
    "exit_code": maybe(INTEGER),
    "signal": maybe(INTEGER),
    "reason": maybe(TEXT),
    "usage": maybe(OBJECT),
    "rendered": maybe(OBJECT),
    "legs": INTEGER,
    "executor": TEXT,
    "progress": maybe(OBJECT),
}
TASK_SPEC = {
    "trigger_rule": maybe(TEXT),
    "retries": maybe(INTEGER),
    "retry_delay": maybe(NUMBER),
    "execution_timeout": maybe(NUMBER),
    "pool": maybe(TEXT),
    "pool_slots": maybe(INTEGER),
    "priority_weight": maybe(INTEGER),
    "queue": maybe(TEXT),
    "depends_on_past": maybe(BOOLEAN),
    "group": maybe(TEXT),
    "owner": maybe(TEXT),
    "doc_md": maybe(TEXT),
    "fields": maybe(OBJECT),
}
FILE_ERROR = {"code": maybe(TEXT), "reason": maybe(TEXT), "line": maybe(INTEGER), "at": maybe(TIME)}
DAG_START = {
    "dag_id": TEXT,
    "description": maybe(TEXT),
    "file": TEXT,
    "version": maybe(INTEGER),
    "paused": BOOLEAN,
    "removed": BOOLEAN,
    "schedule": OBJECT,
    "schedule_words": TEXT,
    "timezone": TEXT,
    "next_due_at": maybe(TIME),
    "tags": many(TEXT),
    "owner": maybe(TEXT),
    "running_runs": INTEGER,
    "queued_runs": INTEGER,
    "error": maybe(record(FILE_ERROR)),
}
LAST_RUN = {name: RUN[name] for name in ("run_id", "state", "logical_date", "started_at", "ended_at", "reason")}
UPCOMING = {
    "due_at": TIME,
    "logical_date": TIME,
    "data_interval_start": TIME,
    "data_interval_end": TIME,
    "words": TEXT,
}
POOL = {"name": TEXT, "slots": INTEGER, "used_slots": INTEGER, "tasks": INTEGER, "description": maybe(TEXT)}

# What has a name of its own in openapi.json.
NAMED: dict[str, Schema] = {
    "Problem": record({"type": TEXT, "title": TEXT, "status": INTEGER, "detail": TEXT, "code": TEXT, "instance": TEXT}),
    "Run": record(RUN),
    "RunWithTasks": record({**RUN, "words": TEXT, "tasks": many(record(INSTANCE))}),
    "TaskInstance": record(INSTANCE),
    "Task": record(
        {
            "dag_id": TEXT,
            "run_id": TEXT,
            **INSTANCE,
            **TASK_SPEC,
            "wait": maybe(OBJECT),
            "progress": maybe(OBJECT),
            "tries": many(record(TRY)),
        }
    ),
    "DagInList": record({**DAG_START, "last_run": maybe(record(LAST_RUN))}),
    "Dag": record(
        {
            **DAG_START,
            "start_date": maybe(TIME),
            "end_date": maybe(TIME),
            "catchup": ANY,
            "dst": TEXT,
            "max_active_runs": INTEGER,
            "max_active_tasks": INTEGER,
            "dagrun_timeout": maybe(NUMBER),
            "params": OBJECT,
            "param_schemas": OBJECT,
            "doc_md": maybe(TEXT),
            "warnings": many(TEXT),
            "spec_hash": maybe(TEXT),
            "bundle": maybe(TEXT),
            "first_seen_at": TIME,
            "version_created_at": maybe(TIME),
            "loaded_at": maybe(TIME),
            "tasks": many(
                record(
                    {
                        "task_id": TEXT,
                        "operator": TEXT,
                        "kind": TEXT,
                        "upstream": many(TEXT),
                        "downstream": many(TEXT),
                        **TASK_SPEC,
                    }
                )
            ),
        }
    ),
    "DagError": record({"file": TEXT, **FILE_ERROR, "traceback": maybe(TEXT), "dag_ids": many(TEXT)}),
    "Pool": record(POOL),
}

# `reason` says why there are no runs to come, where there are none.
NEXT = record(
    {"dag_id": TEXT, "paused": BOOLEAN, "timezone": TEXT, "runs": many(record(UPCOMING)), "reason": maybe(TEXT)}
)
SOURCE = record({"dag_id": TEXT, "file": TEXT, "version": INTEGER, "bundle": TEXT, "files": OBJECT})
PAUSED = record({"dag_id": TEXT, "paused": BOOLEAN})
FORGOTTEN = record({"dag_id": TEXT})
KEY = record({"task_id": TEXT, "map_index": INTEGER})
XCOM = record({"map_index": INTEGER, "key": TEXT, "value": ANY})
# Each of its fields only where the task told it.
PROGRESS: Schema = {"type": "object", "properties": {"rows": INTEGER, "bytes": INTEGER, "note": TEXT}}
STATE = record({"state": OBJECT})
PREVIOUS_SUCCESS = {
    name: RUN[name] for name in ("run_id", "logical_date", "data_interval_start", "data_interval_end")
} | {
    "started_at": maybe(TIME),
    "ended_at": maybe(TIME),
}
POOL_SET = record({"name": TEXT, "slots": INTEGER})
LOGIN_LINK = record({"url": TEXT, "expires_at": TIME})
COUNTS = {
    "dags": maybe(INTEGER),
    "paused_dags": maybe(INTEGER),
    "dag_errors": maybe(INTEGER),
    "running_runs": maybe(INTEGER),
    "queued_runs": maybe(INTEGER),
    "running_tasks": maybe(INTEGER),
    "queued_tasks": maybe(INTEGER),
    "waiting_tasks": maybe(INTEGER),
    "clock_difference_s": maybe(NUMBER),
}
STATUS = record(
    {
        "started_at": TIME,
        "uptime_s": NUMBER,
        "home": TEXT,
        "database_answers": BOOLEAN,
        # Sentences: which of turns, saves and the runner's answers are late; and seconds since the last of each.
        "late": many(TEXT),
        "ages": record({"turn": maybe(NUMBER), "save": maybe(NUMBER), "runner": maybe(NUMBER)}),
        **COUNTS,
    }
)
ASIDE = record(
    {
        "id": INTEGER,
        "at": TIME,
        "times": INTEGER,
        "kind": TEXT,
        "dag_id": maybe(TEXT),
        "run_id": maybe(TEXT),
        "task_id": maybe(TEXT),
        "fence": maybe(INTEGER),
        "event": ANY,
        "error": TEXT,
        "traceback": TEXT,
        "outcome": TEXT,
    }
)
