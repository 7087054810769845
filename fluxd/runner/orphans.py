"""What outlives its attempt or its import by leaving its process group, its session, its environment: it is ended."""

import contextlib
import os
import signal

from fluxd.runner import processes
from fluxd.runner.adopted import Adopted
from fluxd.runner.attempts import Attempts
from fluxd.runner.hosts import Hosts


class Orphans:
    """Children that nobody made on purpose, here or with the reaper."""

    def __init__(self, attempts: Attempts, hosts: Hosts, adopted: Adopted, home_number: int) -> None:
        self._attempts = attempts
        self._hosts = hosts
        self._adopted = adopted
        self._home_number = home_number
        self._reaper = os.getppid()

    def pids(self) -> list[int]:
        known = self._adopted.pids() | self._attempts.by_pid.keys() | self._hosts.by_pid.keys() | {os.getpid()}
        found = processes.children()
        if os.getppid() == self._reaper:
            found += processes.children(self._reaper)
        return [pid for pid in found if pid not in known]

    def by_fence(self) -> dict[int | None, int]:
        """One pid of each attempt (IMPORT: of none) that has any."""
        return {processes.fence_of(pid, self._home_number): pid for pid in self.pids()}

    def sweep(self) -> None:
        """End those whose attempt is not live. One that bears no mark of ours stays while any attempt lives."""
        live = self._attempts.live
        for pid in self.pids():
            fence = processes.fence_of(pid, self._home_number)
            if fence:
                if fence not in live:
                    processes.end_attempt(self._home_number, fence)
            elif fence is not None or not live:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
