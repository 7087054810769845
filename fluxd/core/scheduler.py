"""The scheduler: a pure state machine. Events and the time go in, one Turn comes out.

It holds live runs only. It never waits, reads a clock, rolls a die or touches a file; whoever calls it saves the turn,
then acts on it. A scheduler whose turn could not be saved is thrown away and a new one recovers from the database.
"""

from collections.abc import Iterable, Set
from datetime import datetime, timedelta
from typing import Any

from fluxd.core import attempts, dags, recovery, requests
from fluxd.core.catchup import skip_missed
from fluxd.core.commands import Command, Turn
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
    Interrupt,
    MarkTasks,
    PauseDag,
    PoolSet,
    TriggerRun,
    WaitEnded,
)
from fluxd.core.explain import Explanation, explain
from fluxd.core.model import Instance
from fluxd.core.moment import STEP, Moment, clock_step
from fluxd.core.settle import settle
from fluxd.core.snapshot import Snapshot
from fluxd.core.timers import Timer
from fluxd.core.working_set import WorkingSet
from fluxd.errors import FluxError

# A turn begins no more runs than this: a long catch-up is worked off in slices, and others have their say between.
RUNS_PER_TURN = 100
# Ticks of a time that the machine slept through, or that the wall clock left out, are missed when it was this long.
ASLEEP = timedelta(minutes=10)


class Scheduler:
    """Decides. `recover` first, then `handle` whenever events came or `wake_in` has passed."""

    def __init__(self, parallelism: int = 32) -> None:
        self._working = WorkingSet(parallelism)
        self._last: Moment | None = None

    def recover(self, snapshot: Snapshot, now: Moment, since: Moment | None = None) -> Turn:
        """Remember the live part of the database and draw the conclusions of the time that has passed.

        `since`: when the last turn was of a scheduler in this process that this one takes over from: then fluxd has
        been running, and no tick was missed because of that.
        """
        self._working.clock = now
        recovery.recover(self._working, snapshot, now.wall, away=since is None)
        self._last = since
        self._look_at_the_clock(now)
        return self._end_turn(now)

    @property
    def last(self) -> Moment | None:
        """When the last turn was."""
        return self._last

    def handle(self, events: Iterable[Event], now: Moment) -> Turn:
        """All of these events at this moment, in their order; also everything that is due by now."""
        self._look_at_the_clock(now)
        for event in events:
            self._take(event, now.wall)
        return self._end_turn(now)

    def wake_in(self, now: Moment) -> timedelta | None:
        """After how long `handle` is to be called even if nothing happens; None: nothing is due ever."""
        if self._working.to_advance:
            return timedelta()
        return self._working.timers.next_in(now)

    def unsettled(self, executor: str, known_fences: Set[int]) -> list[Command]:
        """The commands to repeat after a recovery or when an executor is back; nothing is saved for them.

        `known_fences` are the attempts that it runs, or has a record of. StartAttempt for queued attempts it does not
        know, KillAttempt for attempts that were told to stop; of WAITING_ROOM, BeginWait for all that wait.
        """
        return recovery.unsettled(self._working, executor, known_fences)

    def vanished(self, executor: str, known_fences: Set[int], now: datetime) -> list[AttemptLost]:
        """Events to post when an executor is back: attempts that ran there and that it does not know any more."""
        return recovery.vanished(self._working, executor, known_fences, now)

    def instance_of(self, fence: int) -> Instance | None:
        """The task instance whose live attempt has this fence; None: there is no such attempt, or it has ended."""
        node = self._working.attempts.get(fence)
        return None if node is None else node.instance.snapshot()

    def is_live(self, run_number: int) -> bool:
        """Whether this run is in memory. If not, ClearTasks and MarkTasks must carry its rows (`revive`)."""
        return run_number in self._working.runs

    def explain(self, run_number: int) -> list[Explanation]:
        """For each instance of a live run that has not ended: why it does not run, and what would free it."""
        live = self._working.runs.get(run_number)
        return [] if live is None else explain(self._working, live)

    def counts(self) -> dict[str, int]:
        """How much is in memory: for status pages and metrics."""
        working = self._working
        return {
            "dags": sum(not dag.removed for dag in working.dags.values()),
            "runs": len(working.runs),
            "attempts": len(working.attempts),
            "slots_taken": len(working.occupying),
            "parallelism": working.parallelism,
        }

    def _look_at_the_clock(self, now: Moment) -> None:
        """The present of this turn; and what follows where the machine slept or its wall clock was set.

        A turn may also be late because the daemon was busy, or its database away: then nothing was missed, and every
        tick has its run.
        """
        working, last = self._working, self._last
        working.clock = self._last = now
        if last is None:
            return
        step = clock_step(last, now)
        if abs(step) >= STEP:
            working.shift_deadlines(step)
        missed = (now.wall - last.wall) - (now.awake - last.awake)
        if missed < ASLEEP:
            return
        cause = "the clock was set forward" if step > missed / 2 else "the machine was asleep"
        for dag in working.dags.values():
            due = dag.next_due_at
            if due is not None and last.wall < due < now.wall - ASLEEP and dag.ticking:
                skip_missed(working, dag, now.wall, cause)

    def _take(self, event: Event, now: datetime) -> None:
        try:
            self._dispatch(event, now)
        except FluxError as error:
            request = getattr(event, "request", None)
            if request is None:
                raise
            self._working.reply(request, error=error)

    def _dispatch(self, event: Event, now: datetime) -> None:
        working = self._working
        match event:
            case AttemptStarted():
                attempts.started(working, event)
            case AttemptEnded():
                attempts.ended(working, event, now)
            case AttemptLost():
                attempts.lost(working, event, now)
            case WaitEnded():
                attempts.wait_ended(working, event, now)
            case TriggerRun():
                requests.trigger(working, event, now)
            case CancelRun():
                requests.cancel(working, event, now)
            case ClearTasks():
                requests.clear(working, event, now)
            case MarkTasks():
                requests.mark(working, event, now)
            case Interrupt():
                requests.interrupt(working, event, now)
            case DagLoaded():
                dags.loaded(working, event, now)
            case DagRemoved():
                dags.removed(working, event)
            case PauseDag():
                dags.pause(working, event, now)
            case ForgetDag():
                dags.forget(working, event)
            case PoolSet():
                working.pools[event.name] = event.slots

    def _fire(self, kind: Timer, key: Any, now: datetime) -> None:
        working = self._working
        match kind:
            case Timer.TICK:
                dag = working.dags[key]
                dag.watched = None
                working.to_advance[key] = dag
            case Timer.RETRY:
                node = working.find(key)
                if node is not None:
                    attempts.retry_now(working, node)
            case Timer.TIMEOUT:
                attempts.time_out(working, key, now)
            case Timer.WAIT:
                attempts.wait_over(working, key, now)
            case Timer.RUN:
                attempts.run_time_out(working, working.runs[key], now)

    def _end_turn(self, now: Moment) -> Turn:
        for kind, key in self._working.timers.due(now):
            self._fire(kind, key, now.wall)
        settle(self._working, now.wall, RUNS_PER_TURN)
        return self._working.end_turn()
