"""The two roles of the embedded Postgres: what tasks may do there, and how a server of an earlier Flux gets them."""

import asyncio
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from fluxd.errors import FluxError
from fluxd.store import postmaster
from fluxd.store.embedded import Embedded

OLD_RULES = "local all all peer map=flux\n"
# What tasks made in a server that let them in as its superuser.
OLD_TABLES = """
CREATE SCHEMA "Odd one";
CREATE TYPE weather_kind AS ENUM ('sun', 'rain');
CREATE TABLE observation (id serial PRIMARY KEY, identity integer GENERATED ALWAYS AS IDENTITY, kind weather_kind);
CREATE TABLE "Odd one"."Tab le" (day date);
CREATE VIEW rainy AS SELECT * FROM observation WHERE kind = 'rain';
CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM observation;
CREATE SEQUENCE alone;
CREATE FUNCTION twice(number integer) RETURNS integer LANGUAGE sql AS 'SELECT 2 * number';
"""


@pytest.fixture
def server() -> Iterator[Embedded]:
    folder = Path(tempfile.mkdtemp(prefix="fluxd-roles-"))
    folder.chmod(0o711)
    yield Embedded(folder)
    for pid_file in folder.rglob("data/postmaster.pid"):
        postmaster.stop(pid_file.parent)
    shutil.rmtree(folder)


def run(url: str, *statements: str, **other: Any) -> Any:
    """The value of the last one."""

    async def work() -> Any:
        conn = await asyncpg.connect(url, **other)
        try:
            for statement in statements[:-1]:
                await conn.execute(statement)
            return await conn.fetchval(statements[-1])
        finally:
            await conn.close()

    return asyncio.run(work())


def pid_of(server: Embedded) -> int:
    found = postmaster.alive(server.data)
    assert found is not None
    return found.pid


def made_old(server: Embedded) -> None:
    """The running server as an earlier Flux left it: one role, which whoever we are may be, and databases of tasks."""
    url = server.url()
    for name in ("weather", 'we"ird'):
        run(url, f"""CREATE DATABASE "{name.replace('"', '""')}" """, "SELECT 1")
        run(server.url(name), OLD_TABLES, "SELECT 1")
    run(url, "DROP DATABASE tasks", "DROP ROLE tasks", "GRANT CONNECT ON DATABASE fluxd TO PUBLIC", "SELECT 1")
    (server.place / "settings" / "pg_hba.conf").write_text(OLD_RULES)
    run(url, "SELECT pg_reload_conf()")
    (server.place / "passwords.json").unlink()


def test_the_way_of_a_task_leads_to_a_database_of_its_own(server: Embedded) -> None:
    server.start()
    assert run(server.tasks_url(), "SELECT current_user || '@' || current_database()") == "tasks@tasks"
    assert run(server.tasks_url(), "CREATE TABLE t (x integer)", "INSERT INTO t VALUES (3)", "SELECT x FROM t") == 3
    run(server.tasks_url(), "CREATE DATABASE mine", "SELECT 1")
    assert run(server.url("mine", "tasks"), "CREATE TABLE t (x integer)", "SELECT count(*) FROM t") == 0
    kept = (server.place / "passwords.json").stat()
    assert (stat.S_IMODE(kept.st_mode), kept.st_uid) == (0o600, server.data.stat().st_uid)


@pytest.mark.parametrize(
    "other",
    [
        {"database": "fluxd"},
        {"user": "fluxd"},
        {"user": "fluxd", "database": "fluxd"},
        {"user": "fluxd", "password": None},
        {"user": "postgres"},
        {"database": "template1", "user": "fluxd"},
    ],
)
def test_with_the_url_of_a_task_nobody_comes_in_elsewhere(pg: Embedded, other: dict[str, Any]) -> None:
    assert run(pg.tasks_url(), "SELECT 1") == 1
    refused = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidPasswordError)
    with pytest.raises(refused):
        run(pg.tasks_url(), "SELECT 1", **other)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE ROLE other SUPERUSER",
        "ALTER ROLE tasks SUPERUSER",
        "ALTER ROLE fluxd PASSWORD 'known'",
        "SET ROLE fluxd",
        "SET SESSION AUTHORIZATION fluxd",
        "GRANT fluxd TO tasks",
        "CREATE DATABASE copy TEMPLATE fluxd",
        "ALTER DATABASE fluxd OWNER TO tasks",
        "DROP DATABASE fluxd",
        "GRANT CONNECT ON DATABASE fluxd TO tasks",
        "SELECT pg_read_file('postmaster.pid')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "CREATE EXTENSION file_fdw",
        "ALTER SYSTEM SET log_statement = 'all'",
        "SELECT pg_reload_conf()",
        "SELECT lo_import('/etc/passwd')",
        "SELECT passwd FROM pg_shadow",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'fluxd' AND pid IS NOT NULL",
    ],
)
def test_a_task_has_no_other_rights_in_the_server(pg: Embedded, statement: str) -> None:
    async def work() -> None:
        theirs = await asyncpg.connect(pg.url())  # somebody to terminate
        mine = await asyncpg.connect(pg.tasks_url())
        try:
            with pytest.raises(asyncpg.PostgresError):
                await mine.fetch(statement)
            assert await theirs.fetchval("SELECT 1") == 1
        finally:
            await mine.close()
            await theirs.close()

    asyncio.run(work())


def assert_secured(server: Embedded) -> None:
    assert run(server.url(), "SELECT has_database_privilege('tasks', 'fluxd', 'CONNECT')") is False
    for name in ("weather", 'we"ird'):
        mine = server.url(name, "tasks")
        insert = "INSERT INTO observation (kind) VALUES ('rain')"
        assert run(mine, insert, "REFRESH MATERIALIZED VIEW counted", "SELECT count FROM counted") == 1
        assert run(mine, "ALTER TABLE observation ADD COLUMN more text", "SELECT count(*) FROM rainy") == 1
        run(mine, "ALTER TYPE weather_kind ADD VALUE 'fog'", "DROP FUNCTION twice(integer)", "SELECT nextval('alone')")
        run(mine, 'ALTER TABLE "Odd one"."Tab le" ADD COLUMN more text', 'DROP SCHEMA "Odd one" CASCADE', "SELECT 1")
        run(mine, "CREATE TABLE another (x integer)", "SELECT 1")
    with pytest.raises((asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidPasswordError)):
        run(server.tasks_url(), "SELECT 1", user="fluxd", database="fluxd")


def test_a_running_server_of_an_earlier_flux_is_secured_under_way(server: Embedded) -> None:
    server.start()
    made_old(server)
    pid = pid_of(server)
    server.start()
    assert pid_of(server) == pid, "tasks may be using it"
    assert_secured(server)


def test_a_stopped_server_of_an_earlier_flux_is_secured_at_its_start(server: Embedded) -> None:
    server.start()
    made_old(server)
    server.stop()
    server.start()
    assert_secured(server)


def test_lost_passwords_are_made_anew(server: Embedded) -> None:
    server.start()
    known = server.tasks_url()
    (server.place / "passwords.json").unlink()
    with pytest.raises(FluxError, match="FLX-5054"):
        server.url()
    server.start()
    assert run(server.url(), "SELECT 1") == run(server.tasks_url(), "SELECT 1") == 1
    assert server.tasks_url() != known


def test_passwords_that_cannot_be_read_are_named(server: Embedded) -> None:
    server.start()
    (server.place / "passwords.json").write_text("{")
    with pytest.raises(FluxError, match=r"FLX-5054.*passwords\.json.*remove the file and start fluxd"):
        server.url()


def test_no_password_is_in_the_log_of_the_server(server: Embedded) -> None:
    server.start()
    run(server.url(), "SELECT 1")
    password = server.url().partition("fluxd:")[2].partition("@")[0]
    assert len(password) == 64
    assert subprocess.run(["grep", "-q", password, server.place / "server.log"], check=False).returncode == 1
