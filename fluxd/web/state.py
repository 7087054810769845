"""What the web side is given by the daemon: a window to look through and a slot to post events into, nothing more."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiohttp import web

from fluxd.config import Settings
from fluxd.core.events import Event
from fluxd.health import Health
from fluxd.store.database import Database
from fluxd.web.drawing import Drawings
from fluxd.web.live import LiveHub


@dataclass
class WebState:
    """The web's whole knowledge of the daemon.

    `post` takes a function that makes an event from a request number, and gives the reply's value after it was saved;
    it raises FluxError where the answer is an error. `status()` gives the facts of `/healthz` and `fluxctl status`.
    `health` says what is late. `commands` are verbs of the daemon that are not events of the scheduler, by name.
    """

    db: Database
    post: Callable[[Callable[[int], Event]], Awaitable[Any]]
    live: LiveHub
    settings: Settings
    started_at: datetime
    status: Callable[[], dict[str, Any]]
    health: Health = field(default_factory=Health)
    commands: dict[str, Callable[..., Any]] = field(default_factory=dict)


STATE = web.AppKey("state", WebState)
# The pictures of dags that were drawn, and the drawing of new ones.
DRAWINGS = web.AppKey("drawings", Drawings)
# The connections that are being answered.
WORKING = web.AppKey("working", set[asyncio.BaseProtocol])
