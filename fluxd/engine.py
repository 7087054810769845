"""The engine: inbox → scheduler → save → act. The only caller of the scheduler, the only writer of runs and attempts.

It works at its own pace: everything that waits in the inbox is handled in one turn and saved in one transaction;
while that is being saved, the next turn's events gather. Nothing is started, stopped or answered before it is saved.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

from fluxd.core.commands import AckAttempt, BeginWait, Command, EndWait, KillAttempt, Reply, Saves, StartAttempt, Turn
from fluxd.core.events import AttemptEnded, ClearTasks, Event, MarkTasks, TriggerRun
from fluxd.core.scheduler import Scheduler
from fluxd.core.snapshot import Revived
from fluxd.errors import FluxError, Unavailable
from fluxd.executors import Executor


def utc_now() -> datetime:
    """The wall clock. The simulation passes one of its own."""
    return datetime.now(UTC)


class Waiting(Protocol):
    """What polls for waiting instances."""

    def begin(self, command: BeginWait) -> None: ...

    def end(self, fence: int) -> None: ...


class Engine:
    """Runs the scheduler. `post` drops an event; `ask` makes a request and waits for its saved answer."""

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        save: Callable[[Saves], Awaitable[None]],
        revive: Callable[[int], Awaitable[Revived | None]],
        run_id_taken: Callable[[TriggerRun], Awaitable[bool]],
        start_messages: Callable[[list[StartAttempt]], Awaitable[list[dict[str, Any]]]],
        on_saved: Callable[[Saves], None],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.scheduler = scheduler
        self.executors: dict[str, Executor] = {}  # by the name that attempts know them by
        self.waiting: Waiting
        self._save = save
        self._revive = revive
        self._run_id_taken = run_id_taken
        self._start_messages = start_messages
        self._on_saved = on_saved
        self._now = now
        self._inbox: list[Event] = []
        self._woken = asyncio.Event()
        self._turned = asyncio.Event()
        self._reconcile: dict[str, set[int]] = {}
        self._requests = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._stopped = False
        self.turns = 0

    def post(self, event: Event) -> None:
        """Drop an event into the inbox. Never waits."""
        self._inbox.append(event)
        self._woken.set()

    async def ask(self, make: Callable[[int], Event]) -> Any:
        """Post the event that `make` builds from a request number; return the answer once it is saved.

        Raises the FluxError that the scheduler answered with, or Unavailable when the daemon stops meanwhile.
        """
        if self._stopped:
            raise _stopping()
        request = next(self._requests)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[request] = answer
        self.post(make(request))
        try:
            return await answer
        finally:
            self._asked.pop(request, None)

    async def run(self) -> None:
        """Turn after turn, until cancelled."""
        try:
            while True:
                await self._work_or_time()
                events, self._inbox = self._inbox, []
                for batch in self._batches(events):
                    # Before each batch: what one starts and the next cancels must not be taken for vanished.
                    await self._repeat()
                    await self._turn(batch)
        finally:
            self._stopped = True
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(_stopping())

    async def perform(self, turn: Turn) -> None:
        """Save a turn, then do what it asks for."""
        if turn.saves:
            await self._save(turn.saves)
            self.turns += 1
            self._on_saved(turn.saves)
        await self._carry_out(turn.commands)
        self._turned.set()

    async def _work_or_time(self) -> None:
        """Until something is in the inbox, or until the scheduler wants to be woken."""
        if self._inbox or self._reconcile:
            return
        self._woken.clear()
        wake_at = self.scheduler.wake_at()
        if wake_at is None:
            await self._woken.wait()
            return
        # The wall clock may be set while we sleep: never sleep past a minute without looking at it again.
        delay = min(60.0, (wake_at - self._now()).total_seconds())
        if delay > 0:
            timer = asyncio.get_running_loop().call_later(delay, self._woken.set)
            await self._woken.wait()
            timer.cancel()
        else:
            await asyncio.sleep(0)

    def _batches(self, events: list[Event]) -> list[list[Event]]:
        """The events in order; one that may need to know of finished runs begins a batch of its own."""
        batches: list[list[Event]] = [[]]
        for event in events:
            if isinstance(event, ClearTasks | MarkTasks | TriggerRun) and batches[-1]:
                batches.append([])
            batches[-1].append(event)
        return batches

    async def _turn(self, events: list[Event]) -> None:
        event = events[0] if events else None
        try:
            if isinstance(event, ClearTasks | MarkTasks) and not self.scheduler.is_live(event.run_number):
                events[0] = replace(event, revive=await self._revive(event.run_number))
            elif isinstance(event, TriggerRun) and event.run_id is not None:
                events[0] = replace(event, taken=await self._run_id_taken(event))
        except FluxError as error:  # the database is away: whoever asked hears it, and everybody else goes on
            assert isinstance(event, ClearTasks | MarkTasks | TriggerRun)
            self._reply(Reply(event.request, error=error))
            del events[0]
        await self.perform(self.scheduler.handle(events, self._now()))

    async def _carry_out(self, commands: list[Command]) -> None:
        starts = [command for command in commands if isinstance(command, StartAttempt)]
        acks = [command for command in commands if isinstance(command, AckAttempt)]
        for name, executor in self.executors.items():
            if fences := [ack.fence for ack in acks if ack.executor == name]:
                executor.ack(fences)
            if mine := [start for start in starts if start.executor == name]:
                executor.start(await self._start_messages(mine))
        for command in commands:
            match command:
                case StartAttempt() | KillAttempt() if command.executor not in self.executors:
                    self.post(_nobody_runs(command, self._now()))
                case KillAttempt():
                    self.executors[command.executor].kill(command.fence, command.reason)
                case BeginWait():
                    self.waiting.begin(command)
                case EndWait():
                    self.waiting.end(command.fence)
                case Reply():
                    self._reply(command)

    def _reply(self, reply: Reply) -> None:
        answer = self._asked.get(reply.request)
        if answer is None or answer.done():
            return
        if reply.error is not None:
            answer.set_exception(reply.error)
        else:
            answer.set_result(reply.value)

    async def reconcile(self, executor: str, known: set[int]) -> None:
        """Between two turns, repeat what a lost connection or a restart may have swallowed.

        `known`: the fences that this executor runs or has a record of. What is with one that has not told yet is not
        judged.
        """
        self._reconcile[executor] = known
        self._woken.set()

    async def _repeat(self) -> None:
        told, self._reconcile = self._reconcile, {}
        for executor, known in told.items():
            for lost in self.scheduler.vanished(executor, known, self._now()):
                self.post(lost)
            await self._carry_out(self.scheduler.unsettled(executor, known))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Look after each turn until `condition` holds."""
        while not condition():
            self._turned.clear()
            await self._turned.wait()


def _nobody_runs(command: StartAttempt | KillAttempt, now: datetime) -> AttemptEnded:
    """The end of an attempt that is with an executor this Flux does not have."""
    why = (
        f"FLX-3521: There is no executor {command.executor!r} here: correct the task's argument executor, and clear it."
    )
    error = {"type": "NoExecutor", "message": why, "retry": False}
    return AttemptEnded(
        command.fence, None, None, now, outcome={"state": "failed", "error": error}, executor=command.executor
    )


def _stopping() -> Unavailable:
    return Unavailable("FLX-4090", "fluxd is stopping and takes no more requests; ask again when it is back.")
