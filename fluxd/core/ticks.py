"""From a schedule to instants: when is it due, strictly rising, each instant once, in every zone.

A cron expression names times on a wall clock; clocks are set forward (a gap: such a time does not exist) and back (an
overlap: it exists twice). What happens then is said by the dag's `dst`:

- an expression with fixed hours ("30 2 * * *") means a time of day. Gap: `shift` and `both` run it later by the length
  of the gap (as RFC 5545 §3.3.5 does), `skip` leaves it out. Overlap: `shift` and `skip` run at the first of the two,
  `both` at each.
- an expression whose hour is a wildcard ("*/5 * * * *") means elapsed time: it runs at every such time that exists,
  both passes of an overlap included, and never for a time in a gap.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from fluxd.core.cron import ONE_DAY, Cron
from fluxd.core.moment import EPOCH

SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
ODD_DAYS_KEPT = 4
# Wall times of a day at which its offset is looked at: a day on which nothing changes is reckoned without the zone.
PROBES = tuple(timedelta(hours=hours) for hours in (0, 4, 8, 12, 16, 20, 24))


class Ticks(Protocol):
    """An endless, strictly rising row of instants (UTC)."""

    def after(self, at: datetime) -> datetime | None:
        """The first tick later than `at`; None: there is none within 41 years."""

    def before(self, at: datetime) -> datetime | None:
        """The last tick earlier than `at`."""

    def count(self, first: datetime, last: datetime) -> int:
        """How many ticks there are from `first` to `last`, both included."""


class IntervalTicks:
    """Every `seconds` of elapsed time, counted from `anchor`."""

    def __init__(self, seconds: float, anchor: datetime | None) -> None:
        self._step = timedelta(seconds=seconds)
        self._anchor = anchor or EPOCH

    def after(self, at: datetime) -> datetime | None:
        return self._anchor + ((at - self._anchor) // self._step + 1) * self._step

    def before(self, at: datetime) -> datetime | None:
        return self._anchor - ((self._anchor - at) // self._step + 1) * self._step

    def count(self, first: datetime, last: datetime) -> int:
        below = (first - MICROSECOND - self._anchor) // self._step
        return max(0, (last - self._anchor) // self._step - below)


class CronTicks:
    """A cron expression on the wall clock of a zone."""

    def __init__(self, cron: Cron, zone: ZoneInfo, dst: str) -> None:
        self._cron = cron
        self._zone = zone
        self._dst = dst
        self._odd: dict[date, list[int]] = {}  # the newest few days on which clocks change

    def after(self, at: datetime) -> datetime | None:
        limit = (at - EPOCH) // SECOND  # ticks are whole seconds
        best: int | None = None
        # A time in a gap moves to the day after at most, and an overlap reaches over one midnight at most.
        day = self._cron.next_day(self._local_day(at) - ONE_DAY)
        last: date | None = None
        while day is not None and (last is None or day <= last):
            base, times = self._day(day)
            place = bisect_right(times, limit - base)
            if place < len(times) and (best is None or base + times[place] < best):
                best = base + times[place]
                last = self._local_day(EPOCH + best * SECOND) + ONE_DAY
            day = self._cron.next_day(day + ONE_DAY)
        return None if best is None else EPOCH + best * SECOND

    def before(self, at: datetime) -> datetime | None:
        limit = -((EPOCH - at) // SECOND)  # rounded up
        best: int | None = None
        day = self._cron.previous_day(self._local_day(at) + ONE_DAY)
        last: date | None = None
        while day is not None and (last is None or day >= last):
            base, times = self._day(day)
            place = bisect_left(times, limit - base) - 1
            if place >= 0 and (best is None or base + times[place] > best):
                best = base + times[place]
                last = self._local_day(EPOCH + best * SECOND) - ONE_DAY
            day = self._cron.previous_day(day - ONE_DAY)
        return None if best is None else EPOCH + best * SECOND

    def count(self, first: datetime, last: datetime) -> int:
        low, high = -((EPOCH - first) // SECOND), (last - EPOCH) // SECOND
        end = self._local_day(last) + ONE_DAY
        total = 0
        shared: set[int] = set()  # ticks that two days may both give: on a day of change and the one after
        odd: date | None = None
        day = self._cron.next_day(self._local_day(first) - ONE_DAY)
        while day is not None and day <= end:
            base, times = self._day(day)
            start, stop = bisect_left(times, low - base), bisect_right(times, high - base)
            if base == 0 or day - ONE_DAY == odd:
                shared.update(base + time for time in times[start:stop])
            else:
                total += max(0, stop - start)
            odd = day if base == 0 else odd
            day = self._cron.next_day(day + ONE_DAY)
        return total + len(shared)

    def _local_day(self, at: datetime) -> date:
        return at.astimezone(self._zone).date()

    def _day(self, day: date) -> tuple[int, Sequence[int]]:
        """The ticks of a day of the wall calendar: (base, rising seconds); base 0 on a day on which clocks change."""
        midnight = datetime(day.year, day.month, day.day)
        offset = midnight.replace(tzinfo=self._zone).utcoffset()
        for probe in PROBES:
            wall = (midnight + probe).replace(tzinfo=self._zone)
            if wall.utcoffset() != offset or wall.replace(fold=1).utcoffset() != offset:
                if day not in self._odd:
                    if len(self._odd) >= ODD_DAYS_KEPT:
                        del self._odd[next(iter(self._odd))]
                    self._odd[day] = self._odd_day(midnight)
                return 0, self._odd[day]
        start = midnight - (offset or timedelta())
        return (start - datetime(1970, 1, 1)) // SECOND, self._cron.times

    def _odd_day(self, midnight: datetime) -> list[int]:
        found: set[int] = set()
        for time in self._cron.times:
            wall = (midnight + time * SECOND).replace(tzinfo=self._zone)
            first, second = wall.utcoffset(), wall.replace(fold=1).utcoffset()
            assert first is not None and second is not None
            utc = (wall.replace(tzinfo=None) - datetime(1970, 1, 1)) // SECOND
            gap, overlap = first < second, first > second
            if not (gap and (self._cron.every_hour or self._dst == "skip")):
                found.add(utc - first // SECOND)
            if overlap and (self._cron.every_hour or self._dst == "both"):
                found.add(utc - second // SECOND)
        return sorted(found)
