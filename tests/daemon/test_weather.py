"""The weather pipeline, all 1,461 days of it, through a real fluxd; and once more with fluxd killed in the middle."""

import asyncio
import csv
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from fluxd.store.embedded import Embedded
from tests.fluxd_process import ROOT, Daemon

DAGS = ROOT / "etc" / "dags"
DAYS = 1461
TASKS = ("arrived", "extract", "load", "check", "report")
PATIENCE_S = 600.0

# The same pipeline under another name, into an empty table. Each load first notes its attempt in a file of its own:
# a witness that depends neither on Flux's records nor on the table.
AGAIN = """
import os
import weather

plain_upsert = weather.upsert


async def upsert(db, table, day):
    line = " ".join([day["day"], os.environ["FLUX_RUN_ID"], os.environ["FLUX_TRY_NUMBER"], os.environ["FLUX_FENCE"]])
    journal = os.open({journal!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(journal, (line + "\\n").encode())
    os.close(journal)
    await plain_upsert(db, table, day)


weather.upsert = upsert
again = weather.make_dag("weather_again", table="observation_again")
"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon(dags=DAGS) as running:
        yield running


def lines() -> list[dict[str, str]]:
    with (DAGS / "data" / "seattle-weather.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def in_weather(daemon: Daemon, ask: Callable[[asyncpg.Connection], Awaitable[Any]]) -> Any:
    """Ask the database `weather` of the daemon's own server."""

    async def connected() -> Any:
        db = await asyncpg.connect(Embedded(daemon.home).url("weather"))
        try:
            return await ask(db)
        finally:
            await db.close()

    return asyncio.run(connected())


def assert_all_there_once(daemon: Daemon, table: str) -> None:
    """Every line of the file is one row of the table, and the totals are those of the file."""
    rows = in_weather(daemon, lambda db: db.fetch(f"SELECT * FROM {table} ORDER BY day"))
    expected = lines()
    assert [f"{row['day']:%Y/%m/%d}" for row in rows] == [line["date"] for line in expected]
    for name in ("precipitation", "temp_max", "temp_min", "wind"):
        assert sum(row[name] for row in rows) == pytest.approx(sum(float(line[name]) for line in expected))
    assert Counter(row["weather"] for row in rows) == Counter(line["weather"] for line in expected)


def months() -> list[str]:
    return sorted({line["date"][:7].replace("/", "-") for line in lines()})


def assert_reports(folder: Path) -> None:
    """A text and a plot for each of the 48 months, and nothing half-written beside them."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{m}{s}" for m in months() for s in (".svg", ".txt")
    )
    for month in months():
        days = [line for line in lines() if line["date"].startswith(month.replace("-", "/"))]
        rain = sum(float(line["precipitation"]) for line in days)
        assert f"rain      {rain:.1f} mm in all" in (folder / f"{month}.txt").read_text()
        picture = ElementTree.parse(folder / f"{month}.svg").getroot()
        assert sum(1 for title in picture.iter("{http://www.w3.org/2000/svg}title")) == len(days)


def test_one_day_by_hand(daemon: Daemon) -> None:
    """The dag is paused, and a day that is asked for runs all the same."""
    assert daemon.until_known("weather")["paused"]
    run_id = daemon.trigger("weather", logical_date="2014-07-04")
    run = daemon.wait("weather", run_id)
    assert run["state"] == "success", run
    states = {task["task_id"]: task["state"] for task in run["tasks"]}
    assert states == dict.fromkeys(TASKS[:4], "success") | {"report": "skipped"}
    row = in_weather(daemon, lambda db: db.fetchrow("SELECT * FROM observation"))
    assert (f"{row['day']}", row["temp_max"], row["weather"]) == ("2014-07-04", 23.9, "sun")


def test_catch_up_of_four_years(daemon: Daemon) -> None:
    daemon.until_known("weather")
    before = len(daemon.all("/dags/weather/runs"))
    daemon.post("/dags/weather/unpause")
    ended = daemon.finished_runs("weather", DAYS + before, PATIENCE_S)
    assert set(ended.values()) == {"success"}
    scheduled = [run for run in daemon.all("/dags/weather/runs") if run["run_type"] == "scheduled"]
    assert sorted(run["logical_date"][:10].replace("-", "/") for run in scheduled) == [line["date"] for line in lines()]
    assert_all_there_once(daemon, "observation")
    assert_reports(daemon.home / "reports" / "weather")


def test_killed_in_the_middle_of_a_catch_up(daemon: Daemon) -> None:
    """kill -9: after the restart every day ends, each row is there once, and no attempt was started twice."""
    journal = daemon.folder / "journal"
    daemon.write("again.py", AGAIN.format(journal=str(journal)))
    daemon.until_known("weather_again")
    daemon.post("/dags/weather_again/unpause")
    ended = daemon.finished_runs("weather_again", 300, PATIENCE_S)
    assert len(ended) < DAYS
    daemon.kill()
    daemon.start()
    ended = daemon.finished_runs("weather_again", DAYS, PATIENCE_S)
    assert len(ended) == DAYS
    assert set(ended.values()) == {"success"}
    assert_all_there_once(daemon, "observation_again")
    assert_reports(daemon.home / "reports" / "weather_again")
    noted = [line.split() for line in journal.read_text().splitlines()]
    assert sorted(day.replace("-", "/") for day, _, _, _ in noted) == [line["date"] for line in lines()]
    assert {number for _, _, number, _ in noted} == {"1"}
    assert len({fence for _, _, _, fence in noted}) == DAYS
