"""When a dag's runs are due and what stretch of time each covers.

A cron or interval run covers `[start, end)`, from one tick to the next, and is due at its end. `start_date` and
`end_date` bound the starts. A `once` dag has one run that covers no time. People read its words, made here too.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from fluxd.core.cron import read_cron
from fluxd.core.spec import DagSpec, Schedule
from fluxd.core.ticks import MICROSECOND, CronTicks, IntervalTicks, Ticks
from fluxd.errors import Invalid

DST_RULES = ("shift", "skip", "both")
# An interval shorter than this would be due again before its run is stored.
SECONDS_MIN = 1.0
SECONDS_MAX = 40 * 366 * 86400.0


@dataclass(frozen=True, slots=True)
class Timetable:
    """The ticks of a dag within its dates. `ticks` is None for `none` and `once`.

    `first` and `last`: the dates, reckoned as due instants; None does not limit.
    """

    kind: str
    ticks: Ticks | None
    start: datetime | None = None
    end: datetime | None = None
    first: datetime | None = None
    last: datetime | None = None

    def due_after(self, at: datetime) -> datetime | None:
        """The first due instant later than `at`. A `once` dag has none: its one run is given by `first_due`."""
        if self.ticks is None:
            return None
        due = self.ticks.after(at)
        if due is None or (self.last is not None and due > self.last):
            return None
        if self.first is None or due >= self.first:
            return due
        return self.first if self.last is None or self.first <= self.last else None

    def due_from(self, at: datetime) -> datetime | None:
        """The first due instant that is not earlier than `at`."""
        return self.due_after(at - MICROSECOND)

    def latest_due(self, at: datetime) -> datetime | None:
        """The last due instant that is not later than `at`."""
        if self.ticks is None:
            return None
        due = self.ticks.before(at + MICROSECOND)
        if due is None or (self.first is not None and due < self.first):
            return None
        if self.last is None or due <= self.last:
            return due
        return self.last if self.first is None or self.first <= self.last else None

    def count(self, first: datetime, last: datetime) -> int:
        """How many due instants there are between these two, which are due instants themselves, both counted."""
        return 1 if self.ticks is None else self.ticks.count(first, last)

    def due_before(self, due: datetime) -> datetime | None:
        """The tick before a tick, whatever the dag's dates are."""
        return None if self.ticks is None else self.ticks.before(due)

    def is_due(self, at: datetime) -> bool:
        """Whether this instant is one at which a run is due."""
        return self.kind == "once" or self.due_from(at) == at

    def covered(self, due: datetime) -> tuple[datetime, datetime]:
        """What the run that is due at this tick covers: [start, end)."""
        start = None if self.ticks is None else self.ticks.before(due)
        return (start or due, due)

    def covered_by_manual(self, logical_date: datetime | None, now: datetime) -> tuple[datetime, datetime]:
        """What a run covers that a person asks for: from its date to the next tick, or the latest complete interval."""
        if self.ticks is None:
            moment = logical_date or now
            return moment, moment
        if logical_date is not None:
            return logical_date, self.ticks.after(logical_date) or logical_date
        end = self.ticks.before(now + MICROSECOND) or now
        return self.ticks.before(end) or end, end


NO_TIMETABLE = Timetable("none", None)
NEVER_AGAIN = datetime.min.replace(tzinfo=UTC)


def make_timetable(spec: DagSpec) -> Timetable:
    """The timetable of a dag. Raises Invalid FLX-1040..1044 where its schedule is not one."""
    return _timetable(spec.schedule, spec.timezone, spec.dst, _utc(spec.start_date), _utc(spec.end_date))


EARLIEST_YEAR, LATEST_YEAR = 1900, 2199


def validate_schedule(schedule: Schedule, timezone: str = "UTC", dst: str = "shift") -> None:
    """Refuse a schedule that cannot work, in one sentence: Invalid FLX-1040..1044."""
    _timetable(schedule, timezone, dst, None, None)


def check_time(at: datetime, what: str) -> None:
    """Refuse a time that no calendar arithmetic can be done around: Invalid FLX-1046. `what` names it."""
    if not EARLIEST_YEAR <= at.year <= LATEST_YEAR:
        raise Invalid(
            "FLX-1046", f"{what} is {at.isoformat()}: it must lie in the years {EARLIEST_YEAR} to {LATEST_YEAR}."
        )


def zone_of(timezone: str) -> ZoneInfo:
    """The zone of this name. Raises Invalid FLX-1042."""
    try:
        return ZoneInfo(timezone)
    except (KeyError, ValueError, OSError, TypeError):
        raise Invalid(
            "FLX-1042", f"There is no time zone {timezone!r}: write a name such as 'Europe/Paris' or 'UTC'."
        ) from None


def _utc(at: datetime | None) -> datetime | None:
    """In UTC; a date without a zone was meant so."""
    if at is None:
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


@lru_cache(maxsize=4096)
def _timetable(schedule: Schedule, timezone: str, dst: str, start: datetime | None, end: datetime | None) -> Timetable:
    zone = zone_of(timezone)
    if dst not in DST_RULES:
        raise Invalid("FLX-1043", f"There is no dst rule {dst!r}: it is one of {', '.join(DST_RULES)}.")
    ticks = _ticks(schedule, zone, dst, start)
    if ticks is None:
        return Timetable(schedule.kind, None, start, end)
    first = last = None
    if start is not None:
        covered_from = ticks.after(start - MICROSECOND)
        first = None if covered_from is None else ticks.after(covered_from)
        last = NEVER_AGAIN if first is None else None
    if end is not None:
        covered_from = ticks.before(end + MICROSECOND)
        last = (None if covered_from is None else ticks.after(covered_from)) or NEVER_AGAIN
    return Timetable(schedule.kind, ticks, start, end, first, last)


def _ticks(schedule: Schedule, zone: ZoneInfo, dst: str, start: datetime | None) -> Ticks | None:
    if schedule.kind in ("none", "once"):
        return None
    if schedule.kind == "cron":
        return CronTicks(read_cron(schedule.expression or ""), zone, dst)
    if schedule.kind != "interval":
        raise Invalid(
            "FLX-1044", f"There is no schedule of kind {schedule.kind!r}: it is one of none, once, cron, interval."
        )
    seconds = schedule.seconds
    if seconds is None or not SECONDS_MIN <= seconds <= SECONDS_MAX:
        raise Invalid(
            "FLX-1045", f"The schedule's interval of {seconds} seconds is not between one second and forty years."
        )
    return IntervalTicks(seconds, start)


def waits_for_clock(timetable: Timetable, next_due_at: datetime | None, now: datetime) -> str | None:
    """Where the clock was set back: that the schedule waits until it shows again what it showed before; else None."""
    handled = None if next_due_at is None else timetable.due_before(next_due_at)
    if next_due_at is None or handled is None or handled <= now:
        return None
    if timetable.first is not None and handled < timetable.first:
        return None  # its dates begin later
    return (
        f"The clock shows {rfc3339(now)}, and the run due at {rfc3339(handled)} is done with already: the clock was "
        f"set back. The next run is due at {rfc3339(next_due_at)}."
    )


def rfc3339(at: datetime) -> str:
    """A time as all JSON of Flux writes it: UTC, ending in Z."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def place(timezone: str) -> str:
    """How a zone is called in a sentence: Europe/Paris -> Paris."""
    return timezone.rsplit("/", 1)[-1].replace("_", " ")


def words(start: datetime, end: datetime, due: datetime | None, timezone: str) -> str:
    """What a run is, in words: "covers 2026-01-01 → 2026-01-02, starts at 2026-01-02 06:00 Paris"."""
    zone = zone_of(timezone)
    begin, finish = start.astimezone(zone), end.astimezone(zone)
    if start == end:
        covers = "covers no stretch of time"
    elif begin.date() == finish.date():
        # Around a change of the clocks "02:30 → 02:00" would puzzle: there the offsets are named.
        changed = begin.utcoffset() != finish.utcoffset()
        first, last = (f" {begin:%Z}", f" {finish:%Z}") if changed else ("", "")
        covers = f"covers {begin:%Y-%m-%d} {_clock(begin)}{first} → {_clock(finish)}{last}"
    elif begin.time() == finish.time():
        covers = f"covers {begin:%Y-%m-%d} → {finish:%Y-%m-%d}"
    else:
        covers = f"covers {begin:%Y-%m-%d} {_clock(begin)} → {finish:%Y-%m-%d} {_clock(finish)}"
    if due is None:
        return covers
    local = due.astimezone(zone)
    return f"{covers}, starts at {local:%Y-%m-%d} {_clock(local)} {place(timezone)}"


def _clock(at: datetime) -> str:
    return f"{at:%H:%M:%S}" if at.second else f"{at:%H:%M}"


def next_runs(
    schedule: Schedule,
    timezone: str,
    dst: str,
    after: datetime,
    count: int,
    *,
    start_date: datetime | None = None,
    end_date: datetime | None = None,
) -> list[dict[str, Any]]:
    """The next `count` runs that are due at `after` or later, as `dags next` shows them (times RFC 3339 in UTC)."""
    timetable = _timetable(schedule, timezone, dst, _utc(start_date), _utc(end_date))
    check_time(after, "The time to look from")
    after = after.astimezone(UTC)
    if schedule.kind == "once":
        due: datetime | None = max(after, timetable.start) if timetable.start else after
        count = min(count, 1)
    else:
        due = timetable.due_from(after)
    found: list[dict[str, Any]] = []
    while due is not None and len(found) < count:
        start, end = timetable.covered(due)
        found.append(
            {
                "due_at": rfc3339(due),
                "logical_date": rfc3339(start),
                "data_interval_start": rfc3339(start),
                "data_interval_end": rfc3339(end),
                "words": words(start, end, due, timezone),
            }
        )
        due = timetable.due_after(due)
    return found


def seconds_in_words(seconds: float) -> str:
    """A duration for a sentence: 90 -> "1 m 30 s", 7200 -> "2 h"."""
    if seconds < 60:
        return f"{seconds:g} s"
    parts = []
    rest = round(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if rest >= size:
            parts.append(f"{rest // size} {unit}")
            rest %= size
    return " ".join(parts[:2])
