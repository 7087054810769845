"""Words about values and errors of an author's own classes, whose `__str__`, `__repr__` and attributes may raise.

Whoever tells of an error has no use for a second one: nothing here raises because of what it tells about.
"""

import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

from fluxd.authoring.outcomes import TaskTerminated

REPR_MAX = 80


def kind(value: Any) -> str:
    """The name of its class."""
    name: str = type.__dict__["__name__"].__get__(type(value))  # a metaclass may have a `__name__` of its own
    return name


def text(value: Any) -> str:
    """`str(value)`, or the name of the class in its place."""
    return _words(str, value)


def spoken(value: Any, most: int = REPR_MAX) -> str:
    """`repr(value)` in at most so many characters, or the name of the class in its place."""
    words = _words(repr, value)
    return words if len(words) <= most else f"{words[: most - 1]}…"


def _words(make: Callable[[Any], str], value: Any) -> str:
    try:
        made = make(value)
        # A subclass of str may have methods of its own; half a character can be neither printed nor stored.
        return str.encode(made, "utf-8", "backslashreplace").decode()
    except TaskTerminated:
        raise  # not of the value: the task was told to stop just now
    except BaseException as error:
        return f"<{kind(value)}, whose __{make.__name__}__ raises {kind(error)}>"


def traceback_of(error: BaseException) -> TracebackType | None:
    """Its traceback, whatever its class makes of the attribute."""
    found: TracebackType | None = BaseException.__dict__["__traceback__"].__get__(error)
    return found


def formatted(error: BaseException, tb: TracebackType | None) -> str:
    """The traceback as Python prints it; where the error does not let itself be looked at, its lines alone."""
    try:
        made = "".join(traceback.format_exception(type(error), error, tb))
        return str.encode(made, "utf-8", "backslashreplace").decode()
    except TaskTerminated:
        raise
    except BaseException:
        lines = "".join(traceback.format_list(traceback.extract_tb(tb)))
        return f"Traceback (most recent call last):\n{lines}{kind(error)}: {text(error)}\n"
