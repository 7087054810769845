"""After a crash: what is remembered, what is asked again, what is given up."""

from datetime import timedelta

from fluxd.core.commands import BeginWait, KillAttempt, StartAttempt
from fluxd.core.events import CancelRun
from fluxd.core.snapshot import DagRow, PastRun
from fluxd.core.spec import Schedule
from fluxd.core.states import State
from tests.unit.core.dialogue import FAILED, NOON, Dialogue, dag, task

HOURLY = Schedule("cron", "0 * * * *")


def test_a_recovered_scheduler_goes_on_where_the_old_one_was() -> None:
    spec = dag(task("a"), task("b", "a"), task("c", "b"))
    flux = Dialogue(spec)
    flux.trigger()
    flux.ended(1)
    flux.started(2)
    again = flux.restarted(dags=[DagRow(spec, 1, False, None)])
    assert again.turn.commands == []
    again.ended(2)
    assert again.starts() == ["c"]
    assert again.fence("c") == 3
    again.ended(3)
    assert again.runs[1].state == "success"


def test_only_what_the_runner_does_not_know_is_started_again() -> None:
    flux = Dialogue(dag(task("a"), task("b"), task("w")))
    flux.trigger()
    flux.started(2)
    flux.ended(3, {"state": "waiting", "wait": {"sensor": "S"}})
    again = flux.restarted()
    commands = again.scheduler.unsettled("local", {2})
    assert [(type(command), getattr(command, "fence", 0)) for command in commands] == [(StartAttempt, 1)]
    assert again.scheduler.unsettled("local", {1, 2}) == []
    (wait,) = again.scheduler.unsettled("daemon", set())
    assert isinstance(wait, BeginWait) and wait.fence == 4


def test_what_was_told_to_stop_is_told_again() -> None:
    flux = Dialogue(dag(task("a")))
    flux.trigger()
    flux.started(1)
    flux.say(CancelRun(1, 1))
    again = flux.restarted()
    assert again.scheduler.unsettled("local", {1}) == [KillAttempt(1, "cancel")]
    assert again.scheduler.vanished("local", {1}, NOON) == []


def test_what_ran_and_is_not_known_any_more_is_lost() -> None:
    flux = Dialogue(dag(task("a", retries=1, retry_delay=0.0), task("b")))
    flux.trigger()
    flux.started(1)
    (lost,) = flux.scheduler.vanished("local", set(), NOON)
    assert lost.fence == 1
    flux.say(lost)
    assert (flux.starts(), flux.attempts[1].state) == (["a"], "lost")


def test_a_cancelled_start_that_never_arrived_ends_the_run() -> None:
    flux = Dialogue(dag(task("a")))
    flux.trigger()
    flux.say(CancelRun(1, 1))
    flux.say(*flux.scheduler.vanished("local", set(), NOON))
    assert flux.runs[1].state == "cancelled"


def test_timers_are_set_again() -> None:
    flux = Dialogue(
        dag(task("a", retries=1, retry_delay=60.0), task("t", execution_timeout=100.0), dagrun_timeout=900.0)
    )
    flux.trigger()
    flux.started(2)
    flux.ended(1, FAILED)
    again = flux.restarted()
    assert again.wake_at() == NOON + timedelta(seconds=60)
    again.wait(60)
    assert again.starts() == ["a"]
    again.wait(40)
    assert again.kills() == [(2, "timeout")]
    again.wait(800)
    assert again.runs[1].reason is not None


def test_deadlines_that_passed_meanwhile_fire_at_once() -> None:
    flux = Dialogue(dag(task("w")))
    flux.trigger()
    flux.ended(1, {"state": "waiting", "wait": {"sensor": "S", "timeout": 60.0}})
    flux.now += timedelta(seconds=61)
    assert flux.restarted().state("w") == "failed"


def test_numbers_and_fences_go_on_rising() -> None:
    flux = Dialogue(dag(task("a")), last_run_number=41, last_fence=99)
    assert flux.trigger() == 42
    assert flux.fence("a", 42) == 100


def test_the_past_is_remembered_for_those_that_depend_on_it() -> None:
    spec = dag(task("a", depends_on_past=True), schedule=HOURLY)
    past = PastRun("d", NOON, NOON - timedelta(hours=1), {("a", -1): State.FAILED})
    flux = Dialogue(dags=[DagRow(spec, 1, False, NOON + timedelta(hours=1))], past=[past])
    flux.wait(3600)
    assert flux.state("a") == "none"
    past.states["a", -1] = State.SUCCESS
    flux = Dialogue(dags=[DagRow(spec, 1, False, NOON + timedelta(hours=1))], past=[past])
    flux.wait(3600)
    assert flux.state("a") == "queued"


def test_a_dag_that_was_stored_but_never_scheduled_begins() -> None:
    spec = dag(task("a"), schedule=HOURLY)
    flux = Dialogue(dags=[DagRow(spec, 1, False, None, seen_before=False)])
    assert flux.cursors["d"].next_due_at == NOON + timedelta(hours=1)


def test_a_cursor_that_the_rules_of_a_zone_left_behind_is_mended() -> None:
    spec = dag(task("a"), schedule=Schedule("cron", "0 6 * * *"), timezone="Europe/Paris")
    flux = Dialogue(dags=[DagRow(spec, 1, False, NOON + timedelta(hours=18))])  # 07:00 in Paris
    assert flux.cursors["d"].next_due_at == NOON + timedelta(hours=17)


def test_runs_of_a_removed_dag_end_on_their_version() -> None:
    spec = dag(task("a"), task("b", "a"), schedule=HOURLY)
    flux = Dialogue(spec)
    flux.trigger()
    again = flux.restarted(dags=[DagRow(spec, 1, False, NOON, removed=True)])
    again.ended(1)
    assert again.starts() == ["b"]
    assert len(again.runs) == 1
