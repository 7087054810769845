"""The daemon itself: how it is, what can be asked of it, who may come in."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from fluxd.store import accounts, api_views, quarantine
from fluxd.store.database import GONE
from fluxd.web.api.answers import answer
from fluxd.web.api.schemas import COUNTS
from fluxd.web.api.validation import Ask

PATIENCE_S = 5.0


async def status(ask: Ask) -> web.Response:
    """The daemon's facts, with counts from the database; these are null while it does not answer."""
    counts: dict[str, Any] = dict.fromkeys(COUNTS)
    answers = False
    with contextlib.suppress(TimeoutError, *GONE):
        async with asyncio.timeout(PATIENCE_S):
            counts = dict(await api_views.counts(ask.db))
        counts["clock_difference_s"] = round((datetime.now(UTC) - counts.pop("database_time")).total_seconds(), 3)
        answers = True
    uptime = (datetime.now(UTC) - ask.state.started_at).total_seconds()
    return answer(
        {
            **ask.state.status(),
            "started_at": ask.state.started_at,
            "uptime_s": round(uptime, 3),
            "home": str(ask.state.settings.home),
            "late": ask.state.health.late(),
            "ages": {"turn": None, "save": None, "runner": None} | ask.state.health.ages(),
            "database_answers": answers,
            **counts,
        }
    )


async def put_aside(ask: Ask) -> web.Response:
    """What could not be taken and was put aside, with its evidence."""
    return answer({"quarantine": await quarantine.read(ask.db, ask.query["limit"])})


async def login_link(ask: Ask) -> web.Response:
    """A new one-time link. Whoever may ask for it is let in as that account, so the door decides who may ask."""
    minutes = ask.state.settings.web.login_link_minutes
    path = await accounts.make_login_link(ask.db, minutes, ask.body["name"])
    address = ask.state.status().get("address") or f"http://{ask.state.settings.listen}"
    expires_at = datetime.now(UTC) + timedelta(minutes=minutes)
    return answer({"url": address.rstrip("/") + path, "expires_at": expires_at}, 201)
