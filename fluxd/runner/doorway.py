"""Small things around the runner's door: who holds its place, how its first word is heard, its socket's short name."""

import asyncio
import fcntl
import os
import struct
import time
from pathlib import Path

SOCKET_PATH_MAX = 100
_FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, pid


class Busy(Exception):
    """The runner serves another daemon, whose pid it tells."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid


def lock_holder(path: Path) -> int | None:
    """The pid of the process that holds this lock, as the kernel knows it: it is alive. None when nobody does."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    finally:
        os.close(fd)
    return pid if kind != fcntl.F_UNLCK and pid > 0 else None


def answers(path: Path, pid: int) -> bool:
    """Whether the holder of the lock has written that it answers whoever asks; one of an earlier version has not."""
    return path.read_bytes().strip() == str(pid).encode()


def placed(descriptors: dict[int, int]) -> list[tuple[int, int, int]]:
    """File actions of posix_spawn that put these descriptors (from -> to), without one overwriting another."""
    free = max(*descriptors, *descriptors.values()) + 1
    aside = {fd: free + number for number, fd in enumerate(descriptors)}
    first = [(os.POSIX_SPAWN_DUP2, fd, other) for fd, other in aside.items()]
    return first + [(os.POSIX_SPAWN_DUP2, aside[fd], to) for fd, to in descriptors.items()]


async def readable(fd: int, timeout_s: float) -> bool:
    """Wait until a descriptor can be read; False when it could not within the time."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        async with asyncio.timeout(timeout_s):
            await ready.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)
    return True


class short_path:
    """A path that fits into a socket address, also where the home is far down: over a descriptor of the folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> str:
        if len(str(self._path)) <= SOCKET_PATH_MAX:
            return str(self._path)
        self._fd = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._fd}/{self._path.name}"

    def __exit__(self, *exc: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


async def first_line(fd: int, deadline: float) -> str:
    """What a starting runner says, or "" when it left or stays silent."""
    if not await readable(fd, max(0.1, deadline - time.monotonic())):
        return ""
    return os.read(fd, 4096).decode(errors="replace").strip()
