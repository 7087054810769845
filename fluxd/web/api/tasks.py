"""Task instances: their state, their tries, what they handed on."""

from aiohttp import web

from fluxd.errors import NotFound
from fluxd.store import api_views
from fluxd.web.api import serializers
from fluxd.web.api.answers import answer
from fluxd.web.api.runs import no_run, no_task, reasons, shown_run
from fluxd.web.api.validation import Ask


async def missing(ask: Ask, map_index: int) -> NotFound:
    """The error for a task instance that is not there: no such dag, run, task or map index."""
    rows = await api_views.run_keys(ask.db, ask.path["dag_id"], ask.path["run_id"])
    if not rows:
        return await no_run(ask)
    task_id = ask.path["task_id"]
    known = {row["task_id"] for row in rows if row["task_id"] is not None}
    if task_id not in known:
        return no_task(ask, task_id, known)
    indexes = sorted(row["map_index"] for row in rows if row["task_id"] == task_id)
    if indexes == [-1]:
        return NotFound("FLX-4131", f"The task {task_id!r} is not mapped; leave the map index out.")
    return NotFound(
        "FLX-4131",
        f"The task {task_id!r} has no map index {map_index}; it has {indexes[0]} to {indexes[-1]}.",
    )


async def list_tasks(ask: Ask) -> web.Response:
    shown = await shown_run(ask)
    return answer({"dag_id": shown["dag_id"], "run_id": shown["run_id"], "tasks": shown["tasks"]})


async def show(ask: Ask) -> web.Response:
    map_index = ask.query["map_index"]
    rows = await api_views.task(ask.db, ask.path["dag_id"], ask.path["run_id"], ask.path["task_id"], map_index)
    if not rows:
        raise await missing(ask, map_index)
    why = reasons(ask, rows[0]["number"]).get((ask.path["task_id"], map_index))
    return answer(serializers.task(rows) | ({"reason": why} if why else {}))


async def xcoms(ask: Ask) -> web.Response:
    path = ask.path
    rows = await api_views.xcoms(
        ask.db, path["dag_id"], path["run_id"], path["task_id"], map_index=ask.query["map_index"]
    )
    if not rows:
        await _check_task(ask)
    return answer({"xcoms": [dict(row) for row in rows]})


async def xcom(ask: Ask) -> web.Response:
    path, map_index = ask.path, ask.query["map_index"]
    rows = await api_views.xcoms(
        ask.db, path["dag_id"], path["run_id"], path["task_id"], key=path["key"], map_index=map_index
    )
    if not rows:
        await _check_task(ask)
        raise NotFound("FLX-4132", f"The task {path['task_id']!r} handed on nothing with the key {path['key']!r}.")
    return answer(dict(rows[0]))


async def _check_task(ask: Ask) -> None:
    """Raise if the task in the path is not in the run at all, mapped or not."""
    rows = await api_views.run_keys(ask.db, ask.path["dag_id"], ask.path["run_id"])
    if ask.path["task_id"] not in {row["task_id"] for row in rows}:
        raise await missing(ask, -1)
