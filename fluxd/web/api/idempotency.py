"""A POST that is repeated with the same Idempotency-Key is done once and answered twice.

The key is noted before anything is done. So a request that was cut off half-way is never done a second time in
silence: whoever repeats it is told that it is not known what came of it, and where to look.
"""

import hashlib
from collections.abc import Awaitable, Callable

from aiohttp import web

from fluxd.errors import Invalid, Refused
from fluxd.store import api_views
from fluxd.web.api.answers import answer
from fluxd.web.api.validation import Ask

HEADER = "Idempotency-Key"
KEY_LENGTH_MAX = 255


class Once:
    """Knows which keyed requests this daemon is working on; the answers of the done ones are in the database."""

    def __init__(self) -> None:
        self._working: set[str] = set()

    async def run(
        self, ask: Ask, raw: bytes, work: Callable[[Ask], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Do `work`, or give the answer that it had before."""
        given = ask.request.headers.get(HEADER)
        if given is None:
            return await work(ask)
        if not 0 < len(given) <= KEY_LENGTH_MAX:
            raise Invalid("FLX-4151", f"The {HEADER} must have 1 to {KEY_LENGTH_MAX} characters.")
        key = _digest(ask.by, ask.request.method, ask.request.path, given)
        asked = _digest(raw.hex())
        if key in self._working:
            raise Refused("FLX-4152", f"The request with this {HEADER} is still being worked on; ask again shortly.")
        self._working.add(key)
        try:
            if not await api_views.begin_once(ask.db, key, {"asked": asked}):
                return await _before(ask, key, asked)
            try:
                response = await work(ask)
            except Exception:
                await api_views.forget_once(ask.db, key)
                raise
            if isinstance(response, web.Response) and isinstance(response.body, bytes):
                body = {"asked": asked, "answer": response.body.decode()}
                await api_views.end_once(ask.db, key, response.status, body)
            return response
        finally:
            self._working.discard(key)


async def _before(ask: Ask, key: str, asked: str) -> web.Response:
    row = await api_views.answered(ask.db, key)
    if row is None or row["status"] == 0:
        raise Refused(
            "FLX-4153",
            f"The first request with this {HEADER} was cut off and it is not known what came of it; look at what is "
            "there, then ask with a new key.",
        )
    if row["body"]["asked"] != asked:
        raise Refused("FLX-4154", f"This {HEADER} was used for another request before; choose a new one.")
    response = answer({}, row["status"], {"Idempotency-Replayed": "true"})
    response.body = row["body"]["answer"].encode()
    return response


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
