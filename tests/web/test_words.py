"""Times and durations in words; the page's clock says them alike."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from fluxd.web import words
from fluxd.web.static_files import FOLDER

NOW = datetime(2026, 11, 23, 11, 40, tzinfo=UTC)
DURATIONS = [
    (0, "0.00 s"),
    (0.04, "0.04 s"),
    (0.996, "1.0 s"),
    (9.94, "9.9 s"),
    (9.96, "10 s"),
    (59.4, "59 s"),
    (59.6, "1 m"),
    (200, "3 m 20 s"),
    (300, "5 m"),
    (3599.9, "1 h"),
    (7500, "2 h 05 m"),
    (86399, "1 d"),
    (275_000, "3 d 04 h"),
    (-3, "0.00 s"),
]
RELATIVE = [
    (0, "now"),
    (12, "in 12 s"),
    (-59, "59 s ago"),
    (-59.7, "1 min ago"),
    (2400, "in 40 min"),
    (3580, "in 1 h"),
    (12_000, "in 3 h 20 m"),
    (84_500, "in 23 h 28 m"),
    (-12_000, "3 h ago"),
    (-86_000, "1 day ago"),
    (-200_000, "2 days ago"),
]


@pytest.mark.parametrize(("seconds", "said"), DURATIONS)
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(("seconds", "said"), RELATIVE)
def test_relative(seconds: float, said: str) -> None:
    assert words.relative(NOW + timedelta(seconds=seconds), NOW) == said


@pytest.mark.parametrize(
    ("at", "zone", "said"),
    [
        (datetime(2026, 11, 23, 17, tzinfo=UTC), "UTC", "today 17:00"),
        (datetime(2026, 11, 23, 23, 30, tzinfo=UTC), "Europe/Paris", "tomorrow 00:30"),
        (datetime(2026, 11, 22, 6, 0, 5, tzinfo=UTC), "UTC", "yesterday 06:00:05"),
        (datetime(2026, 11, 27, 6, tzinfo=UTC), "UTC", "Fri 06:00"),
        (datetime(2026, 11, 30, 6, tzinfo=UTC), "UTC", "30 Nov 06:00"),
        (datetime(2028, 1, 2, 6, tzinfo=UTC), "UTC", "2028-01-02 06:00"),
        (datetime(2026, 11, 23, 17, tzinfo=UTC), "Mars/Olympus", "today 17:00"),
    ],
)
def test_when(at: datetime, zone: str, said: str) -> None:
    assert words.when(at, zone, NOW) == said


def test_stretches() -> None:
    day = datetime(2026, 1, 1, tzinfo=UTC)
    six = day + timedelta(hours=6)
    paris, berlin = "Europe/Paris", "Europe/Berlin"
    assert words.stretch(day, day + timedelta(days=1), "UTC") == "2026-01-01 → 2026-01-02 UTC"
    assert words.stretch(six, six + timedelta(days=1), "UTC") == "2026-01-01 06:00 → 2026-01-02 06:00 UTC"
    assert words.stretch(six, six + timedelta(hours=1), "UTC", "UTC") == "2026-01-01 06:00 → 07:00"
    assert words.stretch(six, day + timedelta(days=3), paris, "UTC") == "2026-01-01 07:00 → 2026-01-04 01:00 Paris"
    assert words.stretch(six, six, paris) == "2026-01-01 07:00 Paris"
    assert words.stretch(six, six, paris, berlin) == "2026-01-01 07:00"  # their clocks agree
    assert words.days(day, day + timedelta(days=40), "UTC", "UTC") == "1 Jan 00:00 – 10 Feb 2026 00:00"
    assert words.days(day - timedelta(days=1), day, "UTC") == "31 Dec 2025 00:00 – 1 Jan 2026 00:00 UTC"
    assert words.days(day, six, "UTC", "UTC") == "1 Jan 2026, 00:00 – 06:00"
    summer = datetime(2026, 7, 1, tzinfo=UTC)
    assert [words.beside(at, "Europe/London", "UTC") for at in (day, summer)] == ["", " London"]


def test_counts_and_sizes() -> None:
    assert words.counted(1, "task") == "1 task"
    assert words.counted(12_345, "run") == "12\u202f345 runs"
    assert [words.size(count) for count in (0, 999, 1229, 209_715_200)] == ["0 B", "999 B", "1.2 KiB", "200 MiB"]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
def test_the_clock_of_the_page_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "clock.mjs").write_text((FOLDER / "clock.js").read_text())
    (tmp_path / "run.mjs").write_text(
        "import { duration, relative } from './clock.mjs'; import { readFileSync } from 'node:fs';"
        "const [long, near] = JSON.parse(readFileSync(0));"
        "process.stdout.write(JSON.stringify([long.map(duration), near.map((s) => relative(1e12 + s * 1000, 1e12))]));"
    )
    whole = [(seconds, said) for seconds, said in DURATIONS if seconds >= 9.96]
    result = subprocess.run(
        ["node", str(tmp_path / "run.mjs")],
        input=orjson.dumps([[seconds for seconds, _ in whole], [seconds for seconds, _ in RELATIVE]]),
        capture_output=True,
        check=True,
    )
    assert orjson.loads(result.stdout) == [[said for _, said in whole], [said for _, said in RELATIVE]]


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({}, "any value"),
        ({"type": "integer", "minimum": 0, "maximum": 10, "required": True}, "integer, 0 to 10, needed"),
        ({"type": ["string", "null"], "maxLength": 3}, "string or null, at most 3 characters"),
        ({"enum": ["eu", 1]}, 'any value, one of "eu", 1'),
        ({"type": "string", "format": "date", "pattern": "^2"}, "string, matches ^2, date"),
    ],
)
def test_what_a_param_may_be(schema: dict[str, object], said: str) -> None:
    assert words.allowed(schema) == said


def test_the_times_of_machines_are_said_as_people_say_them() -> None:
    text = "the next begins at 2026-11-23T14:32:38.560688Z, until 2026-11-24T06:00:00Z at most"
    assert (
        words.with_times(text, "UTC", NOW) == "the next begins at today 14:32:38 UTC, until tomorrow 06:00 UTC at most"
    )
    assert words.with_times("at 2026-99-23T14:32:38Z", "UTC", NOW) == "at 2026-99-23T14:32:38Z"
