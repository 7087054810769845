"""Keeps the daemon honest: heartbeats in Postgres, coroutines started again when they fail, and the embedded Postgres
when it dies; a watch on the event loop.

The loop's watch is a thread: what runs on the loop cannot tell that the loop stands still.
"""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from fluxd.errors import FluxError
from fluxd.observations import Seen, observe
from fluxd.store import postmaster
from fluxd.store.embedded import Embedded

BLOCKED_S = 1.0
RESTART_DELAY_MAX_S = 30.0
# A server that takes longer (it repairs what the crash left) goes on; but a fluxd that is to stop waits no longer.
START_AGAIN_S = 30.0

T = TypeVar("T")


async def keep_running(name: str, work: Callable[[], Awaitable[None]], first_delay_s: float = 1.0) -> None:
    """Run `work` for ever; when it ends, say so and start it again, a little later each time."""
    delay_s = first_delay_s
    while True:
        started = time.monotonic()
        try:
            await work()
            reason = "no error"
        except Exception as error:
            cause: BaseException = error
            while isinstance(cause, BaseExceptionGroup):
                cause = cause.exceptions[0]
            reason = f"{type(cause).__name__}: {cause}"
        if time.monotonic() - started > RESTART_DELAY_MAX_S:
            delay_s = first_delay_s
        observe(Seen.COROUTINE_RESTARTED, name=name, reason=reason, seconds=delay_s)
        await asyncio.sleep(delay_s)
        delay_s = min(RESTART_DELAY_MAX_S, delay_s * 2)


async def beat(interval_s: float, save_beats: Callable[[], Awaitable[None]]) -> None:
    """Write the heartbeats of the daemon and of what it knows to be alive."""
    while True:
        await asyncio.sleep(interval_s)
        await save_beats()


async def keep_up(server: Embedded) -> None:
    """Start the embedded Postgres again whenever it has ended; a little later each time where it soon ends again."""
    delay_s = 0.0
    while True:
        began = time.monotonic()
        await postmaster.gone(server.data)
        if time.monotonic() - began > RESTART_DELAY_MAX_S:
            delay_s = 0.0
        observe(Seen.DATABASE_ENDED, seconds=delay_s)
        await asyncio.sleep(delay_s)
        delay_s = min(RESTART_DELAY_MAX_S, delay_s * 2 or 1.0)
        starting = time.monotonic()
        try:
            await in_thread(partial(server.start, START_AGAIN_S))
        except FluxError as error:
            observe(Seen.DATABASE_NOT_STARTED, reason=error.message)
        else:
            seconds = time.monotonic() - starting
            observe(Seen.DATABASE_READY, seconds=seconds, where="embedded in the home, started again")


async def in_thread(work: Callable[[], T]) -> T:
    """Do this in a thread. One who is cancelled meanwhile waits for its end: nothing goes on unseen."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.gather(working, return_exceptions=True)
        raise


async def cancelled(task: asyncio.Task[None]) -> None:
    """Cancel it, and wait for its end."""
    task.cancel()
    await asyncio.wait({task})


class LoopWatch:
    """A thread that notices when the event loop stands still, and says where."""

    def __init__(self, loop: asyncio.AbstractEventLoop, blocked_s: float = BLOCKED_S) -> None:
        self._loop = loop
        self._blocked_s = blocked_s
        self._loop_thread = threading.get_ident()
        self._answered = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="loop-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self._blocked_s):
            self._answered.clear()
            try:
                self._loop.call_soon_threadsafe(self._answered.set)
            except RuntimeError:
                return  # the loop is closed
            asked = time.monotonic()
            if self._answered.wait(self._blocked_s):
                continue
            frame = sys._current_frames().get(self._loop_thread)
            where = " < ".join(
                f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}" for f in reversed(traceback.extract_stack(frame)[-4:])
            )
            while not self._answered.wait(self._blocked_s):
                if self._stopped.is_set():
                    return  # a loop that was closed never answers
            observe(Seen.LOOP_BLOCKED, seconds=time.monotonic() - asked, where=where)
