"""How deep a JSON value from outside may be nested: fluxctl and the API refuse the same, before anything recurses."""

from typing import Any

DEPTH_MAX = 64


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
