"""Lives of the daemon's decisions, each with its own dags, faults and people: fixed seeds, and fresh ones each day."""

from collections import Counter
from datetime import UTC, date, datetime

import pytest

from fluxd.core.spec import DagSpec, Schedule
from fluxd.core.timetable import make_timetable
from tests.sim.__main__ import live, seed_of_the_day
from tests.sim.calendar import ticks
from tests.sim.violation import Violation
from tests.sim.world import World

FIXED = 600
FRESH = 400
SLICES = 10
# What earlier versions failed on.
REMEMBERED = (
    11436,
    17787,
    103550,
    110330,
    134010,
    70355,
    70485,
    7399450690,
    1580,
    1908,
    41494,
    661200880,
    184400552,
    284401638,
    184401772,
)


def lives(first: int, count: int) -> None:
    for seed in range(first, first + count):
        live(seed)


@pytest.mark.parametrize("part", range(SLICES))
def test_nothing_breaks_the_rules(part: int) -> None:
    lives(1 + part * FIXED // SLICES, FIXED // SLICES)


@pytest.mark.parametrize("part", range(SLICES))
def test_nothing_breaks_the_rules_in_lives_that_nobody_has_seen(part: int) -> None:
    first = seed_of_the_day(date.today())
    print(f"fresh seeds from {first}: make sim SEED={first} N={FRESH}")
    lives(first + part * FRESH // SLICES, FRESH // SLICES)


@pytest.mark.parametrize("seed", REMEMBERED)
def test_what_failed_once_does_not_fail_again(seed: int) -> None:
    live(seed)


def test_a_seed_replays_step_for_step() -> None:
    for seed in (3, 5, 8):
        assert live(seed, traced=True).digest.digest() == live(seed, traced=True).digest.digest()


def test_the_faults_are_there() -> None:
    faults: Counter[str] = Counter()
    for seed in range(1, 200):
        faults += live(seed).faults
    assert set(faults) >= {
        "clock set back",
        "clock set forward",
        "commit repeated",
        "commit without an answer",
        "connection broken",
        "crash before the save",
        "crash between save and commands",
        "crash between two commands",
        "machine asleep",
        "message late",
        "message repeated",
        "no answer",
        "runner died",
        "start repeated",
        "statement failed",
        "statement refused",
    }


def test_a_violation_is_never_swallowed() -> None:
    world = World(3)
    at_the_end = world.oracle.at_the_end

    def broken(fluxd: object) -> None:
        at_the_end(fluxd)  # type: ignore[arg-type]
        raise Violation("on purpose")

    world.oracle.at_the_end = broken  # type: ignore[assignment, method-assign]
    with pytest.raises(Violation, match="on purpose"):
        world.live()


EXPRESSIONS = (
    "*/10 * * * *",
    "0 * * * *",
    "*/7 1-4 * * *",
    "30 2 * * *",
    "15,45 2,3 * * 6,0",
    "0 0 1 * 1",
    "59 23 31 * *",
)
NIGHTS = (
    ("Europe/Berlin", 2025, 3, 30),
    ("Europe/Berlin", 2025, 10, 26),
    ("America/New_York", 2025, 11, 2),
    ("Australia/Lord_Howe", 2025, 4, 6),
    ("Australia/Lord_Howe", 2025, 10, 5),
    ("UTC", 2026, 1, 1),
)


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("night", NIGHTS)
@pytest.mark.parametrize("dst", ("shift", "skip", "both"))
def test_two_timetables_agree(expression: str, night: tuple[str, int, int, int], dst: str) -> None:
    zone, *day = night
    spec = DagSpec("d", schedule=Schedule("cron", expression), timezone=zone, dst=dst)
    first = datetime(*day, tzinfo=UTC).replace(hour=0)
    low, high = first.replace(hour=0), first.replace(hour=23)
    timetable, found = make_timetable(spec), []
    due = timetable.due_from(low)
    while due is not None and due <= high:
        found.append(due)
        due = timetable.due_after(due)
    assert found == ticks(spec, low, high)
