"""The list of dags: what ran, what failed and why, what is next, 25 to a screen."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from fluxd.store import page_views
from fluxd.web import words
from fluxd.web.api import serializers
from fluxd.web.api.upcoming import schedule_words
from fluxd.web.bars import BarRow, run_bars, run_href
from fluxd.web.render import render
from fluxd.web.state import STATE

SHOW = {"all": "All", "failing": "Failing", "running": "Running", "paused": "Paused"}
RUNS = 14
PER_PAGE = 60
PITCH, HEIGHT = 10, 22


async def front(_: web.Request) -> web.Response:
    """GET /."""
    raise web.HTTPSeeOther("/dags")


async def page(request: web.Request) -> web.Response:
    """GET /dags?q=&show=&page=."""
    state = request.app[STATE]
    asked = request.query
    search = asked.get("q", "").strip()[:200]
    show = asked.get("show", "all") if asked.get("show") in SHOW else "all"
    number = min(max(1, int(asked["page"])), 100_000) if asked.get("page", "").isdecimal() else 1
    rows = await page_views.dags(
        state.db.read,
        search=search or None,
        show=show,
        runs=RUNS,
        limit=PER_PAGE,
        offset=(number - 1) * PER_PAGE,
    )
    broken = await page_views.broken_files(state.db.read)
    now = datetime.now(UTC)
    found_rows = [row for row in rows if row["dag_id"] is not None]
    dags = await asyncio.to_thread(lambda: [_dag(row, now) for row in found_rows])
    found = rows[0]["n_found"] or 0

    def link(**changes: Any) -> str:
        values = {"show": show, "q": search, "page": 1} | changes
        kept = {name: value for name, value in values.items() if value not in ("", 1, "all")}
        return f"/dags?{urlencode(kept)}" if kept else "/dags"

    return await render(
        request,
        "dags.html",
        dags=dags,
        # As the API shows them: whatever a stored error lacks is there, and empty.
        broken=[{**serializers.dag_error(row), "words": words.broken(row["file"], row["error"])} for row in broken],
        search=search,
        show=show,
        tabs=[(name, label, rows[0][f"n_{name}"]) for name, label in SHOW.items()],
        total=rows[0]["n_all"],
        found=found,
        page=number,
        pages=-(-found // PER_PAGE),
        link=link,
        folder=state.settings.dags,
    )


def _times(run: dict[str, Any]) -> dict[str, Any]:
    """A run out of JSON: its times are texts there."""
    times = ("data_interval_start", "data_interval_end", "queued_at", "started_at", "ended_at")
    return run | {name: datetime.fromisoformat(run[name]) for name in times if run[name]}


def _dag(row: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    zone = row["timezone"]
    runs = [_times(run) for run in row["runs"] or ()]
    bars: BarRow = run_bars(row["dag_id"], runs, zone, now, slots=RUNS, pitch=PITCH, height=HEIGHT)
    last = runs[-1] if runs else None
    failures = [run for run in runs if run["state"] == "failed"]
    return {
        "dag_id": row["dag_id"],
        "file": row["file"],
        "broken": row["broken"],
        "paused": row["paused"],
        "description": row["description"],
        "tags": row["tags"] or [],
        "timezone": zone,
        "by_hand": (row["schedule"] or {}).get("kind", "none") == "none",
        "schedule_words": schedule_words(row["schedule"] or {}, zone),
        "next_due_at": row["next_due_at"],
        "live": row["live"],
        "retrying": row["retrying"],
        "waiting": row["waiting"],
        "bars": bars,
        "last": last
        and {
            "state": last["state"],
            "at": last["ended_at"] or last["started_at"] or last["queued_at"],
            "href": run_href(row["dag_id"], last["run_id"]),
        },
        "failure": failures[-1]
        and {
            "reason": failures[-1]["reason"] or "failed",
            "at": failures[-1]["ended_at"],
            "href": run_href(row["dag_id"], failures[-1]["run_id"]),
            "is_last": row["last_state"] == "failed",
        }
        if failures
        else None,
    }
