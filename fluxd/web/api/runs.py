"""Runs: list, show, wait for their end; cancel, run again, say how they ended."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from aiohttp import web

from fluxd.core.events import CancelRun, ClearTasks, MarkTasks
from fluxd.core.explain import why_not_running
from fluxd.core.model import InstanceKey
from fluxd.core.states import FINISHED, RUN_FINISHED, State
from fluxd.errors import NotFound, Refused, Unavailable
from fluxd.store import api_views
from fluxd.web.api import serializers
from fluxd.web.api.answers import answer
from fluxd.web.api.dags import find_dag
from fluxd.web.api.validation import Ask, in_zone, nearest
from fluxd.web.live import Message, Subscription

# A message of the hub may be lost with a full queue: look again after so long in any case.
LOOK_AGAIN_S = 10.0


async def no_run(ask: Ask) -> NotFound:
    """The error for a run that is not known, with the nearest one that is. Raises NotFound if there is no such dag."""
    await find_dag(ask)
    dag_id, run_id = ask.path["dag_id"], ask.path["run_id"]
    near = nearest(run_id, await api_views.run_names(ask.db, dag_id))
    if near == ".":
        near = f"; fluxctl runs list {dag_id} shows its runs."
    return NotFound("FLX-4120", f"The dag {dag_id!r} has no run {run_id!r}{near}")


async def list_runs(ask: Ask) -> web.Response:
    query = ask.query
    dag_id = ask.path.get("dag_id") or query.get("dag_id")
    since, until = in_zone(query["since"], "UTC"), in_zone(query["until"], "UTC")
    rows = await api_views.runs(
        ask.db,
        dag_id=dag_id,
        before=serializers.from_cursor(query["cursor"], int) if query["cursor"] else api_views.LAST,
        states=query["state"],
        run_type=query["run_type"],
        since=since,
        until=until,
        limit=query["limit"] + 1,
    )
    if not rows and "dag_id" in ask.path:
        await find_dag(ask)
    page = rows[: query["limit"]]
    more = serializers.cursor_of(page[-1]["number"]) if len(rows) > len(page) else None
    return answer({"runs": [serializers.run(row) for row in page], "next_cursor": more})


async def previous(ask: Ask) -> web.Response:
    """The newest run by logical date before this one, in these states: what `prev_…` in templates means."""
    row = await api_views.run(ask.db, ask.path["dag_id"], ask.path["run_id"])
    if row is None:
        raise await no_run(ask)
    rows = await api_views.runs_before(ask.db, ask.path["dag_id"], row["logical_date"], ask.query["state"], limit=1)
    return answer({"run": serializers.run(rows[0]) if rows else None})


async def shown_run(ask: Ask) -> dict[str, Any]:
    rows = await api_views.run_with_tasks(ask.db, ask.path["dag_id"], ask.path["run_id"])
    if not rows:
        raise await no_run(ask)
    return serializers.run_with_tasks(rows, reasons(ask, rows[0]["number"]))


def reasons(ask: Ask, number: int) -> dict[tuple[str, int], str]:
    """Why the tasks of a live run do not run, from the scheduler's memory."""
    explain = ask.state.commands.get("explain")
    return why_not_running(explain(number)) if explain else {}


async def show(ask: Ask) -> web.Response:
    return answer(await shown_run(ask))


async def wait(ask: Ask) -> web.Response:
    """The run as soon as it has ended, or as it is when the time is over (X-Flux-Ended tells which)."""
    dag_id, run_id = ask.path["dag_id"], ask.path["run_id"]
    deadline = asyncio.get_running_loop().time() + ask.query["timeout"]

    def about_us(message: Message) -> bool:
        return any(run[0] == dag_id and run[1] == run_id for run in message.data.get("runs", ()))

    # Subscribed before the first look: an end between the two is in the queue.
    with contextlib.closing(ask.state.live.subscribe()) as messages:
        while True:
            row = await api_views.run(ask.db, dag_id, run_id)
            if row is None:
                raise await no_run(ask)
            left = deadline - asyncio.get_running_loop().time()
            if row["state"] in RUN_FINISHED or left <= 0:
                break
            await told(messages, about_us, min(left, LOOK_AGAIN_S))
    shown = await shown_run(ask)
    return answer(shown, headers={"X-Flux-Ended": "true" if shown["state"] in RUN_FINISHED else "false"})


async def told(messages: Subscription, about_us: Callable[[Message], bool], seconds: float) -> None:
    """Until the hub tells something about us (or that we missed something), or the time is over.

    Raises Unavailable FLX-4121 when the daemon stops.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            async for message in messages:
                if message.kind == "reset" or about_us(message):
                    return
            raise Unavailable("FLX-4121", "fluxd is stopping; what runs goes on, ask again when it is back.")


async def _keys(ask: Ask) -> tuple[Any, list[Any]]:
    """The run's row and the rows of those task instances that the body's task_ids name (of all, if it names none)."""
    rows = await api_views.run_keys(ask.db, ask.path["dag_id"], ask.path["run_id"])
    if not rows:
        raise await no_run(ask)
    instances = [row for row in rows if row["task_id"] is not None]
    wanted = ask.body["task_ids"] or []
    known = {row["task_id"] for row in instances}
    for task_id in wanted:
        if task_id not in known:
            raise no_task(ask, task_id, known)
    map_index = ask.body["map_index"]
    if map_index is not None:
        instances = [row for row in instances if row["map_index"] == map_index]
    instances = [row for row in instances if not wanted or row["task_id"] in wanted]
    if map_index is not None and not instances:
        raise NotFound("FLX-4131", f"None of these tasks has the map index {map_index}; leave it out to mean all.")
    return rows[0], instances


def no_task(ask: Ask, task_id: str, known: set[str]) -> NotFound:
    """The error for a task that is not known, with the nearest one that is."""
    return NotFound("FLX-4130", f"The run {ask.path['run_id']!r} has no task {task_id!r}{nearest(task_id, known)}")


def _key(row: Any) -> InstanceKey:
    return (row["number"], row["task_id"], row["map_index"])


def _pairs(pairs: Any) -> list[dict[str, Any]]:
    return [{"task_id": task_id, "map_index": map_index} for task_id, map_index in pairs]


async def cancel(ask: Ask) -> web.Response:
    row = await api_views.run(ask.db, ask.path["dag_id"], ask.path["run_id"])
    if row is None:
        raise await no_run(ask)
    await ask.state.post(lambda request: CancelRun(request, row["number"], ask.by))
    return answer(await shown_run(ask))


async def clear(ask: Ask) -> web.Response:
    run, instances = await _keys(ask)
    # No keys mean the whole run to the scheduler, so they are left out only where nothing was named.
    named = ask.body["task_ids"] or ask.body["map_index"] is not None
    keys = tuple(_key(row) for row in instances) if named else ()
    downstream, only_failed = ask.body["downstream"], ask.body["only_failed"]
    reply = await ask.state.post(
        lambda request: ClearTasks(request, run["number"], keys, downstream, only_failed, ask.by)
    )
    return answer({"cleared": _pairs(reply["cleared"]), "note": reply.get("note")})


async def mark(ask: Ask) -> web.Response:
    """Tasks named: exactly those. None named: for success all that did not succeed, else all that have not ended."""
    run, instances = await _keys(ask)
    state = State(ask.body["state"])
    if not ask.body["task_ids"]:
        done = {State.SUCCESS, State.SKIPPED} if state == State.SUCCESS else FINISHED
        instances = [row for row in instances if row["task_state"] not in done]
    instances = [row for row in instances if row["task_state"] != state]
    if not instances:
        raise Refused(
            "FLX-4122",
            f"There is nothing to mark {state} in the run {ask.path['run_id']!r}: all of it already is, or has ended.",
        )
    keys = tuple(_key(row) for row in instances)
    reply = await ask.state.post(lambda request: MarkTasks(request, run["number"], keys, state, ask.by))
    return answer({"marked": _pairs(reply["marked"])})
