"""(j): what the scheduler itself costs: a turn beside many dags, the end of an attempt beside many queued runs."""

import time
from datetime import UTC, datetime, timedelta

from fluxd.core.commands import StartAttempt
from fluxd.core.events import AttemptEnded, DagLoaded, TriggerRun
from fluxd.core.moment import Moment
from fluxd.core.scheduler import Scheduler
from fluxd.core.snapshot import Snapshot
from fluxd.core.spec import DagSpec, Schedule, TaskSpec
from tests.bench.figures import Figure

NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)
ENDS = 300
TASKS = (TaskSpec("a", "BashOperator"),)


def measure(repeat: int) -> list[Figure]:
    figures = []
    for queued in (10, 8000):
        figure = Figure("j", f"the end of an attempt, {queued:,} runs queued", "µs", more=False)
        figure.samples += [_end_of_an_attempt(queued) for _ in range(repeat)]
        figures.append(figure)
    for dags in (10, 5000):
        figure = Figure("j", f"the end of an attempt, {dags:,} scheduled dags", "µs", more=False)
        figure.samples += [_end_beside_dags(dags) for _ in range(repeat)]
        figures.append(figure)
    return figures


def _end_of_an_attempt(queued: int) -> float:
    scheduler = Scheduler(8)
    scheduler.recover(Snapshot(), Moment.at(NOON))
    scheduler.handle([DagLoaded(DagSpec("d", TASKS, max_active_runs=8), 1)], Moment.at(NOON))
    triggers = [TriggerRun(number, "d") for number in range(queued + ENDS + 8)]
    return _ends(scheduler, scheduler.handle(triggers, Moment.at(NOON)).commands, ENDS)


def _end_beside_dags(dags: int) -> float:
    scheduler = Scheduler(8)
    scheduler.recover(Snapshot(), Moment.at(NOON))
    specs = [DagSpec(f"d{number}", TASKS, Schedule("cron", "0 6 * * *")) for number in range(dags)]
    loads = [DagLoaded(spec, number) for number, spec in enumerate(specs, 1)]
    scheduler.handle(loads, Moment.at(NOON))
    triggers = [TriggerRun(number, "d0") for number in range(ENDS + 16)]
    return _ends(scheduler, scheduler.handle(triggers, Moment.at(NOON)).commands, ENDS)


def _ends(scheduler: Scheduler, commands: list[object], count: int) -> float:
    starts = [command for command in commands if isinstance(command, StartAttempt)]
    begun = time.perf_counter()
    for number in range(count):
        at = NOON + timedelta(milliseconds=number)
        fence = starts.pop(0).fence
        turn = scheduler.handle([AttemptEnded(fence, 1, at, at, outcome={"state": "success"})], Moment.at(at))
        starts += [command for command in turn.commands if isinstance(command, StartAttempt)]
    return (time.perf_counter() - begun) / count * 1e6
