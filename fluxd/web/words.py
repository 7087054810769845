"""Times, durations and stretches of time in the words that people use for them.

Times of a dag are shown in the dag's time zone, with its name beside them where it is not UTC.
"""

from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MINUTE, HOUR, DAY = 60, 3600, 86400


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
    """0.04 s · 8.3 s · 42 s · 3 m 20 s · 2 h 05 m · 3 d 4 h; never more than two parts."""
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
        return f"{whole // MINUTE} m {whole % MINUTE:02d} s"
    minutes = round(seconds / MINUTE)
    if minutes < 24 * MINUTE:
        return f"{minutes // 60} h {minutes % 60:02d} m"
    hours = round(seconds / HOUR)
    return f"{hours // 24} d {hours % 24} h"


def took(start: datetime | None, end: datetime | None, now: datetime) -> float | None:
    """Seconds from start to end, or until now where it goes on; None if it did not begin."""
    return None if start is None else ((end or now) - start).total_seconds()


def _amount(seconds: float) -> str:
    for size, name in ((DAY, "day"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= size * 0.995:
            count = max(1, round(seconds / size))
            return f"{count} {name}{'s' if name == 'day' and count > 1 else ''}"
    return f"{round(seconds)} s"


def relative(at: datetime, now: datetime) -> str:
    """in 3 h · 40 s ago · now."""
    seconds = (at - now).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"in {_amount(seconds)}" if seconds > 0 else f"{_amount(-seconds)} ago"


def _clock(local: datetime) -> str:
    return f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"


def when(at: datetime, zone_name: str | None, now: datetime) -> str:
    """today 06:00 · tomorrow 06:00 · Fri 06:00 (in the week to come) · 2026-01-02 06:00."""
    local = at.astimezone(zone(zone_name))
    days = (local.date() - now.astimezone(zone(zone_name)).date()).days
    names = {0: "today", 1: "tomorrow", -1: "yesterday"}
    day = names.get(days) or (f"{local:%a}" if 1 < days < 7 else f"{local:%Y-%m-%d}")
    return f"{day} {_clock(local)}"


def exact(at: datetime, zone_name: str | None = None) -> str:
    """2026-01-02 06:00:00 Paris."""
    return f"{at.astimezone(zone(zone_name)):%Y-%m-%d %H:%M:%S} {zone_words(zone_name)}"


def clock(at: datetime, zone_name: str | None) -> str:
    """06:00:12, for times whose day is known from what stands around them."""
    return f"{at.astimezone(zone(zone_name)):%H:%M:%S}"


def day(at: datetime, zone_name: str | None) -> str:
    """2 Jan 2026 06:00; without the time at midnight."""
    local = at.astimezone(zone(zone_name))
    return f"{local.day} {local:%b %Y}" + (f" {local:%H:%M}" if local.time() != datetime.min.time() else "")


def instant(at: datetime) -> str:
    """RFC 3339 in UTC, for `<time datetime>`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def stretch(start: datetime, end: datetime, zone_name: str | None) -> str:
    """2026-01-01 → 2026-01-02 · 2026-01-01 06:00 → 07:00 · 2026-01-01 06:00 (no length)."""
    first, last = start.astimezone(zone(zone_name)), end.astimezone(zone(zone_name))
    if start == end:
        return f"{first:%Y-%m-%d} {_clock(first)}"
    if first.time() == last.time() == datetime.min.time():
        return f"{first:%Y-%m-%d} → {last:%Y-%m-%d}"
    left = f"{first:%Y-%m-%d} {_clock(first)}"
    same_day = first.date() == last.date()
    return f"{left} → {_clock(last)}" if same_day else f"{left} → {last:%Y-%m-%d} {_clock(last)}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """1 task · 3 tasks."""
    return f"{count:,} {one if count == 1 else many or one + 's'}".replace(",", "\u202f")


def size(count: int) -> str:
    """512 B · 1.2 KiB · 200 MiB."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    return ""
