"""A dag as the daemon sees it: the JSON form of core.spec.DagSpec, the same for the same dag each time it is made."""

import contextlib
import dataclasses
import datetime as dt
import functools
import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fluxd.authoring import safely
from fluxd.authoring.checks import utc_text
from fluxd.authoring.operator import BaseOperator
from fluxd.authoring.policy import Policy
from fluxd.authoring.references import Reference

if TYPE_CHECKING:
    from fluxd.authoring.dag import DAG

FIELD_MAX = 2000
# The policy's fields that go into a task's spec as they are.
POLICY_NAMES = tuple(name for name in Policy.__dataclass_fields__ if name not in ("email", "executor"))
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def dag_spec(dag: "DAG", order: Sequence[str], upstream: dict[str, list[str]]) -> dict[str, Any]:
    """`order`: the task ids, upstream first; `upstream`: for each task the ids it waits for."""
    return {
        "dag_id": dag.dag_id,
        "tasks": [task_spec(dag.tasks[task_id], upstream[task_id]) for task_id in order],
        "schedule": dataclasses.asdict(dag.schedule),
        "timezone": str(dag.timezone),
        "dst": dag.dst,
        "start_date": _time(dag.start_date),
        "end_date": _time(dag.end_date),
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "max_active_tasks": dag.max_active_tasks,
        "dagrun_timeout": dag.dagrun_timeout,
        "params": {name: param.default for name, param in dag.params.items()},
        "param_schemas": {name: param.schema for name, param in dag.params.items() if param.schema},
        "description": dag.description,
        "doc_md": dag.doc_md,
        "tags": list(dag.tags),
        "owner": dag.owner,
        "is_paused_upon_creation": dag.is_paused_upon_creation,
        "warnings": dag.warnings(),
    }


def task_spec(operator: BaseOperator, upstream: Sequence[str]) -> dict[str, Any]:
    policy = operator.task_policy
    return {
        "task_id": operator.task_id,
        "operator": operator.operator_name,
        "kind": type(operator).kind,
        "upstream": list(upstream),
        **{name: getattr(policy, name) for name in POLICY_NAMES},
        "email": list(policy.email),
        # Only where there is one: a spec that names none is the same spec as before there were executors to name.
        **({"executor": policy.executor} if policy.executor else {}),
        "group": operator.task_group.group_id if operator.task_group else None,
        "fields": {name: shown(getattr(operator, name, None)) for name in operator.template_fields},
        "spawn": operator.spawn(),
    }


def _time(moment: dt.datetime | None) -> str | None:
    return None if moment is None else utc_text(moment)


def shown(value: Any) -> Any:
    """A value for people to see: text at most FIELD_MAX long, never a memory address. None stays None."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    text = value if isinstance(value, str) else json.dumps(_plain(value), ensure_ascii=False)
    # Postgres keeps neither NUL nor half a character.
    text = text.replace("\0", "\ufffd").encode(errors="replace").decode()
    return text if len(text) <= FIELD_MAX else text[: FIELD_MAX - 1] + "…"


def _plain(value: Any, depth: int = 0) -> Any:
    if depth > 20:
        return "…"
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Reference():
            return str(value)
        case list() | tuple():
            return [_plain(item, depth + 1) for item in value]
        case set() | frozenset():
            return sorted((_plain(item, depth + 1) for item in value), key=str)
        case dict():
            return {safely.text(key): _plain(item, depth + 1) for key, item in value.items()}
        case functools.partial():
            return _plain(value.func, depth)
    with contextlib.suppress(Exception):  # what __getattr__ of an author's class may raise
        module, name = value.__module__, value.__qualname__
        if type(module) is str and type(name) is str:
            return f"{module}.{name}"
    return ADDRESS.sub("", safely.spoken(value, FIELD_MAX))
