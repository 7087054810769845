"""The engine: inbox → scheduler → save → act. The only caller of the scheduler, the only writer of runs and attempts.

It works at its own pace: everything that waits in the inbox is handled in one turn and saved in one transaction;
while that is being saved, the next turn's events gather. Nothing is started, stopped or answered before it is saved.

A turn that raises is undone: the scheduler is made again from the database, the events of the turn are taken one at a
time, and the one that raises again is put aside with its evidence (`containment.py`). Everything else goes on.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Protocol

from fluxd.answers import Answers, failed_inside, left_out, still_ending
from fluxd.batches import batches
from fluxd.clock import read_clock, watched
from fluxd.containment import Containment, instead, nobody_runs, not_started
from fluxd.core.commands import AckAttempt, BeginWait, Command, EndWait, KillAttempt, Reply, Saves, StartAttempt, Turn
from fluxd.core.events import AttemptEnded, AttemptLost, ClearTasks, DagLoaded, Event, Interrupt, MarkTasks, TriggerRun
from fluxd.core.moment import Moment
from fluxd.core.scheduler import Scheduler
from fluxd.core.snapshot import Revived
from fluxd.errors import FluxError
from fluxd.executors import Executor
from fluxd.observations import Seen, observe
from fluxd.store.loading import Loaded
from fluxd.store.lock import Taken
from fluxd.store.quarantine import Evidence, cause

# An idle engine looks up this often: that the loop comes round is its sign of life.
LOOK_S = 5.0
RECOVERY_FIRST_S, RECOVERY_MAX_S = 1.0, 30.0


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
        clock: Callable[[], Moment] = read_clock,
        on_loaded: Callable[[Loaded], None] = lambda loaded: None,
        contain: Containment | None = None,
    ) -> None:
        """`on_loaded` hears what a recovery has read; `contain` mends a turn that raised: without it `run` raises."""
        self.scheduler = scheduler
        self.executors: dict[str, Executor] = {}  # by the name that attempts know them by
        self.waiting: Waiting
        self._save = save
        self._revive = revive
        self._run_id_taken = run_id_taken
        self._start_messages = start_messages
        self._on_saved = on_saved
        self._clock = clock
        self._on_loaded = on_loaded
        self._inbox: list[Event] = []
        self._woken = asyncio.Event()
        self._turned = asyncio.Event()
        self._reconcile: dict[str, set[int]] = {}
        self._answers = Answers()
        self._contain = contain
        self._interrupted = False
        self.turns = 0
        self.last_turn = time.monotonic()  # when the loop last came round
        self._since: Moment | None = None  # when the last turn was that is saved: what came after it is unknown

    def post(self, event: Event) -> None:
        """Drop an event into the inbox. Never waits."""
        self._inbox.append(event)
        self._woken.set()

    async def ask(self, make: Callable[[int], Event]) -> Any:
        """Post the event that `make` builds from a request number; return the answer once it is saved.

        Raises the FluxError that the scheduler answered with, or Unavailable when the daemon stops meanwhile or no turn
        takes the request in time: it is withdrawn then, and nothing of it is done.
        """
        return await self._answers.ask(make, self.post, self._withdraw)

    def _withdraw(self, event: Event) -> bool:
        waiting = [one for one in self._inbox if one is not event]
        found = len(waiting) < len(self._inbox)
        self._inbox[:] = waiting
        return found

    async def run(self) -> None:
        """Turn after turn, until cancelled, or until another daemon has taken the database (Taken)."""
        try:
            while True:
                try:
                    await self._round()
                except Taken:
                    raise
                except Exception as error:
                    await self._undo([], error)
        finally:
            self._answers.stop()

    async def _round(self) -> None:
        await self._work_or_time()
        events, self._inbox = self._inbox, []
        for number, batch in enumerate(batches(events)):
            if number:
                await asyncio.sleep(0)  # a file of 10,000 dags is many turns: others have their say between
            # Before each batch: what one starts and the next cancels must not be taken for vanished.
            await self._repeat()
            await self._turn(batch)
            self.last_turn = time.monotonic()

    async def recover(self, *, suspicious: bool = False) -> Loaded:
        """A scheduler from the database in place of the one there is; its first turn is saved and done.

        Never gives up: where even an empty scheduler raises, it is tried again and again. Needs `contain`.
        """
        assert self._contain is not None
        delay_s = RECOVERY_FIRST_S
        while True:
            try:
                found = await self._contain.recover(self._clock(), suspicious=suspicious, since=self._since)
                await self._save_turn(found.turn)
                break
            except Taken:
                raise
            except Exception as error:
                if suspicious:
                    observe(Seen.RECOVERY_RETRIED, error=error, reason=cause(error), seconds=delay_s)
                    await asyncio.sleep(delay_s)
                    delay_s = min(RECOVERY_MAX_S, delay_s * 2)
                suspicious = True
        self.scheduler = found.scheduler
        if self._interrupted:
            self.scheduler.handle([Interrupt(0)], self._clock())
        assert found.loaded is not None
        self._on_loaded(found.loaded)  # what its first turn starts is to know what others handed on
        await self._act(found.turn)
        await self._carry_out(found.commands)
        return found.loaded

    async def perform(self, turn: Turn) -> None:
        """Save a turn, then do what it asks for."""
        await self._save_turn(turn)
        await self._act(turn)

    async def _save_turn(self, turn: Turn) -> None:
        if turn.saves:
            await self._save(turn.saves)

    async def _act(self, turn: Turn) -> None:
        """What comes after the save. Nothing here can undo the turn any more."""
        self._since = self.scheduler.last
        if turn.saves:
            self.turns += 1
            try:
                self._on_saved(turn.saves)
            except Exception as error:
                await self._put_command_aside("saved", turn.saves, error, "those who watch may not have heard of it")
        await self._carry_out(turn.commands)
        self._turned.set()

    async def _work_or_time(self) -> None:
        """Until something is in the inbox, or until the scheduler wants to be woken."""
        while not self._inbox and not self._reconcile:
            self.last_turn = time.monotonic()
            self._woken.clear()
            delay = self.scheduler.wake_in(self._clock())
            # The wall clock may be set while we sleep: never sleep long without looking at it again.
            delay_s = LOOK_S if delay is None else min(LOOK_S, delay.total_seconds())
            if delay_s <= 0:
                await asyncio.sleep(0)
                return
            timer = asyncio.get_running_loop().call_later(delay_s, self._woken.set)
            try:
                await self._woken.wait()
            finally:
                timer.cancel()

    async def _turn(self, events: list[Event]) -> None:
        self._interrupted |= any(isinstance(event, Interrupt) for event in events)
        try:
            admitted = await self._looked_up(list(events))
            turn = self.scheduler.handle(admitted, watched(self._clock(), self.scheduler.last))
            await self._save_turn(turn)
        except Taken:
            raise
        except Exception as error:
            await self._undo(events, error)
        else:
            await self._act(turn)

    async def _looked_up(self, events: list[Event]) -> list[Event]:
        """The events with what they need from the database; those that are answered here are not among them."""
        if self._contain is not None:
            events = await self._admitted(events, self._contain)
        event = events[0] if events else None
        if not isinstance(event, ClearTasks | MarkTasks | TriggerRun):
            return events
        try:
            if isinstance(event, TriggerRun):
                if event.run_id is not None:
                    events[0] = replace(event, taken=await self._run_id_taken(event))
            elif not self.scheduler.is_live(event.run_number):
                events[0] = replace(event, revive=await self._revive(event.run_number))
        except Taken:
            raise
        except FluxError as error:  # the database is away: whoever asked hears it, and everybody else goes on
            self._answers.reply(Reply(event.request, error=error))
            del events[0]
        except Exception as error:
            if self._contain is None:
                raise
            await self._contain.keep_event(event, error, "the request was answered with an error")
            self._answers.reply(Reply(event.request, error=failed_inside(cause(error))))
            del events[0]
        return events

    async def _admitted(self, events: list[Event], contain: Containment) -> list[Event]:
        """Without what is about dags and runs that were put aside."""
        admitted: list[Event] = []
        for event in events:
            request, dag_id = getattr(event, "request", None), getattr(event, "dag_id", None)
            if isinstance(event, DagLoaded) and event.spec.dag_id in contain.dags_out:
                await self.recover(suspicious=True)  # the database has its new version
                if event.spec.dag_id in contain.dags_out:
                    continue
            elif isinstance(event, AttemptEnded | AttemptLost) and event.fence in contain.orphans:
                await contain.end_orphans([event.fence], "its process is gone")
            elif request is not None and dag_id in contain.dags_out:
                self._answers.reply(Reply(request, error=left_out(dag_id, contain.dags_out[dag_id])))
                continue
            elif isinstance(event, ClearTasks | MarkTasks) and event.run_number in contain.orphans.values():
                self._answers.reply(Reply(event.request, error=still_ending()))
                continue
            admitted.append(event)
        return admitted

    # -- a turn that raised ----------------------------------------------------------------------------------------

    async def _undo(self, events: list[Event], error: Exception) -> None:
        """Begin again from the database, and take the events of the turn one at a time."""
        if self._contain is None:
            raise error
        observe(Seen.TURN_UNDONE, error=error, reason=cause(error))
        await self.recover(suspicious=True)
        for event in events:
            await self._settle()
            await self._take_alone(event)
        await self._settle()

    async def _settle(self) -> None:
        """What time alone brings is done first: it is no event's fault. If it raises, it is tried again later."""
        delay_s = RECOVERY_FIRST_S
        while True:
            try:
                turn = self.scheduler.handle([], self._clock())
                await self._save_turn(turn)
            except Taken:
                raise
            except Exception as error:
                observe(Seen.RECOVERY_RETRIED, error=error, reason=cause(error), seconds=delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(RECOVERY_MAX_S, delay_s * 2)
                await self.recover(suspicious=True)
            else:
                await self._act(turn)
                return

    async def _take_alone(self, event: Event) -> None:
        """Take one event. If it raises, it is put aside, and its attempt or its request fails."""
        assert self._contain is not None
        error = await self._tried(event)
        if error is None:
            return
        request, replacement = getattr(event, "request", None), instead(event, error, self._clock().wall)
        outcome = "it is ignored" if replacement is None else "its attempt fails"
        outcome = outcome if request is None else "the request was answered with an error"
        await self._contain.keep_event(event, error, outcome)
        if request is not None:
            self._answers.reply(Reply(request, error=failed_inside(cause(error))))
        if replacement is None:
            return
        again = await self._tried(replacement)
        if again is not None:
            await self._contain.give_up_attempt(event.fence, again)  # type: ignore[union-attr]
            await self.recover(suspicious=True)
            await self._contain.end_orphans([event.fence], "its process is gone")  # type: ignore[union-attr]
            self._acknowledge(event)

    async def _tried(self, event: Event) -> Exception | None:
        """Take one event in a turn of its own: what it raises, with a sound scheduler after it."""
        try:
            turn = self.scheduler.handle([event], self._clock())
            await self._save_turn(turn)
        except Taken:
            raise
        except Exception as error:
            await self.recover(suspicious=True)
            return error
        await self._act(turn)
        return None

    def _acknowledge(self, event: Event) -> None:
        executor = self.executors.get(getattr(event, "executor", ""))
        if executor is not None:
            executor.ack([event.fence])  # type: ignore[union-attr]

    async def _put_command_aside(self, kind: str, thing: Any, error: Exception, outcome: str) -> None:
        if self._contain is None:
            raise error
        await self._contain.keep(Evidence(kind, error, outcome, thing))

    # -- what a turn asks for --------------------------------------------------------------------------------------

    async def _carry_out(self, commands: list[Command]) -> None:
        starts = [command for command in commands if isinstance(command, StartAttempt)]
        acks = [command for command in commands if isinstance(command, AckAttempt)]
        for name, executor in self.executors.items():
            if fences := [ack.fence for ack in acks if ack.executor == name]:
                executor.ack(fences)
            if mine := [start for start in starts if start.executor == name]:
                await self._start(executor, mine)
        for command in commands:
            try:
                self._do(command)
            except Exception as error:
                await self._put_command_aside(type(command).__name__, command, error, "it is not done")

    def _do(self, command: Command) -> None:
        match command:
            case StartAttempt() | KillAttempt() if command.executor not in self.executors:
                self.post(nobody_runs(command, self._clock().wall))
            case KillAttempt():
                self.executors[command.executor].kill(command.fence, command.reason)
            case BeginWait():
                self.waiting.begin(command)
            case EndWait():
                self.waiting.end(command.fence)
            case Reply():
                self._answers.reply(command)

    async def _start(self, executor: Executor, starts: list[StartAttempt]) -> None:
        """Start these. Where one cannot be, the others are started all the same, and it fails."""
        try:
            executor.start(await self._start_messages(starts))
            return
        except Taken:
            raise
        except Exception as error:
            if len(starts) == 1:
                await self._put_command_aside("StartAttempt", starts[0], error, "its attempt fails")
                self.post(not_started(starts[0], error, self._clock().wall))
                return
        for start in starts:
            await self._start(executor, [start])

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
            if self._contain is not None:
                await self._contain.end_unknown(executor, known)
            for lost in self.scheduler.vanished(executor, known, self._clock().wall):
                self.post(lost)
            await self._carry_out(self.scheduler.unsettled(executor, known))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Look after each turn until `condition` holds."""
        while not condition():
            self._turned.clear()
            await self._turned.wait()
