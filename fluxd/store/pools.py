"""Pools: named limits with slots. The engine learns of a change by a `PoolSet` event, posted after the row is there."""

from typing import Any

import asyncpg

from fluxd.errors import Invalid, NotFound, Refused
from fluxd.store.queries import QUERIES
from fluxd.store.storable import text

DEFAULT = "default_pool"
# More than anything here could run at once.
SLOTS_MAX = 1_000_000


async def read(conn: asyncpg.Connection | asyncpg.Pool) -> list[dict[str, Any]]:
    """All pools by name: {"name", "slots", "description"}."""
    return [dict(row) for row in await conn.fetch(QUERIES["read_pools"])]


async def put(conn: asyncpg.Connection | asyncpg.Pool, name: str, slots: int, description: str | None = None) -> None:
    """Make a pool or change it. Raises Invalid FLX-5051."""
    if not 0 <= slots <= SLOTS_MAX:
        raise Invalid("FLX-5051", f"Pool {name!r} cannot have {slots} slots: give a number from 0 to {SLOTS_MAX}.")
    await conn.execute(QUERIES["put_pool"], name, slots, text(description))


async def delete(conn: asyncpg.Connection | asyncpg.Pool, name: str) -> None:
    """Remove a pool. Raises Refused FLX-5052 for the default pool, NotFound FLX-5053."""
    if name == DEFAULT:
        raise Refused("FLX-5052", f"The pool {DEFAULT} cannot be removed: tasks that name no pool are in it.")
    if await conn.fetchval(QUERIES["delete_pool"], name) is None:
        raise NotFound("FLX-5053", f"There is no pool {name!r}: see `fluxctl pools list`.")
