"""Keeps the daemon honest: heartbeats in Postgres, coroutines started again when they fail, a watch on the event loop.

The loop's watch is a thread: what runs on the loop cannot tell that the loop stands still.
"""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable

from fluxd.observations import Seen, observe

BLOCKED_S = 1.0
RESTART_DELAY_MAX_S = 30.0


async def keep_running(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` for ever; when it fails, say so and start it again, a little later each time."""
    delay_s = 1.0
    while True:
        started = time.monotonic()
        try:
            await work()
            return
        except Exception as error:
            if time.monotonic() - started > RESTART_DELAY_MAX_S:
                delay_s = 1.0
            observe(Seen.COROUTINE_RESTARTED, name=name, reason=f"{type(error).__name__}: {error}", seconds=delay_s)
        await asyncio.sleep(delay_s)
        delay_s = min(RESTART_DELAY_MAX_S, delay_s * 2)


async def beat(interval_s: float, save_beats: Callable[[], Awaitable[None]]) -> None:
    """Write the heartbeats of the daemon and of what it knows to be alive."""
    while True:
        await asyncio.sleep(interval_s)
        await save_beats()


class LoopWatch:
    """A thread that notices when the event loop stands still, and says where."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._answered = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="loop-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(BLOCKED_S):
            self._answered.clear()
            try:
                self._loop.call_soon_threadsafe(self._answered.set)
            except RuntimeError:
                return  # the loop is closed
            asked = time.monotonic()
            if self._answered.wait(BLOCKED_S):
                continue
            frame = sys._current_frames().get(self._loop_thread)
            where = " < ".join(
                f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}" for f in reversed(traceback.extract_stack(frame)[-4:])
            )
            self._answered.wait()
            observe(Seen.LOOP_BLOCKED, seconds=time.monotonic() - asked, where=where)
