"""Jobs: daemon, runner and whatever else lives long, with their beats."""

from collections.abc import Sequence
from typing import Any

import asyncpg

from fluxd.store.queries import QUERIES


async def begin(
    conn: asyncpg.Connection | asyncpg.Pool, kind: str, host: str, pid: int, detail: dict[str, Any] | None = None
) -> int:
    """Write down that a job lives; returns its id."""
    return int(await conn.fetchval(QUERIES["begin_job"], kind, host, pid, detail or {}))


async def beat(conn: asyncpg.Connection | asyncpg.Pool, ids: Sequence[int]) -> set[int]:
    """These jobs are alive now. Returns those that still count as running: one that is missing was given up."""
    return {row["id"] for row in await conn.fetch(QUERIES["beat_jobs"], list(ids))}


async def end(conn: asyncpg.Connection | asyncpg.Pool, job_id: int, state: str = "ended") -> None:
    """The job is over: state "ended" or "lost". A second end changes nothing."""
    await conn.execute(QUERIES["end_job"], job_id, state)


async def lose_others(conn: asyncpg.Connection | asyncpg.Pool, kind: str, keep: Sequence[int] = ()) -> list[int]:
    """All other running jobs of this kind are lost: for a daemon that holds the lock knows that no other lives."""
    return [row["id"] for row in await conn.fetch(QUERIES["lose_jobs"], kind, list(keep))]
