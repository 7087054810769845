"""Rendering of template fields with Jinja2: sandboxed, strict, with errors that name dag, task, field and line.

Jinja2 is imported when the first template is rendered, or by `preload`, so that writing a dag costs none of it.
"""

import contextlib
import copy
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxd.authoring import outside, safely
from fluxd.authoring.checks import nearest
from fluxd.authoring.environments import (
    OUTPUT_MAX,
    Mode,
    TooLarge,
    environment,
    environment_class,
    mode_of,
    search_path,
)
from fluxd.authoring.names import CONTEXT_NAMES
from fluxd.authoring.operator import BaseOperator
from fluxd.authoring.outside import ShellContext
from fluxd.authoring.references import Reference, is_template
from fluxd.authoring.safely import spoken
from fluxd.authoring.sensor import SHIPPED
from fluxd.authoring.spec import shown
from fluxd.errors import FluxError, Invalid

if TYPE_CHECKING:
    from jinja2 import Environment, Template

    from fluxd.authoring.dag import DAG

PRELOADED_MAX = 200  # tasks of a dag whose templates are read ahead


def preload(dags: "Iterable[DAG]" = ()) -> None:
    """Import what attempts may need, Jinja2 first, and `warm` these dags: each fork has it at hand then."""
    import jinja2  # noqa: F401

    environment_class(Mode.TEXT)
    environment_class(Mode.SHELL)
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
                    renderer.warm(getattr(task, name, None), mode_of(dag, task, name))


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

    def keys(self) -> Any:
        """For a copy, which an included file gets: all but what costs a question to the daemon."""
        lazy = (name for name in getattr(self.context, "lazy", ()) if not name.endswith("_success"))
        return {**dict.fromkeys(self.own), **dict.fromkeys(self.context), **dict.fromkeys(lazy)}.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __getitem__(self, name: str) -> Any:
        return self.context[name] if name in self.context else self.own[name]


class Renderer:
    """Renders the fields of one dag's tasks; each text is compiled once."""

    def __init__(self, dag: "DAG") -> None:
        self.dag = dag
        self._environments: dict[Mode, Environment] = {}
        self._compiled: dict[tuple[Mode, str], Template] = {}
        self._plain: dict[str, dict[str, Any] | None] = {}

    def _environment(self, mode: Mode) -> "Environment":
        """Made when there is something to render: a dag without templates needs no Jinja2."""
        if mode not in self._environments:
            self._environments[mode] = environment(self.dag, mode)
        return self._environments[mode]

    def warm(self, value: Any, mode: Mode = Mode.TEXT) -> None:
        """Compile the templates in a value; a wrong one is told of when it is rendered."""
        if is_template(value):
            with contextlib.suppress(Exception):
                self._compile(value, mode)
        elif isinstance(value, dict):
            for item in value.values():
                self.warm(item, mode)
        elif isinstance(value, list | tuple):
            for item in value:
                self.warm(item, mode)

    def plain(self, task: BaseOperator) -> dict[str, Any] | None:
        """The fields, as people see them, of a task that has nothing to render; else None. Found once per task."""
        if task.task_id not in self._plain:
            values = {name: getattr(task, name, MISSING) for name in task.template_fields}
            dynamic = any(value is MISSING or _to_render(value, task, name) for name, value in values.items())
            self._plain[task.task_id] = None if dynamic else {name: shown(value) for name, value in values.items()}
        return self._plain[task.task_id]

    def operator(self, task: BaseOperator, context: Mapping[str, Any]) -> BaseOperator:
        """A copy of the task with its template fields rendered. Raises Invalid FLX-3001..3003, 3050, 3052."""
        rendered = copy.copy(task)
        files: dict[str, str] = {}
        for name in task.template_fields:
            if not hasattr(task, name):
                raise Invalid(
                    "FLX-3001",
                    f"{type(task).__name__} names {name!r} among its template_fields, but {task.task_id!r} has no such "
                    "attribute: set it in __init__.",
                )
            place = Place(task, name, mode_of(self.dag, task, name))
            setattr(rendered, name, self._value(getattr(task, name), place, context))
            if place.file is not None:
                files[name] = place.file
        rendered.template_files = files
        return rendered

    def _value(self, value: Any, place: "Place", context: Mapping[str, Any]) -> Any:
        match value:
            case Reference():
                found = value.resolve(ShellContext(context) if place.mode is Mode.SHELL else context)
                return self._put_out(found, place)
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
                return {key: self._value(item, place.within(key), context) for key, item in value.items()}
        return value

    def _put_out(self, value: Any, place: "Place") -> Any:
        try:
            return outside.put_out(value)
        except Invalid as error:
            raise Invalid(error.code, f"{place}: {error.message}.") from None

    def _from_file(self, value: str, place: "Place") -> str:
        """The text of the template file that `value` names, where its operator says that it names one; else `value`."""
        if place.is_value or is_template(value) or not place.task.names_file(place.top, value):
            return value
        for folder in search_path(self.dag):
            try:
                text = (folder / value).read_text()
                place.file = str(folder / value)
                return text
            except FileNotFoundError:
                continue
            except UnicodeDecodeError as error:
                raise Invalid("FLX-3002", f"{place}: the template file {value!r} is not UTF-8 ({error}).") from None
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
            template = self._compile(text, place.mode)
            environment = self._environment(place.mode)
            values = ShellContext(context) if place.mode is Mode.SHELL else context
            variables = template.new_context(Variables(values, environment.globals), shared=True)
            return environment.concat(_bounded(template.root_render_func(variables)))
        except FluxError as error:
            raise type(error)(
                error.code, f"{place.line(_line(error, template))}: {error.message.rstrip('.')}."
            ) from error
        except TooLarge as error:
            raise Invalid("FLX-3003", f"{place.line(_line(error, template))}: {error}.") from None
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            cause = safely.text(error).rstrip(".") or safely.kind(error)
            raise Invalid(
                "FLX-3001", f"{place.line(_line(error, template))}: {cause}{_hint(cause, context)}."
            ) from error

    def _compile(self, text: str, mode: Mode) -> "Template":
        found = self._compiled.get((mode, text))
        if found is None:
            found = self._compiled[mode, text] = self._environment(mode).from_string(text)
        return found


MISSING: Any = object()


def _to_render(value: Any, task: BaseOperator, field: str | None) -> bool:
    """Whether there is a template, a reference, or what may be the name of a template file in a value.

    `field` is None for what stands in a dict: it never names a file.
    """
    if isinstance(value, str):
        return is_template(value) or (field is not None and task.names_file(field, value))
    if isinstance(value, dict):
        return any(_to_render(item, task, None) for item in value.values())
    if isinstance(value, list | tuple | set):
        return any(_to_render(item, task, field) for item in value)
    return isinstance(value, Reference)


@lru_cache(maxsize=64)
def renderer_of(dag: "DAG") -> Renderer:
    return Renderer(dag)


class Place:
    """Where a template stands, for the sentence about it."""

    def __init__(self, task: BaseOperator, field: str, mode: Mode) -> None:
        self.task, self.field, self.top, self.mode = task, field, field, mode
        self.is_value = False  # of a dict
        self.file: str | None = None

    def at(self, key: Any) -> "Place":
        """An item of a list."""
        inner = copy.copy(self)
        inner.field = f"{self.field}[{spoken(key)}]"
        return inner

    def within(self, key: Any) -> "Place":
        """A value of a dict."""
        inner = self.at(key)
        inner.is_value = True
        return inner

    def line(self, number: int | None) -> str:
        return f"{self}, line {number}" if number else str(self)

    def __str__(self) -> str:
        dag = f" of dag {self.task.dag.dag_id!r}" if self.task.dag else ""
        file = f", file {Path(self.file).name}" if self.file else ""
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
    if cause.startswith("Missing end of comment tag"):
        return " (`{#` begins one: write ${{ '{#' }}a[@]} for a length in bash, or put the text into {% raw %})"
    found = re.fullmatch(r"'(\w+)' is undefined", cause)
    meant = nearest(found[1], [*context, *CONTEXT_NAMES]) if found else None
    return f": did you mean {meant!r}" if meant else ""
