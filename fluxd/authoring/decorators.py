"""`@task` makes a task of a function, `@dag` a dag."""

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, overload

from fluxd.authoring import checks, registry
from fluxd.authoring.current import building, running
from fluxd.authoring.dag import DAG
from fluxd.authoring.function import FunctionTask, check_call
from fluxd.authoring.group import TaskGroup
from fluxd.authoring.params import Param
from fluxd.authoring.references import ParamRef
from fluxd.authoring.safely import spoken
from fluxd.errors import Invalid


class TaskFunction:
    """A function that makes a task each time it is called in a dag.

    The call gives an XComArg: the result that the task will have. A second task of the same function gets the id
    `name__1`. `function` is the plain function; inside a running task the call simply calls it.
    """

    def __init__(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.arguments = dict(arguments)
        for own in ("python_callable", "op_args", "op_kwargs"):
            if own in arguments:
                raise Invalid("FLX-1002", f"@task takes no argument {own!r}: it comes from the function and its call.")

    def override(self, **arguments: Any) -> "TaskFunction":
        """The same function with other task arguments: `load.override(task_id="load_eu", retries=3)(rows)`."""
        return TaskFunction(self.function, {**self.arguments, **arguments})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arguments = dict(self.arguments)
        name = arguments.pop("task_id", self.function.__name__)
        place = arguments.get("task_group") or arguments.get("dag") or (building.get() or (None,))[-1]
        if place is None:
            if running.get() is not None:
                return self.function(*args, **kwargs)
            raise Invalid(
                "FLX-1017",
                f"@task function {self.function.__name__!r} is called outside of a dag: call it inside "
                f"`with DAG(...):`, or call the function itself with {self.function.__name__}.function(...).",
            )
        check_call(self.function, args, kwargs, f"@task function {name!r}")
        if "task_id" not in self.arguments:
            name = _free_name(name, place)
        return FunctionTask(
            task_id=name, python_callable=self.function, op_args=args, op_kwargs=kwargs, **arguments
        ).output


def _free_name(name: str, place: DAG | TaskGroup) -> str:
    """The name, or name__1, name__2, …: the first that no task there has."""
    found, number = name, 0
    while (found if isinstance(place, DAG) else place.child_id(found)) in place.dag.tasks:
        number += 1
        found = f"{name}__{number}"
    return found


@overload
def task(function: Callable[..., Any], /) -> TaskFunction: ...
@overload
def task(**arguments: Any) -> Callable[[Callable[..., Any]], TaskFunction]: ...
def task(function: Any = None, /, **arguments: Any) -> Any:
    """`@task` or `@task(task_id=…, retries=…, multiple_outputs=True)` over a `def` or an `async def`.

    multiple_outputs: each item of the returned dict is an XCom of its own as well.
    """
    if function is None:
        return lambda function: TaskFunction(function, arguments)
    if not callable(function):
        raise Invalid("FLX-1003", f"@task decorates a function, not {spoken(function)}.")
    return TaskFunction(function, arguments)


@overload
def dag(function: Callable[..., Any], /) -> Callable[..., DAG]: ...
@overload
def dag(dag_id: str | None = None, /, **arguments: Any) -> Callable[[Callable[..., Any]], Callable[..., DAG]]: ...
def dag(first: Any = None, /, **arguments: Any) -> Any:
    """`@dag(schedule="@daily", …)` over a function that makes the tasks; calling it makes the dag.

    Its dag_id is the function's name, its doc_md the docstring, its params the function's arguments; inside, an
    argument stands for the value that the param has in the run.
    """
    if callable(first):
        return _dag_factory(first, arguments)
    if first is not None:
        if "dag_id" in arguments:
            raise Invalid("FLX-1070", f"@dag is given a name twice, {spoken(first)} and as dag_id: give one of them.")
        arguments["dag_id"] = first
    return lambda function: _dag_factory(function, arguments)


def _dag_factory(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Callable[..., DAG]:
    signature = inspect.signature(function)
    registry.declared(
        function.__qualname__, f"{Path(function.__code__.co_filename).name}:{function.__code__.co_firstlineno}"
    )

    @functools.wraps(function)
    def make(*args: Any, **kwargs: Any) -> DAG:
        registry.called(function.__qualname__)
        given = {"dag_id": function.__name__, "doc_md": inspect.getdoc(function), **arguments}
        bound = signature.bind_partial(*args, **kwargs)
        bound.apply_defaults()
        own = {
            name: bound.arguments.get(name, Param())
            for name, parameter in signature.parameters.items()
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        }
        params = checks.mapping(given.get("params"), f"params of dag {given['dag_id']!r}")
        for name in params.keys() & own.keys():
            raise Invalid(
                "FLX-1070",
                f"Param {name!r} of dag {given['dag_id']!r} is given in params and as an argument of the function: "
                "give it once.",
            )
        given["params"] = {**params, **own}
        with DAG(**given) as made:
            function(**{name: ParamRef(name) for name in own})
        return made

    return make
