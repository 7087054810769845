"""Saving and loading on a real Postgres."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from fluxd.core.commands import DagCursor, Saves, Skip, XCom
from fluxd.core.model import Attempt, AttemptState, Instance, Intent, Run, RunState, State
from fluxd.store import dags, turns
from fluxd.store.database import Database

pytestmark = pytest.mark.anyio

T0 = datetime(2026, 1, 2, 6, tzinfo=UTC)
SPEC: dict[str, Any] = {"dag_id": "sales", "tasks": [{"task_id": "load", "operator": "BashOperator"}]}


async def sales(db: Database) -> int:
    """The dag `sales` stored; returns its version."""
    stored = await dags.store_load(db.writer, "sales.py", "b1", {"sales.py": "…"}, [SPEC], 0.1)
    return stored.dags[0][1]


def run_of(version_id: int, number: int = 1, **more: Any) -> Run:
    due = T0 + timedelta(days=number)
    values: dict[str, Any] = {
        "number": number,
        "dag_id": "sales",
        "run_id": f"scheduled__{number}",
        "run_type": "scheduled",
        "state": RunState.RUNNING,
        "version_id": version_id,
        "logical_date": due - timedelta(days=1),
        "data_interval_start": due - timedelta(days=1),
        "data_interval_end": due,
        "due_at": due,
        "queued_at": T0,
        "started_at": T0,
        "conf": {"a": [1, {"b": None}]},
    }
    return Run(**values | more)


def instance_of(fence: int | None = None, state: State = State.NONE, **more: Any) -> Instance:
    return Instance(run_number=1, task_id="load", state=state, fence=fence, try_number=1 if fence else 0, **more)


def attempt_of(fence: int, state: AttemptState = AttemptState.RUNNING, try_number: int = 1, **more: Any) -> Attempt:
    return Attempt(fence, 1, "load", -1, try_number, state, T0, **more)


async def test_what_was_saved_is_loaded_and_saving_twice_is_saving_once(db: Database) -> None:
    version_id = await sales(db)
    run = run_of(version_id)
    instance = instance_of(
        7, State.RUNNING, intent=Intent.CANCEL, queued_at=T0, wait={"args": [1]}, wait_until=T0, reason="why"
    )
    attempt = attempt_of(7, started_at=T0, pid=4711, usage={"user_s": 0.5}, rendered={"cmd": "ls"})
    saves = Saves(
        runs=[run],
        instances=[instance],
        attempts=[attempt],
        xcoms=[XCom(1, "load", -1, "return_value", [1, [2], None]), XCom(1, "load", -1, "nothing", None)],
        skips=[Skip("sales", T0 - timedelta(days=9), T0 - timedelta(days=2), 8, "fluxd was down")],
        cursors=[DagCursor("sales", T0 + timedelta(days=2), paused=True)],
    )
    for _ in range(2):
        await turns.save(db.writer, saves)
        found = await turns.load(db.writer)
        assert (found.runs, found.instances, found.attempts) == ([run], [instance], [attempt])
        assert (found.last_run_number, found.last_fence) == (1, 7)
        assert found.pools == {"default_pool": 128}
        (dag,) = found.dags
        assert (dag.spec.dag_id, dag.version_id, dag.paused) == ("sales", version_id, True)
        assert dag.next_due_at == T0 + timedelta(days=2)
        assert found.versions[version_id] == dag.spec
    rows = await db.read.fetch("SELECT key, value FROM xcom ORDER BY key")
    assert [tuple(row) for row in rows] == [("nothing", None), ("return_value", [1, [2], None])]
    assert await db.read.fetchval("SELECT value FROM xcom WHERE key = 'nothing' AND value = 'null'") is None
    assert await db.read.fetchval("SELECT count FROM tick_skip") == 8
    revived = await turns.revive(db.writer, "sales", "scheduled__1")
    assert revived is not None
    assert (revived.run, revived.spec, revived.instances) == (run, dag.spec, [instance])
    assert await turns.revive(db.writer, "sales", "nobody") is None


async def test_an_empty_turn_asks_nothing(db: Database) -> None:
    db.writer.terminate()
    await turns.save(db.writer, Saves())
