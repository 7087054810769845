"""A whole daemon without processes: real Postgres, real engine, the whole web application on a Unix socket.

Only the executor is played by the test: what the engine asks to be started waits in `starts` until the test says how
it ended.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from fluxd import config, home
from fluxd.containment import Containment
from fluxd.core.commands import BeginWait, Saves, StartAttempt
from fluxd.core.events import AttemptEnded, AttemptStarted, DagLoaded
from fluxd.core.scheduler import Scheduler
from fluxd.core.spec import LOCAL, dag_from_json
from fluxd.engine import Engine
from fluxd.persistence import Persistence
from fluxd.progress import ProgressBoard
from fluxd.store import accounts
from fluxd.web.app import make_app
from fluxd.web.doors import Door, make_runner
from fluxd.web.live import LiveHub
from fluxd.web.state import WebState

T0 = datetime(2026, 1, 2, 6, tzinfo=UTC)


class Executor:
    """Takes what the engine asks for and does nothing with it."""

    def __init__(self) -> None:
        self.starts: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.kills: list[int] = []
        self.acks: list[int] = []

    def start(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            self.starts.put_nowait(message)

    def kill(self, fence: int, reason: str) -> None:
        self.kills.append(fence)

    def ack(self, fences: list[int]) -> None:
        self.acks += fences

    def begin(self, command: BeginWait) -> None: ...

    def end(self, fence: int) -> None: ...


class World:
    """What a test has in its hands."""

    def __init__(self, persistence: Persistence, settings: config.Settings) -> None:
        self.persistence = persistence
        self.settings = settings
        self.executor = Executor()
        self.live = LiveHub()
        self.engine = Engine(
            Scheduler(),
            save=persistence.save,
            revive=persistence.revive,
            run_id_taken=persistence.run_id_taken,
            start_messages=self._messages,
            on_saved=self._saved,
            contain=Containment(Scheduler, persistence),
        )
        self.progress_stored = asyncio.Event()
        self.progress = ProgressBoard(persistence.progress, lambda fences: self.progress_stored.set())
        self.engine.executors = {LOCAL: self.executor}
        self.engine.waiting = self.executor
        self.state = WebState(
            db=persistence.db,
            post=self.engine.ask,
            live=self.live,
            settings=settings,
            started_at=datetime.now(UTC),
            status=lambda: {"version": "0", "address": "http://127.0.0.1:1"},
            commands={
                "tell": self.engine.post,
                "explain": lambda number: self.engine.scheduler.explain(number),
                "instance_of": lambda fence: self.engine.scheduler.instance_of(fence),
                "progress": self.progress.tell,
            },
        )
        self.http: aiohttp.ClientSession

    async def _messages(self, starts: list[StartAttempt]) -> list[dict[str, Any]]:
        return [
            {
                "fence": start.fence,
                "dag_id": start.run.dag_id,
                "run_id": start.run.run_id,
                "task_id": start.instance.task_id,
                "map_index": start.instance.map_index,
                "try_number": start.instance.try_number,
            }
            for start in starts
        ]

    def _saved(self, saves: Saves) -> None:
        self.live.publish("changed", self.persistence.feed.changes(saves))

    async def load(self, *specs: dict[str, Any], file: str = "sales.py", source: str = "# sales") -> None:
        """A dag file is there and good."""
        message = {"bundle": f"b-{file}", "files": {file: source}, "dags": list(specs), "seconds": 0.1}
        versions = (await self.persistence.loaded(file, message)).versions
        for spec in specs:
            self.engine.post(DagLoaded(dag_from_json(spec), versions[spec["dag_id"]]))

    async def started(self) -> dict[str, Any]:
        """The next attempt that the engine wants started; it runs now."""
        async with asyncio.timeout(5):
            message = await self.executor.starts.get()
        self.engine.post(AttemptStarted(message["fence"], 100 + message["fence"], datetime.now(UTC)))
        return message

    def ended(self, message: dict[str, Any], state: str = "success", **outcome: Any) -> None:
        """That attempt's process is gone, and this is what it said."""
        now = datetime.now(UTC)
        code = 0 if state == "success" else 1
        outcome = {"state": state, "xcoms": [], **outcome}
        self.engine.post(AttemptEnded(message["fence"], 100 + message["fence"], now, now, code, outcome=outcome))

    def log(self, message: dict[str, Any], data: bytes) -> Path:
        """Append to the log of an attempt."""
        folder = self.settings.logs / message["dag_id"] / message["run_id"] / message["task_id"]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{message['try_number']}.log"
        with path.open("ab") as file:
            file.write(data)
        return path

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        """(status, JSON) of a request below /api/v1."""
        async with self.http.request(method, f"http://flux/api/v1{path}", json=body, **more) as response:
            return response.status, await response.json(content_type=None)

    async def get(self, path: str) -> Any:
        status, body = await self.ask("GET", path)
        assert status == 200, body
        return body


@contextlib.asynccontextmanager
async def open_world(db_url: str, folder: Path) -> AsyncIterator[World]:
    """A world in this home, on this database."""
    settings = config.load(folder, environment={})
    home.prepare(settings)
    async with Persistence.open(db_url, settings) as persistence, contextlib.AsyncExitStack() as stack:
        world = World(persistence, settings)
        await world.engine.recover()
        engine = asyncio.ensure_future(world.engine.run())
        progress = asyncio.ensure_future(world.progress.run())
        await accounts.ensure_admin(persistence.db.read)
        runner = make_runner(make_app(world.state))
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await Door(runner, home.unix_socket(settings.socket), home.UNIX_PLACES).start()
        world.http = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(settings.socket)))
        )
        try:
            yield world
        finally:
            world.live.close()
            for work in (engine, progress):
                work.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await work
