"""The people of the simulation: they trigger, cancel, clear, mark, pause, edit, remove and forget, at bad moments."""

from datetime import datetime
from random import Random

from fluxd.core.events import (
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
)
from fluxd.core.model import InstanceKey
from fluxd.core.spec import DagSpec
from fluxd.core.states import State
from tests.sim.authors import edited, random_dag
from tests.sim.database import Database

WISHES = {
    "trigger": 10.0,
    "cancel": 3.0,
    "clear": 5.0,
    "mark": 3.0,
    "pause": 2.0,
    "unpause": 3.0,
    "edit": 2.0,
    "remove": 1.0,
    "forget": 0.5,
    "pool": 2.0,
}


def save_file(db: Database, spec: DagSpec) -> DagLoaded:
    """A dag file is saved, and loaded."""
    return DagLoaded(spec, db.store_version(spec))


def wish(rng: Random, db: Database, start: datetime, request: int) -> Event | None:
    """What somebody asks for next; None where there is nothing to ask it of."""
    dag_id = f"dag{rng.randrange(3)}"
    match rng.choices(list(WISHES), list(WISHES.values()))[0]:
        case "trigger":
            run_id = rng.choice((None, None, f"mine{rng.randrange(4)}"))
            return TriggerRun(request, dag_id, run_id, rng.choice((None, None, start)))
        case "pause":
            return PauseDag(request, dag_id, True)
        case "unpause":
            return PauseDag(request, dag_id, False)
        case "edit":
            known = db.dags.get(dag_id)
            return save_file(db, random_dag(rng, dag_id, start) if known is None else edited(rng, known.spec, start))
        case "remove":
            if dag_id not in db.dags:
                return None
            db.dags[dag_id].removed = True
            return DagRemoved(dag_id)
        case "forget":
            return ForgetDag(request, dag_id)
        case "pool":
            name = rng.choice(tuple(db.pools))
            db.pools[name] = rng.choice((0, 1, 2, 4))
            return PoolSet(name, db.pools[name])
        case verb:
            return _wish_of_a_run(rng, db, request, verb)


def _wish_of_a_run(rng: Random, db: Database, request: int, verb: str) -> Event | None:
    if not db.runs:
        return None
    number = rng.choice(list(db.runs)[-6:])
    rows = db.by_run[number]
    keys: tuple[InstanceKey, ...] = ()
    if rows:
        some = rng.sample(list(rows), rng.randrange(1, min(3, len(rows)) + 1))
        keys = tuple(rows[task_id].key for task_id in some)
    if verb == "cancel":
        return CancelRun(request, number)
    if verb == "mark":
        return MarkTasks(request, number, keys, rng.choice((State.SUCCESS, State.FAILED, State.SKIPPED)))
    keys = keys if rng.random() < 0.6 else ()
    return ClearTasks(request, number, keys, rng.random() < 0.7, rng.random() < 0.3)
