"""The daemon's end of the door of running attempts: what is told and kept counts only while the attempt is live."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fluxd.core.events import AttemptLost
from fluxd.store import worker
from tests.web.api_world import World, open_world

pytestmark = pytest.mark.anyio

SPEC = {
    "dag_id": "copy",
    "tasks": [
        {"task_id": "first", "operator": "PythonOperator", "retries": 2, "retry_delay": 0},
        {"task_id": "then", "operator": "PythonOperator", "upstream": ["first"]},
    ],
}
PROGRESS = {"rows": 12, "bytes": 4096, "note": "half"}


@pytest.fixture
async def world(db_url: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db_url, tmp_path) as world:
        await world.load(SPEC, file="copy.py")
        yield world


async def first(world: World, run_id: str = "one") -> dict[str, Any]:
    """A run, and the start of its first task."""
    status, run = await world.ask("POST", "/dags/copy/trigger", {"run_id": run_id})
    assert status == 201, run
    return await world.started()


async def tell(world: World, fence: Any, progress: dict[str, Any]) -> tuple[int, Any]:
    return await world.ask("POST", f"/worker/attempts/{fence}/progress", progress)


async def keep(world: World, fence: Any, state: dict[str, Any]) -> tuple[int, Any]:
    return await world.ask("PUT", f"/worker/attempts/{fence}/state", {"state": state})


async def shown(world: World, run_id: str = "one") -> dict[str, Any]:
    return dict(await world.get(f"/dags/copy/runs/{run_id}/tasks/first"))


# Everything that an attempt may ask: (method, what, body)
QUESTIONS: tuple[tuple[str, str, Any], ...] = (
    ("POST", "progress", PROGRESS),
    ("GET", "state", None),
    ("PUT", "state", {"state": {"a": 1}}),
    ("GET", "xcom?task_id=first&key=k", None),
    ("GET", "previous-success", None),
)


async def ended(world: World) -> int:
    message = await first(world)
    world.ended(message)
    await world.started()
    return int(message["fence"])


async def retried(world: World) -> int:
    message = await first(world)
    world.ended(message, "failed", error={"type": "E", "message": "no"})
    assert (await world.started())["try_number"] == 2
    return int(message["fence"])


async def lost(world: World) -> int:
    message = await first(world)
    world.engine.post(AttemptLost(message["fence"], datetime.now(UTC), "gone"))
    await world.started()
    return int(message["fence"])


async def waits(world: World) -> int:
    """Its process has handed its question over: the wait is live, and that process is not."""
    message = await first(world)
    world.ended(message, "waiting", wait={"sensor": "FileSensor", "args": {}})
    async with asyncio.timeout(10):
        while (await shown(world))["state"] != "waiting":
            await asyncio.sleep(0)
    return int(message["fence"])


async def marked(world: World) -> int:
    message = await first(world)
    await world.ask("POST", "/dags/copy/runs/one/mark", {"state": "success", "task_ids": ["first"]})
    world.ended(message)
    await world.started()
    return int(message["fence"])


async def never(world: World) -> int:
    return int((await first(world))["fence"]) + 1000


@pytest.mark.parametrize("over", [ended, retried, lost, waits, marked, never])
async def test_an_attempt_that_is_over_is_told_so_whatever_it_asks(world: World, over: Any) -> None:
    fence = await over(world)
    for method, what, body in QUESTIONS:
        status, problem = await world.ask(method, f"/worker/attempts/{fence}/{what}", body)
        assert (status, problem["code"]) == (409, "FLX-4240"), (method, what)
    assert await world.persistence.db.read.fetchval("SELECT count(*) FROM live_progress") == 0
    assert await world.persistence.db.read.fetchval("SELECT count(*) FROM task_state") == 0


@pytest.mark.parametrize("fence", ["x", "-1", "1e3", "1" * 40, "٣", "0x1"])
async def test_a_fence_that_is_no_number(world: World, fence: str) -> None:
    status, problem = await tell(world, fence, PROGRESS)
    assert (status, problem["code"]) == (400, "FLX-4241")


@pytest.mark.parametrize(
    "body",
    [
        {"rows": -1},
        {"rows": 1.5},
        {"rows": True},
        {"bytes": 2**63},
        {"note": 3},
        {"note": "a\0"},
        {"row": 1},
    ],
)
async def test_progress_that_is_none_is_refused(world: World, body: dict[str, Any]) -> None:
    message = await first(world)
    status, problem = await tell(world, message["fence"], body)
    assert (status, problem["code"][:8]) == (400, "FLX-4102" if "row" not in body else "FLX-4101")


async def test_progress_is_shown_while_it_runs_and_after_its_end(world: World) -> None:
    message = await first(world)
    assert (await shown(world))["progress"] is None
    assert await tell(world, message["fence"], PROGRESS) == (200, {"progress": PROGRESS})
    async with asyncio.timeout(10):
        await world.progress_stored.wait()
    now = await shown(world)
    assert (now["progress"], now["tries"][0]["progress"]) == (PROGRESS, PROGRESS)
    world.ended(message, progress={"rows": 24, "surprise": 1, "bytes": -3, "note": "n" * 9999})
    await world.started()
    assert (await shown(world))["progress"] == {"rows": 24, "note": "n" * 500}


async def test_what_a_try_told_that_was_killed_stays(world: World) -> None:
    message = await first(world)
    await tell(world, message["fence"], PROGRESS)
    async with asyncio.timeout(10):
        await world.progress_stored.wait()
    world.engine.post(AttemptLost(message["fence"], datetime.now(UTC), "gone"))
    assert (await world.started())["try_number"] == 2
    now = await shown(world)
    assert (now["tries"][0]["progress"], now["tries"][1]["progress"], now["progress"]) == (PROGRESS, None, None)


async def test_progress_that_arrives_after_the_end_is_dropped_by_the_database(world: World) -> None:
    fence = await ended(world)
    await worker.keep_progress(world.persistence.db.read, [(fence, PROGRESS, datetime.now(UTC))])
    assert (await shown(world))["progress"] is None
    assert not await worker.keep_state(world.persistence.db.read, fence, {"a": 1})


async def test_state_is_there_for_the_next_try_and_gone_after_a_clear(world: World) -> None:
    message = await first(world)
    where = f"/worker/attempts/{message['fence']}/state"
    assert await world.get(where) == {"state": {}}
    for state in ({"offset": 7}, {"offset": 8, "odd": ["ü", None, {"x": 1.5}]}):
        assert await keep(world, message["fence"], state) == (200, {"state": state})
        assert await world.get(where) == {"state": state}
    world.ended(message, "failed", error={"type": "E", "message": "no"})
    again = await world.started()
    assert await world.get(f"/worker/attempts/{again['fence']}/state") == {
        "state": {"offset": 8, "odd": ["ü", None, {"x": 1.5}]}
    }
    other = await first(world, "two")
    assert await world.get(f"/worker/attempts/{other['fence']}/state") == {"state": {}}
    world.ended(again)
    await world.started()
    status, _ = await world.ask("POST", "/dags/copy/runs/one/clear", {"task_ids": ["first"], "downstream": False})
    assert status == 200
    anew = await world.started()
    assert await world.get(f"/worker/attempts/{anew['fence']}/state") == {"state": {}}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"state": {"a": "x" * 66_000}}, "FLX-4242"),
        ({"state": [1]}, "FLX-4102"),
        ({"state": {"a": "\0"}}, "FLX-4102"),
        ({}, "FLX-4101"),
    ],
)
async def test_state_that_cannot_be_kept(world: World, body: dict[str, Any], code: str) -> None:
    message = await first(world)
    status, problem = await world.ask("PUT", f"/worker/attempts/{message['fence']}/state", body)
    assert (status, problem["code"]) == (400, code)


async def test_what_other_tasks_of_the_run_handed_on_and_the_run_before(world: World) -> None:
    message = await first(world)
    world.ended(message, xcoms=[["k", {"n": 1}], ["nothing", None]])
    world.ended(await world.started())
    async with asyncio.timeout(10):
        assert (await world.get("/dags/copy/runs/one/wait?timeout=10"))["state"] == "success"
    message = await first(world, "two")
    world.ended(message, xcoms=[["k", 2]])
    then = await world.started()
    door = f"/worker/attempts/{then['fence']}"
    assert await world.get(f"{door}/xcom?task_id=first&key=k") == {"value": 2}
    for query in ("task_id=first&key=other", "task_id=nobody&key=k", "task_id=first&key=k&map_index=0"):
        status, problem = await world.ask("GET", f"{door}/xcom?{query}")
        assert (status, problem["code"]) == (404, "FLX-4132"), query
    assert (await world.get(f"{door}/previous-success"))["run"]["run_id"] == "one"
