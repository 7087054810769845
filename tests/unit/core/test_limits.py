"""Limits: who starts first, and who waits for what."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fluxd.core.events import ClearTasks, DagLoaded, MarkTasks, PoolSet, TriggerRun
from fluxd.core.spec import Schedule
from fluxd.core.states import State
from tests.unit.core.dialogue import NOON, Dialogue, dag, task


def why(flux: Dialogue, task_id: str, run: int = 1) -> str:
    return next(found.words for found in flux.scheduler.explain(run) if found.task_id == task_id)


def test_parallelism_and_priority() -> None:
    flux = Dialogue(dag(task("low"), task("high", priority_weight=5), task("next", priority_weight=2)), parallelism=1)
    flux.trigger()
    assert (flux.starts(), flux.state("low")) == (["high"], "scheduled")
    assert why(flux, "low") == "ready; all 1 places of the installation are taken (setting executor.parallelism)"
    flux.ended(1)
    assert flux.starts() == ["next"]


def test_a_full_pool_hides_nobody_else() -> None:
    crowd = [task(f"t{number}", pool="narrow", priority_weight=10) for number in range(50)]
    flux = Dialogue(dag(*crowd, task("free"), max_active_tasks=100), pools={"narrow": 1, "default_pool": 5})
    flux.trigger()
    assert flux.starts() == ["t0", "free"]
    assert why(flux, "t1") == "ready; it needs 1 of the 1 slots of pool 'narrow', and 1 are taken"


def test_slots_count_and_a_pool_can_be_changed() -> None:
    flux = Dialogue(dag(task("a", pool_slots=2), task("b", pool_slots=2)), pools={"default_pool": 3})
    flux.trigger()
    assert flux.starts() == ["a"]
    flux.say(PoolSet("default_pool", 4))
    assert flux.starts() == ["b"]


def test_a_task_that_fits_no_pool_says_so() -> None:
    flux = Dialogue(dag(task("wide", pool_slots=9), task("lost", pool="nowhere")), pools={"default_pool": 3})
    flux.trigger()
    assert flux.starts() == []
    assert why(flux, "wide") == "ready; it needs 9 slots, and pool 'default_pool' has only 3"
    assert "fluxctl pools set nowhere" in why(flux, "lost")


def test_max_active_tasks_counts_over_all_runs_of_a_dag() -> None:
    flux = Dialogue(dag(task("a"), task("b"), max_active_tasks=2), dag(task("x"), dag_id="other"))
    flux.trigger()
    flux.trigger()
    assert flux.starts() == []
    assert why(flux, "a", 2) == "ready; 2 tasks of dag 'd' are active, its max_active_tasks is 2"
    flux.trigger("other")
    assert flux.starts() == ["x"]
    flux = Dialogue(dag(task("a"), task("b"), max_active_tasks=1))
    flux.trigger()
    assert why(flux, "b") == "ready; 1 task of dag 'd' is active, its max_active_tasks is 1"


def test_max_active_runs_queues_the_rest_in_order() -> None:
    flux = Dialogue(dag(task("a"), max_active_runs=1))
    first, second, third = flux.trigger(), flux.trigger(), flux.trigger()
    assert [str(flux.runs[number].state) for number in (first, second, third)] == ["running", "queued", "queued"]
    assert why(flux, "a", second) == "its run is queued: 1 run of the dag is active, its max_active_runs is 1"
    flux.ended(1)
    assert [str(flux.runs[number].state) for number in (first, second, third)] == ["success", "running", "queued"]


def test_a_wider_version_lets_more_in() -> None:
    flux = Dialogue(dag(task("a"), max_active_runs=1))
    flux.trigger()
    flux.trigger()
    flux.say(DagLoaded(dag(task("a"), max_active_runs=2), 1))
    assert flux.runs[2].state == "running"


def test_older_runs_come_first_among_equals() -> None:
    flux = Dialogue(dag(task("a"), task("b")), parallelism=1)
    flux.trigger()
    flux.trigger()
    order = []
    for fence in range(1, 5):
        row = next(row for row in flux.instances.values() if row.fence == fence)
        order.append((row.run_number, row.task_id))
        flux.ended(fence)
    assert order == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]


@pytest.mark.parametrize("edit", [{"pool": "wide"}, {"pool_slots": 1}, {"priority_weight": 9}])
def test_a_waiting_task_whose_pool_slots_or_priority_were_edited_waits_where_it_is_put(edit: dict[str, Any]) -> None:
    other = task("other", pool="wide")
    flux = Dialogue(
        dag(task("a", pool="narrow", pool_slots=2), task("b", pool="wide"), other),
        pools={"narrow": 1, "wide": 1},
    )
    flux.trigger()
    assert (flux.starts(), flux.state("a")) == (["b"], "scheduled")
    edited = replace(task("a", pool="narrow", pool_slots=2), **edit)
    flux.say(DagLoaded(dag(edited, task("b", pool="wide"), other), 2))
    flux.say(ClearTasks(9, 1, ((1, "a", -1),)), PoolSet("narrow", 9), PoolSet("wide", 9))
    assert flux.state("a") == "queued"
    assert [row.try_number for row in flux.attempts.values() if row.task_id == "a"] == [1]


def test_a_running_task_is_held_to_the_time_of_the_version_its_run_goes_on_with() -> None:
    flux = Dialogue(dag(task("a"), task("b")))
    flux.trigger()
    flux.started(1)
    flux.say(DagLoaded(dag(task("a", execution_timeout=60.0), task("b")), 2))
    flux.say(ClearTasks(9, 1, ((1, "b", -1),)))
    flux.wait(61)
    assert flux.instances[1, "a", -1].stop_reason == "timeout"


def test_a_dag_beside_a_backlog_begins_at_once() -> None:
    hourly = Schedule("cron", "0 * * * *")
    backlog = dag(task("a", kind="empty"), dag_id="backlog", schedule=hourly, start_date=NOON - timedelta(days=1000),
                  catchup=True, max_active_runs=100)  # fmt: skip
    flux = Dialogue(backlog, dag(task("a"), dag_id="d"))
    assert flux.wake_at() == flux.now  # the backlog has work for many turns
    flux.say(TriggerRun(1, "d"))
    assert flux.starts() == ["a"]


def test_dags_of_equal_priority_start_in_turns() -> None:
    flux = Dialogue(dag(*(task(f"t{number}") for number in range(9)), dag_id="crowd"), dag(task("x")), parallelism=1)
    flux.trigger("crowd")
    flux.trigger("d")
    flux.ended(1)
    assert flux.starts() == ["x"]


def test_a_wide_task_is_not_overtaken_for_ever() -> None:
    narrow = [task(f"n{number}") for number in range(6)]
    flux = Dialogue(dag(*narrow), dag(task("wide", pool_slots=2), dag_id="w"), pools={"default_pool": 2})
    flux.trigger()
    flux.trigger("w")
    flux.ended(1)
    assert flux.starts() == []
    assert why(flux, "n2") == "ready; it comes after w.wide, which waits for 2 slots of pool 'default_pool'"
    flux.ended(2)
    assert flux.starts() == ["wide"]


EDITS = {"pool": {"pool": "other"}, "priority": {"priority_weight": 9}, "slots": {"pool_slots": 2}, "same": {}}


@pytest.mark.parametrize("act", ["clear", "clear twice", "clear another", "mark"])
@pytest.mark.parametrize("edit", EDITS)
def test_a_task_stands_in_one_lane(edit: str, act: str) -> None:
    """The pool, the priority or the slots of a ready task are edited, and its run takes the newest version."""
    pools = {"default_pool": 1, "other": 0}
    before = (task("busy"), task("ready"), task("third"))
    flux = Dialogue(dag(*before), pools=pools, parallelism=9)
    flux.trigger()
    assert flux.states() == {"busy": "queued", "ready": "scheduled", "third": "scheduled"}
    flux.load(dag(before[0], task("ready", **EDITS[edit]), before[2]))
    match act:
        case "clear":
            flux.clear("ready")
        case "clear twice":
            flux.clear("ready")
            flux.clear("ready")
        case "clear another":
            flux.clear("third")
        case "mark":
            flux.clear("third")
            flux.say(MarkTasks(3, 1, ((1, "ready", -1),), State.SUCCESS))
    flux.say(PoolSet("default_pool", 9), PoolSet("other", 9))
    started = [row.task_id for row in flux.instances.values() if row.try_number]
    assert sorted(started) == (["busy", "third"] if act == "mark" else ["busy", "ready", "third"])
    assert all(row.try_number <= 1 for row in flux.instances.values())
