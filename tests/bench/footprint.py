"""Memory and processor time of everything that belongs to one daemon: itself, runner, dag hosts, Postgres."""

import contextlib
import os
from pathlib import Path

from tests.fluxd_process import Daemon

MIB = 1 << 20


def processes(daemon: Daemon) -> dict[int, str]:
    """pid -> what it is, for all processes of the daemon's home and whatever they started."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                pid = int(entry.name)
                parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                names[pid] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    mine = set(daemon.leftovers()) | {daemon.pid}
    while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return {pid: names[pid] for pid in mine if pid in names}


def kind(name: str) -> str:
    """The part of Flux that a command line belongs to."""
    for part in ("postgres", "runner", "fluxd"):
        if part in name.replace("/fluxd-", ""):
            return part
    return "other"


def pss(daemon: Daemon) -> dict[str, float]:
    """Proportional set size in MiB: per part, and in `all`. What processes share is counted once."""
    sums: dict[str, float] = {"all": 0.0}
    for pid, name in processes(daemon).items():
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    size = int(line.split()[1]) * 1024 / MIB
                    sums["all"] += size
                    sums[kind(name)] = sums.get(kind(name), 0.0) + size
    return sums


def cpu_seconds(daemon: Daemon) -> dict[str, float]:
    """Processor time used so far, per part and in `all`, children that have ended included."""
    tick = os.sysconf("SC_CLK_TCK")
    sums: dict[str, float] = {"all": 0.0}
    for pid, name in processes(daemon).items():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used = sum(int(value) for value in fields[11:15]) / tick
            sums["all"] += used
            sums[kind(name)] = sums.get(kind(name), 0.0) + used
    return sums
