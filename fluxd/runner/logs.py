"""Log files of attempts: opened for the task to write to, and now and then a line of ours."""

import contextlib
import os

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
    with contextlib.suppress(OSError):
        fd, note = open_log(path)
        try:
            if note is None:
                os.write(fd, f"{text}\n".encode(errors="replace"))
        finally:
            os.close(fd)


def last_line(path: str) -> str | None:
    """The last line of a log; None when there is none, or it does not fit in TAIL bytes."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        size = os.fstat(fd).st_size
        data = os.pread(fd, TAIL, max(0, size - TAIL)) if size else b""
    except OSError:
        return None
    finally:
        os.close(fd)
    tail = data.rstrip(b"\r\n")
    start = tail.rfind(b"\n") + 1
    if start == 0 and size > TAIL:
        return None
    # Postgres keeps no NUL in text.
    return tail[start:].decode(errors="replace").replace("\0", "\ufffd") or None


def disk_is_full(log: str) -> bool:
    """Whether nothing more can be written where this log lies."""
    try:
        return os.statvfs(os.path.dirname(log)).f_bavail == 0
    except OSError:
        return False
