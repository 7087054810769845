"""The only place where things are put together: one process, one task group, started in order and stopped in order.

Start: home → (database ‖ runner) → lock → recovery → doors → dag files → ready. Stop: the engine first (who
still waits for it hears so), then the doors, and the database last, since everybody saves to it.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import Any

import anyio
import uvloop

from fluxd import config, home
from fluxd.containment import Containment
from fluxd.core.commands import Saves
from fluxd.core.events import Event, Interrupt
from fluxd.core.scheduler import Scheduler
from fluxd.core.snapshot import Revived
from fluxd.core.spec import LOCAL, WAITING_ROOM
from fluxd.dagfiles import DagFiles
from fluxd.doors import Doors
from fluxd.engine import Engine
from fluxd.errors import FluxError, Unavailable, leaves
from fluxd.executors.local import LocalExecutor
from fluxd.flags import settings_from
from fluxd.health import Health, Sign
from fluxd.launch import Launcher
from fluxd.observations import Seen, observe, start_logging
from fluxd.persistence import Persistence, unused
from fluxd.progress import ProgressBoard
from fluxd.runner.client import ImportLimits
from fluxd.runner.starting import RunnerOptions
from fluxd.sensing import Sensing
from fluxd.signals import NAMED_STRAY, TOLD_TO_STOP, outlive_stray_signals
from fluxd.store import accounts, postmaster
from fluxd.store.embedded import Embedded
from fluxd.supervisor import LoopWatch, beat, cancelled, in_thread, keep_running, keep_up
from fluxd.systemd import Systemd
from fluxd.web.app import make_app
from fluxd.web.live import LiveHub
from fluxd.web.state import WebState

# The dag files of an ordinary folder are all known when we say "ready"; a folder of thousands goes on loading after it.
FIRST_LOAD_S = 1.5
INTERRUPT_S = 60.0
# How old the last sign of life may be.
TURN_LATE_S = 35.0
SAVE_LATE_S = 35.0
RUNNER_LATE_S = 30.0


class Daemon:
    """One fluxd. `serve` runs it until `stop` is called or a signal comes."""

    def __init__(self, settings: config.Settings, systemd: Systemd) -> None:
        self.settings = settings
        self.interactive = not systemd.started_us
        self._systemd = systemd
        self.started_at = datetime.now(UTC)
        self.live = LiveHub()
        self._stop = asyncio.Event()
        self._stop_reason = ""
        self._ending: anyio.CancelScope | None = None  # the time that tasks get to end in; another signal cuts it short
        self.address = ""
        self.health = Health()
        self.engine: Engine
        self._persistence_open = asyncio.Event()
        # What the runner tells while the database is still starting; None once the engine takes it.
        self._early: list[Event] | None = []
        # What a runner knows that was connected anew before there was an engine.
        self._early_known: set[int] | None = None
        self._recovered = False

    async def serve(self) -> None:
        home.prepare(self.settings)
        observe(Seen.STARTING, version=version("fluxd"), home=self.settings.home, dags=self.settings.dags)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._systemd.signs_of_life(self.health.hung))
            await self._start(stack)
            async with anyio.create_task_group() as group:
                group.start_soon(self._signals)
                group.start_soon(self._engine_task)
                await self._open_doors(stack)
                group.start_soon(keep_running, "dag files", self.dag_files.watch)
                group.start_soon(keep_running, "files of the home", self.doors.watch)
                group.start_soon(keep_running, "deleted dags", self.persistence.sweep)
                group.start_soon(keep_running, "heartbeats", self._beats)
                group.start_soon(keep_running, "progress", self.progress.run)
                await self._first_load()
                await self._say_ready()
                gc.freeze()  # what lives from here on was made at start; the collector need not look at it again
                await self._stop.wait()
                self._systemd.stopping()
                await self._end_tasks()
                group.cancel_scope.cancel()
        observe(Seen.STOPPED)

    # ---------------------------------------------------------------------------------------------- start

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        settings = self.settings
        self.executor = LocalExecutor(
            settings.home,
            post=self._post,
            source=self._source,
            reconciled=self._reconciled,
            troubled=lambda error: observe(Seen.RUNNER_AWAITED, reason=error.message),
            options=RunnerOptions(**asdict(settings.runner)),
            limits=ImportLimits(settings.dagfiles.import_timeout_s, settings.dagfiles.import_memory_mb),
        )
        runner = asyncio.create_task(self.executor.open())
        try:
            url, connections, end_backend = await self._database_url(stack)
            self.persistence = await stack.enter_async_context(Persistence.open(url, settings, end_backend))
            self._persistence_open.set()
        except BaseException:
            runner.cancel()
            raise
        self.launcher = Launcher(
            settings, version=self.persistence.version, xcoms=self.persistence.xcoms, connections=connections
        )
        self.sensing = Sensing(
            self._post,
            poke_timeout_s=settings.sensing.poke_timeout_s,
            pokes_at_once=settings.sensing.pokes_at_once,
            xcom_max_kb=settings.xcom_max_kb,
        )
        stack.push_async_callback(self.sensing.close)
        make = partial(Scheduler, parallelism=settings.executor.parallelism)
        self.engine = Engine(
            make(),
            contain=Containment(make, self.persistence),
            save=self.persistence.save,
            revive=self._revive,
            run_id_taken=self.persistence.run_id_taken,
            start_messages=self.launcher.messages,
            on_saved=self._saved,
            on_loaded=lambda loaded: self.launcher.recall(loaded.with_xcoms),
        )
        for sign in self._signs():
            self.health.expect(sign)
        self.progress = ProgressBoard(self.persistence.progress, self._progressed)
        self.engine.executors = {LOCAL: self.executor}
        self.engine.waiting = self.sensing
        known = await runner
        early, self._early = self._early or [], None
        for event in early:
            self.engine.post(event)
        stack.push_async_callback(self.executor.close)
        await self._recover(known if self._early_known is None else self._early_known)
        self._recovered = True
        self.dag_files = DagFiles(
            settings, load=self._load, store=self.persistence, post=self._post, on_change=self._files_changed
        )
        self._watch = LoopWatch(asyncio.get_running_loop())
        self._watch.start()
        stack.callback(self._watch.stop)

    def _signs(self) -> list[Sign]:
        """What has to come again and again, and how late it may be."""
        kept = self.persistence
        save_s = max(SAVE_LATE_S, 3 * self.settings.supervisor.beat_s)  # each heartbeat is a save
        return [
            Sign("turn", "the last turn", TURN_LATE_S, lambda: self.engine.last_turn, lambda: kept.last_try),
            Sign("save", "the last save", save_s, lambda: kept.last_save, lambda: kept.last_try),
            Sign(
                "runner",
                "the last answer of the runner",
                RUNNER_LATE_S,
                lambda: self.executor.last_answer,
                lambda: self.executor.last_try,
            ),
        ]

    async def _database_url(
        self, stack: contextlib.AsyncExitStack
    ) -> tuple[str, dict[str, str], Callable[[int], bool] | None]:
        """The address of the database, the connections that tasks get for it, and how to end a backend of our own."""
        if self.settings.database_url:
            return self.settings.database_url, {}, None
        started = time.monotonic()
        self.embedded = Embedded(self.settings.home)
        stack.push_async_callback(self._stop_embedded)
        url = await in_thread(self.embedded.start)
        observe(Seen.DATABASE_READY, seconds=time.monotonic() - started, where="embedded in the home")
        # It outlives all that saves to it: it is kept up until the rest has stopped.
        keeping = asyncio.create_task(keep_running("embedded Postgres", partial(keep_up, self.embedded)))
        stack.push_async_callback(cancelled, keeping)
        return url, {"embedded": self.embedded.tasks_url()}, partial(postmaster.end_backend, self.embedded.data)

    async def _stop_embedded(self) -> None:
        """Unless another fluxd works on it, or tasks may live on that use it: the next fluxd finds it running.

        A fluxd that did not get so far as to know of tasks stops only what it started itself: nobody can use it yet.
        """
        if self._running() if self._recovered else not self.embedded.started:
            return
        with contextlib.suppress(Unavailable):  # it does not run
            async with unused(self.embedded.url(), str(self.settings.home)) as free:  # the next one may have begun
                if free:
                    await asyncio.to_thread(self.embedded.stop)

    async def _recover(self, known: set[int]) -> None:
        loaded = await self.engine.recover()
        await self.engine.reconcile(LOCAL, known)
        await self.engine.reconcile(WAITING_ROOM, set())  # nothing is polled for yet
        snapshot = loaded.snapshot
        observe(Seen.RECOVERED, runs=len(snapshot.runs), attempts=len(snapshot.attempts), dags=len(snapshot.dags))

    async def _open_doors(self, stack: contextlib.AsyncExitStack) -> None:
        await accounts.ensure_admin(self.persistence.db.read)  # before anybody can ask for a login
        state = WebState(
            db=self.persistence.db,
            post=self.engine.ask,
            live=self.live,
            settings=self.settings,
            started_at=self.started_at,
            status=self.status,
            health=self.health,
            commands={
                "explain": lambda number: self.engine.scheduler.explain(number),
                "tell": self._post,
                "instance_of": lambda fence: self.engine.scheduler.instance_of(fence),
                "progress": self.progress.tell,
            },
        )
        self.doors = await stack.enter_async_context(Doors.opened(self.settings, make_app(state)))
        stack.callback(self.live.close)
        self.address = self.doors.address

    async def _first_load(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOAD_S):
                await self.dag_files.loaded.wait()

    async def _say_ready(self) -> None:
        if self.interactive and sys.stdout.isatty():
            link = await accounts.make_login_link(self.persistence.db.read, self.settings.web.login_link_minutes)
            minutes = self.settings.web.login_link_minutes
            say(f"log in: {self.address}{link}  (once, within {minutes:g} minutes; again: fluxctl users login-link)")
        elif self.interactive:  # a link in a file lets in whoever can read the file
            say(f"log in: run fluxctl --home {self.settings.home} users login-link")
        say(f"ready: {self.address}")
        self._systemd.ready(self.address)

    # ---------------------------------------------------------------------------------------------- work

    def _post(self, event: Event) -> None:
        if self._early is None:
            self.engine.post(event)
        else:
            self._early.append(event)

    async def _source(self, bundle: str) -> tuple[str, dict[str, str]] | None:
        # A runner asks as soon as it is connected; the database may still be starting then.
        await self._persistence_open.wait()
        return await self.persistence.source(bundle)

    async def _load(self, file: str) -> dict[str, Any]:
        return await self.executor.load(file, self.settings.dags)

    async def _reconciled(self, known: set[int]) -> None:
        if self._early is None:
            await self.engine.reconcile(LOCAL, known)
        else:
            self._early_known = known

    async def _revive(self, run_number: int) -> Revived | None:
        revived = await self.persistence.revive(run_number)
        if revived is not None:  # any of its tasks may have XComs: the launcher forgot them when the run ended
            self.launcher.recall([instance.key for instance in revived.instances])
        return revived

    async def _engine_task(self) -> None:
        await self.engine.run()

    async def _beats(self) -> None:
        await beat(self.settings.supervisor.beat_s, self.persistence.beat)

    def _saved(self, saves: Saves) -> None:
        self.launcher.note(saves)
        self.live.publish("changed", self.persistence.feed.changes(saves))

    def _progressed(self, fences: list[int]) -> None:
        instances = [one for fence in fences if (one := self.engine.scheduler.instance_of(fence)) is not None]
        self.live.publish("changed", self.persistence.feed.changes(Saves(instances=instances)))

    def _files_changed(self, file: str) -> None:
        self.live.publish("changed", {"runs": [], "tasks": [], "dags": [], "files": [file]})

    def status(self) -> dict[str, Any]:
        """The facts of /healthz and `fluxctl status`."""
        return {
            "version": version("fluxd"),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "home": str(self.settings.home),
            "dags_folder": str(self.settings.dags),
            "address": self.address,
            "started_at": self.started_at,
            "database": "external" if self.settings.database_url else "embedded",
            "runner_pid": self.executor.runner.get("pid"),
            "running": self._running(),
            **self.engine.scheduler.counts(),
            "waiting": self.sensing.waiting,
            "turns": self.engine.turns,
        }

    def _running(self) -> int:
        """How many attempts have, or are about to have, a process."""
        return self.engine.scheduler.counts()["slots_taken"] if self._early is None else 0

    # ---------------------------------------------------------------------------------------------- stop

    async def _signals(self) -> None:
        with anyio.open_signal_receiver(*map(signal.Signals, TOLD_TO_STOP), *NAMED_STRAY) as signals:
            async for number in signals:
                if number not in TOLD_TO_STOP:
                    observe(Seen.SIGNAL_IGNORED, signal=signal.Signals(number).name)
                elif self._ending is not None:
                    self._ending.cancel()
                elif not self._stop.is_set():
                    self._stop_reason = signal.Signals(number).name
                    self._stop.set()

    async def _end_tasks(self) -> None:
        """TERM leaves running tasks alone. Ctrl-C in a terminal ends them, and they fail as interrupted.

        Another signal, and we wait no longer: the runner ends them in their grace, and the next fluxd hears of it.
        """
        running = self._running()
        interrupted = self._stop_reason == "SIGINT"
        fate = "are ended and marked failed: interrupted" if interrupted else "live on and are found again"
        observe(Seen.STOPPING, reason=self._stop_reason, running=running, fate=fate)
        if not interrupted:
            return
        with anyio.CancelScope() as self._ending:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERRUPT_S):
                    for task_id, map_index in (await self.engine.ask(Interrupt))["ending"]:
                        say(f"ending: {task_id}{'' if map_index < 0 else f'[{map_index}]'}")
                    await self.engine.until(lambda: not self._running())
            with contextlib.suppress(TimeoutError):  # what is not told now, the exit records tell at the next start
                async with asyncio.timeout(INTERRUPT_S):
                    await self.executor.stop()


def say(line: str) -> None:
    """A line for whoever started us. A closed stdout is no reason to stop."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def main() -> None:
    """The console script `fluxd`."""
    try:
        settings = settings_from(sys.argv[1:])
        start_logging(settings.daemon.log_level, settings.daemon.log_format)
        os.umask(0o027)
        home.raise_descriptor_limit()
        outlive_stray_signals()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(Daemon(settings, Systemd.take()).serve())
    except* FluxError as errors:
        sys.exit("\n".join(f"fluxd: {error}" for error in leaves(errors)))


if __name__ == "__main__":
    main()
