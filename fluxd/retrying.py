"""Trying again what may pass: soon at first, later and later, and without a log line for every time."""

import asyncio

from fluxd.observations import Seen, observe

# Each pause is a little longer than the last: what comes back is noticed within a quarter of the time it was away.
GROWTH = 1.2
MAX_S = 5.0


class Retrying:
    """The pauses of one thing that is tried again. `seen` is logged where the reason changes, and as pauses double."""

    def __init__(self, seen: Seen, first_s: float) -> None:
        self._seen = seen
        self._pause_s = first_s
        self._said: tuple[str, float] | None = None

    async def pause(self, reason: str) -> None:
        """Wait until it is to be tried again; `reason` says why it failed."""
        pause_s = self._pause_s
        if self._said is None or self._said[0] != reason or pause_s >= 2 * self._said[1]:
            self._said = (reason, pause_s)
            observe(self._seen, reason=reason, seconds=pause_s)
        self._pause_s = min(MAX_S, pause_s * GROWTH)
        await asyncio.sleep(pause_s)
