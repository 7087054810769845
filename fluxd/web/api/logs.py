"""The log of a try: the bytes as the task wrote them, from any offset; followed live until the try has ended.

The path is built from the ids of a database row, never from the request, and every step of it is opened without
following links: a task may write what it likes into its own folder, but it cannot make us read another file.
"""

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from fluxd.core.states import ATTEMPT_LIVE
from fluxd.errors import NotFound, Refused, Unavailable
from fluxd.store import api_views
from fluxd.web.api.tasks import missing
from fluxd.web.api.validation import Ask
from fluxd.web.live import Subscription
from fluxd.web.who import STILL_WELCOME

CHUNK = 256 * 1024
# A growing file gives no event that works on every file system, so its size is looked at this often.
LOOK_S = 0.1
# The end of a try is told by the hub; a lost message costs at most this long.
ASK_AGAIN_S = 2.0
WELCOME_S = 15.0


def log_parts(row: Mapping[str, Any]) -> list[str]:
    """The steps from the logs folder to the file of a try: <dag>/<run>/<task>[.<map>]/<try>.log."""
    task = row["task_id"] if row["map_index"] < 0 else f"{row['task_id']}.{row['map_index']}"
    return [row["dag_id"], row["run_id"], task, f"{row['try_number']}.log"]


def open_below(root: Path, parts: list[str]) -> int | None:
    """A descriptor of a plain file below `root`, or None where there is none (yet).

    Raises Refused FLX-4141 where a step is a link, or is no plain file or folder, or would lead out of `root`.
    """
    refused = Refused("FLX-4141", f"The log {'/'.join(parts)} is not a plain file in the logs folder; it is not shown.")
    if any(part in {"", ".", ".."} or "/" in part or "\0" in part for part in parts):
        raise refused
    with contextlib.ExitStack() as opened:
        try:
            folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
            opened.callback(os.close, folder)
            for part in parts[:-1]:
                folder = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                opened.callback(os.close, folder)
            file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError:
            raise refused from None
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise refused
        return file


class LogFile:
    """The file of one try, opened when it appears."""

    def __init__(self, root: Path, parts: list[str]) -> None:
        self._root = root
        self._parts = parts
        self._file: int | None = None

    def size(self) -> int:
        """Bytes so far; 0 while there is no file."""
        if self._file is None:
            self._file = open_below(self._root, self._parts)
        return 0 if self._file is None else os.fstat(self._file).st_size

    async def read(self, offset: int, end: int) -> AsyncIterator[bytes]:
        """The bytes in [offset, end), in pieces; read in a thread, for a disk may be slow."""
        while self._file is not None and offset < end:
            data = await asyncio.to_thread(os.pread, self._file, min(CHUNK, end - offset), offset)
            if not data:
                return
            offset += len(data)
            yield data

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


@contextlib.contextmanager
def log_file(root: Path, row: Mapping[str, Any]) -> Iterator[LogFile]:
    """The log file of a try, closed at the end."""
    with contextlib.closing(LogFile(root, log_parts(row))) as file:
        yield file


async def _find_try(ask: Ask) -> Any:
    """The row of the try in the path. Raises NotFound FLX-4140 (or of what is above it)."""
    path, map_index = ask.path, ask.query["map_index"]
    number = int(path["try_number"]) if path["try_number"].isdecimal() and len(path["try_number"]) < 9 else -1
    row = await api_views.one_try(ask.db, path["dag_id"], path["run_id"], path["task_id"], map_index, number)
    if row is None:
        raise await missing(ask, map_index)
    if row["try_number"] is None:
        tries = row["last_try"]
        had = "was not tried yet" if tries == 0 else f"was tried {'once' if tries == 1 else f'{tries} times'} so far"
        raise NotFound("FLX-4140", f"The task {path['task_id']!r} has no try {path['try_number'][:20]}: it {had}.")
    return row


async def log(ask: Ask) -> web.StreamResponse:
    """Bytes of a log. A negative offset counts from the end. `follow` goes on until the try has ended."""
    row = await _find_try(ask)
    with log_file(ask.state.settings.logs, row) as file:
        size = file.size()
        start = ask.query["offset"]
        start = max(0, size + start) if start < 0 else start
        limit = ask.query["limit"]
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/plain; charset=utf-8",
                "X-Content-Type-Options": "nosniff",
                "Cache-Control": "no-store",
                "X-Flux-Log-Size": str(size),
                "X-Flux-Log-Offset": str(start),
                "X-Flux-Ended": "false" if row["state"] in ATTEMPT_LIVE else "true",
            }
        )
        end = max(start, size if limit is None else min(size, start + limit))
        # A reader that goes away in the middle is no error of ours.
        with contextlib.suppress(ConnectionResetError):
            if not ask.query["follow"]:
                response.content_length = end - start
                await response.prepare(ask.request)
                await _send(response, file, start, end)
            else:
                await response.prepare(ask.request)
                with contextlib.closing(ask.state.live.subscribe()) as messages, contextlib.suppress(Unavailable):
                    await _follow(ask, response, file, start, messages)
            await response.write_eof()
        return response


async def _send(response: web.StreamResponse, file: LogFile, start: int, end: int) -> int:
    async for data in file.read(start, end):
        await response.write(data)
        start += len(data)
    return start


async def _follow(ask: Ask, response: web.StreamResponse, file: LogFile, offset: int, messages: Subscription) -> None:
    """Send what comes until the try has ended and all of its bytes are sent, the reader goes or its login is over."""
    loop = asyncio.get_running_loop()
    ask_at = 0.0
    welcome_at = loop.time() + WELCOME_S
    told = asyncio.ensure_future(_told(ask, messages))
    try:
        while True:
            ended = False
            if told.done() or loop.time() >= ask_at:
                # The row first, the bytes after: what was written before the end is there when the end is known.
                ended = (await _find_try(ask))["state"] not in ATTEMPT_LIVE
                ask_at = loop.time() + ASK_AGAIN_S
            if told.done():
                told.result()  # raises when the daemon stops
                told = asyncio.ensure_future(_told(ask, messages))
            size = file.size()
            if size < offset and file.size() > 0:
                offset = size  # cut short by somebody: go on from where it ends now
            offset = await _send(response, file, offset, size)
            if ended or ask.request.transport is None:
                return
            if loop.time() >= welcome_at:
                welcome_at = loop.time() + WELCOME_S
                still_welcome = ask.request.get(STILL_WELCOME)
                if still_welcome is not None and not await still_welcome():
                    return
            await asyncio.wait([told], timeout=LOOK_S)
    finally:
        told.cancel()
        with contextlib.suppress(asyncio.CancelledError, Unavailable):
            await told


async def _told(ask: Ask, messages: Subscription) -> None:
    """Until the hub says something of this task. Raises Unavailable FLX-4142 when the daemon stops."""
    mine = [ask.path["dag_id"], ask.path["run_id"], ask.path["task_id"], ask.query["map_index"]]
    async for message in messages:
        if message.kind == "reset" or any(list(task[:4]) == mine for task in message.data.get("tasks", ())):
            return
    raise Unavailable("FLX-4142", "fluxd is stopping; the task goes on, follow its log again when fluxd is back.")
