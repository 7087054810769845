"""The live part of the database, for a scheduler that begins. A row that cannot be read is named, not stumbled over.

Such a row (a spec of a form that is not known, a time that Python has not) was made by no Flux of this version; what
depends on it is left out, and all else is loaded.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import asyncpg

from fluxd.core.model import InstanceKey
from fluxd.core.snapshot import Snapshot
from fluxd.core.spec import dag_from_json
from fluxd.store import rows
from fluxd.store.database import GONE, answering
from fluxd.store.queries import QUERIES
from fluxd.store.turns import warm

LOAD_SECONDS = 300.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that cannot be read. `key` names it: dag_id, run_number or version_id is in it."""

    query: str
    key: dict[str, Any]
    error: Exception


@dataclass(slots=True)
class Loaded:
    """All that a scheduler must know at its start."""

    snapshot: Snapshot
    with_xcoms: list[InstanceKey] = field(default_factory=list)  # which instances of live runs have XComs
    broken: list[BrokenRow] = field(default_factory=list)


async def load(conn: asyncpg.Connection) -> Loaded:
    """The live part of the database, as of one moment. Its cost grows with what lives, not with history."""
    await warm(conn)
    broken: list[BrokenRow] = []

    async def all_of(query: str, key: str, make: Callable[[Any], T]) -> list[T]:
        return await _readable(conn, query, key, make, broken)

    async with answering(conn, LOAD_SECONDS), conn.transaction(isolation="repeatable_read", readonly=True):
        numbers = await conn.fetchrow(QUERIES["load_last_numbers"])
        snapshot = Snapshot(
            dags=await all_of("load_dags", "dag_id", rows.dag),
            versions=dict(
                await all_of("load_versions", "version_id", lambda row: (row["version_id"], dag_from_json(row["spec"])))
            ),
            runs=await all_of("load_runs", "number", rows.run),
            instances=await all_of("load_instances", "run_number", rows.instance),
            attempts=await all_of("load_attempts", "run_number", rows.attempt),
            past=await all_of("load_past", "dag_id", rows.past),
            pools={row["name"]: row["slots"] for row in await conn.fetch(QUERIES["read_pools"])},
            last_run_number=numbers["run_number"],
            last_fence=numbers["fence"],
        )
        with_xcoms = [
            (row["run_number"], row["task_id"], row["map_index"])
            for row in await conn.fetch(QUERIES["tasks_with_xcoms"])
        ]
    return Loaded(snapshot, with_xcoms, broken)


async def _readable(
    conn: asyncpg.Connection, query: str, key: str, make: Callable[[Any], T], broken: list[BrokenRow]
) -> list[T]:
    """What can be made of the rows of this query. The others are found by halves, since one that cannot be decoded
    hides all that come with it."""

    async def part(first: int, count: int) -> list[T]:
        try:
            async with conn.transaction():
                sql = f"SELECT * FROM ({QUERIES[query]}) AS found OFFSET $1 LIMIT $2"
                return [make(row) for row in await conn.fetch(sql, first, count)]
        except GONE:
            raise
        except Exception as error:
            if count == 1:
                sql = f"SELECT {key} FROM ({QUERIES[query]}) AS found OFFSET $1 LIMIT 1"
                broken.append(BrokenRow(query, {key: await conn.fetchval(sql, first)}, error))
                return []
        half = count // 2
        return await part(first, half) + await part(first + half, count - half)

    try:
        async with conn.transaction():
            return [make(row) for row in await conn.fetch(QUERIES[query])]
    except GONE:
        raise
    except Exception:
        count = await conn.fetchval(f"SELECT count(*) FROM ({QUERIES[query]}) AS found")
        return await part(0, count)
