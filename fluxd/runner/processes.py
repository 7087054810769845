"""Facts about processes, from /proc: who is alive, since when, and whose child is whose.

A pid alone proves nothing, because pids are used again: a process is known by boot id, pid, and that it had begun when
we saw it under this pid.
"""

import contextlib
import ctypes
import hashlib
import math
import os
import resource
import signal
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


def there(pid: int, seen: float) -> bool:
    """Whether the process that had this pid at `seen` runs, or is a zombie."""
    fields = _stat(pid)
    return fields is not None and (int(fields[19]) - 1) / TICKS_PER_S <= seen


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


def children(parent: int | None = None) -> list[int]:
    """The children of this process, or of another single-threaded one; empty where the kernel does not tell."""
    parent = parent or os.getpid()
    try:
        with open(f"/proc/{parent}/task/{parent}/children", "rb", buffering=0) as file:
            return [int(pid) for pid in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def environ(pid: int) -> list[bytes]:
    """The environment a process was started with; empty when it is gone or not ours to read."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return file.read().split(b"\0")
    except OSError:
        return []


# Every descendant of ours is marked by a limit that it inherits whatever it makes of its session, its parent, its name
# and its environment, and that is there for all to read: that on file locks (`ulimit -x`), which Linux has not enforced
# since 2.4.25. Its hard value is the home's, its soft value the fence of the attempt (below none: the home's again).
RLIMIT_LOCKS = 10
HOME_BIT = 1 << 62  # above every fence
IMPORT = 0  # in place of a fence: it descends from the runner or the import of a dag file, and from no attempt


def mark_home(home: str) -> int:
    """Mark this process, and with it all that it starts, as belonging to this home. Returns the home's number."""
    digest = int.from_bytes(hashlib.sha256(os.fsencode(home)).digest()[:7], "big")
    number = HOME_BIT | digest
    _, hard = resource.getrlimit(RLIMIT_LOCKS)
    try:
        resource.setrlimit(RLIMIT_LOCKS, (number, number))
    except ValueError:  # below another runner, whose number we may not raise
        number = max(0, hard - 1 - digest % (1 << 40))
        resource.setrlimit(RLIMIT_LOCKS, (number, number))
    return number


def mark_attempt(fence: int) -> None:
    """Mark this process, and what it starts from here on, as belonging to this attempt (IMPORT: to none)."""
    _, home_number = resource.getrlimit(RLIMIT_LOCKS)
    resource.setrlimit(RLIMIT_LOCKS, (fence or home_number, home_number))


def fence_of(pid: int, home_number: int) -> int | None:
    """The attempt that a process descends from; IMPORT when from none; None when it is not of this home."""
    try:
        with open(f"/proc/{pid}/limits", "rb", buffering=0) as file:
            text = file.read()
        soft, hard = text.partition(b"Max file locks")[2].split(None, 2)[:2]
        if int(hard) != home_number:
            return None
        return IMPORT if soft == hard else int(soft)
    except (OSError, ValueError):  # it is gone, or has no limit
        return None


def marked(home_number: int) -> dict[int, int]:
    """pid -> fence (or IMPORT) of everything of this home that is alive; this process is not among them."""
    found = {}
    for pid in everybody():
        fence = fence_of(pid, home_number)
        if fence is not None and alive(pid):
            found[pid] = fence
    return found


def signal_attempt(home_number: int, fence: int, number: int, *, group: int | None = None) -> int:
    """Signal all that descends from an attempt (only those in this process group). Returns how many there were.

    No parent is needed for it: each is held by a descriptor before it is known again by its mark, so that it can be no
    stranger that got its pid meanwhile.
    """
    found = 0
    for pid in everybody():
        if fence_of(pid, home_number) != fence:
            continue
        with contextlib.suppress(OSError):  # it is gone, or has changed its user
            held = os.pidfd_open(pid)
            try:
                fields = _stat(pid)
                ours = fields is not None and fields[0] not in b"ZX" and fence_of(pid, home_number) == fence
                if ours and (group is None or (fields is not None and int(fields[2]) == group)):
                    signal.pidfd_send_signal(held, number)
                    found += 1
            finally:
                os.close(held)
    return found


def end_attempt(home_number: int, fence: int) -> None:
    """KILL all that descends from an attempt, also what is forked meanwhile."""
    for _ in range(ROUNDS):
        if not signal_attempt(home_number, fence, signal.SIGKILL):
            return


ROUNDS = 20  # a process that is killed forks no more, so that few are needed; one that cannot die ends them


def everybody() -> list[int]:
    """The pids of all other processes."""
    own = os.getpid()
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if pid != own]


def begun_at(pid: int) -> float:
    """When a process began, in seconds since boot; 0 when it is gone."""
    fields = _stat(pid)
    return 0.0 if fields is None else (int(fields[19]) - 1) / TICKS_PER_S


def exit_status(pid: int) -> int | None:
    """The wait status of a zombie, whoever is its parent; None when there is none to be read."""
    fields = _stat(pid)
    if fields is None or fields[0] != b"Z" or len(fields) < 50:
        return None
    return int(fields[49])


def carrying(home: str) -> list[int]:
    """Every other process that was started below a runner of this home, as its environment tells."""
    return [pid for pid in everybody() if f"{MARK}={home}".encode() in environ(pid)]
