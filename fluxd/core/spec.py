"""A dag as plain data: what the author's side writes, what Postgres keeps, what the daemon knows.

The JSON form (made by `authoring`, read here) has exactly the fields of these classes; times are RFC 3339 in UTC,
durations are seconds. Unknown fields are refused, so that an old daemon does not half-understand a newer spec.
"""

import re
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cached_property
from typing import Any

from fluxd.errors import Invalid

# The executor of tasks that name none, and the name under which the daemon itself holds waits.
LOCAL = "local"
WAITING_ROOM = "daemon"
EXECUTORS = (LOCAL,)  # those that a task may name
# An id of a dag, a task or a group: it is also the name of a folder of logs.
ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


@dataclass(frozen=True)
class Schedule:
    """When runs are due. `kind` is none | once | cron | interval.

    cron: `expression` (presets are already written out). interval: `seconds`.
    """

    kind: str = "none"
    expression: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class TaskSpec:
    """One task. `operator` is the class name, `kind` operator | sensor | empty (nothing runs: it is done when due)."""

    task_id: str
    operator: str
    kind: str = "operator"
    upstream: tuple[str, ...] = ()
    trigger_rule: str = "all_success"
    retries: int = 0
    retry_delay: float = 300.0
    retry_exponential_backoff: bool = False
    max_retry_delay: float | None = None
    execution_timeout: float | None = None
    pool: str = "default_pool"
    pool_slots: int = 1
    priority_weight: int = 1
    queue: str = "default"
    executor: str | None = None  # one of EXECUTORS; None: LOCAL
    depends_on_past: bool = False
    group: str | None = None
    owner: str | None = None
    doc_md: str | None = None
    email: tuple[str, ...] = ()
    email_on_failure: bool = True
    email_on_retry: bool = False
    # Template fields as written, shortened, for people to see.
    fields: dict[str, Any] = field(default_factory=dict)
    # A command that needs nothing of Python in its child: {"argv": [...], "env": {...}}; else None.
    spawn: dict[str, Any] | None = None


@dataclass(frozen=True)
class DagSpec:
    """One dag. `tasks` are in topological order (upstream first); the author's side has checked that there is one."""

    dag_id: str
    tasks: tuple[TaskSpec, ...] = ()
    schedule: Schedule = Schedule()
    timezone: str = "UTC"
    dst: str = "shift"  # shift | skip | both
    start_date: datetime | None = None
    end_date: datetime | None = None
    catchup: bool | str | float = False  # False | True | "latest" | seconds
    max_active_runs: int = 16
    max_active_tasks: int = 16
    dagrun_timeout: float | None = None
    params: dict[str, Any] = field(default_factory=dict)  # name -> default
    param_schemas: dict[str, Any] = field(default_factory=dict)  # name -> what it may be, in the words of core.params
    description: str | None = None
    doc_md: str | None = None
    tags: tuple[str, ...] = ()
    owner: str | None = None
    is_paused_upon_creation: bool | None = None
    # Things the author should know, in sentences ("importing the file leaves 3 threads behind …").
    warnings: tuple[str, ...] = ()

    @cached_property
    def by_id(self) -> dict[str, TaskSpec]:
        return {task.task_id: task for task in self.tasks}

    @cached_property
    def downstream(self) -> dict[str, tuple[str, ...]]:
        """task id -> the tasks that have it as an upstream, in topological order."""
        edges: dict[str, list[str]] = {task.task_id: [] for task in self.tasks}
        for task in self.tasks:
            for upstream in task.upstream:
                edges[upstream].append(task.task_id)
        return {task_id: tuple(targets) for task_id, targets in edges.items()}


def check_executor(name: Any, who: str) -> str:
    """The name, if it is that of an executor. Raises Invalid FLX-3520."""
    if name not in EXECUTORS:
        raise Invalid(
            "FLX-3520",
            f"{who} names the executor {name!r:.80}, which this Flux does not have: it has {', '.join(EXECUTORS)}; "
            "leave the argument out to mean that.",
        )
    return str(name)


def _known(cls: type, data: dict[str, Any], what: str) -> dict[str, Any]:
    unknown = set(data) - {f.name for f in fields(cls)}
    if unknown:
        raise Invalid("FLX-2090", f"{what} has unknown fields {sorted(unknown)}: it was written by another version.")
    return data


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def task_from_json(data: dict[str, Any]) -> TaskSpec:
    known = dict(_known(TaskSpec, data, f"Task spec {data.get('task_id')!r}"))
    for name in ("upstream", "email"):
        known[name] = tuple(known.get(name, ()))
    return TaskSpec(**known)


def dag_from_json(data: dict[str, Any]) -> DagSpec:
    """The spec of one dag from its JSON form. Raises Invalid FLX-2090 on fields it does not know."""
    known = dict(_known(DagSpec, data, f"Dag spec {data.get('dag_id')!r}"))
    known["tasks"] = tuple(task_from_json(task) for task in known.get("tasks", ()))
    known["schedule"] = Schedule(**_known(Schedule, known.get("schedule", {}), "Schedule"))
    known["start_date"] = _time(known.get("start_date"))
    known["end_date"] = _time(known.get("end_date"))
    for name in ("tags", "warnings"):
        known[name] = tuple(known.get(name, ()))
    return DagSpec(**known)
