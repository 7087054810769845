"""The scheduler: a pure state machine. Events and the time go in, one Turn comes out.

It holds live runs only. It never waits, reads a clock, rolls a die or touches a file; whoever calls it saves the turn,
then acts on it. A scheduler whose turn could not be saved is thrown away and a new one recovers from the database.
"""

from collections.abc import Iterable, Set
from datetime import datetime, timedelta
from typing import Any

from fluxd.core import dags, endings, recovery, requests
from fluxd.core.commands import Act, Snapshot, Turn
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
from fluxd.core.memory import Memory
from fluxd.core.progress import settle
from fluxd.core.ticks_missed import skip_missed
from fluxd.core.timers import Timer
from fluxd.errors import FluxError

# A turn begins no more runs than this: a long catch-up is worked off in slices, and others have their say between.
RUNS_PER_TURN = 100
# Ticks that nobody looked at for this long were missed (the machine slept), not merely late.
ASLEEP = timedelta(minutes=10)


class Scheduler:
    """Decides. `recover` first, then `handle` whenever events came or `wake_at` is reached."""

    def __init__(self, parallelism: int = 32) -> None:
        self._memory = Memory(parallelism)
        self._last: datetime | None = None

    def recover(self, snapshot: Snapshot, now: datetime) -> Turn:
        """Remember the live part of the database and draw the conclusions of the time that has passed."""
        recovery.recover(self._memory, snapshot, now)
        return self._end_turn(now)

    def handle(self, events: Iterable[Event], now: datetime) -> Turn:
        """All of these events at this time (UTC), in their order; also everything that is due by now."""
        self._wake_up(now)
        for event in events:
            self._take(event, now)
        return self._end_turn(now)

    def wake_at(self) -> datetime | None:
        """When `handle` is to be called even if nothing happens; None: nothing is due ever."""
        if self._memory.to_advance:
            return self._last
        return self._memory.timers.next_at()

    def unsettled(self, known_fences: Set[int]) -> list[Act]:
        """The acts to repeat after a recovery or when the runner is back; nothing is saved for them.

        `known_fences` are the attempts the runner runs, or has a record of. StartAttempt for queued attempts it does
        not know, KillAttempt for attempts that were told to stop, BeginWait for all that wait.
        """
        return recovery.unsettled(self._memory, known_fences)

    def vanished(self, known_fences: Set[int], now: datetime) -> list[AttemptLost]:
        """Events to post when the runner is back: attempts that ran there and that it does not know any more."""
        return recovery.vanished(self._memory, known_fences, now)

    def is_live(self, run_number: int) -> bool:
        """Whether this run is in memory. If not, ClearTasks and MarkTasks must carry its rows (`revive`)."""
        return run_number in self._memory.runs

    def explain(self, run_number: int) -> list[Explanation]:
        """For each instance of a live run that has not ended: why it does not run, and what would free it."""
        live = self._memory.runs.get(run_number)
        return [] if live is None else explain(self._memory, live)

    def counts(self) -> dict[str, int]:
        """How much is in memory: for status pages and metrics."""
        memory = self._memory
        return {
            "dags": sum(not dag.removed for dag in memory.dags.values()),
            "runs": len(memory.runs),
            "attempts": len(memory.attempts),
            "slots_taken": len(memory.occupying),
            "parallelism": memory.parallelism,
        }

    def _wake_up(self, now: datetime) -> None:
        """After a sleep of the machine, ticks that came due in it follow the catch-up rule."""
        last = self._last
        if last is None or now - last < ASLEEP:
            return
        for dag in self._memory.dags.values():
            due = dag.next_due_at
            if due is not None and last < due < now - ASLEEP and dag.ticking:
                skip_missed(self._memory, dag, now, "the machine was asleep")

    def _take(self, event: Event, now: datetime) -> None:
        try:
            self._dispatch(event, now)
        except FluxError as error:
            request = getattr(event, "request", None)
            if request is None:
                raise
            self._memory.reply(request, error=error)

    def _dispatch(self, event: Event, now: datetime) -> None:
        memory = self._memory
        match event:
            case AttemptStarted():
                endings.started(memory, event)
            case AttemptEnded():
                endings.ended(memory, event, now)
            case AttemptLost():
                endings.lost(memory, event, now)
            case WaitEnded():
                endings.wait_ended(memory, event, now)
            case TriggerRun():
                requests.trigger(memory, event, now)
            case CancelRun():
                requests.cancel(memory, event, now)
            case ClearTasks():
                requests.clear(memory, event, now)
            case MarkTasks():
                requests.mark(memory, event, now)
            case Interrupt():
                requests.interrupt(memory, event, now)
            case DagLoaded():
                dags.loaded(memory, event, now)
            case DagRemoved():
                dags.removed(memory, event)
            case PauseDag():
                dags.pause(memory, event, now)
            case ForgetDag():
                dags.forget(memory, event)
            case PoolSet():
                memory.pools[event.name] = event.slots

    def _fire(self, kind: Timer, key: Any, now: datetime) -> None:
        memory = self._memory
        match kind:
            case Timer.TICK:
                dag = memory.dags[key]
                dag.watched = None
                memory.to_advance[key] = dag
            case Timer.RETRY:
                node = memory.find(key)
                if node is not None:
                    endings.retry_now(memory, node)
            case Timer.TIMEOUT:
                endings.time_out(memory, key)
            case Timer.WAIT:
                endings.wait_over(memory, key, now)
            case Timer.RUN:
                endings.run_time_out(memory, memory.runs[key], now)

    def _end_turn(self, now: datetime) -> Turn:
        self._last = now
        for kind, key in self._memory.timers.due(now):
            self._fire(kind, key, now)
        settle(self._memory, now, RUNS_PER_TURN)
        return self._memory.end_turn()
