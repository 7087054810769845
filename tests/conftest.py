"""Fixtures for everybody: a real, throw-away Postgres for the session, and a fresh database for each test that asks."""

import asyncio
import itertools
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from fluxd.store.database import Database, connect
from fluxd.store.embedded import Embedded
from fluxd.store.schema import migrate

TEMPLATE = "fluxd_template"
# Waits for the end of its stdin, then ends the server ($1) and removes its home ($2).
WATCH = """
read -r _
kill -INT "$1"
for _ in $(seq 200); do [ -e "$2/pg/data/postmaster.pid" ] || break; sleep 0.05; done
rm -rf "$2"
"""
_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    # uvloop warns of a transport that nobody closed from within its deallocation; were that an error, the handle would
    # stay open, and the loop would wait for it for ever: one failing test would hang the whole session.
    config.addinivalue_line("filterwarnings", "default:unclosed resource <:ResourceWarning")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Async tests (`@pytest.mark.anyio`) run on what the daemon runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def pg() -> Iterator[Embedded]:
    """A Postgres server that lives as long as the session. It works as root too."""
    # Not pytest's own tmp dir: that is 0700, and a server that may not be root could not reach it.
    home = Path(tempfile.mkdtemp(prefix="fluxd-tests-"))
    home.chmod(0o711)
    server = Embedded(home)
    settings = home / "pg" / "settings"
    settings.mkdir(parents=True)
    for folder in (settings.parent, settings):
        folder.chmod(0o711)
    # Nobody mourns this data; so the tests need not wait for the disk.
    (settings / "local.conf").write_text("fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n")
    server.start()
    pid = (server.data / "postmaster.pid").read_text().split()[0]
    # A watcher that sees our end of its pipe close, however the session ends (a kill -9 too).
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", WATCH, "sh", pid, str(home)], stdin=subprocess.PIPE, start_new_session=True
    )
    yield server
    watcher.communicate()


@pytest.fixture(scope="session")
def template(pg: Embedded) -> str:
    """The name of a database with all schema steps applied, which new ones are copied from."""

    async def make() -> None:
        conn = await connect(pg.url(TEMPLATE))
        try:
            await migrate(conn)
        finally:
            await conn.close()

    pg.create_database(TEMPLATE)
    asyncio.run(make())
    return TEMPLATE


def _in_server(pg: Embedded, statement: str) -> None:
    async def run() -> None:
        conn = await asyncpg.connect(pg.url())
        try:
            await conn.execute(statement)
        finally:
            await conn.close()

    asyncio.run(run())


@pytest.fixture
def empty_url(pg: Embedded) -> Iterator[str]:
    """The URL of a fresh database without any table."""
    name = f"empty_{next(_numbers)}"
    _in_server(pg, f"CREATE DATABASE {name}")
    yield pg.url(name)
    _in_server(pg, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def db_url(pg: Embedded, template: str) -> Iterator[str]:
    """The URL of a fresh database with the schema of this Flux."""
    name = f"test_{next(_numbers)}"
    _in_server(pg, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield pg.url(name)
    _in_server(pg, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def db(db_url: str) -> AsyncIterator[Database]:
    """A Database on a fresh database. For tests marked `anyio`."""
    database = await Database.open(db_url)
    yield database
    await database.close()
