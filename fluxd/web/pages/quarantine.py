"""What could not be taken and was put aside: what it was, the error, what became of it, and the evidence."""

import json

from aiohttp import web

from fluxd.store import quarantine
from fluxd.web.render import render
from fluxd.web.state import STATE

SHOWN = 100


async def page(request: web.Request) -> web.Response:
    """GET /quarantine."""
    rows = await quarantine.read(request.app[STATE].db.read, SHOWN)
    for row in rows:
        row["event"] = json.dumps(row["event"], indent=2, ensure_ascii=False, default=str)
    return await render(request, "quarantine.html", rows=rows)
