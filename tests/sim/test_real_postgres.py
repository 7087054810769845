"""The same lives on a real Postgres: every turn that was committed is saved there again through the real Persistence,
and row by row the tables must be what the model says; so must be what a recovery reads.
"""

import asyncio
from dataclasses import fields
from typing import Any

import orjson
import pytest

from fluxd.core.model import Attempt, Instance, Run
from fluxd.store import forgotten
from fluxd.store.database import Database
from fluxd.store.loading import load
from fluxd.store.queries import QUERIES
from fluxd.store.storable import JSON_NULL
from tests.sim.postgres import WIDTH
from tests.sim.world import World

SEEDS = range(40, 60)


def lived(seed: int) -> World:
    """A life up to the moment at which it is calm: there is more to compare while something lives."""
    world = World(seed)
    world.half = seed % 2 == 0
    world.live()
    return world


async def replay(db: Database, world: World) -> None:
    """The journal of a life, statement by statement, each commit as one transaction."""
    conn = db.writer
    await conn.execute("TRUNCATE bundle, dag_file, dag, dag_version, pool, high_water CASCADE")
    await conn.execute("INSERT INTO high_water (run_number, fence) VALUES (0, 0)")
    await conn.execute("INSERT INTO bundle (hash, file, files) VALUES ('b', 'file.py', '{}')")
    for work in world.tables.journal:
        async with conn.transaction():
            if work[0][0] == "store_version":
                version, dag_id, spec = work[0][1]
                await conn.execute(
                    "INSERT INTO dag (dag_id, file, version_id) VALUES ($1, 'file.py', $2) "
                    "ON CONFLICT (dag_id) DO UPDATE SET version_id = $2, removed = false",
                    dag_id,
                    version,
                )
                await conn.execute(
                    "INSERT INTO dag_version (id, dag_id, number, spec, spec_hash, bundle) OVERRIDING SYSTEM VALUE "
                    "VALUES ($1, $2, $1::bigint, $3, $1::bigint::text, 'b')",
                    version,
                    dag_id,
                    spec,
                )
                continue
            for name, columns in work:
                assert len(columns) == WIDTH[name]
                await conn.execute(QUERIES[name], *columns)
        for dag_id in await forgotten.dags(conn):
            while await forgotten.batch(conn, dag_id):
                pass


def plain(value: Any) -> Any:
    """A value as the database gives it back."""
    if value is JSON_NULL:
        return None
    if isinstance(value, dict | list):
        return orjson.loads(orjson.dumps(value))
    return str(value) if isinstance(value, str) else value


def rows_of(cls: type, rows: Any) -> list[tuple[Any, ...]]:
    names = [field.name for field in fields(cls)]
    return sorted((tuple(plain(getattr(row, name)) for name in names) for row in rows), key=repr)


@pytest.mark.anyio
@pytest.mark.parametrize("seed", SEEDS)
async def test_the_model_is_what_postgres_does(db: Database, seed: int) -> None:
    world = await asyncio.to_thread(lived, seed)
    await replay(db, world)
    tables = world.tables
    for cls, table, rows in (
        (Run, "run", tables.runs.values()),
        (Instance, "task_instance", tables.instances.values()),
        (Attempt, "attempt", tables.attempts.values()),
    ):
        found = await db.writer.fetch(f"SELECT * FROM {table}")
        assert sorted((tuple(row.values()) for row in found), key=repr) == rows_of(cls, rows), table
    xcoms = {(*key, name): plain(value) for key, values in tables.xcoms.items() for name, value in values.items()}
    found = await db.writer.fetch("SELECT * FROM xcom")
    assert {tuple(row.values())[:4]: row["value"] for row in found} == xcoms
    skips = {(skip.dag_id, skip.first, skip.last, skip.count, skip.reason) for skip in tables.skips.values()}
    assert {tuple(row.values()) for row in await db.writer.fetch("SELECT * FROM tick_skip")} == skips
    dags = {dag_id: (entry.next_due_at, entry.paused) for dag_id, entry in tables.dags.items()}
    found = await db.writer.fetch("SELECT dag_id, next_due_at, paused FROM dag")
    assert {row["dag_id"]: (row["next_due_at"], row["paused"]) for row in found} == dags
    snapshot = (await load(db.writer)).snapshot
    expected = (await load(world.server.reader())).snapshot
    assert (snapshot.runs, snapshot.instances, snapshot.attempts) == (
        expected.runs,
        expected.instances,
        expected.attempts,
    )
    assert sorted(map(repr, snapshot.past)) == sorted(map(repr, expected.past))
    assert [(row.spec, row.next_due_at, row.seen_before, row.last_skipped) for row in snapshot.dags] == [
        (row.spec, row.next_due_at, row.seen_before, row.last_skipped) for row in expected.dags
    ]
    assert (snapshot.last_run_number, snapshot.last_fence) == (expected.last_run_number, expected.last_fence)
