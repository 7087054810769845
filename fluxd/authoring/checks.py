"""Checks of what authors write: each gives the value in its one inner form, or one sentence that says what is wrong.

`what` names the thing for that sentence, as in "retries of task 'load'".
"""

import datetime as dt
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from fluxd.authoring.safely import kind, spoken
from fluxd.core.spec import ID
from fluxd.core.timetable import check_time
from fluxd.errors import Invalid

T = TypeVar("T")
SECONDS = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
WHOLE_MAX = 2**31 - 1  # what Postgres keeps in an integer
SECONDS_MAX = 100 * 366 * 86400.0
DURATION = re.compile(r"(?:\s*\d+(?:\.\d+)?\s*(?:ms|w|d|h|m|s))+\s*")
DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|w|d|h|m|s)")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be, or None."""
    import difflib

    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def unknown_argument(name: str, known: Iterable[str], what: str) -> Invalid:
    """The error for an argument that `what` does not take, with the right one if there is one like it."""
    meant = nearest(name, known)
    return Invalid("FLX-1002", f"{what} takes no argument {name!r}" + (f": did you mean {meant!r}?" if meant else "."))


class NotGiven:
    """Stands for an argument that was left out, where None is a value of its own."""

    def __repr__(self) -> str:
        return "<not given>"


NOT_GIVEN: Any = NotGiven()


def one_name(what: str, absent: Any = None, /, **given: Any) -> Any:
    """The value of an argument that has several names, else `absent`. Raises Invalid FLX-1070 for two of them."""
    names = [name for name, value in given.items() if value is not NOT_GIVEN]
    if len(names) > 1:
        raise Invalid(
            "FLX-1070", f"{what} is given {' and '.join(names)}, which are names of one argument: give one of them."
        )
    return given[names[0]] if names else absent


def identifier(value: Any, what: str) -> str:
    """An id of a dag, task or group: it is also the name of a folder of logs."""
    if not isinstance(value, str):
        raise Invalid("FLX-1001", f"{what} must be text, not {kind(value)}.")
    if not ID.fullmatch(value):
        raise Invalid(
            "FLX-1001",
            f"{what} {value[:60]!r} cannot be used: an id has 1 to 200 of the characters A-Z a-z 0-9 _ . - "
            "and does not begin with '.' or '-'.",
        )
    return value


def whole(value: Any, what: str, least: int = 0, most: int = WHOLE_MAX) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Invalid("FLX-1003", f"{what} must be a whole number from {least} to {most}, not {spoken(value)}.")
    if not least <= value <= most:
        shown = value if value.bit_length() <= 128 else "one of so many digits"
        raise Invalid("FLX-1003", f"{what} must be a whole number from {least} to {most}, not {shown}.")
    return value


def boolean(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise Invalid("FLX-1003", f"{what} must be True or False, not {spoken(value)}.")
    return value


def text(value: Any, what: str) -> str:
    """Text that Postgres can keep."""
    if not isinstance(value, str):
        raise Invalid("FLX-1003", f"{what} must be text, not {spoken(value)}.")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise Invalid("FLX-1003", f"{what} holds a NUL or half a character, which no text may have: remove it.")
    return value


def filled(value: Any, what: str) -> str:
    """Text with something in it."""
    if not text(value, what).strip():
        raise Invalid("FLX-1073", f"{what} is empty: write something, or leave the argument out.")
    return str(value)


def texts(value: Any, what: str) -> tuple[str, ...]:
    """One text or a list of them, none of them empty; a set is sorted, so that it reads the same each time."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (filled(value, what),)
    if isinstance(value, set | frozenset) and all(isinstance(item, str) for item in value):
        value = sorted(value)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise Invalid("FLX-1003", f"{what} must be a list of texts, not {spoken(value)}.")
    return tuple(filled(item, what) for item in value)


def mapping(value: Any, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise Invalid("FLX-1003", f"{what} must be a dict with texts as keys, not {spoken(value)}.")
    return dict(value)


def one_of(value: Any, choices: Iterable[str], what: str) -> str:
    allowed = list(choices)
    if not isinstance(value, str) or value not in allowed:
        meant = nearest(value, allowed) if isinstance(value, str) else None
        hint = f"did you mean {meant!r}?" if meant else "it is one of " + ", ".join(allowed) + "."
        raise Invalid("FLX-1003", f"{what} cannot be {spoken(value)}: {hint}")
    return value


def seconds(value: Any, what: str, positive: bool = False) -> float:
    """A duration in seconds, from a timedelta, a number of seconds, or text like "90s", "1h30m", "2d"."""
    found: float | None = None
    if isinstance(value, dt.timedelta):
        found = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = float(value) if abs(value) <= SECONDS_MAX else math.inf  # a whole number may be too large for a float
    elif isinstance(value, str) and DURATION.fullmatch(value):
        found = sum(float(number) * SECONDS[unit] for number, unit in DURATION_PART.findall(value))
    if found is None or not 0 <= found <= SECONDS_MAX or (positive and found == 0):
        least = "more than zero" if positive else "zero or more"
        raise Invalid(
            "FLX-1007",
            f'{what} must be {least}: a timedelta, a number of seconds, or text like "1h30m", not {spoken(value)}.',
        )
    return found


def duration(value: Any, what: str) -> float:
    """A duration in seconds that is more than zero."""
    return seconds(value, what, positive=True)


def optional(check: Callable[[Any, str], T], value: Any, what: str) -> T | None:
    """None, or what the check makes of the value."""
    return None if value is None else check(value, what)


def zone(value: Any, what: str) -> ZoneInfo:
    """A time zone by its IANA name, or as a tzinfo that has one."""
    name = value if isinstance(value, str) else getattr(value, "key", None) or getattr(value, "name", None)
    if value is dt.UTC:
        name = "UTC"
    try:
        return ZoneInfo(name)  # type: ignore[arg-type]  # the except below is the check
    except (KeyError, ValueError, TypeError, OSError):
        raise Invalid(
            "FLX-1005",
            f"{what} {spoken(value)} is not a time zone that is known here: give a name like 'Europe/Paris' or 'UTC'.",
        ) from None


def moment(value: Any, tz: dt.tzinfo, what: str) -> dt.datetime | None:
    """A point in time in UTC, from a datetime, a date or ISO 8601 text; without an offset it is read in `tz`."""
    if value is None:
        return None
    found = value
    if isinstance(value, str):
        try:
            found = dt.datetime.fromisoformat(value.strip())
        except ValueError:
            found = None
    elif isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        found = dt.datetime(value.year, value.month, value.day)
    if not isinstance(found, dt.datetime):
        raise Invalid(
            "FLX-1006", f"{what} {spoken(value)} is not a date: give a datetime or text like '2026-01-31T06:00'."
        )
    if found.tzinfo is None:
        found = found.replace(tzinfo=tz)
    check_time(found, what)
    return found.astimezone(dt.UTC)


def utc_text(moment: dt.datetime) -> str:
    """RFC 3339 in UTC, ending in Z."""
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
