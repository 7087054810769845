"""Dags: what there is, what comes next, what is wrong with their files; trigger, pause, forget."""

import asyncio
import os
import shutil
from typing import Any

from aiohttp import web

from fluxd.core.events import ForgetDag, PauseDag, TriggerRun
from fluxd.core.spec import dag_from_json
from fluxd.errors import NotFound, Refused
from fluxd.store import api_views
from fluxd.web.api import serializers
from fluxd.web.api.answers import answer
from fluxd.web.api.upcoming import coming_runs, what_to_know
from fluxd.web.api.validation import Ask, in_zone, nearest


async def no_dag(ask: Ask) -> NotFound:
    """The error for a dag id that is not known: the nearest one that is, and how many files hide what they define."""
    dag_id = ask.path["dag_id"]
    near = nearest(dag_id, await api_views.dag_names(ask.db))
    if near == ".":
        near = "; fluxctl dags list shows those that are."
    broken = len(await api_views.dag_errors(ask.db))
    if broken:
        files = "1 dag file" if broken == 1 else f"{broken} dag files"
        near = f"{near.rstrip('.?')}; {files} cannot be loaded, see fluxctl dags errors."
    return NotFound("FLX-4201", f"There is no dag {dag_id!r}{near}")


async def find_dag(ask: Ask) -> Any:
    """The row of the dag in the path. Raises NotFound FLX-4201."""
    row = await api_views.dag(ask.db, ask.path["dag_id"])
    if row is None:
        raise await no_dag(ask)
    return row


async def post(ask: Ask, make: Any) -> Any:
    """Post an event about the dag in the path; a dag that the scheduler does not know is named with the nearest."""
    try:
        return await ask.state.post(make)
    except NotFound:
        await find_dag(ask)
        raise


async def list_dags(ask: Ask) -> web.Response:
    query = ask.query
    rows = await api_views.dags(
        ask.db,
        after=serializers.from_cursor(query["cursor"], str) if query["cursor"] else "",
        removed=query["removed"],
        tag=query["tag"],
        paused=query["paused"],
        limit=query["limit"] + 1,
    )
    page = rows[: query["limit"]]
    more = serializers.cursor_of(page[-1]["dag_id"]) if len(rows) > len(page) else None
    return answer({"dags": [serializers.dag_in_list(row) for row in page], "next_cursor": more})


async def show(ask: Ask) -> web.Response:
    return answer(serializers.dag(await find_dag(ask)))


async def trigger(ask: Ask) -> web.Response:
    dag_id, body = ask.path["dag_id"], ask.body
    logical_date = body["logical_date"]
    if logical_date is not None and logical_date.tzinfo is None:
        spec = (await find_dag(ask))["spec"] or {}
        logical_date = in_zone(logical_date, spec.get("timezone", "UTC"))

    def make(request: int) -> TriggerRun:
        return TriggerRun(request, dag_id, body["run_id"], logical_date, body["conf"] or {}, ask.by)

    made = await post(ask, make)
    row = await api_views.run(ask.db, dag_id, made["run_id"])
    return answer(serializers.run(row) if row is not None else made, 201)


async def pause(ask: Ask) -> web.Response:
    return await _set_paused(ask, True)


async def unpause(ask: Ask) -> web.Response:
    return await _set_paused(ask, False)


async def _set_paused(ask: Ask, paused: bool) -> web.Response:
    dag_id = ask.path["dag_id"]
    return answer(await post(ask, lambda request: PauseDag(request, dag_id, paused, ask.by)))


async def forget(ask: Ask) -> web.Response:
    """Refused while the file is there: the dag would be gone only until the file is read again, and then be back."""
    dag_id = ask.path["dag_id"]
    row = await find_dag(ask)
    file = ask.state.settings.dags / row["file"]
    # The disk is asked too: a file that was removed a moment ago may not be known as gone yet.
    if not row["removed"] and await asyncio.to_thread(os.path.isfile, file):
        raise Refused(
            "FLX-4212",
            f"The dag {dag_id!r} cannot be deleted while its file {row['file']} is there, for it would come back when "
            "the file is read again: remove the file first.",
        )
    told = await post(ask, lambda request: ForgetDag(request, dag_id, ask.by))
    # A dag of this name that comes later must not show the output of this one's runs.
    await asyncio.to_thread(shutil.rmtree, ask.state.settings.logs / dag_id, ignore_errors=True)
    return answer(told)


async def upcoming(ask: Ask) -> web.Response:
    row = await find_dag(ask)
    spec = dag_from_json(row["spec"] or {"dag_id": row["dag_id"]})
    start = in_zone(ask.query["from"], spec.timezone)
    runs = coming_runs(spec, row["next_due_at"], start, ask.query["count"])
    return answer(
        {
            "dag_id": row["dag_id"],
            "paused": row["paused"],
            "timezone": spec.timezone,
            "runs": runs,
            "reason": what_to_know(spec, row["next_due_at"], runs),
        }
    )


async def source(ask: Ask) -> web.Response:
    row = await api_views.source(ask.db, ask.path["dag_id"], ask.query["version"])
    if row is None:
        await find_dag(ask)
        raise NotFound("FLX-4111", f"The dag {ask.path['dag_id']!r} has no version {ask.query['version']}.")
    return answer(dict(row))


async def errors(ask: Ask) -> web.Response:
    return answer({"errors": [serializers.dag_error(row) for row in await api_views.dag_errors(ask.db)]})
