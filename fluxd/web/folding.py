"""Layers of a graph that are too wide to be read are folded into several, side by side.

Edges to and from the tasks of a folded layer run in the gaps between its lines, never over its tasks.
"""

from collections.abc import Iterable
from math import ceil

# A place in the abstract grid: (layer, place within the layer), both rising from 0, the place not always whole.
Places = dict[str, tuple[int, float]]
# An edge as the points it goes through, in abstract places.
Chains = list[tuple[str, str, list[tuple[int, float]]]]
# Of one layer: the old place, and the task; None for an edge that passes.
Item = tuple[float, str | None]

GAP = 0.5  # from the middle of a task to the gap before it


def _bend_room(count: int, most: int) -> float:
    """An edge that passes by wants less room than a task, and many of them no more than a folded layer."""
    return min(0.6, most / max(1, count))


def fold(places: Places, chains: Chains, most: int) -> tuple[Places, Chains]:
    """The same part of a graph with no more than `most` tasks in a layer; unchanged where no layer has more."""
    layers: dict[int, list[str]] = {}
    for task_id in sorted(places, key=places.__getitem__):
        layers.setdefault(places[task_id][0], []).append(task_id)
    if max(map(len, layers.values())) <= most:
        return places, chains
    bends: dict[int, list[float]] = {}
    for _, _, points in chains:
        for layer, across in points:
            bends.setdefault(layer, []).append(across)
    first: dict[int, int] = {}  # layer → the first of the layers that are made of it
    count = 0
    for layer in range(1 + max([*layers, *bends])):
        first[layer] = count
        count += ceil(len(layers.get(layer, [0])) / most)
    first[len(first)] = count
    squeeze = _squeeze(layers, bends, most)
    found: Places = {}
    passing: dict[tuple[int, float], float] = {}  # (old layer, old place) of a bend → its new place
    for layer in range(len(first) - 1):
        inside, through = layers.get(layer, []), sorted(set(bends.get(layer, [])))
        if len(inside) > most:
            found |= _columns(inside, places, first[layer], most, squeeze)
            passing |= _around(
                layer, through, [found[task_id][1] for task_id in inside], places[inside[len(inside) // 2]][1], most
            )
        else:
            items: list[Item] = [(places[task_id][1], task_id) for task_id in inside]
            items += [(across, None) for across in through]
            for (across, member), place in _apart(items, squeeze, _bend_room(len(through), most)):
                if member is None:
                    passing[layer, across] = place
                else:
                    found[member] = (first[layer], place)
    return _from_zero(found, [_lead(found, first, passing, places, chain) for chain in chains])


def _squeeze(layers: dict[int, list[str]], bends: dict[int, list[float]], most: int) -> float:
    """By how much the places of the other layers come together, so that they stay beside the folded ones."""
    extent = max(len(inside) for inside in layers.values()) - 1
    tallest = max(
        ceil(len(inside) / ceil(len(inside) / most)) + min(most, 0.6 * len(set(bends.get(layer, []))))
        for layer, inside in layers.items()
    )
    return min(1.0, max(1.0, tallest - 1) / extent)


def _columns(inside: list[str], places: Places, first: int, most: int, squeeze: float) -> Places:
    """The tasks of one layer in columns of equal length, read down the first, then down the next."""
    tall = ceil(len(inside) / ceil(len(inside) / most))
    middle = sum(places[task_id][1] for task_id in inside) / len(inside) * squeeze
    begin = middle - (tall - 1) / 2
    return {task_id: (first + index // tall, begin + index % tall) for index, task_id in enumerate(inside)}


def _around(
    layer: int, through: list[float], taken: list[float], middle: float, most: int
) -> dict[tuple[int, float], float]:
    """Edges that pass a folded layer go around it, on the side that is nearer to them."""
    room = _bend_room(len(through), most)
    before = [across for across in through if across < middle]
    after = [across for across in through if across >= middle]
    found = {(layer, across): min(taken) - 1 - room * n for n, across in enumerate(reversed(before))}
    return found | {(layer, across): max(taken) + 1 + room * n for n, across in enumerate(after)}


def _apart(items: Iterable[Item], squeeze: float, bend_room: float) -> list[tuple[Item, float]]:
    """The things of one layer closer together, in the same order and each with its room; their middle stays."""
    ordered = sorted(items, key=lambda item: item[0])
    placed: list[float] = []
    for index, (across, task_id) in enumerate(ordered):
        place = across * squeeze
        if placed:
            both_bend = task_id is None and ordered[index - 1][1] is None
            place = max(place, placed[-1] + (bend_room if both_bend else 1.0))
        placed.append(place)
    if not placed:
        return []
    shift = sum(across * squeeze for across, _ in ordered) / len(ordered) - sum(placed) / len(placed)
    return [(item, place + shift) for item, place in zip(ordered, placed, strict=True)]


def _lead(
    found: Places,
    first: dict[int, int],
    passing: dict[tuple[int, float], float],
    places: Places,
    chain: tuple[str, str, list[tuple[int, float]]],
) -> tuple[str, str, list[tuple[int, float]]]:
    """An edge through the new places: out of its source's layer, past the layers between, into its target's."""
    source, target, points = chain
    layer, across = found[source]
    led = [(between, across - GAP) for between in range(layer + 1, first[places[source][0] + 1])]
    for old, at in points:
        led += [(between, passing[old, at]) for between in range(first[old], first[old + 1])]
    layer, across = found[target]
    led += [(between, across - GAP) for between in range(first[places[target][0]], layer)]
    return source, target, led


def _from_zero(places: Places, chains: Chains) -> tuple[Places, Chains]:
    least = min([across for _, across in places.values()] + [across for _, _, points in chains for _, across in points])
    moved = {task_id: (layer, across - least) for task_id, (layer, across) in places.items()}
    return moved, [(a, b, [(layer, across - least) for layer, across in points]) for a, b, points in chains]
