"""The schema steps: applied once, together, refused in words where they do not fit."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from fluxd.core.spec import LOCAL, WAITING_ROOM
from fluxd.errors import FluxError
from fluxd.store import lock
from fluxd.store.database import close, connect
from fluxd.store.loading import load
from fluxd.store.schema import Step, check, migrate, steps

pytestmark = pytest.mark.anyio


async def test_applied_once_and_then_there_is_nothing_to_do(empty_url: str) -> None:
    conn = await connect(empty_url)
    with pytest.raises(FluxError, match=r"FLX-5012: .* lacks \d+ schema step.*fluxctl db migrate"):
        await check(conn)
    assert await migrate(conn) == [step.name for step in steps()]
    assert await migrate(conn) == []
    await check(conn)
    await close(conn)


async def test_waits_that_began_before_legs_had_rows_go_on(empty_url: str) -> None:
    conn = await connect(empty_url)
    await migrate(conn, steps()[:2])
    await conn.execute("""
        INSERT INTO bundle (hash, file, files) VALUES ('b', 'd.py', '{}');
        INSERT INTO dag (dag_id, file) VALUES ('d', 'd.py');
        INSERT INTO dag_version (dag_id, number, spec, spec_hash, bundle) VALUES ('d', 1, '{"dag_id": "d"}', 'h', 'b');
        INSERT INTO run (number, dag_id, run_id, run_type, state, version_id, logical_date, data_interval_start,
            data_interval_end, queued_at, created_by)
        SELECT 1, 'd', 'r', 'manual', 'running', id, now(), now(), now(), now(), 'me' FROM dag_version;
        INSERT INTO task_instance (run_number, task_id, state, fence)
        VALUES (1, 'w', 'waiting', 7), (1, 'x', 'running', 8);
        INSERT INTO attempt (fence, run_number, task_id, map_index, try_number, state, queued_at)
        VALUES (7, 1, 'w', -1, 1, 'waiting', now()), (8, 1, 'x', -1, 1, 'running', now());
    """)
    await migrate(conn)
    attempts = (await load(conn)).snapshot.attempts
    assert [(one.fence, one.leg, one.executor) for one in attempts] == [(7, 1, WAITING_ROOM), (8, 1, LOCAL)]
    await close(conn)


async def test_two_at_once(empty_url: str) -> None:
    conns = [await connect(empty_url) for _ in range(3)]
    applied = await asyncio.gather(*(migrate(conn) for conn in conns))
    assert sorted(map(len, applied)) == [0, 0, len(steps())]
    for conn in conns:
        await close(conn)


async def test_a_newer_schema_is_refused(empty_url: str) -> None:
    conn = await connect(empty_url)
    number = len(steps()) + 1
    await migrate(conn, [*steps(), Step(number, f"{number:04}_later", "SELECT 1")])
    for what in (migrate, check):
        with pytest.raises(FluxError, match=r"FLX-5010: .* was made by a newer Flux \(schema step .*_later"):
            await what(conn)
    await close(conn)


async def test_a_changed_step_is_refused(empty_url: str) -> None:
    conn = await connect(empty_url)
    await migrate(conn)
    changed = [replace(steps()[0], sql="SELECT 1"), *steps()[1:]]
    with pytest.raises(FluxError, match=r"FLX-5011: The schema step 0001_first .* is not the one"):
        await migrate(conn, changed)
    await close(conn)


async def test_a_database_of_something_else_is_refused(empty_url: str) -> None:
    conn = await connect(empty_url)
    await conn.execute("CREATE TABLE run (distance int)")
    with pytest.raises(FluxError, match=r"FLX-5013: .* has a table 'run' that is not of Flux"):
        await migrate(conn)
    await close(conn)


async def test_a_step_that_fails_leaves_nothing(empty_url: str) -> None:
    conn = await connect(empty_url)
    broken = Step(len(steps()) + 1, "9999_broken", "CREATE TABLE half (); SELECT 1 / 0")
    with pytest.raises(FluxError, match="FLX-5015: The schema step 9999_broken failed: division by zero"):
        await migrate(conn, [*steps(), broken])
    assert await conn.fetchval("SELECT to_regclass('half')") is None
    await check(conn)
    await close(conn)


async def test_no_right_to_make_tables(empty_url: str) -> None:
    conn = await connect(empty_url)
    await conn.execute("DROP ROLE IF EXISTS guest")
    await conn.execute("CREATE ROLE guest")
    await conn.execute("SET ROLE guest")
    with pytest.raises(FluxError, match=r"FLX-5015: .* permission denied for schema public; grant it"):
        await migrate(conn)
    await close(conn)


async def test_not_under_a_daemon_that_works(empty_url: str) -> None:
    daemon, other = await connect(empty_url), await connect(empty_url)
    await migrate(daemon)
    await lock.acquire(daemon, "/home/one")
    later = [*steps(), Step(len(steps()) + 1, "9999_later", "SELECT 1")]
    with pytest.raises(FluxError, match=r"FLX-5014: .* cannot be changed while a fluxd works on it"):
        await migrate(other, later)
    assert await migrate(other) == [], "nothing to do is nothing to refuse"
    assert await migrate(daemon, later) == ["9999_later"], "its own lock is not in its way"
    await close(daemon)
    await close(other)


def test_a_gap_in_the_numbers_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "0002_second.sql").write_text("SELECT 1")
    with pytest.raises(ValueError, match="are not 1, 2, 3"):
        steps(tmp_path)
