"""The door from a running task to the daemon: what it asks, tells and keeps there, as JSON over HTTP.

Everything that goes through names the attempt by its fence; an attempt that is not live any more is told so. Questions
are asked again while the daemon restarts.
"""

import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fluxd.errors import Refused, Unavailable

PATIENCE_S = 600.0
PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
TIMEOUT_S = 30.0
TELL_TIMEOUT_S = 2.0
PASSING = (429, 502, 503)


@dataclass(frozen=True)
class Door:
    """The way of one attempt to its daemon."""

    socket: str
    fence: int

    def get(self, path: str, **query: str | int) -> Any:
        """The answer, or None where there is no such thing. Raises Unavailable FLX-3008, Refused FLX-4240."""
        return ask(self.socket, "GET", self._path(path) + (f"?{urlencode(query)}" if query else ""))

    def put(self, path: str, body: dict[str, Any]) -> Any:
        """Have something kept. Raises as `get` does, and Invalid what the daemon does not take."""
        return ask(self.socket, "PUT", self._path(path), body)

    def tell(self, path: str, body: dict[str, Any]) -> bool:
        """Say something that may get lost: it is not repeated. Whether it was heard. Raises Refused FLX-4240."""
        try:
            status, answer = _ask(self.socket, "POST", self._path(path), body, TELL_TIMEOUT_S)
        except OSError:
            return False
        _not_refused(status, answer)
        return status == 200

    def _path(self, path: str) -> str:
        return f"/worker/attempts/{self.fence}/{path}"


def get(socket_path: str | None, path: str, patience_s: float = PATIENCE_S) -> Any:
    """The JSON answer to `GET /api/v1{path}`; None where there is no such thing (404)."""
    return ask(socket_path, "GET", path, patience_s=patience_s)


def ask(
    socket_path: str | None, method: str, path: str, body: dict[str, Any] | None = None, patience_s: float = PATIENCE_S
) -> Any:
    """The JSON answer to a request below /api/v1; None where there is no such thing (404).

    While the daemon is away (a restart takes seconds) it is asked again. Raises Unavailable FLX-3008, and Refused with
    the daemon's own sentence where it says that this may not be.
    """
    if not socket_path:
        raise Unavailable(
            "FLX-3008", "The daemon is not there to be asked: outside of it, nothing but this run is known."
        )
    deadline = time.monotonic() + patience_s
    for turn in range(1_000_000):
        try:
            status, answer = _ask(socket_path, method, path, body, TIMEOUT_S)
        except OSError as error:
            cause = str(error)
        else:
            if status == 200:
                return json.loads(answer)
            if status == 404:
                return None
            _not_refused(status, answer)
            cause = f"it answered {status}: {answer[:200].decode(errors='replace')}"
            if status not in PASSING:
                raise Unavailable("FLX-3008", f"The daemon was asked for {path} and {cause}.")
        pause = PAUSES_S[min(turn, len(PAUSES_S) - 1)]
        if time.monotonic() + pause > deadline:
            break
        time.sleep(pause)
    raise Unavailable("FLX-3008", f"The daemon at {socket_path} did not answer for {patience_s:g} s ({cause}).")


def _not_refused(status: int, answer: bytes) -> None:
    if status == 409:
        problem = json.loads(answer)
        raise Refused(problem["code"], problem["detail"])


def _ask(socket_path: str, method: str, path: str, body: dict[str, Any] | None, seconds: float) -> tuple[int, bytes]:
    import http.client
    import socket

    connection = http.client.HTTPConnection("localhost", timeout=seconds)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(seconds)
        connection.sock.connect(socket_path)
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, f"/api/v1{path}", content, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(f"the answer broke off: {error!r}") from error
    finally:
        connection.close()
