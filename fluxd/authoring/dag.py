"""The DAG: tasks, groups, edges, a schedule, checked where it is written."""

import datetime as dt
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self

from fluxd import authoring
from fluxd.authoring import checks, graph, registry, spec, traces
from fluxd.authoring.current import building
from fluxd.authoring.node import connect
from fluxd.authoring.operator import BaseOperator, accepted
from fluxd.authoring.params import Param, make_params
from fluxd.authoring.policy import TASK_ARGUMENTS, Duration
from fluxd.authoring.schedules import make_catchup, make_schedule, zone_of
from fluxd.core.timetable import DST_RULES
from fluxd.errors import FluxError, Invalid

if TYPE_CHECKING:
    from fluxd.authoring.group import TaskGroup
    from fluxd.authoring.testing import TestedRun

Moment = dt.datetime | dt.date | str | None


class TemplateSettings(NamedTuple):
    """What a dag says about the rendering of its templates."""

    searchpath: tuple[str, ...]
    macros: dict[str, Any]
    filters: dict[str, Any]
    native: bool

    @classmethod
    def make(cls, of: Callable[[str], str], searchpath: Any, macros: Any, filters: Any, native: Any) -> Self:
        return cls(
            checks.texts(searchpath, of("template_searchpath")),
            checks.mapping(macros, of("user_defined_macros")),
            checks.mapping(filters, of("user_defined_filters")),
            checks.boolean(native, of("render_template_as_native_obj")),
        )


class DAG:
    """A pipeline: `with DAG("sales", schedule="0 6 * * *", start_date="2026-01-01"):` and tasks below it.

    schedule: cron text, a preset like "@daily", a timedelta, "@once", or None (only when triggered). Cron is read in
    `timezone`, and so are dates without an offset. catchup: False, True, "latest", or how far back. Durations are
    timedeltas, seconds, or text like "1h30m".
    """

    def __init__(
        self,
        dag_id: str,
        *,
        schedule: str | dt.timedelta | None = checks.NOT_GIVEN,
        start_date: Moment = None,
        end_date: Moment = None,
        timezone: str | dt.tzinfo | None = None,
        dst: str = "shift",
        catchup: bool | str | dt.timedelta | float = False,
        default_args: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Sequence[str] | str = (),
        max_active_runs: int = 16,
        max_active_tasks: int = 16,
        dagrun_timeout: Duration | None = None,
        description: str | None = None,
        doc_md: str | None = None,
        owner: str | None = None,
        is_paused_upon_creation: bool | None = None,
        template_searchpath: str | Sequence[str] | None = None,
        user_defined_macros: Mapping[str, Any] | None = None,
        user_defined_filters: Mapping[str, Any] | None = None,
        render_template_as_native_obj: bool = False,
        **older: Any,
    ) -> None:
        def of(name: str) -> str:
            return f"{name} of dag {dag_id!r}"

        self.dag_id = checks.identifier(dag_id, "dag_id")
        # The older name of `schedule` is in many people's fingers.
        older_name = older.pop("schedule_interval", checks.NOT_GIVEN)
        schedule = checks.one_name(f"DAG {dag_id!r}", schedule=schedule, schedule_interval=older_name)
        for name in older:
            raise checks.unknown_argument(name, DAG_ARGUMENTS, f"DAG {dag_id!r}")
        self.file, self.line = traces.caller()
        self.default_args = checks.mapping(default_args, of("default_args"))
        start_date, end_date = _dates_of_the_dag(self.default_args, start_date, end_date)
        self.timezone = checks.zone(zone_of(start_date) if timezone is None else timezone, of("timezone"))
        self.dst = checks.one_of(dst, DST_RULES, of("dst"))
        self.start_date, self.end_date = _bounds(start_date, end_date, self.timezone, of)
        self.schedule = make_schedule(schedule, str(self.timezone), self.dst, of("schedule"))
        self.catchup = make_catchup(catchup, of("catchup"))
        self.params: dict[str, Param] = make_params(params, of("params"))
        self.tags = checks.texts(tags, of("tags"))
        self.max_active_runs = checks.whole(max_active_runs, of("max_active_runs"), least=1)
        self.max_active_tasks = checks.whole(max_active_tasks, of("max_active_tasks"), least=1)
        self.dagrun_timeout = checks.optional(checks.duration, dagrun_timeout, of("dagrun_timeout"))
        self.description = checks.optional(checks.text, description, of("description"))
        self.doc_md = checks.optional(checks.text, doc_md, of("doc_md"))
        self.owner = checks.optional(checks.text, owner, of("owner"))
        paused = is_paused_upon_creation
        self.is_paused_upon_creation = checks.optional(checks.boolean, paused, of("is_paused_upon_creation"))
        self.templates = TemplateSettings.make(
            of, template_searchpath, user_defined_macros, user_defined_filters, render_template_as_native_obj
        )
        self.tasks: dict[str, BaseOperator] = {}
        self.groups: dict[str, TaskGroup] = {}
        self._edges: dict[graph.Edge, None] = {}
        registry.made(self)

    @property
    def dag(self) -> Self:
        """Itself, so that a dag and a group can be asked alike."""
        return self

    @property
    def folder(self) -> Path:
        """Where its file lies: template files are looked for here."""
        return Path(self.file).parent if self.file else Path.cwd()

    @property
    def where(self) -> str:
        """Its place in the source, as in "sales.py:12"."""
        return f"{Path(self.file).name}:{self.line}" if self.file else "?"

    def __enter__(self) -> Self:
        building.set((*building.get(), self))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        building.set(building.get()[:-1])
        if error is None:
            self.check()

    def add_task(self, operator: BaseOperator) -> None:
        """Take in a task that was just made, with the edges that the results in its arguments mean."""
        task_id = checks.identifier(operator.task_id, "task_id")
        self._new_id(task_id, f"Task {task_id!r}")
        self.tasks[task_id] = operator
        group = operator.task_group
        while group is not None:
            group.task_ids.append(task_id)
            group = group.parent
        for source in operator.upstream_references():
            connect(source, operator)

    def add_group(self, group: "TaskGroup") -> None:
        """Take in a group that was just made."""
        checks.identifier(group.group_id, "group_id")
        self._new_id(group.group_id, f"Group {group.group_id!r}")
        self.groups[group.group_id] = group

    def _new_id(self, node_id: str, what: str) -> None:
        if node_id in self.tasks or node_id in self.groups:
            raise Invalid("FLX-1008", f"{what} is twice in dag {self.dag_id!r}: give each task and group its own id.")

    def add_edge(self, before: str, after: str) -> None:
        """The task or group `after` waits for the task or group `before`."""
        if before == after:
            raise Invalid("FLX-1010", f"Dag {self.dag_id!r} has a cycle: {before} → {after}.")
        self._edges[before, after] = None

    def edges(self) -> list[graph.Edge]:
        """The edges between tasks: (upstream, downstream)."""
        if not self.groups:
            return list(self._edges)
        depth = dict.fromkeys(self.tasks, 0)
        for group in self.groups.values():
            depth[group.group_id] = group.depth - 1
            depth.update((task_id, max(depth[task_id], group.depth)) for task_id in group.task_ids)
        return graph.expand_groups(self._edges, {name: group.task_ids for name, group in self.groups.items()}, depth)

    def order(self) -> list[str]:
        """The task ids, each after all its upstreams. Raises Invalid FLX-1010 that names a cycle."""
        return self._ordered(self.edges())

    def _ordered(self, edges: list[graph.Edge]) -> list[str]:
        ids = list(self.tasks)
        found = graph.order(ids, edges)
        if found is None:
            cycle = graph.find_cycle(ids, edges)
            if len(cycle) > 12:
                cycle = [*cycle[:10], "…", cycle[-1]]
            raise Invalid("FLX-1010", f"Dag {self.dag_id!r} has a cycle: {' → '.join(cycle)}.")
        return found

    def check(self) -> None:
        """Raises Invalid where the dag as a whole cannot work."""
        self.order()
        if self.tasks:
            _check_defaults(self.default_args, f"default_args of dag {self.dag_id!r}")
        for group in self.groups.values():
            _check_defaults(group.default_args, f"default_args of group {group.group_id!r}")

    def warnings(self) -> list[str]:
        """What the author should know, in sentences."""
        known = set(TASK_ARGUMENTS).union(*(accepted(type(task)).names for task in self.tasks.values()))
        found = []
        if self.start_date is not None and self.start_date.microsecond:
            found.append(
                "start_date has microseconds, as now() has: it moves each time the file is read; write a fixed date."
            )
        found += [
            f"default_args names {name!r}, which no task of this dag takes: it has no effect."
            for name in (self.default_args if self.tasks else ())
            if name not in known
        ]
        return found

    def to_spec(self) -> dict[str, Any]:
        """The dag as plain data: the JSON form of core.spec.DagSpec."""
        edges = self.edges()
        upstream: dict[str, list[str]] = {task_id: [] for task_id in self.tasks}
        for source, target in edges:
            upstream[target].append(source)
        return spec.dag_spec(self, self._ordered(edges), upstream)

    def test(
        self, logical_date: Moment = None, *, conf: Mapping[str, Any] | None = None, run_id: str | None = None
    ) -> "TestedRun":
        """Run the whole dag in this process, without a daemon: for tests, notebooks and debuggers.

        `dag.test("2026-01-01")["load"].result`; tasks are tried again without delay, and sensors look for real.
        """
        tested: TestedRun = authoring.testing.test_dag(self, logical_date, conf=conf, run_id=run_id)
        return tested

    def cli(self) -> NoReturn:
        """`if __name__ == "__main__": dag.cli()` lets `python my_dag.py [TASK …]` run the dag, or tasks of it."""
        try:
            sys.exit(authoring.testing.main(self, sys.argv[1:]))
        except FluxError as error:
            sys.exit(str(error))

    def __repr__(self) -> str:
        return f"<DAG {self.dag_id}>"


def _dates_of_the_dag(default_args: dict[str, Any], start: Moment, end: Moment) -> tuple[Moment, Moment]:
    """start_date and end_date; those among default_args (they are taken out) mean the dag, not the tasks."""
    first, last = default_args.pop("start_date", None), default_args.pop("end_date", None)
    return first if start is None else start, last if end is None else end


def _bounds(
    start: Moment, end: Moment, tz: dt.tzinfo, of: Callable[[str], str]
) -> tuple[dt.datetime | None, dt.datetime | None]:
    """start_date and end_date in UTC."""
    first = checks.moment(start, tz, of("start_date"))
    last = checks.moment(end, tz, of("end_date"))
    if first and last and last < first:
        raise Invalid(
            "FLX-1020",
            f"{of('end_date')} {checks.utc_text(last)} is before its start_date {checks.utc_text(first)}, so it would "
            "never run: correct one of them.",
        )
    return first, last


def _check_defaults(given: Mapping[str, Any], what: str) -> None:
    """Defaults may be shared by dags of many kinds: what any operator that is loaded takes is no mistake."""
    if set(given) <= TASK_ARGUMENTS:
        return
    known, classes = set(TASK_ARGUMENTS), [BaseOperator]
    while classes:
        of = classes.pop()
        known |= accepted(of).names
        classes += of.__subclasses__()
    for name in given:
        if name not in known:
            raise checks.unknown_argument(name, sorted(known), what)


DAG_ARGUMENTS = tuple(name for name in inspect.signature(DAG).parameters if name != "older")
