"""A Postgres that knows Flux's named queries: the real Persistence and store work on it, statement by statement.

It answers late, refuses, loses connections before and after a commit, hangs, and is away for a while.
"""

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import asyncpg

from fluxd.errors import Unavailable
from fluxd.store.queries import QUERIES
from fluxd.store.storable import JSON_NULL
from tests.sim.rules import RUN_DONE
from tests.sim.tables import Tables, as_row
from tests.sim.violation import Violation, require

if TYPE_CHECKING:
    from tests.sim.world import World

WRITES = (
    "save_runs",
    "save_instances",
    "save_attempts",
    "save_xcoms",
    "save_skips",
    "save_cursors",
    "drop_xcoms",
    "drop_states",
    "forget_dags",
)
REFUSALS = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.DiskFullError,
)


def _plain(sql: str) -> str:
    return re.sub(r"\$\d+", "$", sql).strip()


NAMES = {_plain(sql): name for name, sql in QUERIES.items()}
WIDTH = {name: max((int(n) for n in re.findall(r"\$(\d+)", sql)), default=0) for name, sql in QUERIES.items()}
_known: dict[str, tuple[str, ...]] = {}


def names_of(sql: str) -> tuple[str, ...]:
    """The named queries that a statement is made of, in order."""
    if sql not in _known:
        whole = NAMES.get(_plain(sql))
        if whole is not None:
            _known[sql] = (whole,)
        else:
            parts = re.findall(r"(?:WITH |,\n)(\w+) AS \(\n", sql)
            last = NAMES.get(_plain(sql.rsplit("\n)\n", 1)[-1]))
            if not parts or last is None or any(part not in QUERIES for part in parts):
                raise Violation(f"the model database does not know this statement: {sql[:200]}")
            _known[sql] = (*parts, last)
    return _known[sql]


class Transaction:
    """Statements that count together, or not at all."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._outer = connection.buffer

    async def start(self) -> None:
        if self._outer is None:
            self._connection.buffer = []

    async def rollback(self) -> None:
        self._connection.buffer = self._outer

    async def __aenter__(self) -> None:
        await self.start()

    async def __aexit__(self, kind: Any, *_: Any) -> None:
        work, self._connection.buffer = self._connection.buffer, self._outer
        if kind is None and self._outer is None and work:
            await self._connection.commit(work)


class Connection:
    """What asyncpg's connection is to the daemon."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._open = True
        self.buffer: list[tuple[str, tuple[Any, ...]]] | None = None

    def terminate(self) -> None:
        self._open = False

    def is_closed(self) -> bool:
        return not self._open

    async def close(self) -> None:
        self._open = False

    def transaction(self, **_: Any) -> "Transaction":
        return Transaction(self)

    async def fetch(self, sql: str, *values: Any) -> list[Any]:
        if not self._open:
            raise asyncpg.InterfaceError("connection is closed")
        if "pg_try_advisory_lock" in sql:
            return [{"locked": self._server.lock(self)}]
        if "set_config" in sql or "lock_holders" in sql:
            return []
        names = names_of(sql)
        if names[0] in WRITES:
            work = []
            for name in names:
                work.append((name, values[: WIDTH[name]]))
                values = values[WIDTH[name] :]
            if self.buffer is not None:
                await self._server.trouble(self, None)
                self.buffer += work
            else:
                await self.commit(work)
            return []
        await self._server.trouble(self, None)
        return list(getattr(self._server, names[0])(*values))

    async def commit(self, work: list[tuple[str, tuple[Any, ...]]]) -> None:
        if not any(any(column for column in columns) for _, columns in work):
            return  # no rows: statements that are only prepared
        require(self._server.locked_by is self, "a write without the daemon's lock")
        await self._server.trouble(self, lambda: self._server.commit(work))

    async def fetchrow(self, sql: str, *values: Any) -> Any:
        rows = await self.fetch(sql, *values)
        return rows[0] if rows else None

    async def fetchval(self, sql: str, *values: Any) -> Any:
        row = await self.fetchrow(sql, *values)
        return None if row is None else next(iter(row.values()))

    async def execute(self, sql: str, *values: Any) -> str:
        await self.fetch(sql, *values)
        return "done"


class Quiet(Connection):
    async def fetch(self, sql: str, *values: Any) -> list[Any]:
        name = names_of(sql)[0]
        return [] if name in WRITES else list(getattr(self._server, name)(*values))


class Pool:
    def __init__(self, server: "Server") -> None:
        self._server = server

    async def acquire(self, timeout: float | None = None) -> Connection:
        if self._server.world.clock_time() < self._server.away_until:
            raise ConnectionRefusedError("away")
        return Connection(self._server)

    async def release(self, connection: Connection, timeout: float | None = None) -> None:
        connection.terminate()


class Server:
    """The database of one life: what `store.database.Database` is to the Persistence."""

    url = "postgresql://model/flux"

    def __init__(self, world: "World", tables: Tables) -> None:
        self.world = world
        self.tables = tables
        self.away_until = 0.0
        self.locked_by: Connection | None = None
        self.read = self.work = Pool(self)
        self.epoch: int | None = None
        self.writer = Connection(self)

    def lock(self, connection: Connection) -> bool:
        if self.locked_by is not None and not self.locked_by.is_closed() and self.locked_by is not connection:
            return False
        self.locked_by = connection
        return True

    async def hold(self, epoch: int) -> None:
        self.epoch = epoch

    async def left_behind(self, lock: int) -> list[int]:
        return []

    def restarted(self) -> None:
        """A new daemon: the sessions of the old one are gone."""
        self.writer = Connection(self)

    async def renew_writer(self) -> None:
        self.writer.terminate()
        if self.world.clock_time() < self.away_until:
            raise Unavailable("FLX-5001", "The model database is away.")
        self.writer = Connection(self)

    def reader(self) -> "Quiet":
        """A connection that no fault meets."""
        return Quiet(self)

    def is_trouble(self, error: Exception) -> bool:
        """Whether this is what a database in trouble raises."""
        return isinstance(error, Unavailable | OSError | asyncpg.PostgresError | asyncpg.InterfaceError)

    # -- what goes wrong ------------------------------------------------------------------------------------------

    async def trouble(self, connection: Connection, effect: Callable[[], None] | None) -> None:
        """Do `effect`, or meet a fault before or after it."""
        world, rng = self.world, self.world.rng
        if effect is not None and world.chance("crash before the save"):
            world.crash()
            await asyncio.Event().wait()
        if rng.random() < 0.2:
            await asyncio.sleep(rng.choice((0.001, 0.02)))
        if world.clock_time() < self.away_until:
            raise asyncpg.ConnectionDoesNotExistError("away")
        if not world.chance("statement failed", 0.6):
            if effect is not None:
                effect()
                if rng.random() < 0.05:
                    self.world.faults["commit repeated"] += 1
                    effect()
                if world.chance("crash between save and commands"):
                    world.crash()
                    await asyncio.Event().wait()
            return
        world.disturbed(70)
        kind = rng.randrange(5)
        if kind == 0 and connection.buffer is None:
            world.faults["statement refused"] += 1
            raise rng.choice(REFUSALS)("refused")
        if kind >= 2 and effect is not None:
            world.faults["commit without an answer"] += 1
            effect()
        if kind == 4:
            world.faults["no answer"] += 1
            await asyncio.Event().wait()
        if rng.random() < 0.3:
            self.away_until = world.clock_time() + rng.choice((1, 60, 1500))
            world.disturbed(self.away_until - world.clock_time() + 70)
        raise asyncpg.ConnectionDoesNotExistError("the link broke")

    def commit(self, work: list[tuple[str, tuple[Any, ...]]]) -> None:
        tables = self.tables
        tables.begin()
        for name, columns in work:
            getattr(tables, name)(*columns)
        tables.check_commit()
        tables.journal.append(work)
        self.world.oracle.committed(tables.change)

    # -- what it is asked -----------------------------------------------------------------------------------------

    def take_holder(self, *_: Any) -> list[Any]:
        self.tables.epoch += 1
        return [{"epoch": self.tables.epoch}]

    def load_last_numbers(self) -> list[Any]:
        return [{"run_number": self.tables.run_number, "fence": self.tables.fence}]

    def load_dags(self) -> list[Any]:
        tables = self.tables
        return [
            {
                "dag_id": dag_id,
                "version_id": entry.version_id,
                "paused": entry.paused,
                "next_due_at": entry.next_due_at,
                "removed": entry.removed,
                "spec": tables.version_json[entry.version_id],
                "seen_before": entry.begun,
                "last_skipped": max(
                    (skip.last for skip in tables.skips.values() if skip.dag_id == dag_id), default=None
                ),
            }
            for dag_id, entry in sorted(tables.dags.items())
        ]

    def load_versions(self) -> list[Any]:
        used = {run.version_id for run in self.tables.live_runs.values()}
        return [{"version_id": version, "spec": self.tables.version_json[version]} for version in sorted(used)]

    def load_runs(self) -> list[Any]:
        return [as_row(run) for _, run in sorted(self.tables.live_runs.items())]

    def load_instances(self) -> list[Any]:
        tables = self.tables
        return [as_row(row) for number in sorted(tables.live_runs) for _, row in sorted(tables.by_run[number].items())]

    def load_attempts(self) -> list[Any]:
        return [as_row(self.tables.attempts[fence]) for fence in sorted(self.tables.live_attempts.values())]

    def load_past(self) -> list[Any]:
        tables, found = self.tables, set()
        for dag_id, ticks in tables.ticks.items():
            ended = [due for due, number in ticks.items() if tables.runs[number].state in RUN_DONE]
            if ended and dag_id in tables.dags:
                found.add(ticks[max(ended)])
        for run in tables.live_runs.values():
            number = self._before(run.dag_id, run.due_at)
            if number is not None and tables.runs[number].state in RUN_DONE:
                found.add(number)
        return [self._past(number) for number in sorted(found)]

    def _before(self, dag_id: str, due_at: Any) -> int | None:
        ticks = self.tables.ticks.get(dag_id, {})
        before = None if due_at is None else max((due for due in ticks if due < due_at), default=None)
        return None if before is None else ticks[before]

    def _past(self, number: int) -> dict[str, Any]:
        run = self.tables.runs[number]
        states = [[row.task_id, row.map_index, str(row.state)] for row in self.tables.by_run[number].values()]
        return {"dag_id": run.dag_id, "due_at": run.due_at, "logical_date": run.logical_date, "states": states or None}

    def put_aside(self, *values: Any) -> list[Any]:
        """A bug that is contained is a bug all the same."""
        raise Violation(f"put aside: {values}")

    def read_pools(self) -> list[Any]:
        return [{"name": name, "slots": slots, "description": None} for name, slots in self.tables.pools.items()]

    def tasks_with_xcoms(self) -> list[Any]:
        live = self.tables.live_runs
        return [
            {"run_number": key[0], "task_id": key[1], "map_index": key[2]}
            for key, values in self.tables.xcoms.items()
            if values and key[0] in live
        ]

    def name_of_run(self, number: int) -> list[Any]:
        run = self.tables.runs.get(number)
        return [] if run is None else [{"dag_id": run.dag_id, "run_id": run.run_id}]

    def load_run(self, dag_id: str, run_id: str) -> list[Any]:
        number = self.tables.run_ids.get((dag_id, run_id))
        if number is None:
            return []
        run = self.tables.runs[number]
        return [as_row(run) | {"spec": self.tables.version_json[run.version_id]}]

    def load_instances_of_run(self, number: int) -> list[Any]:
        return [as_row(row) for _, row in sorted(self.tables.by_run[number].items())]

    def load_run_before(self, dag_id: str, due_at: Any) -> list[Any]:
        number = self._before(dag_id, due_at)
        return [] if number is None else [self._past(number)]

    def run_id_taken(self, dag_id: str, run_id: str) -> list[Any]:
        return [{"exists": (dag_id, run_id) in self.tables.run_ids}]

    def version(self, version: int) -> list[Any]:
        return [{"spec": self.tables.version_json[version], "bundle": f"bundle{version}", "file": "file.py"}]

    def xcoms_of_tasks(self, numbers: list[int], task_ids: list[str], map_indexes: list[int]) -> list[Any]:
        return [
            {
                "run_number": number,
                "task_id": task_id,
                "map_index": map_index,
                "key": key,
                "value": None if value is JSON_NULL else value,
            }
            for number, task_id, map_index in zip(numbers, task_ids, map_indexes, strict=True)
            for key, value in self.tables.xcoms.get((number, task_id, map_index), {}).items()
        ]
