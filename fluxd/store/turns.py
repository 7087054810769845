"""The engine's side of the store: save what a turn decided, bring a finished run back.

`save` is the hottest path of Flux: it is one statement, hence one round trip and one transaction, made of only those
parts that the turn has. Saved twice it has the same effect as once.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg

from fluxd.core.commands import Saves
from fluxd.core.model import Attempt, Instance, Run
from fluxd.core.snapshot import Revived
from fluxd.core.spec import DagSpec, dag_from_json
from fluxd.store.database import answering
from fluxd.store.queries import QUERIES
from fluxd.store.rows import instance, past, run
from fluxd.store.storable import INT4_MAX, JSON_NULL, KEY_MAX, text

Part = tuple[str, Sequence[Any]]  # the name of a query and its arguments

# What most turns are made of: a run begins, attempts start, attempts end, a run ends.
USUAL = (
    ("save_runs", "save_instances", "save_attempts"),
    ("save_instances", "save_attempts"),
    ("save_instances", "save_attempts", "save_xcoms"),
    ("save_runs", "save_instances", "save_attempts", "save_xcoms"),
)
SAVE_SECONDS = 20.0


async def save(conn: asyncpg.Connection, saves: Saves) -> None:
    """Store one turn, all or nothing.

    Raises Unavailable FLX-5009 when the link broke or the answer is late: it is then unknown whether the turn was
    stored, and it is saved again over a new connection.
    """
    statements = _statements(saves)
    if not statements:
        return
    async with answering(conn, SAVE_SECONDS):
        if len(statements) == 1:
            sql, arguments = statements[0]
            await conn.fetch(sql, *arguments)
        else:
            async with conn.transaction():
                for sql, arguments in statements:
                    await conn.fetch(sql, *arguments)


def _statements(saves: Saves) -> list[Part]:
    """What is to be run, in order: nearly always one statement."""
    parts: list[Part] = []
    if saves.runs:
        parts.append(("save_runs", ([_run_row(run) for run in saves.runs],)))
    if saves.instances:
        parts.append(("save_instances", ([_instance_row(one) for one in saves.instances],)))
    if saves.attempts:
        attempts = sorted(saves.attempts, key=lambda attempt: attempt.fence)
        parts.append(("save_attempts", ([_attempt_row(one) for one in attempts],)))
    if saves.xcoms:
        # By key: two keys that are the same once they are cleaned must not meet in one statement. The last one stays.
        xcoms = {row[:4]: row for row in map(_xcom_row, saves.xcoms)}
        parts.append(("save_xcoms", (list(xcoms.values()),)))
    if saves.skips:
        parts.append(("save_skips", ([(s.dag_id, s.first, s.last, s.count, text(s.reason)) for s in saves.skips],)))
    if cursors := sorted((c for c in saves.cursors if not c.forgotten), key=lambda cursor: cursor.dag_id):
        # Sorted as all who lock rows of dags do: so they never wait for one another in a circle.
        parts.append(("save_cursors", _columns(3, ((c.dag_id, c.next_due_at, c.paused) for c in cursors))))

    statements: list[Part] = []
    if saves.xcoms_dropped:
        statements.append((QUERIES["drop_xcoms"], _columns(3, saves.xcoms_dropped)))
    if saves.states_dropped:
        statements.append((QUERIES["drop_states"], _columns(3, saves.states_dropped)))
    if parts:
        statements.append(
            (_joined(tuple(name for name, _ in parts)), [value for _, values in parts for value in values])
        )
    if forgotten := [cursor.dag_id for cursor in saves.cursors if cursor.forgotten]:
        statements.append((QUERIES["forget_dags"], (forgotten,)))
    return statements


@functools.cache
def _joined(names: tuple[str, ...]) -> str:
    """One statement that does what these queries do, with their parameters counted through."""
    bodies: list[str] = []
    before = 0
    for name in names:
        numbers = [int(number) for number in re.findall(r"\$(\d+)", QUERIES[name])]
        bodies.append(re.sub(r"\$(\d+)", lambda match, by=before: f"${int(match[1]) + by}", QUERIES[name]))  # type: ignore[misc]
        before += max(numbers)
    *first, last = bodies
    if not first:
        return last
    with_parts = ",\n".join(f"{name} AS (\n{body}\n)" for name, body in zip(names, first, strict=False))
    return f"WITH {with_parts}\n{last}"


def _columns(width: int, rows: Iterable[Sequence[Any]]) -> Sequence[list[Any]]:
    """Rows as columns, for unnest."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


def _run_row(run: Run) -> tuple[Any, ...]:
    return (
        run.number,
        run.dag_id,
        run.run_id,
        run.run_type,
        run.state,
        run.version_id,
        run.logical_date,
        run.data_interval_start,
        run.data_interval_end,
        run.due_at,
        run.queued_at,
        run.started_at,
        run.ended_at,
        run.conf,
        text(run.reason),
        text(run.created_by),
        run.cancelling,
    )


def _instance_row(one: Instance) -> tuple[Any, ...]:
    return (
        one.run_number,
        one.task_id,
        one.map_index,
        one.state,
        one.try_number,
        min(one.max_tries, INT4_MAX),  # retries=10**10 is somebody's way to say for ever
        one.fence,
        one.stop_reason,
        one.queued_at,
        one.started_at,
        one.ended_at,
        one.retry_at,
        one.wait,
        one.wait_until,
        text(one.reason),
    )


def _attempt_row(one: Attempt) -> tuple[Any, ...]:
    return (
        one.fence,
        one.run_number,
        one.task_id,
        one.map_index,
        one.try_number,
        one.state,
        one.queued_at,
        one.started_at,
        one.ended_at,
        one.pid,
        one.exit_code,
        one.signal,
        text(one.reason),
        one.usage,
        one.rendered,
        one.leg,
        one.executor,
        one.progress,
    )


def _xcom_row(xcom: Any) -> tuple[Any, ...]:
    key = (text(str(xcom.key)) or "")[:KEY_MAX]
    return (xcom.run_number, xcom.task_id, xcom.map_index, key, JSON_NULL if xcom.value is None else xcom.value)


async def warm(conn: asyncpg.Connection) -> None:
    """Have the usual statements prepared on this connection: else the first turns take 10 to 30 ms more each.

    Each is run with no rows, since that is how asyncpg comes to keep it and the types it needs.
    """
    async with answering(conn, SAVE_SECONDS):
        for names in USUAL:
            await conn.fetch(_joined(names), *([] for _ in names))


async def revive(conn: asyncpg.Connection, dag_id: str, run_id: str) -> Revived | None:
    """A run with its spec and instances, whatever its state, or None when there is none of that name."""
    async with answering(conn, SAVE_SECONDS), conn.transaction(isolation="repeatable_read", readonly=True):
        row = await conn.fetchrow(QUERIES["load_run"], dag_id, run_id)
        if row is None:
            return None
        values = dict(row)
        spec: DagSpec = dag_from_json(values.pop("spec"))
        rows = await conn.fetch(QUERIES["load_instances_of_run"], values["number"])
        before = await conn.fetchrow(QUERIES["load_run_before"], dag_id, values["due_at"])
        return Revived(
            run=run(values),
            spec=spec,
            instances=[instance(one) for one in rows],
            before=None if before is None else past(before),
        )
