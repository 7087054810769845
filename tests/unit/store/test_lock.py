"""One daemon per database."""

import asyncio
import os
import socket

import pytest

from fluxd.errors import Refused
from fluxd.store import lock
from fluxd.store.database import GONE, Database, close, connect

pytestmark = pytest.mark.anyio


async def test_the_second_learns_who_holds_it(db: Database, db_url: str) -> None:
    assert await lock.acquire(db.writer, "/home/one") == 1
    other = await connect(db_url)
    with pytest.raises(Refused) as caught:
        await lock.acquire(other, "/home/two")
    assert caught.value.code == "FLX-5020"
    for word in (socket.gethostname(), f"pid {os.getpid()}", "/home/one", "since", "UTC", "--database URL"):
        assert word in caught.value.message

    await close(db.writer)
    await lock_is_free(other)
    assert await lock.acquire(other, "/home/two") == 2
    await close(other)


async def test_the_lock_goes_with_the_writer(db: Database, db_url: str) -> None:
    await lock.acquire(db.writer, "/home/one")
    old = db.writer
    # A statement that still runs in the old session must not hold the lock against ourselves.
    busy = asyncio.ensure_future(old.fetch("SELECT pg_sleep(600)"))
    await asyncio.sleep(0)
    await db.renew_writer()
    assert old.is_closed()
    assert isinstance((await asyncio.gather(busy, return_exceptions=True))[0], GONE)
    assert await lock.acquire(db.writer, "/home/one") == 2


async def lock_is_free(conn: object) -> None:
    """The server ends a session a moment after its client has gone: wait for it by wanting the same lock."""
    await conn.execute("SELECT pg_advisory_lock($1)", lock.DAEMON_LOCK)  # type: ignore[attr-defined]
    await conn.execute("SELECT pg_advisory_unlock($1)", lock.DAEMON_LOCK)  # type: ignore[attr-defined]
