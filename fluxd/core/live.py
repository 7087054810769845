"""Live runs in memory: the rows, their place in the graph, and the counters that make one ending cheap."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush

from fluxd.core.model import Attempt, Instance, InstanceKey, PastStates, Run
from fluxd.core.moment import EPOCH
from fluxd.core.rules import COLUMN, RULES, UNDONE, Rule, Verdict, judge
from fluxd.core.spec import DagSpec, TaskSpec
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


class Place:
    """One task in one run, with all of its instances: one, or those of a mapped task in the order of their map index.

    What they wait for is the same for all of them, so it is counted here, once: `upstream` instances, of which `counts`
    have ended, by `rules.COLUMN`. The end of one instance costs its task's out-edges, however many instances lie there.
    """

    __slots__ = ("counts", "index", "members", "rule", "task", "upstream")

    def __init__(self, live: "LiveRun", index: int, instances: list[Instance]) -> None:
        self.index = index
        self.task = live.plan.tasks[index]
        self.rule = live.plan.rules[index]
        self.counts = [0, 0, 0, 0]
        self.upstream = 0
        self.members = [Node(live, self, instance) for instance in instances]

    def verdict(self) -> Verdict:
        """What the task's trigger rule says now."""
        return judge(self.rule, self.upstream, self.counts)

    def member(self, map_index: int) -> "Node | None":
        at = bisect_left(self.members, map_index, key=_map_index)
        found = self.members[at] if at < len(self.members) else None
        return found if found is not None and found.instance.map_index == map_index else None


class Node:
    """One task instance with its place in the graph."""

    __slots__ = ("attempt", "began", "due", "free_retries", "index", "instance", "live", "place", "task", "ticket")

    def __init__(self, live: "LiveRun", place: Place, instance: Instance) -> None:
        self.live = live
        self.place = place
        self.index = place.index
        self.task = place.task
        self.instance = instance
        self.attempt: Attempt | None = None  # the live one
        self.free_retries = 0  # in a row; begins anew with the daemon
        # By the clocks of `Moment`: when its process began (awake); when its pause or its wait is over (elapsed).
        self.began = self.due = timedelta()
        self.ticket = 0  # of its entry in the lanes: an older entry does not count

    @property
    def key(self) -> InstanceKey:
        return self.instance.key

    @property
    def counts(self) -> list[int]:
        """How its upstreams ended, by `rules.COLUMN`."""
        return self.place.counts

    @property
    def name(self) -> str:
        """As people read it: the task id, with the map index of a mapped one."""
        index = self.instance.map_index
        return self.task.task_id if index < 0 else f"{self.task.task_id}[{index}]"


def _map_index(node: Node) -> int:
    return node.instance.map_index


class LiveRun:
    """A run in memory with all of its instances; `open` = how many of them have not ended."""

    __slots__ = ("began", "dag", "open", "places", "plan", "run", "spec")

    def __init__(self, run: Run, spec: DagSpec, plan: Plan, dag: "Dag", instances: Iterable[Instance]) -> None:
        self.run = run
        self.spec = spec
        self.plan = plan
        self.dag = dag
        self.began = timedelta()  # when it began to run, by the clock of the time awake
        rows: dict[str, list[Instance]] = {}
        for instance in instances:
            rows.setdefault(instance.task_id, []).append(instance)
        self.places = [
            Place(self, number, sorted(rows.get(task.task_id, ()), key=_row_index) or [fresh_instance(run, task)])
            for number, task in enumerate(plan.tasks)
        ]
        self.open = 0
        for place, below in zip(self.places, plan.downstream, strict=True):
            ended = [COLUMN[node.instance.state] for node in place.members]
            self.open += ended.count(UNDONE)
            for number in below:
                behind = self.places[number]
                behind.upstream += len(ended)
                for column in ended:
                    if column:
                        behind.counts[column] += 1

    @property
    def nodes(self) -> list[Node]:
        """All instances, upstream first; those of a mapped task by their map index."""
        return [node for place in self.places for node in place.members]

    def adopt(self, spec: DagSpec, plan: Plan) -> None:
        """Go on with another version of the dag, whose graph has the same shape."""
        self.spec, self.plan = spec, plan
        for place in self.places:
            place.task, place.rule = plan.tasks[place.index], plan.rules[place.index]
            for node in place.members:
                node.task = place.task

    def node(self, task_id: str, map_index: int = -1) -> Node | None:
        number = self.plan.index.get(task_id)
        return None if number is None else self.places[number].member(map_index)

    def upstream(self, node: Node) -> list[Node]:
        """The instances that this one waits for."""
        return [up for task_id in node.task.upstream for up in self.places[self.plan.index[task_id]].members]

    def leaves(self) -> list[Node]:
        """The instances that nothing waits for."""
        return [node for number in self.plan.leaves for node in self.places[number].members]

    def below(self, nodes: Iterable[Node]) -> list[Node]:
        """These and everything behind them, upstream first."""
        chosen = list(nodes)
        named = {node.key for node in chosen}
        first = {node.index for node in chosen}
        behind: set[int] = set()
        for number in range(len(self.places)):  # topological order: one pass is enough
            if number in first or number in behind:
                behind.update(self.plan.downstream[number])
        return [
            node
            for number in sorted(first | behind)
            for node in self.places[number].members
            if number in behind or node.key in named
        ]


def _row_index(instance: Instance) -> int:
    return instance.map_index


def fresh_instance(run: Run, task: TaskSpec) -> Instance:
    return Instance(run_number=run.number, task_id=task.task_id, max_tries=1 + task.retries)


# (when it was due, run number)
QueueEntry = tuple[datetime, int]


def due_of(run: Run) -> datetime:
    """When a run should have begun: a scheduled one at its tick, another one when it was asked for."""
    return run.due_at or run.queued_at


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
    last_skipped: datetime | None = None  # newest tick that was skipped
    last_logical_date: datetime | None = None
    trouble: str | None = None  # why its timetable can not be used
    watched: datetime | None = None  # the tick that a timer was set for
    running: dict[int, LiveRun] = field(default_factory=dict)  # by run number, in rising order
    queued: dict[int, LiveRun] = field(default_factory=dict)
    ticks: dict[datetime, LiveRun] = field(default_factory=dict)  # live scheduled runs by their tick
    past: dict[datetime, PastStates] = field(default_factory=dict)  # finished ones that others look back at
    _order: list[datetime] = field(default_factory=list)  # all ticks of these two, rising
    _queue: list[QueueEntry] = field(default_factory=list)  # heap over `queued`; entries that have left it are dropped
    _late: list[QueueEntry] = field(default_factory=list)  # heap over those of `queued` that are scheduled

    def handled(self) -> datetime:
        """The newest tick that has a run or a skip: no schedule goes on before it."""
        return max(self.last_due_at or EPOCH, self.last_skipped or EPOCH)

    @property
    def dag_id(self) -> str:
        return self.spec.dag_id

    @property
    def ticking(self) -> bool:
        """Whether its timetable makes runs."""
        return not self.paused and not self.removed and self.trouble is None

    def enqueue(self, live: LiveRun) -> None:
        """This run waits for its turn."""
        run = live.run
        self.queued[run.number] = live
        heappush(self._queue, (due_of(run), run.number))
        if run.due_at is not None:
            heappush(self._late, (run.due_at, run.number))

    def first_queued(self) -> LiveRun | None:
        """The queued run that was due first."""
        return self._first(self._queue)

    def first_late(self) -> LiveRun | None:
        """The queued run of the earliest tick."""
        return self._first(self._late)

    def _first(self, heap: list[QueueEntry]) -> LiveRun | None:
        while heap:
            due, number = heap[0]
            live = self.queued.get(number)
            if live is not None and due_of(live.run) == due:
                return live
            heappop(heap)
        return None

    def run_before(self, due_at: datetime) -> datetime | None:
        """The tick of the run before this one that is still known, live or past."""
        place = bisect_left(self._order, due_at)
        return self._order[place - 1] if place else None

    def run_after(self, due_at: datetime) -> datetime | None:
        """The tick of the run after this one that is still known, live or past."""
        place = bisect_right(self._order, due_at)
        return self._order[place] if place < len(self._order) else None

    def add_tick(self, due_at: datetime, live: LiveRun) -> None:
        """The run of this tick is live."""
        self._know(due_at)
        self.ticks[due_at] = live
        self.past.pop(due_at, None)

    def add_past(self, due_at: datetime, states: PastStates) -> None:
        """The run of this tick has ended so."""
        self._know(due_at)
        self.ticks.pop(due_at, None)
        self.past[due_at] = states

    def forget_past(self, due_at: datetime) -> None:
        """Now that this run has ended, keep only what a live run, or the next one, may look back at."""
        for tick in (self.run_before(due_at), due_at):
            after = None if tick is None else self.run_after(tick)
            if tick in self.past and after is not None and after not in self.ticks:
                del self.past[tick]
                del self._order[bisect_left(self._order, tick)]

    def _know(self, due_at: datetime) -> None:
        if due_at not in self.ticks and due_at not in self.past:
            insort(self._order, due_at)
