"""How long things have taken, each by the clock that is its own, as far as the present fluxd can know it.

A process has its time while the machine is awake; a pause and a wait end after so much time, whatever the machine did
in it. A fluxd that has just begun knows of what was before it only the dates in the rows.
"""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from fluxd.core.model import Instance, InstanceKey
from fluxd.core.moment import Moment
from fluxd.core.spec import TaskSpec
from tests.sim.rules import retry_delay

if TYPE_CHECKING:
    from tests.sim.tables import Change, Tables

# A clock that moved by less was not set.
SET_S = 1.0
NOTHING = timedelta()


def set_by(last: Moment | None, now: Moment) -> timedelta:
    """By how much the wall clock was set since the last turn; nothing where nobody can know."""
    if last is None:
        return NOTHING
    wall, passed = now.wall - last.wall, now.elapsed - last.elapsed
    return wall - passed if abs((wall - passed).total_seconds()) >= SET_S else NOTHING


def pause_s(row: Instance, task: TaskSpec) -> float:
    """Seconds between the failed try that this row tells of and the next one."""
    since_clear = max(1, 1 + task.retries - (row.max_tries - row.try_number))
    return retry_delay(since_clear, max(0.0, task.retry_delay), task.retry_exponential_backoff, task.max_retry_delay)


class Stopwatches:
    def __init__(self, tables: "Tables") -> None:
        self._tables = tables
        self._processes: dict[tuple[InstanceKey, int], timedelta] = {}  # awake: when this try began
        self._runs: dict[int, timedelta] = {}  # awake: when this run began
        self.pauses: dict[InstanceKey, timedelta] = {}  # elapsed: when the pause is over
        self.waits: dict[InstanceKey, timedelta] = {}  # elapsed: when the wait is over

    def process_began(self, row: Instance) -> timedelta | None:
        return self._processes.get((row.key, row.try_number))

    def run_began(self, number: int) -> timedelta | None:
        return self._runs.get(number)

    def recovered(self, now: Moment) -> None:
        """A new fluxd: the dates count, and no pause or wait lasts longer than it was to last."""
        tables = self._tables
        for watch in (self._processes, self._runs, self.pauses, self.waits):
            watch.clear()  # type: ignore[attr-defined]
        for number, run in tables.live_runs.items():
            if run.state == "running":
                self._runs[number] = now.awake - _ago(now, run.started_at)
            tasks = tables.versions[run.version_id].by_id
            for row in tables.by_run[number].values():
                self._process(row, now)
                if row.state == "up_for_retry" and row.retry_at is not None:
                    pause = timedelta(seconds=pause_s(row, tasks[row.task_id]))
                    self.pauses[row.key] = now.elapsed + min(row.retry_at - now.wall, pause)
                if row.state == "waiting" and row.wait_until is not None:
                    left, timeout = row.wait_until - now.wall, (row.wait or {}).get("timeout")
                    if timeout is not None:
                        left = min(left, timedelta(seconds=max(1.0, float(timeout))))
                    self.waits[row.key] = now.elapsed + left

    def committed(self, change: "Change", now: Moment, step: timedelta) -> None:
        for old_run, run in change.runs.values():
            again = old_run is None or old_run.state != "running" or old_run.started_at != run.started_at
            if run.state == "running" and again:
                self._runs[run.number] = now.awake
        for old, row in change.instances.values():
            self._process(row, now)
            if row.state == "up_for_retry" and row.retry_at is not None:
                same = old is not None and old.state == "up_for_retry" and old.retry_at is not None
                if not (same and old.retry_at in (row.retry_at, row.retry_at - step)):  # type: ignore[union-attr]
                    self.pauses[row.key] = now.elapsed + (row.retry_at - now.wall)
            if row.state == "waiting" and (old is None or old.state != "waiting"):
                self.waits.pop(row.key, None)
                if row.wait_until is not None:
                    self.waits[row.key] = now.elapsed + (row.wait_until - now.wall)

    def _process(self, row: Instance, now: Moment) -> None:
        if row.state in ("running", "waiting") and row.started_at is not None:
            self._processes.setdefault((row.key, row.try_number), now.awake - _ago(now, row.started_at))


def _ago(now: Moment, at: datetime | None) -> timedelta:
    return NOTHING if at is None else max(NOTHING, now.wall - at)
