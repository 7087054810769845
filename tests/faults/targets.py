"""Whom a fault meets: the processes of one home, found from outside."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.fluxd_process import Daemon


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def lives(pid: int) -> bool:
    """Whether there is such a process and it is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


class Targets:
    """Each method gives the pids that a kind of fault may meet now."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def fluxd(self) -> list[int]:
        return [self._daemon.pid]

    def runner(self) -> list[int]:
        """The topmost runner of the home: its forks carry the same command line."""
        mark = str(self._daemon.home)
        found = [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and "fluxd.runner" in (words := command(int(entry.name))) and mark in words
        ]
        below = {child for pid in found for child in children(pid)}
        return [pid for pid in found if pid not in below and lives(pid)]

    def hosts(self) -> list[int]:
        return [pid for runner in self.runner() for pid in children(runner) if name(pid) == "flux-host"]

    def attempts(self) -> list[int]:
        """What runs tasks: children of hosts that are named after one, and those of the runner that are no hosts."""
        hosts = self.hosts()
        forked = [pid for host in hosts for pid in children(host) if name(pid).startswith("flux:")]
        return forked + [pid for runner in self.runner() for pid in children(runner) if pid not in hosts]

    def postmaster(self) -> list[int]:
        try:
            return [int((self._daemon.home / "pg" / "data" / "postmaster.pid").read_text().split()[0])]
        except (OSError, ValueError, IndexError):
            return []

    def backends(self, *words: str) -> Callable[[], list[int]]:
        """Children of the postmaster whose title has one of these words."""

        def found() -> list[int]:
            return [
                pid
                for postmaster in self.postmaster()
                for pid in children(postmaster)
                if any(word in command(pid) for word in words)
            ]

        return found

    def descendants(self, pids: list[int]) -> set[int]:
        """These and all below them."""
        found: set[int] = set()
        waiting = list(pids)
        while waiting:
            pid = waiting.pop()
            if pid not in found:
                found.add(pid)
                waiting += children(pid)
        return found


def signal_all(pids: list[int], number: int) -> list[int]:
    """Send it; those that were still there."""
    met = []
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
        met.append(pid)
    return met
