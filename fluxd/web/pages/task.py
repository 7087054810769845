"""One task instance: how it went, why, what it was given and what it handed on, and its log as it is written."""

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from fluxd.core.spec import dag_from_json
from fluxd.core.states import ATTEMPT_LIVE, State
from fluxd.errors import FluxError, NotFound
from fluxd.store import page_views
from fluxd.web.ansi import Piece, pieces
from fluxd.web.api.logs import LogFile, log_parts
from fluxd.web.bars import run_href, task_href
from fluxd.web.pages.run import covers_in_words, explained, failed_before
from fluxd.web.render import render
from fluxd.web.state import STATE

LOG_SHOWN = 64 * 1024  # bytes of a log on a page; the rest is a link away
XCOM_SHOWN = 4000  # characters


async def page(request: web.Request) -> web.Response:
    """GET …/tasks/{task_id}?map_index=&try=&until=: `until` shows the log's part that ends at that byte."""
    state, query = request.app[STATE], request.query
    dag_id, run_id, task_id = (request.match_info[name] for name in ("dag_id", "run_id", "task_id"))
    map_index = _number(query.get("map_index", ""), -1)
    row = await page_views.task(state.db.read, dag_id, run_id, task_id, map_index)
    if row is None:
        raise NotFound(
            "FLX-4097", f"The run {run_id[:200]!r} of {dag_id[:200]!r} has no task {task_id[:200]!r} with this index."
        )
    number = row["number"]
    tries = await page_views.tries(state.db.read, number, task_id, map_index)
    wanted = _number(query.get("try", ""), -1)
    chosen = next((one for one in tries if one["try_number"] == wanted), tries[-1] if tries else None)
    spec = dag_from_json(row["spec"])
    before = ""
    if row["state"] == State.UPSTREAM_FAILED:
        order = {one.task_id: index for index, one in enumerate(spec.tasks)}
        others = await page_views.run_tasks(state.db.read, number)
        others.sort(key=lambda other: order.get(other["task_id"], len(order)))
        before = failed_before(spec, others).get(task_id, "")
    log = None
    if chosen is not None:
        parts = log_parts({**row, "try_number": chosen["try_number"]})
        log = await _log(state.settings.logs, parts, _number(query.get("until", ""), -1))
    return await render(
        request,
        "task.html",
        task=row,
        task_spec=spec.by_id.get(task_id),
        zone=spec.timezone,
        covers=covers_in_words(row, spec.timezone),
        why=before
        or explained(state, number, spec.timezone, datetime.now(UTC)).get((task_id, map_index))
        or row["reason"],
        before_it=before.partition(" ")[0],
        tries=tries,
        chosen=chosen,
        live=chosen is not None and chosen["state"] in ATTEMPT_LIVE,
        log=log,
        xcoms=await page_views.xcoms(state.db.read, number, task_id, map_index, XCOM_SHOWN),
        xcom_shown=XCOM_SHOWN,
        neighbours=await page_views.task_neighbours(state.db.read, number, task_id, map_index),
        run_href=run_href,
        task_href=task_href,
        here_href=task_href(dag_id, run_id, task_id, map_index),
    )


def _number(text: str, otherwise: int) -> int:
    return int(text) if text.isdecimal() and len(text) < 16 else otherwise


async def _log(root: Path, parts: list[str], until: int) -> dict[str, Any]:
    """The end of a log (or the part before the byte `until`), ready to be shown."""
    size = start = end = 0
    with contextlib.closing(LogFile(root, parts)) as file:
        try:
            size = file.size()
            end = size if until < 0 else min(until, size)
            start = max(0, end - LOG_SHOWN)
            data = b"".join([part async for part in file.read(start, end)])
            if start > 0 and (broken := data.find(b"\n") + 1) < len(data):
                # The part begins with a whole line; the part before it ends there.
                start, data = start + broken, data[broken:]
            found = pieces(data)
        except FluxError as error:
            found = [Piece("", str(error))]
    return {"size": size, "start": start, "end": end, "pieces": found}
