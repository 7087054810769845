"""GET /healthz: whether this daemon does its work. It answers anybody, so it says no more than that."""

import asyncio

from aiohttp import web

from fluxd.errors import Unavailable
from fluxd.store.database import GONE, PASSING
from fluxd.web.state import STATE

PATIENCE_S = 2.0


async def healthz(request: web.Request) -> web.Response:
    """200 when all signs of life are in time and the database answers, else 503 with what is late."""
    state = request.app[STATE]
    try:
        async with asyncio.timeout(PATIENCE_S):
            await state.db.work.fetchval("SELECT 1")
    except (TimeoutError, *GONE, *PASSING):
        raise Unavailable("FLX-4089", "The database does not answer; running tasks go on.") from None
    if late := state.health.late():
        raise Unavailable("FLX-4233", f"fluxd is late: {'; '.join(late)}. Running tasks go on; see `fluxctl doctor`.")
    return web.json_response({"status": "ok"})
