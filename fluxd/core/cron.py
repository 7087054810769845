"""Cron expressions as sets: which days, and which seconds of a day. Nothing here knows of zones or of clocks.

croniter reads the fields (names, ranges, steps, L, #). Walking from tick to tick is ours, because only so can the rules
for daylight saving (`ticks.py`) be exact. croniter is imported when an expression is read: authors' files import us.
"""

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

from fluxd.errors import Invalid

LENGTH_MAX = 256
# The rarest day there is (a fifth Monday in February) comes every 40 years where a century is no leap year.
SEARCH_YEARS = 41
ONE_DAY = timedelta(days=1)

PRESETS: dict[str, str] = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

FIELDS = ("minute", "hour", "day", "month", "weekday")
_NUMBERS = re.compile(r"[0-9*,/-]+")
_ALLOWED = {
    "day": re.compile(r"[0-9*?,/L-]+", re.IGNORECASE),
    "month": re.compile(r"[0-9a-z*,/-]+", re.IGNORECASE),
    "weekday": re.compile(r"[0-9a-z*?,/#-]+", re.IGNORECASE),
}
_PLAIN = re.compile(r"(?:\*|(?P<first>[0-9]{1,2})-(?P<last>[0-9]{1,2}))(?:/(?P<step>[0-9]{1,2}))?|(?P<one>[0-9]{1,2})")
LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))  # a Sunday written as 7 is left to croniter
_RANGE = re.compile(r"([0-9a-z]+)-([0-9a-z]+)(?:/[0-9]+)?", re.IGNORECASE)
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]


@dataclass(frozen=True, slots=True)
class Cron:
    """The sets of an expression. A set of days that is None does not limit.

    `either`: a day counts if its number or its weekday fits (both were given), else both must fit.
    `every_hour`: the hour is a wildcard, so the author thinks of elapsed time and not of a time of day.
    """

    expression: str
    times: tuple[int, ...]  # seconds of the day, rising
    every_hour: bool
    months: frozenset[int] | None
    days: frozenset[int] | None
    last_day: bool
    weekdays: frozenset[int] | None  # 0 = Sunday
    nth: tuple[tuple[int, int], ...]  # (weekday, n-th in the month; 0 = the last)
    either: bool

    def fits(self, day: date) -> bool:
        """Whether there are ticks on this day."""
        if self.months is not None and day.month not in self.months:
            return False
        by_number = self._fits_number(day)
        by_weekday = self._fits_weekday(day)
        return by_number or by_weekday if self.either else by_number and by_weekday

    def _fits_number(self, day: date) -> bool:
        if self.days is None and not self.last_day:
            return True
        if self.days is not None and day.day in self.days:
            return True
        return self.last_day and day.day == monthrange(day.year, day.month)[1]

    def _fits_weekday(self, day: date) -> bool:
        if self.weekdays is None and not self.nth:
            return True
        weekday = day.isoweekday() % 7
        if self.weekdays is not None and weekday in self.weekdays:
            return True
        for wanted, n in self.nth:
            if wanted == weekday:
                if n and (day.day - 1) // 7 + 1 == n:
                    return True
                if not n and day.day + 7 > monthrange(day.year, day.month)[1]:
                    return True
        return False

    def next_day(self, day: date) -> date | None:
        """The first day with ticks, from this one on."""
        last = min(day.year + SEARCH_YEARS, date.max.year - 1)
        while day.year <= last:
            if self.months is not None and day.month not in self.months:
                day = date(day.year + day.month // 12, day.month % 12 + 1, 1)
            elif self.fits(day):
                return day
            else:
                day += ONE_DAY
        return None

    def previous_day(self, day: date) -> date | None:
        """The last day with ticks, up to this one."""
        first = max(day.year - SEARCH_YEARS, date.min.year + 1)
        while day.year >= first:
            if self.months is not None and day.month not in self.months:
                day = day.replace(day=1) - ONE_DAY
            elif self.fits(day):
                return day
            else:
                day -= ONE_DAY
        return None


@lru_cache(maxsize=1024)
def read_cron(expression: str) -> Cron:
    """Read an expression of five fields. Raises Invalid FLX-1040 (malformed) or FLX-1041 (never due)."""
    text = PRESETS.get(expression.strip().lower(), expression)
    parts = text.split()
    _refuse_malformed(expression, text, parts)
    cron = _from_fields(expression, *(_plain(parts) or _expanded(expression, parts)))
    # 400 years bring every weekday to every date; 41 are enough by SEARCH_YEARS, from a year that is no century.
    if not cron.times or cron.next_day(date(2001, 1, 1)) is None:
        raise Invalid(
            "FLX-1041",
            f"The cron expression {expression!r} is never due, because no such day exists; correct its day or month.",
        )
    return cron


def _plain(parts: list[str]) -> tuple[list[list[Any]], dict[Any, Any]] | None:
    """The fields where they are plain numbers in range, as croniter gives them; None where it has to read them.

    Nearly all are plain, and croniter would cost each dag file 20 ms and each task a larger process to fork from.
    """
    fields: list[list[Any]] = []
    for (low, high), part in zip(LIMITS, parts, strict=True):
        values: set[int] = set()
        for item in part.split(","):
            found = _PLAIN.fullmatch(item)
            if found is None:
                return None
            first, last = (
                int(found["one"] or found[name] or limit) for name, limit in (("first", low), ("last", high))
            )
            step = int(found["step"] or 1)
            if not low <= first <= last <= high or not step or (first == last and not found["one"]):
                return None  # an error, or one of croniter's readings of its own (`0-0` as a weekday is every day)
            values.update(range(first, last + 1, step))
        if len(values) > high - low and part != "*":
            return None  # all of them, but not called so: whether that limits depends on the other fields
        fields.append(["*"] if part == "*" else sorted(values))
    return fields, {}


def _expanded(expression: str, parts: list[str]) -> tuple[list[list[Any]], dict[Any, Any]]:
    from croniter import CroniterError, croniter  # late: see `_plain`

    try:
        fields, nth = croniter.expand(" ".join(parts))
    except (CroniterError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        cause = str(error).replace("\n", " ").removeprefix(f"[{' '.join(parts)}] ")[:200]
        raise _malformed(expression, f"it cannot be read ({cause})") from None
    return fields, nth


def _malformed(expression: str, cause: str) -> Invalid:
    shown = expression if len(expression) <= 80 else expression[:77] + "..."
    return Invalid(
        "FLX-1040",
        f"The cron expression {shown!r} is not valid: {cause}; write five fields, minute hour day month weekday, "
        "such as '0 6 * * *'.",
    )


def _refuse_malformed(expression: str, text: str, parts: list[str]) -> None:
    if len(text) > LENGTH_MAX:
        raise _malformed(expression, f"it has {len(text)} characters and {LENGTH_MAX} are allowed")
    if text.startswith("@"):
        raise _malformed(expression, f"there is no such preset (there are {', '.join(PRESETS)}, @once)")
    if len(parts) != len(FIELDS):
        raise _malformed(expression, f"it has {len(parts)} field{'s' * (len(parts) != 1)}")
    for name, part, limits in zip(FIELDS, parts, LIMITS, strict=True):
        if not _ALLOWED.get(name, _NUMBERS).fullmatch(part):
            raise _malformed(expression, f"its {name} {part!r} has a character that does not belong there")
        for item in part.split(","):
            _refuse_out_of_range(expression, name, item, *limits)
        for low, high in _RANGE.findall(part):
            _refuse_reversed(expression, name, low, high)


def _refuse_out_of_range(expression: str, name: str, item: str, low: int, high: int) -> None:
    """croniter says of a number only that one is wrong, and takes a step of any size: */70 would mean hourly."""
    values, _, step = item.partition("/")
    last = 7 if name == "weekday" else high  # Sunday's other number
    for value in values.split("-"):
        if value.isdecimal() and not low <= int(value) <= last:
            raise _malformed(expression, f"its {name} {value} is not one of {low} to {last}")
    if step.isdecimal() and int(step) > high - low + 1:
        raise _malformed(expression, f"its {name} step /{step} is longer than all of {low} to {high}")


def _refuse_reversed(expression: str, name: str, low: str, high: str) -> None:
    """croniter takes `22-2` and `1-0` as ranges that wrap round; they are typing errors far more often."""
    first, last = _number(name, low), _number(name, high)
    if name == "weekday" and last == 0:
        last = 7  # sat-sun
    if first is not None and last is not None and first > last:
        raise _malformed(expression, f"its {name} range {low}-{high} runs backwards")


def _number(name: str, text: str) -> int | None:
    if text.isdecimal():
        return int(text)
    names = {"month": _MONTHS, "weekday": _WEEKDAYS}.get(name, [])
    return names.index(text.lower()) + (name == "month") if text.lower() in names else None


def _from_fields(expression: str, fields: list[list[Any]], nth: dict[Any, Any]) -> Cron:
    minutes, hours, days, months, weekdays = fields
    every_hour = hours == ["*"]
    day_set = None if days == ["*"] else frozenset(day for day in days if day != "l")
    weekday_set = None if weekdays == ["*"] else frozenset(day % 7 for day in weekdays if day not in nth)
    by_number = "l" in days or day_set is not None
    by_weekday = bool(nth) or weekday_set is not None
    return Cron(
        expression=expression,
        times=tuple(
            hour * 3600 + minute * 60
            for hour in (range(24) if every_hour else sorted(hours))
            for minute in (range(60) if minutes == ["*"] else sorted(minutes))
        ),
        every_hour=every_hour,
        months=None if months == ["*"] else frozenset(months),
        days=day_set,
        last_day="l" in days,
        weekdays=weekday_set,
        nth=tuple((day % 7, 0 if n == "l" else n) for day, ns in nth.items() for n in ns),
        either=by_number and by_weekday,
    )
