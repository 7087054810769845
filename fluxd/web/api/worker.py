"""The daemon's end of the door that running attempts have (`authoring/daemon.py`): every address names a fence.

An attempt that is not live any more is refused, whatever it asks: what it does counts for nothing, and it should end.
"""

import orjson
from aiohttp import web

from fluxd.core.model import InstanceKey
from fluxd.core.progress import kept_progress
from fluxd.errors import Invalid, NotFound, Refused
from fluxd.store import worker
from fluxd.web.api.answers import answer
from fluxd.web.api.validation import Ask

STATE_MAX = 64 * 1024  # bytes of JSON


def _attempt(ask: Ask) -> tuple[int, InstanceKey]:
    """The live attempt that asks. Raises Refused FLX-4240, Invalid FLX-4241."""
    text = ask.path["fence"]
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise Invalid("FLX-4241", f"The fence {text[:40]!r} of an attempt is a number; FLUX_FENCE of the task has it.")
    instance = ask.state.commands["instance_of"](int(text))
    if instance is None:
        raise _over(int(text))
    return int(text), instance.key


def _over(fence: int) -> Refused:
    return Refused(
        "FLX-4240",
        f"The attempt with the fence {fence} is not live any more, so what it does counts for nothing: end this "
        "process, and clear the task if its work is still wanted.",
    )


async def tell_progress(ask: Ask) -> web.Response:
    fence, _ = _attempt(ask)
    progress = kept_progress(ask.body)
    if progress is not None:
        ask.state.commands["progress"](fence, progress)
    return answer({"progress": progress})


async def get_state(ask: Ask) -> web.Response:
    _, instance = _attempt(ask)
    return answer({"state": await worker.read_state(ask.db, instance)})


async def set_state(ask: Ask) -> web.Response:
    fence, _ = _attempt(ask)
    size = len(orjson.dumps(ask.body["state"]))
    if size > STATE_MAX:
        raise Invalid("FLX-4242", f"The state is {size} bytes of JSON, and at most {STATE_MAX} are kept: store less.")
    if not await worker.keep_state(ask.db, fence, ask.body["state"]):
        raise _over(fence)
    return answer({"state": ask.body["state"]})


async def xcom(ask: Ask) -> web.Response:
    _, (run_number, _, _) = _attempt(ask)
    task_id, key = ask.query["task_id"], ask.query["key"]
    row = await worker.xcom(ask.db, (run_number, task_id, ask.query["map_index"]), key)
    if row is None:
        raise NotFound("FLX-4132", f"The task {task_id!r} handed on nothing with the key {key!r}.")
    return answer({"value": row["value"]})


async def previous_success(ask: Ask) -> web.Response:
    _, (run_number, _, _) = _attempt(ask)
    row = await worker.previous_success(ask.db, run_number)
    return answer({"run": None if row is None else dict(row)})
