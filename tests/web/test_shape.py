"""Where things stand on a page, in a real browser: what no reader of the markup would see go wrong."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.web.browser import Page
from tests.web.example_data import SAMPLES, fill
from tests.web.serving import Served

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)
SALES = next(sample for sample in SAMPLES if sample.dag_id == "sales")

# The middle of each bar that is seen, and of the signs in each row of the grid.
COLUMNS = """(() => {
  const middle = (box) => Math.round((box.left + box.right) * 5) / 10;
  const bars = [...document.querySelectorAll('.grid .hit')].map((bar) => middle(bar.getBoundingClientRect()));
  const rows = [...document.querySelectorAll('.grid tbody tr:has(td a)')].map((row) =>
    [...row.querySelectorAll('td a .i')].map((sign) => middle(sign.getBoundingClientRect())));
  const alike = (row) => row.length === bars.length && row.every((x, n) => Math.abs(x - bars[n]) < 0.6);
  return rows.length > 0 && rows.every(alike);
})()"""


@pytest.mark.parametrize("runs", [1, 3, 40])
async def test_each_bar_stands_over_its_column(page: Page, served: Served, tmp_path: Path, runs: int) -> None:
    sample = replace(SALES, dag_id=f"sales_{runs}", history="", runs=runs)
    await served.state.db.read.execute("TRUNCATE run, dag, dag_file CASCADE")
    await fill(served.state.db, tmp_path / "more", NOW, [sample])
    for width in (1440, 390):
        await page.view(width, 844, mobile=width < 500)
        await page.go(f"{served.url}/dags/{sample.dag_id}")
        assert await page.run(COLUMNS), width
        # Beside the names, and no column cut in two.
        names = "document.querySelector('.grid th.task').getBoundingClientRect()"
        assert await page.run(f"{names}.left - document.querySelector('.panel h2').getBoundingClientRect().left") == 0
        assert await page.run("document.querySelector('.grid-room').clientWidth % 17") == 0


@pytest.mark.parametrize("width", [1440, 1281, 1280, 1101, 1100, 900, 761, 390])
async def test_the_cause_of_a_failure_has_room_at_every_width(page: Page, served: Served, width: int) -> None:
    await page.view(width, 900)
    await page.go(f"{served.url}/dags")
    assert await page.run("document.querySelector('tr[data-id=sales] .c-cause').clientWidth") >= 220
    assert await page.run("document.documentElement.scrollWidth <= innerWidth")


async def test_broken_files_show_a_cause_and_that_there_are_more(page: Page, served: Served) -> None:
    for width in (1440, 390):
        await page.view(width, 844, mobile=width < 500)
        await page.go(f"{served.url}/dags")
        for what, words in (("first", "has a cycle"), ("more", "and 1 more")):
            seen = f"document.querySelector('.banner .{what}')"
            assert words in await page.run(f"{seen}.textContent")
            assert await page.run(f"{seen}.getBoundingClientRect().height > 10 && {seen}.getClientRects().length > 0")
        await page.run("document.querySelector('.banner summary').click()")
        assert await page.run("document.querySelector('.banner li').getBoundingClientRect().height") > 0


async def test_a_name_stays_in_sight_when_its_hidden_tags_are_reached(page: Page, served: Served) -> None:
    await page.view(1110, 900)
    await page.go(f"{served.url}/dags")
    name = "document.querySelector('tr[data-id=sales] .c-name')"
    await page.run(f"{name}.querySelector('.primary').textContent = 'a_very_long_name_of_a_dag_that_leaves_no_room'")
    await page.run(f"[...{name}.querySelectorAll('.tag')].at(-1).focus()")
    assert await page.run(f"{name}.scrollLeft") == 0
    left = f"{name}.querySelector('.primary').getBoundingClientRect().left"
    assert await page.run(f"{left} >= {name}.getBoundingClientRect().left")


async def test_a_phone_shows_the_way_up(page: Page, served: Served) -> None:
    run = await served.state.db.read.fetchval("SELECT max(run_id) FROM run WHERE dag_id = 'sales' AND state = 'failed'")
    await page.view(390, 844, mobile=True)
    seen = "[...document.querySelectorAll('.top nav a')].filter((a) => a.getClientRects().length)"
    up = f"{seen}.map((a) => a.textContent)"
    await page.go(f"{served.url}/dags/sales/runs/{run}/tasks/load")
    assert await page.run(up) == ["Dags", "sales", run]
    await page.go(f"{served.url}/dags/sales/runs/{run}")
    assert await page.run(up) == ["Dags", "sales"]


async def test_a_running_task_is_stopped_only_after_a_question(page: Page, served: Served) -> None:
    run = await served.state.db.read.fetchval(
        "SELECT max(run_id) FROM run WHERE dag_id = 'sales' AND state = 'running'"
    )
    await page.go(f"{served.url}/dags/sales/runs/{run}/tasks/load")
    button = "document.querySelector('[data-stop] form button')"
    assert not await page.run(f"{button}.checkVisibility()")
    await page.run("document.querySelector('[data-stop] summary').click()")
    assert await page.run(f"{button}.checkVisibility()")
    assert not served.posted
