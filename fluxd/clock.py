"""The clocks of this machine. The only place where the daemon's decisions get the present from."""

import time
from datetime import UTC, datetime, timedelta

from fluxd.core.moment import STEP, Moment, clock_step
from fluxd.observations import Seen, observe

# Linux counts the time asleep in a clock of its own; where there is none, sleep looks like a wall clock that was set.
ELAPSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def read_clock() -> Moment:
    """The present."""
    return Moment(
        datetime.now(UTC),
        timedelta(microseconds=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000),
        timedelta(microseconds=time.clock_gettime_ns(ELAPSED) // 1000),
    )


def watched(now: Moment, last: Moment | None) -> Moment:
    """The present, `now`; where the wall clock was set since `last`, people are told."""
    step = timedelta() if last is None else clock_step(last, now)
    if abs(step) >= STEP:
        direction = "forward" if step > timedelta() else "back"
        observe(Seen.CLOCK_SET, direction=direction, seconds=abs(step).total_seconds())
    return now
