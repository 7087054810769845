"""One daemon per database, by an advisory lock that lives in the writer's connection.

The lock and every write of the engine share that one connection. So whoever lost the lock (the server restarted, the
link broke) has also lost the only way to write, and no write of an old daemon can come after a new one's.
A pooler that hands one session to many clients (pgbouncer in transaction mode) breaks this: name the server itself.
"""

import os
import socket
from datetime import UTC, datetime

import asyncpg

from fluxd.errors import Refused
from fluxd.store.queries import QUERIES

# "flux" and a number, as two halves of a bigint: advisory locks have one space of numbers per database.
DAEMON_LOCK = (int.from_bytes(b"flux") << 32) | 1
MIGRATION_LOCK = (int.from_bytes(b"flux") << 32) | 2
TAKEN = "FLX-5020"  # the code of the error: another daemon has the lock


async def acquire(conn: asyncpg.Connection, home: str) -> int:
    """Take the database for this daemon and write down who holds it; returns the epoch, which rises with each holder.

    Raises Refused FLX-5020 naming the other holder. The lock ends with the connection.
    """
    if not await conn.fetchval("SELECT pg_try_advisory_lock($1)", DAEMON_LOCK):
        raise Refused(TAKEN, await _who(conn))
    return int(await conn.fetchval(QUERIES["take_holder"], socket.gethostname(), os.getpid(), str(home)))


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
