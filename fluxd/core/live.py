"""Live runs in memory: the rows, their place in the graph, and the counters that make one ending cheap."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from fluxd.core.model import Attempt, Instance, InstanceKey, Run
from fluxd.core.rules import COLUMN, RULES, Rule
from fluxd.core.spec import DagSpec, TaskSpec
from fluxd.core.states import State
from fluxd.core.timetable import Timetable


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The graph of one version by numbers: task i has `downstream[i]` behind it."""

    tasks: tuple[TaskSpec, ...]
    index: dict[str, int]
    downstream: tuple[tuple[int, ...], ...]
    rules: tuple[Rule, ...]
    leaves: tuple[int, ...]
    looks_back: bool  # some task depends_on_past


def same_shape(one: Plan, other: Plan) -> bool:
    """Whether two versions have the same tasks in the same order, with the same edges."""
    return [(task.task_id, set(task.upstream)) for task in one.tasks] == [
        (task.task_id, set(task.upstream)) for task in other.tasks
    ]


def make_plan(spec: DagSpec) -> Plan:
    """The graph of a spec by numbers. A rule that is not known counts as all_success: the author's side refuses it."""
    index = {task.task_id: number for number, task in enumerate(spec.tasks)}
    downstream = tuple(tuple(index[below] for below in spec.downstream[task.task_id]) for task in spec.tasks)
    return Plan(
        tasks=spec.tasks,
        index=index,
        downstream=downstream,
        rules=tuple(RULES.get(task.trigger_rule, RULES["all_success"]) for task in spec.tasks),
        leaves=tuple(number for number, below in enumerate(downstream) if not below),
        looks_back=any(task.depends_on_past for task in spec.tasks),
    )


class Node:
    """One task instance with its place in the graph. `counts` = how its upstreams ended, by `rules.COLUMN`."""

    __slots__ = ("attempt", "counts", "index", "instance", "live", "rule", "task", "upstream")

    def __init__(self, live: "LiveRun", index: int, instance: Instance) -> None:
        self.live = live
        self.index = index
        self.instance = instance
        self.task = live.plan.tasks[index]
        self.rule = live.plan.rules[index]
        self.upstream = len(self.task.upstream)
        self.counts = [0, 0, 0, 0]
        self.attempt: Attempt | None = None  # the live one

    @property
    def key(self) -> InstanceKey:
        return self.instance.key


class LiveRun:
    """A run in memory with all of its instances; `open` = how many of them have not ended."""

    __slots__ = ("dag", "nodes", "open", "plan", "run", "spec")

    def __init__(self, run: Run, spec: DagSpec, plan: Plan, dag: "Dag", instances: Iterable[Instance]) -> None:
        self.run = run
        self.spec = spec
        self.plan = plan
        self.dag = dag
        rows = {instance.task_id: instance for instance in instances}
        self.nodes = [
            Node(self, number, rows.get(task.task_id) or fresh_instance(run, task))
            for number, task in enumerate(plan.tasks)
        ]
        self.open = 0
        for node, below in zip(self.nodes, plan.downstream, strict=True):
            column = COLUMN[node.instance.state]
            self.open += not column
            if column:
                for number in below:
                    self.nodes[number].counts[column] += 1

    def adopt(self, spec: DagSpec, plan: Plan) -> None:
        """Go on with another version of the dag, whose graph has the same shape."""
        self.spec, self.plan = spec, plan
        for node in self.nodes:
            node.task, node.rule = plan.tasks[node.index], plan.rules[node.index]

    def node(self, task_id: str) -> Node | None:
        number = self.plan.index.get(task_id)
        return None if number is None else self.nodes[number]

    def upstream(self, node: Node) -> list[Node]:
        return [self.nodes[self.plan.index[task_id]] for task_id in node.task.upstream]

    def below(self, nodes: Iterable[Node]) -> list[Node]:
        """These and everything behind them, upstream first."""
        found = {node.index for node in nodes}
        for number in range(len(self.nodes)):  # topological order: one pass is enough
            if number in found:
                found.update(self.plan.downstream[number])
        return [self.nodes[number] for number in sorted(found)]


def fresh_instance(run: Run, task: TaskSpec) -> Instance:
    return Instance(run_number=run.number, task_id=task.task_id, max_tries=1 + task.retries)


@dataclass(slots=True, eq=False)
class Dag:
    """What is known of a dag: its newest version, where its timetable stands, its live runs."""

    spec: DagSpec
    version_id: int
    plan: Plan
    timetable: Timetable
    paused: bool = False
    removed: bool = False
    next_due_at: datetime | None = None
    last_due_at: datetime | None = None  # newest tick that got a run, as far as is remembered
    last_logical_date: datetime | None = None
    trouble: str | None = None  # why its timetable can not be used
    watched: datetime | None = None  # the tick that a timer was set for
    running: dict[int, LiveRun] = field(default_factory=dict)  # by run number, in rising order
    queued: dict[int, LiveRun] = field(default_factory=dict)
    ticks: dict[datetime, LiveRun] = field(default_factory=dict)  # live scheduled runs by their tick
    past: dict[datetime, dict[str, State]] = field(default_factory=dict)  # finished ones that others look back at

    @property
    def dag_id(self) -> str:
        return self.spec.dag_id

    @property
    def ticking(self) -> bool:
        """Whether its timetable makes runs."""
        return not self.paused and not self.removed and self.trouble is None

    def run_before(self, due_at: datetime) -> datetime | None:
        """The tick of the run before this one that is still known, live or past."""
        return max((tick for known in (self.ticks, self.past) for tick in known if tick < due_at), default=None)

    def forget_past(self) -> None:
        """Keep only what a live run, or the next one, may look back at."""
        if len(self.past) > 1:
            needed = {self.run_before(tick) for tick in self.ticks} | {max(self.past)}
            self.past = {tick: states for tick, states in self.past.items() if tick in needed}
