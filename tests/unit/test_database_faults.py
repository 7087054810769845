"""The database hurts: sessions are ended, stopped, limited; another daemon takes it. fluxd waits, and goes on."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import asyncpg
import pytest

from fluxd import config, persistence
from fluxd.core.commands import DagCursor, Saves
from fluxd.core.model import Run
from fluxd.core.states import RunState
from fluxd.errors import FluxError, Unavailable
from fluxd.store import accounts, api_views, dags, database, jobs, lock, pools, turns
from fluxd.store.database import Database, answering, connect
from tests.unit.core.dialogue import NOON
from tests.unit.test_persistence import LOADED, LONG_S, TURN, Log, log, opened, saved, soon  # noqa: F401

pytestmark = pytest.mark.anyio


# ------------------------------------------------------------------------------------------- ended sessions

HOW_A_SESSION_ENDS = {
    "terminated": "SELECT pg_terminate_backend($1, 10000)",
    "cancelled": "SELECT pg_cancel_backend($1)",
}


@pytest.mark.parametrize("how", HOW_A_SESSION_ENDS)
async def test_a_borrowed_connection_that_ends_is_told_and_the_next_is_well(
    db_url: str, tmp_path: Path, how: str
) -> None:
    async with opened(db_url, tmp_path) as (kept, other):
        for _ in range(5):
            with pytest.raises(Unavailable, match="FLX-5009"):
                async with kept._worker() as conn:
                    pid = conn.get_server_pid()
                    asking = asyncio.ensure_future(conn.fetch("SELECT pg_sleep(60)"))
                    while not await other.fetchval(
                        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active')", pid
                    ):
                        await asyncio.sleep(0)
                    await other.execute(HOW_A_SESSION_ENDS[how], pid)
                    await asking
            async with kept._worker() as conn:
                assert await conn.fetchval("SELECT 1") == 1


async def test_a_borrowed_connection_whose_process_is_killed(db_url: str, tmp_path: Path, log: Log) -> None:  # noqa: F811
    """kill -9 of a backend: the server ends all sessions and begins again, and turns are saved after it."""
    async with opened(db_url, tmp_path) as (kept, _other):
        before = kept.db.writer.get_server_pid()
        with pytest.raises(Unavailable):
            async with kept._worker() as conn:
                os.kill(conn.get_server_pid(), signal.SIGKILL)
                await conn.fetch("SELECT pg_sleep(60)")
        async with asyncio.timeout(LONG_S):
            while kept.db.writer.get_server_pid() == before:  # until the server has ended all sessions, ours too
                await kept.beat()
        assert await kept.db.writer.fetchval("SELECT 1") == 1


LIMITS = [
    "statement_timeout",
    "transaction_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
]


@pytest.mark.parametrize("limit", LIMITS)
async def test_limits_that_somebody_set_for_all_do_not_count(db_url: str, limit: str) -> None:
    admin = await connect(db_url)
    name = await admin.fetchval("SELECT current_database()")
    if not await admin.fetchval("SELECT EXISTS (SELECT FROM pg_settings WHERE name = $1)", limit):
        pytest.skip("this server has no such limit")
    await admin.execute(f"ALTER DATABASE {name} SET {limit} = '40ms'")
    db = await Database.open(db_url)
    try:
        for conn in (db.writer, await db.work.acquire(), await db.read.acquire()):
            async with conn.transaction():
                await conn.fetch("SELECT pg_sleep(0.2)")
                assert await conn.fetchval(f"SHOW {limit}") in ("0", "30s")
    finally:
        await database.close(admin)
        await db.close()


async def test_a_session_that_is_ended_by_such_a_limit_all_the_same_is_a_broken_link(db: Database) -> None:
    for limit in ("transaction_timeout", "idle_in_transaction_session_timeout"):
        if not await db.writer.fetchval("SELECT EXISTS (SELECT FROM pg_settings WHERE name = $1)", limit):
            continue
        await db.writer.execute(f"SET {limit} = '50ms'")
        with pytest.raises(Unavailable, match="FLX-5009"):
            async with answering(db.writer, 10), db.writer.transaction():
                while True:
                    await asyncio.sleep(0.1)
                    await db.writer.fetch("SELECT 1")
        await db.renew_writer()


# ------------------------------------------------------------------------------------------- a stopped writer


async def test_its_own_stopped_session_is_not_another_daemon(
    db_url: str,
    tmp_path: Path,
    log: Log,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "SAVE_SECONDS", 0.5)
    async with opened(db_url, tmp_path) as (kept, other):
        pid = kept.db.writer.get_server_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            saving = asyncio.create_task(kept.save(TURN))
            await log.until("still holds its lock")
            assert not saving.done()
        finally:
            os.kill(pid, signal.SIGCONT)
        async with asyncio.timeout(LONG_S):
            await saving
        assert await saved(other) == 1
        epoch = await other.fetchval("SELECT epoch FROM holder")
        assert epoch == kept.db.epoch == 1, "nobody else came between"


# ------------------------------------------------------------------------------------------- whose writes


async def _load(conn: asyncpg.Connection) -> None:
    await dags.store_load(conn, "d.py", "b2", {"d.py": "2"}, [{"dag_id": "d", "tasks": []}], 0.1)


LATE_WRITES = {
    "a dag file that is loaded": _load,
    "a dag file that is broken": lambda conn: dags.store_error(conn, "d.py", {"code": "FLX-2001", "message": "no"}),
    "a dag file that is gone": lambda conn: dags.remove_file(conn, "d.py"),
    "a beat": lambda conn: jobs.beat(conn, [1]),
    "a job's end": lambda conn: jobs.end(conn, 1),
    "a pool": lambda conn: pools.put(conn, "p", 3),
    "an account": accounts.ensure_admin,
    "a login link": lambda conn: accounts.make_login_link(conn, 5),
    "an idempotency key": lambda conn: api_views.begin_once(conn, "k", {}),
}


@pytest.mark.parametrize("what", LATE_WRITES)
async def test_a_write_of_an_old_daemon_that_comes_after_a_new_one_is_refused(
    db_url: str, tmp_path: Path, what: str
) -> None:
    async with opened(db_url, tmp_path) as (old, other):
        for pool in (old.db.work, old.db.read):  # connected while it was ours
            await pool.fetchval("SELECT 1")
        pid = old.db.writer.get_server_pid()
        await other.execute("SELECT pg_terminate_backend($1, 10000)", pid)
        await lock.acquire(other, "/home/two")
        before = await _all_rows(other)
        for pool in (old.db.work, old.db.read):
            with pytest.raises(asyncpg.PostgresError, match="another fluxd has taken") as caught:
                async with pool.acquire() as conn:
                    await LATE_WRITES[what](conn)  # type: ignore[operator]
            assert caught.value.sqlstate == database.TAKEN_STATE
        assert await _all_rows(other) == before


async def test_an_old_daemon_hears_that_its_database_is_anothers(db_url: str, tmp_path: Path) -> None:
    async with opened(db_url, tmp_path) as (old, other):
        await old.known()
        await other.execute("SELECT pg_terminate_backend($1, 10000)", old.db.writer.get_server_pid())
        await lock.acquire(other, "/home/two")
        with pytest.raises(FluxError, match="FLX-5044"):
            await old.gone("d.py")
        with pytest.raises(lock.Taken):
            await old.beat()


async def test_every_table_asks_for_the_epoch(db: Database) -> None:
    """A new table is found here."""
    exempt = {"holder", "schema_step"}
    tables = {
        row["t"] for row in await db.read.fetch("SELECT tablename AS t FROM pg_tables WHERE schemaname = 'public'")
    }
    asked = {
        row["t"]
        for row in await db.read.fetch(
            "SELECT tgrelid::regclass::text AS t FROM pg_trigger WHERE tgname = 'under_epoch'"
        )
    }
    assert asked == tables - exempt


async def _all_rows(conn: asyncpg.Connection) -> dict[str, list[tuple[object, ...]]]:
    names = [row["t"] for row in await conn.fetch("SELECT tablename AS t FROM pg_tables WHERE schemaname = 'public'")]
    return {name: [tuple(row) for row in await conn.fetch(f"SELECT * FROM {name}")] for name in names}


# ------------------------------------------------------------------------------------------- pages and engine


async def test_slow_pages_hold_no_lookup_up(db_url: str, tmp_path: Path) -> None:
    async with opened(db_url, tmp_path) as (kept, _):
        size = kept.db.read.get_max_size()
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(size):
                await stack.enter_async_context(kept.db.read.acquire())
            async with asyncio.timeout(LONG_S):
                assert await kept.revive(1) is None
                assert await kept.known() == {"d.py"}


async def test_nobody_waits_for_a_page_without_end(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(db.read.get_max_size()):
            await stack.enter_async_context(db.read.acquire())
        monkeypatch.setattr(database, "ACQUIRE_SECONDS", 0.05)
        with pytest.raises(TimeoutError):
            await db.read.fetchval("SELECT 1")


# ------------------------------------------------------------------------------------------- deleting


async def test_a_deleted_dag_is_gone_at_once_and_its_history_goes_in_batches(
    db_url: str,
    tmp_path: Path,
    log: Log,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fluxd.store.forgotten.BATCH_ROWS", 3)
    async with opened(db_url, tmp_path) as (kept, other):
        version = await other.fetchval("SELECT version_id FROM dag")
        runs = [
            Run(
                number, "d", f"r{number}", "manual", RunState.SUCCESS, version, NOON, NOON, NOON, None, NOON, NOON, NOON
            )
            for number in range(1, 8)
        ]
        await kept.save(Saves(runs=runs))
        await kept.save(Saves(cursors=[DagCursor("d", None, False, forgotten=True)]))
        assert await api_views.dag(kept.db.read, "d") is None
        assert await other.fetchval("SELECT count(*) FROM run") == 7, "not in the turn"
        with pytest.raises(FluxError, match="FLX-5049"):
            await kept.loaded("d.py", LOADED)
    async with opened_without_load(db_url, tmp_path) as (kept, other):  # the next daemon goes on
        sweeping = asyncio.create_task(kept.sweep())
        await log.until("the history of the deleted dag d is removed")
        sweeping.cancel()
        assert await other.fetchval("SELECT count(*) FROM run") == 0
        assert (await kept.loaded("d.py", LOADED)).versions.keys() == {"d"}


@contextlib.asynccontextmanager
async def opened_without_load(url: str, home: Path):  # type: ignore[no-untyped-def]
    other = await connect(url)
    try:
        async with persistence.Persistence.open(url, persistence_settings(home)) as kept:
            yield kept, other
    finally:
        other.terminate()


def persistence_settings(home: Path):  # type: ignore[no-untyped-def]
    return config.load(home, environment={})


# ------------------------------------------------------------------------------------------- values


async def test_values_that_cannot_be_saved_are_told_and_not_tried_again(db_url: str, tmp_path: Path) -> None:
    async with opened(db_url, tmp_path) as (kept, other):
        version = await other.fetchval("SELECT version_id FROM dag")
        run = Run(2**70, "d", "r", "manual", RunState.RUNNING, version, NOON, NOON, NOON, None, NOON)
        with pytest.raises(asyncpg.DataError):
            async with asyncio.timeout(LONG_S):
                await kept.save(Saves(runs=[run]))
        wrong = Run(1, "d", "r", "odd", RunState.RUNNING, version, NOON, NOON, NOON, None, NOON)
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await kept.rehearse(Saves(runs=[wrong]))
        await kept.save(TURN)
        assert await saved(other) == 1


async def test_a_rehearsed_turn_leaves_nothing(db_url: str, tmp_path: Path) -> None:
    async with opened(db_url, tmp_path) as (kept, other):
        await kept.rehearse(TURN)
        assert await saved(other) == 0
