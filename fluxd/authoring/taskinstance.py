"""What a running task knows of itself: `ti`, `dag_run`, and the values that the tasks of its run exchange."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fluxd.authoring.daemon import Door
from fluxd.authoring.jsonvalue import SIZE_MAX_KB, to_json
from fluxd.authoring.progress import Kept, Progress
from fluxd.authoring.references import RETURN_VALUE
from fluxd.authoring.safely import spoken
from fluxd.errors import Invalid

if TYPE_CHECKING:
    from fluxd.authoring.operator import BaseOperator

MISSING: Any = object()


class Times:
    """Times as the daemon gave them (RFC 3339), read when somebody asks: most tasks look at few of them or at none."""

    def __init__(self, given: Mapping[str, Any], zone: tzinfo) -> None:
        self._given = given
        self._zone = zone

    def get(self, name: str) -> datetime | None:
        """In the zone of the dag."""
        value = self._given.get(name)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        return None if value is None else value.astimezone(self._zone)


@dataclass
class DagRun:
    """The run that a task belongs to; times in the zone of the dag."""

    dag_id: str
    run_id: str
    run_type: str
    conf: dict[str, Any]
    times: Times = field(repr=False, compare=False)

    @cached_property
    def logical_date(self) -> datetime:
        """The start of what the run covers, or the time that was asked for."""
        moment = self.times.get("logical_date")
        assert moment is not None  # every run has one
        return moment

    @cached_property
    def data_interval_start(self) -> datetime:
        return self.times.get("data_interval_start") or self.logical_date

    @cached_property
    def data_interval_end(self) -> datetime:
        return self.times.get("data_interval_end") or self.logical_date

    @cached_property
    def queued_at(self) -> datetime | None:
        return self.times.get("queued_at")

    @property
    def execution_date(self) -> datetime:
        return self.logical_date

    @property
    def external_trigger(self) -> bool:
        return self.run_type == "manual"


@dataclass
class XComStore:
    """The values that tasks of the run gave: those of direct upstreams are at hand, others are asked for."""

    door: Door | None
    at_hand: dict[str, dict[str, Any]]
    pushed: dict[str, Any] = field(default_factory=dict)
    size_max_kb: int = SIZE_MAX_KB

    def pull(self, task_id: str, key: str) -> Any:
        """The value, or MISSING."""
        if task_id in self.at_hand:
            return self.at_hand[task_id].get(key, MISSING)
        if self.door is None:
            return MISSING
        answer = self.door.get("xcom", task_id=task_id, key=key)
        return MISSING if answer is None else answer["value"]


@dataclass
class TaskInstance:
    """This task in this run: `ti` and `task_instance` in templates and functions."""

    task: "BaseOperator"
    run: DagRun
    map_index: int
    try_number: int
    max_tries: int
    xcoms: XComStore
    told: Progress
    kept: Kept

    @property
    def started_at(self) -> datetime | None:
        return self.run.times.get("started_at")

    @property
    def task_id(self) -> str:
        return self.task.task_id

    @property
    def dag_id(self) -> str:
        return self.run.dag_id

    @property
    def run_id(self) -> str:
        return self.run.run_id

    @property
    def logical_date(self) -> datetime:
        return self.run.logical_date

    @property
    def execution_date(self) -> datetime:
        return self.run.logical_date

    @property
    def dag_run(self) -> DagRun:
        return self.run

    @property
    def start_date(self) -> datetime | None:
        return self.started_at

    def progress(self, rows: int | None = None, bytes: int | None = None, note: str | None = None) -> None:
        """Say how far this try is: rows and bytes so far, and a short note. What is left out stays as it was.

        Cheap: the daemon is told once a second at most, and of the last call at the end. Raises Refused FLX-4240 when
        this attempt is not live any more.
        """
        self.told.tell(rows, bytes, note)

    def get_state(self) -> dict[str, Any]:
        """What `set_state` kept last in this try or one before it; {} where nothing was, or after a clear.

        Raises Refused FLX-4240 when this attempt is not live any more.
        """
        return self.kept.get()

    def set_state(self, state: dict[str, Any]) -> None:
        """Keep a small dict for the next try, in place of the last one: stored when this returns, whatever comes then.

        At most 64 KB of JSON. Raises Invalid FLX-3004, FLX-3005; Refused FLX-4240 when this attempt is over.
        """
        self.kept.set(state)

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep a value under `key` for other tasks of this run; it is stored when this try ends in success or skip.

        Raises Invalid FLX-3004 when it has no JSON form, FLX-3005 when it is too large.
        """
        if not isinstance(key, str) or not key or len(key) > 250 or "\0" in key:
            raise Invalid("FLX-3019", f"The key of an XCom is text of 1 to 250 characters, not {spoken(key)}.")
        what = (
            f"The XCom {spoken(key)} of task {self.task_id!r}"
            if key != RETURN_VALUE
            else f"What task {self.task_id!r} returned"
        )
        self.xcoms.pushed[key] = to_json(value, what, self.xcoms.size_max_kb)

    def xcom_pull(
        self, task_ids: str | Iterable[str] | None = None, key: str = RETURN_VALUE, default: Any = None, **other: Any
    ) -> Any:
        """What a task of this run returned or pushed under `key`; `default` where it did not.

        With a list of tasks a list of their values. Without task_ids: of the direct upstreams, the first that has it.
        """
        for name in other:
            raise Invalid("FLX-3020", f"xcom_pull() takes no argument {name!r}: it takes task_ids, key and default.")
        if isinstance(task_ids, str):
            if task_ids == self.task_id:
                found = self.xcoms.pushed.get(key, MISSING)
            else:
                found = self.xcoms.pull(task_ids, key)
            return default if found is MISSING else found
        if task_ids is None:
            values: Iterable[Mapping[str, Any]] = self.xcoms.at_hand.values()
            return next((of_task[key] for of_task in values if key in of_task), default)
        return [self.xcom_pull(task_id, key, default) for task_id in task_ids]
