"""A second timetable: every minute of a day is held against the wall clock of the zone, one by one.

It shares no code with fluxd.core: cron fields are read here, and what happens when clocks change is found by looking
at each minute of UTC and at the minutes that the wall clock leaves out.
"""

from bisect import bisect_left, bisect_right
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from fluxd.core.spec import DagSpec

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
LOOK_BACK = timedelta(days=8)


@lru_cache(maxsize=64)
def _fields(expression: str) -> tuple[frozenset[int], ...]:
    bounds = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
    found = []
    for text, (low, high) in zip(expression.split(), bounds, strict=True):
        values: set[int] = set()
        for part in text.split(","):
            span, _, step = part.partition("/")
            first, _, last = ("0" if span == "*" else span).partition("-")
            begin = low if span == "*" else int(first)
            end = high if span == "*" else int(last or first)
            values.update(range(begin, end + 1, int(step or 1)))
        found.append(frozenset(values))
    return tuple(found)


@lru_cache(maxsize=1024)
def _day(zone: str, day: date) -> tuple[tuple[datetime, int, datetime], ...]:
    """Each minute of a UTC day: (wall, fold, utc)."""
    place, begin = ZoneInfo(zone), datetime(day.year, day.month, day.day, tzinfo=UTC)
    minutes = [begin + number * MINUTE for number in range(1440)]
    walls = [minute.astimezone(place) for minute in minutes]
    return tuple((wall.replace(tzinfo=None, fold=0), wall.fold, utc) for wall, utc in zip(walls, minutes, strict=True))


@lru_cache(maxsize=65536)
def _cron_day(expression: str, zone: str, dst: str, day: date) -> tuple[datetime, ...]:
    minute, hour, month_day, month, week_day = _fields(expression)
    text = expression.split()
    elapsed = text[1] == "*"
    either = text[2] != "*" and text[4] != "*"

    def fits(wall: datetime) -> bool:
        if wall.minute not in minute or wall.hour not in hour or wall.month not in month:
            return False
        by_number, by_week = wall.day in month_day, wall.isoweekday() % 7 in week_day
        return by_number or by_week if either else by_number and by_week

    found: set[datetime] = set()
    before = _day(zone, day - DAY)[-1][0]
    for wall, fold, utc in _day(zone, day):
        if fits(wall) and (fold == 0 or elapsed or dst == "both"):
            found.add(utc)
        gap = wall - before
        if gap > MINUTE and not elapsed and dst != "skip":
            # The wall clock jumped: a time that it left out is reckoned as if it had not.
            for number in range(1, round(gap / MINUTE)):
                if fits(before + number * MINUTE):
                    found.add(utc + (number - 1) * MINUTE)
        before = wall
    return tuple(found)


@lru_cache(maxsize=16384)
def _all(
    schedule_kind: str,
    expression: str | None,
    seconds: float | None,
    anchor: datetime | None,
    zone: str,
    dst: str,
    first: date,
    last: date,
) -> tuple[datetime, ...]:
    begin = datetime(first.year, first.month, first.day, tzinfo=UTC)
    end = datetime(last.year, last.month, last.day, tzinfo=UTC) + DAY
    found: list[datetime] = []
    if schedule_kind == "cron":
        day = first - timedelta(days=1)
        collected: set[datetime] = set()
        while day <= last:
            collected.update(_cron_day(expression or "", zone, dst, day))
            day += DAY
        found = sorted(tick for tick in collected if begin <= tick < end)
    elif schedule_kind == "interval":
        step = round((seconds or 0) * 1_000_000)
        zero = round(((anchor or EPOCH) - EPOCH) / timedelta(microseconds=1))
        at = round((begin - EPOCH) / timedelta(microseconds=1))
        number = zero + -((zero - at) // step) * step
        while number < at:
            number += step
        stop = round((end - EPOCH) / timedelta(microseconds=1))
        found = [EPOCH + timedelta(microseconds=tick) for tick in range(number, stop, step)]
    return tuple(found)


def ticks(spec: DagSpec, low: datetime, high: datetime) -> list[datetime]:
    """The instants from `low` to `high` (both included) at which runs of a cron or interval dag are due.

    A run covers the time from the tick before to its tick; the dag's dates bound where that begins.
    """
    if spec.schedule.kind not in ("cron", "interval") or low > high:
        return []
    schedule = spec.schedule
    every = _all(
        schedule.kind,
        schedule.expression,
        schedule.seconds,
        spec.start_date,
        spec.timezone,
        spec.dst,
        (low - LOOK_BACK).date(),
        (high + DAY).date(),
    )
    chosen = []
    for place in range(max(1, bisect_left(every, low)), bisect_right(every, high)):
        begins = every[place - 1]
        if spec.start_date is not None and begins < spec.start_date:
            continue
        if spec.end_date is not None and begins > spec.end_date:
            continue
        chosen.append(every[place])
    return chosen


def covered(spec: DagSpec, due: datetime) -> tuple[datetime, datetime]:
    """What the run that is due at this tick covers."""
    schedule = spec.schedule
    if schedule.kind not in ("cron", "interval"):
        return due, due
    every = _all(
        schedule.kind,
        schedule.expression,
        schedule.seconds,
        spec.start_date,
        spec.timezone,
        spec.dst,
        (due - LOOK_BACK).date(),
        (due + DAY).date(),
    )
    return every[bisect_left(every, due) - 1], due
