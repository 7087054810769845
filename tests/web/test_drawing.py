"""A dag's picture never holds the daemon up: big ones come from a process that is ended at its deadline."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from fluxd.store.dags import store_load
from fluxd.web.drawing import SMALL, Drawings, weight
from fluxd.web.graph import Shape, lay_out
from tests.web.example_data import SAMPLES, fill
from tests.web.serving import Served
from tests.web.test_graph import chain, check

pytestmark = pytest.mark.anyio


def irregular(tasks: int, edges: int) -> Shape:
    chance = random.Random(tasks)
    upstreams: list[list[str]] = [[] for _ in range(tasks)]
    while edges:
        one, other = sorted(chance.sample(range(tasks), 2))
        if f"t{one}" not in upstreams[other]:
            upstreams[other].append(f"t{one}")
            edges -= 1
    return tuple((f"t{index}", tuple(ups), None) for index, ups in enumerate(upstreams))


def drawing_processes() -> list[int]:
    """Our children that draw."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"fluxd.web.drawing" in (entry / "cmdline").read_bytes():
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                found += [int(entry.name)] if int(parent) == os.getpid() else []
        except OSError:
            continue
    return found


@pytest.fixture
async def drawings() -> AsyncIterator[Drawings]:
    made = Drawings()
    yield made
    await made.close()


@pytest.mark.parametrize(
    "shape", [chain(3), chain(SMALL), irregular(80, 120), (*chain(90), ("lone", (), None), ("b", ("lone",), "group"))]
)
async def test_a_process_draws_what_would_be_drawn_here(drawings: Drawings, shape: Shape) -> None:
    assert await drawings.of(shape) == lay_out(shape)


async def test_what_takes_too_long_is_drawn_plainly_and_its_process_is_gone() -> None:
    drawings, shape = Drawings(deadline_s=0.2), irregular(1000, 4000)
    layout = await drawings.of(shape)
    assert layout.plain
    check(shape, layout)
    assert drawing_processes() == []
    assert await drawings.of(shape) is layout  # that it takes too long is not tried out again


async def test_one_drawing_serves_all_who_ask_for_it(drawings: Drawings) -> None:
    shape = irregular(100, 130)
    asked = [asyncio.create_task(drawings.of(shape)) for _ in range(5)]
    while not drawing_processes():
        await asyncio.sleep(0)
    assert len(drawing_processes()) == 1
    asked[0].cancel()  # its reader went away
    first, *others = await asyncio.gather(*asked[1:])
    assert all(other is first for other in others)


async def test_the_end_of_the_daemon_waits_for_no_drawing() -> None:
    drawings = Drawings(deadline_s=600)
    asked = asyncio.create_task(drawings.of(irregular(1000, 4000)))
    while not drawing_processes():
        await asyncio.sleep(0)
    await drawings.close()
    assert drawing_processes() == []
    with pytest.raises(asyncio.CancelledError):
        await asked


async def test_few_pictures_are_kept(drawings: Drawings) -> None:
    small, shapes = Drawings(kept=100), [chain(10, f"{name}_") for name in "abcdefgh"]
    layouts = [await small.of(shape) for shape in shapes]
    assert await small.of(shapes[-1]) is layouts[-1]
    again = await small.of(shapes[0])
    assert again == layouts[0] and again is not layouts[0]
    one = Drawings(kept=1)  # one is always kept
    assert await one.of(shapes[0]) is await one.of(shapes[0])


async def test_the_page_says_that_it_is_drawn_plainly(
    served: Served, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    await served.login(http)
    shape = irregular(1000, 4000)
    assert weight(shape) == 5000
    tasks = [{"task_id": task_id, "operator": "X", "upstream": list(upstream)} for task_id, upstream, _ in shape]
    await store_load(served.state.db.writer, "big.py", "b", {"big.py": "#"}, [{"dag_id": "big", "tasks": tasks}], 0.1)
    await fill(served.state.db, tmp_path / "logs", datetime.now(UTC), [one for one in SAMPLES if one.dag_id == "sales"])
    said = "drawn plainly: the picture would have taken too long"
    for dag_id, plainly in (("big", True), ("sales", False)):
        async with http.get(f"{served.url}/dags/{dag_id}") as response:
            text = await response.text()
            assert response.status == 200
            assert (said in text) == plainly
            assert (text.count('class="edge"') == 4000) == plainly
