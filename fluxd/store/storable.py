"""What a task says, made fit for Postgres, at the border: no output of a task may ever break a save.

Text of Postgres holds no NUL and no half of a surrogate pair, jsonb neither of them nor a number that is none; JSON
here has 64-bit integers and bounded depth. What cannot be kept is replaced visibly (U+FFFD) or told in a text.
"""

import json
import math
from typing import Any

import orjson

INT4_MAX = 2**31 - 1
# A key stands in an index, whose rows hold 2,704 bytes.
KEY_MAX = 500
DEPTH_MAX = 200


class _JsonNull:
    """JSON's null where None would be SQL's NULL."""


JSON_NULL = _JsonNull()


def text(value: str | None) -> str | None:
    """The text, with every character that Postgres cannot hold replaced."""
    if value is None or (value.isascii() and "\0" not in value):
        return value
    return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace").replace("\0", "\ufffd")


def json_bytes(value: Any) -> bytes:
    """The value as JSON that jsonb accepts. It never fails: what JSON cannot hold becomes a text that says so."""
    if value is JSON_NULL:
        return b"null"
    try:
        found = orjson.dumps(value)
    except TypeError:
        pass  # surrogates, integers beyond 64 bits, keys that are no text, too deep, not JSON at all
    else:
        if rb"\u0000" not in found:
            return found
    return json.dumps(_clean(value, 0), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _clean(value: Any, depth: int) -> Any:
    if depth > DEPTH_MAX:
        return "(deeper than Flux keeps)"
    match value:
        case None | bool():
            return value
        case str():
            return text(str(value))
        case int():
            # jsonb holds any integer, but who reads it back (JSON of 64 bits) does not.
            return value if -(2**63) <= value < 2**64 else text(hex(value))
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {text(str(key)): _clean(item, depth + 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_clean(item, depth + 1) for item in value]
        case _:
            return f"({type(value).__name__} is not JSON)"
