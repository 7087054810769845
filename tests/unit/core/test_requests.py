"""What people ask for: trigger, cancel, clear, mark, pause, forget."""

from datetime import UTC, datetime, timedelta

import pytest

from fluxd.core.commands import EndWait, StartAttempt
from fluxd.core.events import (
    CancelRun,
    ClearTasks,
    DagLoaded,
    DagRemoved,
    ForgetDag,
    MarkTasks,
    PauseDag,
    TriggerRun,
    WaitEnded,
)
from fluxd.core.model import InstanceKey
from fluxd.core.spec import Schedule
from fluxd.core.states import State
from tests.unit.core.dialogue import FAILED, NOON, SUCCESS, Dialogue, dag, ran_through, task

DAILY = Schedule("cron", "0 6 * * *")


def key(task_id: str, run: int = 1) -> InstanceKey:
    return (run, task_id, -1)


def error(flux: Dialogue) -> str:
    found = flux.reply().error
    assert found is not None
    return str(found)


# -- trigger


def test_a_trigger_is_answered_with_the_run() -> None:
    flux = Dialogue(dag(task("a")))
    flux.say(TriggerRun(7, "d", conf={"x": 1}, by="ann"))
    reply = flux.reply()
    assert (reply.request, reply.error) == (7, None)
    assert reply.value == {
        "dag_id": "d",
        "run_id": "manual__20260110T120000.000000Z",
        "state": "running",
        "run_type": "manual",
        "logical_date": "2026-01-10T12:00:00Z",
        "data_interval_start": "2026-01-10T12:00:00Z",
        "data_interval_end": "2026-01-10T12:00:00Z",
        "due_at": None,
        "queued_at": "2026-01-10T12:00:00Z",
        "started_at": "2026-01-10T12:00:00Z",
        "ended_at": None,
        "conf": {"x": 1},
        "reason": None,
        "created_by": "ann",
    }


def test_a_trigger_with_a_wrong_param_is_refused() -> None:
    schemas = {"days": {"type": "integer", "minimum": 1}, "who": {"type": "string", "pattern": "^a", "required": True}}
    flux = Dialogue(dag(task("a"), params={"days": 3, "who": None}, param_schemas=schemas))
    flux.say(TriggerRun(1, "d", conf={"days": 0, "who": "ann"}))
    assert error(flux) == "FLX-1015: param 'days' must be at least 1, not 0."
    flux.say(TriggerRun(2, "d"))
    assert error(flux) == "FLX-1015: param 'who' has no default: the run must be given a value for it."
    flux.say(TriggerRun(3, "d", conf={"who": "bob"}))  # the task looks at patterns
    assert [str(run.state) for run in flux.runs.values()] == ["running"]


def test_a_conf_names_params_that_the_dag_has() -> None:
    flux = Dialogue(dag(task("a"), params={"region": "eu", "days": 3}, param_schemas={"days": {"type": "integer"}}))
    for request, (name, hint) in enumerate(
        [("regoin", "did you mean 'region'?"), ("Days", "did you mean 'days'?"), ("x", "it has days, region.")], 1
    ):
        flux.say(TriggerRun(request, "d", conf={"region": "us", name: 1}))
        assert error(flux) == f"FLX-4263: The dag has no param {name!r}; {hint}"
    flux.say(TriggerRun(9, "d", conf={"region": "us", "days": 1}))
    assert [str(run.state) for run in flux.runs.values()] == ["running"]


def test_two_triggers_at_one_moment_are_two_runs() -> None:
    flux = Dialogue(dag(task("a")))
    flux.say(TriggerRun(1, "d"), TriggerRun(2, "d"))
    assert len({run.run_id for run in flux.runs.values()}) == 2


def test_the_same_run_id_is_refused() -> None:
    flux = Dialogue(dag(task("a")))
    flux.say(TriggerRun(1, "d", "mine"))
    flux.say(TriggerRun(2, "d", "mine"))
    assert error(flux) == "FLX-4203: Dag 'd' has a run 'mine' already: choose another run id."
    flux.say(TriggerRun(3, "d", "old", taken=True))
    assert "FLX-4203" in error(flux)
    assert len(flux.runs) == 1


@pytest.mark.parametrize("run_id", ["../x", "-x", ".x", "a b", "", "x" * 201, "ä"])
def test_bad_run_ids_are_refused(run_id: str) -> None:
    flux = Dialogue(dag(task("a")))
    flux.say(TriggerRun(1, "d", run_id or " "))
    assert "FLX-4204" in error(flux)


def test_names_of_the_timetable_are_its_own() -> None:
    flux = Dialogue(dag(task("a")))
    flux.say(TriggerRun(1, "d", "scheduled__20260111T060000Z"))
    assert "FLX-4205" in error(flux)


def test_what_a_manual_run_covers() -> None:
    flux = Dialogue(dag(task("a"), schedule=DAILY))
    flux.say(TriggerRun(1, "d"), TriggerRun(2, "d", logical_date=datetime(2014, 7, 4, tzinfo=UTC)))
    latest, dated = flux.runs[1], flux.runs[2]
    assert (latest.logical_date, latest.data_interval_start, latest.data_interval_end) == (
        NOON,
        datetime(2026, 1, 9, 6, tzinfo=UTC),
        datetime(2026, 1, 10, 6, tzinfo=UTC),
    )
    assert (dated.data_interval_start, dated.data_interval_end) == (
        datetime(2014, 7, 4, tzinfo=UTC),
        datetime(2014, 7, 4, 6, tzinfo=UTC),
    )


def test_unknown_and_removed_dags() -> None:
    flux = Dialogue(dag(task("a")))
    flux.say(TriggerRun(1, "nope"))
    assert error(flux) == "FLX-4201: There is no dag 'nope': fluxctl dags list shows those there are."
    flux.say(DagRemoved("d"))
    flux.say(TriggerRun(1, "d"))
    assert "FLX-4202" in error(flux)


def test_a_paused_dag_can_be_triggered() -> None:
    flux = Dialogue(dag(task("a")))
    flux.say(PauseDag(1, "d", True))
    flux.trigger()
    assert flux.starts() == ["a"]


# -- cancel


def test_cancel_ends_processes_first() -> None:
    flux = Dialogue(dag(task("a"), task("b", "a"), task("w"), task("r", retries=1)))
    flux.trigger()
    flux.ended(flux.fence("w"), {"state": "waiting", "wait": {"sensor": "S"}})
    flux.ended(flux.fence("r"), FAILED)
    flux.say(CancelRun(1, 1, by="ann"))
    assert flux.states() == {"a": "queued", "b": "cancelled", "w": "cancelled", "r": "cancelled"}
    assert flux.kills() == [(1, "cancel")]
    assert EndWait(4) in flux.turn.commands
    assert (flux.runs[1].state, flux.runs[1].cancelling) == ("running", True)
    flux.ended(1, None, signal=15)
    assert (flux.state("a"), flux.runs[1].state, flux.runs[1].reason) == ("cancelled", "cancelled", "cancelled by ann")


def test_a_true_end_that_came_first_counts() -> None:
    flux = Dialogue(dag(task("a")))
    flux.trigger()
    flux.say(CancelRun(1, 1))
    flux.ended(1, SUCCESS)
    assert (flux.state("a"), flux.runs[1].state) == ("success", "success")


def test_nothing_starts_in_a_run_that_is_being_cancelled() -> None:
    flux = Dialogue(dag(task("a", retries=2, retry_delay=0.0), task("b", "a", trigger_rule="all_done")))
    flux.trigger()
    flux.say(CancelRun(1, 1))
    flux.ended(1, FAILED)
    assert flux.starts() == []
    assert flux.states() == {"a": "cancelled", "b": "cancelled"}


def test_cancel_of_a_queued_run_and_of_an_ended_one() -> None:
    flux = Dialogue(dag(task("a"), max_active_runs=1))
    flux.trigger()
    flux.trigger()
    flux.say(CancelRun(1, 2))
    assert flux.runs[2].state == "cancelled"
    flux.say(CancelRun(2, 2))
    assert error(flux) == "FLX-4206: The run has ended already: there is nothing to cancel."


# -- clear


def test_clear_of_a_running_task_waits_for_the_proof_that_it_is_dead() -> None:
    flux = Dialogue(dag(task("a"), task("b", "a")))
    flux.trigger()
    flux.started(1)
    flux.say(ClearTasks(1, 1, (key("a"),)))
    assert (flux.state("a"), flux.kills(), flux.starts()) == ("restarting", [(1, "restart")], [])
    assert flux.reply().value == {"cleared": [["a", -1]], "note": None}
    assert flux.wait(3600).commands == []
    flux.ended(1, SUCCESS | {"xcoms": [["return_value", 1]]})
    assert (flux.starts(), flux.fence("a"), flux.turn.saves.xcoms) == (["a"], 2, [])
    assert (flux.attempts[1].state, flux.instances[key("a")].try_number) == ("cancelled", 2)


def test_clear_of_a_finished_run_brings_it_back() -> None:
    flux = Dialogue(dag(task("a"), task("b", "a", retries=1), task("c", "b")))
    flux.trigger()
    ran_through(flux, {"b": FAILED | {"error": {"message": "no", "retry": False}}})
    assert flux.runs[1].state == "failed"
    assert not flux.scheduler.is_live(1)
    flux.say(ClearTasks(1, 1, (key("b"),), revive=flux.revived()))
    assert flux.reply().value == {"cleared": [["b", -1], ["c", -1]], "note": None}
    assert (flux.starts(), flux.runs[1].state, flux.runs[1].ended_at) == (["b"], "running", None)
    assert flux.instances[key("b")].max_tries == 3  # one was used; two more as the task says
    ran_through(flux, {})
    assert flux.runs[1].state == "success"


def test_a_run_that_is_cleared_goes_on_with_the_newest_version() -> None:
    flux = Dialogue(dag(task("a"), task("b", "a")))
    flux.trigger()
    ran_through(flux, {"b": FAILED})
    flux.specs[2] = dag(task("a"), task("b", "a", retries=3, priority_weight=7))
    flux.say(DagLoaded(flux.specs[2], 2))
    flux.say(ClearTasks(1, 1, (key("b"),), revive=flux.revived()))
    assert "newest version" in flux.reply().value["note"]
    (start,) = [command for command in flux.turn.commands if isinstance(command, StartAttempt)]
    assert (start.version_id, start.run.version_id, flux.instances[key("b")].max_tries) == (2, 2, 5)
    other = flux.restarted()
    ran_through(other, {})
    assert other.runs[1].version_id == 2


def test_a_run_keeps_its_version_where_the_newest_has_other_tasks() -> None:
    flux = Dialogue(dag(task("a"), task("b", "a")))
    flux.trigger()
    flux.ended(1, FAILED)
    flux.specs[2] = dag(task("a"), task("b"))
    flux.say(DagLoaded(flux.specs[2], 2))
    flux.say(ClearTasks(1, 1, revive=flux.revived()))
    assert "stays on the version" in flux.reply().value["note"]
    assert (flux.runs[1].version_id, flux.starts()) == (1, ["a"])


def test_clear_only_failed_without_downstream() -> None:
    flux = Dialogue(dag(task("a"), task("b"), task("c", "a", "b")))
    flux.trigger()
    ran_through(flux, {"b": FAILED})
    flux.say(ClearTasks(1, 1, downstream=False, only_failed=True, revive=flux.revived()))
    assert flux.reply().value == {"cleared": [["b", -1], ["c", -1]], "note": None}
    assert flux.state("a") == "success"


def test_clear_of_nothing_changes_nothing() -> None:
    flux = Dialogue(dag(task("a")))
    flux.trigger()
    ran_through(flux, {})
    turn = flux.say(ClearTasks(1, 1, only_failed=True, revive=flux.revived()))
    assert flux.reply().value == {"cleared": [], "note": None}
    assert not turn.saves
    assert not flux.scheduler.is_live(1)


def test_a_cleared_run_waits_for_its_turn() -> None:
    flux = Dialogue(dag(task("a"), max_active_runs=1))
    flux.trigger()
    ran_through(flux, {})
    flux.trigger()
    flux.say(ClearTasks(1, 1, revive=flux.revived()))
    assert flux.runs[1].state == "queued"
    flux.ended(2)
    assert flux.runs[1].state == "running"


def test_clear_of_a_waiting_task_begins_it_anew() -> None:
    flux = Dialogue(dag(task("a")))
    flux.trigger()
    flux.ended(1, {"state": "waiting", "wait": {"sensor": "S", "timeout": 50}})
    flux.wait(10)
    flux.say(ClearTasks(1, 1))
    assert EndWait(2) in flux.turn.commands
    assert (flux.starts(), flux.fence("a")) == (["a"], 3)
    assert not flux.say(WaitEnded(1, "success", NOON)).saves
    assert flux.instances[key("a")].wait_until is None


def test_unknown_tasks_and_runs_are_named() -> None:
    flux = Dialogue(dag(task("a")))
    flux.trigger()
    flux.say(ClearTasks(1, 1, (key("zz"),)))
    assert "has no task 'zz'" in error(flux)
    flux.say(ClearTasks(1, 99, (key("a", 99),)))
    assert "FLX-4210" in error(flux)
    flux.say(CancelRun(1, 1))
    flux.say(ClearTasks(1, 1))
    assert "FLX-4209" in error(flux)


# -- mark


def test_mark_success_of_a_running_task_ends_its_process() -> None:
    flux = Dialogue(dag(task("a"), task("b", "a")))
    flux.trigger()
    flux.started(1)
    flux.say(MarkTasks(1, 1, (key("a"),), State.SUCCESS, by="ann"))
    assert (flux.kills(), flux.state("a"), flux.starts()) == ([(1, "success")], "running", [])
    flux.ended(1, None, signal=15)
    assert (flux.state("a"), flux.starts()) == ("success", ["b"])
    assert flux.instances[key("a")].reason == "marked success by ann"


def test_mark_success_frees_what_was_given_up() -> None:
    flux = Dialogue(dag(task("a"), task("b", "a"), task("c", "b")))
    flux.trigger()
    ran_through(flux, {"a": FAILED})
    flux.say(MarkTasks(1, 1, (key("a"),), State.SUCCESS, revive=flux.revived()))
    assert (flux.states(), flux.runs[1].state) == ({"a": "success", "b": "queued", "c": "none"}, "running")
    ran_through(flux, {})
    assert flux.runs[1].state == "success"


def test_mark_of_the_last_task_corrects_the_run_and_keeps_its_times() -> None:
    flux = Dialogue(dag(task("a")))
    flux.trigger()
    ran_through(flux, {"a": FAILED})
    flux.wait(60)
    flux.say(MarkTasks(1, 1, (key("a"),), State.SUCCESS, revive=flux.revived()))
    assert (flux.runs[1].state, flux.runs[1].ended_at, flux.runs[1].reason) == ("success", NOON, None)
    flux.say(MarkTasks(2, 1, (key("a"),), State.FAILED, by="ann", revive=flux.revived()))
    assert (flux.runs[1].state, flux.runs[1].reason) == ("failed", "task a failed: marked failed by ann")


def test_mark_of_a_task_that_has_not_begun() -> None:
    flux = Dialogue(dag(task("a"), task("b", "a"), task("c", "b")))
    flux.trigger()
    flux.say(MarkTasks(1, 1, (key("b"),), State.SKIPPED))
    assert flux.states() == {"a": "queued", "b": "skipped", "c": "skipped"}
    flux.say(MarkTasks(2, 1, (key("b"),), State.RUNNING))
    assert "FLX-4207" in error(flux)


# -- pause, forget


def test_pause_is_stored_and_answered() -> None:
    flux = Dialogue(dag(task("a"), schedule=DAILY))
    flux.say(PauseDag(3, "d", True))
    assert flux.reply().value == {"dag_id": "d", "paused": True}
    assert flux.cursors["d"].paused
    assert flux.wake_at() is None


def test_forget_is_refused_while_runs_live() -> None:
    flux = Dialogue(dag(task("a")))
    flux.trigger()
    flux.say(ForgetDag(1, "d"))
    assert error(flux) == (
        "FLX-4208: Dag 'd' has 1 live run: cancel them or wait until they have ended, then delete it."
    )
    flux.ended(1)
    flux.say(ForgetDag(1, "d"))
    assert flux.cursors["d"].forgotten
    flux.say(TriggerRun(1, "d"))
    assert "FLX-4201" in error(flux)


def test_a_live_run_stays_on_the_version_it_began_with() -> None:
    flux = Dialogue(dag(task("a"), task("b", "a")))
    flux.trigger()
    flux.say(DagLoaded(dag(task("a"), task("c", "a")), 2))
    flux.wait(1)
    flux.trigger()
    flux.ended(1)
    assert flux.starts() == ["b"]
    assert flux.runs[1].version_id == 1
    assert flux.states(2) == {"a": "queued", "c": "none"}


def test_a_manual_name_does_not_repeat_when_the_clock_is_set_back() -> None:
    flux = Dialogue(dag(task("a")))
    flux.trigger()
    flux.now -= timedelta(microseconds=1)
    flux.trigger()
    flux.trigger()
    assert len({run.run_id for run in flux.runs.values()}) == 3
