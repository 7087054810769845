"""Values that are known only when a task runs: a template, the result of another task, a param of the run."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from fluxd.authoring.node import DagNode
from fluxd.errors import Invalid, NotFound

if TYPE_CHECKING:
    from fluxd.authoring.dag import DAG
    from fluxd.authoring.operator import BaseOperator

RETURN_VALUE = "return_value"
MARKS = ("{{", "{%", "{#")


def is_template(value: Any) -> bool:
    """Whether a text has anything for Jinja2 in it."""
    return isinstance(value, str) and any(mark in value for mark in MARKS)


class Reference:
    """Stands in an operator's argument for a value that `resolve` finds when the task runs."""

    def resolve(self, context: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def _too_early(self, deed: str) -> NoReturn:
        raise Invalid("FLX-1019", f"{self} is known only when the task runs, so it cannot be {deed} in the dag file.")

    def __iter__(self) -> Iterator[Any]:
        self._too_early("looped over or unpacked")

    def __bool__(self) -> bool:
        self._too_early("tested for truth")


class XComArg(Reference, DagNode):
    """What a task will have returned or pushed: `op.output`, `op.output["rows"]`, the result of calling a @task."""

    def __init__(self, operator: "BaseOperator", path: tuple[Any, ...] = ()) -> None:
        self.operator = operator
        self.path = path

    def wired(self) -> "tuple[DAG | None, str]":
        return self.operator.wired()

    def __getitem__(self, key: Any) -> "XComArg":
        """The value pushed under `key`; where none was, what the returned dict or list has at `key`."""
        return XComArg(self.operator, (*self.path, key))

    def __str__(self) -> str:
        steps = "".join(f"[{key!r}]" for key in self.path)
        return f"{{{{ ti.xcom_pull({self.operator.task_id!r}){steps} }}}}"

    __repr__ = __str__

    def resolve(self, context: Mapping[str, Any]) -> Any:
        ti, task_id, path = context["ti"], self.operator.task_id, self.path
        nothing = object()
        if path and isinstance(path[0], str):
            value = ti.xcom_pull(task_id, key=path[0], default=nothing)
            if value is not nothing:
                return self._walk(value, path[1:])
        return self._walk(ti.xcom_pull(task_id), path)

    def _walk(self, value: Any, path: tuple[Any, ...]) -> Any:
        for key in path:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                raise NotFound(
                    "FLX-3011",
                    f"Task {self.operator.task_id!r} gave nothing under {key!r}: it neither pushed such an XCom "
                    "nor returned something that has it.",
                ) from None
        return value


class ParamRef(Reference):
    """The value that a param has in the run; what the arguments of a @dag function are inside it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return f"{{{{ params[{self.name!r}] }}}}"

    __repr__ = __str__

    def resolve(self, context: Mapping[str, Any]) -> Any:
        return context["params"][self.name]


def is_dynamic(value: Any) -> bool:
    """Whether a value is known only when its task runs."""
    return isinstance(value, Reference) or is_template(value)


def references_in(value: Any) -> Iterator[Reference]:
    """The references in a value and in the lists, tuples, sets and dicts it is made of."""
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from references_in(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from references_in(item)
