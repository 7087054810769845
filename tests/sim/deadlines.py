"""Bounds in time: whatever is due happens within two seconds of its time, once nothing stands in its way.

What stands in the way is trouble that the world made: a daemon or a database that is away, a clock that was set. The
world says when it is over (`ready_since`).
"""

import heapq
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from fluxd.core.model import Instance, Run
from fluxd.core.moment import EPOCH, Moment
from tests.sim.rules import ATTEMPT_LIVE, RUN_DONE
from tests.sim.stopwatches import Stopwatches
from tests.sim.violation import require

if TYPE_CHECKING:
    from tests.sim.tables import Change
    from tests.sim.world import World

GRACE_S = 2.0
POKE_SLACK_S = 100.0  # a look may hang for 30 s, and is given up after three in a row
POKE_PAUSE_MAX_S = 3600.0


class Deadlines:
    """For each clock a heap of (when, what, of whom), each held against the rows when its time is over."""

    def __init__(self, world: "World", watches: Stopwatches) -> None:
        self.world = world
        self.tables = world.tables
        self.watches = watches
        self._heaps: dict[str, list[tuple[timedelta, int, str, Any]]] = {"wall": [], "awake": [], "elapsed": []}
        self._serial = 0
        self._asked: dict[int, dict[str, Any]] = {}

    def add(self, clock: str, at: timedelta, what: str, whom: Any) -> None:
        self._serial += 1
        heapq.heappush(self._heaps[clock], (at, self._serial, what, whom))

    def soon(self, now: Moment, what: str, whom: Any) -> None:
        """This has no time of its own: it is to happen at once."""
        self.add("awake", now.awake, what, whom)

    def recovered(self) -> None:
        """A new fluxd: what it knows of times before it may have changed with the wall clock."""
        for number, run in self.tables.live_runs.items():
            self._watch_run(run)
            for row in self.tables.by_run[number].values():
                self._watch(row)

    def _watch(self, row: Instance) -> None:
        if row.state == "up_for_retry" and (over := self.watches.pauses.get(row.key)) is not None:
            self.add("elapsed", over, "retry", (row.key, over))
        if row.state == "waiting" and (over := self.watches.waits.get(row.key)) is not None:
            self.add("elapsed", over, "wait", (row.key, over))
        over = self._process_over(row)
        if over is not None and row.stop_reason is None:
            self.add("awake", over, "timeout", (row.key, row.fence))

    def _watch_run(self, run: Run) -> None:
        if run.state == "running" and (over := self._run_over(run)) is not None:
            self.add("awake", over, "run", (run.number, run.started_at))

    def _process_over(self, row: Instance) -> timedelta | None:
        """When, awake, the execution_timeout of what runs or waits is over. A clear may have given it another one."""
        limit = self.tables.versions[self.tables.runs[row.run_number].version_id].by_id[row.task_id].execution_timeout
        began = self.watches.process_began(row)
        if limit is None or began is None or row.state not in ("running", "waiting"):
            return None
        timeout = (row.wait or {}).get("timeout") if row.state == "waiting" else None
        return None if timeout is not None and timeout <= limit else began + timedelta(seconds=limit)

    def _run_over(self, run: Run) -> timedelta | None:
        limit, began = self.tables.versions[run.version_id].dagrun_timeout, self.watches.run_began(run.number)
        return None if limit is None or began is None else began + timedelta(seconds=limit)

    def committed(self, change: "Change", now: Moment) -> None:
        for old, row in change.instances.values():
            self._watch(row)
            if row.stop_reason is not None and (old is None or old.stop_reason != row.stop_reason):
                self.soon(now, "kill", (row.key, row.fence))
            if row.state == "queued" and (old is None or old.fence != row.fence):
                self.soon(now, "start", (row.key, row.fence))
            if row.state == "waiting" and (old is None or old.state != "waiting"):
                self.soon(now, "poll", (row.key, row.fence))
        for before, run in change.runs.values():
            if before is not None and before.version_id != run.version_id:
                for row in self.tables.by_run[run.number].values():
                    self._watch(row)
            self._watch_run(run)
            if run.state in RUN_DONE:
                self.soon(now, "tick", run.dag_id)
        for dag_id, (_, cursor) in change.cursors.items():
            if cursor.next_due_at is not None:
                self.add("wall", max(now.wall, cursor.next_due_at) - EPOCH, "tick", dag_id)

    def asked(self, fence: int, request: dict[str, Any]) -> None:
        """The daemon polls for this attempt: what is true must be noticed."""
        self._asked[fence] = request
        question = self.world.questions.get((request.get("args") or {}).get("name", ""))
        interval = request.get("poke_interval")
        if (
            question is None
            or question.true_at is None
            or question.kind != "true"
            or not isinstance(interval, int | float)
        ):
            return
        waited = max(0.0, (question.true_at - self.world.loop.moment()).total_seconds())
        # Pauses of 1, 2, 4 … intervals: each is one interval longer than all before it together.
        pause = min(POKE_PAUSE_MAX_S, interval + waited) if request.get("exponential_backoff") else interval
        at = max(question.true_at, self.world.loop.moment()) + timedelta(seconds=POKE_SLACK_S + pause)
        self.world.later((at - self.world.loop.moment()).total_seconds(), lambda: self._noticed(fence, request, at))

    def _noticed(self, fence: int, request: dict[str, Any], at: datetime) -> None:
        if self._asked.get(fence) is not request:
            return  # it was asked for anew after a restart
        if self.world.loop.time() < self.world.ready_since + 400 or self.world.fluxd is None:
            return  # trouble between: the wait began anew
        attempt = self.tables.attempts.get(fence)
        require(
            attempt is None or attempt.state != "waiting", "what it waits for is there, and nobody noticed:", attempt
        )

    def check(self) -> None:
        """All whose time is over must have happened."""
        world = self.world
        if world.fluxd is None or not world.fluxd.up or world.clock_time() < world.ready_since + GRACE_S:
            return
        now, grace = world.moment(), timedelta(seconds=GRACE_S)
        for clock, reading in (("wall", now.wall - EPOCH), ("awake", now.awake), ("elapsed", now.elapsed)):
            heap = self._heaps[clock]
            while heap and heap[0][0] <= reading - grace:
                at, _, what, whom = heapq.heappop(heap)
                late = getattr(self, f"_{what}")(whom)
                require(not late, "overdue for", reading - at, f"({clock}), it is", now.wall, ":", what, late)

    def _retry(self, whom: Any) -> Any:
        row = self.tables.instances.get(whom[0])
        return (
            row
            if row is not None and row.state == "up_for_retry" and self.watches.pauses.get(whom[0]) == whom[1]
            else None
        )

    def _wait(self, whom: Any) -> Any:
        row = self.tables.instances.get(whom[0])
        same = self.watches.waits.get(whom[0]) == whom[1]
        return row if row is not None and row.state == "waiting" and same else None

    def _timeout(self, whom: Any) -> Any:
        row = self.tables.instances.get(whom[0])
        if row is None or row.fence != whom[1] or row.stop_reason is not None:
            return None
        return row if self._is_late(self._process_over(row)) else None

    def _is_late(self, over: timedelta | None) -> bool:
        return over is not None and over <= self.world.moment().awake - timedelta(seconds=GRACE_S)

    def _kill(self, whom: Any) -> Any:
        row = self.tables.instances.get(whom[0])
        process = self.world.runner.running.get(whom[1])
        told = row is not None and row.fence == whom[1] and row.stop_reason is not None
        return row if told and process is not None and not process.killed else None

    def _start(self, whom: Any) -> Any:
        row = self.tables.instances.get(whom[0])
        if row is None or row.fence != whom[1] or row.state != "queued" or row.stop_reason is not None:
            return None
        return None if whom[1] in self.world.runner.known() else row

    def _poll(self, whom: Any) -> Any:
        row = self.tables.instances.get(whom[0])
        if row is None or row.fence != whom[1] or row.state != "waiting":
            return None
        return row if whom[1] not in self._asked else None

    def _ack(self, fence: Any) -> Any:
        attempt = self.tables.attempts.get(fence)
        runner = self.world.runner
        there = fence in runner.ended or fence in runner.lost
        ended = attempt is None or attempt.state not in ATTEMPT_LIVE or attempt.state == "waiting"
        return ("not acknowledged", fence) if there and ended else None

    def _run(self, whom: Any) -> Any:
        run = self.tables.runs.get(whom[0])
        if run is None or run.state != "running" or run.started_at != whom[1] or run.cancelling or run.reason:
            return None
        return run if self._is_late(self._run_over(run)) else None

    def _tick(self, dag_id: Any) -> Any:
        entry, spec = self.tables.dags.get(dag_id), self.world.oracle.specs.get(dag_id)
        if entry is None or spec is None or entry.paused or entry.removed or dag_id in self.world.oracle.removed:
            return None
        due = entry.next_due_at
        if due is None or due > self.world.daemon_now() - timedelta(seconds=GRACE_S):
            return None
        running = sum(run.dag_id == dag_id and run.state == "running" for run in self.tables.live_runs.values())
        return entry if running < spec.max_active_runs else None
