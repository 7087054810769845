"""A schedule in words: "0 6 * * 1-5" is "on Monday to Friday at 06:00 Paris".

Said from what the expression means, by the same sets that make the ticks: the words cannot promise something else.
"""

from collections.abc import Sequence
from itertools import pairwise

from fluxd.core.cron import Cron, read_cron
from fluxd.core.spec import Schedule
from fluxd.core.timetable import place, seconds_in_words

WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
NTH = ("last", "first", "second", "third", "fourth", "fifth")
# So many times of a day are listed one by one; more are said as a rhythm.
LISTED = 4
MANY = 120  # of one unit are easier to grasp in the next larger ones


def schedule_in_words(schedule: Schedule, timezone: str = "UTC") -> str:
    """When runs of this schedule are due, for people. Raises Invalid FLX-1040 on an expression that is not one."""
    if schedule.kind == "cron":
        return cron_in_words(read_cron(schedule.expression or ""), timezone)
    if schedule.kind == "interval":
        return f"every {_rhythm(schedule.seconds or 0)}"
    return "once" if schedule.kind == "once" else "only when triggered"


def cron_in_words(cron: Cron, timezone: str = "UTC") -> str:
    """When a cron expression is due: the days, then the times of day in their zone."""
    days = _days(cron)
    if cron.every_hour:
        rhythm = _within_the_hour(cron.times)
        return f"{rhythm}, {days}" if days else rhythm
    times = f"{_times_of_day(cron.times)} {place(timezone)}"
    return times if times.startswith("every") and not days else f"{days or 'every day'} {times}"


def _listing(words: Sequence[str], joint: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joint} {words[-1]}"


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}"


def _step(numbers: Sequence[int]) -> int | None:
    """The distance of numbers that are equally far apart."""
    steps = {later - earlier for earlier, later in pairwise(numbers)}
    return steps.pop() if len(steps) == 1 else None


def _rhythm(seconds: float) -> str:
    """How often: "minute", "20 minutes", "2 hours", and what is no handful of any unit as a duration."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count, rest = divmod(seconds, size)
        if 1 <= count <= MANY and not rest:
            return unit if count == 1 else f"{count:.0f} {unit}s"
    return seconds_in_words(seconds)


def _within_the_hour(times: Sequence[int]) -> str:
    minutes = sorted({seconds // 60 % 60 for seconds in times})
    step = _step(minutes)
    if minutes == [0]:
        return "every hour"
    if len(minutes) == 60:
        return "every minute"
    if minutes[0] == 0 and step and step * len(minutes) == 60:
        return f"every {_rhythm(step * 60)}"
    shown = [f":{minute:02d}" for minute in minutes]
    if len(minutes) > LISTED and step:
        return f"every {step} minutes from {shown[0]} to {shown[-1]} of every hour"
    return f"every hour at {_listing(shown)}"


def _times_of_day(times: Sequence[int]) -> str:
    if len(times) <= LISTED:
        return f"at {_listing([_clock(seconds) for seconds in times])}"
    first, last, step = _clock(times[0]), _clock(times[-1]), _step(times)
    if step is None:
        return f"{len(times)} times from {first} to {last}"
    return f"every {_rhythm(step)} from {first} to {last}"


def _runs_together(numbers: Sequence[int], names: Sequence[str]) -> str:
    """Three or more in a row as "Monday to Friday", else a list."""
    if len(numbers) > 2 and _step(numbers) == 1:
        return f"{names[0]} to {names[-1]}"
    return _listing(names)


def _days(cron: Cron) -> str:
    by_number = _days_of_month(cron)
    by_weekday = _days_of_week(cron)
    if by_number and by_weekday:
        days = f"{by_number} {'or' if cron.either else 'and'} {by_weekday}"
    else:
        days = by_number or by_weekday
    if cron.months is None:
        return days
    months = sorted(cron.months)
    named = _runs_together(months, [MONTHS[month - 1] for month in months])
    return f"{days or 'every day'} in {named}"


def _days_of_month(cron: Cron) -> str:
    parts = []
    if cron.days:
        days = sorted(cron.days)
        parts.append(f"on day{'s' * (len(days) > 1)} {_runs_together(days, [str(day) for day in days])}")
    if cron.last_day:
        parts.append("on the last day")
    month = "" if cron.months is not None else " of the month"
    return f"{_listing(parts)}{month}" if parts else ""


def _days_of_week(cron: Cron) -> str:
    parts = []
    if cron.weekdays:
        # A week begins on Monday, so that Friday to Sunday stay together.
        days = sorted(cron.weekdays, key=lambda day: (day - 1) % 7)
        parts.append(_runs_together([(day - 1) % 7 for day in days], [WEEKDAYS[day] for day in days]))
    parts.extend(f"the {NTH[n]} {WEEKDAYS[day]} of the month" for day, n in cron.nth)
    return f"on {_listing(parts)}" if parts else ""
