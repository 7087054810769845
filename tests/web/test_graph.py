"""The picture of a dag: nothing missing, nothing on top of another, edges from side to side."""

import random
import re

import pytest

from fluxd.web.graph import Layout, Shape, lay_out, lay_out_plainly


def chain(length: int, name: str = "t") -> Shape:
    return tuple((f"{name}{n}", (f"{name}{n - 1}",) if n else (), None) for n in range(length))


def random_shape(seed: int) -> Shape:
    chance = random.Random(seed)
    names = [f"task_{n}{'x' * chance.randrange(30)}" for n in range(chance.randrange(1, 40))]
    return tuple(
        (
            name,
            tuple(chance.sample(names[:index], min(index, chance.choice((0, 1, 1, 2, 4))))),
            chance.choice((None, "g", "g.h")),
        )
        for index, name in enumerate(names)
    )


def check(shape: Shape, layout: Layout) -> None:
    assert {node.task_id for node in layout.nodes} == {task_id for task_id, _, _ in shape}
    wanted = sorted((up, task_id) for task_id, upstream, _ in shape for up in upstream)
    assert sorted((edge.source, edge.target) for edge in layout.edges) == wanted
    boxes = sorted((node.x, node.y, node.x + node.width, node.y + node.height) for node in layout.nodes)
    for index, a in enumerate(boxes):
        for b in boxes[index + 1 :]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], "two tasks overlap"
    for node in layout.nodes:
        assert node.x >= 0 and node.y >= 0
        assert node.x + node.width <= layout.width and node.y + node.height <= layout.height
    for edge in layout.edges:
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", edge.path)]
        assert all(0 <= x <= layout.width for x in numbers[::2])
        assert all(0 <= y <= layout.height for y in numbers[1::2])


@pytest.mark.parametrize("seed", range(60))
def test_any_dag_can_be_drawn(seed: int) -> None:
    shape = random_shape(seed)
    check(shape, lay_out(shape))


@pytest.mark.parametrize("seed", range(60))
def test_any_dag_can_be_drawn_plainly(seed: int) -> None:
    shape = random_shape(seed)
    layout = lay_out_plainly(shape)
    assert layout.plain
    check(shape, layout)
    at = {node.task_id: node.x for node in layout.nodes}
    assert all(at[up] < at[task_id] for task_id, upstream, _ in shape for up in upstream)


def test_small_dags() -> None:
    for shape in ((), (("only", (), None),), tuple((f"lone_{n}", (), None) for n in range(30)), chain(2)):
        check(shape, lay_out(shape))
        check(shape, lay_out_plainly(shape))


def test_a_dag_runs_from_left_to_right_or_down_whichever_is_easier_to_read() -> None:
    short, long = lay_out(chain(4)), lay_out(chain(14, "a_task_with_a_long_name_"))
    assert len({node.y for node in short.nodes}) == 1
    assert len({round(node.x + node.width / 2) for node in long.nodes}) == 1


def test_twins_stand_as_they_were_written() -> None:
    names = [f"shop_{city}" for city in ("berlin", "lyon", "oslo", "rome")]
    shape: Shape = (
        ("all", (), None),
        *((name, ("all",), "shops") for name in names),
        ("merge", tuple(names), None),
    )
    layout = lay_out(shape)
    across = {node.task_id: node.y for node in layout.nodes}
    assert sorted(names, key=across.__getitem__) == names
    [box] = layout.boxes
    assert box.label == "shops"


def test_a_big_dag_is_drawn_in_time() -> None:
    chance = random.Random(1)
    shape = tuple(
        (f"task_{n}", tuple({f"task_{chance.randrange(max(0, n - 30), n)}" for _ in range(2)}) if n else (), None)
        for n in range(500)
    )
    check(shape, lay_out(shape))


def test_a_wide_layer_is_folded() -> None:
    names = tuple(f"load_table_{n}" for n in range(65))
    shape: Shape = (
        ("start", (), None),
        *((name, ("start",), "tables") for name in names),
        ("done", names, None),
    )
    layout = lay_out(shape)
    check(shape, layout)
    assert layout.height < 560 and layout.width < 1400
    columns: dict[float, list[str]] = {}
    for node in sorted(layout.nodes, key=lambda node: (node.x, node.y)):
        columns.setdefault(node.x, []).append(node.task_id)
    assert max(map(len, columns.values())) <= 12
    assert len(layout.boxes) == 1
    tables = [task_id for column in columns.values() for task_id in column if task_id in names]
    assert tables == list(names)  # read down one column after the other


@pytest.mark.parametrize("seed", range(20))
def test_any_wide_dag_can_be_folded(seed: int) -> None:
    chance = random.Random(seed)
    layers = [[f"t{layer}_{n}" for n in range(chance.choice((1, 3, 8, 30)))] for layer in range(5)]
    shape = tuple(
        (name, tuple({chance.choice(chance.choice(layers[:index])) for _ in range(3)}) if index else (), None)
        for index, layer in enumerate(layers)
        for name in layer
    )
    check(shape, lay_out(shape))
