"""The Jinja2 environments of a dag: sandboxed and strict, with its filters and macros, one for each mode of rendering.

Jinja2 is imported when the first one is made.
"""

import math
import shlex
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxd.authoring import context as dates
from fluxd.authoring import outside
from fluxd.authoring.operator import BaseOperator
from fluxd.errors import Invalid

if TYPE_CHECKING:
    from jinja2 import Environment

    from fluxd.authoring.dag import DAG

OUTPUT_MAX = 4 * 1024 * 1024  # characters of one rendered text


def q(value: Any) -> str:
    """Quoted as one word of a shell command."""
    return shlex.quote(outside.raw(value))


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
    "raw": outside.raw,
    "sqlq": sqlq,
    "ds": dates.ds,
    "ds_nodash": dates.ds_nodash,
    "ts": dates.ts,
    "ts_nodash": dates.ts_nodash,
    "ts_nodash_with_tz": dates.ts_nodash_with_tz,
}


class TooLarge(ValueError):
    """A template makes more than anybody can want."""


class Mode(Enum):
    """How the text of a field is made."""

    TEXT = "text"
    NATIVE = "native"  # a field that is one expression gets its value
    STRICT = "strict"  # no expression may come to None
    SHELL = "shell"  # what came from outside must be quoted


def mode_of(dag: "DAG", task: BaseOperator, field: str) -> Mode:
    if field in task.shell_fields:
        return Mode.SHELL
    if dag.templates.native:
        return Mode.NATIVE
    return Mode.STRICT if field in task.strict_fields else Mode.TEXT


def not_none(value: Any) -> Any:
    """Refuse an expression that comes to None: its text would be taken for a value. Raises Invalid FLX-3052."""
    if value is None:
        raise Invalid("FLX-3052", "an expression comes to None: see that the task before hands it on, or use default()")
    return value


FINALIZE = {Mode.STRICT: not_none, Mode.SHELL: outside.put_out}


@cache
def environment_class(mode: Mode) -> "type[Environment]":
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

    if mode is Mode.NATIVE:
        return type("NativeSandbox", (Sandbox, NativeEnvironment), {})
    return _shell_class(Sandbox) if mode is Mode.SHELL else Sandbox


def _shell_class(sandbox: Any) -> "type[Environment]":
    """Whatever is made of a marked value by an operator, a call or `~` is marked too (see outside.py)."""
    from jinja2.compiler import CodeGenerator
    from jinja2.runtime import Macro

    class ShellCode(CodeGenerator):
        def visit_Concat(self, node: Any, frame: Any) -> None:
            self.write("environment.joined((")
            for part in node.nodes:
                self.visit(part, frame)
                self.write(", ")
            self.write("))")

    class Shell(sandbox):  # type: ignore[misc]
        code_generator_class = ShellCode
        intercepted_binops = frozenset({"*", "**", "+", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            return outside.passed_on(super().call_binop(context, operator, left, right), left, right)

        def call(self, context: Any, called: Any, /, *args: Any, **kwargs: Any) -> Any:
            args = outside.looked_through(args)
            made = super().call(context, called, *args, **kwargs)
            if isinstance(called, Macro):
                return made  # what it puts out was looked at inside
            return outside.passed_on(made, getattr(called, "__self__", None), args, kwargs)

        def joined(self, parts: tuple[Any, ...]) -> str:
            text: str = outside.passed_on("".join(map(str, parts)), parts)
            return text

    made: type[Environment] = Shell
    return made


def environment(dag: "DAG", mode: Mode) -> "Environment":
    """A Jinja2 environment of a dag: its search path, its macros and filters."""
    from jinja2 import FileSystemLoader, StrictUndefined

    made = environment_class(mode)(
        undefined=StrictUndefined,
        finalize=FINALIZE.get(mode),
        loader=FileSystemLoader([str(folder) for folder in search_path(dag)]),
        keep_trailing_newline=True,
        extensions=["jinja2.ext.do"],
        autoescape=False,  # these are commands and queries, not pages
    )
    made.filters.update(FILTERS)
    made.filters.update(dag.templates.filters)
    if mode is Mode.SHELL:
        for name, function in made.filters.items():
            # `map` only calls others, which keep marks themselves, or take them away as `q` does.
            if function not in (q, outside.raw) and name != "map":
                made.filters[name] = outside.passing_on(function)
    return made


def search_path(dag: "DAG") -> list[Path]:
    """Where template files are looked for: template_searchpath, then the folder of the dag's file."""
    return [*(dag.folder / folder for folder in dag.templates.searchpath), dag.folder]
