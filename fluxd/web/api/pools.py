"""Pools: named limits with slots."""

import re

from aiohttp import web

from fluxd.core.events import PoolSet
from fluxd.errors import Invalid
from fluxd.store import api_views, pools
from fluxd.web.api import serializers
from fluxd.web.api.answers import answer
from fluxd.web.api.validation import Ask

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


async def list_pools(ask: Ask) -> web.Response:
    return answer({"pools": [serializers.pool(row) for row in await api_views.pools(ask.db)]})


async def set_pool(ask: Ask) -> web.Response:
    """Saved first, then the scheduler is told; a restart between the two reads it from the database."""
    name, slots = ask.path["name"], ask.body["slots"]
    if not NAME.fullmatch(name):
        raise Invalid(
            "FLX-4102",
            f"The pool name {name[:80]!r} cannot be used: it is 1 to 200 of the characters A-Z a-z 0-9 _ . - and "
            "begins with neither . nor -.",
        )
    await pools.put(ask.db, name, slots, ask.body["description"])
    ask.state.commands["tell"](PoolSet(name, slots))
    return answer({"name": name, "slots": slots})
