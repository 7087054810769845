"""The log endpoint: the bytes as they are, from any offset, live; and never another file."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.web.api_world import World, open_world
from tests.web.test_api import SALES, run_of

pytestmark = pytest.mark.anyio

LOG = "http://flux/api/v1/dags/sales/runs/one/tasks/load/tries/1/log"
BYTES = b"caf\xe9\n\x1b[31mred\x1b[0m\r\n\0end"


@pytest.fixture
async def world(db_url: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db_url, tmp_path) as world:
        await world.load(SALES)
        yield world


@pytest.fixture
async def running(world: World) -> dict[str, Any]:
    """An attempt that runs, try 1 of `load` in the run `one`."""
    await run_of(world, "one")
    message = await world.started()
    world.log(message, BYTES)
    return message


@pytest.mark.parametrize(
    ("query", "start", "data"),
    [
        ("", 0, BYTES),
        ("?offset=3", 3, BYTES[3:]),
        ("?offset=3&limit=4", 3, BYTES[3:7]),
        ("?offset=-3", len(BYTES) - 3, BYTES[-3:]),
        ("?offset=-1000", 0, BYTES),
        ("?offset=1000", 1000, b""),
        ("?limit=0", 0, b""),
    ],
)
async def test_bytes_by_offset(world: World, running: dict[str, Any], query: str, start: int, data: bytes) -> None:
    async with world.http.get(LOG + query) as response:
        assert response.status == 200
        assert await response.read() == data
        assert response.headers["X-Flux-Log-Size"] == str(len(BYTES))
        assert response.headers["X-Flux-Log-Offset"] == str(start)
        assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_follow_streams_until_the_try_has_ended(world: World, running: dict[str, Any]) -> None:
    async with world.http.get(LOG + "?follow=1&offset=4") as response:
        assert response.headers["X-Flux-Ended"] == "false"
        assert await response.content.readexactly(len(BYTES) - 4) == BYTES[4:]
        world.log(running, b" more")
        assert await response.content.readexactly(5) == b" more"
        world.log(running, b" last")
        world.ended(running)
        async with asyncio.timeout(5):
            assert await response.content.read() == b" last"
    async with world.http.get(LOG + "?follow=1") as response:  # ended: all of it, at once
        assert response.headers["X-Flux-Ended"] == "true"
        assert await response.read() == BYTES + b" more last"


async def test_follow_waits_for_a_log_that_is_not_there_yet(world: World) -> None:
    await run_of(world, "one")
    message = await world.started()
    async with world.http.get(LOG + "?follow=1") as response:
        assert response.headers["X-Flux-Log-Size"] == "0"
        world.log(message, b"now")
        assert await response.content.readexactly(3) == b"now"


async def test_follow_ends_when_the_daemon_stops(world: World, running: dict[str, Any]) -> None:
    async with world.http.get(LOG + "?follow=1") as response:
        assert await response.content.readexactly(len(BYTES)) == BYTES
        world.live.close()
        async with asyncio.timeout(5):
            assert await response.content.read() == b""


async def test_a_reader_that_goes_away_leaves_nothing_behind(world: World, running: dict[str, Any]) -> None:
    response = await world.http.get(LOG + "?follow=1")
    await response.content.readexactly(len(BYTES))
    assert world.live.readers == 1
    response.close()
    async with asyncio.timeout(5):
        while world.live.readers:
            await asyncio.sleep(0.01)


async def test_a_large_log_in_one_line(world: World, running: dict[str, Any]) -> None:
    world.log(running, b"x" * 20_000_000)
    async with world.http.get(LOG) as response:
        size = 0
        async for chunk in response.content.iter_chunked(2**20):
            size += len(chunk)
    assert size == len(BYTES) + 20_000_000


@pytest.mark.parametrize("step", ["file", "task", "run", "dag", "folder", "pipe"])
async def test_links_and_other_things_are_refused(
    world: World, running: dict[str, Any], tmp_path: Path, step: str
) -> None:
    """A task may put what it likes where its log is; we do not read it."""
    secret = tmp_path / "secret"
    path = world.log(running, b"")
    if step == "file":
        path.unlink()
        path.symlink_to(secret)
        secret.write_bytes(b"secret")
    elif step in ("folder", "pipe"):
        path.unlink()
        path.mkdir() if step == "folder" else os.mkfifo(path)
    else:
        linked = {"task": path.parent, "run": path.parent.parent, "dag": path.parent.parent.parent}[step]
        linked.rename(secret)
        linked.symlink_to(secret, target_is_directory=True)
    async with world.http.get(LOG) as response:
        assert response.status == 409
        assert (await response.json(content_type=None))["code"] == "FLX-4141"


@pytest.mark.parametrize("number", ["0", "-1", "x", "..", "%2e%2e%2f1", "99999999999999999999", "1%00", "２"])
async def test_tries_that_are_none(world: World, running: dict[str, Any], number: str) -> None:
    async with world.http.get(LOG.replace("tries/1", f"tries/{number}")) as response:
        assert response.status in (400, 404)


async def test_ids_of_the_request_never_name_a_file(world: World, running: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "logs" / "x" / "y" / "z").mkdir(parents=True)
    (tmp_path / "logs" / "x" / "y" / "z" / "1.log").write_bytes(b"planted")
    for path in ("x/runs/y/tasks/z", "%2e%2e/runs/logs/tasks/x", "sales/runs/..%2f..%2fx/tasks/load"):
        async with world.http.get(f"http://flux/api/v1/dags/{path}/tries/1/log") as response:
            assert response.status == 404
