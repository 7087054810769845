"""Times, durations and stretches of time in the words that people use for them.

Times of a dag are shown in the dag's time zone, with its name beside them where the reader's clocks show another
time.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, time
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson

from fluxd.core.causes import cause as cause  # templates ask for it here

MINUTE, HOUR, DAY = 60, 3600, 86400
# What is said of a file whose stored error does not say why.
NO_REASON = "it cannot be loaded"


@lru_cache(maxsize=256)
def zone(name: str | None) -> ZoneInfo:
    """The time zone of this name; UTC where there is none of that name on this machine."""
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def zone_words(name: str | None) -> str:
    """Europe/Paris → Paris."""
    return (name or "UTC").rpartition("/")[2].replace("_", " ")


def duration(seconds: float | None) -> str:
    """0.04 s · 8.3 s · 42 s · 3 m 20 s · 2 h 05 m · 3 d 04 h; never more than two parts."""
    if seconds is None:
        return ""
    seconds = max(0.0, seconds)
    if seconds < 0.995:
        return f"{seconds:.2f} s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return _two(whole // MINUTE, "m", whole % MINUTE, "s")
    minutes = round(seconds / MINUTE)
    if minutes < 24 * MINUTE:
        return _two(minutes // 60, "h", minutes % 60, "m")
    hours = round(seconds / HOUR)
    return _two(hours // 24, "d", hours % 24, "h")


def _two(big: int, big_unit: str, small: int, small_unit: str) -> str:
    return f"{big} {big_unit} {small:02d} {small_unit}" if small else f"{big} {big_unit}"


def took(start: datetime | None, end: datetime | None, now: datetime) -> float | None:
    """Seconds from start to end, or until now where it goes on; None if it did not begin."""
    return None if start is None else ((end or now) - start).total_seconds()


def _amount(seconds: float) -> str:
    for size, name, least in ((DAY, "day", 23.5 * HOUR), (HOUR, "h", 59.5 * MINUTE), (MINUTE, "min", 59.5)):
        if seconds >= least:
            count = max(1, round(seconds / size))
            return f"{count} {name}{'s' if name == 'day' and count > 1 else ''}"
    return f"{round(seconds)} s"


def relative(at: datetime, now: datetime) -> str:
    """in 3 h 20 m · 3 h ago · 40 s ago · now; what is to come today is said to the minute."""
    seconds = (at - now).total_seconds()
    if abs(seconds) < 1:
        return "now"
    if 59.5 * MINUTE <= seconds < 23.5 * HOUR:
        minutes = round(seconds / MINUTE)
        return f"in {_two(minutes // 60, 'h', minutes % 60, 'm')}"
    return f"in {_amount(seconds)}" if seconds > 0 else f"{_amount(-seconds)} ago"


def _clock(local: datetime) -> str:
    return f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"


def when(at: datetime, zone_name: str | None, now: datetime) -> str:
    """today 06:00 · tomorrow 06:00 · Fri 06:00 (in the week to come) · 2 Jan 06:00 (near) · 2026-01-02 06:00."""
    local = at.astimezone(zone(zone_name))
    days = (local.date() - now.astimezone(zone(zone_name)).date()).days
    names = {0: "today", 1: "tomorrow", -1: "yesterday"}
    near = f"{local:%a}" if 1 < days < 7 else f"{local.day} {local:%b}"
    return f"{names.get(days) or (near if abs(days) < 180 else f'{local:%Y-%m-%d}')} {_clock(local)}"


def exact(at: datetime, zone_name: str | None = None) -> str:
    """2026-01-02 06:00:00 Paris."""
    return f"{at.astimezone(zone(zone_name)):%Y-%m-%d %H:%M:%S} {zone_words(zone_name)}"


def clock(at: datetime, zone_name: str | None) -> str:
    """06:00:12, for times whose day is known from what stands around them."""
    return f"{at.astimezone(zone(zone_name)):%H:%M:%S}"


def beside(at: datetime, zone_name: str | None, reader: str | None = None) -> str:
    """What stands beside a time: " Paris", or nothing where the reader's own clocks show the same time."""
    if reader is not None and at.astimezone(zone(reader)).utcoffset() == at.astimezone(zone(zone_name)).utcoffset():
        return ""
    return f" {zone_words(zone_name)}"


def days(first: datetime, last: datetime, zone_name: str | None, reader: str | None = None) -> str:
    """2 Jan 06:00 – 4 Feb 2026 06:00 Paris · 2 Jan 2026, 06:00 – 18:00 Paris (one day)."""
    begin, end = first.astimezone(zone(zone_name)), last.astimezone(zone(zone_name))
    where = beside(last, zone_name, reader)
    if begin.date() == end.date():
        return f"{end.day} {end:%b %Y}, {_clock(begin)}" + (f" – {_clock(end)}" if begin != end else "") + where
    year = f" {begin:%Y}" if begin.year != end.year else ""
    return f"{begin.day} {begin:%b}{year} {_clock(begin)} – {end.day} {end:%b %Y} {_clock(end)}{where}"


def instant(at: datetime) -> str:
    """RFC 3339 in UTC, for `<time datetime>`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def stretch(start: datetime, end: datetime, zone_name: str | None, reader: str | None = None) -> str:
    """2026-01-01 → 2026-01-02 Paris (whole days) · 2026-01-01 06:00 → 07:00 Paris · 2026-01-01 06:00 Paris (no length).

    Both clock times and one zone, which is left out where it is the reader's own.
    """
    first, last = start.astimezone(zone(zone_name)), end.astimezone(zone(zone_name))
    where = beside(end, zone_name, reader)
    if start == end:
        return f"{first:%Y-%m-%d} {_clock(first)}{where}"
    if first.time() == last.time() == time():
        return f"{first:%Y-%m-%d} → {last:%Y-%m-%d}{where}"
    right = _clock(last) if first.date() == last.date() else f"{last:%Y-%m-%d} {_clock(last)}"
    return f"{first:%Y-%m-%d} {_clock(first)} → {right}{where}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """1 task · 3 tasks."""
    return f"{count:,} {one if count == 1 else many or one + 's'}".replace(",", "\u202f")


def progress(told: Mapping[str, Any]) -> str:
    """1 200 rows, 4.0 KiB: loading."""
    counts = [counted(told["rows"], "row")] if "rows" in told else []
    counts += [size(told["bytes"])] if "bytes" in told else []
    return ": ".join(part for part in (", ".join(counts), told.get("note")) if part)


def size(count: int) -> str:
    """512 B · 1.2 KiB · 200 MiB."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    return ""


def broken(file: str, error: Mapping[str, Any] | None) -> str:
    """Why a file cannot be loaded: file, line and reason, each once, though the reason may begin with the others."""
    error = error or {}
    message = str(error.get("message") or NO_REASON)
    if file in message:
        return message
    line = f", line {error['line']}" if error.get("line") else ""
    return f"{file}{line}: {message}"


def allowed(schema: Mapping[str, Any]) -> str:
    """What a param may be: integer, 1 to 10, needed · string, one of "eu", "us"."""
    kinds = schema.get("type") or "any value"
    parts = [kinds if isinstance(kinds, str) else " or ".join(kinds)]
    if schema.get("enum"):
        parts.append("one of " + ", ".join(orjson.dumps(value, default=str).decode() for value in schema["enum"]))
    for least, most, unit in (("minimum", "maximum", ""), ("minLength", "maxLength", " characters")):
        low, high = schema.get(least), schema.get(most)
        if low is not None and high is not None:
            parts.append(f"{low} to {high}{unit}")
        elif low is not None or high is not None:
            parts.append(f"at least {low}{unit}" if high is None else f"at most {high}{unit}")
    if schema.get("pattern"):
        parts.append(f"matches {schema['pattern']}")
    if schema.get("format"):
        parts.append(str(schema["format"]))
    return ", ".join(parts) + (", needed" if schema.get("required") else "")


MACHINE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")


def with_times(text: str, zone_name: str | None, now: datetime) -> str:
    """A sentence of the scheduler with its times as people write them: today 06:00:10 Paris."""

    def said(match: re.Match[str]) -> str:
        try:
            at = datetime.fromisoformat(match[0])
            return when(at, zone_name, now) + beside(at, zone_name)
        except (ValueError, OverflowError):
            return match[0]

    return MACHINE_TIME.sub(said, text)
