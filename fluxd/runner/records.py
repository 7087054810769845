"""Exit records: what is known of an attempt on disk, so that no result is lost with the process that held it.

`home/runner/<fence>.rec` is made before the process, so that no fence is started twice. It holds JSON lines, each
followed by a space and its CRC-32 in hex: who runs (by the parent), the outcome (by the child), the end (the parent).
A record lives until the daemon has stored the result.

They are not synced: they have to survive the death of processes, not that of the machine. After a power cut every
attempt is gone anyway (the boot id says so).
"""

import contextlib
import json
import os
import zlib
from typing import Any

from fluxd.runner.protocol import to_json

SUFFIX = ".rec"


def path_of(folder: str, fence: int) -> str:
    return f"{folder}/{fence}{SUFFIX}"


def create(folder: str, fence: int) -> int:
    """Make the record and return its descriptor. Raises FileExistsError for a fence that was started before."""
    return os.open(path_of(folder, fence), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)


def append(fd: int, line: dict[str, Any]) -> None:
    """Add one line in one write."""
    append_payload(fd, to_json(line))


def append_payload(fd: int, payload: bytes) -> None:
    """Add a line that is JSON already."""
    data = b"%b %08x\n" % (payload, zlib.crc32(payload))
    written = os.write(fd, data)
    while written < len(data):  # a signal, or a nearly full disk: the next write says which
        written += os.write(fd, data[written:])


def content(fd: int) -> dict[str, Any]:
    """All lines of an open record, merged."""
    size = os.fstat(fd).st_size
    return merge(os.pread(fd, size, 0))


def merge(data: bytes) -> dict[str, Any]:
    """The lines of a record as one dict, later ones over earlier ones; a torn or damaged line ends it."""
    known: dict[str, Any] = {}
    for line in data.splitlines():
        payload, _, checksum = line.rpartition(b" ")
        if checksum != b"%08x" % zlib.crc32(payload):
            known["torn"] = True
            break
        known |= json.loads(payload)
    return known


def remove(folder: str, fence: int) -> None:
    with contextlib.suppress(FileNotFoundError):  # acknowledged twice
        os.unlink(path_of(folder, fence))


def stored(folder: str) -> dict[int, dict[str, Any]]:
    """Every record in the folder: fence -> its lines merged."""
    found = {}
    for name in os.listdir(folder):
        stem, suffix = os.path.splitext(name)
        if suffix == SUFFIX and stem.isdigit():
            with open(f"{folder}/{name}", "rb") as file:
                found[int(stem)] = merge(file.read())
    return found
