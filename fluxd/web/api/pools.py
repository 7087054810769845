"""Pools: named limits with slots."""

from aiohttp import web

from fluxd.core.events import PoolSet
from fluxd.store import api_views, pools
from fluxd.web.api import shapes
from fluxd.web.api.answers import answer
from fluxd.web.api.asking import Ask


async def list_pools(ask: Ask) -> web.Response:
    return answer({"pools": [shapes.pool(row) for row in await api_views.pools(ask.db)]})


async def set_pool(ask: Ask) -> web.Response:
    """Saved first, then the scheduler is told; a restart between the two reads it from the database."""
    name, slots = ask.path["name"], ask.body["slots"]
    await pools.put(ask.db, name, slots, ask.body["description"])
    ask.state.commands["tell"](PoolSet(name, slots))
    return answer({"name": name, "slots": slots})
