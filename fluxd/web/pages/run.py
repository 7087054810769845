"""One run: what it covers, how each task did and when, why it ended as it did, and what can be done about it."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from fluxd.core.causes import failed_upstreams
from fluxd.core.explain import why_not_running
from fluxd.core.spec import DagSpec, dag_from_json
from fluxd.core.states import RUN_FINISHED, RunState
from fluxd.core.timetable import words as covers
from fluxd.errors import FluxError, NotFound
from fluxd.store import page_views
from fluxd.web import words
from fluxd.web.bars import run_href, spans, task_href
from fluxd.web.render import render
from fluxd.web.state import STATE, WebState


async def page(request: web.Request) -> web.Response:
    """GET /dags/{dag_id}/runs/{run_id}."""
    state = request.app[STATE]
    dag_id, run_id = request.match_info["dag_id"], request.match_info["run_id"]
    run = await page_views.run(state.db.read, dag_id, run_id)
    if run is None:
        raise NotFound("FLX-4120", f"The dag {dag_id[:200]!r} has no run {run_id[:200]!r}: it may have been deleted.")
    spec = dag_from_json(run["spec"])
    order = {task.task_id: index for index, task in enumerate(spec.tasks)}
    tasks = sorted(
        await page_views.run_tasks(state.db.read, run["number"]),
        key=lambda row: (order.get(row["task_id"], len(order)), row["task_id"], row["map_index"]),
    )
    now = datetime.now(UTC)
    finished = run["state"] in RUN_FINISHED
    reasons = {} if finished else explained(state, run["number"], spec.timezone, now)
    before = failed_before(spec, tasks)
    return await render(
        request,
        "run.html",
        run=run,
        spec=spec,
        zone=spec.timezone,
        covers=covers_in_words(run, spec.timezone),
        tasks=[
            {
                **row,
                "spec": spec.by_id.get(row["task_id"]),
                "href": task_href(dag_id, run_id, row["task_id"], row["map_index"]),
                "span": span,
                "why": before.get(row["task_id"]) or reasons.get((row["task_id"], row["map_index"])) or row["reason"],
            }
            for row, span in zip(tasks, spans(tasks, run["started_at"], run["ended_at"], now), strict=True)
        ],
        counts=_counts(row["state"] for row in tasks),
        finished=finished,
        cancellable=run["state"] in (RunState.QUEUED, RunState.RUNNING) and not run["cancelling"],
        run_href=run_href,
    )


def failed_before(spec: DagSpec, tasks: Iterable[Mapping[str, Any]]) -> Mapping[str, str]:
    """task id -> which task failed before it, and of what. `tasks`: the run's, in the order of the spec."""

    def upstream(task_id: str) -> tuple[str, ...]:
        known = spec.by_id.get(task_id)
        return known.upstream if known else ()

    return failed_upstreams((row["task_id"], row["state"], upstream(row["task_id"]), row["reason"]) for row in tasks)


def covers_in_words(run: Mapping[str, Any], zone: str) -> str:
    """ "covers A → B, starts at …", or the bare stretch where the stored time zone is not known here."""
    try:
        return covers(run["data_interval_start"], run["data_interval_end"], run["due_at"], zone)
    except FluxError:
        return f"covers {words.stretch(run['data_interval_start'], run['data_interval_end'], zone)}"


def explained(state: WebState, number: int, zone: str, now: datetime) -> dict[tuple[str, int], str]:
    """Why the tasks of a live run that have not ended do not run, as the scheduler itself says."""
    explain: Callable[[int], Iterable[Any]] | None = state.commands.get("explain")
    reasons = why_not_running(explain(number)) if explain else {}
    return {key: words.with_times(reason, zone, now) for key, reason in reasons.items()}


def _counts(states: Iterable[str]) -> list[tuple[str, int]]:
    """How many tasks are in each state, most first."""
    counts: dict[str, int] = {}
    for state in states:
        counts[state] = counts.get(state, 0) + 1
    return sorted(counts.items(), key=lambda item: -item[1])
