"""A Postgres server found by its postmaster.pid: is it truly alive, where does it listen, end it.

The file outlives a kill -9 and a power cut, and its pid may by then be somebody else's. Postgres itself gives up in
that case when the other process belongs to the same user, which after a reboot of a laptop is the rule; so the proof
is made here: the process is a postmaster whose working directory is this data directory.
"""

import asyncio
import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What postmaster.pid says. `status` is starting | ready | stopping | standby, `` when not yet written."""

    pid: int
    port: int
    socket_dir: Path
    status: str


def read(data: Path) -> Postmaster | None:
    """What the file of this data directory says, or None when there is none, or not yet a whole one."""
    try:
        lines = [line.strip() for line in (data / "postmaster.pid").read_text(errors="replace").splitlines()]
        return Postmaster(
            pid=int(lines[0]),
            port=int(lines[3]),
            socket_dir=Path(lines[4]),
            status=lines[7] if len(lines) > 7 else "",
        )
    except (FileNotFoundError, ValueError, IndexError):
        return None


def is_postmaster(pid: int, data: Path) -> bool:
    """Whether the process is a postmaster that works on this data directory (a zombie is none)."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    if Path(os.fsdecode(arguments[0])).name not in ("postgres", "postmaster") or b"-D" not in arguments:
        return False
    try:
        # Also true when the folder was renamed under a running server.
        return os.path.samestat(Path(f"/proc/{pid}/cwd").stat(), data.stat())
    except OSError:
        # Root without CAP_SYS_PTRACE (a container) may not look at the working directory of another user's process.
        return os.fsencode(data) in arguments


def alive(data: Path) -> Postmaster | None:
    """The living server of this data directory, or None."""
    found = read(data)
    return found if found and is_postmaster(found.pid, data) else None


async def gone(data: Path) -> None:
    """Wait for the end of the server of this data directory; returns at once where none lives."""
    found = alive(data)
    if found is None:
        return
    try:
        handle = os.pidfd_open(found.pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(handle, ended.set)
        if is_postmaster(found.pid, data):  # still: else the descriptor may be that of a successor in its number
            await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def end_backend(data: Path, pid: int) -> bool:
    """kill -9 a session's process of the server of this data directory; returns whether it was one.

    For one that does not obey: a stopped process, or one that waits for a disk. The server then ends all its sessions
    and repairs itself from its log of changes, so that nothing of what the session was about to write comes later.
    """
    found = alive(data)
    if found is None:
        return False
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if _parent(pid) != found.pid:
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        return True
    finally:
        os.close(handle)


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return int(stat[stat.rindex(")") + 2 :].split()[1])


def forget_dead(data: Path, socket_dir: Path) -> None:
    """Remove the lock files that a dead server left. Call it only after `alive` said None, under the start lock."""
    for path in (data / "postmaster.pid", *socket_dir.glob(".s.PGSQL.*")):
        path.unlink(missing_ok=True)


def stop(data: Path, patience: float = 30.0) -> bool:
    """End the server of this data directory; returns whether there was one.

    First "fast" (open transactions are rolled back, all is written), after `patience` seconds "immediate", which the
    next start repairs from the log of changes.
    """
    found = read(data)
    if found is None:
        return False
    try:
        # The descriptor stays with this very process, whoever gets its number later.
        handle = os.pidfd_open(found.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_postmaster(found.pid, data):
            return False
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        for number, seconds in ((signal.SIGINT, patience), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if ended.poll(seconds * 1000):
                break
        return True
    finally:
        os.close(handle)
