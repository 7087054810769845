"""A forked child that waits for its order: the fork and the first touch of memory are over before there is any hurry.

A fork is cheap to ask for and dear to use: each page that the child touches first has to be copied. In a chain of
tasks, where each waits for the one before, that would be most of the time between two of them. So while a task runs,
its host makes the next child ready. A spare is used once; one that is not needed ends when its host does.
"""

import contextlib
import os
import traceback
from collections.abc import Callable
from typing import NoReturn

from fluxd.runner.forking import fork
from fluxd.runner.processes import set_name
from fluxd.runner.protocol import FrameReader, frame

NAME = "flux-spare"


class Spare:
    """The host's end of a waiting child: its pid, and where its order is written."""

    def __init__(self, pid: int, write_end: int) -> None:
        self.pid = pid
        self._write_end = write_end

    def send(self, payload: bytes) -> bool:
        """Give it its order. False when it is gone: nothing was started."""
        data = memoryview(frame(payload))
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


def make(close: Callable[[], None], ready: Callable[[], None], body: Callable[[bytes], NoReturn]) -> tuple[int, int]:
    """Fork a child that closes the host's descriptors, makes itself `ready` and runs `body` with the payload it gets.

    Returns its pid and where the payload is to be written. Raises OSError when no process can be made.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        pid = fork()
    except OSError:
        os.close(read_end)
        os.close(write_end)
        raise
    if pid == 0:
        status = 70
        try:
            os.close(write_end)
            close()
            set_name(NAME)
            ready()
            payload = _order(read_end)
            if payload is not None:
                os.close(read_end)
                body(payload)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(read_end)
    return pid, write_end


def _order(read_end: int) -> bytes | None:
    """The one payload that comes; None when the host closes the pipe instead."""
    frames = FrameReader()
    while data := os.read(read_end, 65536):
        for payload in frames.feed(data):
            return payload
    return None
