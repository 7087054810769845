"""What the database says of the past: the input of a scheduler at its start, and of a run that is brought back."""

from dataclasses import dataclass, field
from datetime import datetime

from fluxd.core.model import Attempt, Instance, PastStates, Run
from fluxd.core.spec import DagSpec


@dataclass(slots=True)
class DagRow:
    """A dag as the database has it, for recovery.

    `seen_before`: its timetable has begun, wherever it stands now; if not, it begins.
    `last_skipped`: the newest tick that was skipped.
    """

    spec: DagSpec
    version_id: int
    paused: bool
    next_due_at: datetime | None
    seen_before: bool = True
    removed: bool = False
    last_skipped: datetime | None = None


@dataclass(slots=True)
class PastRun:
    """How the tasks of a finished scheduled run ended, for tasks that depend on it (`depends_on_past`)."""

    dag_id: str
    due_at: datetime
    logical_date: datetime
    states: PastStates = field(default_factory=dict)


@dataclass(slots=True)
class Revived:
    """A finished run brought back to memory so that some of it can run again.

    `before`: the scheduled run of the dag that was due before it, for tasks that depend on their past.
    """

    run: Run
    spec: DagSpec
    instances: list[Instance]
    before: PastRun | None = None


@dataclass(slots=True)
class Snapshot:
    """All that the scheduler must know at start: the live part of the database.

    `versions` holds the specs that live runs are pinned to. `attempts` are the live ones.
    `last_run_number` and `last_fence` are the greatest ever given. `past`: per dag the newest finished scheduled run
    (its `states` may stay empty where no task has depends_on_past), and, for dags with depends_on_past, those finished
    runs that come directly before a live one.
    """

    dags: list[DagRow] = field(default_factory=list)
    versions: dict[int, DagSpec] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    pools: dict[str, int] = field(default_factory=dict)
    past: list[PastRun] = field(default_factory=list)
    last_run_number: int = 0
    last_fence: int = 0
