"""The JSON form of what tasks return: it is kept in Postgres and shown to people, so it must be exact JSON.

A few types of the standard library have a documented form: datetime, date and time become ISO 8601 text, timedelta
becomes seconds, Decimal, Path and UUID become text, an Enum becomes its value, a tuple becomes a list.
"""

import datetime as dt
import json
import math
from enum import Enum
from pathlib import PurePath
from typing import Any

from fluxd.authoring.safely import spoken
from fluxd.errors import Invalid

SIZE_MAX_KB = 1024
DEPTH_MAX = 100
# Named and not imported: those who write a dag seldom have them, and all would pay.
AS_TEXT = {("decimal", "Decimal"), ("uuid", "UUID")}
INT_MIN, INT_MAX = -(2**63), 2**64 - 1


def to_json(value: Any, what: str, size_max_kb: int = SIZE_MAX_KB) -> Any:
    """The JSON form of `value`; `what` begins the sentence of an error.

    Raises Invalid FLX-3004 (it has none) or FLX-3005 (it is too large).
    """
    plain = _plain(value, what, 0)
    size_kb = len(json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()) / 1024
    if size_kb > size_max_kb:
        raise Invalid(
            "FLX-3005",
            f"{what} is {size_kb:,.0f} KB of JSON and at most {size_max_kb:,} KB are kept: "
            "write it to a file or a table and return its name.",
        )
    return plain


def _plain(value: Any, what: str, depth: int) -> Any:
    if depth > DEPTH_MAX:
        raise Invalid(
            "FLX-3004", f"{what} is nested more than {DEPTH_MAX} deep (or holds itself): return something flatter."
        )
    match value:
        case None | bool():
            return value
        case Enum():
            return _plain(value.value, what, depth)
        case str():
            return _text(value, what)
        case int():
            if not INT_MIN <= value <= INT_MAX:
                raise Invalid("FLX-3004", f"{what} holds a whole number of more than 64 bits: return it as text.")
            return int(value)
        case float():
            if not math.isfinite(value):
                raise Invalid(
                    "FLX-3004", f"{what} holds {value}, which JSON does not have: return None or text instead."
                )
            return float(value)
        case list() | tuple():
            return [_plain(item, what, depth + 1) for item in value]
        case dict():
            return {_key(key, what): _plain(item, what, depth + 1) for key, item in value.items()}
        case dt.datetime() | dt.date() | dt.time():
            return value.isoformat()
        case dt.timedelta():
            return value.total_seconds()
        case PurePath():
            return _text(str(value), what)
    if any((kind.__module__, kind.__name__) in AS_TEXT for kind in type(value).__mro__):
        return str(value)
    raise Invalid(
        "FLX-3004",
        f"{what} holds a {type(value).__module__}.{type(value).__qualname__}, which has no JSON form: "
        "return numbers, text, lists and dicts, or write it to a file and return its path.",
    )


def _text(value: str, what: str) -> str:
    if "\0" in value:
        raise Invalid("FLX-3004", f"{what} holds text with a NUL character, which Postgres cannot keep: remove it.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Invalid(
            "FLX-3004", f"{what} holds text that is not valid Unicode: decode it with errors='replace'."
        ) from None
    return str(value)


def _key(key: Any, what: str) -> str:
    if not isinstance(key, str):
        raise Invalid(
            "FLX-3004", f"{what} holds a dict with the key {spoken(key)}: JSON keys are text, so use str(key)."
        )
    return _text(key, what)
