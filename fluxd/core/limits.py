"""Limits: which of the ready tasks start now. Everything is counted from the rows that hold a slot, in every turn.

Ready tasks stand in lanes, one per (pool, slots, dag), each sorted by priority. A turn looks at the heads of the
lanes only: a full pool or a busy dag closes its lanes and hides nobody else. Among heads of equal priority the dag
goes first that was served longest ago, so that a backlog of one dag holds up no other. A task that needs several
slots of a pool is not overtaken for ever: when it is the first and its slots are not free yet, those behind it in
that pool wait until they are.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush, heapreplace

from fluxd.core.live import Node
from fluxd.core.states import State

# (-priority, run number, place in the dag, ticket, node): the smallest starts first.
Entry = tuple[int, int, int, int, Node]
LaneKey = tuple[str, int, str]
# (-priority, when its dag was served, run number, place in the dag, ticket, lane): heads of lanes, best first.
Head = tuple[int, int, int, int, int, LaneKey]


class Lanes:
    """The ready tasks (state `scheduled`), in the order in which they may start.

    A task stands in one lane at most: its newest ticket is the one that counts, and older entries are dropped when
    they come up.
    """

    def __init__(self) -> None:
        self._pools: dict[str, dict[LaneKey, list[Entry]]] = {}
        self._ticket = 0
        self._turn = 0
        self._served: dict[str, int] = {}  # dag id -> the turn in which it was served last
        self.awaited: dict[str, Node] = {}  # pool -> the task whose slots are being waited for

    def add(self, node: Node) -> None:
        """A task is ready, or its priority, pool or slots have changed."""
        self._ticket += 1
        node.ticket = self._ticket
        task, run = node.task, node.live.run
        self._served.setdefault(run.dag_id, self._turn - 1)  # a dag that is new comes before the one just served
        key = (task.pool, task.pool_slots, run.dag_id)
        entry = (-task.priority_weight, run.number, node.index, self._ticket, node)
        heappush(self._pools.setdefault(task.pool, {}).setdefault(key, []), entry)

    def head(self, key: LaneKey) -> Head | None:
        """The first of a lane that is still ready."""
        lanes = self._pools[key[0]]
        lane = lanes[key]
        while lane:
            priority, number, index, ticket, node = lane[0]
            if node.ticket == ticket and node.instance.state is State.SCHEDULED:
                return (priority, self._served[key[2]], number, index, ticket, key)
            heappop(lane)
        del lanes[key]
        if not lanes:
            del self._pools[key[0]]
        return None

    def first(self, key: LaneKey) -> Node:
        return self._pools[key[0]][key][0][4]

    def is_current(self, head: Head) -> bool:
        """Whether its dag was not served since."""
        return head[1] == self._served[head[5][2]]

    def pop(self, key: LaneKey) -> None:
        """The first of this lane starts."""
        heappop(self._pools[key[0]][key])
        self._turn += 1
        self._served[key[2]] = self._turn

    def forget(self, dag_id: str) -> None:
        self._served.pop(dag_id, None)

    def __bool__(self) -> bool:
        return bool(self._pools)

    def pools(self) -> list[str]:
        """The pools that somebody may wait for."""
        return list(self._pools)

    def keys(self, pool: str) -> list[LaneKey]:
        """The lanes of a pool that somebody may stand in."""
        return list(self._pools[pool])


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

    def free(self, pool: str) -> int:
        """How many slots of a pool are free."""
        return self.pools.get(pool, 0) - self.usage.pools.get(pool, 0)

    def has_room(self, key: LaneKey, node: Node) -> bool:
        """Whether the pool of a lane is large enough at all, and its dag may have one more task."""
        pool, slots, dag_id = key
        return slots <= self.pools[pool] and self.usage.dags.get(dag_id, 0) < node.live.dag.spec.max_active_tasks

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
    heads = _heads(lanes, limits)
    heapify(heads)
    lanes.awaited.clear()
    chosen: list[Node] = []
    while heads and limits.usage.total < limits.parallelism:
        key = heads[0][5]
        if not lanes.is_current(heads[0]):
            head = lanes.head(key)  # its dag was served meanwhile, from another lane
        elif key[0] in lanes.awaited or not limits.has_room(key, lanes.first(key)):
            head = None
        elif limits.free(key[0]) < key[1]:
            lanes.awaited[key[0]] = lanes.first(key)
            head = None
        else:
            node = lanes.first(key)
            lanes.pop(key)
            limits.usage.take(node)
            chosen.append(node)
            head = lanes.head(key)
        if head is None:
            heappop(heads)
        else:
            heapreplace(heads, head)
    return chosen


def _heads(lanes: Lanes, limits: Limits) -> list[Head]:
    """The heads of the lanes whose pool has a free slot and whose dag has room."""
    return [
        head
        for pool in lanes.pools()
        if limits.free(pool) > 0
        for key in lanes.keys(pool)
        if (head := lanes.head(key)) is not None and limits.has_room(key, lanes.first(key))
    ]
