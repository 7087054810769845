"""The web side on a real database and a real port, with a scheduler of one line behind it: it notes what is posted."""

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from fluxd.config import DaemonSettings, Settings
from fluxd.store import accounts
from fluxd.store.database import Database
from fluxd.web.app import make_app
from fluxd.web.doors import Door, make_runner
from fluxd.web.live import LiveHub
from fluxd.web.state import WebState

Answer = Callable[[Any], Any]


@dataclass
class Served:
    """A running web side: its address, its state, and the events that were posted to it."""

    url: str
    state: WebState
    app: web.Application
    runner: web.AppRunner
    door: Door
    posted: list[Any] = field(default_factory=list)
    answers: dict[type, Answer] = field(default_factory=dict)

    async def login(self, http: aiohttp.ClientSession) -> str:
        """Log in with a fresh link; gives the session's CSRF token."""
        link = await accounts.make_login_link(self.state.db.read, 15)
        async with http.post(self.url + link, allow_redirects=False) as response:
            assert response.status == 303, await response.text()
        return str(await self.state.db.read.fetchval("SELECT csrf FROM session ORDER BY created_at DESC LIMIT 1"))


@contextlib.asynccontextmanager
async def serve(
    db: Database, home: Path, listen: str = "127.0.0.1:0", places: int = 100, **settings: Any
) -> AsyncIterator[Served]:
    """Serve pages and API on a free port of loopback."""
    await accounts.ensure_admin(db.read)
    daemon = DaemonSettings(listen=listen)
    served: Served

    async def post(make: Callable[[int], Any]) -> Any:
        event = make(len(served.posted) + 1)
        served.posted.append(event)
        answer = served.answers.get(type(event))
        value = answer(event) if answer else {}
        return await value if hasattr(value, "__await__") else value

    state = WebState(
        db=db,
        post=post,
        live=LiveHub(),
        settings=replace(Settings(home=home, daemon=daemon), **settings),
        started_at=datetime.now(UTC),
        status=dict,
    )
    app = make_app(state)
    runner = make_runner(app)
    await runner.setup()
    sock = socket.create_server(("127.0.0.1", 0))
    door = Door(runner, sock, places)
    await door.start()
    served = Served(f"http://127.0.0.1:{sock.getsockname()[1]}", state, app, runner, door)
    try:
        yield served
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def serve_again(served: Served, port: int) -> AsyncIterator[None]:
    """The same again after its end, at the same port, as a fluxd that was started anew."""
    state = replace(served.state, live=LiveHub())
    runner = make_runner(make_app(state))
    await runner.setup()
    await Door(runner, socket.create_server(("127.0.0.1", port)), 100).start()
    served.state = state
    try:
        yield
    finally:
        await runner.cleanup()
