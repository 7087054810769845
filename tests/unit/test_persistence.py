"""What the daemon keeps in Postgres when the database fails over, or is taken by another daemon. With a real server."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from fluxd import config, persistence
from fluxd.core.commands import Saves, Skip
from fluxd.errors import Refused
from fluxd.observations import LOG
from fluxd.persistence import Persistence
from fluxd.store import lock
from fluxd.store.database import connect
from tests.unit.core.dialogue import NOON

pytestmark = pytest.mark.anyio

LONG_S = 30.0
LOADED = {"bundle": "b", "files": {"d.py": ""}, "dags": [{"dag_id": "d", "tasks": []}], "seconds": 0.1}
TURN = Saves(skips=[Skip("d", NOON, NOON, 1, "the dag was paused")])


class Log(logging.Handler):
    """What was logged, as it comes."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.put_nowait(record.getMessage())

    async def until(self, text: str) -> None:
        async with asyncio.timeout(LONG_S):
            while text not in await self.lines.get():
                pass


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    handler = Log()
    before = LOG.level
    LOG.setLevel(logging.INFO)
    LOG.addHandler(handler)
    yield handler
    LOG.removeHandler(handler)
    LOG.setLevel(before)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(persistence, "RETRY_FIRST_S", 0.01)
    yield


@contextlib.asynccontextmanager
async def opened(url: str, home: Path) -> AsyncIterator[tuple[Persistence, asyncpg.Connection]]:
    """A persistence, and a connection of somebody else who may do everything with the server."""
    other = await connect(url)
    try:
        async with Persistence.open(url, config.load(home, environment={})) as kept:
            await kept.loaded("d.py", LOADED)
            yield kept, other
    finally:
        other.terminate()


async def end_writer(kept: Persistence, other: asyncpg.Connection) -> None:
    pid = await kept.db.writer.fetchval("SELECT pg_backend_pid()")
    await other.execute("SELECT pg_terminate_backend($1, 10000)", pid)


async def saved(other: asyncpg.Connection) -> int:
    return int(await other.fetchval("SELECT count(*) FROM tick_skip"))


async def test_a_turn_waits_while_the_server_is_read_only(db_url: str, tmp_path: Path, log: Log) -> None:
    async with opened(db_url, tmp_path) as (kept, other):
        name = await other.fetchval("SELECT current_database()")
        await other.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await end_writer(kept, other)
        saving = asyncio.create_task(kept.save(TURN))
        await log.until("read-only")
        await log.until("read-only")
        assert not saving.done()
        await other.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        async with asyncio.timeout(LONG_S):
            await saving
        assert await saved(other) == 1


async def test_a_turn_is_saved_again_when_its_transaction_may_not_write(db_url: str, tmp_path: Path, log: Log) -> None:
    """A server that is demoted may keep its connections."""
    async with opened(db_url, tmp_path) as (kept, other):
        await kept.db.writer.execute("SET default_transaction_read_only = on")
        async with asyncio.timeout(LONG_S):
            await kept.save(TURN)
        assert await saved(other) == 1


async def test_a_database_that_another_daemon_took_is_left_to_it(db_url: str, tmp_path: Path) -> None:
    async with opened(db_url, tmp_path) as (kept, other):
        await end_writer(kept, other)
        await lock.acquire(other, "/home/two")
        with pytest.raises(Refused, match="FLX-5020"):
            async with asyncio.timeout(LONG_S):
                await kept.save(TURN)
        assert await saved(other) == 0
