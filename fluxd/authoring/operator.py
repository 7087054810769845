"""The base of all operators: a small class with fields and `execute`; what the scheduler needs stays in its policy."""

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Unpack

from fluxd.authoring import checks
from fluxd.authoring.current import building
from fluxd.authoring.node import DagNode
from fluxd.authoring.policy import TASK_ARGUMENTS, Policy, TaskArguments, make_policy
from fluxd.authoring.references import XComArg, references_in
from fluxd.authoring.safely import spoken
from fluxd.errors import Invalid

if TYPE_CHECKING:
    from fluxd.authoring.dag import DAG
    from fluxd.authoring.group import TaskGroup


class Accepted(NamedTuple):
    """The arguments that a class's constructors take of their own."""

    names: frozenset[str]
    required: tuple[str, ...]


@cache
def accepted(cls: type) -> Accepted:
    names: set[str] = set()
    required: tuple[str, ...] | None = None
    for base in cls.__mro__:
        init = vars(base).get("__init__")
        if base is BaseOperator or base is object:
            break
        if init is None:
            continue
        parameters = list(inspect.signature(init).parameters.values())[1:]
        own = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        names.update(parameter.name for parameter in own)
        if required is None:
            # What a base class requires its subclass may give it.
            required = tuple(parameter.name for parameter in own if parameter.default is parameter.empty)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return Accepted(frozenset(names), required or ())


class OperatorType(type):
    """Makes `Operator(task_id=…, retries=…, own=…)` a task of the dag whose `with` block it stands in.

    It keeps the task's arguments from the operator's constructor, so that the author of an operator writes only what
    the operator itself needs; and it fills in `default_args` and refuses names that nobody takes.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        dag, group = _place(kwargs)
        own = accepted(cls)
        defaults = dict(group.defaults if group else dag.default_args if dag else {})
        defaults.update(checks.mapping(kwargs.pop("default_args", None), "default_args"))
        taken = {name: value for name, value in defaults.items() if name in own.names or name in TASK_ARGUMENTS}
        kwargs = {**taken, **kwargs}
        task_id = kwargs.get("task_id")
        if task_id is not None:
            checks.identifier(task_id, "task_id")
        what = f"{cls.__name__} {task_id!r}" if task_id else cls.__name__
        for name in kwargs:
            if name not in own.names and name not in TASK_ARGUMENTS:
                raise checks.unknown_argument(name, [*sorted(own.names), *sorted(TASK_ARGUMENTS)], what)
        missing = [name for name in own.required if name not in kwargs and not args]
        if dag is not None and task_id is None:
            missing.insert(0, "task_id")
        if missing:
            raise Invalid("FLX-1012", f"{what} needs the argument {missing[0]!r}.")
        operator: BaseOperator = cls.__new__(cls)  # type: ignore[call-overload]
        operator._given = {name: value for name, value in kwargs.items() if name in TASK_ARGUMENTS}
        operator.dag, operator.task_group = dag, group
        operator.task_id = group.child_id(task_id) if group and task_id is not None else task_id or ""
        operator.__init__(*args, **{name: kwargs[name] for name in kwargs if name in own.names})  # type: ignore[misc]
        operator.task_policy = make_policy(operator._given, f"task {operator.task_id!r}")
        if dag is not None:
            dag.add_task(operator)
        return operator


def _place(kwargs: dict[str, Any]) -> "tuple[DAG | None, TaskGroup | None]":
    """The dag and the group that an operator with these arguments is made in; takes `dag` and `task_group` out."""
    dag, group = kwargs.pop("dag", None), kwargs.pop("task_group", None)
    check_place(dag, group, "task_group", f"Task {spoken(kwargs.get('task_id'))}")
    stack = building.get()
    if group is None and stack and (dag is None or stack[-1].dag is dag):
        group = stack[-1]
    if group is not None:
        dag = group.dag
    return dag, None if group is dag else group


def check_place(dag: Any, group: Any, name: str, what: str) -> None:
    """Refuse a `dag=` and a group that are none, or that belong to different dags."""
    for argument, value, like in (("dag", dag, "default_args"), (name, group, "child_id")):
        if value is not None and not (hasattr(value, "dag") and hasattr(value, like)):
            # A dag may stand for a group: it is the outermost.
            if argument == name and getattr(value, "dag", None) is value:
                continue
            raise Invalid("FLX-1003", f"{argument} of {what} cannot be {spoken(value)}: give the object itself.")
    if dag is not None and group is not None and group.dag is not dag:
        raise Invalid(
            "FLX-1071",
            f"{what} is given dag={dag.dag_id!r} and a {name} of dag {group.dag.dag_id!r}: give one of them.",
        )


class BaseOperator(DagNode, metaclass=OperatorType):
    """A kind of work. A subclass names its `template_fields` and has `execute(context)`, `def` or `async def`.

    What `execute` returns is the task's XCom `return_value`. Its attributes named in `template_fields` are rendered
    before it runs; a text that is the name of a file with an ending of `template_ext` is replaced by the file (see
    `names_file`).
    """

    template_fields: ClassVar[Sequence[str]] = ()
    template_ext: ClassVar[Sequence[str]] = ()
    # Template fields in which an expression must not come to None, since the text "None" would be taken for a value.
    strict_fields: ClassVar[Sequence[str]] = ()
    # Template fields that a shell reads: what a run was given from outside must be quoted there.
    shell_fields: ClassVar[Sequence[str]] = ()
    # Whether a text with such an ending may also be something else than the name of a file.
    template_file_optional: ClassVar[bool] = False
    kind: ClassVar[str] = "operator"

    task_id: str
    dag: "DAG | None"
    task_group: "TaskGroup | None"
    task_policy: Policy
    # Of a rendered copy: template field -> the path of the file that its text came from.
    template_files: Mapping[str, str] = MappingProxyType({})
    _given: dict[str, Any]

    def __init__(self, **task_arguments: Unpack[TaskArguments]) -> None:
        # A subclass may fix some: super().__init__(retries=3, **kwargs).
        self._given.update(task_arguments)

    def execute(self, context: dict[str, Any]) -> Any:
        """Do the work. Raise SkipTask or FailTask to end in another way than success or a retry."""
        raise NotImplementedError(f"{type(self).__name__} has no execute()")

    def on_kill(self) -> None:
        """Called when the attempt is told to stop, after the `finally` blocks of `execute`: end what runs elsewhere."""

    def names_file(self, field: str, value: str) -> bool:
        """Whether the text of a template field (or an item of a list in it) is the name of a template file."""
        return value.endswith(tuple(self.template_ext)) and not any(c.isspace() for c in value)

    def spawn(self) -> dict[str, Any] | None:
        """`{"argv": […], "env": {…}}` where the task is one command that needs nothing of Python; else None."""
        return None

    @property
    def output(self) -> XComArg:
        """What this task will have returned, for the arguments of other tasks."""
        return XComArg(self)

    @property
    def operator_name(self) -> str:
        return type(self).__name__

    def wired(self) -> "tuple[DAG | None, str]":
        return self.dag, self.task_id

    def upstream_references(self) -> list[XComArg]:
        """The results of other tasks that this one's template fields hold: each makes an edge."""
        values = [getattr(self, name, None) for name in self.template_fields]
        return [found for found in references_in(values) if isinstance(found, XComArg)]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.task_id}>"
