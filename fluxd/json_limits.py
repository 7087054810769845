"""What JSON from outside may hold: how deep it is nested, and how big a whole number. fluxctl, the API and the pages
refuse the same, before anything recurses.

Readers of JSON, orjson too, silently make a number with a point of one beyond 64 bits: its last digits are lost, and
with them whose order or account it was.
"""

import json
from collections.abc import Iterator
from typing import Any

DEPTH_MAX = 64
BOUND = 2**63
# More digits than anybody means; int() refuses to read thousands of them.
DIGITS_MAX = 100


def read_whole(digits: str) -> int:
    """A whole number as it is written in JSON. One of too many digits is cut, and far too big all the same."""
    return int(digits[:DIGITS_MAX])


def exactly(raw: str | bytes, value: Any) -> Any:
    """What orjson read from `raw`, with the whole numbers that are written there; not to be nested too deep."""
    if any(type(part) is float and abs(part) >= BOUND for part in _parts(value)):
        return json.loads(raw, parse_int=read_whole)
    return value


def too_big(value: Any) -> str | None:
    """What is wrong with the first whole number in a JSON value that is too big."""
    for part in _parts(value):
        if isinstance(part, int) and not -BOUND <= part < BOUND:
            return f"the whole number {str(part)[:40]} is beyond ±2**63; give it as text"
    return None


def _parts(value: Any) -> Iterator[Any]:
    """All that is in a JSON value and is neither an object nor a list, in no order; without recursion."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
        else:
            yield part


def too_deep(value: Any) -> bool:
    """Whether objects and lists are nested deeper than DEPTH_MAX; without recursion, for the value may be hostile."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(DEPTH_MAX):
        level = [
            part
            for outer in level
            for part in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(part, (dict, list))
        ]
    return bool(level)
