"""The faults: whom they meet, how often, and what it takes until work goes on."""

import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults.targets import Targets, lives, signal_all
from tests.faults.workload import Journal
from tests.fluxd_process import Daemon

AWAY_S = 120.0  # no recovery may take longer
# What systemd does: a fluxd that says nothing for so long is ended and started again.
WATCHDOG_S = 30.0


@dataclass
class Fault:
    """A kind of fault. `all_at_once`: it meets every process found, not one of them."""

    name: str
    find: Callable[[], list[int]]
    all_at_once: bool = False
    weight: int = 1
    seconds: list[float] = field(default_factory=list)  # until work went on, one each time
    missed: int = 0  # there was nobody to meet


def kills(targets: Targets) -> list[Fault]:
    return [
        Fault("fluxd", targets.fluxd, weight=4),
        Fault("runner", targets.runner, weight=3),
        Fault("fluxd and runner", lambda: targets.fluxd() + targets.runner(), all_at_once=True, weight=2),
        Fault("dag host", targets.hosts, weight=2),
        Fault("attempt", targets.attempts, weight=4),
        Fault("postmaster", targets.postmaster, weight=1),
        Fault("a session of fluxd", targets.backends("fluxd fluxd"), weight=2),
        Fault("all sessions of fluxd", targets.backends("fluxd fluxd"), all_at_once=True, weight=1),
        Fault("a helper of Postgres", targets.backends("checkpointer", "writer", "autovacuum"), weight=1),
    ]


def hangs(targets: Targets) -> list[Fault]:
    return [
        Fault("fluxd", targets.fluxd),
        Fault("runner", targets.runner),
        Fault("dag host", targets.hosts, all_at_once=True),
        Fault("attempt", targets.attempts),
        Fault("postmaster", targets.postmaster),
        Fault("a session of fluxd", targets.backends("fluxd fluxd")),
        Fault("all sessions of fluxd", targets.backends("fluxd fluxd"), all_at_once=True),
    ]


class Monkey:
    """Puts faults to a daemon under load, one after the other, and starts fluxd again as an init system would."""

    def __init__(self, daemon: Daemon, targets: Targets, journal: Journal, seed: int) -> None:
        self._daemon, self._targets, self._journal = daemon, targets, journal
        self._random = random.Random(seed)
        self.killed: set[int] = set()  # attempts, and all below them, that a fault ended
        self.gone: list[str] = []  # ends of fluxd that were not our doing
        self.slow: list[str] = []  # faults after which nothing went on in time

    def choose(self, faults: list[Fault]) -> Fault:
        return self._random.choices(faults, [fault.weight for fault in faults])[0]

    def kill(self, fault: Fault) -> None:
        """kill -9, and wait until a new process of a task begins."""
        pids = self._victims(fault)
        if not pids:
            fault.missed += 1
            return
        if fault.name == "attempt":
            self.killed |= self._targets.descendants(pids)
        at = _now()
        signal_all(pids, signal.SIGKILL)
        if self._daemon.pid in pids:
            self._daemon.forget_ended()
            self._daemon.start()
        self._await_work(fault, at)

    def hang(self, fault: Fault, seconds: float) -> None:
        """SIGSTOP for so long; work is to go on while it lasts, or soon after."""
        pids = self._victims(fault)
        if not pids:
            fault.missed += 1
            return
        at = _now()
        met = signal_all(pids, signal.SIGSTOP)
        try:
            if self._daemon.pid in met:
                self._watchdog(seconds)
            over = threading.Timer(seconds, signal_all, (met, signal.SIGCONT))
            over.start()
            self._await_work(fault, at + 0.5)
            over.join()
        finally:
            if fault.name == "attempt":
                self.killed |= self._targets.descendants(met)
            signal_all(met, signal.SIGCONT)

    def _victims(self, fault: Fault) -> list[int]:
        found = fault.find()
        return found if fault.all_at_once else [self._random.choice(found)] if found else []

    def _watchdog(self, seconds: float) -> None:
        """The init system's part: a fluxd that does not answer for that long is killed and started again."""
        time.sleep(min(WATCHDOG_S, seconds))
        os.kill(self._daemon.pid, signal.SIGKILL)
        self._daemon.forget_ended()
        self._daemon.start()

    def _await_work(self, fault: Fault, at: float) -> None:
        """Until a process of a task has begun after this moment (seconds since boot)."""
        while _now() - at < AWAY_S:
            begun = self._journal.read().begun_after(at)
            if begun is not None:
                fault.seconds.append(begun - at)
                return
            self._look_after_fluxd(fault)
            time.sleep(0.05)
        fault.seconds.append(AWAY_S)
        self.slow.append(f"after {fault.name}, at {at:.0f}")

    def _look_after_fluxd(self, fault: Fault) -> None:
        if not lives(self._daemon.pid):
            self.gone.append(f"fluxd was gone after {fault.name}: {self._daemon.lines[-3:]}")
            self._daemon.forget_ended()
            self._daemon.start()


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def percentile(seconds: list[float], share: float) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def table(kind: str, faults: list[Fault]) -> str:
    """What each fault cost, as lines of text."""
    lines = [f"{kind:<24} {'times':>5} {'p50 s':>7} {'max s':>7}"]
    for fault in faults:
        if fault.seconds:
            middle, worst = statistics.median(fault.seconds), max(fault.seconds)
            lines.append(f"  {fault.name:<22} {len(fault.seconds):>5} {middle:>7.2f} {worst:>7.2f}")
    all_of_them = [second for fault in faults for second in fault.seconds]
    if all_of_them:
        p50, p99 = percentile(all_of_them, 0.5), percentile(all_of_them, 0.99)
        lines.append(f"  {'all: p50, p99':<22} {len(all_of_them):>5} {p50:>7.2f} {p99:>7.2f}")
    return "\n".join(lines)
