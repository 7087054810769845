"""What must happen at a time: heaps whose entries are checked against the rows when they come up.

Nothing is ever taken out early: an entry whose row has moved on is simply no longer true when its time comes. So a
change of state costs nothing here, and a forgotten removal can not leave a wrong timer behind.

Each kind of timer has one clock. Ticks go by the wall clock: they are dates. A process is given its time awake: it
cannot work while the machine sleeps. Pauses and deadlines of waits are elapsed time, whatever the machine did in it.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from enum import IntEnum
from heapq import heapify, heappop, heappush
from typing import Any

from fluxd.core.moment import EPOCH, Moment

# Below this many entries a heap is never swept.
SWEEP_FROM = 4096


class Timer(IntEnum):
    """What an entry is for; the key is a dag id, a run number, a fence or an instance key."""

    TICK = 1  # dag id: its next tick is due
    RETRY = 2  # instance key: its retry delay is over
    TIMEOUT = 3  # fence: execution_timeout
    WAIT = 4  # fence: the deadline of a waiting instance
    RUN = 5  # run number: dagrun_timeout


Entry = tuple[timedelta, int, Timer, Any]
# Is this entry still true of its row?
Check = Callable[[timedelta, Timer, Any], bool]


class Timers:
    """The heaps, one per clock. `true` says of an entry whether its row still wants it."""

    def __init__(self, true: Check) -> None:
        self._wall = _Heap(true)
        self._awake = _Heap(true)
        self._elapsed = _Heap(true)

    def __len__(self) -> int:
        return len(self._wall) + len(self._awake) + len(self._elapsed)

    def push_tick(self, at: datetime, dag_id: str) -> None:
        """This dag is to be looked at when the wall clock shows this time."""
        self._wall.push(since_epoch(at), Timer.TICK, dag_id)

    def push_awake(self, at: timedelta, kind: Timer, key: object) -> None:
        """`key` is to be looked at when the machine has been awake for so long."""
        self._awake.push(at, kind, key)

    def push_elapsed(self, at: timedelta, kind: Timer, key: object) -> None:
        """`key` is to be looked at when so much time has passed."""
        self._elapsed.push(at, kind, key)

    def due(self, now: Moment) -> Iterator[tuple[Timer, Any]]:
        """Take out the entries whose time has come and that are still true."""
        yield from self._wall.due(since_epoch(now.wall))
        yield from self._awake.due(now.awake)
        yield from self._elapsed.due(now.elapsed)

    def next_in(self, now: Moment) -> timedelta | None:
        """How long it is until the next entry that is still true comes up; None: there is none."""
        readings = ((self._wall, since_epoch(now.wall)), (self._awake, now.awake), (self._elapsed, now.elapsed))
        waits = [at - reading for heap, reading in readings if (at := heap.next_at()) is not None]
        return max(timedelta(), min(waits)) if waits else None


def since_epoch(at: datetime) -> timedelta:
    return at - EPOCH


class _Heap:
    def __init__(self, true: Check) -> None:
        self._true = true
        self._heap: list[Entry] = []
        self._serial = 0
        self._sweep_at = SWEEP_FROM

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, at: timedelta, kind: Timer, key: object) -> None:
        self._serial += 1
        heappush(self._heap, (at, self._serial, kind, key))
        if len(self._heap) > self._sweep_at:
            self._heap = [entry for entry in self._heap if self._true(entry[0], entry[2], entry[3])]
            heapify(self._heap)
            self._sweep_at = max(SWEEP_FROM, 2 * len(self._heap))

    def due(self, reading: timedelta) -> Iterator[tuple[Timer, Any]]:
        while self._heap and self._heap[0][0] <= reading:
            at, _, kind, key = heappop(self._heap)
            if self._true(at, kind, key):
                yield kind, key

    def next_at(self) -> timedelta | None:
        while self._heap:
            at, _, kind, key = self._heap[0]
            if self._true(at, kind, key):
                return at
            heappop(self._heap)
        return None
