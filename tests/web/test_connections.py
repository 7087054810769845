"""How many come in at once, how long they may take, and what is said when the database cannot do its work."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from fluxd import home
from fluxd.config import Settings
from fluxd.store import accounts
from fluxd.store.database import Database
from fluxd.web import doors
from fluxd.web.doors import Door
from tests.web.serving import Served, serve
from tests.web.test_live import subscribed

pytestmark = pytest.mark.anyio

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
PATIENCE_S = 20


class Raw:
    """A connection of somebody who does not keep to HTTP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def status(self, data: bytes = b"") -> int:
        """The status of the answer to these bytes; 0 where the connection ends without one."""
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            line = await self.reader.readline()
        return int(line.split()[1]) if line else 0

    async def ended(self) -> bool:
        """True once the other end has closed it."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while await self.reader.read(65536):
                    pass
            except ConnectionError:
                pass
        return True


Connect = Callable[[Served], Awaitable[Raw]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Makes connections, which are closed at the end."""
    made: list[Raw] = []

    async def one(served: Served) -> Raw:
        made.append(Raw(*await asyncio.open_connection("127.0.0.1", int(served.url.rpartition(":")[2]))))
        return made[-1]

    yield one
    for raw in made:
        raw.writer.transport.abort()


@pytest.fixture
async def small(db: Database, tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(db, tmp_path, places=3) as served:
        yield served


async def test_idle_connections_make_room_the_oldest_first(small: Served, connect: Connect) -> None:
    slow = [await connect(small) for _ in range(3)]
    slow[0].writer.write(b"GET /healthz HT")  # half a header
    assert await slow[1].status(HEALTH) == 200  # it did something, and has nothing to do now
    late = await connect(small)
    assert await late.status(HEALTH) == 200
    assert await slow[0].ended()
    for _ in range(20):  # a crowd that never says anything
        await connect(small)
    assert await (await connect(small)).status(HEALTH) == 200
    assert len(small.door.connections) <= 3


async def test_what_is_being_answered_is_not_cut_off(
    small: Served, http: aiohttp.ClientSession, connect: Connect
) -> None:
    await small.login(http)
    async with aiohttp.ClientSession(cookie_jar=http.cookie_jar) as other:
        streams = [await http.get(small.url + "/api/v1/events") for _ in range(3)]
        await subscribed(small.state.live)
        refused = await connect(small)
        assert await refused.status() == 503
        assert await refused.ended()
        streams.pop().close()
        async with asyncio.timeout(PATIENCE_S):
            while len(small.door.connections) == 3:
                await asyncio.sleep(0)
        async with other.get(small.url + "/dags") as response:
            assert response.status == 200
        for stream in streams:
            stream.close()


async def test_the_socket_has_places_of_its_own(small: Served, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    await small.login(http)
    streams = [await http.get(small.url + "/api/v1/events") for _ in range(3)]
    path = tmp_path / "fluxd.sock"
    await Door(small.runner, home.unix_socket(path), 5).start()
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client,
        client.get("http://fluxd/api/v1/dags") as response,
    ):
        assert response.status == 200
    for stream in streams:
        stream.close()


async def test_headers_must_come_in_time(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connect: Connect
) -> None:
    monkeypatch.setattr(doors, "HEADERS_S", 0.05)
    async with serve(db, tmp_path) as served:
        silent, half, used = [await connect(served) for _ in range(3)]
        half.writer.write(b"GET /healthz HTTP/1.1\r\nHost: local")
        assert await used.status(HEALTH) == 200
        used.writer.write(b"GET /")
        assert await silent.ended() and await half.ended() and await used.ended()


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize("kind", [FORM, "multipart/form-data; boundary=x"])
async def test_a_body_must_come_in_time(
    served: Served, monkeypatch: pytest.MonkeyPatch, connect: Connect, kind: str
) -> None:
    monkeypatch.setattr(doors, "BODY_S", 0.05)
    link = await accounts.make_login_link(served.state.db.read, 15)
    for framing in ("Content-Length: 100\r\n\r\n--x", "Transfer-Encoding: chunked\r\n\r\n9\r\n--x"):
        raw = await connect(served)
        head = f"POST {link} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        assert await raw.status((head + framing).encode()) == 408
    raw = await connect(served)
    assert await raw.status(f"POST {link} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()) == 303  # the link was not used


async def test_a_body_of_somebody_unknown_is_not_waited_for(served: Served, connect: Connect) -> None:
    raw = await connect(served)
    assert await raw.status(b"POST /dags/x/pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n") == 303


READ_ONLY = "ALTER DATABASE {} SET default_transaction_read_only = on"
FAILING = """
CREATE FUNCTION pg_temp_fails() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'could not do it' USING ERRCODE = '{}'; END $$;
CREATE TRIGGER fails BEFORE INSERT OR UPDATE OR DELETE ON {} FOR EACH STATEMENT EXECUTE FUNCTION pg_temp_fails()
"""
ON_POOL = "CREATE TRIGGER fails BEFORE INSERT ON pool FOR EACH STATEMENT EXECUTE FUNCTION pg_temp_fails()"


async def _make_read_only(db: Database) -> None:
    name = await db.writer.fetchval("SELECT quote_ident(current_database())")
    await db.writer.execute(READ_ONLY.format(name))
    await db.read.expire_connections()


async def test_a_database_that_only_reads_is_said_and_shown(served: Served, http: aiohttp.ClientSession) -> None:
    db = served.state.db
    await served.login(http)
    await db.writer.execute("UPDATE session SET seen_at = now() - interval '1 hour'")
    link = await accounts.make_login_link(db.read, 15)
    await _make_read_only(db)
    async with http.get(served.url + "/dags") as response:
        assert response.status == 200  # looking goes on
    async with aiohttp.ClientSession() as other, other.post(served.url + link) as response:
        assert response.status == 503
        assert "The database is read-only now" in await response.text()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("53100", "The disk of the database is full"),
        ("53200", "cannot do its work"),
        ("53300", "cannot do its work"),
        ("58030", "cannot do its work"),
        ("55P03", "cannot do its work"),
        ("25006", "is read-only now"),
        ("57P01", "does not answer"),
        ("57014", "does not answer"),
    ],
)
async def test_a_database_without_room_is_no_fault_of_ours(
    served: Served, http: aiohttp.ClientSession, code: str, words: str
) -> None:
    token = await served.login(http)
    await served.state.db.writer.execute(FAILING.format(code, "login_link"))
    await served.state.db.writer.execute(ON_POOL)
    for method, path, body in (("POST", "/api/v1/users/login-link", {}), ("PUT", "/api/v1/pools/p", {"slots": 3})):
        async with http.request(method, served.url + path, json=body, headers={"X-CSRF-Token": token}) as response:
            assert (response.status, words in (await response.json())["detail"]) == (503, True), await response.text()


def test_the_places_leave_descriptors_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    soft = home.raise_descriptor_limit()
    assert soft >= 256
    places = home.tcp_places(Settings(home=Path("/nowhere")))
    assert 8 <= places <= 500
    monkeypatch.setattr(home.resource, "getrlimit", lambda _: (400, 400))
    assert 2 * (home.tcp_places(Settings(home=Path("/nowhere"))) + home.UNIX_PLACES) + home.DESCRIPTORS_KEPT <= 400


def test_the_limit_is_raised_to_what_is_allowed() -> None:
    code = (
        "import resource; from fluxd import home; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 300));"
        "print(home.raise_descriptor_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert got.stdout.split() == ["300", "300", "300"]
