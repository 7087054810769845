"""One dag: what ran, what failed and why, what comes next; its tasks by its runs as a grid, its shape as a graph."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from fluxd.core.spec import DagSpec, TaskSpec, dag_from_json
from fluxd.errors import FluxError, NotFound
from fluxd.store import page_views
from fluxd.web import words
from fluxd.web.api.upcoming import coming_runs, schedule_words
from fluxd.web.bars import run_bars, run_href, task_href
from fluxd.web.graph import Shape
from fluxd.web.render import render
from fluxd.web.state import DRAWINGS, STATE

RUNS = 28
CELLS_MOST = 8000  # a dag of many tasks shows fewer runs
PITCH, HEIGHT = 17, 44
CHAR_WIDTH = 7.2  # of a task's name in the grid
NAMES_LEAST, NAMES_MOST = 6, 12  # how many columns of runs the names take the place of
COMING = 5
# Which state speaks for a mapped task: the one that wants most attention.
LOUDEST = (
    "failed",
    "upstream_failed",
    "up_for_retry",
    "running",
    "restarting",
    "waiting",
    "queued",
    "scheduled",
    "cancelled",
    "none",
    "skipped",
    "removed",
    "success",
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One task in one run."""

    state: str
    href: str
    title: str


@dataclass(frozen=True, slots=True)
class GridRow:
    """A task with its cells, oldest run first; `heading` where a group begins with it."""

    task: TaskSpec
    label: str
    heading: str | None
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A trigger that was refused: why, and what was typed, which is shown again."""

    message: str
    typed: Mapping[str, str]


async def page(request: web.Request, refusal: Refusal | None = None, *, status: int = 200) -> web.Response:
    """GET /dags/{dag_id}?before=: `before` shows the runs older than that one. …/trigger: with its form open."""
    state = request.app[STATE]
    dag_id = request.match_info["dag_id"]
    before = request.query.get("before", "")
    db = state.db.read
    row = await page_views.dag(db, dag_id)
    if row is None or row["spec"] is None:
        raise NotFound("FLX-4201", f"There is no dag {dag_id[:200]!r}: it was never seen, or it was deleted.")
    spec = dag_from_json(row["spec"])
    limit = min(int(before), page_views.LAST) if before.isdecimal() else page_views.LAST
    most = max(5, min(RUNS, CELLS_MOST // max(1, len(spec.tasks))))
    runs = (await page_views.dag_runs(db, dag_id, before=limit, limit=most + 1))[::-1]
    older, runs = len(runs) > most, runs[-most:]
    failure = await page_views.last_failure(db, dag_id)
    instances = await page_views.grid(db, [run["number"] for run in runs])
    versions = await page_views.versions(db, dag_id, 6)
    skips = await page_views.skips(db, dag_id, 3)
    now = datetime.now(UTC)
    latest = runs[-1] if runs else None
    states = await asyncio.to_thread(_states, instances)
    return await render(
        request,
        "dag.html",
        status=status,
        refusal=refusal,
        asks=request.path.endswith("/trigger"),
        dag=row,
        spec=spec,
        schedule_words=schedule_words(row["spec"].get("schedule", {}), spec.timezone),
        latest=latest,
        failure=failure,
        run_href=run_href,
        bars=run_bars(dag_id, runs, spec.timezone, now, slots=max(len(runs), 1), pitch=PITCH, height=HEIGHT),
        runs=runs,
        rows=(rows := await asyncio.to_thread(_grid, spec, runs, states)),
        names_width=_names_width(rows),
        dates=[run["data_interval_start"] for run in runs],
        pitch=PITCH,
        stuck=_stuck(instances),
        used=sorted({cell["state"] for cell in states.values()}, key=LOUDEST.index, reverse=True),
        older=runs[0]["number"] if older else None,
        is_past=limit != page_views.LAST,
        graph=await request.app[DRAWINGS].of(_shape(spec)),
        graph_cell=_painter(spec, latest, states),
        coming=_coming(row, spec),
        versions=versions,
        skips=skips,
        zone=spec.timezone,
    )


def _coming(row: Mapping[str, Any], spec: DagSpec) -> list[dict[str, Any]]:
    if row["paused"] or row["removed"] or row["next_due_at"] is None:
        return []
    try:
        found = coming_runs(spec, row["next_due_at"], None, COMING)
    except FluxError:
        return []  # the dag's warnings say what is wrong with its schedule
    return [{"due_at": datetime.fromisoformat(run["due_at"]), "words": run["words"]} for run in found]


def _states(instances: Sequence[Mapping[str, Any]]) -> dict[tuple[int, str], Mapping[str, Any]]:
    """(run number, task id) → the instance to show; of a mapped task the loudest."""
    shown: dict[tuple[int, str], Mapping[str, Any]] = {}
    for one in instances:
        key = (one["run_number"], one["task_id"])
        if key not in shown or LOUDEST.index(one["state"]) < LOUDEST.index(shown[key]["state"]):
            shown[key] = one
    return shown


def _stuck(instances: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """How many of the shown tasks will be tried again, and how many wait."""
    counted = [(state, sum(one["state"] == state for one in instances)) for state in ("up_for_retry", "waiting")]
    return [(state, count) for state, count in counted if count]


def _cell(run: Mapping[str, Any], one: Mapping[str, Any], dag_id: str) -> Cell:
    title = f"{one['task_id']} · {one['state']}"
    if one["started_at"] and one["ended_at"]:
        title += f" after {words.duration((one['ended_at'] - one['started_at']).total_seconds())}"
    if one["try_number"] > 1:
        title += f" · try {one['try_number']}"
    if one["reason"]:
        title += f" · {one['reason']}"
    return Cell(one["state"], task_href(dag_id, run["run_id"], one["task_id"], one["map_index"]), title)


def _grid(
    spec: DagSpec, runs: Sequence[Mapping[str, Any]], states: Mapping[tuple[int, str], Mapping[str, Any]]
) -> list[GridRow]:
    rows, group = [], None
    for task in spec.tasks:
        heading = task.group if task.group != group else None
        group = task.group
        cells = []
        for run in runs:
            one = states.get((run["number"], task.task_id))
            cells.append(None if one is None else _cell(run, one, spec.dag_id))
        label = task.task_id.removeprefix(f"{group}.") if group else task.task_id
        rows.append(GridRow(task, label, heading, tuple(cells)))
    return rows


def _names_width(rows: Sequence[GridRow]) -> int:
    """Pixels for the names of the tasks: a multiple of a run's column, so that a narrow page can show whole columns."""
    longest = max((len(row.label) + 2 * bool(row.task.group) for row in rows), default=0)
    return PITCH * min(NAMES_MOST, max(NAMES_LEAST, math.ceil((longest * CHAR_WIDTH + 12) / PITCH)))


def _shape(spec: DagSpec) -> Shape:
    return tuple((task.task_id, task.upstream, task.group) for task in spec.tasks)


def _painter(
    spec: DagSpec, latest: Mapping[str, Any] | None, states: Mapping[tuple[int, str], Mapping[str, Any]]
) -> Any:
    """Gives the cell of the latest run for a node of the graph."""

    def cell(task_id: str) -> Cell | None:
        one = states.get((latest["number"], task_id)) if latest else None
        return _cell(latest, one, spec.dag_id) if latest and one else None

    return cell
