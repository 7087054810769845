"""Four years of weather in Seattle, one day at a time: a file is awaited, read, loaded, checked and reported on.

    arrived ──▶ extract ──▶ load ──▶ check ──▶ report

- *arrived* waits until the day's line is in the file. Nothing runs meanwhile: the daemon itself looks.
- *extract* reads the line and hands the values on.
- *load* puts them into Postgres. The same day again replaces its row and never doubles it.
- *check* reads the row back and compares it with the file.
- *report* writes a text and a plot when the month is complete; on all other days it is skipped.

The dag starts paused. One day by hand, and then all 1,461 of them:

    fluxctl dags trigger weather --logical-date 2014-07-04 --wait
    fluxctl dags unpause weather
"""

import calendar
import csv
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import asyncpg

from fluxd import DAG, SkipTask, task
from fluxd.sensors import FileSensor

FILE = Path(__file__).parent / "data" / "seattle-weather.csv"
COLUMNS = ("precipitation", "temp_max", "temp_min", "wind", "weather")


def make_dag(dag_id: str, table: str) -> DAG:
    """The pipeline under a name of your choice, into a table of your choice."""
    # The file has calendar dates and no clock. In UTC a day always has 24 hours, and `ds` is the date of the line.
    with DAG(
        dag_id,
        schedule="@daily",
        start_date="2012-01-01",
        end_date="2015-12-31",
        timezone="UTC",
        catchup=True,
        is_paused_upon_creation=True,
        default_args={"retries": 2, "retry_delay": "5s"},
        description="Daily weather of Seattle, 2012 to 2015, into Postgres, with a report per month",
        tags=["example", "postgres"],
        doc_md=__doc__,
    ) as dag:
        arrived = FileSensor(task_id="arrived", path=str(FILE), contains="{{ ds | replace('-', '/') }},", timeout="1h")
        day = extract()
        arrived >> day
        load(day, table) >> check(table) >> report(table, folder=dag_id)
    return dag


# ------------------------------------------------------------------- the tasks; `ds` is filled in: the day of the run


@task
def extract(ds: str) -> dict[str, Any]:
    """The values of one day."""
    day = read_day(ds)
    print(f"{ds}: {in_words(day)}")
    return day


@task
async def load(day: dict[str, Any], table: str) -> None:
    """Put the day into the table. However often that happens, there is one row."""
    async with database(table) as db:
        await upsert(db, table, day)


@task
async def check(table: str, ds: str) -> None:
    """The row in the table must be the line in the file."""
    async with database(table) as db:
        row = await db.fetchrow(f"SELECT * FROM {table} WHERE day = $1", date.fromisoformat(ds))
    expected = read_day(ds)
    assert row is not None, f"{ds} is not in {table}"
    found = {"day": row["day"].isoformat(), **{name: row[name] for name in COLUMNS}}
    assert found == expected, f"{table} has {found}, {FILE.name} has {expected}"


@task
async def report(table: str, folder: str, ds: str) -> str:
    """Write the month's report once all its days are there, whichever of them came last. Returns the text's path."""
    month = date.fromisoformat(ds).replace(day=1)
    length = calendar.monthrange(month.year, month.month)[1]
    async with database(table) as db:
        days = await db.fetch(
            f"SELECT * FROM {table} WHERE day BETWEEN $1 AND $2 ORDER BY day", month, month.replace(day=length)
        )
    if len(days) < length:
        raise SkipTask(f"{month:%B %Y} has {len(days)} of {length} days so far")
    reports = Path(os.environ.get("FLUX_HOME", ".")) / "reports" / folder
    reports.mkdir(parents=True, exist_ok=True)
    text = reports / f"{month:%Y-%m}.txt"
    publish(text, summary(month, days))
    publish(text.with_suffix(".svg"), plot(month, days))
    print(text)
    return str(text)


# ------------------------------------------------------------------------------------------------ the file, the table


def read_day(ds: str) -> dict[str, Any]:
    """The line of a day (`2014-07-04`) as values: millimetres, degrees Celsius, metres per second, a word."""
    with FILE.open(newline="") as file:
        line = next(line for line in csv.DictReader(file) if line["date"] == ds.replace("-", "/"))
    return {"day": ds, **{name: line[name] if name == "weather" else float(line[name]) for name in COLUMNS}}


@asynccontextmanager
async def database(table: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the database `weather`, with the table in it. Both are made when they are missing."""
    server = os.environ.get("FLUX_CONN_EMBEDDED")
    if not server:
        raise RuntimeError("Name a Postgres server in FLUX_CONN_EMBEDDED; fluxd does so when it runs its own.")
    try:
        db = await asyncpg.connect(server, database="weather")
    except asyncpg.InvalidCatalogNameError:
        await create_database(server)
        db = await asyncpg.connect(server, database="weather")
    try:
        if await db.fetchval("SELECT to_regclass($1)", table) is None:
            await create_table(db, table)
        yield db
    finally:
        await db.close()


# Many days may find nothing there at the same moment. An advisory lock lets one of them create it and the others wait.
LOCK = "SELECT pg_advisory_lock(hashtext('weather example'))"


async def create_database(server: str) -> None:
    db = await asyncpg.connect(server)
    try:
        await db.execute(LOCK)
        if not await db.fetchval("SELECT 1 FROM pg_database WHERE datname = 'weather'"):
            await db.execute("CREATE DATABASE weather")
    finally:
        await db.close()


async def create_table(db: asyncpg.Connection, table: str) -> None:
    await db.execute(LOCK)  # released when the connection is closed
    await db.execute(
        f"""CREATE TABLE IF NOT EXISTS {table} (
            day date PRIMARY KEY,
            precipitation float NOT NULL,
            temp_max float NOT NULL,
            temp_min float NOT NULL,
            wind float NOT NULL,
            weather text NOT NULL)"""
    )


async def upsert(db: asyncpg.Connection, table: str, day: dict[str, Any]) -> None:
    await db.execute(
        f"""INSERT INTO {table} (day, precipitation, temp_max, temp_min, wind, weather)
            VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (day) DO UPDATE SET precipitation = excluded.precipitation, temp_max = excluded.temp_max,
                temp_min = excluded.temp_min, wind = excluded.wind, weather = excluded.weather""",
        date.fromisoformat(day["day"]),
        *(day[name] for name in COLUMNS),
    )


# --------------------------------------------------------------------------------------------------------- the report


def publish(path: Path, text: str) -> None:
    """Write it whole or not at all: a reader never sees half a report, and two writers never mix theirs."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def in_words(day: Any) -> str:
    rain = f"{day['precipitation']:.1f} mm" if day["precipitation"] else "dry"
    return f"{day['weather']}, {day['temp_min']:.1f} to {day['temp_max']:.1f} °C, {rain}, wind {day['wind']:.1f} m/s"


def summary(month: date, days: list[Any]) -> str:
    """The month in a dozen lines."""
    hottest, coldest = max(days, key=lambda d: d["temp_max"]), min(days, key=lambda d: d["temp_min"])
    wettest, windiest = max(days, key=lambda d: d["precipitation"]), max(days, key=lambda d: d["wind"])
    mean = sum(d["temp_max"] + d["temp_min"] for d in days) / 2 / len(days)
    kinds = ", ".join(f"{kind} {count}" for kind, count in Counter(d["weather"] for d in days).most_common())
    title = f"Seattle, {month:%B %Y}"
    lines = (
        ("days", f"{len(days)} ({kinds})"),
        ("mean", f"{mean:.1f} °C"),
        ("hottest", f"{hottest['temp_max']:.1f} °C on {hottest['day']}"),
        ("coldest", f"{coldest['temp_min']:.1f} °C on {coldest['day']}"),
        ("rain", f"{sum(d['precipitation'] for d in days):.1f} mm in all"),
        ("wettest", f"{wettest['precipitation']:.1f} mm on {wettest['day']}"),
        ("windiest", f"{windiest['wind']:.1f} m/s on {windiest['day']}"),
    )
    return "\n".join([title, "=" * len(title), "", *(f"{name:<10}{value}" for name, value in lines), ""])


COLOURS = {"sun": "#e3a11b", "fog": "#98a3ad", "drizzle": "#79b4dc", "rain": "#2a6db0", "snow": "#8d7bd6"}
STYLE = """
    text { font: 12px system-ui, sans-serif; fill: #4a5560 } .title { font-size: 16px; font-weight: 600 }
    .grid { stroke: #d9dee3 } .paper { fill: #fff }
    @media (prefers-color-scheme: dark) {
        text { fill: #b4bec8 } .grid { stroke: #39424b } .paper { fill: #14181c } }"""


def plot(month: date, days: list[Any]) -> str:
    """The month as SVG: a bar from each day's lowest to its highest temperature, in the colour of its weather, and
    the rain below."""
    left, step, top, middle, bottom = 56, 24, 60, 300, 400
    right = left + step * len(days)
    low = min(0, min(d["temp_min"] for d in days) // 5 * 5)
    high = max(d["temp_max"] for d in days) // 5 * 5 + 5
    most_rain = max(10.0, max(d["precipitation"] for d in days))

    def y(degrees: float) -> float:
        return middle - (degrees - low) / (high - low) * (middle - top)

    parts = [f'<text class="title" x="{left}" y="28">Seattle, {month:%B %Y}</text>']
    for number, (kind, colour) in enumerate(COLOURS.items()):
        x = right - 70 * (len(COLOURS) - number)
        parts.append(f'<rect x="{x}" y="18" width="10" height="10" rx="2" fill="{colour}"/>')
        parts.append(f'<text x="{x + 15}" y="28">{kind}</text>')
    for degrees in range(int(low), int(high) + 1, 5):
        parts.append(f'<path class="grid" d="M{left} {y(degrees):.1f}H{right}"/>')
        parts.append(f'<text x="{left - 8}" y="{y(degrees) + 4:.1f}" text-anchor="end">{degrees}°</text>')
    for wet, label in ((0.0, "0"), (most_rain, f"{most_rain:.0f} mm")):
        height = bottom - wet / most_rain * 70
        parts.append(f'<path class="grid" d="M{left} {height:.1f}H{right}"/>')
        parts.append(f'<text x="{left - 8}" y="{height + 4:.1f}" text-anchor="end">{label}</text>')
    for number, day in enumerate(days):
        x = left + step * number + 5
        warm, cold, wet = y(day["temp_max"]), y(day["temp_min"]), day["precipitation"] / most_rain * 70
        bar = f'<rect x="{x}" y="{warm:.1f}" width="14" height="{max(2, cold - warm):.1f}" rx="4"'
        parts.append(f'{bar} fill="{COLOURS[day["weather"]]}"><title>{day["day"]}: {in_words(day)}</title></rect>')
        parts.append(f'<rect x="{x}" y="{bottom - wet:.1f}" width="14" height="{wet:.1f}" fill="{COLOURS["rain"]}"/>')
        parts.append(f'<text x="{x + 7}" y="{bottom + 18}" text-anchor="middle">{number + 1}</text>')
    size = f'width="{right + 24}" height="{bottom + 36}" viewBox="0 0 {right + 24} {bottom + 36}"'
    body = "\n".join(parts)
    paper = '<rect class="paper" width="100%" height="100%"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>\n{paper}\n{body}\n</svg>\n'


weather = make_dag("weather", table="observation")
