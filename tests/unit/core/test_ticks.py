"""Runs that the timetable makes: due, lagging, missed, paused, edited, depending on their past."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fluxd.core.events import DagLoaded, DagRemoved, MarkTasks, PauseDag, TriggerRun
from fluxd.core.snapshot import DagRow
from fluxd.core.spec import DagSpec, Schedule
from fluxd.core.states import State
from tests.unit.core.dialogue import FAILED, NOON, Dialogue, dag, task

HOURLY = Schedule("cron", "0 * * * *")
DAILY = Schedule("cron", "0 0 * * *")


def hourly(**fields: object) -> DagSpec:
    return dag(task("a"), schedule=HOURLY, **fields)


def at(hour: int, minute: int = 0, day: int = 10) -> datetime:
    return datetime(2026, 1, day, hour, minute, tzinfo=UTC)


def dues(flux: Dialogue) -> list[datetime | None]:
    return [run.due_at for run in flux.runs.values()]


def test_a_run_is_due_at_the_end_of_what_it_covers() -> None:
    flux = Dialogue(hourly())
    assert flux.wake_at() == at(13)
    assert not flux.wait(3599).saves
    flux.wait(1)
    run = flux.runs[1]
    assert (run.run_id, run.run_type, run.due_at) == ("scheduled__20260110T120000Z", "scheduled", at(13))
    assert (run.logical_date, run.data_interval_start, run.data_interval_end) == (at(12), at(12), at(13))
    assert flux.cursors["d"].next_due_at == at(14)
    assert flux.starts() == ["a"]


def test_another_schedule_of_a_dag_that_catches_up_loses_nothing() -> None:
    flux = Dialogue(hourly(start_date=at(0), catchup=True, max_active_runs=1))
    flux.ended(1)  # the tick of 1 o'clock; the next is running
    flux.say(DagLoaded(replace(hourly(start_date=at(0), catchup=True), schedule=Schedule("cron", "30 * * * *")), 2))
    assert (flux.skips, flux.cursors["d"].next_due_at) == ([], NOON + timedelta(minutes=30))
    assert dues(flux)[:4] == [at(1), at(2), at(2) + timedelta(minutes=30), at(3) + timedelta(minutes=30)]


def test_a_schedule_changed_while_fluxd_was_down_does_not_wait_for_the_tick_of_the_old_one() -> None:
    midnight = at(0, day=11)  # the next tick of a daily dag, which became an hourly one
    flux = Dialogue(dags=[DagRow(hourly(), 1, False, midnight)])
    assert flux.cursors["d"].next_due_at == at(13)
    later = Dialogue(dags=[DagRow(hourly(), 1, False, midnight, last_skipped=at(20))])
    assert later.cursors["d"].next_due_at == at(21)  # the clock was set back: those have their skip


def test_a_dag_whose_file_was_away_at_the_start_ticks_when_it_is_back() -> None:
    # It was a dag without a schedule; meanwhile it got one, and its file went.
    flux = Dialogue(dags=[DagRow(hourly(), 1, False, None, removed=True)])
    flux.say(DagLoaded(hourly(), 1))
    flux.wait(3600)
    assert dues(flux) == [at(13)]


def test_an_earlier_start_date_brings_the_ticks_before_the_one_that_was_next() -> None:
    flux = Dialogue(hourly(start_date=at(20)))
    assert flux.cursors["d"].next_due_at == at(21)
    flux.say(DagLoaded(hourly(start_date=at(8)), 2))
    assert flux.cursors["d"].next_due_at == at(13)


@pytest.mark.parametrize("start_date", [None, at(0)])
def test_a_dag_without_a_run_yet_that_now_catches_up_loses_no_tick_it_owed(start_date: datetime | None) -> None:
    flux = Dialogue(hourly(start_date=start_date))
    flux.say(PauseDag(1, "d", True))
    flux.wait(3 * 3600)  # 13, 14 and 15 o'clock are owed
    edited = replace(hourly(start_date=start_date, catchup=True), schedule=Schedule("cron", "30 * * * *"))
    flux.say(DagLoaded(edited, 2), PauseDag(2, "d", False))
    assert dues(flux) == [at(12, 30), at(13, 30), at(14, 30)]
    assert flux.skips == []


@pytest.mark.parametrize(
    ("catchup", "first"),
    [(False, at(13)), ("latest", at(12)), (True, at(10)), (5400.0, at(11)), (0, at(12))],
)
def test_where_a_new_dag_begins(catchup: bool | str | float, first: datetime) -> None:
    flux = Dialogue(hourly(start_date=at(8, 30), catchup=catchup), now=at(12))
    flux.now = at(13)
    flux.say()
    assert dues(flux)[0] == first
    assert flux.skips == []  # its past is nobody's debt


def test_dates_bound_what_is_covered() -> None:
    flux = Dialogue(hourly(start_date=at(13, 30), end_date=at(15)))
    for _ in range(8):
        flux.wait(3600)
    assert dues(flux) == [at(15), at(16)]
    flux = Dialogue(hourly(start_date=at(9, 30), end_date=at(11), catchup=True))
    assert dues(flux) == [at(11), at(12)]
    assert flux.cursors["d"].next_due_at is None


def test_once_runs_once() -> None:
    spec = dag(task("a"), schedule=Schedule("once"), start_date=at(14))
    flux = Dialogue(spec)
    assert flux.wake_at() == at(14)
    flux.wait(7200)
    assert [(run.due_at, run.data_interval_start, run.data_interval_end) for run in flux.runs.values()] == [
        (at(14), at(14), at(14))
    ]
    flux.ended(1)
    flux.say(DagLoaded(spec, 2))
    again = flux.restarted(dags=[DagRow(spec, 1, False, None)])
    again.wait(10)
    assert len(again.runs) == 1


def test_ticks_wait_for_room_and_none_is_lost() -> None:
    flux = Dialogue(hourly(max_active_runs=1))
    for _ in range(3):
        flux.wait(3600)
    assert dues(flux) == [at(13)]
    assert flux.cursors["d"].next_due_at == at(14)
    for fence in (1, 2):
        flux.ended(fence)
    assert dues(flux) == [at(13), at(14), at(15)]
    assert flux.skips == []


def test_a_waiting_trigger_and_a_waiting_tick_go_by_age() -> None:
    flux = Dialogue(hourly(max_active_runs=1))
    flux.wait(3600)
    flux.wait(1800)
    flux.say(TriggerRun(1, "d"))
    flux.wait(1800)
    flux.ended(1)
    assert [str(run.state) for run in flux.runs.values()] == ["success", "running"]
    flux.ended(2)
    assert dues(flux) == [at(13), None, at(14)]


@pytest.mark.parametrize(
    ("catchup", "run", "skipped"),
    [
        (False, [16], [(13, 15, 3)]),
        ("latest", [16], [(13, 15, 3)]),
        (True, [13, 14, 15, 16], []),
        (2.0 * 3600, [15, 16], [(13, 14, 2)]),
        (60, [], [(13, 16, 4)]),
    ],
)
def test_ticks_missed_while_the_daemon_was_away(
    catchup: bool | str | float, run: list[int], skipped: list[tuple[int, int, int]]
) -> None:
    spec = hourly(catchup=catchup)
    flux = Dialogue(now=at(16, 30), dags=[DagRow(spec, 1, False, at(13))])
    assert dues(flux) == [at(hour) for hour in run]
    assert [(skip.first.hour, skip.last.hour, skip.count) for skip in flux.skips] == skipped
    assert flux.cursors["d"].next_due_at == at(17)


def test_a_pause_is_a_time_without_runs() -> None:
    flux = Dialogue(hourly())
    flux.say(PauseDag(1, "d", True))
    for _ in range(4):
        flux.wait(3600)
    assert flux.runs == {}
    flux.say(PauseDag(2, "d", False))
    assert dues(flux) == [at(16)]
    assert [(skip.first, skip.last, skip.count, skip.reason) for skip in flux.skips] == [
        (at(13), at(15), 3, "the dag was paused; catchup is False")
    ]


def test_a_machine_that_slept_runs_the_latest() -> None:
    flux = Dialogue(dag(task("a"), schedule=Schedule("cron", "* * * * *")))
    flux.sleep(8 * 3600)
    assert dues(flux) == [at(20)]
    assert [(skip.count, skip.reason) for skip in flux.skips] == [(479, "the machine was asleep; catchup is False")]


def test_a_year_of_missed_ticks_is_one_skip() -> None:
    spec = dag(task("a"), schedule=Schedule("cron", "*/5 * * * *"), timezone="Europe/Paris")
    flux = Dialogue(dags=[DagRow(spec, 1, False, NOON - timedelta(days=365))])
    assert [skip.count for skip in flux.skips] == [105_120]
    assert dues(flux) == [NOON]


def test_a_long_catch_up_is_worked_off_in_slices() -> None:
    spec = dag(task("a", kind="empty"), schedule=HOURLY, start_date=NOON - timedelta(hours=1000), catchup=True)
    flux = Dialogue(spec)
    turns = 1
    while flux.wake_at() == flux.now:
        assert len(flux.turn.saves.runs) <= 100
        flux.say()
        turns += 1
    assert (len(flux.runs), turns) == (1000, 11)


def test_a_clock_set_back_repeats_no_tick() -> None:
    flux = Dialogue(hourly())
    flux.wait(3600)
    flux.set_clock(-7200)
    flux.wait(3600)
    flux.wait(3600)
    assert dues(flux) == [at(13)]
    flux.wait(3600)
    assert dues(flux) == [at(13), at(14)]


def test_a_changed_schedule_fires_nothing_at_once_and_closes_what_is_owed() -> None:
    flux = Dialogue(hourly(max_active_runs=1))
    for _ in range(3):
        flux.wait(3600)
    flux.say(DagLoaded(dag(task("a"), schedule=DAILY, max_active_runs=9), 2))
    assert dues(flux) == [at(13)]
    assert [(skip.first, skip.last, skip.count) for skip in flux.skips] == [(at(14), at(15), 2)]
    assert flux.cursors["d"].next_due_at == at(0, day=11)


def test_a_run_of_another_schedule_at_the_same_date_gets_another_name() -> None:
    flux = Dialogue(hourly(), now=at(0, 30))
    flux.wait(1800)  # the run that covers 00:00 -> 01:00
    flux.say(DagLoaded(dag(task("a"), schedule=DAILY), 2))
    flux.now = at(0, 1, day=11)
    flux.say()
    assert [run.run_id for run in flux.runs.values()] == [
        "scheduled__20260110T000000Z",
        "scheduled__20260110T000000Z__20260111T000000Z",
    ]


def test_a_file_that_is_away_makes_no_runs_and_comes_back() -> None:
    flux = Dialogue(hourly())
    flux.say(DagRemoved("d"))
    for _ in range(3):
        flux.wait(3600)
    assert flux.runs == {}
    flux.say(DagLoaded(hourly(), 1))
    assert dues(flux) == [at(15)]
    assert [skip.reason for skip in flux.skips] == ["the dag's file was away; catchup is False"]


def test_new_dags_may_begin_paused() -> None:
    flux = Dialogue(hourly(is_paused_upon_creation=True))
    assert flux.cursors["d"].paused
    flux = Dialogue()
    flux.say(DagLoaded(hourly(is_paused_upon_creation=True), 1, paused=False))
    assert not flux.cursors["d"].paused


def test_a_schedule_that_is_none_any_more_harms_nobody() -> None:
    flux = Dialogue(hourly(timezone="Mars/Phobos"), dag(task("x"), dag_id="other", schedule=HOURLY))
    flux.wait(3600)
    assert [run.dag_id for run in flux.runs.values()] == ["other"]
    flux.trigger("d")


def test_a_task_that_depends_on_its_past_waits_for_it() -> None:
    flux = Dialogue(dag(task("a", depends_on_past=True), schedule=HOURLY))
    flux.wait(3600)
    flux.wait(3600)
    assert [str(row.state) for row in flux.instances.values()] == ["queued", "none"]
    (why,) = flux.scheduler.explain(2)
    assert why.words == "it depends on its past, and in the run due at 2026-01-10 13:00 UTC it is queued"
    flux.ended(1, FAILED)
    assert flux.state("a", 2) == "none"
    flux.say(MarkTasks(1, 1, ((1, "a", -1),), State.SUCCESS, revive=flux.revived()))
    assert flux.starts() == ["a"]


def test_manual_runs_have_no_past() -> None:
    flux = Dialogue(dag(task("a", depends_on_past=True), schedule=HOURLY))
    flux.wait(3600)
    flux.ended(1, FAILED)
    flux.trigger()
    assert flux.starts() == ["a"]
