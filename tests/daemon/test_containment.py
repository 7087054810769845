"""Whatever is posted, whatever raises, whatever the rows hold: the engine goes on, and the evidence is kept.

A real engine on a real database. An unknown bug is played by a core function that raises for one dag.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fluxd.core import attempts, dags, requests, scheduler, settle
from fluxd.core.events import (
    AttemptEnded,
    AttemptLost,
    AttemptStarted,
    CancelRun,
    ClearTasks,
    DagLoaded,
    DagRemoved,
    Event,
    ForgetDag,
    MarkTasks,
    PauseDag,
    PoolSet,
    TriggerRun,
    WaitEnded,
)
from fluxd.core.spec import DagSpec
from fluxd.core.states import State
from fluxd.errors import FluxError
from tests.web.api_world import World, open_world

pytestmark = pytest.mark.anyio

LONG_S = 30.0
NOW = datetime.now(UTC)


def spec(dag_id: str, **fields: Any) -> dict[str, Any]:
    return {"dag_id": dag_id, "tasks": [{"task_id": "a", "operator": "PythonOperator"} | fields]}


@pytest.fixture
async def world(db_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr("fluxd.engine.RECOVERY_FIRST_S", 0.01)
    async with open_world(db_url, tmp_path) as made:
        await made.load(spec("bad"), spec("good"))
        yield made


async def evidence(world: World) -> list[dict[str, Any]]:
    return [dict(row) for row in await world.persistence.db.read.fetch("SELECT * FROM quarantine ORDER BY id")]


async def whole_run(world: World, dag_id: str = "good") -> Any:
    """A run from its trigger to its end: the engine does all that it is there for."""
    status, run = await world.ask("POST", f"/dags/{dag_id}/trigger", {})
    assert status == 201, run
    message = await world.started()
    assert message["dag_id"] == dag_id
    world.ended(message)
    return await until_ended(world, dag_id, run["run_id"])


async def until_ended(world: World, dag_id: str, run_id: str) -> Any:
    async with asyncio.timeout(LONG_S):
        return await world.get(f"/dags/{dag_id}/runs/{run_id}/wait?timeout={LONG_S:g}")


async def running(world: World, dag_id: str = "bad") -> dict[str, Any]:
    """A run of this dag whose task runs: its start message."""
    status, run = await world.ask("POST", f"/dags/{dag_id}/trigger", {})
    assert status == 201, run
    return await world.started()


# ------------------------------------------------------------------------------------------- hostile events

ABSURD: list[Any] = [
    None, -1, 0, 2**31, 2**63, 10**30, -(10**30), 1e308, math.inf, math.nan, "", "\0", "\ud800", "x" * 100_000, True,
    [], {}, [[]], {"a": {"b": [None]}}, b"\xff", object(), datetime.max, datetime.min, timedelta.max,
    datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
]  # fmt: skip

HOSTILE: dict[str, Callable[[int, int, Any], Event]] = {
    "started pid": lambda fence, run, x: AttemptStarted(fence, x, NOW),
    "started at": lambda fence, run, x: AttemptStarted(fence, 1, x),
    "started fence": lambda fence, run, x: AttemptStarted(x, 1, NOW),
    "ended pid": lambda fence, run, x: AttemptEnded(fence, x, NOW, NOW),
    "ended started_at": lambda fence, run, x: AttemptEnded(fence, 1, x, NOW),
    "ended at": lambda fence, run, x: AttemptEnded(fence, 1, NOW, x),
    "ended exit_code": lambda fence, run, x: AttemptEnded(fence, 1, NOW, NOW, exit_code=x),
    "ended signal": lambda fence, run, x: AttemptEnded(fence, 1, NOW, NOW, signal=x),
    "ended outcome": lambda fence, run, x: AttemptEnded(fence, 1, NOW, NOW, outcome=x),
    "ended state": lambda fence, run, x: AttemptEnded(fence, 1, NOW, NOW, outcome={"state": x}),
    "ended error": lambda fence, run, x: AttemptEnded(fence, 1, NOW, NOW, outcome={"state": "failed", "error": x}),
    "ended xcoms": lambda fence, run, x: AttemptEnded(fence, 1, NOW, NOW, outcome={"state": "success", "xcoms": x}),
    "ended xcom": lambda fence, run, x: AttemptEnded(
        fence, 1, NOW, NOW, outcome={"state": "success", "xcoms": [["k", x]]}
    ),
    "ended wait": lambda fence, run, x: AttemptEnded(fence, 1, NOW, NOW, outcome={"state": "waiting", "wait": x}),
    "ended timeout": lambda fence, run, x: AttemptEnded(
        fence, 1, NOW, NOW, outcome={"state": "waiting", "wait": {"sensor": "s", "args": {}, "timeout": x}}
    ),
    "ended usage": lambda fence, run, x: AttemptEnded(fence, 1, NOW, NOW, usage=x),
    "ended killed": lambda fence, run, x: AttemptEnded(fence, 1, NOW, NOW, outcome={"state": "success"}, killed=x),
    "lost at": lambda fence, run, x: AttemptLost(fence, x, "gone"),
    "lost evidence": lambda fence, run, x: AttemptLost(fence, NOW, x),
    "wait ended": lambda fence, run, x: WaitEnded(fence, x, NOW),
    "wait xcoms": lambda fence, run, x: WaitEnded(fence, "success", NOW, x),
    "trigger dag": lambda fence, run, x: TriggerRun(0, x),
    "trigger run_id": lambda fence, run, x: TriggerRun(0, "bad", run_id=x),
    "trigger date": lambda fence, run, x: TriggerRun(0, "bad", logical_date=x),
    "trigger conf": lambda fence, run, x: TriggerRun(0, "bad", conf=x),
    "trigger by": lambda fence, run, x: TriggerRun(0, "bad", by=x),
    "pause": lambda fence, run, x: PauseDag(0, x, True),
    "cancel": lambda fence, run, x: CancelRun(0, x),
    "clear run": lambda fence, run, x: ClearTasks(0, x),
    "clear keys": lambda fence, run, x: ClearTasks(0, run, x),
    "mark state": lambda fence, run, x: MarkTasks(0, run, ((run, "a", -1),), x),
    "mark keys": lambda fence, run, x: MarkTasks(0, run, x, State.SUCCESS),
    "forget": lambda fence, run, x: ForgetDag(0, x),
    "dag loaded": lambda fence, run, x: DagLoaded(x, 1),
    "dag tasks": lambda fence, run, x: DagLoaded(DagSpec("other", tasks=x if isinstance(x, tuple) else ()), x),
    "dag removed": lambda fence, run, x: DagRemoved(x),
    "pool": lambda fence, run, x: PoolSet(x, 1),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
async def test_no_event_stops_the_engine(world: World, kind: str) -> None:
    taken = 0
    for value in ABSURD:
        message = await running(world)
        number = await world.persistence.db.read.fetchval(
            "SELECT run_number FROM attempt WHERE fence = $1", message["fence"]
        )
        event = HOSTILE[kind](message["fence"], number, value)
        await posted(world, event)
        taken += message["fence"] in world.executor.acks
        # Also where its end was put aside, the attempt is over: it does not come again at the next start.
        world.ended(message)
        await settled(world, message)
    assert (await whole_run(world))["state"] == "success"
    rows = await evidence(world)
    assert all(row["error"] and row["traceback"] and row["outcome"] for row in rows)
    assert {row["kind"] for row in rows} <= {type(HOSTILE[kind](1, 1, None)).__name__, "BeginWait", "saved"}


async def posted(world: World, event: Event) -> None:
    """Post it as its kind is posted, and wait until a turn has been made of it."""
    if hasattr(event, "request"):
        with pytest.MonkeyPatch.context():
            try:
                async with asyncio.timeout(LONG_S):
                    await world.engine.ask(lambda number: type(event)(number, *_rest(event)))
            except FluxError:
                return
        return
    world.engine.post(event)


def _rest(event: Any) -> list[Any]:
    return [getattr(event, name) for name in type(event).__dataclass_fields__][1:]


async def settled(world: World, message: dict[str, Any]) -> None:
    """The run of this attempt has ended, or is ended now."""
    run_id = message["run_id"]
    run = (await world.get(f"/dags/bad/runs/{run_id}")) if await _known(world, run_id) else None
    if run is not None and run["state"] in ("queued", "running"):
        await world.ask("POST", f"/dags/bad/runs/{run_id}/cancel", {})
        for one in (message, *drained(world)):
            world.ended(one)
        await until_ended(world, "bad", run_id)
    for one in drained(world):
        world.ended(one)


def drained(world: World) -> list[dict[str, Any]]:
    """What was to be started besides (a clear starts its tasks again)."""
    found = []
    while not world.executor.starts.empty():
        found.append(world.executor.starts.get_nowait())
    return found


async def _known(world: World, run_id: str) -> bool:
    status, _ = await world.ask("GET", f"/dags/bad/runs/{run_id}")
    return status == 200


async def test_an_absurd_timeout_is_waited_for_and_stops_nothing(world: World) -> None:
    message = await running(world)
    wait = {"sensor": "FileSensor", "args": {}, "timeout": 10**12}
    world.ended(message, "waiting", wait=wait)
    assert (await whole_run(world))["state"] == "success"
    run = await world.get(f"/dags/bad/runs/{message['run_id']}")
    assert run["tasks"][0]["state"] == "waiting", run
    assert message["fence"] in world.executor.acks
    assert await evidence(world) == []


# ------------------------------------------------------------------------------------------- planted bugs


class Bug(Exception):
    """An unknown mistake in the core."""


def plant(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, guilty: Callable[..., bool]) -> None:
    original = getattr(module, name)

    def raising(*arguments: Any, **named: Any) -> Any:
        if guilty(*arguments):
            raise Bug(f"in {name}")
        return original(*arguments, **named)

    monkeypatch.setattr(module, name, raising)


def of_bad(*arguments: Any) -> bool:
    """Whether a call of the core is about the dag `bad`."""
    working = arguments[0]
    for thing in arguments[1:]:
        node = working.attempts.get(getattr(thing, "fence", thing) if not isinstance(thing, datetime) else None)
        live = getattr(thing, "live", None) or (thing if hasattr(thing, "nodes") else None) or (node and node.live)
        number = getattr(thing, "run_number", None)
        live = live or (working.runs.get(number) if isinstance(number, int) else None)
        dag_id = live.run.dag_id if live else getattr(thing, "dag_id", None)
        if dag_id == "bad" or getattr(getattr(thing, "spec", None), "dag_id", None) == "bad":
            return True
    return False


EVENTS = ["started", "ended", "lost"]


@pytest.mark.parametrize("name", EVENTS)
async def test_a_bug_about_an_attempt_costs_that_attempt_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    message = await running(world)
    with monkeypatch.context() as patched:
        plant(patched, attempts, name, of_bad)
        if name == "started":
            second = await running(world)
        elif name == "lost":
            world.engine.post(AttemptLost(message["fence"], NOW, "gone"))
        else:
            world.ended(message)
        assert (await whole_run(world))["state"] == "success"
    rows = await evidence(world)
    assert rows and all("Bug" in row["error"] for row in rows), rows
    if name == "started":  # what it told is missing, and its end is taken
        world.ended(second)
        assert (await until_ended(world, "bad", second["run_id"]))["state"] == "success"
    else:
        assert (await until_ended(world, "bad", message["run_id"]))["state"] == "failed"
        assert message["fence"] in world.executor.acks


REQUESTS: dict[str, tuple[Any, Callable[[int], Event]]] = {
    "trigger": (requests, lambda run: TriggerRun(0, "bad")),
    "cancel": (requests, lambda run: CancelRun(0, run)),
    "clear": (requests, lambda run: ClearTasks(0, run)),
    "mark": (requests, lambda run: MarkTasks(0, run, ((run, "a", -1),), State.SUCCESS)),
    "pause": (dags, lambda run: PauseDag(0, "bad", True)),
    "forget": (dags, lambda run: ForgetDag(0, "bad")),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_bug_about_a_request_is_answered_and_nothing_of_it_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    module, make = REQUESTS[name]
    message = await running(world)
    with monkeypatch.context() as patched:
        plant(patched, module, name, of_bad)
        with pytest.raises(FluxError, match="FLX-4230"):
            event = make(1)
            await world.engine.ask(lambda number: type(event)(number, *_rest(event)))
        assert (await whole_run(world))["state"] == "success" if name != "trigger" else True
    (row,) = await evidence(world)
    assert row["kind"] == type(make(1)).__name__ and "answered" in row["outcome"]
    world.ended(message)
    assert (await until_ended(world, "bad", message["run_id"]))["state"] == "success"


@pytest.mark.parametrize("name", ["_close", "end_run"])
async def test_a_bug_in_drawing_conclusions_costs_the_run(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with monkeypatch.context() as patched:
        message = await running(world)
        plant(patched, settle, name, of_bad)
        world.ended(message)
        run = await until_ended(world, "bad", message["run_id"])
        assert run["state"] == "failed"
        assert (await whole_run(world))["state"] == "success"
    rows = await evidence(world)
    assert rows and "Bug" in rows[0]["error"] and rows[0]["dag_id"] == "bad"


async def test_a_bug_in_a_timer_costs_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.load(spec("bad", retries=3, retry_delay=0.05), spec("good"))
    message = await running(world)
    with monkeypatch.context() as patched:
        plant(patched, attempts, "retry_now", of_bad)
        world.ended(message, "failed", error={"type": "E", "message": "no", "retry": True})
        run = await until_ended(world, "bad", message["run_id"])
        assert run["state"] == "failed" and "FLX-5047" in run["reason"]
        assert (await whole_run(world))["state"] == "success"
    (row,) = await evidence(world)
    assert (row["kind"], row["dag_id"], row["run_id"]) == ("run", "bad", message["run_id"])


async def test_a_run_that_is_given_up_ends_its_process_before_it_can_be_cleared(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = await running(world)
    with monkeypatch.context() as patched:
        plant(patched, attempts, "ended", of_bad)
        plant(
            patched, scheduler, "settle", lambda working, *_: any(r.run.dag_id == "bad" for r in working.runs.values())
        )
        world.engine.post(PoolSet("p", 1))
        run = await until_ended(world, "bad", message["run_id"])
    assert run["state"] == "failed"
    assert message["fence"] in world.executor.kills
    status, problem = await world.ask("POST", f"/dags/bad/runs/{message['run_id']}/clear", {})
    assert (status, problem["code"]) == (409, "FLX-4232")
    world.ended(message, "failed")
    assert (await whole_run(world))["state"] == "success"
    status, _ = await world.ask("POST", f"/dags/bad/runs/{message['run_id']}/clear", {})
    assert status == 200


async def test_a_fault_that_no_row_has_is_waited_out_and_nothing_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = await running(world)
    calls = asyncio.Event()

    def always(*_: Any) -> bool:
        calls.set()
        return True

    with monkeypatch.context() as patched:
        plant(patched, scheduler, "settle", always)
        world.ended(message)
        await calls.wait()
        assert world.state.health is not None
    assert (await until_ended(world, "bad", message["run_id"]))["state"] == "success"
    assert await evidence(world) == []


async def test_a_start_that_cannot_be_made_fails_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    original = world._messages

    async def picky(starts: list[Any]) -> list[dict[str, Any]]:
        if any(start.run.dag_id == "bad" for start in starts):
            raise KeyError("no such task")
        return await original(starts)

    monkeypatch.setattr(world.engine, "_start_messages", picky)
    _, run = await world.ask("POST", "/dags/bad/trigger", {})
    ended = await until_ended(world, "bad", run["run_id"])
    assert "FLX-5046" in ended["tasks"][0]["reason"]
    assert (await whole_run(world))["state"] == "success"


# ------------------------------------------------------------------------------------------- rows


BROKEN_ROWS = {
    "spec of a dag": "UPDATE dag_version SET spec = '[]' WHERE dag_id = 'bad'",
    "spec without an id": "UPDATE dag_version SET spec = '{\"tasks\": 7}' WHERE dag_id = 'bad'",
    "time beyond Python": "UPDATE run SET logical_date = '20000-01-01' WHERE dag_id = 'bad'",
    "time of an instance": "UPDATE task_instance SET queued_at = '20000-01-01' FROM run WHERE number = run_number "
    "AND dag_id = 'bad'",
    "time of an attempt": "UPDATE attempt SET queued_at = '20000-01-01' FROM run WHERE number = run_number "
    "AND dag_id = 'bad'",
    "cursor of a dag": "UPDATE dag SET next_due_at = '20000-01-01' WHERE dag_id = 'bad'",
    "conf that is no object": "UPDATE run SET conf = '7' WHERE dag_id = 'bad'",
}


@pytest.mark.parametrize("what", BROKEN_ROWS)
async def test_a_row_that_cannot_be_read_at_start_costs_its_run_or_its_dag(
    db_url: str, tmp_path: Path, what: str
) -> None:
    async with open_world(db_url, tmp_path) as world:
        await world.load(spec("bad"), spec("good"))
        await running(world)
        await whole_run(world)  # so all that the one before has told is saved
        await world.persistence.db.read.execute(BROKEN_ROWS[what])
    async with open_world(db_url, tmp_path) as world:
        assert (await whole_run(world))["state"] == "success"
        rows = await evidence(world)
        if what != "conf that is no object":
            assert rows and {row["dag_id"] for row in rows} <= {"bad", ""}, rows


async def test_many_runs_and_one_that_raises(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [await running(world, "good") for _ in range(10)]
    guilty = await running(world, "bad")
    with monkeypatch.context() as patched:
        plant(patched, settle, "_judge", of_bad)
        plant(
            patched, scheduler, "settle", lambda working, *_: any(r.run.dag_id == "bad" for r in working.runs.values())
        )
        for message in messages:
            world.ended(message)
        for message in messages:
            assert (await until_ended(world, "good", message["run_id"]))["state"] == "success"
    assert (await until_ended(world, "bad", guilty["run_id"]))["state"] == "failed"
    assert [row["kind"] for row in await evidence(world)] == ["run"]
