"""Edges between tasks and groups, made into edges between tasks, and the order of the tasks; plain functions on ids.

Nothing here recurses: a chain of 5,000 tasks is as good as one of five.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence

Edge = tuple[str, str]


def expand_groups(edges: Iterable[Edge], members: Mapping[str, Sequence[str]], depth: Mapping[str, int]) -> list[Edge]:
    """The edges between tasks that `edges` between tasks and groups mean, each once, in the order they were written.

    `members` has the task ids of each group (those of its inner groups too), `depth` how deep each id is nested. An
    edge to a group leads to its first tasks, one from a group comes from its last ones. Which are first and last
    depends on the edges inside the group alone, so the innermost edges are expanded first. An empty group passes on:
    in `a >> group >> b` b still waits for a.
    """
    edges = _without_empty(list(dict.fromkeys(edges)), {group for group, tasks in members.items() if not tasks})
    found: dict[Edge, None] = {}
    into: defaultdict[str, list[str]] = defaultdict(list)
    out_of: defaultdict[str, list[str]] = defaultdict(list)

    known: dict[tuple[str, int], Sequence[str]] = {}

    def ends(node: str, neighbours: Mapping[str, list[str]]) -> Sequence[str]:
        if node not in members:
            return (node,)
        # When a group's ends are asked for, all edges inside it are there, so the answer stays right.
        key = node, id(neighbours)
        if key not in known:
            inside = set(members[node])
            known[key] = [task for task in members[node] if inside.isdisjoint(neighbours.get(task, ()))]
        return known[key]

    for source, target in sorted(edges, key=lambda edge: -min(depth[edge[0]], depth[edge[1]])):
        for last in ends(source, out_of):
            for first in ends(target, into):
                if (last, first) not in found:
                    found[last, first] = None
                    into[first].append(last)
                    out_of[last].append(first)
    return list(found)


def _without_empty(edges: list[Edge], empty: Iterable[str]) -> list[Edge]:
    for group in empty:
        before = [source for source, target in edges if target == group]
        after = [target for source, target in edges if source == group]
        edges = [edge for edge in edges if group not in edge]
        edges = list(dict.fromkeys([*edges, *((source, target) for source in before for target in after)]))
    return edges


def order(ids: Sequence[str], edges: Iterable[Edge]) -> list[str] | None:
    """The ids with each after all its upstreams, else in the order given; None if there is a cycle."""
    waits_for = dict.fromkeys(ids, 0)
    downstream: defaultdict[str, list[str]] = defaultdict(list)
    for source, target in edges:
        waits_for[target] += 1
        downstream[source].append(target)
    ready = deque(task for task in ids if not waits_for[task])
    done: list[str] = []
    while ready:
        task = ready.popleft()
        done.append(task)
        for target in downstream[task]:
            waits_for[target] -= 1
            if not waits_for[target]:
                ready.append(target)
    return done if len(done) == len(ids) else None


def find_cycle(ids: Sequence[str], edges: Iterable[Edge]) -> list[str]:
    """One cycle as a path that ends where it began. There must be one (see `order`)."""
    upstream: defaultdict[str, list[str]] = defaultdict(list)
    waits_for = dict.fromkeys(ids, 0)
    downstream: defaultdict[str, list[str]] = defaultdict(list)
    for source, target in edges:
        upstream[target].append(source)
        downstream[source].append(target)
        waits_for[target] += 1
    ready = [task for task in ids if not waits_for[task]]
    while ready:
        task = ready.pop()
        for target in downstream[task]:
            waits_for[target] -= 1
            if not waits_for[target]:
                ready.append(target)
    # Whoever still waits has an upstream that still waits: going up from it must come round.
    stuck = {task for task, count in waits_for.items() if count}
    path: dict[str, None] = {}
    task = next(iter(t for t in ids if t in stuck))
    while task not in path:
        path[task] = None
        task = next(t for t in upstream[task] if t in stuck)
    walked = list(path)
    cycle = [*walked[walked.index(task) :], task]
    cycle.reverse()
    return cycle
