"""The people of the simulation: they trigger, cancel, clear, mark, pause, edit, remove and forget, at bad moments."""

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random

from fluxd.core.events import (
    AttemptEnded,
    AttemptLost,
    AttemptStarted,
    CancelRun,
    ClearTasks,
    DagLoaded,
    DagRemoved,
    Event,
    ForgetDag,
    MarkTasks,
    PauseDag,
    PoolSet,
    TriggerRun,
    WaitEnded,
)
from fluxd.core.model import InstanceKey
from fluxd.core.spec import WAITING_ROOM
from fluxd.core.states import State
from tests.sim.authors import edited, random_dag
from tests.sim.tables import Tables

WISHES = {
    "trigger": 10.0,
    "cancel": 3.0,
    "clear": 5.0,
    "mark": 3.0,
    "pause": 2.0,
    "unpause": 3.0,
    "edit": 3.5,
    "remove": 1.0,
    "forget": 0.5,
    "pool": 2.0,
    "foreign": 1.0,
}
Asking = Callable[[int], Event]  # a request number -> the request


def wish(rng: Random, tables: Tables, start: datetime) -> Event | Asking | None:
    """What somebody asks for next, or an event that comes from nowhere; None where there is nothing to ask it of."""
    dag_id = f"dag{rng.randrange(3)}"
    match rng.choices(list(WISHES), list(WISHES.values()))[0]:
        case "trigger":
            run_id = rng.choice((None, None, f"mine{rng.randrange(4)}"))
            logical_date = rng.choice((None, None, start))
            return lambda request: TriggerRun(request, dag_id, run_id, logical_date)
        case "pause":
            return lambda request: PauseDag(request, dag_id, True)
        case "unpause":
            return lambda request: PauseDag(request, dag_id, False)
        case "edit":
            known = tables.newest(dag_id)
            spec = random_dag(rng, dag_id, start) if known is None else edited(rng, known, start)
            version = tables.store_version(spec)
            return DagLoaded(tables.versions[version], version)
        case "remove":
            if dag_id not in tables.dags:
                return None
            tables.dags[dag_id].removed = True
            return DagRemoved(dag_id)
        case "forget":
            return lambda request: ForgetDag(request, dag_id)
        case "pool":
            name = rng.choice(tuple(tables.pools))
            tables.pools[name] = rng.choice((0, 1, 2, 4))
            return PoolSet(name, tables.pools[name])
        case "foreign":
            return _from_nowhere(rng, tables, start)
        case verb:
            return _wish_of_a_run(rng, tables, verb)


def _from_nowhere(rng: Random, tables: Tables, start: datetime) -> Event:
    """A message of an attempt that has ended, that never was, or that is with somebody else."""
    live = {fence for fence in tables.live_attempts.values() if tables.attempts[fence].executor != WAITING_ROOM}
    fence = rng.choice((0, -1, 10**12, *(fence for fence in list(tables.attempts)[-8:] if fence not in live)))
    at = rng.choice((start, start + timedelta(days=400), start - timedelta(days=400)))
    if live and rng.random() < 0.3:  # a process cannot end a wait, and a wait no process
        return WaitEnded(rng.choice(sorted(live)), "success", at, (("return_value", "foreign"),))
    success = {"state": "success", "xcoms": [["return_value", "foreign"]]}
    waits = {fence for fence in tables.live_attempts.values() if fence not in live}
    return rng.choice(
        (
            AttemptStarted(fence, 1, at),
            AttemptEnded(fence, 1, at, at, outcome=success),
            AttemptEnded(fence, None, None, at, exit_code=1),
            AttemptLost(fence, at, "from nowhere", rng.random() < 0.5),
            WaitEnded(0 if fence in waits else fence, "success", at, (("return_value", "foreign"),)),
        )
    )


def _wish_of_a_run(rng: Random, tables: Tables, verb: str) -> Asking | None:
    if not tables.runs:
        return None
    number = rng.choice(list(tables.runs)[-6:])
    rows = tables.by_run[number]
    keys: tuple[InstanceKey, ...] = ()
    if rows:
        some = rng.sample(list(rows), rng.randrange(1, min(3, len(rows)) + 1))
        keys = tuple(rows[task_id].key for task_id in some)
    if verb == "cancel":
        return lambda request: CancelRun(request, number)
    if verb == "mark":
        state = rng.choice((State.SUCCESS, State.FAILED, State.SKIPPED))
        return lambda request: MarkTasks(request, number, keys, state)
    keys = keys if rng.random() < 0.6 else ()
    downstream, only_failed = rng.random() < 0.7, rng.random() < 0.3
    return lambda request: ClearTasks(request, number, keys, downstream, only_failed)
