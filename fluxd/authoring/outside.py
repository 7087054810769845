"""What a run was given from outside (params, conf) keeps its mark while a template for a shell works with it.

A value with a character that a shell reads may become a command of its own: `echo {{ params.x }}` with `x = "; rm *"`.
Quoting it in silence would be wrong inside quotes, so it is refused where it is put out, unless the author said how it
is meant: `| q` (one word) or `| raw` (part of the command). The mark is a subclass of str, as in markupsafe; whatever
is made of a marked value by a filter, a call, an operator or a slice is marked again. Numbers and text without such a
character are not marked: nothing can be made of them.
"""

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, SupportsIndex

from fluxd.errors import Invalid

READ_BY_SHELLS = frozenset("|&;<>()$`\\\"'*?[]{}#~!^")
NAMES = {" ": "a space", "\n": "a line feed", "\t": "a tab", "\r": "a carriage return"}
DEPTH_MAX = 60  # JSON of a run is not nested deeper than that; what is counts as marked
WAY_OUT = "write `| q` behind it to hand it over as one word, or `| raw` if a shell is to read it"


def read_by_shells(text: str) -> str | None:
    """The first character of a text that a shell reads as more than itself."""
    return next((c for c in text if c in READ_BY_SHELLS or c.isspace() or c < " " or c == "\x7f"), None)


class Outside(str):
    """Text from outside, or made of such; `origin` names where it came from."""

    origin: str

    __slots__ = ("origin",)

    def __str__(self) -> str:
        return self

    def __getitem__(self, key: SupportsIndex | slice) -> "Outside":
        return outside(str.__getitem__(self, key), self.origin)

    def __iter__(self) -> Iterator[str]:
        return (outside(c, self.origin) for c in str.__iter__(self))

    def __radd__(self, other: str) -> str:
        return outside(str.__add__(other, self), self.origin)


def outside(text: str, origin: str) -> Outside:
    made = Outside(text)
    made.origin = origin
    return made


def marked(value: Any, origin: str) -> Any:
    """JSON from outside, in which each text that a shell would read into has its mark."""
    match value:
        case str():
            return outside(value, origin) if read_by_shells(value) is not None else value
        case list():
            return [marked(item, f"{origin}[{number}]") for number, item in enumerate(value)]
        case dict():
            return {marked(key, f"a key of {origin}"): marked(item, f"{origin}.{key}") for key, item in value.items()}
    return value


def origin_in(value: Any, depth: int = 0) -> str | None:
    """Where the first marked text in a value came from; None where there is none."""
    if isinstance(value, Outside):
        return value.origin
    if isinstance(value, dict | list | tuple | set | frozenset):
        if depth > DEPTH_MAX:
            return "a deeply nested value"
        items = [*value, *value.values()] if isinstance(value, dict) else value
        return next((found for item in items if (found := origin_in(item, depth + 1)) is not None), None)
    return None


def passed_on(made: Any, *sources: Any) -> Any:
    """What was made of values: marked where one of them is."""
    if isinstance(made, Outside) or not isinstance(made, str | list | tuple | dict | set | Iterator):
        return made
    origin = origin_in(sources)
    return made if origin is None else _all_marked(made, origin)


def _all_marked(made: Any, origin: str) -> Any:
    match made:
        case Outside():
            return made
        case str():
            return outside(made, origin)
        case list():
            return [_all_marked(item, origin) for item in made]
        case tuple() if type(made) is tuple:
            return tuple(_all_marked(item, origin) for item in made)
        case dict():
            return {_all_marked(key, origin): _all_marked(item, origin) for key, item in made.items()}
        case set():
            return {_all_marked(item, origin) for item in made}
        case Iterator():
            return (_all_marked(item, origin) for item in made)
    return made


def looked_through(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments in which marks can be found: what can be gone through only once becomes a list."""
    return tuple(list(item) if isinstance(item, Iterator) else item for item in args)


def passing_on(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same filter, which keeps marks."""

    @functools.wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        args = looked_through(args)
        return passed_on(function(*args, **kwargs), args, kwargs)

    return filtered


def raw(value: Any) -> Any:
    """The filter `raw`: the value as it is, for a shell to read."""
    return "".join(str.__iter__(value)) if isinstance(value, str) else str(value)


def put_out(value: Any) -> Any:
    """Refuse what must not be put out into a shell command as it is. Raises Invalid FLX-3050."""
    origin = origin_in(value)
    character = None if origin is None else read_by_shells(str.__str__(value) if isinstance(value, str) else str(value))
    if character is None:
        return value
    raise Invalid(
        "FLX-3050", f"{origin} has {NAMES.get(character, repr(character))} in it, which a shell reads: {WAY_OUT}"
    )


class ShellContext(Mapping[str, Any]):
    """The context of a task in which what came from outside is marked."""

    def __init__(self, context: Mapping[str, Any]) -> None:
        self._context = context
        self.lazy = getattr(context, "lazy", {})
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._mark(name, self._context[name])
        return self._made[name]

    def _mark(self, name: str, value: Any) -> Any:
        match name:
            case "params" | "conf":
                return marked(value, name)
            case "dag_run":
                return dataclasses.replace(value, conf=marked(value.conf, "conf"))
            case "ti" | "task_instance":
                mine = copy.copy(value)
                mine.run = self["dag_run"]
                return mine
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._context

    def __iter__(self) -> Iterator[str]:
        return iter(self._context)

    def __len__(self) -> int:
        return len(self._context)
