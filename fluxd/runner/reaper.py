"""The runner's parent: it starts the runner, starts it again when it dies, and is there for what it leaves behind.

Only a parent learns how a process ended. When a runner dies, its attempts live on as children of this process, which
puts the end of each on disk before it lets it go: so no exit code is lost while there is no runner to hear of it. It
does nothing else, so that nothing can go wrong with it.
"""

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from fluxd.runner import processes
from fluxd.runner.records import Record, lines
from fluxd.signals import TOLD_TO_STOP

ENDS = "ends"
STEADY_S = 60.0  # a runner that lived that long is no repeated failure
DELAYS_S = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)  # before it is started again, by how often it has failed
FULL_DISK_PAUSE_S = 1.0
EXIT_STARTED_NOTHING = 1
WAITED_FOR = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}


class Reaper:
    """Runs `run` in a child, told whether it is the first; `started` is called here when the first was made.

    `run` returns 0 when it was told to leave or is not needed, 1 when it cannot run here.
    """

    def __init__(self, folder: str, run: Callable[[bool], int], started: Callable[[], None]) -> None:
        self._folder = folder
        self._run = run
        self._started = started
        self._runner = 0  # its pid, while it lives
        self._born_at = 0.0
        self._failures = 0
        self._start_at: float | None = None  # when it is started again
        self._left: int | None = None  # the exit code of one that left in order
        self._disk_full = False

    def serve(self) -> int:
        """Until the runner leaves in order: its exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._start(first=True)
        self._started()
        while self._left is None:
            if not self._reap_one():
                self._pause()
            if self._start_at is not None and time.monotonic() >= self._start_at:
                self._start(first=False)
        return self._left

    def _start(self, *, first: bool) -> None:
        self._start_at = None
        self._born_at = time.monotonic()
        try:
            pid = os.fork()
        except OSError as error:
            sys.stderr.write(f"FLX-7033: no process could be made for the runner: {error}; it is tried again.\n")
            self._again()
            return
        if pid == 0:
            status = os.EX_SOFTWARE
            try:
                signal.pthread_sigmask(signal.SIG_SETMASK, TOLD_TO_STOP)  # until the runner can hear of it
                os.setsid()
                status = self._run(first)
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(Exception):
                    sys.stderr.flush()
                os._exit(status)
        self._runner = pid

    def _again(self) -> None:
        lived_s = time.monotonic() - self._born_at
        self._failures = 0 if lived_s > STEADY_S else self._failures + 1
        delay_s = DELAYS_S[min(max(0, self._failures - 1), len(DELAYS_S) - 1)]
        self._start_at = time.monotonic() + delay_s

    def _reap_one(self) -> bool:
        """Let one child that has ended go. False when there is none."""
        try:
            found = self._ended()
        except ChildProcessError:  # no child at all: one is started when its time has come
            return False
        if found is None:
            return False
        if found.si_pid == self._runner:
            self._runner_ended(found)
            return True
        return self._note(found)

    def _ended(self) -> Any:
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        if self._disk_full and self._runner:  # the same orphan stays at the head of the queue
            runner = os.waitid(os.P_PID, self._runner, flags)
            if runner is not None:
                return runner
        return os.waitid(os.P_ALL, 0, flags)

    def _runner_ended(self, found: Any) -> None:
        os.waitpid(self._runner, 0)
        self._runner = 0
        if found.si_code == os.CLD_EXITED and found.si_status in (0, EXIT_STARTED_NOTHING):
            self._left = found.si_status
            return
        self._again()
        sys.stderr.write(f"FLX-7034: the runner ended ({_words(found)}); another one takes over what it ran.\n")
        sys.stderr.flush()

    def _note(self, found: Any) -> bool:
        """An orphan has ended: note how, end its group while its zombie still holds the number, let it go."""
        pid = found.si_pid
        end = b'{"pid":%d,"from":%.3f,"to":%.3f,"exited":%d,"status":%d}' % (
            *(pid, processes.begun_at(pid), processes.since_boot()),
            *(found.si_code == os.CLD_EXITED, found.si_status),
        )
        try:
            fd = os.open(f"{self._folder}/{ENDS}", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                Record(ENDS, fd).append_payload(end)
            finally:
                os.close(fd)
        except OSError:  # it stays a zombie, and its end is not lost
            self._disk_full = True
            return False
        self._disk_full = False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return True

    def _pause(self) -> None:
        """Until a child ends, we are told to stop, or it is time for something."""
        timeout: float | None = FULL_DISK_PAUSE_S if self._disk_full else None
        if self._start_at is not None:
            left = max(0.0, self._start_at - time.monotonic())
            timeout = left if timeout is None else min(left, timeout)
        told = signal.sigwaitinfo(WAITED_FOR) if timeout is None else signal.sigtimedwait(WAITED_FOR, timeout)
        if told is None or told.si_signo == signal.SIGCHLD:
            return
        if self._runner:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._runner, signal.SIGTERM)
        else:
            self._left = 0


def how_it_ended(folder: str, pid: int, seen: float) -> tuple[bool, int] | None:
    """(whether it exited, exit code or signal) of the process that had this pid at `seen` (seconds since boot).

    It is still a zombie, which anybody of the same user may look at, or its end was noted before it was let go. None
    when nobody knows.
    """
    status = processes.exit_status(pid) if processes.there(pid, seen) else None
    if status is not None:
        return (True, os.WEXITSTATUS(status)) if os.WIFEXITED(status) else (False, os.WTERMSIG(status))
    with contextlib.suppress(OSError), open(f"{folder}/{ENDS}", "rb") as file:
        for told in lines(file.read()):
            with contextlib.suppress(KeyError, TypeError, ValueError):  # none of ours
                if told and told["pid"] == pid and told["from"] <= seen <= told["to"]:
                    return bool(told["exited"]), int(told["status"])
    return None


def forget_ends(folder: str) -> None:
    """Nobody asks for them any more."""
    with contextlib.suppress(OSError):
        os.truncate(f"{folder}/{ENDS}", 0)


def _words(found: Any) -> str:
    return f"exit code {found.si_status}" if found.si_code == os.CLD_EXITED else f"signal {found.si_status}"
