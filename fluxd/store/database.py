"""Connections to Postgres, and what is wrong with them in words.

Two kinds: `writer`, one connection that holds the daemon's lock and is the only one through which runs, instances and
attempts are written; and `read`, a small pool for pages, API and the aggregates that are not the engine's.

asyncpg may wait for ever when a server vanished (MagicStack/asyncpg#1356): everything that talks is under a deadline
from outside, and a connection that missed one is terminated, never closed politely.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from datetime import datetime

import asyncpg
import orjson

from fluxd.errors import FluxError, Invalid, Refused, Unavailable
from fluxd.store.queries import QUERIES
from fluxd.store.storable import json_bytes

# The oldest version that the tests run on, as server_version_num.
OLDEST = 150_000
CLOSE_SECONDS = 2.0
USABLE_SECONDS = 10.0
# What asyncpg raises when the connection is gone or going, whatever was asked.
GONE = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # the server is told to shut down, or cannot take connections now
)


# The pid of a backend and when it began: together they name one session.
_Session = tuple[int, datetime]


class Database:
    """The connections of one process to its database. Make it with `open`."""

    def __init__(
        self, url: str, read: asyncpg.Pool, writer: asyncpg.Connection, session: _Session, seconds: float
    ) -> None:
        self.url = url
        self.read = read
        self.writer = writer
        self._session = session
        self._seconds = seconds

    @classmethod
    async def open(cls, url: str, *, readers: int = 4, seconds: float = 10.0) -> "Database":
        """Connect, and see that the server can do what Flux needs. readers: most connections of the pool.

        Raises FluxError FLX-5001 … FLX-5008.
        """
        writer = await connect(url, seconds=seconds)
        try:
            session = await _usable(writer, url)
            read = asyncpg.create_pool(
                url,
                min_size=0,  # an idle daemon holds no more than its writer
                max_size=readers,
                max_inactive_connection_lifetime=60.0,
                timeout=seconds,
                command_timeout=60.0,
                init=_prepare,
                server_settings=SERVER_SETTINGS,
            )
            async with asyncio.timeout(seconds):
                await read
        except BaseException:
            writer.terminate()
            raise
        return cls(url, read, writer, session, seconds)

    async def renew_writer(self) -> None:
        """A new writer in place of a broken one. The daemon's lock went with the old one: take it again.

        The server may not know yet that the old one is gone (a statement still runs, a cable was pulled): its session
        is ended there, for else it would hold the lock against ourselves.
        """
        old = self._session
        self.writer.terminate()
        self.writer = await connect(self.url, seconds=self._seconds)
        self._session = await _usable(self.writer, self.url)
        async with answering(self.writer, self._seconds):
            await self.writer.execute(QUERIES["end_backend"], *old)

    async def close(self) -> None:
        """Close everything, politely if the server answers in time."""
        await asyncio.gather(close(self.writer), close(self.read))


SERVER_SETTINGS = {"application_name": "fluxd", "timezone": "UTC"}


async def connect(url: str, *, seconds: float = 10.0) -> asyncpg.Connection:
    """One connection with our codecs: jsonb is Python data, times are aware and in UTC. Raises FluxError FLX-500x."""
    try:
        if not url.startswith(("postgresql://", "postgres://")):
            raise ValueError("not a URL of Postgres")  # asyncpg would take the empty one for "wherever"
        async with asyncio.timeout(seconds):
            conn = await asyncpg.connect(url, timeout=seconds, server_settings=SERVER_SETTINGS)
            await _prepare(conn)
            return conn
    except Exception as error:
        raise in_words(error, url) from error


async def close(thing: asyncpg.Connection | asyncpg.Pool) -> None:
    """Close a connection or a pool, politely if the server answers in time."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await thing.close()
    except (TimeoutError, *GONE):
        thing.terminate()


@contextlib.asynccontextmanager
async def answering(conn: asyncpg.Connection, seconds: float) -> AsyncIterator[None]:
    """What is done inside must be answered in that time. If not, or if the link broke, the connection is terminated
    and Unavailable FLX-5009 raised: it is then unknown whether the last commit arrived.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        conn.terminate()
        raise Unavailable(
            "FLX-5009", f"The database did not answer for {seconds:.0f} s: see whether the server is up and not stuck."
        ) from error
    except GONE as error:
        conn.terminate()
        raise Unavailable(
            "FLX-5009", f"The connection to the database broke ({_cause(error)}): see whether the server is up."
        ) from error


def hide_password(url: str) -> str:
    """The URL as it may be shown: a password, wherever it stands, is `***`."""
    # Up to the last @: a password that was not quoted may hold one, or a slash.
    url = re.sub(r"(//[^:/@?]*):.*@", r"\1:***@", url)
    return re.sub(r"(password=)[^&\s]*", r"\1***", url, flags=re.IGNORECASE)


async def _prepare(conn: asyncpg.Connection) -> None:
    # In its binary form jsonb is a version byte and the text.
    await conn.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + json_bytes(value),
        decoder=lambda data: orjson.loads(data[1:]),
    )


async def _usable(conn: asyncpg.Connection, url: str) -> _Session:
    """See that the server can do what Flux needs; returns how it knows this session."""
    shown = hide_password(url)
    async with answering(conn, USABLE_SECONDS):
        row = await conn.fetchrow(QUERIES["server_facts"])
    problem: FluxError | None = None
    if row["version"] < OLDEST:
        problem = Refused(
            "FLX-5007",
            f"The server at {shown} is PostgreSQL {row['version_words']}: Flux needs {OLDEST // 10_000} or newer.",
        )
    elif row["read_only"] or row["standby"]:
        what = "a standby" if row["standby"] else "set to read-only (default_transaction_read_only)"
        problem = Refused("FLX-5004", f"The database at {shown} cannot be written, it is {what}: name the primary.")
    elif row["encoding"] != "UTF8":
        problem = Refused(
            "FLX-5008",
            f"The database at {shown} has the encoding {row['encoding']}: make one with "
            "`CREATE DATABASE fluxd ENCODING 'UTF8' TEMPLATE template0`.",
        )
    if problem:
        raise problem
    return row["pid"], row["began"]


def _cause(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = " ".join(str(error).split()).rstrip(".")
    return text or type(error).__name__


def in_words(error: Exception, url: str) -> FluxError:
    """One sentence for a connection that could not be made. The password is never in it."""
    shown = hide_password(url)
    match error:
        case FluxError():
            return error
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return Unavailable(
                "FLX-5002", f"The server at {shown} does not let us in: {_cause(error)}; see user and password."
            )
        case asyncpg.InvalidCatalogNameError():
            return Unavailable(
                "FLX-5003", f"The server at {shown} has no such database ({_cause(error)}): make it with `createdb`."
            )
        case asyncpg.CannotConnectNowError() | asyncpg.TooManyConnectionsError() | asyncpg.AdminShutdownError():
            return Unavailable(
                "FLX-5001", f"The server at {shown} takes no connection now: {_cause(error)}; try again."
            )
        case asyncpg.ClientConfigurationError() | ValueError() | TypeError():
            # What the parser says is left out: it may quote a part of the password.
            return Invalid(
                "FLX-5006",
                f"The database URL {shown} is not understood: it looks like "
                "postgresql://user:password@host:5432/fluxd, with special characters of the password written as %XX.",
            )
        case (
            ConnectionResetError()
            | asyncpg.InterfaceError()
            | asyncpg.InternalClientError()
            | asyncpg.ConnectionDoesNotExistError()
        ):
            return Unavailable(
                "FLX-5005", f"What answers at {shown} is not PostgreSQL ({_cause(error)}): see host and port."
            )
        case asyncpg.PostgresError():
            return Unavailable("FLX-5001", f"The server at {shown} refused the connection: {_cause(error)}.")
        case OSError():
            return Unavailable(
                "FLX-5001",
                f"The database at {shown} cannot be reached ({_cause(error)}): see that the server is up and the "
                "URL right.",
            )
        case _:
            return Unavailable("FLX-5005", f"What answers at {shown} is not PostgreSQL: see host and port.")
