"""What beats, and what limits."""

import pytest

from fluxd.errors import Invalid, NotFound, Refused
from fluxd.store import jobs, pools
from fluxd.store.database import Database

pytestmark = pytest.mark.anyio


async def test_a_job_begins_beats_and_ends(db: Database) -> None:
    one = await jobs.begin(db.read, "daemon", "here", 1, {"version": "0.1"})
    two = await jobs.begin(db.read, "daemon", "here", 2)
    runner = await jobs.begin(db.read, "runner", "here", 3)
    assert await jobs.beat(db.read, [one, two, runner]) == {one, two, runner}
    assert await jobs.lose_others(db.read, "daemon", [two]) == [one]
    assert await jobs.beat(db.read, [one, two, runner]) == {two, runner}, "one that was given up learns it"
    await jobs.end(db.read, two)
    await jobs.end(db.read, two, "lost")
    rows = await db.read.fetch("SELECT id, state, ended_at IS NULL AS lives FROM job ORDER BY id")
    assert [tuple(row) for row in rows] == [(one, "lost", False), (two, "ended", False), (runner, "running", True)]


async def test_pools(db: Database) -> None:
    await pools.put(db.read, "gpu", 2, "the two cards \0")
    await pools.put(db.read, "gpu", 3)
    assert [pool for pool in await pools.read(db.read) if pool["name"] == "gpu"] == [
        {"name": "gpu", "slots": 3, "description": "the two cards �"}
    ]
    for slots in (-1, 1_000_001):
        with pytest.raises(Invalid, match="FLX-5051"):
            await pools.put(db.read, "gpu", slots)
    await pools.delete(db.read, "gpu")
    with pytest.raises(NotFound, match="FLX-5053"):
        await pools.delete(db.read, "gpu")
    with pytest.raises(Refused, match="FLX-5052"):
        await pools.delete(db.read, "default_pool")
