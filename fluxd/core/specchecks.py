"""A spec that comes from outside is looked at once, before it is stored: what is in the database can be trusted.

Authors' mistakes are found where they are written, by `authoring`. But a dag file is a program: it may change a task
after it was checked, or override how a dag describes itself, and the scheduler must not stumble over that.
"""

import math
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from fluxd.core.moment import EPOCH
from fluxd.core.params import check_schema
from fluxd.core.rules import RULES
from fluxd.core.spec import ID, DagSpec, Schedule, TaskSpec, check_executor, dag_from_json
from fluxd.core.timetable import check_time, make_timetable
from fluxd.errors import FluxError, Invalid

Fits = Callable[[Any], bool]
NUMBER_MAX = 2**31 - 1  # what Postgres keeps in an integer, and more than anybody can mean
AT_LEAST_ONE = ("max_active_runs", "max_active_tasks", "pool_slots")
WORDS: dict[Any, str] = {
    str: "text", int: "a whole number", float: "a number", bool: "True or False", NoneType: "None",
    datetime: "a time", dict: "a dict", tuple: "a list",
}  # fmt: skip


def checked_dag(data: dict[str, Any]) -> DagSpec:
    """The spec of one dag from its JSON form. Raises Invalid FLX-1047 that names what no dag can have."""
    what = f"Dag {data.get('dag_id')!r:.200}" if isinstance(data, dict) else "A dag"
    try:
        _check_text(data)
        spec = dag_from_json(data)
    except FluxError:
        raise
    except Exception as error:
        raise _wrong(what, f"cannot be read: {type(error).__name__}: {error}") from error
    _check_fields(what, spec)
    _check_fields(f"The schedule of dag {spec.dag_id!r}", spec.schedule)
    if not ID.fullmatch(spec.dag_id):
        raise _wrong(what, "has an id that cannot be one")
    for name, schema in spec.param_schemas.items():
        if not isinstance(schema, dict):
            raise _wrong(what, f"has a schema of param {name!r} that is {_short(schema)}, which is not a dict")
        check_schema(schema, f"Param {name!r} of dag {spec.dag_id!r}")
    _check_tasks(what, spec)
    _check_schedule(what, spec)
    return spec


def _check_text(value: Any) -> None:
    """Postgres keeps no NUL in text."""
    match value:
        case str():
            if "\0" in value:
                raise ValueError(f"{_short(value)} has a NUL character in it")
        case dict():
            for key, item in value.items():
                _check_text(key)
                _check_text(item)
        case list():
            for item in value:
                _check_text(item)


def _wrong(what: str, words: str) -> Invalid:
    hint = "it was changed after it was made; give values where the dag and its tasks are written"
    return Invalid("FLX-1047", f"{what} {words}: {hint}.")


def _check_fields(what: str, value: DagSpec | TaskSpec | Schedule) -> None:
    for name, hint, fits in FIELDS[type(value)]:
        given = getattr(value, name)
        if not fits(given):
            raise _wrong(what, f"has {name} {_short(given)}, which is not {_in_words(hint)}")
        if name in AT_LEAST_ONE and given < 1:
            raise _wrong(what, f"has {name} {given}, which is below 1")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and isinstance(value, int) and abs(value) <= NUMBER_MAX


def _fits(hint: Any) -> Fits:
    """What tells whether a value is of this type."""
    origin, of = get_origin(hint), [_fits(one) for one in get_args(hint) if one is not ...]
    if origin is tuple:
        return lambda value: isinstance(value, tuple) and all(map(of[0], value))
    if origin is dict:
        return lambda value: isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if of:  # a union
        return lambda value: any(fits(value) for fits in of)
    return {int: _is_whole, float: _is_number}.get(hint) or (lambda value: isinstance(value, hint))


# The fields of each kind of spec: (name, type, what tells whether a value is of it). Made once: each load looks.
FIELDS: dict[type, list[tuple[str, Any, Fits]]] = {
    kind: [(field.name, hints[field.name], _fits(hints[field.name])) for field in fields(kind)]
    for kind, hints in ((kind, get_type_hints(kind)) for kind in (DagSpec, TaskSpec, Schedule))
}


def _in_words(hint: Any) -> str:
    origin = get_origin(hint)
    if origin is None or origin in (tuple, dict):
        return WORDS.get(origin or hint, str(hint))
    return " or ".join(WORDS.get(get_origin(one) or one, str(one)) for one in get_args(hint))


def _check_tasks(what: str, spec: DagSpec) -> None:
    seen: set[str] = set()
    for task in spec.tasks:
        who = f"Task {task.task_id!r} of dag {spec.dag_id!r}"
        _check_fields(who, task)
        if task.executor is not None:
            check_executor(task.executor, who)
        unknown = set(task.upstream) - seen
        if unknown:  # the list is in topological order
            raise _wrong(who, f"waits for {sorted(unknown)[0]!r}, which is no task before it")
        if not ID.fullmatch(task.task_id):
            raise _wrong(what, f"has a task {_short(task.task_id)}, whose id cannot be one")
        if task.task_id in seen:
            raise _wrong(what, f"has the task {task.task_id!r} twice")
        if task.trigger_rule not in RULES:
            raise _wrong(who, f"has trigger_rule {task.trigger_rule!r}, which is none")
        seen.add(task.task_id)


def _check_schedule(what: str, spec: DagSpec) -> None:
    for at in (spec.start_date, spec.end_date):
        if at is not None:
            check_time(at, f"A date of dag {spec.dag_id!r}")
    try:
        make_timetable(spec).due_after(EPOCH)
    except FluxError:
        raise
    except Exception as error:
        raise _wrong(what, f"has a schedule that cannot be used: {type(error).__name__}: {error}") from error
