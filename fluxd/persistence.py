"""Everything that the daemon keeps in Postgres, behind one door: which connection is used for what, and what happens
when the database goes away.

The engine's writer holds the daemon's lock. When its connection breaks, a new one is made, the lock is taken again,
and the turn is saved again: a turn may be saved twice with the same effect as once.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from fluxd.changefeed import ChangeFeed
from fluxd.config import Settings
from fluxd.core.commands import Saves
from fluxd.core.events import TriggerRun
from fluxd.core.model import InstanceKey
from fluxd.core.snapshot import Revived, Snapshot
from fluxd.core.spec import dag_from_json
from fluxd.dagfiles import StoredFile
from fluxd.errors import FluxError, Unavailable
from fluxd.launch import Version, XComs
from fluxd.observations import Seen, observe
from fluxd.progress import Told
from fluxd.store import dags, jobs, lock, schema, turns, worker
from fluxd.store.database import GONE, Database, answering, connect, in_words
from fluxd.store.queries import QUERIES

RETRY_FIRST_S = 0.2
RETRY_MAX_S = 5.0
ANSWER_S = 60.0
# Of a server that answers: it is full, two statements met, or it may not be written because another one takes over.
# It says so to this statement; the next may pass.
PASSING = (
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
)

T = TypeVar("T")


class Persistence:
    """The daemon's database. Make it with `open`."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self.db = db
        self._settings = settings
        self._job = 0
        self.feed = ChangeFeed()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str, settings: Settings) -> AsyncIterator["Persistence"]:
        """Connect, migrate, take the lock, begin to beat. Raises FluxError FLX-50xx."""
        db = await Database.open(url, readers=settings.database.readers)
        try:
            # The lock first: a second daemon leaves before it touches anything.
            locked = await _has_schema(db)
            if locked:
                await lock.acquire(db.writer, str(settings.home))
            steps = await schema.migrate(db.writer)
            if steps:
                observe(Seen.SCHEMA_MIGRATED, steps=", ".join(steps))
            if steps or not locked:  # also when another daemon made the schema while we waited to make it
                await lock.acquire(db.writer, str(settings.home))
            persistence = cls(db, settings)
            persistence._job = await jobs.begin(db.writer, "daemon", socket.gethostname(), os.getpid(), {})
            await jobs.lose_others(db.writer, "daemon", [persistence._job])
            yield persistence
            with contextlib.suppress(Unavailable, asyncpg.PostgresError, OSError):
                await jobs.end(db.read, persistence._job)
        finally:
            await db.close()

    # ------------------------------------------------------------------------------------------ the engine's

    async def save(self, saves: Saves) -> None:
        """Save a turn, however long the database is away, or is one that cannot be written.

        Raises Refused FLX-5020 when another daemon took it meanwhile, and nothing else that may pass.
        """
        away_since: float | None = None
        delay_s = RETRY_FIRST_S
        while True:
            try:
                if away_since is not None:
                    await self.db.renew_writer()
                    async with answering(self.db.writer, ANSWER_S):
                        await lock.acquire(self.db.writer, str(self._settings.home))
                await turns.save(self.db.writer, saves)
                break
            except (FluxError, *PASSING) as error:
                if isinstance(error, FluxError) and error.code == lock.TAKEN:
                    raise
                away_since = away_since or time.monotonic()
                reason = error.message if isinstance(error, FluxError) else str(error)
                observe(Seen.TURN_RETRIED, reason=reason, seconds=delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(RETRY_MAX_S, delay_s * 2)
        if away_since is not None:
            observe(Seen.TURN_SAVED_AGAIN, seconds=time.monotonic() - away_since)

    async def load(self) -> tuple[Snapshot, list[InstanceKey]]:
        """The live part of the database, and which instances of live runs have XComs."""
        snapshot = await turns.load(self.db.writer)
        self.feed.recall(snapshot.runs)
        rows = await self.db.writer.fetch(QUERIES["tasks_with_xcoms"])
        return snapshot, [(row["run_number"], row["task_id"], row["map_index"]) for row in rows]

    async def revive(self, run_number: int) -> Revived | None:
        """A finished run, to run some of it again. Raises Unavailable when the database is away."""
        async with self._reader() as conn:
            row = await conn.fetchrow(QUERIES["name_of_run"], run_number)
            if row is None:
                return None
            self.feed.recall_ended(run_number, row["dag_id"], row["run_id"])
            return await turns.revive(conn, row["dag_id"], row["run_id"])

    async def run_id_taken(self, event: TriggerRun) -> bool:
        """Whether the database has a run of this name. Raises Unavailable when the database is away."""
        async with self._reader() as conn:
            return bool(await conn.fetchval(QUERIES["run_id_taken"], event.dag_id, event.run_id))

    # ------------------------------------------------------------------------------------------ the launcher's

    async def version(self, version_id: int) -> Version:
        row = await self._patiently(lambda conn: conn.fetchrow(QUERIES["version"], version_id))
        return Version(dag_from_json(row["spec"]), row["file"], row["bundle"])

    async def xcoms(self, instances: list[InstanceKey]) -> XComs:
        """What these instances handed on: key of the instance -> key -> value."""
        found: XComs = {}
        wanted = [list(column) for column in zip(*instances, strict=True)]
        rows = await self._patiently(lambda conn: conn.fetch(QUERIES["xcoms_of_tasks"], *wanted))
        for row in rows:
            instance = (row["run_number"], row["task_id"], row["map_index"])
            found.setdefault(instance, {})[row["key"]] = row["value"]
        return found

    async def source(self, bundle: str) -> tuple[str, dict[str, str]] | None:
        """The source of a dag version: (file, {relative path: text}), or None when it is not stored."""
        return await self._patiently(lambda conn: dags.bundle(conn, bundle))

    async def progress(self, told: list[Told]) -> None:
        """Keep what running attempts told of how far they are."""
        await self._patiently(lambda conn: worker.keep_progress(conn, told))

    # ------------------------------------------------------------------------------------------ the dag files'

    async def loaded(self, file: str, message: dict[str, Any]) -> StoredFile:
        """Keep what a file defines. Raises Refused FLX-5040 when another file has one of its dags."""
        paused = self._settings.daemon.paused_at_creation
        what = [message[name] for name in ("bundle", "files", "dags", "seconds")]
        stored = await self._patiently(lambda conn: dags.store_load(conn, file, *what, paused=paused))
        return StoredFile({dag_id: version_id for dag_id, version_id, _ in stored.dags}, stored.gone)

    async def broken(self, file: str, error: dict[str, Any]) -> None:
        await self._patiently(lambda conn: dags.store_error(conn, file, error))

    async def gone(self, file: str) -> list[str]:
        return await self._patiently(lambda conn: dags.remove_file(conn, file))

    async def known(self) -> set[str]:
        files = await self._patiently(dags.known_files)
        return {name for name, file in files.items() if not file.removed}

    # ------------------------------------------------------------------------------------------ for all of them

    @contextlib.asynccontextmanager
    async def _reader(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection for short work. Raises Unavailable when the database is away or does not answer in time."""
        try:
            conn = await self.db.read.acquire(timeout=ANSWER_S)
        except (*GONE, *PASSING) as error:
            raise in_words(error, self.db.url) from error
        try:
            async with answering(conn, ANSWER_S):
                yield conn
        finally:
            await self.db.read.release(conn)

    async def _patiently(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Do this, however long the database is away: it is work that nobody else would do again."""
        delay_s = RETRY_FIRST_S
        while True:
            try:
                async with self._reader() as conn:
                    return await work(conn)
            except (Unavailable, *PASSING) as error:
                reason = error.message if isinstance(error, Unavailable) else str(error)
                observe(Seen.DATABASE_AWAITED, reason=reason, seconds=delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(RETRY_MAX_S, delay_s * 2)

    # ------------------------------------------------------------------------------------------ the supervisor's

    async def beat(self) -> None:
        await jobs.beat(self.db.read, [self._job])


async def _has_schema(db: Database) -> bool:
    return bool(await db.writer.fetchval("SELECT to_regclass('holder') IS NOT NULL"))


@contextlib.asynccontextmanager
async def unused(url: str, home: str) -> AsyncIterator[bool]:
    """Whether no daemon works on this database; while you are inside, none can begin to."""
    try:
        conn = await connect(url)
    except FluxError:
        yield True  # nothing answers
        return
    try:
        await lock.acquire(conn, home)
        free = True
    except (FluxError, *GONE):
        free = False
    try:
        yield free
    finally:
        conn.terminate()
