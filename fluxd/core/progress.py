"""How far a task says it is: what is kept of what its process told."""

from typing import Any

COUNT_MAX = 2**63 - 1
NOTE_MAX = 500


def kept_progress(told: Any) -> dict[str, Any] | None:
    """The numbers `rows` and `bytes` and the text `note`, as far as they are such; None where nothing is left."""
    if not isinstance(told, dict):
        return None
    kept: dict[str, Any] = {
        name: told[name] for name in ("rows", "bytes") if type(told.get(name)) is int and 0 <= told[name] <= COUNT_MAX
    }
    if isinstance(told.get("note"), str):
        kept["note"] = told["note"][:NOTE_MAX]
    return kept or None
