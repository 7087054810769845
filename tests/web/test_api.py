"""The JSON API on a real Postgres, with the real engine behind it."""

import asyncio
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fluxd.core.events import PauseDag
from fluxd.errors import Unavailable
from fluxd.web.api import schemas
from fluxd.web.api.routes import PREFIX, ROUTES
from tests.web.api_world import World, open_world
from tests.web.serving import Served

pytestmark = pytest.mark.anyio

SALES: dict[str, Any] = {
    "dag_id": "sales",
    "schedule": {"kind": "cron", "expression": "0 6 * * *"},
    "timezone": "Europe/Paris",
    "start_date": "2026-01-01T05:00:00Z",
    "params": {"region": "eu"},
    "tags": ["money"],
    "tasks": [
        {"task_id": "load", "operator": "BashOperator", "retries": 1, "retry_delay": 0},
        {"task_id": "report", "operator": "PythonOperator", "upstream": ["load"]},
    ],
    "is_paused_upon_creation": True,
}


@pytest.fixture
async def world(db_url: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db_url, tmp_path) as world:
        await world.load(SALES)
        yield world


async def run_of(world: World, run_id: str = "one", **body: Any) -> dict[str, Any]:
    status, run = await world.ask("POST", "/dags/sales/trigger", {"run_id": run_id, **body})
    assert status == 201, run
    return run


async def finish(world: World, run_id: str, state: str = "success") -> dict[str, Any]:
    """Let all attempts of a run end like this; its last state."""
    waiting = asyncio.ensure_future(world.get(f"/dags/sales/runs/{run_id}/wait?timeout=20"))
    while not waiting.done():
        start = asyncio.ensure_future(world.started())
        await asyncio.wait([start, waiting], return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            world.ended(start.result(), state, error={"type": "E", "message": "broke"} if state == "failed" else None)
        else:
            start.cancel()
    return dict(await waiting)


def check_shape(value: Any, schema: schemas.Schema, where: str = "answer") -> None:
    """The value is what the schema promises, and has nothing that it does not name."""
    if "$ref" in schema:
        schema = schemas.NAMED[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        if value is not None:
            check_shape(value, schema["anyOf"][0], where)
        return
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list}
    if "type" in schema:
        assert isinstance(value, kinds[schema["type"]]), f"{where} is {value!r}"  # type: ignore[arg-type]
    if schema.get("format") == "date-time":
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", value), f"{where} is {value!r}"
    assert "enum" not in schema or value in schema["enum"], f"{where} is {value!r}"
    if "properties" in schema:
        assert set(value) == set(schema["properties"]), where
        for name, part in schema["properties"].items():
            check_shape(value[name], part, f"{where}.{name}")
    for place, part in enumerate(value if schema.get("type") == "array" else []):
        check_shape(part, schema["items"], f"{where}[{place}]")


async def test_every_route_answers_what_openapi_promises(world: World) -> None:
    """Walks the whole table, each address once on a run that has had a life."""
    await run_of(world, "told", conf={"region": "us"})
    message = await world.started()
    world.log(message, b"hello\n")
    world.ended(message, xcoms=[["return_value", 3]])
    await finish(world, "told")
    await world.persistence.broken(
        "bad.py", {"code": "FLX-2001", "message": "It is broken.", "line": 3, "traceback": "…"}
    )
    await run_of(world, "working")
    message = await world.started()
    world.ended(message, xcoms=[["return_value", 3]])
    working = await world.started()
    names = {
        "fence": str(working["fence"]),
        "dag_id": "sales",
        "run_id": "told",
        "task_id": "load",
        "try_number": "1",
        "key": "return_value",
    }
    bodies: dict[str, Any] = {
        "/dags/{dag_id}/runs/{run_id}/mark": {"state": "failed", "task_ids": ["report"]},
        "/pools/{name}": {"slots": 3},
        "/worker/attempts/{fence}/progress": {"rows": 3, "bytes": 4, "note": "five"},
        "/worker/attempts/{fence}/state": {"state": {"offset": 7}},
        "/dags/{dag_id}/runs/{run_id}/clear": {"task_ids": ["report"]},
    }
    # What ends things comes last.
    order = ["/dags/{dag_id}/runs/{run_id}/clear", "/dags/{dag_id}/runs/{run_id}/cancel"]
    routes = sorted(ROUTES, key=lambda r: (r.method == "DELETE", order.index(r.path) + 1 if r.path in order else 0))
    for route in routes:
        path = route.path.format(**names, name="small")
        if route.path.endswith("/xcom"):
            path += "?task_id=load&key=return_value"
        if route.path.endswith("/cancel"):
            await run_of(world, "unwanted")
            path = path.replace("told", "unwanted")
        if route.method == "DELETE":
            assert (await world.ask("DELETE", path))[0] == 409  # it has live runs
            world.ended(working)
            for run_id in ("told", "unwanted", "working"):
                await finish(world, run_id)
            for run in (await world.get("/runs?state=running,queued"))["runs"]:
                await finish(world, run["run_id"])
        url = f"http://flux{PREFIX}{path}"
        body = bodies.get(route.path, {}) if route.method in ("POST", "PUT") else None
        async with world.http.request(route.method, url, json=body) as response:
            assert response.status == route.status, (route.method, path, await response.text())
            assert response.content_type == route.media
            if route.media == "application/json":
                answer = await response.json()
                if route.path == "/status":  # the daemon adds facts of its own
                    answer = {name: answer[name] for name in schemas.STATUS["properties"]}
                check_shape(answer, route.answer, f"{route.method} {route.path}")


async def test_openapi_names_exactly_what_is_mounted(world: World) -> None:
    description = await world.get("/openapi.json")
    named = {(method.upper(), path) for path, methods in description["paths"].items() for method in methods}
    assert named == {(route.method, PREFIX + route.path) for route in ROUTES}
    ids = [operation["operationId"] for methods in description["paths"].values() for operation in methods.values()]
    assert len(set(ids)) == len(ids)
    for text in re.findall(r"#/components/schemas/(\w+)", str(description)):
        assert text in description["components"]["schemas"]


async def test_runs_show_has_the_fields_of_the_contract(world: World) -> None:
    await run_of(world, "one", logical_date="2026-01-03T05:00:00Z")
    shown = await world.get("/dags/sales/runs/one")
    assert {
        "dag_id",
        "run_id",
        "state",
        "run_type",
        "logical_date",
        "data_interval_start",
        "data_interval_end",
        "queued_at",
        "started_at",
        "ended_at",
        "tasks",
    } <= set(shown)
    assert [task["task_id"] for task in shown["tasks"]] == ["load", "report"]
    for task in shown["tasks"]:
        promised = {"task_id", "map_index", "state", "try_number", "queued_at", "started_at", "ended_at", "reason"}
        assert promised <= set(task)
    assert shown["state"] == "running"
    assert shown["data_interval_end"] == "2026-01-04T05:00:00Z"
    assert shown["words"] == "covers 2026-01-03 → 2026-01-04"
    assert "load" in shown["tasks"][1]["reason"]  # why report does not run


async def test_a_logical_date_without_a_zone_is_meant_in_the_zone_of_the_dag(world: World) -> None:
    run = await run_of(world, "one", logical_date="2026-07-04")
    assert run["logical_date"] == "2026-07-03T22:00:00Z"
    coming = await world.get("/dags/sales/next?from=2026-03-28&count=2")
    assert [run["due_at"] for run in coming["runs"]] == ["2026-03-28T05:00:00Z", "2026-03-29T04:00:00Z"]
    assert coming["runs"][0]["words"] == "covers 2026-03-27 → 2026-03-28, starts at 2026-03-28 06:00 Paris"


async def test_dags_errors_name_file_line_and_reason(world: World) -> None:
    error = {"code": "FLX-2001", "message": "It is broken.", "line": 3, "traceback": "…", "at": "2026-01-01T00:00:00Z"}
    await world.persistence.broken("sales.py", error)
    (found,) = (await world.get("/dag-errors"))["errors"]
    assert (found["file"], found["line"], found["reason"], found["dag_ids"]) == (
        "sales.py",
        3,
        "It is broken.",
        ["sales"],
    )
    assert (await world.get("/dags/sales"))["error"]["reason"] == "It is broken."
    _, problem = await world.ask("GET", "/dags/reports")
    assert problem["detail"].endswith("; 1 dag file cannot be loaded, see fluxctl dags errors.")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "words"),
    [
        ("GET", "/dags/sale", None, 404, "FLX-4201", "did you mean 'sales'?"),
        ("GET", "/dags/sales/runs/on", None, 404, "FLX-4120", "did you mean 'one'?"),
        ("GET", "/dags/sale/runs/one", None, 404, "FLX-4201", "did you mean 'sales'?"),
        ("GET", "/dags/sales/runs/one/tasks/laod", None, 404, "FLX-4130", "did you mean 'load'?"),
        ("GET", "/dags/sales/runs/one/tasks/load?map_index=3", None, 404, "FLX-4131", "not mapped"),
        (
            "GET",
            "/dags/sales/runs/one/tasks/load/tries/7/log",
            None,
            404,
            "FLX-4140",
            "no try 7: it was tried once so far",
        ),
        ("GET", "/dags/sales/runs/one/tasks/load/xcoms/x", None, 404, "FLX-4132", "'x'"),
        ("GET", "/dags?limt=3", None, 400, "FLX-4101", "did you mean 'limit'?"),
        ("GET", "/dags?limit=0", None, 400, "FLX-4102", "the least is 1"),
        ("GET", "/dags?limit=many", None, 400, "FLX-4102", "a whole number"),
        ("GET", "/dags?cursor=zzzz", None, 400, "FLX-4106", "next_cursor"),
        ("GET", "/dags/sales/runs?state=runing", None, 400, "FLX-4102", "did you mean 'running'?"),
        ("GET", "/dags/sales/next?from=tomorrow", None, 400, "FLX-4103", "not a time"),
        ("GET", "/dags/sales/next?from=0001-01-01", None, 400, "FLX-1046", "1900 to 2199"),
        ("GET", "/runs?until=9999-12-31T23:59:59-14:00", None, 400, "FLX-1046", "1900 to 2199"),
        ("POST", "/dags/sales/trigger", {"logical_date": "0001-01-01"}, 400, "FLX-1046", "1900 to 2199"),
        ("POST", "/dags/sales/trigger", {"logical_date": "9999-12-31T23:59:59Z"}, 400, "FLX-1046", "1900 to 2199"),
        ("POST", "/dags/sales/runs/one/clear", {"task_ids": []}, 400, "FLX-4102", "at least one"),
        ("POST", "/dags/sales/runs/one/clear", {"task_ids": "load"}, 400, "FLX-4102", "at least one"),
        ("POST", "/dags/sales/runs/one/mark", {"state": "failed", "task_ids": []}, 400, "FLX-4102", "at least one"),
        ("POST", "/dags/sales/runs/one/clear", {"map_index": 2**31}, 400, "FLX-4102", "too big"),
        ("POST", "/dags/sales/runs/one/clear", {"map_index": 7}, 404, "FLX-4131", "map index 7"),
        ("POST", "/dags/sales/runs/one/clear", {"task_ids": ["load"], "map_index": 7}, 404, "FLX-4131", "map index 7"),
        ("PUT", "/pools/a%20b", {"slots": 1}, 400, "FLX-4102", "cannot be used"),
        ("PUT", "/pools/" + "p" * 201, {"slots": 1}, 400, "FLX-4102", "cannot be used"),
        ("GET", "/nothing", None, 404, "FLX-4100", "openapi.json"),
        ("PATCH", "/dags/sales", None, 404, "FLX-4100", "PATCH"),
        ("POST", "/dags/sale/trigger", {}, 404, "FLX-4201", "did you mean 'sales'?"),
        ("POST", "/dags/sales/trigger", {"confg": {}}, 400, "FLX-4101", "did you mean 'conf'?"),
        ("POST", "/dags/sales/trigger", {"conf": [1]}, 400, "FLX-4102", "a JSON object"),
        ("POST", "/dags/sales/trigger", {"conf": {"a": "\0"}}, 400, "FLX-4102", "U+0000"),
        ("POST", "/dags/sales/trigger", [], 400, "FLX-4104", "a JSON object"),
        ("POST", "/dags/sales/trigger", {"run_id": "../x"}, 400, "FLX-4204", "cannot be used"),
        ("POST", "/dags/sales/trigger", {"run_id": "one"}, 409, "FLX-4203", "choose another"),
        ("POST", "/dags/sales/runs/one/mark", {"state": "green"}, 400, "FLX-4102", "green"),
        ("POST", "/dags/sales/runs/one/mark", {}, 400, "FLX-4101", "'state' is missing"),
        ("POST", "/dags/sales/runs/one/clear", {"task_ids": ["lod"]}, 404, "FLX-4130", "did you mean 'load'?"),
        ("POST", "/dags/sales/trigger", {"conf": {"a": [2**63]}}, 400, "FLX-4102", "conf cannot be kept: the"),
        ("POST", "/dags/sales/trigger", {"conf": {"a": 2**64}}, 400, "FLX-4102", "18446744073709551616 is beyond"),
        ("POST", "/dags/sales/trigger", {"conf": {"a": -(10**200)}}, 400, "FLX-4102", "give it as text"),
        ("PUT", "/pools/p", {"slots": 99999999999999999999999}, 400, "FLX-4102", "the most is 1000000"),
        ("PUT", "/pools/.p", {"slots": 1}, 400, "FLX-4102", "neither . nor -"),
        ("GET", "/runs?state=", None, 400, "FLX-4102", "at least one"),
        ("PUT", "/pools/p", {"slots": -1}, 400, "FLX-4102", "the least is 0"),
        ("PUT", "/pools/p", {"slots": True}, 400, "FLX-4102", "a whole number"),
    ],
)
async def test_what_is_wrong_is_said_in_one_sentence(
    world: World, method: str, path: str, body: Any, status: int, code: str, words: str
) -> None:
    await run_of(world, "one")
    async with world.http.request(method, f"http://flux{PREFIX}{path}", json=body) as response:
        problem = await response.json(content_type=None)
        assert (response.status, problem["code"]) == (status, code), problem
        assert response.content_type == "application/problem+json"
    assert words in problem["detail"]
    assert problem["status"] == status
    assert set(problem) == {"type", "title", "status", "detail", "code", "instance"}


async def test_bodies_that_are_no_json(world: World) -> None:
    url = f"http://flux{PREFIX}/dags/sales/trigger"
    for data, kind, status in [
        (b"{", "application/json", 400),
        (b'{"conf":' + b'{"a":' * 900 + b"1" + b"}" * 901, "application/json", 400),
        (b'{"run_id":' + b"[" * 900 + b"]" * 900 + b"}", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b" " * 2**20 + b"{}", "application/json", 413),
    ]:
        async with world.http.post(url, data=io.BytesIO(data), headers={"Content-Type": kind}) as response:
            assert response.status == status
            assert response.content_type == "application/problem+json"


async def test_pages_by_cursor_show_everything_once(world: World) -> None:
    for number in range(5):
        await world.load({**SALES, "dag_id": f"d{number}"}, file=f"d{number}.py")
        await run_of(world, f"r{number}")
    for noun, key in (("dags", "dag_id"), ("runs", "run_id")):
        seen: list[str] = []
        cursor = ""
        while cursor is not None:
            page = await world.get(f"/{noun}?limit=2" + (f"&cursor={cursor}" if cursor else ""))
            assert len(page[noun]) <= 2
            seen += [item[key] for item in page[noun]]
            cursor = page["next_cursor"]
        assert len(seen) == len(set(seen)) == {"dags": 6, "runs": 5}[noun]
    assert seen == ["r4", "r3", "r2", "r1", "r0"]


async def test_a_request_with_a_key_is_done_once(world: World) -> None:
    answers = []
    for _ in range(2):
        url = f"http://flux{PREFIX}/dags/sales/trigger"
        async with world.http.post(url, json={}, headers={"Idempotency-Key": "k1"}) as response:
            answers.append((response.status, await response.read()))
    assert answers[0] == answers[1]
    assert answers[0][0] == 201
    assert len((await world.get("/runs"))["runs"]) == 1
    key = {"Idempotency-Key": "k1"}
    status, problem = await world.ask("POST", "/dags/sales/trigger", {"run_id": "other"}, headers=key)
    assert (status, problem["code"]) == (409, "FLX-4154")
    # Nothing came of it: the key may be used again.
    key = {"Idempotency-Key": "k2"}
    assert (await world.ask("POST", "/dags/sales/trigger", {"run_id": "-"}, headers=key))[0] == 400
    assert (await world.ask("POST", "/dags/sales/trigger", {"run_id": "good"}, headers=key))[0] == 201


async def test_a_request_that_was_cut_off_is_not_done_again_in_silence(world: World) -> None:
    key = {"Idempotency-Key": "k1"}
    assert (await world.ask("POST", "/dags/sales/trigger", {}, headers=key))[0] == 201
    # As a daemon leaves it that dies between the run and the answer.
    await world.persistence.db.read.execute("UPDATE idempotency SET status = 0, body = '{}'")
    status, problem = await world.ask("POST", "/dags/sales/trigger", {}, headers=key)
    assert (status, problem["code"]) == (409, "FLX-4153")
    assert len((await world.get("/runs"))["runs"]) == 1


@pytest.mark.parametrize("when", ["DELETE", "INSERT"])
async def test_a_key_whose_request_got_a_503_can_be_used_again(
    served: Served, http: aiohttp.ClientSession, when: str
) -> None:
    """The daemon is stopping, or the database fails, and the key cannot be forgotten at that moment either."""
    token = await served.login(http)
    writer = served.state.db.writer
    await writer.execute(
        "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$;"
        f"CREATE TRIGGER fails BEFORE {when} ON idempotency FOR EACH ROW EXECUTE FUNCTION fails()"
    )

    def stopping(_: object) -> None:
        raise Unavailable("FLX-4090", "fluxd is stopping.")

    served.answers[PauseDag] = stopping

    async def ask() -> tuple[int, str]:
        headers = {"Idempotency-Key": "k", "X-CSRF-Token": token}
        async with http.post(f"{served.url}{PREFIX}/dags/x/pause", json={}, headers=headers) as response:
            return response.status, (await response.json()).get("code", "")

    for _ in range(2):
        assert (await ask())[0] == 503
    await writer.execute("DROP TRIGGER fails ON idempotency")
    served.answers[PauseDag] = lambda event: {"paused": event.paused}
    asked = len(served.posted)
    assert [await ask() for _ in range(2)] == [(200, "")] * 2
    assert len(served.posted) == asked + 1  # done once


async def test_a_key_that_may_have_been_used_is_not_freed_by_a_failure(world: World) -> None:
    writer, key = world.persistence.db.read, {"Idempotency-Key": "k"}
    await writer.execute(
        "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$;"
        "CREATE TRIGGER fails BEFORE UPDATE ON idempotency FOR EACH ROW EXECUTE FUNCTION fails()"
    )
    assert (await world.ask("POST", "/dags/sales/trigger", {}, headers=key))[0] == 503  # done; the answer is not kept
    await writer.execute(
        "DROP TRIGGER fails ON idempotency;"
        "CREATE TRIGGER fails BEFORE INSERT ON idempotency FOR EACH ROW EXECUTE FUNCTION fails()"
    )
    assert (await world.ask("POST", "/dags/sales/trigger", {}, headers=key))[0] == 503
    await writer.execute("DROP TRIGGER fails ON idempotency")
    status, problem = await world.ask("POST", "/dags/sales/trigger", {}, headers=key)
    assert (status, problem["code"]) == (409, "FLX-4153")
    assert len((await world.get("/runs"))["runs"]) == 1


async def test_wait_returns_with_the_end_of_the_run(world: World) -> None:
    await run_of(world, "one")
    not_yet = await world.get("/dags/sales/runs/one/wait?timeout=0")
    assert not_yet["state"] == "running"
    done = await finish(world, "one", "failed")
    assert done["state"] == "failed"
    assert "load" in done["reason"]
    assert (await world.get("/dags/sales/runs/one/wait"))["state"] == "failed"  # at once
    task = await world.get("/dags/sales/runs/one/tasks/load")
    assert [(one["try_number"], one["state"]) for one in task["tries"]] == [(1, "failed"), (2, "failed")]


async def test_cancel_clear_and_mark(world: World) -> None:
    await run_of(world, "one")
    status, marked = await world.ask("POST", "/dags/sales/runs/one/mark", {"state": "success", "task_ids": ["report"]})
    assert (status, marked) == (200, {"marked": [{"task_id": "report", "map_index": -1}]})
    done = await finish(world, "one")
    assert done["state"] == "success"
    status, refused = await world.ask("POST", "/dags/sales/runs/one/mark", {"state": "success"})
    assert (status, refused["code"]) == (409, "FLX-4122")
    status, cleared = await world.ask("POST", "/dags/sales/runs/one/clear", {"task_ids": ["report"]})
    assert (status, cleared) == (200, {"cleared": [{"task_id": "report", "map_index": -1}], "note": None})
    assert (await world.get("/dags/sales/runs/one"))["state"] == "running"
    status, _ = await world.ask("POST", "/dags/sales/runs/one/cancel")
    message = await world.started()
    world.ended(message, "failed")
    assert (await world.get("/dags/sales/runs/one/wait?timeout=10"))["state"] == "cancelled"
    status, refused = await world.ask("POST", "/dags/sales/runs/one/cancel")
    assert status == 409


async def test_pools_and_login_links(world: World) -> None:
    assert (await world.ask("PUT", "/pools/small", {"slots": 2, "description": "few"}))[0] == 200
    await run_of(world, "one")
    await world.started()
    pools = {pool["name"]: pool for pool in (await world.get("/pools"))["pools"]}
    assert (pools["small"]["slots"], pools["small"]["description"]) == (2, "few")
    assert pools["default_pool"]["used_slots"] == 1
    status, link = await world.ask("POST", "/users/login-link")
    assert status == 201
    assert link["url"].startswith("http://127.0.0.1:1/login/")


async def test_the_events_stream_is_not_hidden_by_the_api(world: World) -> None:
    async with world.http.get(f"http://flux{PREFIX}/events") as response:
        assert response.content_type == "text/event-stream"


def test_every_address_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    documented = set(re.findall(r"^\| `(\w+) (/\S+)` \|", text, re.M))
    assert documented == {(route.method, route.path) for route in ROUTES}
