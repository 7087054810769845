"""Bounds in time: whatever is due happens within two seconds of its time, once nothing stands in its way.

What stands in the way is trouble that the world made: a daemon or a database that is away, a clock that was set. The
world says when it is over (`ready_since`).
"""

import heapq
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.sim.rules import ATTEMPT_LIVE, RUN_DONE
from tests.sim.violation import require

if TYPE_CHECKING:
    from tests.sim.tables import Change
    from tests.sim.world import World

GRACE_S = 2.0
POKE_SLACK_S = 100.0  # a look may hang for 30 s, and is given up after three in a row
POKE_PAUSE_MAX_S = 3600.0


class Deadlines:
    """A heap of (when by the daemon's clock, what, of whom), each held against the rows when its time is over."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.tables = world.tables
        self._heap: list[tuple[datetime, int, str, Any]] = []
        self._serial = 0
        self._asked: dict[int, dict[str, Any]] = {}

    def add(self, at: datetime, what: str, whom: Any) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (at, self._serial, what, whom))

    def committed(self, change: "Change", now: datetime) -> None:
        for old, row in change.instances.values():
            if row.state == "up_for_retry" and row.retry_at is not None:
                self.add(row.retry_at, "retry", (row.key, row.retry_at))
            elif row.state == "waiting" and row.wait_until is not None:
                self.add(row.wait_until, "wait", (row.key, row.wait_until))
            if row.state in ("running", "waiting") and row.stop_reason is None and row.started_at is not None:
                run = self.tables.runs[row.run_number]
                limit = self.tables.versions[run.version_id].by_id[row.task_id].execution_timeout
                if limit is not None:
                    self.add(row.started_at + timedelta(seconds=limit), "timeout", (row.key, row.fence))
            if row.stop_reason is not None and (old is None or old.stop_reason != row.stop_reason):
                self.add(now, "kill", (row.key, row.fence))
            if row.state == "queued" and (old is None or old.fence != row.fence):
                self.add(now, "start", (row.key, row.fence))
            if row.state == "waiting" and (old is None or old.state != "waiting"):
                self.add(now, "poll", (row.key, row.fence))
        for before, run in change.runs.values():
            if before is not None and before.version_id != run.version_id:
                for row in self.tables.by_run[run.number].values():
                    task = self.tables.versions[run.version_id].by_id[row.task_id]
                    if row.state == "running" and task.execution_timeout is not None and row.started_at is not None:
                        over = row.started_at + timedelta(seconds=task.execution_timeout)
                        self.add(max(now, over), "timeout", (row.key, row.fence))
            limit = self.tables.versions[run.version_id].dagrun_timeout
            if run.state == "running" and limit is not None and run.started_at is not None:
                self.add(run.started_at + timedelta(seconds=limit), "run", (run.number, run.started_at))
            if run.state in RUN_DONE:
                self.add(now, "tick", run.dag_id)
        for dag_id, (_, cursor) in change.cursors.items():
            if cursor.next_due_at is not None:
                self.add(max(now, cursor.next_due_at), "tick", dag_id)

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
        until = world.daemon_now() - timedelta(seconds=GRACE_S)
        while self._heap and self._heap[0][0] <= until:
            at, _, what, whom = heapq.heappop(self._heap)
            late = getattr(self, f"_{what}")(whom)
            require(not late, "overdue since", at, "it is", world.daemon_now(), ":", what, late)

    def _retry(self, whom: Any) -> Any:
        row = self.tables.instances.get(whom[0])
        return row if row is not None and row.state == "up_for_retry" and row.retry_at == whom[1] else None

    def _wait(self, whom: Any) -> Any:
        row = self.tables.instances.get(whom[0])
        return row if row is not None and row.state == "waiting" and row.wait_until == whom[1] else None

    def _timeout(self, whom: Any) -> Any:
        row = self.tables.instances.get(whom[0])
        if row is None or row.fence != whom[1] or row.state not in ("running", "waiting"):
            return None
        timeout = (row.wait or {}).get("timeout") if row.state == "waiting" else None
        if row.stop_reason is not None or timeout is not None:
            return None
        # A clear may have given its run another version.
        limit = self.tables.versions[self.tables.runs[row.run_number].version_id].by_id[row.task_id].execution_timeout
        over = limit is not None and row.started_at is not None
        at = self.world.daemon_now() - timedelta(seconds=GRACE_S)
        return row if over and row.started_at + timedelta(seconds=limit or 0) <= at else None

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
        limit = self.tables.versions[run.version_id].dagrun_timeout
        at = self.world.daemon_now() - timedelta(seconds=GRACE_S)
        return run if limit is not None and run.started_at + timedelta(seconds=limit) <= at else None

    def _tick(self, dag_id: Any) -> Any:
        entry, spec = self.tables.dags.get(dag_id), self.world.oracle.specs.get(dag_id)
        if entry is None or spec is None or entry.paused or entry.removed or dag_id in self.world.oracle.removed:
            return None
        due = entry.next_due_at
        if due is None or due > self.world.daemon_now() - timedelta(seconds=GRACE_S):
            return None
        running = sum(run.dag_id == dag_id and run.state == "running" for run in self.tables.live_runs.values())
        return entry if running < spec.max_active_runs else None
