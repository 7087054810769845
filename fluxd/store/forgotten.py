"""The history of deleted dags, removed in batches: a dag with years behind it must hold nobody up."""

import asyncpg

from fluxd.store.database import answering
from fluxd.store.queries import QUERIES

BATCH_ROWS = 5000
BATCH_SECONDS = 60.0
# From the bottom up: what a row refers to goes after it.
STEPS = ("forget_attempts", "forget_xcoms", "forget_instances", "forget_runs", "forget_skips", "forget_dag")


async def dags(conn: asyncpg.Connection) -> list[str]:
    """The deleted dags that are not gone yet."""
    async with answering(conn, BATCH_SECONDS):
        return [row["dag_id"] for row in await conn.fetch(QUERIES["forgotten_dags"])]


async def batch(conn: asyncpg.Connection, dag_id: str, rows: int = BATCH_ROWS) -> int:
    """Remove some more of it: the number of rows, 0 when the dag and all of its history are gone."""
    async with answering(conn, BATCH_SECONDS):
        for step in STEPS:
            arguments = (dag_id,) if step == "forget_dag" else (dag_id, rows)
            removed = int((await conn.execute(QUERIES[step], *arguments)).rpartition(" ")[2])
            if removed:
                return removed
    return 0
