"""Exit records: what is known of attempts on disk, so that no result is lost with the process that held it.

A record is a file in `home/runner/` that holds one attempt at a time. It consists of JSON lines, each followed by a
space and its CRC-32 in hex: the fence (before the process exists), who runs, the outcome (written by the child), and
the end. When the daemon has stored the result, a line says that the record is free, and the lines of the next attempt
follow: to make and delete (or only to empty) a file for each attempt costs more than all the writing.

They are not synced: they have to survive the death of processes, not that of the machine. After a power cut every
attempt is gone anyway (the boot id says so).
"""

import contextlib
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from fluxd.runner.protocol import to_json

SUFFIX = ".rec"
SIZE_MAX = 256 * 1024  # a larger one is emptied before it is used again
FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC


class Record:
    """One open record file. `start` is where the lines of its attempt begin."""

    __slots__ = ("fd", "name", "start")

    def __init__(self, name: str, fd: int, start: int = 0) -> None:
        self.name = name
        self.fd = fd
        self.start = start

    def append(self, line: dict[str, Any]) -> None:
        """Add one line in one write. Raises OSError when the disk is full."""
        self.append_payload(to_json(line))

    def append_payload(self, payload: bytes) -> None:
        """Add a line that is JSON already."""
        data = b"\n%b %08x\n" % (payload, zlib.crc32(payload))  # an end of line before, too: the last may be torn
        written = os.write(self.fd, data)
        while written < len(data):  # a signal, or a nearly full disk: the next write says which
            written += os.write(self.fd, data[written:])

    def content(self) -> dict[str, Any]:
        """All lines, merged."""
        return merge(os.pread(self.fd, os.lseek(self.fd, 0, os.SEEK_END) - self.start, self.start))


class Records:
    """The records of one process: those in use belong to attempts, the others wait to be used again."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._free: list[Record] = []
        self._open: set[int] = set()
        self._made = 0

    def take(self) -> Record:
        """A free record. Raises OSError when none can be made."""
        if self._free:
            record = self._free.pop()
            record.start = os.lseek(record.fd, 0, os.SEEK_END)
            if record.start > SIZE_MAX:
                os.ftruncate(record.fd, 0)
                record.start = 0
            return record
        while True:
            self._made += 1
            name = f"{os.getpid()}.{self._made}{SUFFIX}"
            with contextlib.suppress(FileExistsError):  # left by an earlier process of this pid, still to be reported
                return self._opened(name, FLAGS | os.O_CREAT | os.O_EXCL)

    def open(self, name: str) -> Record:
        """A record that another process made."""
        return self._opened(name, FLAGS)

    def _opened(self, name: str, flags: int) -> Record:
        record = Record(name, os.open(f"{self._folder}/{name}", flags, 0o600))
        self._open.add(record.fd)
        return record

    def give_back(self, record: Record) -> None:
        """Its result is stored: it may be used again."""
        with contextlib.suppress(OSError):  # on a full disk it is reported once more, if we die before it is used
            record.append({"free": True})
        self._free.append(record)

    def forget(self, besides: int = -1) -> None:
        """In a forked child: let go of all of them, but for the one of the child itself."""
        for fd in self._open - {besides}:
            os.close(fd)

    def close(self) -> None:
        """Remove the records that are not in use."""
        for record in self._free:
            remove(self._folder, record.name)
        self._free.clear()


def open_record(folder: str, name: str) -> Record:
    return Record(name, os.open(f"{folder}/{name}", FLAGS))


def lines(data: bytes) -> Iterator[dict[str, Any] | None]:
    """The lines of a record, in order; None for one that is torn, damaged or no object."""
    for line in filter(None, data.split(b"\n")):
        payload, _, checksum = line.rpartition(b" ")
        told = None
        if checksum == b"%08x" % zlib.crc32(payload):
            with contextlib.suppress(ValueError, RecursionError):
                told = json.loads(payload)
        yield told if isinstance(told, dict) else None


def merge(data: bytes) -> dict[str, Any]:
    """The lines of the last attempt in a record as one dict, later ones over earlier ones; {} when it is free.

    What follows a torn or damaged line does not count, up to the next attempt. Nor does a line that tells what cannot
    be: what lies on disk may be of another version, or somebody else's.
    """
    known: dict[str, Any] = {}
    damaged = False
    for told in lines(data):
        if told is None or not _credible(told):
            damaged = True
        elif "fence" in told:
            known, damaged = told, False
        elif "free" in told:
            known = {}
        elif not damaged:
            known |= told
    return known


def _number(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and _number(value, least, most)


def _outcome(value: Any) -> bool:
    error = value.get("error") if isinstance(value, dict) else None
    xcoms = (value.get("xcoms") or []) if isinstance(value, dict) else None
    return (
        isinstance(value, dict)
        and isinstance(value.get("state"), str)
        and (error is None or isinstance(error, dict))
        and isinstance(xcoms, list)
        and all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in xcoms)
    )


def _usage(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and all(_number(each, 0, MOST) for each in value.values()))


def _end(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("type") == "ended"
        and _whole(value.get("fence"), 1, MOST)
        and all(value.get(name) is None or _whole(value[name], 0, MOST) for name in ("pid", "exit_code", "signal"))
        and {"pid", "exit_code", "signal", "started_at", "usage"} <= value.keys()
        and (value["started_at"] is None or _number(value["started_at"], 0, LATEST))
        and _number(value.get("ended_at"), 0, LATEST)
        and _outcome(value.get("outcome"))
        and _usage(value["usage"])
        and all(isinstance(value.get(name, ""), str) for name in ("killed", "log_note"))
    )


def _command(value: Any) -> bool:
    codes = value.get("skip_on_exit_code") if isinstance(value, dict) else None
    several = codes if isinstance(codes, list) else [codes]
    return isinstance(value, dict) and all(code is None or isinstance(code, int) for code in several)


MOST = (1 << 62) - 1
LATEST = 253_402_300_799.0  # the last second of the year 9999
PID_MAX = 1 << 22
# A pid below 2 would make a signal one to everybody.
CHECKS: dict[str, Callable[[Any], bool]] = {
    "fence": lambda value: _whole(value, 1, MOST),
    "boot_id": lambda value: isinstance(value, str),
    "pid": lambda value: _whole(value, 2, PID_MAX),
    "entered": lambda value: _whole(value, 0, PID_MAX) and value != 1,
    "seen": lambda value: _number(value, 0, LATEST),
    "started_at": lambda value: _number(value, 0, LATEST),
    "outcome": _outcome,
    "end": _end,
    "log": lambda value: isinstance(value, str) and "\0" not in value,
    "grace_s": lambda value: _number(value, 0, LATEST),
    "command": _command,
    "log_note": lambda value: isinstance(value, str),
}


def _credible(told: dict[str, Any]) -> bool:
    """Whether what a line tells can be."""
    return all(check(told[name]) for name, check in CHECKS.items() if name in told)


def remove(folder: str, name: str) -> None:
    with contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):
        os.unlink(f"{folder}/{name}")


def stored(folder: str) -> dict[int, tuple[str, dict[str, Any]]]:
    """Every record in the folder that is in use: fence -> (name, its lines merged)."""
    found = {}
    for name in os.listdir(folder):
        if name.endswith(SUFFIX):
            try:
                with open(f"{folder}/{name}", "rb", opener=_opener) as file:
                    known = merge(file.read())
            except OSError as error:  # a folder or a link of that name, say: none of ours
                sys.stderr.write(f"FLX-7035: the exit record {folder}/{name} cannot be read: {error.strerror}.\n")
                continue
            if "fence" in known:
                found[known["fence"]] = (name, known)
    return found


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def sweep(folder: str) -> None:
    """Remove the records that are not in use by anybody: for a runner that starts."""
    used = {name for name, _ in stored(folder).values()}
    for name in os.listdir(folder):
        if name.endswith(SUFFIX) and name not in used:
            remove(folder, name)
