"""What the pages read: one function, one statement (or a few, where one would be slower). Rows come out as they are.

`db` is a pool or a connection.
"""

from collections.abc import Mapping
from typing import Any

from fluxd.store.queries import QUERIES

Executor = Any
Row = Mapping[str, Any]

# Greater than every run number.
LAST = 2**63 - 1


async def dags(db: Executor, *, search: str | None, show: str, runs: int, limit: int, offset: int) -> list[Row]:
    """Dags by id with their last runs (jsonb, oldest first); `show`: all | failing | running | paused.

    Every row repeats the counts n_all, n_failing, n_running, n_paused, n_found; where no dag is found there is one row
    whose dag_id is null.
    """
    rows: list[Row] = await db.fetch(QUERIES["page_dags"], search, show, runs, limit, offset)
    return rows


async def broken_files(db: Executor) -> list[Row]:
    """The files whose newest load failed, with the dags that go on with their last good version."""
    rows: list[Row] = await db.fetch(QUERIES["page_broken_files"])
    return rows


async def dag(db: Executor, dag_id: str) -> Row | None:
    """One dag with its newest version, also a removed one."""
    row: Row | None = await db.fetchrow(QUERIES["page_dag"], dag_id)
    return row


async def dag_runs(db: Executor, dag_id: str, *, before: int = LAST, limit: int) -> list[Row]:
    """A dag's runs with a number below `before`, newest first."""
    rows: list[Row] = await db.fetch(QUERIES["page_dag_runs"], dag_id, before, limit)
    return rows


async def last_failure(db: Executor, dag_id: str) -> Row | None:
    """The last failed run among the newest 200."""
    row: Row | None = await db.fetchrow(QUERIES["page_dag_last_failure"], dag_id)
    return row


async def grid(db: Executor, run_numbers: list[int]) -> list[Row]:
    """All task instances of these runs."""
    rows: list[Row] = await db.fetch(QUERIES["page_grid"], run_numbers)
    return rows


async def versions(db: Executor, dag_id: str, limit: int) -> list[Row]:
    """A dag's newest versions, newest first."""
    rows: list[Row] = await db.fetch(QUERIES["page_versions"], dag_id, limit)
    return rows


async def skips(db: Executor, dag_id: str, limit: int) -> list[Row]:
    """The last stretches of ticks that had no run, and why."""
    rows: list[Row] = await db.fetch(QUERIES["page_skips"], dag_id, limit)
    return rows


async def source(db: Executor, dag_id: str, version: int | None) -> Row | None:
    """The stored files of a version of a dag; None: of the newest."""
    row: Row | None = await db.fetchrow(QUERIES["page_source"], dag_id, version)
    return row


async def run(db: Executor, dag_id: str, run_id: str) -> Row | None:
    """One run with the spec it is pinned to, and the ids of the runs before and after it."""
    row: Row | None = await db.fetchrow(QUERIES["page_run"], dag_id, run_id)
    return row


async def run_tasks(db: Executor, number: int) -> list[Row]:
    """The task instances of one run."""
    rows: list[Row] = await db.fetch(QUERIES["page_run_tasks"], number)
    return rows


async def task(db: Executor, dag_id: str, run_id: str, task_id: str, map_index: int) -> Row | None:
    """One task instance with what its page must know of its run."""
    row: Row | None = await db.fetchrow(QUERIES["page_task"], dag_id, run_id, task_id, map_index)
    return row


async def tries(db: Executor, number: int, task_id: str, map_index: int) -> list[Row]:
    """The tries of a task instance, first one first."""
    rows: list[Row] = await db.fetch(QUERIES["page_tries"], number, task_id, map_index)
    return rows


async def xcoms(db: Executor, number: int, task_id: str, map_index: int, most: int) -> list[Row]:
    """What a task instance handed on: key, the first `most` characters of its value, the value's length."""
    rows: list[Row] = await db.fetch(QUERIES["page_xcoms"], number, task_id, map_index, most)
    return rows


async def task_neighbours(db: Executor, number: int, task_id: str, map_index: int) -> Row | None:
    """The run ids of the same task instance in the run before and in the run after."""
    row: Row | None = await db.fetchrow(QUERIES["page_task_neighbours"], number, task_id, map_index)
    return row
