"""Facts about processes, from /proc: who is alive, since when, and whose child is whose.

A pid alone proves nothing, because pids are used again: a process is known by boot id, pid, and that it had begun when
we saw it under this pid.
"""

import ctypes
import math
import os
import resource
import time

from fluxd.runner.environment import MARK

PR_SET_CHILD_SUBREAPER = 36
HOST_NAME = "flux-host"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PF_EXITING = 0x4  # include/linux/sched.h


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def become_subreaper() -> None:
    """Orphans below this process become its children, so that none escapes to init."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def allow_descriptors(number: int) -> None:
    """Raise our soft limit of open files to `number`, or as far as we may; children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def set_name(name: str) -> None:
    """The name that ps and top show (15 bytes of it); forked children inherit it."""
    fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, name.encode())
    os.close(fd)


def _stat(pid: int) -> list[bytes] | None:
    """The fields of /proc/<pid>/stat from the third (state) on, or None when there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, 1024)
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in parentheses and may hold anything, so count from the last one.
    return text[text.rindex(b")") + 2 :].split()


def since_boot() -> float:
    """Seconds since the machine was booted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def alive(pid: int, seen: float = math.inf) -> bool:
    """Whether the process that had this pid at `seen` (seconds since boot) still runs; a zombie does not.

    Another process can have got the pid only after that, so it began later.
    """
    fields = _stat(pid)
    return fields is not None and fields[0] not in b"ZX" and (int(fields[19]) - 1) / TICKS_PER_S <= seen


def exiting(pid: int) -> bool:
    """Whether the process has ended, or is about to and only its descriptors are closed as yet."""
    fields = _stat(pid)
    return fields is None or fields[0] in b"ZX" or bool(int(fields[6]) & PF_EXITING)


def signal_group(pid: int, number: int) -> None:
    """Signal the process group of a child of ours that is not reaped yet."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        # A child that was forked this moment has not made its session yet.
        os.kill(pid, number)
    except PermissionError:
        pass  # it changed its user; what we may not signal we cannot end


def is_child(pid: int) -> bool:
    """Whether this is a child of ours, alive or a zombie."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def children() -> list[int]:
    """The children of this (single-threaded) process; empty where the kernel does not tell."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb", buffering=0) as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        return []


def environ(pid: int) -> list[bytes]:
    """The environment a process was started with; empty when it is gone or not ours to read."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return file.read().split(b"\0")
    except OSError:
        return []


IMPORT = 0  # in place of a fence: it descends from the import of a dag file


def fence_of(pid: int) -> int | None:
    """The attempt that a process descends from, as its name (forked) or its environment (executed) tells; else None."""
    try:
        with open(f"/proc/{pid}/comm") as file:
            label, _, number = file.read().rstrip("\n").partition(":")
    except OSError:
        return None
    if label == "flux" and number.isdigit():
        return int(number)
    if label == HOST_NAME:
        return IMPORT
    variables = environ(pid)
    for variable in variables:
        if variable.startswith(b"FLUX_FENCE=") and variable[11:].isdigit():
            return int(variable[11:])
    return IMPORT if any(variable.startswith(MARK.encode() + b"=") for variable in variables) else None


def carrying(variable: bytes) -> list[int]:
    """Every other process that was started with `NAME=value` in its environment."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if pid != os.getpid() and variable in environ(pid)]
