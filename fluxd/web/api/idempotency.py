"""A POST that is repeated with the same Idempotency-Key is done once and answered twice.

The key is noted before anything is done. So a request that was cut off half-way is never done a second time in
silence: whoever repeats it is told that it is not known what came of it, and where to look.
"""

import contextlib
import hashlib
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from aiohttp import web

from fluxd.errors import Invalid, Refused
from fluxd.store import api_views
from fluxd.store.database import AWAY
from fluxd.web.api.answers import answer
from fluxd.web.api.validation import Ask

HEADER = "Idempotency-Key"
KEY_LENGTH_MAX = 255
UNDONE_MOST = 10_000


class Once:
    """Knows which keyed requests this daemon is working on; the answers of the done ones are in the database."""

    def __init__(self) -> None:
        self._working: set[str] = set()
        # Keys of which nothing came, with the mark of their rows: the database was away when they were to be forgotten.
        self._undone: OrderedDict[str, str] = OrderedDict()

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
            if not await self._begin(ask, key, asked):
                return await _before(ask, key, asked)
            try:
                response = await work(ask)
            except Exception:
                await self._forget(ask, key)
                raise
            self._undone.pop(key, None)
            if isinstance(response, web.Response) and isinstance(response.body, bytes):
                body = {"asked": asked, "answer": response.body.decode()}
                await api_views.end_once(ask.db, key, response.status, body)
            return response
        finally:
            self._working.discard(key)

    async def _begin(self, ask: Ask, key: str, asked: str) -> bool:
        """Note the key. False: it was used before. Where the database fails, it may be noted all the same."""
        mark = self._undone.get(key)
        if mark is not None:
            row = await api_views.answered(ask.db, key)
            # The mark tells the row of the request that came to nothing from any other.
            if row is not None and row["status"] == 0 and row["body"].get("mark") == mark:
                await api_views.forget_once(ask.db, key)
        mark = os.urandom(8).hex()
        self._undone[key] = mark
        begun = await api_views.begin_once(ask.db, key, {"asked": asked, "mark": mark})
        if not begun:
            del self._undone[key]
        while len(self._undone) > UNDONE_MOST:
            self._undone.popitem(last=False)
        return begun

    async def _forget(self, ask: Ask, key: str) -> None:
        """Nothing came of the request: its key can be used again, also where the database cannot be told so now."""
        with contextlib.suppress(TimeoutError, *AWAY):
            await api_views.forget_once(ask.db, key)
            self._undone.pop(key, None)


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
