"""A forked child that waits for its order: the fork and the first touch of memory are over before there is any hurry.

A fork is cheap to ask for and dear to use: each page that the child touches first has to be copied. In a chain of
tasks, where each waits for the one before, that would be most of the time between two of them. So while a task runs,
its host makes the next child ready. A spare is used once; one that is not needed ends when its host does.
"""

import contextlib
import json
import os
from collections.abc import Callable
from typing import NoReturn

from fluxd.runner.forking import fork
from fluxd.runner.processes import set_name
from fluxd.runner.protocol import HEADER, MAX_FRAME, Message, encode
from fluxd.runner.records import Record

NAME = "flux-spare"


class Spare:
    """The host's end of a waiting child."""

    def __init__(self, pid: int, write_end: int, record: Record) -> None:
        self.pid = pid
        self.record = record
        self._write_end = write_end

    def send(self, order: Message) -> bool:
        """Give it its order. False when it is gone: nothing was started."""
        data = memoryview(encode(order))
        try:
            while data:
                data = data[os.write(self._write_end, data) :]
        except BrokenPipeError:
            return False
        finally:
            self.close()
        return True

    def close(self) -> None:
        """Nobody will give it an order (any more)."""
        with contextlib.suppress(OSError):
            os.close(self._write_end)


def make(
    record: Record, close: Callable[[], None], ready: Callable[[], None], body: Callable[[Message], NoReturn]
) -> Spare:
    """Fork a child that closes the host's descriptors, makes itself `ready` and runs `body` with the order it gets.

    Raises OSError when no process can be made.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        pid = fork()
    except OSError:
        os.close(read_end)
        os.close(write_end)
        raise
    if pid == 0:
        try:
            os.close(write_end)
            close()
            set_name(NAME)
            ready()
            order = _order(read_end)
            if order is not None:
                os.close(read_end)
                body(order)
        finally:
            os._exit(0)
    os.close(read_end)
    return Spare(pid, write_end, record)


def _order(read_end: int) -> Message | None:
    """The one frame that comes; None when the host closes the pipe instead."""
    data = b""
    wanted = HEADER
    while len(data) < wanted:
        part = os.read(read_end, 65536)
        if not part:
            return None
        data += part
        if wanted == HEADER and len(data) >= HEADER:
            wanted += min(MAX_FRAME, int.from_bytes(data[:HEADER], "big"))
    order: Message = json.loads(data[HEADER:wanted])
    return order
