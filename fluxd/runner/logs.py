"""Log files of attempts: opened for the task to write to, and now and then a line of ours."""

import contextlib
import os

from fluxd.authoring.requests import LINE_MAX

# NONBLOCK: a pipe that somebody put in place of a log is refused instead of waited for; files know no difference.
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
TAIL = 4096


def open_log(path: str) -> tuple[int, str | None]:
    """The log for appending; where it cannot be opened /dev/null and a sentence that says so.

    Raises OSError when not even that can be opened.
    """
    try:
        try:
            return os.open(path, FLAGS, 0o640), None
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
            return os.open(path, FLAGS, 0o640), None
    except OSError as error:
        note = f"FLX-7020: The log {path} could not be opened ({error.strerror}), so the output of this try is dropped."
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), note


def write_log(path: str, text: str) -> None:
    """Add a line of ours to a log; a log that cannot be written is nobody's reason to stop."""
    with contextlib.suppress(OSError, ValueError):  # a path with a NUL
        fd, note = open_log(path)
        try:
            if note is None:
                os.write(fd, f"{text}\n".encode(errors="replace"))
        finally:
            os.close(fd)


class LineTooLong(Exception):
    """The last line of a log is longer than a result may be."""


def last_line(path: str) -> str | None:
    """The last line of a log; None when there is none. Raises LineTooLong for one of more than LINE_MAX bytes."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        size = os.fstat(fd).st_size
        # Nearly always it is short, so that a small piece has all of it.
        line = _last_of(os.pread(fd, TAIL, max(0, size - TAIL)), size) if size else b""
        if line is None:
            line = _last_of(os.pread(fd, LINE_MAX + 2, max(0, size - LINE_MAX - 2)), size)
    except OSError:
        return None
    finally:
        os.close(fd)
    if line is None:
        raise LineTooLong
    # Postgres keeps no NUL in text.
    return line.decode(errors="replace").replace("\0", "\ufffd") or None


def _last_of(data: bytes, size: int) -> bytes | None:
    """The last line in the end of a log of this size; None when it begins before that."""
    tail = data.rstrip(b"\r\n")
    start = tail.rfind(b"\n") + 1
    whole = start > 0 or size <= len(data)
    return tail[start:] if whole and len(tail) - start <= LINE_MAX else None


def disk_is_full(log: str) -> bool:
    """Whether nothing more can be written where this log lies."""
    try:
        return os.statvfs(os.path.dirname(log)).f_bavail == 0
    except OSError:
        return False
