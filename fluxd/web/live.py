"""Who looks at Flux is told of each change, once it is saved: one hub in the daemon, a stream (SSE) to each page.

A message says only what changed; the page asks for the new state itself. So nothing is lost that matters when a slow
reader's queue runs over or a connection breaks: it gets one `reset`, and looks at everything again.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from fluxd.web.who import STILL_WELCOME, StillWelcome

QUEUE_SIZE = 256
KEEP_ALIVE_S = 15.0
RETRY_MS = 2000


@dataclass(frozen=True, slots=True)
class Message:
    """`id` is this hub's name and a rising number; `kind` is changed | reset | …; `data` is JSON."""

    id: str
    kind: str
    data: dict[str, Any]

    def frame(self) -> bytes:
        """The message as a server-sent event."""
        return b"event: %b\nid: %b\ndata: %b\n\n" % (self.kind.encode(), self.id.encode(), orjson.dumps(self.data))


class Subscription:
    """One reader's bounded queue, an async iterator of messages; it ends when the hub is closed."""

    def __init__(self, hub: "LiveHub") -> None:
        self._hub = hub
        self._queue: asyncio.Queue[Message | None] = asyncio.Queue(QUEUE_SIZE)

    def offer(self, message: Message | None) -> None:
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            while not self._queue.empty():
                self._queue.get_nowait()
            self._queue.put_nowait(message if message is None else self._hub.reset_message())

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        message = await self._queue.get()
        if message is None:
            raise StopAsyncIteration
        return message

    def close(self) -> None:
        self._hub.forget(self)


class LiveHub:
    """`publish` from the engine (never blocks, costs nothing without readers), `subscribe` from the web."""

    def __init__(self) -> None:
        self._name = f"{time.time_ns():x}"  # another daemon's numbers mean nothing here
        self._numbers = itertools.count(1)
        self.last_id = f"{self._name}-0"
        self._readers: set[Subscription] = set()
        self._closed = False

    @property
    def readers(self) -> int:
        """How many are subscribed."""
        return len(self._readers)

    def publish(self, kind: str, data: dict[str, Any]) -> None:
        """Tell every reader. The engine's kind is `changed`: {"runs": […], "tasks": […], "dags": […]}."""
        self.last_id = f"{self._name}-{next(self._numbers)}"
        if not self._readers:
            return
        message = Message(self.last_id, kind, data)
        for reader in self._readers:
            reader.offer(message)

    def subscribe(self) -> Subscription:
        """A new reader, told of everything from now on. Close it when done (`contextlib.closing`)."""
        reader = Subscription(self)
        self._readers.add(reader)
        if self._closed:
            reader.offer(None)
        return reader

    def forget(self, reader: Subscription) -> None:
        self._readers.discard(reader)

    def reset_message(self) -> Message:
        return Message(self.last_id, "reset", {})

    def close(self) -> None:
        """End every stream: the daemon stops."""
        self._closed = True
        for reader in self._readers:
            reader.offer(None)


async def stream_events(request: web.Request, hub: LiveHub) -> web.StreamResponse:
    """GET /api/v1/events. A reader that comes back with a Last-Event-ID and missed something gets a `reset`."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    with contextlib.closing(hub.subscribe()) as messages, contextlib.suppress(ConnectionResetError):
        await response.prepare(request)
        await response.write(b"retry: %d\n\n" % RETRY_MS)
        if request.headers.get("Last-Event-ID", hub.last_id) != hub.last_id:
            await response.write(hub.reset_message().frame())
        await _pump(response, messages, request.get(STILL_WELCOME))
    return response


async def _pump(response: web.StreamResponse, messages: Subscription, still_welcome: StillWelcome | None) -> None:
    """Write messages until the hub closes, the reader goes or its login is over (looked at every KEEP_ALIVE_S)."""
    loop = asyncio.get_running_loop()
    look_again = loop.time() + KEEP_ALIVE_S
    while True:
        frame = b": still here\n\n"
        try:
            async with asyncio.timeout_at(look_again):
                frame = (await anext(messages)).frame()
        except TimeoutError:
            pass
        except StopAsyncIteration:
            return
        if loop.time() >= look_again:
            look_again = loop.time() + KEEP_ALIVE_S
            if still_welcome is not None and not await still_welcome():
                return
        await response.write(frame)
