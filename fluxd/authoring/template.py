"""Rendering of template fields with Jinja2: sandboxed, strict, with errors that name dag, task, field and line.

Jinja2 is imported when the first template is rendered, or by `preload`, so that writing a dag costs none of it.
"""

import contextlib
import copy
import inspect
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxd.authoring import context as dates
from fluxd.authoring.checks import nearest
from fluxd.authoring.names import CONTEXT_NAMES
from fluxd.authoring.operator import BaseOperator
from fluxd.authoring.references import Reference, is_template
from fluxd.authoring.sensor import SHIPPED
from fluxd.authoring.spec import shown
from fluxd.errors import FluxError, Invalid

if TYPE_CHECKING:
    from jinja2 import Environment, Template

    from fluxd.authoring.dag import DAG

PRELOADED_MAX = 200  # tasks of a dag whose templates are read ahead
OUTPUT_MAX = 4 * 1024 * 1024  # characters of one rendered text


def q(value: Any) -> str:
    """Quoted as one word of a shell command."""
    return shlex.quote(str(value))


def sqlq(value: Any) -> str:
    """As a literal of standard SQL: text in quotes, numbers bare, None as NULL.

    Where the driver takes parameters they are better; MySQL reads a backslash in text its own way.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    text = str(value)
    if "\0" in text or isinstance(value, float):
        raise ValueError(f"{text!r:.80} cannot be an SQL literal")
    return "'" + text.replace("'", "''") + "'"


FILTERS: dict[str, Any] = {
    "q": q,
    "sqlq": sqlq,
    "ds": dates.ds,
    "ds_nodash": dates.ds_nodash,
    "ts": dates.ts,
    "ts_nodash": dates.ts_nodash,
    "ts_nodash_with_tz": dates.ts_nodash_with_tz,
}


class TooLarge(ValueError):
    """A template makes more than anybody can want."""


@cache
def _environment_class(native: bool) -> "type[Environment]":
    from jinja2.nativetypes import NativeEnvironment
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        """Refuses, besides what Jinja2's own sandbox does, operators that make gigabytes out of ten characters."""

        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "*":
                for one, other in ((left, right), (right, left)):
                    if (
                        isinstance(one, int)
                        and isinstance(other, str | bytes | list | tuple)
                        and len(other) * one > OUTPUT_MAX
                    ):
                        raise TooLarge(f"it repeats something until it is more than {OUTPUT_MAX:,} long")
            elif isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > 100_000:
                raise TooLarge("it computes a power of more than 100,000 bits")
            return super().call_binop(context, operator, left, right)

    return type("NativeSandbox", (Sandbox, NativeEnvironment), {}) if native else Sandbox


def environment(dag: "DAG") -> "Environment":
    """The Jinja2 environment of a dag: its search path, its macros and filters."""
    from jinja2 import FileSystemLoader, StrictUndefined

    made = _environment_class(dag.templates.native)(
        undefined=StrictUndefined,
        loader=FileSystemLoader([str(folder) for folder in search_path(dag)]),
        keep_trailing_newline=True,
        extensions=["jinja2.ext.do"],
        autoescape=False,  # these are commands and queries, not pages
    )
    made.filters.update(FILTERS)
    made.filters.update(dag.templates.filters)
    return made


def search_path(dag: "DAG") -> list[Path]:
    """Where template files are looked for: template_searchpath, then the folder of the dag's file."""
    return [*(dag.folder / folder for folder in dag.templates.searchpath), dag.folder]


def preload(dags: "Iterable[DAG]" = ()) -> None:
    """Import what attempts may need, Jinja2 first, and `warm` these dags: each fork has it at hand then."""
    import jinja2  # noqa: F401

    _environment_class(False)
    warm(dags)


def warm(dags: "Iterable[DAG]") -> None:
    """Import and compile what the attempts of these dags will need, and no more: what is not there is not copied."""
    dags = list(dags)
    if any(needs_asyncio(task) for dag in dags for task in dag.tasks.values()):
        import asyncio  # noqa: F401
    for dag in dags:
        renderer = renderer_of(dag)
        for task in list(dag.tasks.values())[:PRELOADED_MAX]:
            getattr(task, "parameters", None)
            if renderer.plain(task) is None:
                for name in task.template_fields:
                    renderer.warm(getattr(task, name, None))


def waits_in_daemon(task: BaseOperator) -> bool:
    """Whether it is one of the sensors that come with Flux: not a subclass, of which the daemon knows nothing."""
    return SHIPPED.get(type(task).__name__) is type(task)


def needs_asyncio(task: BaseOperator) -> bool:
    if waits_in_daemon(task):
        return False
    return bool(getattr(task, "is_async", False)) or inspect.iscoroutinefunction(task.execute)


class Variables(dict[str, Any]):
    """What a template sees: the context (with its lazy values), then Jinja2's own names."""

    def __init__(self, context: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        self.context, self.own = context, own

    def __contains__(self, name: object) -> bool:
        return name in self.context or name in self.own

    def __getitem__(self, name: str) -> Any:
        return self.context[name] if name in self.context else self.own[name]


class Renderer:
    """Renders the fields of one dag's tasks; each text is compiled once."""

    def __init__(self, dag: "DAG") -> None:
        self.dag = dag
        self._compiled: dict[str, Template] = {}
        self._plain: dict[str, dict[str, Any] | None] = {}

    @cached_property
    def environment(self) -> "Environment":
        """Made when there is something to render: a dag without templates needs no Jinja2."""
        return environment(self.dag)

    def warm(self, value: Any) -> None:
        """Compile the templates in a value; a wrong one is told of when it is rendered."""
        if is_template(value):
            with contextlib.suppress(Exception):
                self._compile(value)
        elif isinstance(value, dict):
            for item in value.values():
                self.warm(item)
        elif isinstance(value, list | tuple):
            for item in value:
                self.warm(item)

    def plain(self, task: BaseOperator) -> dict[str, Any] | None:
        """The fields, as people see them, of a task that has nothing to render; else None. Found once per task."""
        if task.task_id not in self._plain:
            values = {name: getattr(task, name, MISSING) for name in task.template_fields}
            dynamic = any(value is MISSING or _to_render(value, task) for value in values.values())
            self._plain[task.task_id] = None if dynamic else {name: shown(value) for name, value in values.items()}
        return self._plain[task.task_id]

    def operator(self, task: BaseOperator, context: Mapping[str, Any]) -> BaseOperator:
        """A copy of the task with its template fields rendered. Raises Invalid FLX-3001..3003."""
        rendered = copy.copy(task)
        for name in task.template_fields:
            if not hasattr(task, name):
                raise Invalid(
                    "FLX-3001",
                    f"{type(task).__name__} names {name!r} among its template_fields, but {task.task_id!r} has no such "
                    "attribute: set it in __init__.",
                )
            setattr(rendered, name, self._value(getattr(task, name), Place(task, name), context))
        return rendered

    def _value(self, value: Any, place: "Place", context: Mapping[str, Any]) -> Any:
        match value:
            case Reference():
                return value.resolve(context)
            case str():
                return self._text(self._from_file(value, place), place, context)
            case list():
                return [self._value(item, place.at(i), context) for i, item in enumerate(value)]
            case tuple() if hasattr(value, "_fields"):
                return type(value)(*(self._value(item, place.at(i), context) for i, item in enumerate(value)))
            case tuple():
                return tuple(self._value(item, place.at(i), context) for i, item in enumerate(value))
            case set():
                return {self._value(item, place, context) for item in value}
            case dict():
                return {key: self._value(item, place.at(key), context) for key, item in value.items()}
        return value

    def _from_file(self, value: str, place: "Place") -> str:
        """The text of the template file that `value` names, where it names one by its ending; else `value`."""
        if not value.endswith(tuple(place.task.template_ext)) or any(c.isspace() for c in value) or is_template(value):
            return value
        for folder in search_path(self.dag):
            try:
                place.file = value
                return (folder / value).read_text()
            except FileNotFoundError:
                place.file = None
            except OSError as error:
                raise Invalid("FLX-3002", f"{place}: the template file {value!r} cannot be read: {error}.") from None
        if place.task.template_file_optional:
            return value
        folders = ", ".join(str(folder) for folder in search_path(self.dag))
        raise Invalid("FLX-3002", f"{place}: there is no template file {value!r} in {folders}.")

    def _text(self, text: str, place: "Place", context: Mapping[str, Any]) -> Any:
        if not is_template(text):
            return text
        from jinja2 import TemplateError

        template = None
        try:
            template = self._compile(text)
            variables = template.new_context(Variables(context, self.environment.globals), shared=True)
            return self.environment.concat(_bounded(template.root_render_func(variables)))
        except FluxError as error:
            raise type(error)(error.code, f"{place.line(_line(error, template))}: {error.message}") from error
        except TooLarge as error:
            raise Invalid("FLX-3003", f"{place.line(_line(error, template))}: {error}.") from None
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            cause = str(error).rstrip(".") or type(error).__name__
            raise Invalid(
                "FLX-3001", f"{place.line(_line(error, template))}: {cause}{_hint(cause, context)}."
            ) from error

    def _compile(self, text: str) -> "Template":
        found = self._compiled.get(text)
        if found is None:
            found = self._compiled[text] = self.environment.from_string(text)
        return found


MISSING: Any = object()


def _to_render(value: Any, task: BaseOperator) -> bool:
    """Whether there is a template, a reference, or what may be the name of a template file in a value."""
    if isinstance(value, str):
        return is_template(value) or value.endswith(tuple(task.template_ext))
    if isinstance(value, dict):
        return any(_to_render(item, task) for item in value.values())
    if isinstance(value, list | tuple | set):
        return any(_to_render(item, task) for item in value)
    return isinstance(value, Reference)


@lru_cache(maxsize=64)
def renderer_of(dag: "DAG") -> Renderer:
    return Renderer(dag)


class Place:
    """Where a template stands, for the sentence about it."""

    def __init__(self, task: BaseOperator, field: str, file: str | None = None) -> None:
        self.task, self.field, self.file = task, field, file

    def at(self, key: Any) -> "Place":
        return Place(self.task, f"{self.field}[{key!r}]")

    def line(self, number: int | None) -> str:
        return f"{self}, line {number}" if number else str(self)

    def __str__(self) -> str:
        dag = f" of dag {self.task.dag.dag_id!r}" if self.task.dag else ""
        file = f", file {self.file}" if self.file else ""
        return f"Template {self.field} of task {self.task.task_id!r}{dag}{file}"


def _bounded(parts: Iterator[Any]) -> Iterator[Any]:
    total = 0
    for part in parts:
        if isinstance(part, str):
            total += len(part)
            if total > OUTPUT_MAX:
                raise TooLarge(f"it renders to more than {OUTPUT_MAX:,} characters")
        yield part


def _line(error: BaseException, template: "Template | None") -> int | None:
    """The line of the template in which the error arose."""
    number: int | None = getattr(error, "lineno", None)
    tb = error.__traceback__
    while tb is not None and template is not None:
        if tb.tb_frame.f_code.co_filename == "<template>":
            number = template.get_corresponding_lineno(tb.tb_lineno)
        tb = tb.tb_next
    return number


def _hint(cause: str, context: Mapping[str, Any]) -> str:
    found = re.fullmatch(r"'(\w+)' is undefined", cause)
    meant = nearest(found[1], [*context, *CONTEXT_NAMES]) if found else None
    return f": did you mean {meant!r}" if meant else ""
