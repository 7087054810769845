"""Connections to Postgres, and what is wrong with them in words.

Three kinds: `writer`, one connection that holds the daemon's lock and is the only one through which runs, instances and
attempts are written; `work`, a small pool for what the engine and the dag files look up and store; and `read`, one for
pages and API, so that slow ones never hold up a run.

asyncpg may wait for ever when a server vanished (MagicStack/asyncpg#1356): everything that talks is under a deadline
from outside, and a connection that missed one is terminated, never closed politely.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from fluxd.errors import FluxError, Invalid, Refused, Unavailable
from fluxd.store.queries import QUERIES
from fluxd.store.storable import json_bytes

# The oldest version that the tests run on, as server_version_num.
OLDEST = 150_000
CLOSE_SECONDS = 2.0
USABLE_SECONDS = 10.0
WORKERS = 4  # connections of `work`, at most
ACQUIRE_SECONDS = 15.0  # the longest wait for one of a pool's connections
# A transaction of a daemon that stands still must not hold the rows that the next one wants.
IDLE_IN_TRANSACTION_MS = 30_000
# What asyncpg raises when the connection is gone or going, whatever was asked.
GONE = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # the server is told to shut down, a statement was cancelled or took too long
    asyncpg.InvalidTransactionStateError,  # the session was ended: idle in its transaction, or too long in it
)
# Of a server that answers: it is full, two statements met, or it may not be written because another one takes over.
# It says so to this statement; the next may pass.
PASSING = (
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # a lock was not to be had in time
)
# The values of a statement are at fault: sent again they fail again. Every other error is the server's or its keeper's.
DATA = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.CardinalityViolationError,
    asyncpg.ProgramLimitExceededError,
)
TAKEN_STATE = "FX001"  # how the trigger `under_epoch` refuses a write
# Either of the two: a request that met it may be made again later.
AWAY = (*GONE, *PASSING)


def database_trouble(error: BaseException) -> str:
    """The beginning of a sentence about one of AWAY, or about no answer in time."""
    match error:
        case asyncpg.ReadOnlySQLTransactionError():
            return "The database is read-only now"
        case asyncpg.DiskFullError():
            return "The disk of the database is full"
        case asyncpg.PostgresError() if isinstance(error, PASSING):
            return f"The database cannot do its work ({_cause(error)})"
        case _:
            return f"The database does not answer ({type(error).__name__})"


# The pid of a backend and when it began: together they name one session.
_Session = tuple[int, datetime]


class _Pool(asyncpg.Pool):  # type: ignore[misc]  # asyncpg has no types
    """A pool that nobody waits for without end."""

    def acquire(self, *, timeout: float | None = None) -> Any:
        return super().acquire(timeout=ACQUIRE_SECONDS if timeout is None else timeout)


class Database:
    """The connections of one process to its database. Make it with `open`.

    `epoch`: what the holder of the lock was given; writes of the pools are refused once it is another's.
    """

    def __init__(self, url: str, writer: asyncpg.Connection, session: _Session, readers: int, seconds: float) -> None:
        self.url = url
        self.writer = writer
        self.epoch: int | None = None
        self._session = session
        self._left: list[_Session] = []  # sessions of ours that may still live on the server
        self._seconds = seconds
        self.read = self._pool(readers)
        self.work = self._pool(WORKERS)

    @classmethod
    async def open(cls, url: str, *, readers: int = 4, seconds: float = 10.0) -> "Database":
        """Connect, and see that the server can do what Flux needs. readers: most connections of the pages' pool.

        Raises FluxError FLX-5001 … FLX-5008.
        """
        writer = await connect(url, seconds=seconds)
        try:
            session = await _usable(writer, url)
            db = cls(url, writer, session, readers, seconds)
            async with asyncio.timeout(seconds):
                await db.read
                await db.work
        except BaseException:
            terminate(writer)
            raise
        return db

    def _pool(self, size: int) -> asyncpg.Pool:
        return _Pool(
            self.url,
            min_size=0,  # an idle daemon holds no more than its writer
            max_size=size,
            max_queries=50_000,
            max_inactive_connection_lifetime=60.0,
            connect=None,
            setup=None,
            init=self._join,
            reset=_keep,
            loop=None,
            connection_class=asyncpg.Connection,
            record_class=asyncpg.Record,
            timeout=self._seconds,
            command_timeout=60.0,
            server_settings=SERVER_SETTINGS | {"idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS)},
        )

    async def _join(self, conn: asyncpg.Connection) -> None:
        """A new connection of a pool: it writes under the epoch of the daemon."""
        await _prepare(conn)
        if self.epoch is not None:
            await conn.fetchval("SELECT set_config('fluxd.epoch', $1, false)", str(self.epoch))

    async def hold(self, epoch: int) -> None:
        """The lock is ours under this epoch: what the pools connected under another one may not write any more."""
        if epoch != self.epoch:
            self.epoch = epoch
            await self.read.expire_connections()
            await self.work.expire_connections()

    async def renew_writer(self) -> None:
        """A new writer in place of a broken one. The daemon's lock went with the old one: take it again.

        The server may not know yet that the old one is gone (a statement still runs, a cable was pulled): its session
        is ended there, for else it would hold the lock against ourselves.
        """
        if self._session not in self._left:
            self._left.append(self._session)
        terminate(self.writer)
        self.writer = await connect(self.url, seconds=self._seconds)
        self._session = await _usable(self.writer, self.url)
        async with answering(self.writer, self._seconds):
            rows = await self.writer.fetch(QUERIES["end_backends"], *zip(*self._left, strict=True))
        self._left = [(row["pid"], row["began"]) for row in rows]

    async def left_behind(self, lock: int) -> list[int]:
        """Our own sessions that did not end when they were told to and hold the lock: their pids."""
        rows = await self.writer.fetch(QUERIES["lock_holders"], lock)
        holding = {(row["pid"], row["began"]) for row in rows}
        return [session[0] for session in self._left if session in holding]

    async def close(self) -> None:
        """Close everything, politely if the server answers in time."""
        await asyncio.gather(close(self.writer), close(self.read), close(self.work))


async def _keep(conn: asyncpg.Connection) -> None:
    """Between two users of a pooled connection: nothing of its settings changes, so nothing is to be put back."""


# Deadlines of ours stand around all that is asked; those that somebody set for all users of the server do not count.
SERVER_SETTINGS = {
    "application_name": "fluxd",
    "timezone": "UTC",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}


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
        terminate(thing)


def terminate(thing: asyncpg.Connection | asyncpg.Pool) -> None:
    """End it at once. One that broke while it was borrowed from a pool is ended already, and says so by an error."""
    with contextlib.suppress(asyncpg.InterfaceError, OSError):
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
        terminate(conn)
        raise Unavailable(
            "FLX-5009", f"The database did not answer for {seconds:.0f} s: see whether the server is up and not stuck."
        ) from error
    except PASSING:
        raise  # the connection is well
    except GONE as error:
        terminate(conn)
        raise Unavailable(
            "FLX-5009", f"The connection to the database broke ({_cause(error)}): see whether the server is up."
        ) from error


def hide_password(url: str) -> str:
    """The URL as it may be shown: a password, wherever it stands, is `***`."""
    # Up to the last @: a password that was not quoted may hold one, or a slash.
    url = re.sub(r"(//[^:/@?]*):.*@", r"\1:***@", url)
    return re.sub(r"(password=)[^&\s]*", r"\1***", url, flags=re.IGNORECASE)


async def _prepare(conn: asyncpg.Connection) -> None:
    await conn.fetch(QUERIES["no_transaction_timeout"])  # as a setting of the start older servers would refuse it
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
