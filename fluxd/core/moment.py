"""The present, by three clocks: when it is, and how long things take.

The wall clock can be set, by a person or by NTP: it says when ticks are due and what people read, and nothing about
how long anything took. Durations are measured by the two others, which only ever go forward and know no date.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Moment:
    """One reading of all three clocks.

    `wall`: UTC. `awake`: grows while the machine runs, and stands still while it sleeps. `elapsed`: grows always.
    Both count from a point that means nothing and is the same for all readings of one process.
    """

    wall: datetime
    awake: timedelta
    elapsed: timedelta

    @classmethod
    def at(cls, wall: datetime) -> "Moment":
        """In a world in which no clock is ever set and no machine sleeps: for tests and rehearsals."""
        return cls(wall, wall - EPOCH, wall - EPOCH)


# The wall clock was set if it moved otherwise than the time that passed, by at least this.
STEP = timedelta(seconds=1)


def clock_step(earlier: Moment, later: Moment) -> timedelta:
    """By how much the wall clock was set between two readings; less than STEP: by nothing."""
    return (later.wall - earlier.wall) - (later.elapsed - earlier.elapsed)


# Longer than anything that Flux waits for; a longer duration could not be added to a date.
FOREVER_S = 100 * 366 * 86400.0


def duration(seconds: float) -> timedelta:
    """This many seconds: none if it is less than none, and a hundred years if it is more."""
    return timedelta(seconds=min(max(0.0, seconds), FOREVER_S))
