"""Connections: each failure is one sentence with a next step, and never shows the password."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from fluxd.errors import FluxError
from fluxd.store.database import Database, answering, close, connect, hide_password
from fluxd.store.embedded import Embedded

pytestmark = pytest.mark.anyio

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@asynccontextmanager
async def listening(tmp_path: Path, handler: Handler) -> AsyncIterator[str]:
    """A server that does what `handler` does; gives its URL (with a password in it)."""
    server = await asyncio.start_unix_server(handler, tmp_path / ".s.PGSQL.5432")  # type: ignore[arg-type]
    try:
        yield f"postgresql://me:pass-word@/fluxd?host={tmp_path}&port=5432"
    finally:
        server.close()


async def refused(url: str, seconds: float = 10.0) -> str:
    with pytest.raises(FluxError) as caught:
        await Database.open(url, seconds=seconds)
    assert "pass-word" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_json_and_times_are_pythons(db: Database) -> None:
    for conn in (db.writer, db.read):
        assert await conn.fetchval("SELECT $1::jsonb", {"a": [1, None, "ü"]}) == {"a": [1, None, "ü"]}
        assert (await conn.fetchval("SELECT now()")).utcoffset().total_seconds() == 0
        assert await conn.fetchval("SHOW timezone") == "UTC"


async def test_nobody_listens(tmp_path: Path) -> None:
    message = await refused(f"postgresql://me:pass-word@/fluxd?host={tmp_path}")
    assert message.startswith("FLX-5001")
    assert "me:***@" in message
    assert (await refused("postgresql://me:pass-word@127.0.0.1:1/fluxd")).startswith("FLX-5001")


async def test_a_server_that_never_answers(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    async with listening(tmp_path, silent) as url:
        assert (await refused(url, seconds=0.2)).startswith("FLX-5001")
        ended.set()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR unknown command\r\n" * 9])
async def test_it_is_not_postgres(tmp_path: Path, answer: bytes) -> None:
    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(answer)
        writer.close()

    async with listening(tmp_path, stranger) as url:
        message = await refused(url, seconds=2.0)
    assert message.startswith("FLX-5005")
    assert "is not PostgreSQL" in message


async def test_no_such_database(pg: Embedded) -> None:
    message = await refused(pg.url("nothing"))
    assert message.startswith("FLX-5003")
    assert '"nothing" does not exist' in message


async def test_not_let_in(pg: Embedded) -> None:
    message = await refused(re.sub("//[^@]*@", "//guest:pass-word@", pg.url()))
    assert message.startswith("FLX-5002")
    assert "pass-word" not in message


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:pass-word@host/db",
        "postgresql://me:pass-word@host:port/db",
        "postgresql://me:pass-word/x@host:port/db",
        "host=x password=pass-word",
        "",
    ],
)
async def test_an_url_that_is_none(url: str) -> None:
    assert (await refused(url)).startswith("FLX-5006")


async def test_a_database_that_cannot_be_written(db_url: str) -> None:
    conn = await connect(db_url)
    name = await conn.fetchval("SELECT current_database()")
    await conn.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await close(conn)
    message = await refused(db_url)
    assert message.startswith("FLX-5004")
    assert "read-only" in message


async def test_another_encoding(pg: Embedded) -> None:
    conn = await connect(pg.url())
    await conn.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    assert (await refused(pg.url("latin"))).startswith("FLX-5008")
    await conn.execute("DROP DATABASE latin")
    await close(conn)


async def test_a_link_that_breaks_is_told_and_terminated(db: Database) -> None:
    other = await connect(db.url)
    pid = await db.writer.fetchval("SELECT pg_backend_pid()")
    with pytest.raises(FluxError, match="FLX-5009: The connection to the database broke"):
        async with answering(db.writer, 10):
            await other.execute("SELECT pg_terminate_backend($1)", pid)
            await db.writer.fetch("SELECT 1")
            await db.writer.fetch("SELECT 1")
    assert db.writer.is_closed()
    await db.renew_writer()
    assert await db.writer.fetchval("SELECT 1") == 1
    await close(other)


async def test_a_late_answer_is_told_and_the_connection_terminated(db: Database) -> None:
    with pytest.raises(FluxError, match="FLX-5009: The database did not answer for"):
        async with answering(db.writer, 0.05):
            await db.writer.fetch("SELECT pg_sleep(60)")
    assert db.writer.is_closed()
    await db.renew_writer()


async def test_a_mistake_in_sql_is_no_broken_link(db: Database) -> None:
    with pytest.raises(Exception, match="division by zero"):
        async with answering(db.writer, 10):
            await db.writer.fetch("SELECT 1 / 0")
    assert await db.writer.fetchval("SELECT 1") == 1


async def test_closing_never_waits_for_a_server_that_is_gone(db_url: str, tmp_path: Path) -> None:
    """Between us and the server stands a proxy that stops passing anything on."""
    real = urlsplit(db_url)
    parameters = {name: values[0] for name, values in parse_qs(real.query).items()}
    stuck = asyncio.Event()
    ends: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (data := await reader.read(65536)) and not stuck.is_set():
            writer.write(data)

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = await asyncio.open_unix_connection(f"{parameters['host']}/.s.PGSQL.{parameters['port']}")
        ends.extend([writer, server[1]])
        await asyncio.gather(pump(reader, server[1]), pump(server[0], writer))

    async with listening(tmp_path, proxy) as url:
        through = await Database.open(url.replace("//me:pass-word@/fluxd", f"//{real.netloc}{real.path}"))
        await through.read.fetch("SELECT 1")
        stuck.set()
        async with asyncio.timeout(15):
            await through.close()
        for end in ends:
            end.close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:sec@re/t@host/db", "postgresql://me:***@host/db"),
        ("postgresql://:secret@host/db", "postgresql://:***@host/db"),
        ("postgresql://me@host:5432/db?x=a@b", "postgresql://me@host:5432/db?x=a@b"),
        ("postgresql:///db?user=me&password=secret&host=/s", "postgresql:///db?user=me&password=***&host=/s"),
        ("postgresql:///db?sslpassword=secret", "postgresql:///db?sslpassword=***"),
        ("host=x password=secret", "host=x password=***"),
    ],
)
async def test_the_password_is_hidden(url: str, shown: str) -> None:
    assert hide_password(url) == shown
