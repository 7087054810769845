"""A dag as a picture: where its tasks stand, how its edges run, which boxes its groups make.

The order within the layers comes from fast-sugiyama; sizes, direction and curves are ours. A layout depends on the
shape of the dag alone; states are painted on by the template.

For an irregular graph of thousands of edges that library takes minutes and holds the interpreter's lock meanwhile, so
`drawing.py` calls it in a process with a deadline, and `lay_out_plainly` draws what was not ready by then.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from fast_sugiyama import from_edges

from fluxd.web.folding import Chains, Places, fold

NODE_HEIGHT = 26
CHAR_WIDTH = 6.7  # of the label's font, a little generous
NODE_PADDING = 40  # the state's sign and the room around the label
NARROWEST, WIDEST = 64, 236
GAP_ACROSS = 10  # between neighbours of one layer
GAP_ALONG = 38  # between layers: room for the edges
MARGIN = 10
BOX_BEFORE, BOX_AFTER = 16, 8  # room for a group's box, its name and a little air
# The window that a graph should fill well: decides between left-to-right and top-down.
WINDOW = (760, 380)
LONE_COLUMNS = 4
MOST_DOWN, MOST_BESIDE = 12, 5  # a layer of more tasks is folded: left to right, top down
SPACING = 100  # the layout library's unit, divided out again

Point = tuple[float, float]
# (task id, upstream ids, group)
Shape = tuple[tuple[str, tuple[str, ...], str | None], ...]


@dataclass(frozen=True, slots=True)
class TaskBox:
    task_id: str
    label: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Edge:
    source: str
    target: str
    path: str


@dataclass(frozen=True, slots=True)
class Box:
    label: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything in pixels, the upper left corner at (0, 0)."""

    nodes: tuple[TaskBox, ...]
    edges: tuple[Edge, ...]
    boxes: tuple[Box, ...]
    width: float
    height: float
    plain: bool = False  # drawn by `lay_out_plainly`


def _label(task_id: str, group: str | None) -> str:
    text = task_id.removeprefix(f"{group}.") if group else task_id
    most = int((WIDEST - NODE_PADDING) / CHAR_WIDTH)
    if len(text) <= most:
        return text
    tail = most // 3
    return f"{text[: most - tail - 1]}…{text[-tail:]}"


def _parts(shape: Shape) -> list[list[str]]:
    """The connected parts of two tasks or more, biggest first, each in the dag's order."""
    parts: dict[str, list[str]] = {}
    for task_id, upstreams, _ in shape:
        joined = [task_id]
        for part in {id(parts[up]): parts[up] for up in upstreams if up in parts}.values():
            joined += part
        for member in joined:
            parts[member] = joined
    order = {task_id: index for index, (task_id, _, _) in enumerate(shape)}
    found = {id(part): sorted(part, key=order.__getitem__) for part in parts.values() if len(part) > 1}
    return sorted(found.values(), key=len, reverse=True)


def _place_part(members: list[str], upstreams: dict[str, tuple[str, ...]]) -> tuple[Places, Chains]:
    """Abstract places of one connected part.

    The library gets numbers in the dag's order and one part at a time: it orders names by their hash, which differs
    from process to process, and gives the bends of one part the numbers of another part's tasks.
    """
    number = {task_id: index for index, task_id in enumerate(members)}
    edges = [(number[up], number[task_id]) for task_id in members for up in upstreams[task_id]]
    [(positions, _, _, links)] = from_edges(
        edges, vertex_spacing=SPACING, dummy_vertices=True, dummy_size=SPACING * 0.6
    )
    layer = {y: index for index, y in enumerate(sorted({round(y) for _, (_, y) in positions}, reverse=True))}
    left = min(x for _, (x, _) in positions)
    at = {int(vertex): (layer[round(y)], (x - left) / SPACING) for vertex, (x, y) in positions}
    # Numbers that are nobody's are bends of long edges.
    bends = set(at) - set(number.values())
    hops = [(int(source), int(target)) for source, target in links or ()]
    follow = {source: target for source, target in hops if source in bends}
    chains: Chains = []
    for source, target in hops:
        if source in bends:
            continue
        points, end = [], target
        while end in bends:
            points.append(at[end])
            end = follow[end]
        chains.append((members[source], members[end], points))
    return {task_id: at[index] for task_id, index in number.items()}, chains


def _places(shape: Shape, most: int) -> tuple[Places, Chains]:
    """Abstract places of all tasks: the connected parts one after the other, tasks without edges below them.

    A layer of more than `most` tasks is folded.
    """
    upstreams = {task_id: upstream for task_id, upstream, _ in shape}
    places: Places = {}
    chains: Chains = []
    offset = 0.0
    for part in _parts(shape):
        found, found_chains = _place_part(part, upstreams)
        bent = {task_id for source, target, bends in found_chains if bends for task_id in (source, target)}
        _order_twins(shape, found, bent)
        found, found_chains = fold(found, found_chains, most)
        for task_id, (layer, across) in found.items():
            places[task_id] = (layer, across + offset)
        for source, target, points in found_chains:
            chains.append((source, target, [(layer, across + offset) for layer, across in points]))
        every = [across for _, across in found.values()] + [a for _, _, points in found_chains for _, a in points]
        offset += max(every, default=0.0) + 1.2
    for index, task_id in enumerate(task_id for task_id, _, _ in shape if task_id not in places):
        places[task_id] = (index % LONE_COLUMNS, offset + index // LONE_COLUMNS)
    return places, chains


def _order_twins(shape: Shape, places: Places, bent: set[str]) -> None:
    """Tasks with the same neighbours may change places without a new crossing: they stand as they were written.

    Not those with `bent` edges: the bends would have to change places too.
    """
    targets: dict[str, set[str]] = {task_id: set() for task_id, _, _ in shape}
    for task_id, upstreams, _ in shape:
        for upstream in upstreams:
            targets[upstream].add(task_id)
    twins: dict[Any, list[str]] = {}
    for task_id, upstreams, _ in shape:
        if task_id in places and task_id not in bent:
            key = (places[task_id][0], frozenset(upstreams), frozenset(targets[task_id]))
            twins.setdefault(key, []).append(task_id)
    for alike in twins.values():
        for task_id, place in zip(alike, sorted(places[task_id] for task_id in alike), strict=True):
            places[task_id] = place


def _smooth(points: Sequence[Point], sideways: bool) -> str:
    """A curve through the points that leaves and reaches each along the main direction."""
    x, y = points[0]
    path = [f"M{x:.1f} {y:.1f}"]
    for nx, ny in points[1:]:
        if (ny if sideways else nx) == (y if sideways else x):
            path.append(f"L{nx:.1f} {ny:.1f}")
        elif sideways:
            middle = (x + nx) / 2
            path.append(f"C{middle:.1f} {y:.1f} {middle:.1f} {ny:.1f} {nx:.1f} {ny:.1f}")
        else:
            middle = (y + ny) / 2
            path.append(f"C{x:.1f} {middle:.1f} {nx:.1f} {middle:.1f} {nx:.1f} {ny:.1f}")
        x, y = nx, ny
    return "".join(path)


def _boxes(shape: Shape, nodes: dict[str, TaskBox]) -> tuple[Box, ...]:
    """A box around each group, where it would not catch a task of another group too."""
    groups = {group for _, _, group in shape if group}
    boxes = []
    for group in sorted(groups):
        inside = [nodes[task_id] for task_id, _, of in shape if of and (of == group or of.startswith(f"{group}."))]
        x, y = min(node.x for node in inside) - 8, min(node.y for node in inside) - 18
        right = max(node.x + node.width for node in inside) + 8
        bottom = max(node.y + node.height for node in inside) + 8
        members = {node.task_id for node in inside}
        if all(
            node.x > right or node.x + node.width < x or node.y > bottom or node.y + node.height < y + 12
            for node in nodes.values()
            if node.task_id not in members
        ):
            boxes.append(Box(group, x, y, right - x, bottom - y))
    return tuple(boxes)


def _rooms(shape: Shape, places: Places) -> tuple[list[float], list[float]]:
    """Where groups begin and end across the layers: room is left there for their boxes and names."""
    begins, ends = set(), set()
    for group in {group for _, _, group in shape if group}:
        inside = [places[task_id][1] for task_id, _, of in shape if of == group]
        begins.add(round(min(inside), 3))
        ends.add(round(max(inside), 3))
    return sorted(begins), sorted(ends)


def _draw(shape: Shape, places: Places, chains: Chains, sideways: bool) -> Layout:
    labels = {task_id: _label(task_id, group) for task_id, _, group in shape}
    wants = {
        task_id: min(WIDEST, max(NARROWEST, len(label) * CHAR_WIDTH + NODE_PADDING))
        for task_id, label in labels.items()
    }
    layers = max((layer for layer, _ in places.values()), default=0) + 1
    begins, ends = _rooms(shape, places)
    widest = max(wants.values(), default=float(NARROWEST))
    thick = [float(NODE_HEIGHT)] * layers
    pitch = NODE_HEIGHT + GAP_ACROSS if sideways else widest + GAP_ACROSS
    if sideways:
        thick = [0.0] * layers
        for task_id, (layer, _) in places.items():
            thick[layer] = max(thick[layer], wants[task_id])
    along = GAP_ALONG + (BOX_BEFORE if begins and not sideways else 0)
    margin = MARGIN + (BOX_BEFORE if begins else 0)
    begin = [margin + before + index * along for index, before in enumerate(accumulate(thick[:-1], initial=0.0))]

    def middle(across: float) -> float:
        room = BOX_BEFORE * bisect_right(begins, across + 0.01) + BOX_AFTER * bisect_left(ends, across - 0.01)
        return MARGIN + room + across * pitch + (NODE_HEIGHT if sideways else widest) / 2

    nodes: dict[str, TaskBox] = {}
    for task_id, (layer, across) in places.items():
        width = thick[layer] if sideways else wants[task_id]
        x, y = (begin[layer], middle(across)) if sideways else (middle(across), begin[layer])
        x, y = (x, y - NODE_HEIGHT / 2) if sideways else (x - width / 2, y)
        nodes[task_id] = TaskBox(task_id, labels[task_id], x, y, width, NODE_HEIGHT)

    edges = []
    reached = [(node.x + node.width, node.y + node.height) for node in nodes.values()]
    for source, target, bends in chains:
        a, b = nodes[source], nodes[target]
        if sideways:
            points = [(a.x + a.width, a.y + a.height / 2)]
            for layer, across in bends:
                points += [(begin[layer], middle(across)), (begin[layer] + thick[layer], middle(across))]
            points.append((b.x, b.y + b.height / 2))
        else:
            points = [(a.x + a.width / 2, a.y + a.height)]
            for layer, across in bends:
                points += [(middle(across), begin[layer]), (middle(across), begin[layer] + thick[layer])]
            points.append((b.x + b.width / 2, b.y))
        reached += points
        edges.append(Edge(source, target, _smooth(points, sideways)))

    boxes = _boxes(shape, nodes)
    reached += [(box.x + box.width, box.y + box.height) for box in boxes]
    width, height = max((x for x, _ in reached), default=0.0), max((y for _, y in reached), default=0.0)
    return Layout(tuple(nodes.values()), tuple(edges), boxes, width + MARGIN, height + MARGIN)


def _scale(layout: Layout) -> float:
    return min(1.0, WINDOW[0] / layout.width, WINDOW[1] / layout.height)


def lay_out(shape: Shape) -> Layout:
    """The picture of a dag, left to right or top down, whichever is easier to read in a window of the usual shape."""
    sideways = _draw(shape, *_places(shape, MOST_DOWN), sideways=True)
    if _scale(sideways) == 1.0:
        return sideways
    upright = _draw(shape, *_places(shape, MOST_BESIDE), sideways=False)
    return upright if _scale(upright) > 1.15 * _scale(sideways) else sideways


def lay_out_plainly(shape: Shape) -> Layout:
    """A picture at a cost that grows with tasks and edges alone: each task in the first layer after its upstreams.

    Tasks of a layer stand by the middle of their upstreams; edges run straight, also past other tasks; no group has
    a box.
    """
    layer = _layers(shape)
    members: dict[int, list[str]] = {}
    for task_id, number in layer.items():
        members.setdefault(number, []).append(task_id)
    upstreams = {task_id: [up for up in upstream if up in layer] for task_id, upstream, _ in shape}
    places: Places = {}
    first = 0
    for number in range(len(members)):
        wanted = {
            task_id: sum(places[up][1] for up in upstreams[task_id]) / max(1, len(upstreams[task_id]))
            for task_id in members[number]
        }
        # Sorted is stable: equals stay as they were written.
        for index, task_id in enumerate(sorted(members[number], key=wanted.__getitem__)):
            places[task_id] = (first + index // MOST_DOWN, float(index % MOST_DOWN))
        first += (len(members[number]) - 1) // MOST_DOWN + 1
    chains: Chains = [(up, task_id, []) for task_id in places for up in upstreams[task_id]]
    bare = tuple((task_id, upstream, None) for task_id, upstream, _ in shape)
    return replace(_draw(bare, places, chains, sideways=True), plain=True)


def _layers(shape: Shape) -> dict[str, int]:
    """task id -> the longest way to it from a task without upstreams, in the dag's order where that is possible."""
    known = {task_id for task_id, _, _ in shape}
    open_ups = {task_id: [up for up in upstream if up in known] for task_id, upstream, _ in shape}
    missing = {task_id: len(ups) for task_id, ups in open_ups.items()}
    targets: dict[str, list[str]] = {task_id: [] for task_id in known}
    for task_id, ups in open_ups.items():
        for up in ups:
            targets[up].append(task_id)
    ready = deque(task_id for task_id, count in missing.items() if count == 0)
    layer = dict.fromkeys(ready, 0)
    while ready:
        task_id = ready.popleft()
        for target in targets[task_id]:
            layer[target] = max(layer.get(target, 0), layer[task_id] + 1)
            missing[target] -= 1
            if missing[target] == 0:
                ready.append(target)
    return layer
