"""The hub and its stream: everything in order, nobody waits for a slow reader, everything ends when it must."""

import asyncio
import contextlib

import aiohttp
import orjson
import pytest

from fluxd.web import live
from fluxd.web.live import QUEUE_SIZE, LiveHub
from tests.web.serving import Served

pytestmark = pytest.mark.anyio


async def test_a_reader_sees_all_in_order_from_when_it_came() -> None:
    hub = LiveHub()
    hub.publish("changed", {"n": 0})
    with contextlib.closing(hub.subscribe()) as reader:
        for n in (1, 2, 3):
            hub.publish("changed", {"n": n})
        seen = [await anext(reader) for _ in range(3)]
        assert [message.data["n"] for message in seen] == [1, 2, 3]
        assert seen[-1].id == hub.last_id
        assert hub.readers == 1
    assert hub.readers == 0


async def test_a_slow_reader_gets_one_reset_and_what_comes_after() -> None:
    hub = LiveHub()
    reader = hub.subscribe()
    for n in range(QUEUE_SIZE + 1):
        hub.publish("changed", {"n": n})
    hub.publish("changed", {"n": "after"})
    assert [(await anext(reader)).kind for _ in range(2)] == ["reset", "changed"]


async def test_closing_ends_every_reader_even_a_full_one_and_a_late_one() -> None:
    hub = LiveHub()
    quick, full = hub.subscribe(), hub.subscribe()
    waiting = asyncio.create_task(anext(quick, "ended"))
    for _ in range(QUEUE_SIZE):
        full.offer(hub.reset_message())
    hub.close()
    assert await waiting == "ended"
    assert [message async for message in full] == []
    assert [message async for message in hub.subscribe()] == []


async def events(response: aiohttp.ClientResponse, count: int) -> list[dict[str, str]]:
    """The next events of a stream."""
    found: list[dict[str, str]] = []
    current: dict[str, str] = {}
    async with asyncio.timeout(10):
        while len(found) < count:
            line = (await response.content.readline()).decode().rstrip("\n")
            if line.startswith(("event: ", "id: ", "data: ")):
                name, _, value = line.partition(": ")
                current[name] = value
            elif not line and "event" in current:
                found.append(current)
                current = {}
    return found


async def subscribed(hub: LiveHub) -> None:
    """Until somebody is subscribed: the answer's headers come a moment later than that."""
    async with asyncio.timeout(10):
        while not hub.readers:
            await asyncio.sleep(0)


async def test_the_stream_tells_what_is_published(served: Served, http: aiohttp.ClientSession) -> None:
    await served.login(http)
    hub = served.state.live
    async with http.get(served.url + "/api/v1/events") as response:
        assert response.content_type == "text/event-stream"
        await subscribed(hub)
        hub.publish("changed", {"runs": [["sales", "r1", "running"]]})
        [event] = await events(response, 1)
        assert (event["event"], event["id"]) == ("changed", hub.last_id)
        assert orjson.loads(event["data"]) == {"runs": [["sales", "r1", "running"]]}


async def test_who_comes_back_and_missed_something_looks_again(served: Served, http: aiohttp.ClientSession) -> None:
    await served.login(http)
    hub = served.state.live
    hub.publish("changed", {})
    for last, first in ((hub.last_id, "changed"), ("another-daemon-7", "reset"), ("\N{SNOWMAN}" * 50, "reset")):
        async with http.get(
            served.url + "/api/v1/events", headers={"Last-Event-ID": last.encode("ascii", "replace").decode()}
        ) as response:
            await subscribed(hub)
            hub.publish("changed", {}) if first == "changed" else None
            [event] = await events(response, 1)
            assert event["event"] == first


async def test_a_stream_ends_with_its_login(
    served: Served, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "KEEP_ALIVE_S", 0.05)
    token = await served.login(http)
    async with http.get(served.url + "/api/v1/events") as response:
        async with asyncio.timeout(10):
            while b"still here" not in await response.content.readline():
                pass
        async with http.post(served.url + "/logout", data={"csrf": token}, allow_redirects=False):
            pass
        async with asyncio.timeout(10):
            await response.content.read()  # to the end
        assert response.content.at_eof()


async def test_the_daemon_stops_though_somebody_watches(served: Served, http: aiohttp.ClientSession) -> None:
    await served.login(http)
    async with http.get(served.url + "/api/v1/events") as response:
        await subscribed(served.state.live)
        async with asyncio.timeout(10):
            await served.runner.cleanup()
            await response.content.read()
