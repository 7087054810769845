"""Clocks that are set, machines that sleep, databases that are away: what counts is the time that passed."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from fluxd.core.moment import Moment
from fluxd.core.scheduler import Scheduler
from fluxd.core.snapshot import DagRow, Snapshot
from fluxd.core.spec import Schedule
from fluxd.core.states import State
from fluxd.core.timetable import make_timetable, waits_for_clock
from tests.unit.core.dialogue import FAILED, NOON, SUCCESS, Dialogue, dag, task

EVERY_5_MINUTES = Schedule("cron", "*/5 * * * *")
STEPS = (3600.0, 86400.0, 2.0, -2.0, -3600.0, -86400.0)
WAITING = {"state": "waiting", "wait": {"sensor": "FileSensor", "timeout": 300.0}}


def running(flux: Dialogue) -> None:
    flux.started(1)


def paused(flux: Dialogue) -> None:
    flux.ended(1, FAILED)


def waiting(flux: Dialogue) -> None:
    flux.ended(1, WAITING)


# What goes on for 300 seconds: the dag, how it comes about, and the state of its task before and after.
DURATIONS: dict[str, tuple[Any, Callable[[Dialogue], None], str, str]] = {
    "execution_timeout": (dag(task("a", execution_timeout=300.0)), running, "None", "timeout"),
    "dagrun_timeout": (dag(task("a"), dagrun_timeout=300.0), running, "None", "cancel"),
    "retry_delay": (dag(task("a", retries=1, retry_delay=300.0)), paused, "up_for_retry", "queued"),
    "sensor timeout": (dag(task("a", kind="sensor")), waiting, "waiting", "failed"),
}


def now_of(flux: Dialogue) -> str:
    row = flux.instances[(1, "a", -1)]
    return str(row.stop_reason) if row.state is State.RUNNING else str(row.state)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("what", DURATIONS)
def test_a_duration_is_as_long_as_it_is_whatever_the_wall_clock_does(what: str, step: float) -> None:
    spec, happen, before, after = DURATIONS[what]
    flux = Dialogue(spec)
    flux.trigger()
    happen(flux)
    flux.wait(100)
    flux.set_clock(step)
    assert flux.wake_at() == flux.now + timedelta(seconds=200)
    flux.wait(199)
    assert now_of(flux) == before
    flux.wait(1)
    assert now_of(flux) == after


OVER_AFTER_SLEEP = {"execution_timeout": False, "dagrun_timeout": False, "retry_delay": True, "sensor timeout": True}


@pytest.mark.parametrize(("what", "over"), OVER_AFTER_SLEEP.items())
def test_a_sleeping_machine_gives_processes_no_time_and_ends_pauses(what: str, over: bool) -> None:
    spec, happen, before, after = DURATIONS[what]
    flux = Dialogue(spec)
    flux.trigger()
    happen(flux)
    flux.sleep(8 * 3600)
    assert now_of(flux) == (after if over else before)


@pytest.mark.parametrize("what", DURATIONS)
def test_what_is_left_of_a_duration_outlives_a_restart(what: str) -> None:
    spec, happen, before, after = DURATIONS[what]
    flux = Dialogue(spec)
    flux.trigger()
    happen(flux)
    flux.wait(100)
    again = flux.restarted()
    again.wait(199)
    assert now_of(again) == before
    again.wait(1)
    assert now_of(again) == after


@pytest.mark.parametrize("what", ["retry_delay", "sensor timeout"])
def test_a_clock_that_was_set_before_a_restart_does_not_count_after_it(what: str) -> None:
    spec, happen, before, after = DURATIONS[what]
    flux = Dialogue(spec)
    flux.trigger()
    happen(flux)
    flux.wait(100)
    flux.set_clock(3600)
    again = flux.restarted()
    again.wait(199)
    assert now_of(again) == before
    again.wait(1)
    assert now_of(again) == after


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("what", ["retry_delay", "sensor timeout"])
def test_a_scheduler_that_takes_over_knows_what_the_clock_was_set_by(what: str, step: float) -> None:
    spec, happen, before, after = DURATIONS[what]
    flux = Dialogue(spec)
    flux.trigger()
    happen(flux)
    flux.wait(100)
    flux.now += timedelta(seconds=step)
    flux.shift += timedelta(seconds=step)
    again = flux.restarted(before=flux)
    again.wait(199)
    assert now_of(again) == before
    again.wait(1)
    assert now_of(again) == after


@pytest.mark.parametrize("what", DURATIONS)
def test_a_clock_set_back_while_fluxd_was_away_makes_nothing_longer(what: str) -> None:
    spec, happen, _, after = DURATIONS[what]
    flux = Dialogue(spec)
    flux.trigger()
    happen(flux)
    flux.now -= timedelta(days=1)
    again = flux.restarted()
    again.wait(300)
    assert now_of(again) == after


def every_5_minutes(catchup: Any) -> Dialogue:
    return Dialogue(dag(task("a"), schedule=EVERY_5_MINUTES, catchup=catchup, start_date=NOON, max_active_runs=100))


@pytest.mark.parametrize("catchup", [False, "latest", True, 600.0])
def test_an_outage_skips_no_tick(catchup: Any) -> None:
    """The daemon was there: its turn stood in the save for 22 minutes."""
    flux = every_5_minutes(catchup)
    flux.wait(22 * 60)
    assert (len([run for run in flux.runs.values() if run.due_at and run.due_at > NOON]), flux.skips) == (4, [])


@pytest.mark.parametrize("catchup", [False, "latest"])
@pytest.mark.parametrize(
    ("gap", "reason"),
    [(Dialogue.sleep, "the machine was asleep"), (Dialogue.set_clock, "the clock was set forward")],
)
def test_time_that_nobody_lived_through_follows_the_catch_up_rule(gap: Any, reason: str, catchup: Any) -> None:
    flux = every_5_minutes(catchup)
    gap(flux, 22 * 60)
    assert [(skip.count, skip.reason) for skip in flux.skips] == [(3, f"{reason}; catchup is {catchup!r}")]
    assert [run.due_at for run in flux.runs.values() if run.due_at and run.due_at > NOON] == [
        NOON + timedelta(minutes=20)
    ]


def test_a_tick_that_was_skipped_has_no_run_after_the_clock_was_set_back() -> None:
    flux = Dialogue(dag(task("a"), schedule=EVERY_5_MINUTES, catchup=False, max_active_runs=1))
    flux.wait(5 * 60)
    flux.sleep(22 * 60)
    assert [(skip.first, skip.count) for skip in flux.skips] == [(NOON + timedelta(minutes=10), 3)]
    flux.set_clock(-18 * 60)
    flux.load(dag(task("a"), schedule=Schedule("interval", seconds=300.0), catchup=True, max_active_runs=100))
    for _ in range(20):
        flux.wait(60)
    assert [run.due_at for run in flux.runs.values()] == [NOON + timedelta(minutes=5), NOON + timedelta(minutes=25)]


def test_of_a_timetable_that_ended_longer_ago_than_catch_up_reaches_nothing_is_run() -> None:
    end = NOON + timedelta(minutes=12)
    flux = Dialogue(dag(task("a"), schedule=EVERY_5_MINUTES, catchup=600.0, start_date=NOON, end_date=end))
    flux.sleep(3600)
    assert [(skip.first, skip.count) for skip in flux.skips] == [(NOON + timedelta(minutes=5), 3)]
    assert (flux.runs, flux.cursors["d"].next_due_at) == ({}, None)


def test_a_scheduler_that_takes_over_skips_nothing_and_one_that_starts_does() -> None:
    spec = dag(task("a"), schedule=EVERY_5_MINUTES)
    row = DagRow(spec, 1, False, NOON + timedelta(minutes=5))
    later = Moment.at(NOON + timedelta(minutes=22))
    assert [skip.count for skip in Scheduler().recover(Snapshot(dags=[row]), later).saves.skips] == [3]
    assert Scheduler().recover(Snapshot(dags=[row]), later, Moment.at(NOON)).saves.skips == []


def test_the_steps_of_a_new_version_hold_for_what_runs() -> None:
    """A clear takes the run to the newest version: its timeouts hold from then on, for what runs already too."""
    for before, after in ((60.0, 600.0), (600.0, 60.0)):
        old = dag(task("a", execution_timeout=before), task("b"))
        flux = Dialogue(old)
        flux.trigger()
        flux.started(1, 2)
        flux.ended(2, SUCCESS)
        flux.load(dag(task("a", execution_timeout=after), task("b")))
        flux.clear("b", downstream=False)
        flux.started(3)
        flux.wait(after - 1)
        assert flux.kills() == []
        flux.wait(1)
        assert flux.kills() == [(1, "timeout")]


def test_a_schedule_says_that_it_waits_for_a_clock_set_back() -> None:
    timetable = make_timetable(dag(schedule=EVERY_5_MINUTES, start_date=NOON - timedelta(days=1)))
    following = NOON + timedelta(minutes=5)
    assert waits_for_clock(timetable, following, NOON) is None
    assert waits_for_clock(timetable, None, NOON) is None
    words = waits_for_clock(timetable, following, NOON - timedelta(hours=2))
    assert words == (
        "The clock shows 2026-01-10T10:00:00Z, and the run due at 2026-01-10T12:00:00Z is done with already: the clock "
        "was set back. The next run is due at 2026-01-10T12:05:00Z."
    )
    later = make_timetable(dag(schedule=EVERY_5_MINUTES, start_date=NOON))
    assert waits_for_clock(later, following, NOON - timedelta(hours=2)) is None
