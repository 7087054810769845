"""`macros` in templates: small functions on dates, and a few modules of the standard library."""

import datetime as datetime_module
import importlib
import json
import time
from datetime import datetime, timedelta
from typing import Any

__all__ = [
    "datetime",
    "datetime_diff_for_humans",
    "ds_add",
    "ds_format",
    "json",
    "random",  # noqa: F822 - found by __getattr__
    "time",
    "timedelta",
    "uuid",  # noqa: F822 - found by __getattr__
]

UTC = datetime_module.UTC
UNITS = (
    *(("year", 31_557_600), ("month", 2_629_800), ("week", 604_800), ("day", 86_400)),
    *(("hour", 3600), ("minute", 60), ("second", 1)),
)


def __getattr__(name: str) -> Any:
    # Modules that every attempt would pay for, and few ask for.
    if name in ("random", "uuid"):
        return importlib.import_module(name)
    raise AttributeError(f"macros has no {name!r}")


def ds_add(ds: str, days: int) -> str:
    """`ds_add("2026-01-31", 1)` is 2026-02-01; days may be negative."""
    return (datetime.strptime(ds, "%Y-%m-%d") + timedelta(days=int(days))).strftime("%Y-%m-%d")


def ds_format(ds: str, input_format: str, output_format: str) -> str:
    """A date text in another format: `ds_format("2026-01-31", "%Y-%m-%d", "%d.%m.%Y")`."""
    return datetime.strptime(str(ds), input_format).strftime(output_format)


def datetime_diff_for_humans(when: Any, since: datetime | None = None) -> str:
    """How far a time is from `since` (from now where it is None): "3 days ago", "in 2 hours", "1 day before"."""
    names = ("before", "after") if since is not None else ("ago", "")
    reference = since or datetime.now(UTC)
    if when.tzinfo is None:
        when = when.replace(tzinfo=reference.tzinfo or UTC)
    if reference.tzinfo is None:
        reference = reference.replace(tzinfo=when.tzinfo)
    seconds = (when - reference).total_seconds()
    size = abs(seconds)
    unit, length = next((found for found in UNITS if size >= found[1]), UNITS[-1])
    count = int(size // length)
    words = f"{count} {unit}{'' if count == 1 else 's'}"
    if seconds <= 0:
        return f"{words} {names[0]}"
    return f"{words} {names[1]}" if names[1] else f"in {words}"
