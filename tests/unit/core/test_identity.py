"""Who a message is about: a task instance is (run, task, map index), an attempt is (fence, leg, executor)."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxd.core.commands import AckAttempt, KillAttempt, StartAttempt
from fluxd.core.events import (
    AttemptEnded,
    AttemptLost,
    AttemptStarted,
    ClearTasks,
    Event,
    Interrupt,
    MarkTasks,
    WaitEnded,
)
from fluxd.core.live import Dag, LiveRun, make_plan
from fluxd.core.model import Instance, Run
from fluxd.core.snapshot import DagRow, PastRun
from fluxd.core.spec import DagSpec, Schedule, TaskSpec
from fluxd.core.states import FINISHED, AttemptState, RunState, State
from fluxd.core.timetable import NO_TIMETABLE
from fluxd.core.working_set import WorkingSet
from tests.unit.core.dialogue import FAILED, NOON, SUCCESS, Dialogue, dag, task

WAIT = {"state": "waiting", "wait": {"sensor": "FileSensor", "args": {"path": "/x"}, "timeout": 100.0}}

# -- attempts: every kind of message, about every state of a leg that it may not touch --------------------------------

Say = Callable[[int], Event]


def ended(outcome: dict[str, Any] | None, executor: str = "local") -> Say:
    return lambda fence: AttemptEnded(fence, 7, NOON, NOON, exit_code=0, outcome=outcome, executor=executor)


FROM_A_PROCESS: dict[str, Say] = {
    "started": lambda fence: AttemptStarted(fence, 7, NOON),
    "ended well": ended(SUCCESS),
    "ended badly": ended(FAILED),
    "ended without a word": ended(None),
    "ended waiting": ended(WAIT),
    "lost": lambda fence: AttemptLost(fence, NOON, "it is gone"),
    "never begun": lambda fence: AttemptLost(fence, NOON, "it is gone", began=False),
}
FROM_A_WAIT: dict[str, Say] = {
    "came": lambda fence: WaitEnded(fence, "success", NOON, (("return_value", 1),)),
    "failed": lambda fence: WaitEnded(fence, "failed", NOON, (), "no such disk"),
    "skipped": lambda fence: WaitEnded(fence, "skipped", NOON),
}
FROM_ANOTHER_EXECUTOR: dict[str, Say] = {
    "started elsewhere": lambda fence: AttemptStarted(fence, 7, NOON, "celery"),
    "ended elsewhere": ended(SUCCESS, "celery"),
    "waiting elsewhere": ended(WAIT, "celery"),
    "lost elsewhere": lambda fence: AttemptLost(fence, NOON, "it is gone", executor="celery"),
    "ended in the daemon's name": ended(SUCCESS, "daemon"),
    "lost in the daemon's name": lambda fence: AttemptLost(fence, NOON, "it is gone", executor="daemon"),
}
ALL = FROM_A_PROCESS | FROM_A_WAIT | FROM_ANOTHER_EXECUTOR


def _begun() -> Dialogue:
    flux = Dialogue(dag(task("a", kind="sensor", retries=2, retry_delay=0.0), task("b", "a")))
    flux.trigger()
    return flux


def _running() -> Dialogue:
    flux = _begun()
    flux.started(1)
    return flux


def _waiting() -> Dialogue:
    flux = _running()
    flux.ended(1, WAIT)
    return flux


def _waited() -> Dialogue:
    """The wait failed, and the next try runs."""
    flux = _waiting()
    flux.say(WaitEnded(2, "failed", NOON, (), "no such disk"))
    flux.started(3)
    return flux


def _waiting_again() -> Dialogue:
    flux = _waited()
    flux.ended(3, WAIT)
    return flux


def _cleared() -> Dialogue:
    flux = _waiting()
    flux.say(ClearTasks(1, 1))
    return flux


def _over() -> Dialogue:
    flux = _waiting()
    flux.say(WaitEnded(2, "success", NOON))
    return flux


# name -> (what has happened, the fence that is named, the messages that are about it and must not count)
STATES: dict[str, tuple[Callable[[], Dialogue], int, dict[str, Say]]] = {
    "a fence that never was": (_running, 99, ALL),
    "a queued leg": (_begun, 1, FROM_A_WAIT | FROM_ANOTHER_EXECUTOR),
    "a running leg": (_running, 1, FROM_A_WAIT | FROM_ANOTHER_EXECUTOR),
    "the leg that asked, while its wait lives": (_waiting, 1, ALL),
    "a wait that lives": (_waiting, 2, FROM_A_PROCESS | FROM_ANOTHER_EXECUTOR),
    "the leg that asked, of an earlier try": (_waited, 1, ALL),
    "a wait of an earlier try": (_waited, 2, ALL),
    "the leg that asked first, while a later wait lives": (_waiting_again, 1, ALL),
    "an earlier wait, while a later one lives": (_waiting_again, 2, ALL),
    "the leg that asked, of this try": (_waiting_again, 3, ALL),
    "the leg that asked, after a clear": (_cleared, 1, ALL),
    "a wait, after a clear": (_cleared, 2, ALL),
    "the leg that asked, after the end": (_over, 1, ALL),
    "a wait, after its end": (_over, 2, ALL),
}


@pytest.mark.parametrize("state", STATES)
def test_a_message_that_is_not_about_a_live_leg_of_its_sender_changes_nothing(state: str) -> None:
    happened, fence, messages = STATES[state]
    for name, say in messages.items():
        flux = happened()
        wake = flux.wake_at()
        before = (dict(flux.runs), dict(flux.instances), dict(flux.attempts))
        event = say(fence)
        turn = flux.say(event)
        assert not turn.saves, (state, name)
        assert (flux.runs, flux.instances, flux.attempts) == before, (state, name)
        acknowledged = isinstance(event, AttemptEnded | AttemptLost)
        assert turn.commands == ([AckAttempt(fence, event.executor)] if acknowledged else []), (state, name)
        assert flux.wake_at() == wake, (state, name)


def test_what_hands_its_work_over_is_over_and_the_wait_has_a_leg_of_its_own() -> None:
    flux = _waiting()
    asked, wait = flux.attempts[1], flux.attempts[2]
    assert (asked.leg, asked.executor, asked.state, asked.ended_at) == (1, "local", AttemptState.DEFERRED, NOON)
    assert (wait.leg, wait.executor, wait.state, wait.ended_at) == (2, "daemon", AttemptState.WAITING, None)
    assert (asked.try_number, wait.try_number, flux.instances[1, "a", -1].try_number) == (1, 1, 1)
    flux.say(WaitEnded(2, "success", NOON))
    assert (flux.attempts[1].state, flux.attempts[2].state, flux.state("a")) == ("deferred", "success", "success")


def test_an_end_that_is_told_twice_in_one_turn_begins_one_wait() -> None:
    flux = _running()
    flux.say(ended(WAIT)(1), ended(WAIT)(1), AttemptLost(1, NOON, "gone"))
    assert [wait.fence for wait in flux.waits()] == [2]
    assert sorted(flux.attempts) == [1, 2]


def test_a_wait_is_remembered_over_a_restart() -> None:
    flux = _waiting().restarted()
    assert [wait.fence for wait in flux.scheduler.unsettled("daemon", set()) if wait.fence] == [2]  # type: ignore[union-attr]
    assert flux.scheduler.unsettled("local", set()) == [] and flux.scheduler.vanished("local", set(), NOON) == []
    assert not flux.ended(1, WAIT).saves
    flux.now += timedelta(seconds=100)
    flux.say()
    assert flux.attempts[2].state == "failed"


# -- executors --------------------------------------------------------------------------------------------------------

TWO = dag(task("here"), task("there", executor="celery"), task("asks", kind="sensor"))


def _two() -> Dialogue:
    flux = Dialogue(TWO)
    flux.trigger()
    flux.ended(3, WAIT)
    return flux


def test_commands_name_the_executor_of_their_attempt() -> None:
    flux = Dialogue(dag(task("here"), task("there", executor="celery", execution_timeout=60.0)))
    flux.trigger()
    starts = {one.instance.task_id: one.executor for one in flux.turn.commands if isinstance(one, StartAttempt)}
    assert starts == {"here": "local", "there": "celery"}
    assert {row.task_id: row.executor for row in flux.attempts.values()} == starts
    flux.say(AttemptStarted(1, 7, NOON), AttemptStarted(2, 7, NOON, "celery"))
    assert flux.wait(60).commands == [KillAttempt(2, "timeout", "celery")]
    flux.say(Interrupt(1))
    assert [one.executor for one in flux.turn.commands if isinstance(one, KillAttempt)] == ["local", "celery"]
    flux.say(ended(None, "celery")(2), ended(None)(1))
    assert flux.turn.commands == [AckAttempt(2, "celery"), AckAttempt(1, "local")]


@pytest.mark.parametrize(
    ("executor", "known", "again", "lost"),
    [
        ("local", set(), [1], []),
        ("local", {1}, [], []),
        ("celery", set(), [2], []),
        ("celery", {2}, [], []),
        ("celery", {1}, [2], []),  # another's fence says nothing
        ("daemon", set(), [4], []),
        ("dask", set(), [], []),
    ],
)
def test_what_an_executor_does_not_know_is_judged_for_that_one_alone(
    executor: str, known: set[int], again: list[int], lost: list[int]
) -> None:
    flux = _two()
    assert [one.fence for one in flux.scheduler.unsettled(executor, known)] == again  # type: ignore[union-attr]
    assert [one.fence for one in flux.scheduler.vanished(executor, known, NOON)] == lost
    flux.say(AttemptStarted(1, 7, NOON), AttemptStarted(2, 7, NOON, "celery"))
    mine = {"local": {1}, "celery": {2}}.get(executor, set()) - known
    found = flux.scheduler.vanished(executor, known, NOON)
    assert {one.fence for one in found} == mine and {one.executor for one in found} <= {executor}
    flux.say(*found)
    assert {fence for fence, row in flux.attempts.items() if row.state == "lost"} == mine


# -- task instances: several of one task ------------------------------------------------------------------------------

MAPPED = dag(task("list"), task("m", "list", retries=1, retry_delay=60.0), task("n", "m"), task("join", "n"))


def _rows(run: int, states: dict[tuple[str, int], State]) -> list[Instance]:
    return [Instance(run, task_id, index, state, max_tries=2) for (task_id, index), state in states.items()]


def _mapped(**states: State) -> Dialogue:
    """A run in which `m` and `n` have three instances each, as a mapped task has; `list` has ended."""
    found = {("list", -1): State.SUCCESS, ("join", -1): State.NONE}
    found |= {(task_id, index): states.get(task_id, State.NONE) for task_id in ("n", "m") for index in (2, 0, 1)}
    run = Run(1, "d", "r", "manual", RunState.RUNNING, 1, NOON, NOON, NOON, None, NOON, NOON)
    flux = Dialogue(versions={1: MAPPED}, dags=[DagRow(MAPPED, 1, False, None)], runs=[run], instances=_rows(1, found))
    flux.specs = {1: MAPPED}
    return flux


def _fences(flux: Dialogue, task_id: str) -> dict[int, int]:
    starts = [one for one in flux.turn.commands if isinstance(one, StartAttempt) and one.instance.task_id == task_id]
    return {one.instance.map_index: one.fence for one in starts}


def _states(flux: Dialogue, task_id: str) -> list[str]:
    return [str(flux.instances[1, task_id, index].state) for index in range(3)]


def test_instances_of_one_task_are_told_apart() -> None:
    flux = _mapped()
    fences = _fences(flux, "m")
    assert list(fences) == [0, 1, 2], "they start in the order of their index"
    flux.ended(fences[1], SUCCESS | {"xcoms": [["return_value", "one"]]})
    assert [(one.map_index, one.value) for one in flux.turn.saves.xcoms] == [(1, "one")]
    assert _states(flux, "m") == ["queued", "success", "queued"]
    flux.ended(fences[2], FAILED)
    assert _states(flux, "m") == ["queued", "success", "up_for_retry"]
    words = {(why.task_id, why.map_index): why.words for why in flux.scheduler.explain(1)}
    assert words["n", 0] == "it waits for m[0], m[2] (trigger rule all_success)"
    flux.wait(60)  # the timer of a retry names its instance
    assert list(_fences(flux, "m")) == [2]


def test_all_instances_before_are_counted_once_each() -> None:
    flux = _mapped()
    first = _fences(flux, "m")
    for index in (2, 0):
        flux.ended(first[index])
        assert _fences(flux, "n") == {}
    flux.ended(first[1])
    second = _fences(flux, "n")
    assert list(second) == [0, 1, 2]
    for fence in second.values():
        flux.ended(fence)
    assert flux.starts() == ["join"]
    flux.ended(_fences(flux, "join")[-1])
    assert flux.runs[1].state == "success"


def test_a_failure_names_the_instance() -> None:
    flux = _mapped()
    for index, fence in _fences(flux, "m").items():
        flux.ended(fence, {"state": "failed", "error": {"message": "no", "retry": False}} if index == 1 else SUCCESS)
    assert flux.instances[1, "n", 2].reason == "its trigger rule all_success cannot be met: m[0] success, m[1] failed"
    assert (flux.runs[1].state, flux.runs[1].reason) == ("failed", "task m[1] failed: no")


def test_one_instance_is_cleared_with_what_is_behind_its_task() -> None:
    flux = _mapped(m=State.SUCCESS, n=State.SUCCESS)
    flux.say(ClearTasks(1, 1, ((1, "m", 1),)))
    behind = [["n", 0], ["n", 1], ["n", 2], ["join", -1]]
    assert flux.reply().value["cleared"] == [["m", 1], *behind]
    assert list(_fences(flux, "m")) == [1]


def test_one_instance_is_marked_alone() -> None:
    flux = _mapped()
    flux.say(MarkTasks(1, 1, ((1, "n", 2),), State.SUCCESS))
    assert flux.reply().value == {"marked": [["n", 2]]}
    assert flux.instances[1, "n", 2].state == "success" and (1, "n", 0) not in flux.instances


@pytest.mark.parametrize(("task_id", "index"), [("m", -1), ("m", 3), ("list", 0), ("nobody", -1)])
def test_an_instance_that_is_not_there_is_refused(task_id: str, index: int) -> None:
    flux = _mapped()
    flux.say(ClearTasks(1, 1, ((1, task_id, index),)))
    error = flux.reply().error
    assert error is not None and error.code == "FLX-4211"
    assert ("with map index" in error.message) is (index >= 0)


def test_an_instance_depends_on_the_past_of_the_same_index() -> None:
    hourly = Schedule("cron", "0 * * * *")
    spec = dag(task("m", depends_on_past=True), schedule=hourly)
    before = PastRun("d", NOON, NOON - timedelta(hours=1), {("m", 0): State.SUCCESS, ("m", 1): State.FAILED})
    due = NOON + timedelta(hours=1)
    run = Run(2, "d", "r", "scheduled", RunState.RUNNING, 1, NOON, NOON, due, due, NOON, NOON)
    rows = [Instance(2, "m", index) for index in range(3)]
    row = DagRow(spec, 1, False, due + timedelta(hours=1))
    flux = Dialogue(versions={1: spec}, dags=[row], runs=[run], instances=rows, past=[before])
    assert list(_fences(flux, "m")) == [0, 2], "the third is new, and has no past"
    assert [why.map_index for why in flux.scheduler.explain(2) if "depends on its past" in why.words] == [1]


def test_the_end_of_an_instance_wakes_the_same_index_of_the_run_after() -> None:
    spec = dag(task("m", depends_on_past=True), schedule=Schedule("cron", "0 * * * *"))
    runs, rows = [], []
    for number, hours in ((1, 0), (2, 1)):
        due = NOON + timedelta(hours=hours)
        runs.append(Run(number, "d", f"r{number}", "scheduled", RunState.RUNNING, 1, due, due, due, due, due, due))
        rows += [Instance(number, "m", index) for index in range(3)]
    row = DagRow(spec, 1, False, NOON + timedelta(hours=9))
    flux = Dialogue(versions={1: spec}, dags=[row], runs=runs, instances=rows, last_run_number=2)
    first = _fences(flux, "m")
    assert list(first) == [0, 1, 2] and {key[0] for key in flux.instances} == {1}
    flux.ended(first[1])
    (start,) = [one for one in flux.turn.commands if isinstance(one, StartAttempt)]
    assert start.instance.key == (2, "m", 1)


@st.composite
def _shapes(draw: st.DrawFn) -> tuple[DagSpec, list[Instance]]:
    """A dag of up to five tasks, and the instances of a run of it: one of a task, or several."""
    names = ["a", "b", "c", "d", "e"][: draw(st.integers(1, 5))]
    tasks = [
        TaskSpec(name, "X", upstream=tuple(draw(st.sets(st.sampled_from(names[:at]))) if at else ()))
        for at, name in enumerate(names)
    ]
    rows = []
    for name in names:
        indexes = draw(st.sampled_from([[-1], [0], [0, 1, 2], [0, 4, 7]]))
        rows += [Instance(1, name, index, draw(st.sampled_from([State.NONE, State.SUCCESS]))) for index in indexes]
    return DagSpec("d", tuple(tasks)), draw(st.permutations(rows))


@given(_shapes(), st.lists(st.tuples(st.integers(0, 99), st.sampled_from(sorted(FINISHED | {State.NONE})))))
def test_counters_after_any_moves_are_those_of_the_rows(
    shape: tuple[DagSpec, list[Instance]], moves: list[tuple[int, State]]
) -> None:
    spec, rows = shape
    run = Run(1, "d", "r", "manual", RunState.RUNNING, 1, NOON, NOON, NOON, None, NOON, NOON)
    known = Dag(spec, 1, make_plan(spec), NO_TIMETABLE)
    live = LiveRun(run, spec, known.plan, known, rows)
    assert {node.key for node in live.nodes} == {row.key for row in rows}
    working = WorkingSet(8)
    for number, state in moves:
        node = live.nodes[number % len(live.nodes)]
        if state is not node.instance.state and state not in (State.REMOVED, State.UPSTREAM_FAILED, State.CANCELLED):
            working.move(node, state)
    counted = LiveRun(run, spec, known.plan, known, [replace(node.instance) for node in live.nodes])
    assert [(place.upstream, place.counts) for place in live.places] == [
        (place.upstream, place.counts) for place in counted.places
    ]
    assert live.open == counted.open
    for node in live.nodes:
        assert live.node(*node.key[1:]) is node


def test_a_hundred_thousand_instances_before_and_behind_are_counted_and_not_paired() -> None:
    size = 100_000
    spec = dag(task("m"), task("n", "m"), task("join", "n"))
    run = Run(1, "d", "r", "manual", RunState.RUNNING, 1, NOON, NOON, NOON, None, NOON, NOON)
    known = Dag(spec, 1, make_plan(spec), NO_TIMETABLE)
    rows = [Instance(1, name, index) for name in ("m", "n") for index in range(size)]
    live = LiveRun(run, spec, known.plan, known, rows)
    working = WorkingSet(8)
    for node in live.places[0].members:
        working.move(node, State.SUCCESS)
    assert len(working.to_judge) == size, "those behind are looked at once, when the last one before them has ended"
    assert live.places[1].counts[1] == size
