"""Calling a plain function as a task: context values by name, a coroutine function as well as a plain one."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Unpack

from fluxd.authoring import checks
from fluxd.authoring.context import whole
from fluxd.authoring.names import CONTEXT_NAMES
from fluxd.authoring.operator import BaseOperator
from fluxd.authoring.policy import TaskArguments
from fluxd.authoring.safely import spoken
from fluxd.errors import Invalid


class Parameters(NamedTuple):
    """All names of a function's parameters, those that can be given by name, and whether it takes any other."""

    names: frozenset[str]
    by_name: tuple[str, ...]
    takes_all: bool


class PythonOperator(BaseOperator):
    """Calls `python_callable(*op_args, **op_kwargs)`, a `def` or an `async def`; what it returns is the XCom.

    Parameters with the name of a context value (`ds`, `ti`, `params`, …; `context` for all of it) are filled in;
    `**kwargs` receives the whole context. op_args, op_kwargs and templates_dict are templates.
    """

    template_fields: ClassVar[Sequence[str]] = ("op_args", "op_kwargs", "templates_dict")

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Sequence[Any] | None = (),
        op_kwargs: Mapping[str, Any] | None = None,
        templates_dict: Mapping[str, Any] | None = None,
        **task_arguments: Unpack[TaskArguments],
    ) -> None:
        super().__init__(**task_arguments)
        if not callable(python_callable):
            raise Invalid("FLX-1003", f"python_callable must be a function, not {spoken(python_callable)}.")
        self.python_callable = python_callable
        if op_args is not None and not isinstance(op_args, list | tuple):
            raise Invalid("FLX-1003", f"op_args must be a list, not {spoken(op_args)}.")
        self.op_args = list(op_args or ())
        self.op_kwargs = checks.mapping(op_kwargs, "op_kwargs")
        self.templates_dict = None if templates_dict is None else checks.mapping(templates_dict, "templates_dict")

    def execute(self, context: dict[str, Any]) -> Any:
        """The function's result; a coroutine where it is an `async def` (whoever runs us awaits it)."""
        if self.templates_dict is not None:
            context["templates_dict"] = self.templates_dict
        return self.python_callable(*self.op_args, **self._arguments(context))

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.python_callable)

    @cached_property
    def parameters(self) -> Parameters:
        """What the function asks for; found once, so that the fork of each attempt has it at hand."""
        try:
            parameters = inspect.signature(self.python_callable).parameters
        except (TypeError, ValueError):
            return Parameters(frozenset(), (), False)  # a builtin: it knows no context
        positional = [name for name, p in parameters.items() if p.kind is not p.KEYWORD_ONLY][: len(self.op_args)]
        by_name = tuple(
            name
            for name, p in parameters.items()
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and name not in positional
        )
        return Parameters(frozenset(parameters), by_name, any(p.kind is p.VAR_KEYWORD for p in parameters.values()))

    def _arguments(self, context: dict[str, Any]) -> dict[str, Any]:
        given = dict(self.op_kwargs)
        names, by_name, takes_all = self.parameters
        for name in by_name:
            if name in given:
                continue
            if name in context:
                given[name] = context[name]
            elif name == "context":
                given[name] = context
        if takes_all:
            # Whoever asks for everything gets what it did not name itself.
            given = {**{k: v for k, v in whole(context).items() if k not in names}, **given}
        return given


class FunctionTask(PythonOperator):
    """What a @task function becomes when it is called in a dag."""

    def __init__(self, *, multiple_outputs: bool = False, shown_name: str = "@task", **arguments: Any) -> None:
        super().__init__(**arguments)
        self.multiple_outputs = checks.boolean(multiple_outputs, "multiple_outputs")
        self.shown_name = shown_name

    @property
    def operator_name(self) -> str:
        return self.shown_name


def check_call(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], what: str) -> None:
    """Refuse, where it is written, a call that cannot work. Raises Invalid FLX-1012."""
    signature = inspect.signature(function)
    try:
        signature.bind_partial(*args, **kwargs)
        missing = [
            name
            for name, parameter in list(signature.parameters.items())[len(args) :]
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY, parameter.POSITIONAL_ONLY)
            and name not in kwargs
            and name not in CONTEXT_NAMES
        ]
        if missing:
            raise TypeError(f"missing a required argument: {missing[0]!r}")
    except TypeError as error:
        raise Invalid("FLX-1012", f"{what} cannot be called like this: {error}.") from None
