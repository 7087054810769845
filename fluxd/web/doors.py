"""How connections come in: so many at once, each with a time for its headers and its body, and no line in the log for
what strangers send that is no HTTP.

Each door has places of its own: whoever fills those of the TCP address does not keep fluxctl from its socket.
"""

import asyncio
import logging
import socket
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from fluxd.errors import FluxError, Invalid
from fluxd.web.state import WORKING
from fluxd.web.who import Handler

# From the connection, or from the last answer, to the end of the next request's headers.
HEADERS_S = 20.0
# From the end of the headers to that of the body, which is 1 MiB at most.
BODY_S = 30.0
SHUTDOWN_S = 1.0
# Methods that carry no body to be read.
READING = frozenset({"GET", "HEAD", "OPTIONS"})
FULL = b"Too many connections are open here; try again in a moment.\n"
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n" % len(FULL)
REFUSAL += b"Retry-After: 2\r\nConnection: close\r\n\r\n" + FULL


class BodyLate(FluxError):
    """The body of a request did not come in time."""

    status = 408


class BadBody(FluxError):
    """The body of a request is not what its headers say."""

    status = 400


def make_runner(app: web.Application) -> web.AppRunner:
    """The server behind all doors of an application."""
    return web.AppRunner(
        app,
        access_log=None,
        logger=_logger(),
        keepalive_timeout=HEADERS_S,
        shutdown_timeout=SHUTDOWN_S,
        handle_signals=False,
    )


class Door(web.BaseSite):
    """A listening socket that lets `most` connections in at once.

    When all places are taken, the oldest connection that is not being answered makes room for the new one; where each
    is, the new one is told so (503).
    """

    def __init__(self, runner: web.AppRunner, sock: socket.socket, most: int) -> None:
        super().__init__(runner)
        self._sock = sock
        self._most = most
        self._working = runner.app[WORKING]
        self.connections: dict[Connection, None] = {}  # the oldest first

    @property
    def name(self) -> str:
        return str(self._sock.getsockname())

    async def start(self) -> None:
        """Begin to take connections."""
        await super().start()
        self._server = await asyncio.get_running_loop().create_server(self._connection, sock=self._sock)

    def _connection(self) -> asyncio.Protocol:
        if len(self.connections) >= self._most and not self._make_room():
            return Full()
        assert self._runner.server is not None
        return Connection(self, self._runner.server())

    def _make_room(self) -> bool:
        idle = next((one for one in self.connections if one.protocol not in self._working), None)
        if idle is not None:
            idle.end()
        return idle is not None


class Connection(asyncio.Protocol):
    """One connection that was let in: all that comes is passed on to aiohttp's protocol."""

    def __init__(self, door: Door, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol
        self._door = door
        self._transport: asyncio.Transport | None = None
        self.data_received = protocol.data_received  # type: ignore[method-assign]  # nothing in between: it is the hot path
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]
        door.connections[self] = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.protocol.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.connections.pop(self, None)
        self.protocol.connection_lost(exc)

    def end(self) -> None:
        """Close it now; its place is free at once."""
        self._door.connections.pop(self, None)
        if self._transport is not None:
            self._transport.abort()


class Full(asyncio.Protocol):
    """A connection for which there is no place."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        sending = cast(asyncio.Transport, transport)
        sending.write(REFUSAL)
        sending.close()


@web.middleware
async def note_work(request: web.Request, handler: Handler) -> web.StreamResponse:
    """While a request is being answered its connection is not closed to make room for another."""
    working = request.app[WORKING]
    working.add(request.protocol)
    try:
        return await handler(request)
    finally:
        working.discard(request.protocol)


@web.middleware
async def check_text(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse U+0000 in an address: no name of ours has it, and Postgres keeps no text with it."""
    if "\0" in request.path or "\0" in request.query_string:
        raise Invalid("FLX-4260", "The address has the character U+0000 in it, which no name can have.")
    return await handler(request)


@web.middleware
async def take_body(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Read the whole body in time; handlers find it where they look for it.

    Raises BodyLate FLX-4261, BadBody FLX-4262.
    """
    if request.method not in READING:
        try:
            async with asyncio.timeout(BODY_S):
                await (request.read() if request.path.startswith("/api/") else request.post())
        except TimeoutError:
            raise BodyLate(
                "FLX-4261", f"The body of the request did not come within {BODY_S:g} s; send it again."
            ) from None
        except (web.RequestPayloadError, ValueError, RuntimeError, AssertionError, LookupError, EOFError) as error:
            raise BadBody(
                "FLX-4262", f"The body of the request is not what its headers say ({_short(error)}); send it again."
            ) from None
    return await handler(request)


def _short(error: Exception) -> str:
    words = " ".join(str(error).split())[:80]
    return words or type(error).__name__


class _OurErrors(logging.Filter):
    """What is wrong with a request is said in its answer: strangers fill no log."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError)


def _logger() -> logging.Logger:
    logger = logging.getLogger("fluxd.http")
    if not logger.filters:
        logger.addFilter(_OurErrors())
    return logger
