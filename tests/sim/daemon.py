"""One fluxd of the simulation: the real rooms, put together as fluxd.daemon does."""

import asyncio
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fluxd.engine
from fluxd.config import ExecutorSettings, Settings
from fluxd.containment import Containment
from fluxd.core.commands import BeginWait, Saves, Turn
from fluxd.core.events import Event
from fluxd.core.moment import Moment
from fluxd.core.scheduler import Scheduler
from fluxd.core.snapshot import Revived, Snapshot
from fluxd.core.spec import LOCAL, WAITING_ROOM
from fluxd.engine import Engine
from fluxd.errors import FluxError
from fluxd.launch import Launcher
from fluxd.persistence import Persistence
from fluxd.sensing import Sensing
from tests.sim.runner import Link

if TYPE_CHECKING:
    from tests.sim.world import World

POKE_TIMEOUT_S = 30.0
# An idle engine looks up every five seconds, as a sign of life: nobody looks for it here, and lives are long.
fluxd.engine.LOOK_S = 60.0


class Watched(Scheduler):
    """The scheduler, which shows the oracle each turn before it is saved."""

    def __init__(self, parallelism: int, world: "World") -> None:
        super().__init__(parallelism)
        self._world = world

    def recover(self, snapshot: Snapshot, now: Moment, since: Moment | None = None) -> Turn:
        turn = super().recover(snapshot, now, since)
        self._world.oracle.recovered(self, snapshot, now, since, turn)
        return turn

    def handle(self, events: Iterable[Event], now: Moment) -> Turn:
        events = list(events)
        turn = super().handle(events, now)
        self._world.oracle.decided(self, events, now, turn)
        return turn


class Waits:
    """Sensing, seen by the oracle."""

    def __init__(self, fluxd: "Fluxd", sensing: Sensing) -> None:
        self._fluxd, self._sensing = fluxd, sensing

    def begin(self, command: BeginWait) -> None:
        self._fluxd.must_live()
        self._fluxd.world.oracle.wait_begun(command)
        self._sensing.begin(command)

    def end(self, fence: int) -> None:
        self._fluxd.must_live()
        self._sensing.end(fence)


class Fluxd:
    """From its start to its crash."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.alive = True
        self.up = False
        settings = Settings(Path("/sim"), executor=ExecutorSettings(parallelism=world.parallelism))
        world.server.restarted()
        self.persistence = Persistence(world.server, settings)  # type: ignore[arg-type]
        self.launcher = Launcher(
            settings, version=self.persistence.version, xcoms=self.persistence.xcoms, connections={}
        )
        self.sensing = Sensing(
            self.post, poke_timeout_s=POKE_TIMEOUT_S, pokes_at_once=4, xcom_max_kb=8, now=world.daemon_now
        )
        make = partial(Watched, world.parallelism, world)
        self.engine = Engine(
            make(),
            contain=Containment(make, self.persistence),
            save=self.persistence.save,
            revive=self._revive,
            run_id_taken=self.persistence.run_id_taken,
            start_messages=self.launcher.messages,
            on_saved=self._saved,
            on_loaded=lambda loaded: self.launcher.recall(loaded.with_xcoms),
            clock=world.moment,
        )
        self.link = Link(world, self)
        self.engine.executors = {LOCAL: self.link}
        self.engine.waiting = Waits(self, self.sensing)
        self.task = world.spawn(self._live())

    def must_live(self) -> None:
        """A command of the engine: between two of them fluxd may be killed."""
        if self.alive and self.world.chance("crash between two commands", 0.3):
            self.world.crash()
        if not self.alive:
            raise asyncio.CancelledError

    def post(self, event: Event) -> None:
        if self.alive:
            self.engine.post(event)

    async def _live(self) -> None:
        try:
            known = await self.link.open()
            await asyncio.sleep(0.05)
            self.world.server.lock(self.world.server.writer)
            await self.engine.recover()
            await self.engine.reconcile(LOCAL, known)
            await self.engine.reconcile(WAITING_ROOM, set())
        except Exception as error:
            if not self.world.server.is_trouble(error):
                raise
            self.world.crash()  # it ends, and is started again
            return
        self.up = True
        self.world.disturbed(10)
        if not self.link.connected:
            self.link.reconnect()
        await self.engine.run()

    async def ask(self, make: Any) -> None:
        """Somebody asks, and hears the answer."""
        world = self.world
        asked = world.clock_time()
        number = 0

        def numbered(request: int) -> Any:
            nonlocal number
            number = request
            return make(request)

        try:
            answer = await self.engine.ask(numbered)
            world.counts["answered"] += 1
            world.oracle.answered(number, answer, None)
        except FluxError as error:
            if not self.alive:
                return
            world.counts["refused"] += 1
            world.oracle.answered(number, None, error)
        world.oracle.in_time("an answer", asked)

    async def _revive(self, run_number: int) -> Revived | None:
        revived = await self.persistence.revive(run_number)
        if revived is not None:
            self.launcher.recall([instance.key for instance in revived.instances])
        return revived

    def _saved(self, saves: Saves) -> None:
        self.launcher.note(saves)
        self.persistence.feed.changes(saves)

    def kill(self) -> None:
        """kill -9: what is not saved is gone, and so are the messages on their way."""
        self.alive = False
        self.link.lose()
        self.world.server.writer.terminate()
        self.task.cancel()
        for task in self.sensing._tasks:
            task.cancel()
