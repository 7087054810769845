"""The context of a task: the values that templates and functions find under the names this field is used to.

Dates are in the dag's time zone. Values that cost a question to the daemon or a look at the schedule are `Lazy`: they
are found when they are used.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluxd.authoring import macros
from fluxd.authoring.daemon import Door
from fluxd.authoring.lookups import Connections, Variables
from fluxd.authoring.params import merge
from fluxd.authoring.progress import Kept, Progress
from fluxd.authoring.taskinstance import DagRun, TaskInstance, Times, XComStore
from fluxd.core.spec import DagSpec
from fluxd.core.timetable import make_timetable

if TYPE_CHECKING:
    from fluxd.authoring.dag import DAG

ONE_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Moment:
    """What the lazy values are found from."""

    dag: "DAG"
    task_id: str
    run: DagRun
    door: Door | None


Lazy = Callable[[Moment], Any]


class Context(dict[str, Any]):
    """A dict whose lazy values are found, once, when somebody asks for them."""

    def __init__(self, values: Mapping[str, Any], moment: Moment) -> None:
        super().__init__(values)
        self.lazy = LAZY
        self._moment = moment

    def __missing__(self, name: str) -> Any:
        find = self.lazy.get(name)
        if find is None:
            raise KeyError(name)
        self[name] = value = find(self._moment)
        return value

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.lazy

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401 - dict.get knows nothing of the lazy ones


def whole(context: dict[str, Any]) -> dict[str, Any]:
    """All values, for those who take everything; the ones that cost a question to the daemon only if they are known."""
    return {name: context[name] for name in LAZY if not name.endswith("_success")} | context


def make_context(dag: "DAG", task_id: str, given: Mapping[str, Any]) -> Context:
    """The context of one task of `dag`, from what the daemon gave (see runner/protocol.py; times RFC 3339)."""
    ti = _task_instance(dag, task_id, given)
    run, params = ti.run, given.get("params")
    # A macro of the dag's has no right to our names.
    values = {
        **{name: macro for name, macro in dag.templates.macros.items() if name not in LAZY},
        "dag": dag,
        "dag_run": run,
        "task": ti.task,
        "ti": ti,
        "task_instance": ti,
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
    }
    return Context(values, Moment(dag, task_id, run, ti.xcoms.door))


def _task_instance(dag: "DAG", task_id: str, given: Mapping[str, Any]) -> TaskInstance:
    run = DagRun(
        dag.dag_id,
        given["run_id"],
        given.get("run_type", "manual"),
        dict(given.get("conf") or {}),
        Times(given, dag.timezone),
    )
    at_hand = {name: dict(values) for name, values in (given.get("upstream_xcoms") or {}).items()}
    door = Door(given["socket"], given["fence"]) if given.get("socket") else None
    xcoms = XComStore(door, at_hand)
    xcoms.size_max_kb = given.get("xcom_max_kb", xcoms.size_max_kb)
    return TaskInstance(
        dag.tasks[task_id],
        run,
        given.get("map_index", -1),
        given.get("try_number", 1),
        given.get("max_tries", 1),
        xcoms,
        Progress(door),
        Kept(door),
    )


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


def _neighbours(moment: Moment) -> tuple[dt.datetime, dt.datetime]:
    """The starts of the intervals before and after this one; without a schedule they are the logical date itself."""
    dag, run = moment.dag, moment.run
    table = make_timetable(
        DagSpec(dag.dag_id, schedule=dag.schedule, timezone=str(dag.timezone), dst=dag.dst, start_date=dag.start_date)
    )
    logical = run.logical_date.astimezone(dt.UTC)
    before = after = logical
    if table.ticks is not None:
        before, after = table.ticks.before(logical) or logical, table.ticks.after(logical) or logical
    return before.astimezone(dag.timezone), after.astimezone(dag.timezone)


def _of_last_success(name: str) -> Lazy:
    """A time of the last successful run before this one; None where there is none, or no daemon can be asked."""

    def find(moment: Moment) -> dt.datetime | None:
        before = None if moment.door is None else moment.door.get("previous-success")["run"]
        value = before and before[name]
        return dt.datetime.fromisoformat(value).astimezone(moment.dag.timezone) if value else None

    return find


# Found when somebody asks: most tasks use few of these, and every task would pay for all of them.
LAZY: dict[str, Lazy] = {
    "task_instance_key_str": lambda m: f"{m.run.dag_id}__{m.task_id}__{ds_nodash(m.run.logical_date)}",
    "logical_date": lambda m: m.run.logical_date,
    "execution_date": lambda m: m.run.logical_date,
    "data_interval_start": lambda m: m.run.data_interval_start,
    "data_interval_end": lambda m: m.run.data_interval_end,
    "ds": lambda m: ds(m.run.logical_date),
    "ds_nodash": lambda m: ds_nodash(m.run.logical_date),
    "ts": lambda m: ts(m.run.logical_date),
    "ts_nodash": lambda m: ts_nodash(m.run.logical_date),
    "ts_nodash_with_tz": lambda m: ts_nodash_with_tz(m.run.logical_date),
    "yesterday_ds": lambda m: ds(m.run.logical_date - ONE_DAY),
    "yesterday_ds_nodash": lambda m: ds_nodash(m.run.logical_date - ONE_DAY),
    "tomorrow_ds": lambda m: ds(m.run.logical_date + ONE_DAY),
    "tomorrow_ds_nodash": lambda m: ds_nodash(m.run.logical_date + ONE_DAY),
    "prev_execution_date": lambda m: _neighbours(m)[0],
    "prev_ds": lambda m: ds(_neighbours(m)[0]),
    "prev_ds_nodash": lambda m: ds_nodash(_neighbours(m)[0]),
    "next_execution_date": lambda m: _neighbours(m)[1],
    "next_ds": lambda m: ds(_neighbours(m)[1]),
    "next_ds_nodash": lambda m: ds_nodash(_neighbours(m)[1]),
    "prev_data_interval_start_success": _of_last_success("data_interval_start"),
    "prev_data_interval_end_success": _of_last_success("data_interval_end"),
    "prev_start_date_success": _of_last_success("started_at"),
    "prev_end_date_success": _of_last_success("ended_at"),
    "prev_execution_date_success": _of_last_success("logical_date"),
    "prev_logical_date_success": _of_last_success("logical_date"),
}
