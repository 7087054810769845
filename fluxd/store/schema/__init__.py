"""The tables: numbered steps (`0001_first.sql`, …), each applied once, in order, in a transaction of its own.

What was applied is in the table `schema_step` with the checksum of its text: a step that was changed afterwards, or
one that this Flux does not know, is refused in words instead of being guessed at.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from fluxd.errors import FluxError, Refused, Unavailable
from fluxd.store.lock import DAEMON_LOCK, MIGRATION_LOCK

# How long a step waits for a table that somebody else holds.
LOCK_TIMEOUT_MS = 30_000


@dataclass(frozen=True, slots=True)
class Step:
    """One numbered file of SQL."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def steps(folder: Path = Path(__file__).parent) -> list[Step]:
    """The steps that this Flux knows, in order; their numbers have no gaps."""
    found = [
        Step(int(path.name.partition("_")[0]), path.stem, path.read_text()) for path in sorted(folder.glob("*.sql"))
    ]
    if [step.number for step in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"{folder}: the numbers of the schema steps are not 1, 2, 3, …")
    return found


async def migrate(conn: asyncpg.Connection, known: list[Step] | None = None) -> list[str]:
    """Bring the database to the schema of this Flux; returns the names of the steps that were applied.

    Two at once: the second waits and finds nothing to do. Raises Refused FLX-501x, Unavailable FLX-5015.
    """
    known = steps() if known is None else known
    await conn.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
    try:
        pending = await _pending(conn, known)
        if pending:
            await _nobody_works(conn)
            for step in pending:
                await _apply(conn, step)
        return [step.name for step in pending]
    finally:
        if not conn.is_closed():
            await conn.execute("SELECT pg_advisory_unlock($1)", MIGRATION_LOCK)


async def check(conn: asyncpg.Connection) -> None:
    """Raise Refused FLX-501x unless the database has exactly the schema of this Flux."""
    pending = await _pending(conn, steps())
    if pending:
        raise Refused(
            "FLX-5012",
            f"The database {await _where(conn)} lacks {len(pending)} schema step(s), the first is {pending[0].name}: "
            "run `fluxctl db migrate`, or start fluxd, which does it by itself.",
        )


async def _pending(conn: asyncpg.Connection, known: list[Step]) -> list[Step]:
    if not await conn.fetchval("SELECT to_regclass('schema_step') IS NOT NULL"):
        await _nothing_in_the_way(conn, known)
        return known
    applied = await conn.fetch("SELECT number, name, checksum FROM schema_step ORDER BY number")
    for row in applied:
        if row["number"] > len(known):
            raise Refused(
                "FLX-5010",
                f"The database {await _where(conn)} was made by a newer Flux (schema step {row['name']}; "
                f"this one knows {len(known)}): install that version, or name another database.",
            )
        if known[row["number"] - 1].checksum != row["checksum"]:
            raise Refused(
                "FLX-5011",
                f"The schema step {row['name']} of the database {await _where(conn)} is not the one that this Flux "
                "knows: it was made by a changed or unreleased version; install that one, or name another database.",
            )
    return known[len(applied) :]


async def _nothing_in_the_way(conn: asyncpg.Connection, known: list[Step]) -> None:
    ours = re.findall(r"^CREATE TABLE (\w+)", "\n".join(step.sql for step in known), re.MULTILINE)
    found = await conn.fetchval(
        "SELECT min(name) FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NOT NULL", ours
    )
    if found:
        raise Refused(
            "FLX-5013",
            f"The database {await _where(conn)} has a table {found!r} that is not of Flux: give Flux a database of its "
            "own (`CREATE DATABASE fluxd`).",
        )


async def _nobody_works(conn: asyncpg.Connection) -> None:
    """A daemon that runs on the old tables must not see them change. (Our own lock does not stand in our way.)"""
    if not await conn.fetchval("SELECT pg_try_advisory_lock($1)", DAEMON_LOCK):
        raise Refused(
            "FLX-5014",
            f"The schema of the database {await _where(conn)} cannot be changed while a fluxd works on it: stop it "
            "first.",
        )
    await conn.execute("SELECT pg_advisory_unlock($1)", DAEMON_LOCK)


async def _apply(conn: asyncpg.Connection, step: Step) -> None:
    try:
        async with conn.transaction():
            await conn.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
            if step.number == 1:
                await conn.execute(
                    "CREATE TABLE schema_step (number integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, "
                    "applied_at timestamptz NOT NULL DEFAULT now())"
                )
            await conn.execute(step.sql)
            await conn.execute(
                "INSERT INTO schema_step (number, name, checksum) VALUES ($1, $2, $3)",
                step.number,
                step.name,
                step.checksum,
            )
    except asyncpg.InsufficientPrivilegeError as error:
        raise _failed(step, f"{error}; grant it (`GRANT CREATE ON SCHEMA public TO …`)") from error
    except asyncpg.LockNotAvailableError as error:
        raise _failed(step, "somebody else holds one of its tables; find out who in pg_stat_activity") from error
    except asyncpg.PostgresError as error:
        raise _failed(step, f"{error}; nothing of it was kept, please report it") from error


def _failed(step: Step, why: str) -> FluxError:
    return Unavailable("FLX-5015", f"The schema step {step.name} failed: {why}.")


async def _where(conn: asyncpg.Connection) -> str:
    return str(await conn.fetchval("SELECT current_database()"))
