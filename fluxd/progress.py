"""What running attempts tell of how far they are, on its way to the database: the last of each, once a second at most.

Outside of the scheduler: nothing is decided by it, and a turn never waits for it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

INTERVAL_S = 1.0

Told = tuple[int, dict[str, Any], datetime]  # fence, {"rows", "bytes", "note"}, when


class ProgressBoard:
    """`keep` stores what was told, of attempts that live; `shown` hears of which fences there is news."""

    def __init__(self, keep: Callable[[list[Told]], Awaitable[None]], shown: Callable[[list[int]], None]) -> None:
        self._keep = keep
        self._shown = shown
        self._told: dict[int, Told] = {}
        self._woken = asyncio.Event()

    def tell(self, fence: int, progress: dict[str, Any]) -> None:
        """Never waits. What the same attempt told before and nobody has stored yet is forgotten."""
        self._told[fence] = (fence, progress, datetime.now(UTC))
        self._woken.set()

    async def run(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            told, self._told = self._told, {}
            try:
                await self._keep(list(told.values()))
            except BaseException:
                self._told = told | self._told
                self._woken.set()
                raise
            self._shown(list(told))
            await asyncio.sleep(INTERVAL_S)
