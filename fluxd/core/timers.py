"""What must happen at a time: a heap whose entries are checked against the rows when they come up.

Nothing is ever taken out early: an entry whose row has moved on is simply no longer true when its time comes. So a
change of state costs nothing here, and a forgotten removal can not leave a wrong timer behind.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from enum import IntEnum
from heapq import heapify, heappop, heappush

# Below this many entries the heap is never swept.
SWEEP_FROM = 4096


class Timer(IntEnum):
    """What an entry is for; the key is a dag id, a run number, a fence or an instance key."""

    TICK = 1  # dag id: its next tick is due
    RETRY = 2  # instance key: its retry delay is over
    TIMEOUT = 3  # fence: execution_timeout
    WAIT = 4  # fence: the deadline of a waiting instance
    RUN = 5  # run number: dagrun_timeout


Entry = tuple[datetime, int, Timer, object]
# Is this entry still true of its row?
Check = Callable[[datetime, Timer, object], bool]


class Timers:
    """The heap. `true` says of an entry whether its row still wants it."""

    def __init__(self, true: Check) -> None:
        self._true = true
        self._heap: list[Entry] = []
        self._serial = 0
        self._sweep_at = SWEEP_FROM

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, at: datetime, kind: Timer, key: object) -> None:
        """`key` is to be looked at at this time."""
        self._serial += 1
        heappush(self._heap, (at, self._serial, kind, key))
        if len(self._heap) > self._sweep_at:
            self._heap = [entry for entry in self._heap if self._true(entry[0], entry[2], entry[3])]
            heapify(self._heap)
            self._sweep_at = max(SWEEP_FROM, 2 * len(self._heap))

    def due(self, now: datetime) -> Iterator[tuple[Timer, object]]:
        """Take out the entries whose time has come and that are still true."""
        while self._heap and self._heap[0][0] <= now:
            at, _, kind, key = heappop(self._heap)
            if self._true(at, kind, key):
                yield kind, key

    def next_at(self) -> datetime | None:
        """When the next entry that is still true comes up."""
        while self._heap:
            at, _, kind, key = self._heap[0]
            if self._true(at, kind, key):
                return at
            heappop(self._heap)
        return None
