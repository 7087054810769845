"""Ticks against a walk through every minute, in zones whose clocks do all that clocks do."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxd.core.cron import PRESETS, Cron, read_cron
from fluxd.core.spec import DagSpec, Schedule
from fluxd.core.ticks import CronTicks, IntervalTicks
from fluxd.core.timetable import make_timetable, next_runs, seconds_in_words, validate_schedule, words
from fluxd.errors import Invalid

MINUTE = timedelta(minutes=1)


def walk(cron: Cron, zone: ZoneInfo, dst: str, first: datetime, last: datetime) -> list[datetime]:
    """Every tick from `first` to `last`: all minutes of the wall calendar around them, each asked what it is."""
    found: set[datetime] = set()
    day = first.replace(tzinfo=None, hour=0) - timedelta(days=3)
    while day <= last.replace(tzinfo=None) + timedelta(days=3):
        if cron.fits(day.date()):
            for minute in range(24 * 60):
                if minute * 60 in cron.times:
                    found.update(instants(cron, zone, dst, day + minute * MINUTE))
        day += timedelta(days=1)
    return sorted(at for at in found if first <= at <= last)


def instants(cron: Cron, zone: ZoneInfo, dst: str, wall: datetime) -> Iterator[datetime]:
    """The instants that a wall time stands for, found by going through UTC and back."""
    candidates = {wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    real = sorted(at for at in candidates if at.astimezone(zone).replace(tzinfo=None) == wall)
    if real:
        yield real[0]
        if cron.every_hour or dst == "both":
            yield from real[1:]
    elif not cron.every_hour and dst != "skip":
        yield max(candidates)  # the offset of before the gap, which makes it later by the gap


NIGHTS = [
    ("Europe/Berlin", datetime(2025, 3, 29, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2025, 10, 25, tzinfo=UTC)),
    ("America/New_York", datetime(2025, 3, 8, tzinfo=UTC)),
    ("America/New_York", datetime(2025, 11, 1, tzinfo=UTC)),
    ("America/Santiago", datetime(2025, 9, 6, tzinfo=UTC)),  # midnight does not exist
    ("America/Havana", datetime(2025, 11, 1, tzinfo=UTC)),  # half an hour past midnight comes twice
    ("America/Sao_Paulo", datetime(2018, 2, 17, tzinfo=UTC)),  # an hour before midnight comes twice
    ("Australia/Lord_Howe", datetime(2025, 4, 5, tzinfo=UTC)),  # half an hour back
    ("Australia/Lord_Howe", datetime(2025, 10, 4, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 29, tzinfo=UTC)),  # a day that never was
    ("Pacific/Kwajalein", datetime(1993, 8, 20, tzinfo=UTC)),  # another
    ("Pacific/Chatham", datetime(2025, 4, 5, tzinfo=UTC)),
    ("America/St_Johns", datetime(2001, 10, 26, tzinfo=UTC)),  # back at one minute past midnight
    ("Africa/Casablanca", datetime(2025, 2, 22, tzinfo=UTC)),
    ("Antarctica/Troll", datetime(2025, 3, 29, tzinfo=UTC)),  # two hours
    ("Asia/Kathmandu", datetime(1985, 12, 31, tzinfo=UTC)),  # fifteen minutes, at New Year
    ("Europe/Dublin", datetime(2025, 10, 25, tzinfo=UTC)),
    ("UTC", datetime(2025, 3, 29, tzinfo=UTC)),
]
EXPRESSIONS = [
    "*/7 * * * *",
    "*/5 * * * *",
    "17 * * * *",
    "0 0 * * *",
    "30 2 * * *",
    "*/20 0-3 * * *",
    "45 */2 * * *",
    "15,45 1,2,3,23 * * 6,0",
    "59 23 L * *",
    "0 12 30 * 5",
]


@pytest.mark.parametrize("dst", ["shift", "skip", "both"])
@pytest.mark.parametrize(("zone", "start"), NIGHTS, ids=[f"{zone}-{start:%Y%m}" for zone, start in NIGHTS])
def test_ticks_around_a_change_of_the_clocks(zone: str, start: datetime, dst: str) -> None:
    last = start + timedelta(days=3)
    for expression in EXPRESSIONS:
        cron = read_cron(expression)
        ticks = CronTicks(cron, ZoneInfo(zone), dst)
        expected = walk(cron, ZoneInfo(zone), dst, start, last)
        found = []
        at = ticks.after(start - MINUTE)
        while at is not None and at <= last:
            found.append(at)
            at = ticks.after(at)
        assert [tick for tick in found if tick >= start] == expected, expression
        backwards = []
        at = ticks.before(last + MINUTE / 2)
        while at is not None and at >= start:
            backwards.append(at)
            at = ticks.before(at)
        assert backwards[::-1] == expected, expression
        assert ticks.count(start, last) == len(expected), expression


def croniter_days(expression: str, first: date, last: date) -> list[datetime]:
    """What croniter itself says, where no clock changes."""
    from croniter import croniter

    walker = croniter(expression, datetime(first.year, first.month, first.day, tzinfo=UTC) - MINUTE)
    found = []
    while (at := walker.get_next(datetime)).date() <= last:
        found.append(at)
    return found


@pytest.mark.parametrize(
    "expression",
    [
        "0 0 29 2 *",
        "0 0 31 * *",
        "0 0 L * *",
        "30 6 * * mon-fri",
        "0 0 * * sun",
        "0 0 * * 7",
        "0 0 13 * 5",
        "0 0 * * 1#2",
        "0 0 * * L5",
        "0 0 1-7 * 1",
        "0 9-17/4 */10 1,7 *",
        "5/15 3 * jan-mar *",
        "0 0 1,L * *",
        *(preset for preset in PRESETS if preset != "@hourly"),
    ],
)
def test_days_are_those_of_croniter(expression: str) -> None:
    first, last = date(2023, 12, 1), date(2029, 1, 31)
    ticks = CronTicks(read_cron(expression), ZoneInfo("UTC"), "shift")
    at = ticks.after(datetime(2023, 12, 1, tzinfo=UTC) - MINUTE)
    found = []
    while at is not None and at.date() <= last:
        found.append(at)
        at = ticks.after(at)
    assert found == croniter_days(PRESETS.get(expression, expression), first, last)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([zone for zone, _ in NIGHTS]),
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(["shift", "skip", "both"]),
    st.datetimes(datetime(1975, 1, 1), datetime(2099, 1, 1)),
)
def test_before_and_after_are_inverse(zone: str, expression: str, dst: str, moment: datetime) -> None:
    ticks = CronTicks(read_cron(expression), ZoneInfo(zone), dst)
    at = moment.replace(tzinfo=UTC)
    after = ticks.after(at)
    assert after is not None and after > at
    before = ticks.before(after)
    assert before is not None and before <= at
    assert ticks.after(before) == after
    assert ticks.count(before, after) == 2


def test_a_day_that_never_was_makes_no_phantom() -> None:
    ticks = CronTicks(read_cron("0 0 * * *"), ZoneInfo("Pacific/Apia"), "shift")
    at: datetime | None = datetime(2011, 12, 28, 12, tzinfo=UTC)
    local = []
    for _ in range(4):
        assert at is not None
        at = ticks.after(at)
        assert at is not None
        local.append(at.astimezone(ZoneInfo("Pacific/Apia")).strftime("%d %H:%M"))
    assert local == ["29 00:00", "31 00:00", "01 00:00", "02 00:00"]


def test_rare_days_are_found() -> None:
    ticks = CronTicks(read_cron("0 0 * 2 1#5"), ZoneInfo("UTC"), "shift")
    assert ticks.after(datetime(2080, 1, 1, tzinfo=UTC)) == datetime(2112, 2, 29, tzinfo=UTC)
    leap = CronTicks(read_cron("0 0 29 2 *"), ZoneInfo("UTC"), "shift")
    assert leap.after(datetime(2096, 3, 1, tzinfo=UTC)) == datetime(2104, 2, 29, tzinfo=UTC)


def test_intervals_count_from_their_anchor() -> None:
    anchor = datetime(2026, 1, 1, 0, 7, tzinfo=UTC)
    ticks = IntervalTicks(900.0, anchor)
    assert ticks.after(anchor) == anchor + timedelta(minutes=15)
    assert ticks.after(anchor - timedelta(seconds=1)) == anchor
    assert ticks.before(anchor) == anchor - timedelta(minutes=15)
    assert ticks.count(anchor, anchor + timedelta(hours=1)) == 5


def test_dates_of_a_dag_bound_the_starts() -> None:
    spec = DagSpec(
        "d",
        schedule=Schedule("cron", "0 0 * * *"),
        start_date=datetime(2026, 1, 1, 6, tzinfo=UTC),
        end_date=datetime(2026, 1, 4, tzinfo=UTC),
    )
    timetable = make_timetable(spec)
    due = timetable.due_after(datetime(2000, 1, 1, tzinfo=UTC))
    found = []
    while due is not None:
        found.append((timetable.covered(due)[0].day, due.day))
        due = timetable.due_after(due)
    assert found == [(2, 3), (3, 4), (4, 5)]
    assert timetable.latest_due(datetime(2030, 1, 1, tzinfo=UTC)) == datetime(2026, 1, 5, tzinfo=UTC)
    assert timetable.latest_due(datetime(2026, 1, 2, 12, tzinfo=UTC)) is None
    before_all = DagSpec("d", schedule=spec.schedule, start_date=spec.end_date, end_date=spec.start_date)
    assert make_timetable(before_all).due_after(datetime(2026, 1, 1, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("0 0 30 2 *", "FLX-1041: The cron expression '0 0 30 2 *' is never due, because no such day exists"),
        ("* * * *", "it has 4 fields; write five fields, minute hour day month weekday"),
        ("0 0 0 0 * * *", "it has 7 fields"),
        ("1-0 * * * *", "its minute range 1-0 runs backwards"),
        ("0 22-2 * * *", "its hour range 22-2 runs backwards"),
        ("60 * * * *", "its minute 60 is not one of 0 to 59"),
        ("0 6,24 * * *", "its hour 24 is not one of 0 to 23"),
        ("0 0 1-32/2 * *", "its day 32 is not one of 1 to 31"),
        ("0 0 1 0 *", "its month 0 is not one of 1 to 12"),
        ("0 0 * * 8", "its weekday 8 is not one of 0 to 7"),
        ("*/70 * * * *", "its minute step /70 is longer than all of 0 to 59"),
        ("0 5/25 * * *", "its hour step /25 is longer than all of 0 to 23"),
        ("0 0 * * mon-fri/8", "its weekday step /8 is longer than all of 0 to 6"),
        ("0 0 * * 1#6", "its weekday '1#6' cannot be read"),
        ("0 0 15W * *", "its day '15W' has a character that does not belong there"),
        ("H * * * *", "its minute 'H' has a character that does not belong there"),
        ("@dayly", "there is no such preset"),
        ("0 0 * * foo", "its weekday 'foo' cannot be read"),
        ("*/0 * * * *", "its minute step /0 cannot be read as a step"),
        ("", "it has 0 fields"),
        ("0," * 200 + "0 * * * *", "it has 409 characters and 256 are allowed"),
    ],
)
def test_bad_expressions_are_refused_in_words(expression: str, words: str) -> None:
    with pytest.raises(Invalid, match=r"FLX-104[01]") as refused:
        validate_schedule(Schedule("cron", expression))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("expression", "same"),
    [("*/60 * * * *", "0 * * * *"), ("0 */24 * * *", "0 0 * * *"), ("0 0 1 */12 *", "0 0 1 1 *")],
)
def test_a_step_as_long_as_its_field_is_once(expression: str, same: str) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    found, wanted = (CronTicks(read_cron(text), ZoneInfo("UTC"), "shift").after(at) for text in (expression, same))
    assert found == wanted


def test_other_bad_schedules() -> None:
    for code, schedule, zone, dst in [
        ("FLX-1042", Schedule("cron", "0 0 * * *"), "Mars/Phobos", "shift"),
        ("FLX-1042", Schedule(), "../etc/passwd", "shift"),
        ("FLX-1043", Schedule("cron", "0 0 * * *"), "UTC", "sometimes"),
        ("FLX-1044", Schedule("moon"), "UTC", "shift"),
        ("FLX-1045", Schedule("interval", None, 0.0), "UTC", "shift"),
        ("FLX-1045", Schedule("interval", None, float("nan")), "UTC", "shift"),
    ]:
        with pytest.raises(Invalid) as refused:
            validate_schedule(schedule, zone, dst)
        assert refused.value.code == code


@settings(max_examples=400, deadline=200)
@given(st.text("0123456789*,-/#LW?@abcdefmonjan ", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        cron = read_cron(text)
    except Invalid:
        return
    assert CronTicks(cron, ZoneInfo("UTC"), "shift").after(datetime(2001, 1, 1, tzinfo=UTC)) is not None


def test_next_runs_in_words() -> None:
    found = next_runs(Schedule("cron", "0 6 * * *"), "Europe/Paris", "shift", datetime(2026, 1, 2, 5, tzinfo=UTC), 2)
    assert found[0] == {
        "due_at": "2026-01-02T05:00:00Z",
        "logical_date": "2026-01-01T05:00:00Z",
        "data_interval_start": "2026-01-01T05:00:00Z",
        "data_interval_end": "2026-01-02T05:00:00Z",
        "words": "covers 2026-01-01 → 2026-01-02, starts at 2026-01-02 06:00 Paris",
    }
    assert found[1]["due_at"] == "2026-01-03T05:00:00Z"
    assert next_runs(Schedule(), "UTC", "shift", datetime(2026, 1, 1, tzinfo=UTC), 3) == []
    assert len(next_runs(Schedule("once"), "UTC", "shift", datetime(2026, 1, 1, tzinfo=UTC), 3)) == 1


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("2026-01-01T14:00", "2026-01-01T15:00", "covers 2026-01-01 14:00 → 15:00"),
        ("2026-01-01T22:00", "2026-01-02T02:00", "covers 2026-01-01 22:00 → 2026-01-02 02:00"),
        ("2026-01-01T00:00", "2026-02-01T00:00", "covers 2026-01-01 → 2026-02-01"),
        ("2026-01-01T00:00", "2026-01-01T00:00", "covers no stretch of time"),
    ],
)
def test_words(start: str, end: str, said: str) -> None:
    begin, finish = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (start, end))
    assert words(begin, finish, None, "UTC") == said


def test_words_name_the_offset_where_it_changes() -> None:
    start, end = datetime(2025, 10, 26, 0, 30, tzinfo=UTC), datetime(2025, 10, 26, 1, tzinfo=UTC)
    assert words(start, end, None, "Europe/Berlin") == "covers 2025-10-26 02:30 CEST → 02:00 CET"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.5, "0.5 s"), (59, "59 s"), (60, "1 m"), (90, "1 m 30 s"), (7200, "2 h"), (90061, "1 d 1 h")],
)
def test_durations_in_words(seconds: float, said: str) -> None:
    assert seconds_in_words(seconds) == said


def test_authors_pay_nothing_for_croniter() -> None:
    code = "import sys, fluxd.core.timetable; sys.exit('croniter' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
