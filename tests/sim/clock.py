"""Virtual time: an asyncio event loop whose clock jumps to the next timer when nothing is ready to run.

Nothing in it waits, reads the machine's clock or opens a socket. What runs on it runs in the order in which it was
asked for, so that the same seed gives the same life.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Any

ROUNDS_MAX = 400_000


class Stuck(BaseException):
    """Nothing is ready, and no timer is set: nothing would ever happen again."""


class VirtualLoop(asyncio.BaseEventLoop):
    """`start` is the instant at which the life begins; `moment()` is the present one."""

    def __init__(self, start: datetime) -> None:
        super().__init__()
        self._seconds = 0.0
        self._rounds = 0
        self._clock_resolution = 1e-9
        self._selector = self
        self._start = start

    def time(self) -> float:
        return self._seconds

    def moment(self) -> datetime:
        return self._start + timedelta(seconds=self._seconds)

    def select(self, timeout: float | None) -> list[Any]:
        """The base class asks what is ready to be read: nothing is, so time passes instead."""
        if timeout is None:
            raise Stuck
        self._rounds += 1
        if self._rounds > ROUNDS_MAX:
            raise Stuck(f"no end in sight after {ROUNDS_MAX} rounds of the event loop, it is {self.moment()}")
        if timeout > 0:
            # To the timer itself and not by the difference: sums of floats drift.
            self._seconds = max(self._seconds, min(self._scheduled[0]._when, self._seconds + timeout))
        return []

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass
