"""The daemon's API over its Unix socket, and what is wrong with it in one sentence."""

import http.client
import json
import math
import os
import select
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fluxd.errors import FluxError, Invalid, NotFound, Refused, Unavailable

PREFIX = "/api/v1"
CHUNK = 65536
# Longer than any answer takes; a request that waits on purpose adds its own time.
TIMEOUT_S = 60.0
# After so long without an answer people are told that it is still waited for.
QUIET_S = 2.0
KINDS: dict[int, type[FluxError]] = {
    400: Invalid,
    413: Invalid,
    415: Invalid,
    401: Refused,
    403: Refused,
    404: NotFound,
    409: Refused,
    503: Unavailable,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon said: the bytes as they came, and the headers in small letters."""

    raw: bytes
    headers: dict[str, str]

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


def address(*parts: str | int, **query: Any) -> str:
    """The path of a thing, each part made safe; a query value of None is left out. Raises Invalid FLX-8012."""
    if wrong := {".", ".."} & set(parts):
        # In a path these two mean this folder and the one above, however they are written.
        raise Invalid("FLX-8012", f"{wrong.pop()!r} is nobody's name: a name begins with a letter, a digit or _.")
    path = "".join("/" + quote(str(part), safe="") for part in parts)
    given = {name.rstrip("_"): _text(value) for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class Client:
    """One daemon, by its socket. Every request is a connection of its own: that costs microseconds on a Unix socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._said = False

    def get(self, where: str, late_s: float = TIMEOUT_S, *, waits_s: float = 0.0) -> Answer:
        """GET. `waits_s`: so long the daemon waits on purpose; `late_s`: so much later the answer may come.

        Raises FluxError as the daemon said it, or Unavailable FLX-800x where it said nothing.
        """
        return self._ask("GET", where, None, late_s, waits_s)

    def post(self, where: str, body: dict[str, Any] | None = None) -> Answer:
        """POST a JSON object; values of None are left out. It has a key: whatever repeats it, it is done once."""
        return self._ask("POST", where, body or {})

    def put(self, where: str, body: dict[str, Any]) -> Answer:
        return self._ask("PUT", where, body)

    def delete(self, where: str) -> Answer:
        return self._ask("DELETE", where, None)

    def pages(self, noun: str, limit: int | None, *parts: str, **query: Any) -> list[Any]:
        """All items of a list, page by page, `limit` at most."""
        items: list[Any] = []
        cursor = None
        while limit is None or len(items) < limit:
            size = 1000 if limit is None else min(1000, limit - len(items))
            page = self.get(address(*parts, **query, limit=size, cursor=cursor)).body
            items += page[noun]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        return items

    def stream(self, where: str) -> tuple[dict[str, str], Iterator[bytes]]:
        """The headers of an answer, and its bytes as they come; no answer is late here."""
        connection = self._connect(0)
        response = self._send(connection, "GET", where, None, None, math.inf)
        headers = {name.lower(): value for name, value in response.getheaders()}

        def pieces() -> Iterator[bytes]:
            try:
                while data := response.read1(CHUNK):
                    yield data
            except (http.client.HTTPException, OSError):
                raise _broken_off() from None
            finally:
                connection.close()

        return headers, pieces()

    def _ask(
        self,
        method: str,
        where: str,
        body: dict[str, Any] | None,
        late_s: float = TIMEOUT_S,
        waits_s: float = 0.0,
    ) -> Answer:
        timeout_s = waits_s + late_s
        connection = self._connect(timeout_s)
        try:
            data = None
            if body is not None:
                data = json.dumps({name: value for name, value in body.items() if value is not None}).encode()
            response = self._send(connection, method, where, data, timeout_s, waits_s + QUIET_S)
            raw = response.read()
            return Answer(raw, {name.lower(): value for name, value in response.getheaders()})
        except TimeoutError:
            raise _late(timeout_s) from None
        except (http.client.HTTPException, OSError):
            raise _broken_off() from None
        finally:
            connection.close()

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost")
        door = socket.socket(socket.AF_UNIX)
        door.settimeout(TIMEOUT_S)
        try:
            door.connect(str(self.path))
        except OSError as error:
            door.close()
            raise no_daemon(self.path, error) from None
        door.settimeout(timeout_s or None)
        connection.sock = door
        return connection

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        where: str,
        data: bytes | None,
        timeout_s: float | None,
        quiet_s: float,
    ) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"} if data is not None else {}
        if method == "POST":
            headers["Idempotency-Key"] = os.urandom(16).hex()
        try:
            connection.request(method, PREFIX + where, data, headers)
            self._say_if_late(connection.sock, quiet_s, timeout_s)
            response = connection.getresponse()
            if response.status < 400:
                return response
            raw = response.read()
        except TimeoutError:
            connection.close()
            raise _late(timeout_s or 0) from None
        except (http.client.HTTPException, OSError):
            connection.close()
            raise _broken_off() from None
        connection.close()
        raise _in_words(response.status, raw)

    def _say_if_late(self, door: socket.socket, quiet_s: float, timeout_s: float | None) -> None:
        """Wait for the first byte; whoever waits long is told so, once."""
        if self._said or quiet_s >= (timeout_s or math.inf) or _readable(door, quiet_s):
            return
        self._said = True
        sys.stderr.write("fluxd does not answer yet; waiting …\n")
        if timeout_s is not None:
            door.settimeout(timeout_s - quiet_s)


def _readable(door: socket.socket, seconds: float) -> bool:
    found = select.poll()
    found.register(door, select.POLLIN)
    return bool(found.poll(seconds * 1000))


def no_daemon(path: Path, error: OSError) -> Unavailable:
    """Why nobody answers at this socket, and what to do."""
    home = path.parent
    match error:
        case FileNotFoundError():
            return Unavailable(
                "FLX-8001",
                f"No fluxd is running here: there is no {path}; start one with 'fluxd --home {home}', or name another "
                "home with --home.",
            )
        case ConnectionRefusedError() if not path.is_socket():
            return Unavailable(
                "FLX-8004", f"{path} is not a socket, so no fluxd answers there; name the right one with --socket."
            )
        case ConnectionRefusedError():
            return Unavailable(
                "FLX-8002",
                f"No fluxd is running here: {path} was left by one that is gone; start one with 'fluxd --home {home}'.",
            )
        case PermissionError():
            return Unavailable(
                "FLX-8003",
                f"You may not use {path}: ask as root (sudo), as the user that runs fluxd, or as a member of the group "
                "in web.socket_group.",
            )
        case _:
            return Unavailable(
                "FLX-8004", f"{path} cannot be used as fluxd's socket ({error}); name the right one with --socket."
            )


def _late(seconds: float) -> Unavailable:
    return Unavailable(
        "FLX-8005", f"fluxd did not answer within {seconds:g} s; its log and 'fluxctl doctor' say what holds it up."
    )


def _broken_off() -> Unavailable:
    return Unavailable(
        "FLX-8006", "The connection to fluxd broke off in the middle (is it stopping?); look again in a moment."
    )


def _in_words(status: int, raw: bytes) -> FluxError:
    """The daemon's problem details as the error they were made from."""
    try:
        problem = json.loads(raw)
        code, detail = problem["code"], problem["detail"]
    except (ValueError, KeyError, TypeError):
        code, detail = "FLX-8007", f"What answers at the socket is not fluxd's API (it said {status}); check --socket."
    return KINDS.get(status, FluxError)(code, detail)
