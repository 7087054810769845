"""The context of a task: the values that templates and functions find under the names this field is used to.

Dates are in the dag's time zone. Values that cost a question to the daemon or a look at the schedule are `Lazy`: they
are found when they are used.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fluxd.authoring import daemon, macros
from fluxd.authoring.lookups import Connections, Variables
from fluxd.authoring.params import merge
from fluxd.authoring.taskinstance import DagRun, TaskInstance, XComStore
from fluxd.core.spec import DagSpec
from fluxd.core.timetable import make_timetable

if TYPE_CHECKING:
    from fluxd.authoring.dag import DAG

ONE_DAY = dt.timedelta(days=1)
Lazy = Callable[[], Any]


class Context(dict[str, Any]):
    """A dict whose lazy values are found, once, when somebody asks for them."""

    def __init__(self, values: Mapping[str, Any], lazy: Mapping[str, Lazy]) -> None:
        super().__init__(values)
        self.lazy = dict(lazy)

    def __missing__(self, name: str) -> Any:
        find = self.lazy.get(name)
        if find is None:
            raise KeyError(name)
        self[name] = value = find()
        return value

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.lazy

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401 - dict.get knows nothing of the lazy ones


def make_context(dag: "DAG", task_id: str, given: Mapping[str, Any]) -> Context:
    """The context of one task of `dag`, from what the daemon gave (see runner/protocol.py; times RFC 3339)."""
    ti = _task_instance(dag, task_id, given)
    run, params = ti.run, given.get("params")
    values = {
        **dag.templates.macros,
        "dag": dag,
        "dag_run": run,
        "task": ti.task,
        "ti": ti,
        "task_instance": ti,
        "task_instance_key_str": f"{dag.dag_id}__{task_id}__{run.logical_date:%Y%m%d}",
        "run_id": run.run_id,
        "map_index": ti.map_index,
        "try_number": ti.try_number,
        "max_tries": ti.max_tries,
        "conf": run.conf,
        "params": merge(dag.params, run.conf if params is None else params),
        "var": Variables(),
        "conn": Connections(),
        "macros": macros,
        "test_mode": bool(given.get("test_mode")),
        "templates_dict": None,
        "inlets": [],
        "outlets": [],
        **_dates(run),
    }
    lazy = {**_by_schedule(dag, run), **_by_history(run, given.get("socket"), dag.timezone)}
    for name in lazy.keys() & values.keys():
        del values[name]  # a macro of the dag's has no right to our names
    return Context(values, lazy)


def _task_instance(dag: "DAG", task_id: str, given: Mapping[str, Any]) -> TaskInstance:
    def local(name: str) -> Any:
        value = given.get(name)
        if isinstance(value, str):
            value = dt.datetime.fromisoformat(value)
        return None if value is None else value.astimezone(dag.timezone)

    logical: dt.datetime = local("logical_date")
    run = DagRun(
        dag.dag_id,
        given["run_id"],
        given.get("run_type", "manual"),
        logical,
        local("data_interval_start") or logical,
        local("data_interval_end") or logical,
        dict(given.get("conf") or {}),
        local("queued_at"),
    )
    at_hand = {name: dict(values) for name, values in (given.get("upstream_xcoms") or {}).items()}
    xcoms = XComStore(dag.dag_id, run.run_id, given.get("socket"), at_hand)
    xcoms.size_max_kb = given.get("xcom_max_kb", xcoms.size_max_kb)
    return TaskInstance(
        dag.tasks[task_id],
        run,
        given.get("map_index", -1),
        given.get("try_number", 1),
        given.get("max_tries", 1),
        xcoms,
        local("started_at"),
    )


def _dates(run: DagRun) -> dict[str, Any]:
    logical = run.logical_date
    yesterday, tomorrow = logical - ONE_DAY, logical + ONE_DAY
    return {
        "logical_date": logical,
        "execution_date": logical,
        "data_interval_start": run.data_interval_start,
        "data_interval_end": run.data_interval_end,
        "ds": ds(logical),
        "ds_nodash": ds_nodash(logical),
        "ts": ts(logical),
        "ts_nodash": ts_nodash(logical),
        "ts_nodash_with_tz": ts_nodash_with_tz(logical),
        "yesterday_ds": ds(yesterday),
        "yesterday_ds_nodash": ds_nodash(yesterday),
        "tomorrow_ds": ds(tomorrow),
        "tomorrow_ds_nodash": ds_nodash(tomorrow),
    }


def ds(moment: dt.date) -> str:
    return f"{moment:%Y-%m-%d}"


def ds_nodash(moment: dt.date) -> str:
    return f"{moment:%Y%m%d}"


def ts(moment: dt.datetime) -> str:
    return moment.isoformat()


def ts_nodash(moment: dt.datetime) -> str:
    return f"{moment:%Y%m%dT%H%M%S}"


def ts_nodash_with_tz(moment: dt.datetime) -> str:
    return moment.isoformat().replace("-", "", 2).replace(":", "")


def _by_schedule(dag: "DAG", run: DagRun) -> dict[str, Lazy]:
    """The starts of the intervals before and after this one; without a schedule they are the logical date itself."""

    def neighbours() -> tuple[dt.datetime, dt.datetime]:
        table = make_timetable(
            DagSpec(
                dag.dag_id, schedule=dag.schedule, timezone=str(dag.timezone), dst=dag.dst, start_date=dag.start_date
            )
        )
        logical = run.logical_date.astimezone(dt.UTC)
        before = after = logical
        if table.ticks is not None:
            before, after = table.ticks.before(logical) or logical, table.ticks.after(logical) or logical
        return before.astimezone(dag.timezone), after.astimezone(dag.timezone)

    return {
        "prev_execution_date": lambda: neighbours()[0],
        "prev_ds": lambda: ds(neighbours()[0]),
        "prev_ds_nodash": lambda: ds_nodash(neighbours()[0]),
        "next_execution_date": lambda: neighbours()[1],
        "next_ds": lambda: ds(neighbours()[1]),
        "next_ds_nodash": lambda: ds_nodash(neighbours()[1]),
    }


def _by_history(run: DagRun, socket: str | None, zone: dt.tzinfo) -> dict[str, Lazy]:
    """Times of the last successful run before this one; None where there is none, and where no daemon can be asked."""

    def field(name: str) -> dt.datetime | None:
        before = None if socket is None else _previous_success(run, socket)
        value = before and before[name]
        return dt.datetime.fromisoformat(value).astimezone(zone) if value else None

    return {
        "prev_data_interval_start_success": lambda: field("data_interval_start"),
        "prev_data_interval_end_success": lambda: field("data_interval_end"),
        "prev_start_date_success": lambda: field("started_at"),
        "prev_end_date_success": lambda: field("ended_at"),
        "prev_execution_date_success": lambda: field("logical_date"),
        "prev_logical_date_success": lambda: field("logical_date"),
    }


def _previous_success(run: DagRun, socket: str) -> dict[str, Any] | None:
    """The latest successful run of the dag with an earlier logical date."""
    path = f"/dags/{daemon.segment(run.dag_id)}/runs?state=success&limit=100"
    cursor: str | None = ""
    best: dict[str, Any] | None = None
    while cursor is not None:
        answer = daemon.get(socket, path + (f"&cursor={daemon.segment(cursor)}" if cursor else "")) or {"runs": []}
        for one in answer["runs"]:
            earlier = dt.datetime.fromisoformat(one["logical_date"]) < run.logical_date
            if earlier and (best is None or one["logical_date"] > best["logical_date"]):
                best = one
        cursor = None if best else answer.get("next_cursor")
    return best
