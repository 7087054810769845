"""Questions that a running task has for the daemon, over its Unix socket: plain GETs, asked again while it restarts."""

import json
import time
from typing import Any
from urllib.parse import quote

from fluxd.errors import Unavailable

PATIENCE_S = 600.0
PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
TIMEOUT_S = 30.0


def get(socket_path: str | None, path: str, patience_s: float = PATIENCE_S) -> Any:
    """The JSON answer to `GET /api/v1{path}`; None where there is no such thing (404).

    While the daemon is away (a restart takes seconds) it is asked again. Raises Unavailable FLX-3008.
    """
    if not socket_path:
        raise Unavailable(
            "FLX-3008", "The daemon is not there to be asked: outside of it, nothing but this run is known."
        )
    deadline = time.monotonic() + patience_s
    for turn in range(1_000_000):
        try:
            status, body = _ask(socket_path, f"/api/v1{path}")
        except OSError as error:
            cause = str(error)
        else:
            if status == 200:
                return json.loads(body)
            if status == 404:
                return None
            cause = f"it answered {status}: {body[:200].decode(errors='replace')}"
            if status not in (429, 502, 503):
                raise Unavailable("FLX-3008", f"The daemon was asked for {path} and {cause}.")
        pause = PAUSES_S[min(turn, len(PAUSES_S) - 1)]
        if time.monotonic() + pause > deadline:
            break
        time.sleep(pause)
    raise Unavailable("FLX-3008", f"The daemon at {socket_path} did not answer for {patience_s:g} s ({cause}).")


def segment(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def _ask(socket_path: str, path: str) -> tuple[int, bytes]:
    import http.client
    import socket

    connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT_S)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(TIMEOUT_S)
        connection.sock.connect(socket_path)
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(f"the answer broke off: {error!r}") from error
    finally:
        connection.close()
