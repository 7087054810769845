"""What the JSON API reads: one function, one statement. Rows come out as they are; the API gives them their shape.

`db` is a pool or a connection. What is written here belongs to the API alone: the answers kept for requests that
may be repeated.
"""

from datetime import datetime
from typing import Any

from fluxd.store.queries import QUERIES

Executor = Any
Row = Any

# Greater than every run number: where the first page of runs begins.
LAST = 2**63 - 1


async def dags(
    db: Executor, *, after: str = "", removed: bool = False, tag: str | None, paused: bool | None, limit: int
) -> list[Row]:
    """Dags by id, each with its newest version, its last run and how many runs live."""
    rows: list[Row] = await db.fetch(QUERIES["api_dags"], after, removed, tag, paused, limit)
    return rows


async def dag(db: Executor, dag_id: str) -> Row | None:
    """One dag with its newest version, also a removed one."""
    row: Row | None = await db.fetchrow(QUERIES["api_dag"], dag_id)
    return row


async def source(db: Executor, dag_id: str, version: int | None) -> Row | None:
    """The stored files of a version of a dag; None: of the newest."""
    row: Row | None = await db.fetchrow(QUERIES["api_source"], dag_id, version)
    return row


async def dag_errors(db: Executor) -> list[Row]:
    """The files whose newest load failed, with the dags that still run on an older version of them."""
    rows: list[Row] = await db.fetch(QUERIES["api_dag_errors"])
    return rows


async def dag_names(db: Executor) -> list[str]:
    """All dag ids, to find the nearest one to a wrong one."""
    return [row["name"] for row in await db.fetch(QUERIES["api_dag_names"])]


async def run_names(db: Executor, dag_id: str) -> list[str]:
    """The ids of a dag's newest thousand runs, newest first."""
    return [row["name"] for row in await db.fetch(QUERIES["api_run_names"], dag_id)]


async def runs(
    db: Executor,
    *,
    dag_id: str | None,
    before: int = LAST,
    states: list[str] | None = None,
    run_type: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int,
) -> list[Row]:
    """Runs, newest first: those with a number below `before`, a logical date in [since, until)."""
    rows: list[Row] = await db.fetch(QUERIES["api_runs"], dag_id, before, states, run_type, since, until, limit)
    return rows


async def runs_before(
    db: Executor, dag_id: str, logical_date: datetime, states: list[str] | None, *, limit: int
) -> list[Row]:
    """A dag's runs with a logical date before this one, nearest first."""
    rows: list[Row] = await db.fetch(QUERIES["api_runs_by_logical_date"], dag_id, logical_date, states, limit)
    return rows


async def run(db: Executor, dag_id: str, run_id: str) -> Row | None:
    """One run without its tasks."""
    row: Row | None = await db.fetchrow(QUERIES["api_run"], dag_id, run_id)
    return row


async def run_with_tasks(db: Executor, dag_id: str, run_id: str) -> list[Row]:
    """One run with its task instances in the dag's order: a row each, the run's columns in every one."""
    rows: list[Row] = await db.fetch(QUERIES["api_run_with_tasks"], dag_id, run_id)
    return rows


async def run_keys(db: Executor, dag_id: str, run_id: str) -> list[Row]:
    """The number of a run, and (task_id, map_index, task_state) of each of its task instances."""
    rows: list[Row] = await db.fetch(QUERIES["api_run_keys"], dag_id, run_id)
    return rows


async def task(db: Executor, dag_id: str, run_id: str, task_id: str, map_index: int) -> list[Row]:
    """One task instance with its tries in order: a row each; one row with empty try columns when it had none."""
    rows: list[Row] = await db.fetch(QUERIES["api_task"], dag_id, run_id, task_id, map_index)
    return rows


async def one_try(db: Executor, dag_id: str, run_id: str, task_id: str, map_index: int, number: int) -> Row | None:
    """The ids and the state of one try. None: no such task instance; its `try_number` is null: no such try."""
    row: Row | None = await db.fetchrow(QUERIES["api_try"], dag_id, run_id, task_id, map_index, number)
    return row


async def xcoms(
    db: Executor, dag_id: str, run_id: str, task_id: str, key: str | None = None, map_index: int | None = None
) -> list[Row]:
    """What a task handed on: (map_index, key, value)."""
    rows: list[Row] = await db.fetch(QUERIES["api_xcoms"], dag_id, run_id, task_id, key, map_index)
    return rows


async def pools(db: Executor) -> list[Row]:
    """The pools with what is used of them, counted from the live task instances."""
    rows: list[Row] = await db.fetch(QUERIES["api_pools"])
    return rows


async def counts(db: Executor) -> Row:
    """How many dags, live runs and live attempts there are, and the database's clock."""
    row: Row = await db.fetchrow(QUERIES["api_counts"])
    return row


async def begin_once(db: Executor, key: str, asked: dict[str, Any]) -> bool:
    """Note that this request is being worked on. False: it was asked before."""
    return await db.fetchval(QUERIES["api_begin_once"], key, asked) is not None


async def answered(db: Executor, key: str) -> Row | None:
    """(status, body) of a request asked before; status 0: it was begun, and no answer was stored."""
    row: Row | None = await db.fetchrow(QUERIES["api_answered"], key)
    return row


async def end_once(db: Executor, key: str, status: int, body: dict[str, Any]) -> None:
    """Keep the answer for whoever asks again."""
    await db.execute(QUERIES["api_end_once"], key, status, body)


async def forget_once(db: Executor, key: str) -> None:
    """Nothing came of the request: it may be asked again."""
    await db.execute(QUERIES["api_forget_once"], key)
