"""What strangers and broken programs send: every route, hostile in its address, its query and its body.

The whole application with a real engine behind it. Nothing may answer with a 500, and nothing may fill the log.
"""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest

from fluxd.web.app import make_app
from tests.web.api_world import World, open_world
from tests.web.test_api import SALES, run_of

pytestmark = pytest.mark.anyio

STREAMS = {"/api/v1/events"}
SEGMENTS = (
    "%00",
    "a%00b",
    "%ff",
    "%ed%a0%80",
    "%2e%2e",
    "%2f",
    "%0d%0aX:1",
    "a" * 3000,
    "%F0%9F%92%A9",
    "'%22%3C",
    "%zz",
    "%",
)
VALUES = (
    "",
    "%00",
    "%ff",
    "%ed%a0%80",
    "-1",
    "1e9",
    "9" * 40,
    "%C2%B2",
    "%D9%A1",
    "0",
    "nan",
    "a" * 3000,
    "%",
    "%25zz",
    "true",
)
NAMES = [
    "q",
    "show",
    "page",
    "before",
    "version",
    "map_index",
    "try",
    "until",
    "limit",
    "cursor",
    "state",
    "since",
    "tag",
    "removed",
    "paused",
    "run_type",
    "timeout",
    "from",
    "count",
    "offset",
    "next",
    "fold",
]
DEEP = "[" * 5000 + "]" * 5000
JSON_BODIES = (
    *("{", "[]", "null", '"a"', '{"a": 1}', '{"conf": ' + DEEP + "}", '{"conf": {"\\u0000": 1}}', '{"conf": "x"}'),
    *('{"conf": {"a": 1e400}}', '{"conf": {"a": 99999999999999999999999999}}', '{"conf": {"a": "\\ud800"}}', "\xff"),
    *('{"logical_date": "0001-01-01"}', '{"logical_date": "9999-12-31T23:59:59Z"}', '{"run_id": "\\u0000"}'),
    *('{"task_ids": []}', '{"task_ids": [null]}', '{"task_ids": "load", "state": "success"}', '{"state": []}'),
    *('{"map_index": 1e300}', '{"map_index": true}', '{"slots": -1}', '{"slots": 1.5}', '{"name": "\\u0000"}'),
    *('{"name": "nobody"}', '{"downstream": "maybe"}', "{}", ""),
)
FORMS = (
    *(
        "",
        "paused=yes",
        "paused=%00",
        "conf=%7B%22%5Cu0000%22%3A1%7D",
        "conf=" + DEEP,
        "conf=%7B",
        "conf=%ff",
        "%=%",
        "&&&",
    ),
    *("logical_date=0001-01-01", "logical_date=9999-12-31", "logical_date=%00", "logical_date=2026-01-01&zone=%00"),
    *("logical_date=2026-01-01&zone=" + "../" * 9, "zone=a%2fb&logical_date=2026-01-01", "task=load%3A-1", "task=%3A"),
    *("task=load%3A99999999999", "task=load%3A-&state=success", "task=lo%00ad%3A-1&state=failed", "which=failed"),
    *(
        "task=load%3A%D9%A1&state=success",
        "back=%00",
        "back=//evil",
        "back=%0d%0aX:1",
        "theme=%00",
        "ask=again&conf=%00",
    ),
    *("state=success&task=load%3A--1", "ask=again&logical_date=x&conf=%ff", "next=%00", "a=" * 3000),
)
MULTIPART = (
    b"",
    b"garbage",
    b"--x\r\n\r\n",
    b"--x\r\nContent-Disposition: form-data\r\n\r\nv\r\n--x--\r\n",
    b'--x\r\nContent-Disposition: form-data; name="paused"\r\n\r\n\xff\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name="a"\r\nContent-Type: text/plain; charset=nope\r\n\r\nv\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\nv\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: nope\r\n\r\nv\r\n--x--\r\n',
)


@pytest.fixture
async def world(db_url: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db_url, tmp_path) as world:
        await world.load(SALES, source="# the sales\n")
        await run_of(world, "one")
        yield world


async def send(world: World, head: str | bytes, body: bytes = b"") -> int:
    """The status of the answer to these bytes; 0 where the connection was closed without one."""
    if isinstance(head, str):
        head = head.encode("latin-1")
    reader, writer = await asyncio.open_unix_connection(str(world.settings.socket))
    try:
        writer.write(
            head + b"\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        async with asyncio.timeout(20):
            line = await reader.readline()
        return int(line.split()[1]) if line else 0
    finally:
        writer.close()


def routes(world: World) -> list[tuple[str, str]]:
    found = []
    for route in make_app(world.state).router.routes():
        assert route.resource is not None
        if route.method != "HEAD" and route.resource.canonical not in STREAMS:
            found.append(("PATCH" if route.method == "*" else route.method, route.resource.canonical))
    return found


def fitting(pattern: str, **hostile: str) -> str:
    """The address of the run that is there, but for the hostile parts."""
    good = {"dag_id": "sales", "run_id": "one", "task_id": "load", "try_number": "1", "key": "k", "name": "p"} | hostile
    return re.sub(r"\{(\w+)[^}]*\}", lambda name: good.get(name[1], "x"), pattern)


def said_nothing(caplog: pytest.LogCaptureFixture) -> bool:
    return not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_hostile_addresses(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for method, pattern in routes(world):
        for name in re.findall(r"\{(\w+)", pattern):
            for segment in SEGMENTS:
                if method != "DELETE" or segment != "sales":
                    status = await send(world, f"{method} {fitting(pattern, **{name: segment})} HTTP/1.1")
                    assert 200 <= status < 500, (method, pattern, name, segment, status)
                    if "%00" in segment:
                        assert status == 400, (method, pattern, segment, status)
    assert said_nothing(caplog), caplog.text


async def test_hostile_queries(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for method, pattern in routes(world):
        if method != "GET" or pattern.endswith("/wait"):
            continue
        for name in NAMES:
            for value in VALUES:
                status = await send(world, f"GET {fitting(pattern)}?{name}={value} HTTP/1.1")
                assert 200 <= status < 500, (pattern, name, value, status)
    for query in ("?", "?&", "?=", "?a", "?%", "?%00", "?%ff=%ff", "?a=1&a=2", "?" + "a=1&" * 1500, "?next=//evil"):
        for pattern in ("/dags", "/dags/sales", "/login", "/api/v1/dags", "/healthz"):
            assert 200 <= await send(world, f"GET {pattern}{query} HTTP/1.1") < 500, (pattern, query)
    assert said_nothing(caplog), caplog.text


async def test_hostile_bodies(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.settings.dags.joinpath("sales.py").write_text("# the sales\n")  # so that it cannot be deleted
    for method, pattern in routes(world):
        if method == "GET":
            continue
        start = f"{method} {fitting(pattern)} HTTP/1.1\r\nContent-Type: "
        for body in JSON_BODIES:
            status = await send(world, start + "application/json", body.encode("latin-1"))
            assert 200 <= status < 500, (method, pattern, body[:60], status)
        for form in FORMS:
            status = await send(world, start + "application/x-www-form-urlencoded", form.encode())
            assert 200 <= status < 500, (method, pattern, form[:60], status)
        for parts in MULTIPART:
            for kind in ("multipart/form-data; boundary=x", "multipart/form-data", 'multipart/form-data; boundary="'):
                status = await send(world, start + kind, parts)
                assert 200 <= status < 500, (method, pattern, kind, parts, status)
        for kind in (
            "text/plain",
            "application/x-www-form-urlencoded; charset=nope",
            "application/json; charset=nope",
            ";",
            "",
        ):
            status = await send(world, start + kind, b"a=1\xff")
            assert 200 <= status < 500, (method, pattern, kind, status)
    status = await send(
        world, "POST /dags/sales/pause HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x", b"garbage"
    )
    assert status == 400
    too_much = json.dumps({"conf": {"a": "x" * 2**20}}).encode()
    for path, kind in (
        ("/api/v1/dags/sales/trigger", "application/json"),
        ("/dags/sales/trigger", "application/x-www-form-urlencoded"),
    ):
        assert await send(world, f"POST {path} HTTP/1.1\r\nContent-Type: {kind}", too_much) == 413
    assert said_nothing(caplog), caplog.text


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {0, 400}),  # TLS on a port without it
        (b"GET / HTTP/9.9", {400}),
        (b"GET /\x00 HTTP/1.1", {400}),
        (b"GET http://[ HTTP/1.1", {400}),
        (b"GET //evil/dags HTTP/1.1", {303, 404}),
        (b"GET * HTTP/1.1", {400, 404}),
        (b"CONNECT evil:443 HTTP/1.1", {400, 404, 405}),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1", {400, 414}),
        (b"GET /dags HTTP/1.1\r\nX: " + b"a" * 20_000, {400, 431}),
        (b"GET /dags HTTP/1.1" + b"".join(b"\r\nX-%d: 1" % n for n in range(500)), {400, 431}),
        (b"GET /dags HTTP/1.1\r\nno colon", {400}),
        (b"GET /dags HTTP/1.1\r\nX: \x00", {400}),
        (b"GET /dags HTTP/1.1\r\nCookie: " + b"flux_notice=done.%ff%00; flux_theme=\x80", {200}),
        (b'GET /dags HTTP/1.1\r\nAccept-Encoding: nope\r\nRange: bytes=-\r\nIf-None-Match: "', {200}),
        (b"POST /api/v1/dags/sales/trigger HTTP/1.1\r\nTransfer-Encoding: chunked", {400}),
        (
            b"POST /api/v1/dags/sales/trigger HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Type: application/json",
            {400, 415},
        ),
        (b"POST /dags/sales/trigger HTTP/1.1\r\nContent-Encoding: deflate", {303, 400}),
        (b"GET /dags HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade", {200, 400}),
        (b"POST /dags/sales/pause HTTP/1.1\r\nExpect: nonsense", {400, 417}),
    ],
)
async def test_what_is_no_http(world: World, caplog: pytest.LogCaptureFixture, head: bytes, wanted: set[int]) -> None:
    assert await send(world, head, b"not what the headers say") in wanted
    assert said_nothing(caplog), caplog.text


async def test_the_table_walks_what_is_there(world: World) -> None:
    patterns = {pattern for _, pattern in routes(world)}
    assert {"/dags/{dag_id}/trigger", "/api/v1/pools/{name}", "/login/{secret}"} <= patterns
    assert fitting("/dags/{dag_id}/runs/{run_id}", run_id=quote("a/b", safe="")) == "/dags/sales/runs/a%2Fb"
