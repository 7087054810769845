"""Limits: which of the ready tasks start now. Everything is counted from the rows that hold a slot, in every turn.

Ready tasks stand in lanes, one per (pool, slots, dag), each sorted by priority. A turn looks at the heads of the
lanes only: a full pool or a busy dag closes its lanes and hides nobody else.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush, heapreplace

from fluxd.core.live import Node
from fluxd.core.states import State

# (-priority, run number, place in the dag, serial, node): the smallest starts first.
Entry = tuple[int, int, int, int, Node]
LaneKey = tuple[str, int, str]


class Lanes:
    """The ready tasks (state `scheduled`), in the order in which they may start."""

    def __init__(self) -> None:
        self._lanes: dict[LaneKey, list[Entry]] = {}
        self._serial = 0

    def add(self, node: Node) -> None:
        """A task is ready, or its pool, slots or priority were edited while it was: its old entry counts no more."""
        self._serial += 1
        task, run = node.task, node.live.run
        entry = (-task.priority_weight, run.number, node.index, self._serial, node)
        heappush(self._lanes.setdefault(_lane_of(node), []), entry)

    def head(self, key: LaneKey) -> Entry | None:
        """The first of a lane that is still ready; entries that have moved on are dropped here."""
        lane = self._lanes.get(key)
        while lane:
            node = lane[0][4]
            stands = _lane_of(node) == key and lane[0][0] == -node.task.priority_weight
            if stands and node.instance.state is State.SCHEDULED:
                return lane[0]
            heappop(lane)
        if lane is not None:
            del self._lanes[key]
        return None

    def pop(self, key: LaneKey) -> None:
        heappop(self._lanes[key])

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def keys(self) -> list[LaneKey]:
        """The lanes that somebody may stand in."""
        return list(self._lanes)


def _lane_of(node: Node) -> LaneKey:
    return node.task.pool, node.task.pool_slots, node.live.run.dag_id


class Usage:
    """How many slots are taken, counted from the rows that hold one."""

    def __init__(self, occupying: Iterable[Node]) -> None:
        self.total = 0
        self.pools: dict[str, int] = {}
        self.dags: dict[str, int] = {}
        for node in occupying:
            self.take(node)

    def take(self, node: Node) -> None:
        self.total += 1
        pool, dag_id = node.task.pool, node.live.run.dag_id
        self.pools[pool] = self.pools.get(pool, 0) + node.task.pool_slots
        self.dags[dag_id] = self.dags.get(dag_id, 0) + 1


class Limits:
    """The limits as they are set, against what is used."""

    def __init__(self, parallelism: int, pools: dict[str, int], usage: Usage) -> None:
        self.parallelism = parallelism
        self.pools = pools
        self.usage = usage

    def closed(self, node: Node) -> str | None:
        """Why this ready task may not start now, in words; None: it may."""
        task, live, usage = node.task, node.live, self.usage
        if usage.total >= self.parallelism:
            return f"all {self.parallelism} places of the installation are taken (setting executor.parallelism)"
        size = self.pools.get(task.pool)
        if size is None:
            return f"there is no pool {task.pool!r}: make it with fluxctl pools set {task.pool} SLOTS"
        used = usage.pools.get(task.pool, 0)
        if used + task.pool_slots > size:
            if task.pool_slots > size:
                return f"it needs {task.pool_slots} slots, and pool {task.pool!r} has only {size}"
            return f"it needs {task.pool_slots} of the {size} slots of pool {task.pool!r}, and {used} are taken"
        active = usage.dags.get(live.run.dag_id, 0)
        limit = live.dag.spec.max_active_tasks
        if active >= limit:
            tasks = "1 task of" if active == 1 else f"{active} tasks of"
            verb = "is" if active == 1 else "are"
            return f"{tasks} dag {live.run.dag_id!r} {verb} active, its max_active_tasks is {limit}"
        return None


def choose(lanes: Lanes, limits: Limits) -> list[Node]:
    """The ready tasks that start now, best first; they are taken out of their lanes and counted as used."""
    heads: list[tuple[Entry, LaneKey]] = []
    open_lanes = lanes.keys()
    for key in open_lanes:
        head = lanes.head(key)
        if head is not None and limits.closed(head[4]) is None:
            heads.append((head, key))
    heapify(heads)
    chosen: list[Node] = []
    while heads and limits.usage.total < limits.parallelism:
        (*_, node), key = heads[0]
        if limits.closed(node) is not None:
            heappop(heads)
            continue
        lanes.pop(key)
        limits.usage.take(node)
        chosen.append(node)
        head = lanes.head(key)
        # A task that stands twice in its lane was taken once already.
        while head is not None and head[4] is node:
            lanes.pop(key)
            head = lanes.head(key)
        if head is None:
            heappop(heads)
        else:
            heapreplace(heads, (head, key))
    return chosen
