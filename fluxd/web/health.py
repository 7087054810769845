"""GET /healthz: whether this daemon can do its work. It answers anybody, so it says no more than that."""

import asyncio

from aiohttp import web

from fluxd.errors import Unavailable
from fluxd.store.database import GONE
from fluxd.web.state import STATE

PATIENCE_S = 2.0


async def healthz(request: web.Request) -> web.Response:
    """200 when the database answers in time, else 503."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await request.app[STATE].db.read.fetchval("SELECT 1")
    except (TimeoutError, *GONE):
        raise Unavailable("FLX-4089", "The database does not answer; running tasks go on.") from None
    return web.json_response({"status": "ok"})
