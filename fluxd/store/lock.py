"""One daemon per database, by an advisory lock that lives in the writer's connection.

The lock and every write of the engine share that one connection. So whoever lost the lock (the server restarted, the
link broke) has also lost the only way to write runs. What goes through other connections carries the epoch, and the
database refuses it once the epoch is another's: no write of an old daemon can come after a new one has taken over.
A pooler that hands one session to many clients (pgbouncer in transaction mode) breaks this: name the server itself.
"""

import os
import socket
from datetime import UTC, datetime

import asyncpg

from fluxd.errors import Refused, Unavailable
from fluxd.store.database import Database
from fluxd.store.queries import QUERIES

# "flux" and a number, as two halves of a bigint: advisory locks have one space of numbers per database.
DAEMON_LOCK = (int.from_bytes(b"flux") << 32) | 1
MIGRATION_LOCK = (int.from_bytes(b"flux") << 32) | 2


class HeldByUs(Unavailable):
    """An earlier session of this very daemon holds the lock and does not end (FLX-5045). `pid`: of its backend."""

    def __init__(self, pid: int) -> None:
        super().__init__(
            "FLX-5045",
            f"The earlier database session of this fluxd (backend {pid}) still holds its lock and does not end when "
            "told to: its process is stopped or waits for a disk; see the server of the database.",
        )
        self.pid = pid


class Taken(Refused):
    """Another daemon has the lock (FLX-5020)."""

    def __init__(self, message: str) -> None:
        super().__init__("FLX-5020", message)


async def acquire(conn: asyncpg.Connection, home: str, before: int | None = None) -> int:
    """Take the database for this daemon and write down who holds it; returns the epoch, which rises with each holder.

    `before`: the epoch that this daemon had when it lost its connection; it stays where nobody else came between.
    Raises Taken FLX-5020 naming the other holder. The lock ends with the connection.
    """
    if not await conn.fetchval("SELECT pg_try_advisory_lock($1)", DAEMON_LOCK):
        raise Taken(await _who(conn))
    return int(await conn.fetchval(QUERIES["take_holder"], socket.gethostname(), os.getpid(), str(home), before))


async def acquire_again(db: Database, home: str) -> None:
    """Take the lock over a renewed writer.

    Raises Taken when another daemon has it, HeldByUs when it is a session of our own that does not end.
    """
    try:
        epoch = await acquire(db.writer, home, db.epoch)
    except Taken:
        pids = await db.left_behind(DAEMON_LOCK)
        if not pids:
            raise
        raise HeldByUs(pids[0]) from None
    await db.hold(epoch)


async def holder_died(conn: asyncpg.Connection, home: str) -> bool:
    """Whether the daemon that wrote itself down last had this home, on this machine, and its process is gone."""
    row = await conn.fetchrow(QUERIES["read_holder"])
    if row is None or (row["host"], row["home"]) != (socket.gethostname(), home) or row["pid"] == os.getpid():
        return False
    try:
        os.kill(row["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


async def _who(conn: asyncpg.Connection) -> str:
    row = await conn.fetchrow(QUERIES["read_holder"])
    database = await conn.fetchval("SELECT current_database()")
    if row is None:
        return f"Another fluxd works on the database {database}: stop it, or give this one another with --database URL."
    since = datetime.now(UTC) - row["since"]
    return (
        f"The database {database} is in use by the fluxd on {row['host']} with pid {row['pid']} and home {row['home']} "
        f"since {row['since']:%Y-%m-%d %H:%M:%S} UTC ({_words(since.total_seconds())}): stop that one, or give this "
        "one another with --database URL."
    )


def _words(seconds: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"
