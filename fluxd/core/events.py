"""What the world tells the scheduler. Events are facts: frozen, plain data, named in the past tense or as a request.

A request carries `request`, a number that its `Reply` command names again, so that whoever asked gets the answer
after it was saved.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fluxd.core.model import InstanceKey
from fluxd.core.spec import LOCAL, DagSpec
from fluxd.core.states import State


@dataclass(frozen=True, slots=True)
class DagLoaded:
    """A dag is new or has a new version. `version_id` is the key of the stored version.

    `paused` counts only for a dag that was never seen before (None: as its spec says, else not paused).
    """

    spec: DagSpec
    version_id: int
    paused: bool | None = None


@dataclass(frozen=True, slots=True)
class DagRemoved:
    """The dag's file is gone, or no longer defines it. Its live runs end on their pinned version."""

    dag_id: str


@dataclass(frozen=True, slots=True)
class PoolSet:
    """A pool has this many slots."""

    name: str
    slots: int


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """The process of an attempt runs. This and what follows count only from the executor that the attempt is with."""

    fence: int
    pid: int
    at: datetime
    executor: str = LOCAL


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """The process of an attempt is gone. `outcome` is what the child wrote, None if it wrote nothing.

    outcome: {"state": "success" | "failed" | "skipped" | "waiting",
              "error": {"type", "message", "retry": bool} | absent,
              "xcoms": [[key, value], …], "wait": {…} | absent, "rendered": {field: text},
              "progress": {"rows", "bytes", "note"} | absent}
    `killed`: why it was told to stop before it ended by itself, None if it was not.
    """

    fence: int
    pid: int | None
    started_at: datetime | None
    ended_at: datetime
    exit_code: int | None = None
    signal: int | None = None
    outcome: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    killed: str | None = None
    executor: str = LOCAL


@dataclass(frozen=True, slots=True)
class AttemptLost:
    """The attempt's process is proved gone and left no result; `evidence` says in words how we know.

    `began`: False where it is proved that nothing of the task ran.
    """

    fence: int
    at: datetime
    evidence: str
    began: bool = True
    executor: str = LOCAL


@dataclass(frozen=True, slots=True)
class WaitEnded:
    """A waiting instance's wait is over. state: "success" | "failed" | "skipped"."""

    fence: int
    state: str
    at: datetime
    xcoms: tuple[tuple[str, Any], ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class TriggerRun:
    """Somebody wants a run now. Reply: the run as a dict (`run_to_json`), or a FluxError.

    `taken`: a run of this id is in the database (the scheduler remembers live runs only, so the engine looks).
    """

    request: int
    dag_id: str
    run_id: str | None = None
    logical_date: datetime | None = None
    conf: dict[str, Any] = field(default_factory=dict)
    by: str = "unknown"
    taken: bool = False


@dataclass(frozen=True, slots=True)
class PauseDag:
    """Pause (no new runs; live ones go on) or unpause. Reply: {"dag_id", "paused"}."""

    request: int
    dag_id: str
    paused: bool
    by: str = "unknown"


@dataclass(frozen=True, slots=True)
class CancelRun:
    """Stop a live run: its processes are ended, then it is cancelled. Reply: the run."""

    request: int
    run_number: int
    by: str = "unknown"


@dataclass(frozen=True, slots=True)
class ClearTasks:
    """Run these again: live ones are stopped first. Reply: {"cleared": [[task_id, map_index], …],
    "note": what people should know of the version that the run goes on with, or None}.

    A finished run is not in memory: `revive` carries its rows then (made by the engine from the database).
    """

    request: int
    run_number: int
    keys: tuple[InstanceKey, ...] = ()  # empty: all
    downstream: bool = True
    only_failed: bool = False
    by: str = "unknown"
    revive: "Any | None" = None  # core.snapshot.Revived


@dataclass(frozen=True, slots=True)
class MarkTasks:
    """A person says how these ended: state success | failed | skipped. Reply: {"marked": [[task_id, map_index], …]}."""

    request: int
    run_number: int
    keys: tuple[InstanceKey, ...]
    state: State
    by: str = "unknown"
    revive: "Any | None" = None


@dataclass(frozen=True, slots=True)
class ForgetDag:
    """Delete a dag and its history. Refused while it has live runs. Reply: {"dag_id"}."""

    request: int
    dag_id: str
    by: str = "unknown"


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The daemon is stopped from its terminal: nothing more starts, and what runs is ended and fails.

    Reply, at once: {"ending": [[task_id, map_index], …]}.
    """

    request: int


Event = (
    DagLoaded
    | DagRemoved
    | PoolSet
    | AttemptStarted
    | AttemptEnded
    | AttemptLost
    | WaitEnded
    | TriggerRun
    | PauseDag
    | CancelRun
    | ClearTasks
    | MarkTasks
    | ForgetDag
    | Interrupt
)
