"""Cron expressions as sets: which days, and which seconds of a day. Nothing here knows of zones or of clocks.

What may be written is decided by our own grammar (`cronfields.py`): croniter gives meanings of its own to much that
crontab(5) reads otherwise. It sees normal forms only. Walking from tick to tick is ours too, because only so can the
rules for daylight saving (`ticks.py`) be exact.
"""

from calendar import monthrange
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

from fluxd.core.cronfields import KINDS, Field, Unreadable, read_field
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


@dataclass(frozen=True, slots=True)
class Cron:
    """The sets of an expression. A set of days that is None does not limit.

    `either`: a day counts if its number or its weekday fits (neither field begins with `*`), else both must fit.
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
    cron = _from_fields(expression, _fields(expression, text))
    # 400 years bring every weekday to every date; 41 are enough by SEARCH_YEARS, from a year that is no century.
    if not cron.times or cron.next_day(date(2001, 1, 1)) is None:
        raise Invalid(
            "FLX-1041",
            f"The cron expression {expression!r} is never due, because no such day exists; correct its day or month.",
        )
    return cron


def _fields(expression: str, text: str) -> list[Field]:
    if len(text) > LENGTH_MAX:
        raise _malformed(expression, f"it has {len(text)} characters and {LENGTH_MAX} are allowed")
    if text.startswith("@"):
        raise _malformed(expression, f"there is no such preset (there are {', '.join(PRESETS)}, @once)")
    parts = text.split()
    if len(parts) != len(KINDS):
        raise _malformed(expression, f"it has {len(parts)} field{'s' * (len(parts) != 1)}")
    try:
        return [read_field(kind, part) for kind, part in zip(KINDS, parts, strict=True)]
    except Unreadable as error:
        raise _malformed(expression, str(error)) from None


def _malformed(expression: str, cause: str) -> Invalid:
    shown = expression if len(expression) <= 80 else expression[:77] + "..."
    return Invalid(
        "FLX-1040",
        f"The cron expression {shown!r} is not valid: {cause}; write five fields, minute hour day month weekday, "
        "such as '0 6 * * *'.",
    )


def _from_fields(expression: str, fields: list[Field]) -> Cron:
    minutes, hours, days, months, weekdays = fields
    either = days.limits and weekdays.limits
    every_day = len(days.numbers) == 31 or len(weekdays.numbers) == 7  # of either one is enough
    by_number = None if len(days.numbers) == 31 or (either and every_day) else days.numbers
    by_weekday = None if len(weekdays.numbers) == 7 or (either and every_day) else weekdays.numbers
    nth = () if by_weekday is None else tuple(sorted(_nth(item) for item in weekdays.extensions))
    return Cron(
        expression=expression,
        times=tuple(hour * 3600 + minute * 60 for hour in sorted(hours.numbers) for minute in sorted(minutes.numbers)),
        every_hour=len(hours.numbers) == 24,
        months=None if len(months.numbers) == 12 else months.numbers,
        days=by_number,
        last_day=by_number is not None and "l" in days.extensions,
        weekdays=by_weekday,
        nth=nth,
        either=either and not every_day,
    )


def _nth(extension: str) -> tuple[int, int]:
    """A weekday of the month from its normal form, `5#2` or `l5`, as croniter reads it: (weekday, n; 0 = the last)."""
    from croniter import croniter  # late: authors' files import us, and seldom need it

    _, found = croniter.expand(f"0 0 * * {extension}")
    ((weekday, ns),) = found.items()
    (n,) = ns
    return int(weekday), 0 if n == "l" else int(n)
