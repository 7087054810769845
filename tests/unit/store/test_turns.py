"""Saving and loading on a real Postgres."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from fluxd.core.commands import DagCursor, Saves, Skip, XCom
from fluxd.core.model import Attempt, Instance, Run
from fluxd.core.snapshot import PastRun
from fluxd.core.states import AttemptState, RunState, State, StopReason
from fluxd.errors import Unavailable
from fluxd.store import dags, forgotten, loading, turns, worker
from fluxd.store.database import Database
from fluxd.store.queries import QUERIES

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
        7, State.RUNNING, stop_reason=StopReason.CANCEL, queued_at=T0, wait={"args": [1]}, wait_until=T0, reason="why"
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
        found = (await loading.load(db.writer)).snapshot
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


async def test_a_word_of_an_older_attempt_changes_no_instance(db: Database) -> None:
    version_id = await sales(db)
    await turns.save(db.writer, Saves(runs=[run_of(version_id)], instances=[instance_of(None)]))

    async def after(instance: Instance) -> Instance:
        await turns.save(db.writer, Saves(instances=[instance]))
        return (await loading.load(db.writer)).snapshot.instances[0]

    for right in (instance_of(7, State.QUEUED), instance_of(7, State.RUNNING), instance_of(8, State.QUEUED)):
        assert await after(right) == right
    assert await after(instance_of(7, State.SUCCESS)) == instance_of(8, State.QUEUED)
    assert await after(instance_of(None, State.NONE)) == instance_of(8, State.QUEUED)


async def test_an_attempt_ends_once(db: Database) -> None:
    version_id = await sales(db)
    await turns.save(db.writer, Saves(runs=[run_of(version_id)], instances=[instance_of(7)], attempts=[attempt_of(7)]))
    first = attempt_of(7, AttemptState.SUCCESS, ended_at=T0, exit_code=0)
    late = attempt_of(7, AttemptState.LOST, ended_at=T0, reason="no sign of it")
    for saved in (first, late, attempt_of(7, AttemptState.RUNNING)):
        await turns.save(db.writer, Saves(attempts=[saved]))
    row = await db.read.fetchrow("SELECT state, exit_code, reason FROM attempt")
    assert tuple(row) == ("success", 0, None)


async def test_one_attempt_ends_and_the_next_begins_in_one_turn_whatever_their_order(db: Database) -> None:
    version_id = await sales(db)
    await turns.save(db.writer, Saves(runs=[run_of(version_id)], instances=[instance_of(7)], attempts=[attempt_of(7)]))
    ended = attempt_of(7, AttemptState.FAILED, ended_at=T0)
    await turns.save(db.writer, Saves(attempts=[attempt_of(8, try_number=2), ended]))
    assert [one.fence for one in (await loading.load(db.writer)).snapshot.attempts] == [8]


async def test_no_second_attempt_while_the_first_may_live_and_then_nothing_is_saved(db: Database) -> None:
    version_id = await sales(db)
    await turns.save(db.writer, Saves(runs=[run_of(version_id)], instances=[instance_of(7)], attempts=[attempt_of(7)]))
    wrong = Saves(instances=[instance_of(8, State.RUNNING)], attempts=[attempt_of(8, try_number=2)])
    with pytest.raises(asyncpg.UniqueViolationError, match="attempt_one_live"):
        await turns.save(db.writer, wrong)
    assert (await loading.load(db.writer)).snapshot.instances == [instance_of(7)]


async def test_a_tick_is_one_run(db: Database) -> None:
    version_id = await sales(db)
    run = run_of(version_id)
    await turns.save(db.writer, Saves(runs=[run]))
    with pytest.raises(asyncpg.UniqueViolationError, match="run_tick"):
        await turns.save(db.writer, Saves(runs=[replace(run, number=2, run_id="again")]))


async def test_cleared_xcoms_go_before_new_ones_come(db: Database) -> None:
    version_id = await sales(db)
    old = [XCom(1, "load", -1, "return_value", 1), XCom(1, "load", -1, "other", 2)]
    await turns.save(db.writer, Saves(runs=[run_of(version_id)], instances=[instance_of(7)], xcoms=old))
    new = XCom(1, "load", -1, "return_value", 3)
    await turns.save(db.writer, Saves(xcoms_dropped=[(1, "load", -1)], xcoms=[new]))
    assert [tuple(row) for row in await db.read.fetch("SELECT key, value FROM xcom")] == [("return_value", 3)]


async def test_a_forgotten_dag_leaves_only_the_numbers_it_used(db: Database) -> None:
    version_id = await sales(db)
    await turns.save(
        db.writer,
        Saves(
            runs=[run_of(version_id, 41)],
            instances=[replace(instance_of(70), run_number=41)],
            attempts=[replace(attempt_of(70), run_number=41)],
            xcoms=[XCom(41, "load", -1, "k", 1)],
            skips=[Skip("sales", T0, T0, 1, "why")],
        ),
    )
    for _ in range(2):
        await turns.save(db.writer, Saves(cursors=[DagCursor("sales", None, paused=False, forgotten=True)]))
        while await forgotten.batch(db.writer, "sales", rows=1):
            pass
        found = (await loading.load(db.writer)).snapshot
        assert (found.dags, found.runs, found.instances, found.attempts) == ([], [], [], [])
        assert (found.last_run_number, found.last_fence) == (41, 70)
    for table in ("dag_version", "xcom", "tick_skip"):
        assert await db.read.fetchval(f"SELECT count(*) FROM {table}") == 0, table


async def test_finished_runs_are_not_loaded(db: Database) -> None:
    version_id = await sales(db)
    done = run_of(version_id, 1, state=RunState.SUCCESS, ended_at=T0)
    await turns.save(db.writer, Saves(runs=[done], instances=[instance_of(7, State.SUCCESS)]))
    found = (await loading.load(db.writer)).snapshot
    assert (found.runs, found.instances, found.versions) == ([], [], {})
    assert found.last_run_number == 1
    revived = await turns.revive(db.writer, "sales", "scheduled__1")
    assert revived is not None
    assert revived.run == done


async def test_what_later_runs_look_back_at_is_loaded(db: Database) -> None:
    version_id = await sales(db)
    assert not (await loading.load(db.writer)).snapshot.dags[0].seen_before
    ended = {"state": RunState.SUCCESS, "ended_at": T0}
    runs = [run_of(version_id, 1, **ended), run_of(version_id, 2, **ended), run_of(version_id, 3)]
    rows = [replace(instance_of(7, State.SKIPPED), run_number=number) for number in (1, 2)]
    # A timetable has begun once it has stood somewhere, though nothing may be due any more.
    await turns.save(db.writer, Saves(runs=runs, instances=rows, cursors=[DagCursor("sales", None, False)]))
    found = (await loading.load(db.writer)).snapshot
    assert found.dags[0].seen_before
    past = PastRun("sales", T0 + timedelta(days=2), T0 + timedelta(days=1), {("load", -1): State.SKIPPED})
    assert found.past == [past]
    revived = await turns.revive(db.writer, "sales", "scheduled__2")
    assert revived is not None
    assert revived.before == replace(past, due_at=T0 + timedelta(days=1), logical_date=T0)
    first = await turns.revive(db.writer, "sales", "scheduled__1")
    assert first is not None
    assert first.before is None


async def test_a_try_is_shown_as_one_whatever_its_legs(db: Database) -> None:
    version_id = await sales(db)
    asked = attempt_of(
        7, AttemptState.DEFERRED, started_at=T0, ended_at=T0, pid=11, exit_code=0, rendered={"path": "/x"}
    )
    wait = attempt_of(8, AttemptState.WAITING, leg=2, executor="daemon", started_at=T0 + timedelta(seconds=1))
    rows = [instance_of(8, State.WAITING)]
    await turns.save(db.writer, Saves(runs=[run_of(version_id)], instances=rows, attempts=[asked, wait]))
    assert (await loading.load(db.writer)).snapshot.attempts == [wait]
    over = replace(wait, state=AttemptState.SUCCESS, ended_at=T0 + timedelta(seconds=9))
    late = replace(asked, state=AttemptState.WAITING, ended_at=None)  # an end that is told again
    await turns.save(db.writer, Saves(attempts=[late, over]))
    (shown,) = await db.read.fetch(QUERIES["page_tries"], 1, "load", -1)
    assert (shown["state"], shown["fence"], shown["legs"], shown["executor"]) == ("success", 8, 2, "local")
    assert (shown["pid"], shown["exit_code"], shown["rendered"]) == (11, 0, {"path": "/x"})
    assert (shown["started_at"], shown["ended_at"]) == (T0, T0 + timedelta(seconds=9))
    with pytest.raises(asyncpg.UniqueViolationError):
        await turns.save(db.writer, Saves(attempts=[attempt_of(9, leg=2)]))


async def test_what_tries_kept_goes_when_the_instance_begins_anew(db: Database) -> None:
    version_id = await sales(db)
    saves = Saves(runs=[run_of(version_id)], instances=[instance_of(7, State.RUNNING)], attempts=[attempt_of(7)])
    await turns.save(db.writer, saves)
    assert await worker.keep_state(db.read, 7, {"done": 3})
    await turns.save(db.writer, Saves(states_dropped=[(1, "load", 0), (2, "load", -1)]))
    assert await worker.read_state(db.read, (1, "load", -1)) == {"done": 3}
    await turns.save(db.writer, Saves(states_dropped=[(1, "load", -1)]))
    assert await worker.read_state(db.read, (1, "load", -1)) == {}


STRANGE = "NUL \0, half a pair \ud800, an emoji 😀, \\u0000 in letters"
KEPT = "NUL �, half a pair ���, an emoji 😀, \\u0000 in letters"


async def test_no_output_of_a_task_can_break_a_save(db: Database) -> None:
    version_id = await sales(db)
    deep: Any = "bottom"
    for _ in range(5000):
        deep = [deep]
    values = {
        "strange": STRANGE,
        "nested": {STRANGE: [STRANGE, {"a": STRANGE}]},
        "numbers": [2**64, -(2**70), float("nan"), float("inf"), 1e308],
        "deep": deep,
        "object": object(),
        "odd keys": {1: "a", None: "b"},
        STRANGE: 1,
        "k" * 100_000: 2,
        "k" * 100_000 + "l": 3,
    }
    await turns.save(
        db.writer,
        Saves(
            runs=[run_of(version_id, conf={"x": STRANGE}, reason=STRANGE, created_by=STRANGE)],
            instances=[instance_of(7, State.RUNNING, max_tries=10**12, reason=STRANGE, wait={"path": STRANGE})],
            attempts=[attempt_of(7, reason=STRANGE, rendered={"cmd": STRANGE}, usage={"user_s": float("nan")})],
            xcoms=[XCom(1, "load", -1, key, value) for key, value in values.items()],
            skips=[Skip("sales", T0, T0, 10**10, STRANGE)],
        ),
    )
    rows = {row["key"]: row["value"] for row in await db.read.fetch("SELECT key, value FROM xcom")}
    assert rows["strange"] == KEPT
    assert rows["nested"] == {KEPT: [KEPT, {"a": KEPT}]}
    assert rows["numbers"] == ["0x10000000000000000", "-0x400000000000000000", None, None, 1e308]
    assert "deeper than Flux keeps" in str(rows["deep"])
    assert rows["object"] == "(object is not JSON)"
    assert rows["odd keys"] == {"1": "a", "None": "b"}
    assert rows[KEPT] == 1
    assert rows["k" * 500] == 3, "the last of two keys that are one once they are cut"
    found = (await loading.load(db.writer)).snapshot
    assert (found.runs[0].reason, found.runs[0].conf, found.runs[0].created_by) == (KEPT, {"x": KEPT}, KEPT)
    assert (found.instances[0].reason, found.instances[0].wait) == (KEPT, {"path": KEPT})
    assert (found.attempts[0].reason, found.attempts[0].rendered) == (KEPT, {"cmd": KEPT})
    assert found.attempts[0].usage == {"user_s": None}


async def test_a_link_that_broke_during_a_save_is_told_and_the_save_can_be_repeated(db: Database) -> None:
    version_id = await sales(db)
    saves = Saves(runs=[run_of(version_id)], instances=[instance_of(None)])
    await turns.save(db.writer, saves)
    await db.read.execute("SELECT pg_terminate_backend($1)", db.writer.get_server_pid())
    with pytest.raises(Unavailable, match="FLX-5009"):
        for _ in range(2):
            await turns.save(db.writer, saves)
    await db.renew_writer()
    await turns.save(db.writer, saves)
    assert (await loading.load(db.writer)).snapshot.runs == saves.runs


async def test_the_states_of_the_model_are_those_of_the_database(db: Database) -> None:
    for table, states in (("run", RunState), ("task_instance", State), ("attempt", AttemptState)):
        rule = await db.read.fetchval(
            "SELECT string_agg(pg_get_constraintdef(oid), ' ') FROM pg_constraint "
            "WHERE conrelid = $1::regclass AND conname = $1 || '_state_check'",
            table,
        )
        assert set(re.findall(r"'(\w+)'", rule)) == {state.value for state in states}, table
