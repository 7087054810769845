"""The runner of the simulation: processes that outlive the daemon, exit records, and what goes wrong with them."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any

from fluxd.core.commands import StartAttempt
from fluxd.core.events import AttemptEnded, AttemptLost, AttemptStarted, Event
from fluxd.core.model import InstanceKey
from fluxd.core.spec import TaskSpec
from tests.sim.database import require


@dataclass(slots=True)
class Process:
    fence: int
    key: InstanceKey
    pid: int
    started_at: datetime
    ending: dict[str, Any]
    killed: bool = False


@dataclass
class FakeRunner:
    """Processes and records by fence. A record is there before the process, and until it is acknowledged."""

    rng: Random
    faults: Counter[str]
    running: dict[int, Process] = field(default_factory=dict)
    by_key: dict[InstanceKey, int] = field(default_factory=dict)
    ended: dict[int, AttemptEnded] = field(default_factory=dict)
    lost: dict[int, AttemptLost] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)
    last_fence: dict[InstanceKey, int] = field(default_factory=dict)
    pids: int = 100

    def start(self, command: StartAttempt, task: TaskSpec, now: datetime) -> Event | None:
        """Fork a process, unless there is a record of this fence already."""
        fence, key = command.fence, command.instance.key
        require(fence not in self.acknowledged, "an attempt whose end is stored was started again:", fence)
        if fence in self.running or fence in self.ended or fence in self.lost:
            self.faults["start repeated"] += 1
            return None
        require(key not in self.by_key, "two live processes of", key)
        require(fence > self.last_fence.get(key, 0), "fences do not rise for", key)
        self.last_fence[key] = fence
        self.pids += 1
        self.running[fence] = Process(fence, key, self.pids, now, self._ending(task))
        self.by_key[key] = fence
        return AttemptStarted(fence, self.pids, now)

    def _ending(self, task: TaskSpec) -> dict[str, Any]:
        """How the process would end if nobody ended it."""
        rng = self.rng
        if task.kind == "sensor" and rng.random() < 0.8:
            timeout = rng.choice((None, 120.0, 900.0))
            wait = {"sensor": "FileSensor", "timeout": timeout, "soft_fail": rng.random() < 0.3}
            return {"exit_code": 0, "outcome": {"state": "waiting", "wait": wait}}
        kind = rng.choices(("success", "failed", "no retry", "skipped", "exit", "signal"), (14, 4, 1, 1.5, 1, 1))[0]
        match kind:
            case "success":
                return {"exit_code": 0, "outcome": {"state": "success", "xcoms": [["return_value", rng.random()]]}}
            case "failed" | "no retry":
                error = {"type": "ValueError", "message": "no", "retry": kind == "failed"}
                return {"exit_code": 1, "outcome": {"state": "failed", "error": error}}
            case "skipped":
                return {"exit_code": 0, "outcome": {"state": "skipped"}}
            case "exit":
                return {"exit_code": 3}
            case _:
                return {"signal": 9}

    def kill(self, fence: int) -> bool:
        """TERM to a process. What it does about it is up to it. False: there is none, and nothing is said."""
        process = self.running.get(fence)
        if process is None:
            return False
        process.killed = True
        match self.rng.randrange(7):
            case 0:
                pass  # it ended by itself at the same moment
            case 1:
                process.ending = {"exit_code": 0, "outcome": {"state": "success"}, "killed": "told to"}
            case 2:
                error = {"type": "TaskTerminated", "message": "told to stop", "retry": True}
                process.ending = {"exit_code": 1, "outcome": {"state": "failed", "error": error}}
            case _:
                process.ending = {"signal": 15}
        return True

    def end(self, fence: int, now: datetime) -> AttemptEnded | None:
        """The process is gone; its record stays until it is acknowledged."""
        process = self.running.pop(fence, None)
        if process is None:
            return None
        del self.by_key[process.key]
        event = AttemptEnded(fence, process.pid, process.started_at, now, **process.ending)
        self.ended[fence] = event
        return event

    def acknowledge(self, fence: int) -> None:
        self.ended.pop(fence, None)
        self.lost.pop(fence, None)
        require(fence not in self.running, "the end of a running process was acknowledged:", fence)
        self.acknowledged.add(fence)

    def die(self, now: datetime) -> None:
        """The runner and all of its processes are gone at once; the next one finds unfinished records."""
        for fence, process in self.running.items():
            began = self.rng.random() < 0.8
            self.lost[fence] = AttemptLost(fence, now, f"pid {process.pid} is gone and its record has no end", began)
        self.running.clear()
        self.by_key.clear()

    def known(self) -> set[int]:
        return set(self.running) | set(self.ended) | set(self.lost)

    def hello(self) -> list[Event]:
        """What a new daemon, or one that is back, is told."""
        return [
            *(AttemptStarted(process.fence, process.pid, process.started_at) for process in self.running.values()),
            *self.ended.values(),
            *self.lost.values(),
        ]
