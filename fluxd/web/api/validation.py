"""What may be asked: the fields of a query or a body, how they are checked, and what a handler is given.

Checks are strict. A misspelt field that is silently ignored is the worst answer an API can give, so it is refused with
the nearest right one named.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from aiohttp import web

from fluxd.core.timetable import check_time
from fluxd.errors import FluxError, Invalid
from fluxd.json_limits import DEPTH_MAX, exactly, too_big, too_deep
from fluxd.web.state import WebState
from fluxd.web.who import WHO

CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class WrongMediaType(FluxError):
    """The body is not declared as JSON. (A page of a foreign site can post forms, but not JSON.)"""

    status = 415


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a query or a body. `kind`: text | integer | number | boolean | time | object | texts | names.

    `texts` are of a query (a,b,c), `names` of a body: at least one, for a list that came out empty means neither all
    nor nothing.
    A time is a datetime in UTC, or a naive one when it was given without a zone: the handler knows whose zone is meant.
    """

    name: str
    kind: str
    about: str
    required: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()
    least: int | None = None
    most: int | None = None
    pattern: str | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that has been checked. `path`, `query` and `body` hold values by name, in their Python types."""

    state: WebState
    request: web.Request
    path: Mapping[str, str]
    query: dict[str, Any]
    body: dict[str, Any]

    @property
    def db(self) -> Any:
        """The pool to read with."""
        return self.state.db.read

    @property
    def by(self) -> str:
        """Who asks, for the record."""
        who = self.request.get(WHO) or {}
        return str(who.get("name", "unknown"))


def nearest(name: str, known: Iterable[str]) -> str:
    """The words `; did you mean 'x'?` for the nearest known name, or the list of a few known ones, or nothing."""
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(name, names, 1, 0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    if 0 < len(names) <= 12:
        return f"; known are {', '.join(sorted(names))}."
    return "."


def parse_time(text: str, name: str) -> datetime:
    """A time from RFC 3339 text or a plain date; in UTC if it names a zone, else naive.

    Raises Invalid FLX-4103, or FLX-1046 where no calendar reckoning could be done with it.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(
            "FLX-4103", f"{name} = {text[:80]!r} is not a time; write it like 2026-01-31 or 2026-01-31T06:00:00Z."
        ) from None
    check_time(time, name)
    return time.astimezone(UTC) if time.tzinfo else time


def in_zone(time: datetime | None, zone: str) -> datetime | None:
    """A time given without a zone is meant in this one; the answer is in UTC."""
    if time is None or time.tzinfo is not None:
        return time
    return time.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def _integer(value: Any) -> int:
    if isinstance(value, str):
        return int(value)
    if type(value) is not int:
        raise ValueError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError
    number = float(value)
    if not abs(number) < 1e15:
        raise ValueError
    return number


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "1": True, "false": False, "0": False}[value]


def _text(value: Any) -> str:
    if not isinstance(value, str) or CONTROL.search(value):
        raise ValueError
    return value


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):  # in a query: a,b,c
        value = [part for part in value.split(",") if part]
    return _names(value)


def _names(value: Any) -> list[str]:
    if not isinstance(value, list) or not value:
        raise ValueError
    return [_text(part) for part in value]


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or has_nul(value):
        raise ValueError
    return value


READ: dict[str, tuple[Callable[[Any], Any], str]] = {
    "text": (_text, "a text without control characters"),
    "integer": (_integer, "a whole number"),
    "number": (_number, "a number"),
    "boolean": (_boolean, "true or false"),
    "time": (_text, "a time"),
    "object": (_object, "a JSON object (without the character U+0000, which Postgres cannot keep)"),
    "texts": (_texts, "a list of texts with at least one in it; leave it out to mean all"),
    "names": (_names, "a list of texts with at least one in it; leave the field out to mean all"),
}


def has_nul(value: Any) -> bool:
    """Whether U+0000 is anywhere in a JSON value."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(has_nul(key) or has_nul(part) for key, part in value.items())
    return isinstance(value, list) and any(has_nul(part) for part in value)


def _value(field: Field, value: Any) -> Any:
    read, wanted = READ[field.kind]
    try:
        result = read(value)
    except (ValueError, TypeError, KeyError):
        raise Invalid("FLX-4102", f"{field.name} = {str(value)[:80]!r} is not {wanted}.") from None
    if field.kind == "time":
        return parse_time(result, field.name)
    if field.kind == "object" and (wrong := too_big(result)):
        raise Invalid("FLX-4102", f"{field.name} cannot be kept: {wrong}.")
    for part in result if isinstance(result, list) else [result]:
        if field.choices and part not in field.choices:
            raise Invalid("FLX-4102", f"{field.name} = {part[:80]!r} is not known{nearest(part, field.choices)}")
        if field.pattern and not re.fullmatch(field.pattern, part):
            raise Invalid("FLX-4102", f"{field.name} = {part[:80]!r} must match {field.pattern}.")
    if field.least is not None and result < field.least:
        raise Invalid("FLX-4102", f"{field.name} = {result} is too small; the least is {field.least}.")
    if field.most is not None and result > field.most:
        raise Invalid("FLX-4102", f"{field.name} = {result} is too big; the most is {field.most}.")
    return result


def check(fields: Sequence[Field], given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The values of all fields, those not given with their default. Raises Invalid FLX-4101 or FLX-4102.

    A null is the same as not given.
    """
    known = [field.name for field in fields]
    for name in given:
        if name not in known:
            if not known:
                raise Invalid("FLX-4101", f"{what} {name[:80]!r} is not known: none is taken here.")
            raise Invalid("FLX-4101", f"{what} {name[:80]!r} is not known{nearest(name, known)}")
    values: dict[str, Any] = {}
    for field in fields:
        value = given.get(field.name)
        if value is None:
            if field.required:
                raise Invalid("FLX-4101", f"{what} {field.name!r} is missing: {field.about}.")
            values[field.name] = field.default
        else:
            values[field.name] = _value(field, value)
    return values


async def read_body(request: web.Request, fields: Sequence[Field]) -> tuple[bytes, dict[str, Any]]:
    """The body as it came and its checked values. Raises Invalid FLX-4104 or WrongMediaType FLX-4105."""
    raw = await request.read()
    if not raw:
        return raw, check(fields, {}, "The field")
    if request.content_type != "application/json":
        raise WrongMediaType(
            "FLX-4105", "The body must be sent as JSON, with the header Content-Type: application/json."
        )
    try:
        given = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Invalid("FLX-4104", f"The body is not JSON: {error}.") from None
    if not isinstance(given, dict):
        raise Invalid("FLX-4104", "The body must be a JSON object, like {}.")
    for name, value in given.items():
        if too_deep(value):
            raise Invalid("FLX-4104", f"{name[:80]!r} in the body is nested too deep: {DEPTH_MAX} levels are allowed.")
    return raw, check(fields, exactly(raw, given), "The field")


def read_query(request: web.Request, fields: Sequence[Field]) -> dict[str, Any]:
    """The checked values of the query."""
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name in given:
            raise Invalid("FLX-4101", f"The query parameter {name[:80]!r} is given twice; give it once.")
        given[name] = value
    return check(fields, given, "The query parameter")
