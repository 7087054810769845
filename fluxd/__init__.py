"""Flux: what a dag file imports."""

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
