"""The runner of the simulation, and the daemon's link to it: processes that outlive the daemon, exit records, and what
goes wrong with them and with the messages between.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fluxd.core.events import AttemptEnded, AttemptLost, AttemptStarted, Event
from fluxd.core.model import InstanceKey
from fluxd.core.outcome import read_outcome
from fluxd.core.spec import LOCAL, TaskSpec
from tests.sim.hostile import absurd_outcome
from tests.sim.violation import require

if TYPE_CHECKING:
    from tests.sim.daemon import Fluxd
    from tests.sim.world import World


@dataclass(slots=True)
class Process:
    fence: int
    key: InstanceKey
    pid: int
    started_at: datetime
    ending: dict[str, Any]
    killed: bool = False


@dataclass
class Runner:
    """Processes and records by fence. A record is there before the process, and until it is acknowledged."""

    world: "World"
    running: dict[int, Process] = field(default_factory=dict)
    by_key: dict[InstanceKey, int] = field(default_factory=dict)
    ended: dict[int, AttemptEnded] = field(default_factory=dict)
    lost: dict[int, AttemptLost] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)
    last_fence: dict[InstanceKey, int] = field(default_factory=dict)
    keys_seen: dict[str, int] = field(default_factory=dict)
    pids: int = 100

    def start(self, message: dict[str, Any], key: InstanceKey, task: TaskSpec, now: datetime) -> Event | None:
        """Fork a process, unless there is a record of this fence already."""
        fence = message["fence"]
        require(fence not in self.acknowledged, "an attempt whose end is stored was started again:", fence)
        if fence in self.running or fence in self.ended or fence in self.lost:
            self.world.faults["start repeated"] += 1
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
        rng = self.world.rng
        usage = {"user_s": 0.5}
        if self.world.chance("hostile outcome", 0.4):
            return {"exit_code": 0, "outcome": read_outcome(absurd_outcome(rng))}
        if task.kind == "sensor" and rng.random() < 0.8:
            return {"exit_code": 0, "outcome": {"state": "waiting", "wait": self.world.new_wait()}}
        kind = rng.choices(("success", "failed", "no retry", "skipped", "exit", "signal"), (14, 4, 1, 1.5, 1, 1))[0]
        xcoms = [["return_value", rng.randrange(10**6)]] + [["more", None]] * (rng.random() < 0.2)
        match kind:
            case "success":
                return {"exit_code": 0, "usage": usage, "outcome": {"state": "success", "xcoms": xcoms}}
            case "failed" | "no retry":
                error = {"type": "ValueError", "message": "no", "retry": kind == "failed"}
                some = xcoms if rng.random() < 0.3 else []
                return {"exit_code": 1, "outcome": {"state": "failed", "error": error, "xcoms": some}}
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
        match self.world.rng.randrange(7):
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
            began = self.world.rng.random() < 0.8
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


class Link:
    """The executor of one daemon: what it says goes in order and late, or is lost with the connection."""

    def __init__(self, world: "World", fluxd: "Fluxd") -> None:
        self.world = world
        self.fluxd = fluxd
        self.connected = False
        self._number = 0
        self._sent_until = 0.0
        self._orders: deque[Callable[[], None]] = deque()

    # -- the protocol of executors --------------------------------------------------------------------------------

    async def open(self) -> set[int]:
        self.connected = True
        self._sent_until = 0.0
        for event in self.world.runner.hello():
            self.fluxd.post(event)
        return self.world.runner.known()

    def start(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            self.fluxd.must_live()
            self.world.oracle.started(message)
            self._send(lambda message=message: self._arrived(message))

    def kill(self, fence: int, reason: str) -> None:
        self.fluxd.must_live()
        self.world.oracle.killed(fence, reason)
        self._send(lambda: self._killed(fence))

    def ack(self, fences: list[int]) -> None:
        for fence in fences:
            self.fluxd.must_live()
            self.world.oracle.acked(fence)
            self._send(lambda fence=fence: self.world.runner.acknowledge(fence))

    async def stop(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        self.connected = False

    # -- the connection -------------------------------------------------------------------------------------------

    def lose(self) -> None:
        """Everything on its way, in both directions, is lost."""
        self._number += 1
        self._orders.clear()
        self.connected = False

    def break_for(self, seconds: float) -> None:
        self.world.disturbed(seconds + 10)
        self.lose()
        self.world.later(seconds, self.reconnect)

    def reconnect(self) -> None:
        if not self.connected and self.fluxd.alive and self.fluxd.up:
            self.world.spawn(self._reconnected())

    async def _reconnected(self) -> None:
        known = await self.open()
        await self.fluxd.engine.reconcile(LOCAL, known)

    def _send(self, order: Callable[[], None]) -> None:
        world = self.world
        if not self.connected:
            return
        if world.chance("connection broken"):
            self.break_for(world.rng.choice((0.5, 20)))
            return
        number = self._number
        self._sent_until = max(self._sent_until, world.clock_time() + world.rng.choice((0, 0, 0.01, 0.5)))

        self._orders.append(order)

        def arrive() -> None:
            if number == self._number:
                self._orders.popleft()()  # in order, also where two arrive at the same time

        world.later(self._sent_until - world.clock_time(), arrive)

    def tell(self, event: Event | None) -> None:
        """From the runner: late, twice or out of order, or never if the connection breaks first."""
        world = self.world
        if event is None or not self.connected:
            return
        number = self._number
        delays = [world.rng.choice((0, 0, 0.01, 1))]
        if world.chance("message late", 3):
            delays = [world.rng.uniform(5, 900)]
        if world.chance("message repeated", 3):
            delays.append(world.rng.uniform(0, 900))
        for delay in delays:

            def arrive() -> None:
                if number == self._number and self.connected:
                    self.fluxd.post(event)

            world.later(delay, arrive)

    def _arrived(self, message: dict[str, Any]) -> None:
        world = self.world
        key = (world.tables.run_ids[message["dag_id"], message["run_id"]], message["task_id"], message["map_index"])
        task = world.tables.versions[world.tables.runs[key[0]].version_id].by_id[key[1]]
        event = world.runner.start(message, key, task, world.daemon_now())
        if event is None:
            return
        fence = message["fence"]
        world.tell(event)
        seconds = world.rng.choice((0, 1, 5, 30, 120, 700, None))
        if seconds is not None:  # else it ends only when it is told to
            world.later(seconds, lambda: world.process_ends(fence))
        if world.chance("runner died"):
            world.runner_dies()

    def _killed(self, fence: int) -> None:
        world = self.world
        if world.runner.kill(fence):
            world.later(world.rng.choice((0, 0.1, 10)), lambda: world.process_ends(fence))
