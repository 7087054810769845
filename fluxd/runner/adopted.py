"""Attempts that an earlier runner started and that live on: a runner takes them over, though it is not their parent.

Their parent is the reaper (see there). Signals reach them by their mark, their end is seen by a descriptor of the
process, and how they ended is told by the zombie or by what the reaper noted.
"""

import os
import selectors
import signal
import time
from collections.abc import Callable

from fluxd.runner import processes
from fluxd.runner.attempts import Attempts, Process
from fluxd.runner.protocol import Message
from fluxd.runner.reaper import forget_ends, how_it_ended
from fluxd.runner.records import Record

Lost = Callable[[Process, str, bool], None]  # (attempt, evidence, whether it had begun)


class Adopted:
    """Those that have not ended yet. `lost` hears of one that ended and nobody knows how."""

    def __init__(
        self, selector: selectors.BaseSelector, attempts: Attempts, folder: str, home_number: int, lost: Lost
    ) -> None:
        self._selector = selector
        self._attempts = attempts
        self._folder = folder
        self._home_number = home_number
        self._lost = lost
        self._held: dict[int, Process] = {}  # pidfd -> attempt

    def pids(self) -> set[int]:
        return {attempt.pid for attempt in self._held.values() if attempt.pid is not None}

    def descriptors(self) -> list[int]:
        return list(self._held)

    def take_over(self, fence: int, known: Message, record: Record) -> None:
        """`known` is what its record tells: of a process that lives, or did a moment ago."""

        def send(fence: int, number: int) -> None:
            group = None if number == signal.SIGKILL else attempt.pid
            processes.signal_attempt(self._home_number, fence, number, group=group)

        attempt = self._attempts.take_over(fence, known, record, send)
        assert attempt.pid is not None
        attempt.seen = known["seen"]
        try:
            if not processes.there(attempt.pid, attempt.seen):
                raise ProcessLookupError
            held = os.pidfd_open(attempt.pid)
        except ProcessLookupError:  # let go since it was looked at
            self._ended(attempt)
            return
        self._held[held] = attempt
        self._selector.register(held, selectors.EVENT_READ, lambda _: self._let_go(held))

    def _let_go(self, held: int) -> None:
        attempt = self._held.pop(held)
        self._selector.unregister(held)
        os.close(held)
        self._ended(attempt)
        self.settled()

    def settled(self) -> None:
        """What the reaper noted is of use as long as somebody may ask for it."""
        if not self._held:
            forget_ends(self._folder)

    def _ended(self, attempt: Process) -> None:
        assert attempt.pid is not None
        how = how_it_ended(self._folder, attempt.pid, attempt.seen)
        processes.end_attempt(self._home_number, attempt.fence)
        if how is not None:
            self._attempts.ended(attempt, *how, None, time.time())
            return
        known = attempt.record.content() if attempt.record else {}
        if "outcome" in known:
            self._attempts.stand_in(attempt, known)
        else:
            evidence = f"its process {attempt.pid} ended when neither its runner nor that one's parent lived"
            self._lost(attempt, evidence, True)
