"""A limit is never held by whoever waits for the one that it shuts out: something can always move."""

import itertools
from datetime import timedelta

import pytest

from fluxd.core.spec import DagSpec, Schedule
from fluxd.core.states import OCCUPYING, RunState, State
from tests.unit.core.dialogue import FAILED, NOON, SUCCESS, Dialogue, dag, task

DAILY = Schedule("cron", "0 12 * * *")
# The past matters to the first task, to the last one, to both, or to one beside another.
SHAPES = {
    "alone": (task("a", depends_on_past=True),),
    "beside": (task("a", depends_on_past=True), task("b")),
    "last": (task("a"), task("b", "a", depends_on_past=True)),
    "both": (task("a", depends_on_past=True), task("b", "a", depends_on_past=True)),
}


def spec(shape: str, limit: int, ticks: int = 3) -> DagSpec:
    start = NOON - timedelta(days=ticks)
    return dag(*SHAPES[shape], schedule=DAILY, start_date=start, end_date=NOON - timedelta(days=1), catchup=True,
               max_active_runs=limit)  # fmt: skip


def processes(flux: Dialogue) -> list[int]:
    return sorted(row.fence for row in flux.instances.values() if row.state in OCCUPYING and row.fence is not None)


def step(flux: Dialogue, action: tuple[str, int]) -> None:
    what, number = action
    match what:
        case "well" | "badly":
            running = processes(flux)
            if number < len(running):
                flux.ended(running[number], SUCCESS if what == "well" else FAILED)
        case "clear" | "clear failed":
            if number in flux.runs:
                flux.clear(run=number, only_failed=what == "clear failed")
        case "trigger":
            flux.trigger()


def stands_still(flux: Dialogue) -> str | None:
    """With nothing at work, every run that is left waits for an ended run that went wrong: only a person can help."""
    if processes(flux):
        return None
    live = [run for run in flux.runs.values() if run.state in (RunState.QUEUED, RunState.RUNNING) and run.due_at]
    if not live:
        return None
    first = min(live, key=lambda run: run.due_at or NOON)
    if first.state is RunState.QUEUED:
        return f"run {first.number} has no place, and everything waits for it"
    before = [run for run in flux.runs.values() if run.due_at and first.due_at and run.due_at < first.due_at]
    if not before:
        return f"run {first.number} has no past and does not run"
    past = max(before, key=lambda run: run.due_at or NOON)
    went_wrong = any(
        row.state not in (State.SUCCESS, State.SKIPPED) for key, row in flux.instances.items() if key[0] == past.number
    )
    return None if went_wrong else f"run {first.number} waits for a past that went well"


ACTIONS = [
    *itertools.product(("well", "badly"), (0, 1)),
    *itertools.product(("clear", "clear failed"), (1, 2)),
    ("trigger", 0),
]


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_small_life_of_a_dag_can_go_on(shape: str, limit: int) -> None:
    """All states that four such steps can lead to, each looked at once."""
    seen: set[tuple[object, ...]] = set()
    paths: list[tuple[tuple[str, int], ...]] = [()]
    for _ in range(4):
        longer = []
        for path in paths:
            for action in ACTIONS:
                flux = Dialogue(spec(shape, limit))
                for one in (*path, action):
                    step(flux, one)
                trouble = stands_still(flux)
                assert trouble is None, (path, action, trouble)
                state = (
                    tuple(sorted((number, str(run.state)) for number, run in flux.runs.items())),
                    tuple(sorted((key, str(row.state)) for key, row in flux.instances.items())),
                )
                if state not in seen and len(flux.runs) < 5:
                    seen.add(state)
                    longer.append((*path, action))
        paths = longer
    assert len(seen) > 15


def test_a_run_that_waits_for_its_past_makes_place_for_it() -> None:
    flux = Dialogue(spec("beside", 1))
    first, other = processes(flux)
    flux.ended(other)
    flux.ended(first, FAILED)
    flux.ended(processes(flux)[0])
    assert [str(flux.runs[number].state) for number in (1, 2)] == ["failed", "running"]
    flux.clear(run=1, only_failed=True)
    assert [str(flux.runs[number].state) for number in (1, 2)] == ["running", "queued"]
    (why,) = flux.scheduler.explain(2)
    assert "max_active_runs is 1; runs before it, which it depends on, go first" in why.words
    while processes(flux):
        flux.ended(processes(flux)[0])
    assert {str(run.state) for run in flux.runs.values()} == {"success"} and len(flux.runs) == 3


def test_a_limit_that_was_lowered_under_waiting_runs_lets_their_past_in() -> None:
    flux = Dialogue(spec("alone", 3))
    flux.ended(processes(flux)[0], FAILED)
    assert sum(run.state is RunState.RUNNING for run in flux.runs.values()) == 2
    flux.load(spec("alone", 1))
    flux.clear(run=1)
    assert [str(flux.runs[number].state) for number in (1, 2, 3)] == ["running", "queued", "queued"]


def test_a_run_at_work_keeps_its_place_until_it_only_waits() -> None:
    flux = Dialogue(spec("beside", 1))
    first, other = processes(flux)
    flux.ended(other)
    flux.ended(first, FAILED)
    flux.clear(run=1, only_failed=True)
    assert [str(flux.runs[number].state) for number in (1, 2)] == ["queued", "running"]
    flux.ended(processes(flux)[0])
    assert [str(flux.runs[number].state) for number in (1, 2)] == ["running", "queued"]


def test_a_cleared_run_does_not_wait_for_a_whole_catch_up() -> None:
    start = NOON - timedelta(days=100)
    flux = Dialogue(dag(task("a"), schedule=DAILY, start_date=start, catchup=True, max_active_runs=1))
    flux.ended(processes(flux)[0], FAILED)
    flux.clear(run=1)
    flux.ended(processes(flux)[0])
    assert flux.runs[1].state == "running"
