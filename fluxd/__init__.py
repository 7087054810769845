"""Flux: what a dag file imports.

A name is imported when it is first asked for (PEP 562), because the client and the daemon live in this package too and
need none of them. Type checkers and editors read the plain imports.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluxd.authoring.current import get_current_context
    from fluxd.authoring.dag import DAG
    from fluxd.authoring.decorators import dag, task
    from fluxd.authoring.group import TaskGroup
    from fluxd.authoring.lookups import Connection, Variable
    from fluxd.authoring.node import chain, cross_downstream
    from fluxd.authoring.operator import BaseOperator
    from fluxd.authoring.outcomes import FailTask, SkipTask, TaskTerminated, TaskTimeout
    from fluxd.authoring.params import Param
    from fluxd.authoring.references import XComArg
    from fluxd.authoring.sensor import BaseSensor, PokeResult

__version__ = "0.1.0"

__all__ = [
    "DAG",
    "BaseOperator",
    "BaseSensor",
    "Connection",
    "FailTask",
    "Param",
    "PokeResult",
    "SkipTask",
    "TaskGroup",
    "TaskTerminated",
    "TaskTimeout",
    "Variable",
    "XComArg",
    "chain",
    "cross_downstream",
    "dag",
    "get_current_context",
    "task",
]

_MODULES = {
    "current": ("get_current_context",),
    "dag": ("DAG",),
    "decorators": ("dag", "task"),
    "group": ("TaskGroup",),
    "lookups": ("Connection", "Variable"),
    "node": ("chain", "cross_downstream"),
    "operator": ("BaseOperator",),
    "outcomes": ("FailTask", "SkipTask", "TaskTerminated", "TaskTimeout"),
    "params": ("Param",),
    "references": ("XComArg",),
    "sensor": ("BaseSensor", "PokeResult"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fluxd.authoring.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
