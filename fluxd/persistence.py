"""Everything that the daemon keeps in Postgres, behind one door: which connection is used for what, and what happens
when the database goes away.

The engine's writer holds the daemon's lock. When its connection breaks, a new one is made, the lock is taken again,
and the turn is saved again: a turn may be saved twice with the same effect as once. A turn whose values the database
refuses is not saved again: that is the engine's to undo.
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
from fluxd.core.snapshot import Revived
from fluxd.core.spec import dag_from_json
from fluxd.dagfiles import StoredFile
from fluxd.errors import FluxError, Refused, Unavailable
from fluxd.launch import Version, XComs
from fluxd.observations import Seen, observe
from fluxd.progress import Told
from fluxd.retrying import Retrying
from fluxd.store import dags, forgotten, jobs, lock, quarantine, schema, turns, worker
from fluxd.store.database import DATA, GONE, PASSING, TAKEN_STATE, Database, answering, connect, in_words
from fluxd.store.loading import Loaded, load
from fluxd.store.quarantine import Evidence
from fluxd.store.queries import QUERIES

RETRY_FIRST_S = 0.1
ANSWER_S = 60.0
LOOKUP_S = 10.0  # what a request of a person may hold the engine up
RELEASE_S = 5.0
OBEY_S = 2.0  # how long an earlier session of ours has to end when it is told to
DEAD_HOLDER_S = 20.0  # how long a start waits for the session of a daemon of this home that was killed

T = TypeVar("T")


class Persistence:
    """The daemon's database. Make it with `open`.

    `end_backend` ends a session's process for certain, where the server is ours.
    `last_save`: when the connection with the lock last answered; `last_try`: when it was last asked (monotonic).
    """

    def __init__(self, db: Database, settings: Settings, end_backend: Callable[[int], object] | None = None) -> None:
        self.db = db
        self.end_backend = end_backend or (lambda pid: None)
        self._settings = settings
        self._job = 0
        self._writing = asyncio.Lock()
        self._forgotten = asyncio.Event()
        self.feed = ChangeFeed()
        self.last_save = self.last_try = time.monotonic()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, url: str, settings: Settings, end_backend: Callable[[int], object] | None = None
    ) -> AsyncIterator["Persistence"]:
        """Connect, migrate, take the lock, begin to beat. Raises FluxError FLX-50xx."""
        db = await Database.open(url, readers=settings.database.readers)
        try:
            # The lock first: a second daemon leaves before it touches anything.
            locked = await _has_schema(db)
            if locked:
                await _take(db, settings)
            steps = await schema.migrate(db.writer)
            if steps:
                observe(Seen.SCHEMA_MIGRATED, steps=", ".join(steps))
            if steps or not locked:  # also when another daemon made the schema while we waited to make it
                await _take(db, settings)
            persistence = cls(db, settings, end_backend)
            persistence._job = await jobs.begin(db.writer, "daemon", socket.gethostname(), os.getpid(), {})
            await jobs.lose_others(db.writer, "daemon", [persistence._job])
            persistence.last_save = persistence.last_try = time.monotonic()
            yield persistence
            with contextlib.suppress(Unavailable, TimeoutError, asyncpg.PostgresError, *GONE):
                async with asyncio.timeout(RELEASE_S):
                    await jobs.end(db.work, persistence._job)
        finally:
            await db.close()

    # ------------------------------------------------------------------------------------------ the engine's

    async def save(self, saves: Saves) -> None:
        """Save a turn, however long the database is away, or is one that cannot be written.

        Raises Taken FLX-5020 when another daemon took it meanwhile, and whatever says that the values cannot be saved.
        """
        await self._by_writer(lambda conn: turns.save(conn, saves))
        if any(cursor.forgotten for cursor in saves.cursors):
            self._forgotten.set()

    async def rehearse(self, saves: Saves) -> None:
        """Save a turn and take it back: raises what `save` would raise."""

        async def attempt(conn: asyncpg.Connection) -> None:
            async with answering(conn, turns.SAVE_SECONDS):
                transaction = conn.transaction()
                await transaction.start()
                try:
                    await turns.save(conn, saves)
                finally:
                    if not conn.is_closed():
                        await transaction.rollback()

        await self._by_writer(attempt)

    async def _by_writer(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Do this over the connection that holds the lock, however long it is away."""
        async with self._writing:
            away_since: float | None = None
            retrying = Retrying(Seen.TURN_RETRIED, RETRY_FIRST_S)
            while True:
                self.last_try = time.monotonic()
                try:
                    if away_since is not None:
                        await self.db.renew_writer()
                        async with answering(self.db.writer, ANSWER_S):
                            await lock.acquire_again(self.db, str(self._settings.home))
                    done = await work(self.db.writer)
                    break
                except (lock.Taken, *DATA):
                    raise
                except (FluxError, asyncpg.PostgresError, *GONE) as error:
                    away_since = away_since or time.monotonic()
                    if isinstance(error, lock.HeldByUs) and time.monotonic() - away_since > OBEY_S:
                        self.end_backend(error.pid)
                    reason = error.message if isinstance(error, FluxError) else quarantine.cause(error)
                await retrying.pause(reason)
            self.last_save = time.monotonic()
            if away_since is not None:
                observe(Seen.TURN_SAVED_AGAIN, seconds=self.last_save - away_since)
            return done

    async def load(self) -> Loaded:
        """The live part of the database, what of it cannot be read, and which tasks of live runs have XComs."""
        loaded = await self._by_writer(load)
        self.feed.recall(loaded.snapshot.runs)
        return loaded

    async def revive(self, run_number: int) -> Revived | None:
        """A finished run, to run some of it again. Raises Unavailable when the database is away."""
        async with self._worker(LOOKUP_S) as conn:
            row = await conn.fetchrow(QUERIES["name_of_run"], run_number)
            if row is None:
                return None
            self.feed.recall_ended(run_number, row["dag_id"], row["run_id"])
            return await turns.revive(conn, row["dag_id"], row["run_id"])

    async def run_id_taken(self, event: TriggerRun) -> bool:
        """Whether the database has a run of this name. Raises Unavailable when the database is away."""
        async with self._worker(LOOKUP_S) as conn:
            return bool(await conn.fetchval(QUERIES["run_id_taken"], event.dag_id, event.run_id))

    # ------------------------------------------------------------------------------------------ what is put aside

    async def put_aside(self, evidence: Evidence) -> None:
        """Keep the evidence of what could not be taken."""
        await self._patiently(lambda conn: quarantine.put_aside(conn, evidence))

    async def names_of(self, number: int, *, fence: bool) -> quarantine.Names:
        """Whose attempt this is (`fence`), or which run has this number."""
        return await self._patiently(lambda conn: quarantine.names_of(conn, number, fence=fence))

    async def give_up_run(self, run_number: int, reason: str) -> None:
        """End a run as failed that cannot be taken into memory."""
        await self._by_writer(lambda conn: quarantine.give_up_run(conn, run_number, reason))

    async def end_orphans(self, fences: list[int], reason: str) -> None:
        """The processes of these attempts of runs that were given up are gone."""
        await self._by_writer(lambda conn: quarantine.end_orphans(conn, fences, reason))

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
    async def _worker(self, seconds: float = ANSWER_S) -> AsyncIterator[asyncpg.Connection]:
        """A connection for short work. Raises Unavailable when the database is away or does not answer in time, and
        Refused FLX-5044 when another daemon has it."""
        try:
            conn = await self.db.work.acquire(timeout=seconds)
        except (*GONE, *PASSING) as error:
            raise in_words(error, self.db.url) from error
        try:
            async with answering(conn, seconds):
                yield conn
        except PASSING as error:  # it says no to this statement only: whoever asked may ask again
            raise in_words(error, self.db.url) from error
        except asyncpg.PostgresError as error:
            if error.sqlstate == TAKEN_STATE:
                raise Refused("FLX-5044", "Another fluxd has taken this database: this one writes no more.") from error
            raise
        finally:
            with contextlib.suppress(*GONE):  # it may be the connection that just broke
                await self.db.work.release(conn, timeout=RELEASE_S)

    async def _patiently(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Do this, however long the database is away: it is work that nobody else would do again."""
        retrying = Retrying(Seen.DATABASE_AWAITED, RETRY_FIRST_S)
        while True:
            try:
                async with self._worker() as conn:
                    return await work(conn)
            except (Unavailable, *PASSING) as error:
                reason = error.message if isinstance(error, Unavailable) else str(error)
            await retrying.pause(reason)

    # ------------------------------------------------------------------------------------------ the supervisor's

    async def beat(self) -> None:
        """Say that the daemon lives, over the connection with the lock: an idle daemon, too, notices when that broke.

        Raises Taken when another daemon took the database meanwhile.
        """

        async def say(conn: asyncpg.Connection) -> None:
            async with answering(conn, turns.SAVE_SECONDS):
                await jobs.beat(conn, [self._job])

        await self._by_writer(say)

    async def sweep(self) -> None:
        """For ever: remove the history of deleted dags, in batches, beside the turns. Begins with what an earlier
        daemon left."""
        while True:
            self._forgotten.clear()
            for dag_id in await self._patiently(forgotten.dags):
                rows = 0
                while removed := await self._patiently(lambda conn, dag_id=dag_id: forgotten.batch(conn, dag_id)):  # type: ignore[misc]
                    rows += removed
                observe(Seen.DAG_FORGOTTEN, dag=dag_id, rows=rows)
            await self._forgotten.wait()


async def _take(db: Database, settings: Settings) -> None:
    """Take the lock. The session of a daemon of this home that was killed in the middle of a statement may still hold
    it for a moment."""
    deadline = time.monotonic() + DEAD_HOLDER_S
    async with answering(db.writer, ANSWER_S):
        while True:
            try:
                await db.hold(await lock.acquire(db.writer, str(settings.home)))
                return
            except lock.Taken:
                if time.monotonic() > deadline or not await lock.holder_died(db.writer, str(settings.home)):
                    raise
            await asyncio.sleep(RETRY_FIRST_S)


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
