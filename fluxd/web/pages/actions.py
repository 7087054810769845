"""What a person does on a page: a form is posted, an event goes to the scheduler, the page is shown again.

What the scheduler answers, a refusal too, is told on the page that follows.
"""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

from fluxd.core.events import CancelRun, ClearTasks, MarkTasks, PauseDag, TriggerRun
from fluxd.core.model import InstanceKey
from fluxd.core.states import State
from fluxd.errors import FluxError, Invalid, NotFound
from fluxd.json_limits import DEPTH_MAX, exactly, too_big, too_deep
from fluxd.store import page_views
from fluxd.web import notice, words
from fluxd.web.auth import local_path
from fluxd.web.bars import run_href
from fluxd.web.pages import dag
from fluxd.web.pages.dag import Refusal
from fluxd.web.state import STATE
from fluxd.web.who import WHO

Form = dict[str, str]
# (what is said on the next page, where that page is, if not where the form says)
Said = tuple[str, str | None]
MAP_INDEX = re.compile(r"-?[0-9]{1,8}")
MARKS = {"success": State.SUCCESS, "failed": State.FAILED, "skipped": State.SKIPPED}


def _action(
    act: Callable[[web.Request, Form], Awaitable[Said]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Read the form, act, go back to the page with what there is to say."""

    async def handle(request: web.Request) -> web.StreamResponse:
        fields = await request.post()
        form = {name: value for name, value in fields.items() if isinstance(value, str)}
        otherwise = request.path.rpartition("/")[0]
        back = local_path(form.get("back"), local_path(otherwise, "/dags"))
        told: str | FluxError
        try:
            told, there = await act(request, form)
        except FluxError as error:
            if form.get("ask") == "again":
                return await dag.page(request, Refusal(str(error), form), status=error.status)
            told, there = error, None
        response = web.Response(status=303, headers={"Location": there or back})
        notice.leave(response, told)
        return response

    return handle


def _by(request: web.Request) -> str:
    return str(request[WHO]["name"])


async def _run_number(request: web.Request) -> int:
    dag_id, run_id = request.match_info["dag_id"], request.match_info["run_id"]
    row = await page_views.run(request.app[STATE].db.read, dag_id, run_id)
    if row is None:
        raise NotFound("FLX-4120", f"The dag {dag_id!r} has no run {run_id!r}: it may have been deleted.")
    return int(row["number"])


def _time(text: str, zone: str) -> datetime | None:
    """A logical date as it was typed; without a zone it is meant in the dag's."""
    if not text.strip():
        return None
    try:
        time = datetime.fromisoformat(text.strip())
        return (time if time.tzinfo else time.replace(tzinfo=words.zone(zone))).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid(
            "FLX-4091", f"The logical date {text[:40]!r} is not a date: write it like 2026-01-31 or 2026-01-31 06:00."
        ) from None


def _conf(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        conf = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Invalid("FLX-4092", f"The parameters are not JSON: {error}.") from None
    if not isinstance(conf, dict):
        raise Invalid("FLX-4092", 'The parameters must be a JSON object, like {"region": "eu"}.')
    if too_deep(conf):
        raise Invalid("FLX-4092", f"The parameters are nested deeper than {DEPTH_MAX}: make them flatter.")
    conf = exactly(text, conf)
    if wrong := too_big(conf):
        raise Invalid("FLX-4092", f"The parameters cannot be kept: {wrong}.")
    return dict(conf)


def _keys(request_form: Any, number: int) -> tuple[InstanceKey, ...]:
    """The tasks that are ticked: `task_id:map_index` each."""
    keys = []
    for ticked in request_form.getall("task", []):
        task_id, _, index = str(ticked).rpartition(":")
        if not task_id or not MAP_INDEX.fullmatch(index):
            raise Invalid("FLX-4093", f"{str(ticked)[:80]!r} does not name a task of this run: load the page again.")
        keys.append((number, task_id, int(index)))
    return tuple(keys)


@_action
async def pause(request: web.Request, form: Form) -> Said:
    """POST /dags/{dag_id}/pause with paused = yes | no."""
    dag_id = request.match_info["dag_id"]
    if form.get("paused") not in ("yes", "no"):
        raise Invalid("FLX-4098", "The form does not say whether to pause or to unpause: load the page again.")
    paused = form["paused"] == "yes"
    await request.app[STATE].post(lambda number: PauseDag(number, dag_id, paused, _by(request)))
    if paused:
        return f"{dag_id} is paused: what runs goes on, nothing new starts.", None
    return f"{dag_id} is active again.", None


@_action
async def trigger(request: web.Request, form: Form) -> Said:
    """POST /dags/{dag_id}/trigger with conf, logical_date (and zone), all optional."""
    dag_id = request.match_info["dag_id"]
    conf = _conf(form.get("conf", ""))
    logical_date = _time(form.get("logical_date", ""), form.get("zone", "UTC"))
    run = await request.app[STATE].post(
        lambda number: TriggerRun(number, dag_id, logical_date=logical_date, conf=conf, by=_by(request))
    )
    there = run_href(dag_id, run["run_id"]) if form.get("then") == "run" else None
    return f"{dag_id} was triggered: run {run['run_id']} is {run['state']}.", there


@_action
async def cancel(request: web.Request, form: Form) -> Said:
    """POST …/cancel: end what runs."""
    number = await _run_number(request)
    await request.app[STATE].post(lambda request_number: CancelRun(request_number, number, _by(request)))
    return "The run is being cancelled: its tasks are told to stop.", None


@_action
async def clear(request: web.Request, form: Form) -> Said:
    """POST …/clear: run the ticked tasks again and what depends on them; none ticked with which = failed: those."""
    number = await _run_number(request)
    keys = _keys(await request.post(), number)
    only_failed = form.get("which") == "failed"
    if not keys and form.get("which") not in ("failed", "all"):
        raise Invalid("FLX-4094", "No task is ticked: tick the tasks that are to run again.")
    reply = await request.app[STATE].post(
        lambda request_number: ClearTasks(
            request_number,
            number,
            () if only_failed else keys,
            "downstream" in form or not keys,
            only_failed,
            _by(request),
        )
    )
    note = reply.get("note")
    return f"{words.counted(len(reply['cleared']), 'task')} will run again.{f' {note}' if note else ''}", None


@_action
async def mark(request: web.Request, form: Form) -> Said:
    """POST …/mark with state = success | failed | skipped: a person says how the ticked tasks ended."""
    number = await _run_number(request)
    keys = _keys(await request.post(), number)
    state = MARKS.get(form.get("state", ""))
    if not keys or state is None:
        raise Invalid("FLX-4094", "No task is ticked: tick the tasks that are to be marked.")
    reply = await request.app[STATE].post(
        lambda request_number: MarkTasks(request_number, number, keys, state, _by(request))
    )
    return f"{words.counted(len(reply['marked']), 'task')} marked {state}.", None
