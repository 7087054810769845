"""What happens when a turn raises: the scheduler begins again from the database, and what is guilty is put aside.

A scheduler that raised may hold half a change, so it is thrown away. If the rows themselves are at fault, the next one
would raise as well: then each dag and each run is tried alone, and those that raise are left out. A run that is left
out ends as failed; a dag that is left out takes no runs until its file changes or fluxd starts again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from fluxd.core.commands import Command, EndWait, KillAttempt, Saves, StartAttempt, Turn
from fluxd.core.events import AttemptEnded, AttemptLost, Event, WaitEnded
from fluxd.core.model import Attempt, Instance
from fluxd.core.moment import Moment
from fluxd.core.scheduler import Scheduler
from fluxd.core.snapshot import PastRun, Snapshot
from fluxd.core.states import AttemptState, StopReason
from fluxd.observations import Seen, observe
from fluxd.store.loading import BrokenRow, Loaded
from fluxd.store.lock import Taken
from fluxd.store.quarantine import Evidence, Names, cause

KEEP_S = 20.0  # the longest that evidence is waited for: it is worth less than the work that waits for it


class Store(Protocol):
    """What this room needs of the database. Everything waits while it is away."""

    async def load(self) -> Loaded: ...

    async def rehearse(self, saves: Saves) -> None: ...

    async def put_aside(self, evidence: Evidence) -> None: ...

    async def names_of(self, number: int, *, fence: bool) -> Names: ...

    async def give_up_run(self, run_number: int, reason: str) -> None: ...

    async def end_orphans(self, fences: list[int], reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A dag (without `run_number`) or a run that the scheduler cannot take."""

    kind: str  # dag | run | row
    dag_id: str
    error: BaseException
    run_number: int | None = None
    run_id: str | None = None


@dataclass(slots=True)
class Recovered:
    """A scheduler that has recovered, its first turn (not yet saved), and what it had to leave out."""

    scheduler: Scheduler
    turn: Turn
    left_out: list[LeftOut] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)  # what ends the attempts of runs that were left out
    loaded: Loaded | None = None


class Containment:
    """Makes schedulers from the database, and remembers what they had to leave out."""

    def __init__(self, make: Callable[[], Scheduler], store: Store) -> None:
        self._make = make
        self._store = store
        self._since: Moment | None = None  # the last turn of the scheduler that is replaced
        self.dags_out: dict[str, str] = {}  # dag id -> why it is left out
        self._with: dict[int, str] = {}  # fence of an orphan -> the executor that has it
        self.orphans: dict[int, int] = {}  # fence of a live attempt whose run was given up -> number of the run

    async def recover(self, now: Moment, *, suspicious: bool, since: Moment | None = None) -> Recovered:
        """A scheduler from the database. `suspicious`: its first turn is rehearsed, since something raised before.
        `since`: see `Scheduler.recover`.

        Raises when not even an empty database could be taken: a fault that no row has.
        """
        self._since = since
        loaded = await self._store.load()
        snapshot, left_out = without_broken(loaded.snapshot, loaded.broken)
        try:
            found = await self._try(snapshot, now, rehearse=suspicious)
        except Taken:
            raise
        except Exception:
            found = await self._isolate(snapshot, now)
        found.left_out[:0] = left_out
        self.dags_out = {
            one.dag_id: cause(one.error) for one in found.left_out if one.run_number is None and one.kind != "run"
        }
        for one in found.left_out:
            await self._give_up(one)
        taken = {run.number for run in snapshot.runs} - {one.run_number for one in found.left_out}
        found.commands = self._adopt_orphans(loaded.snapshot.attempts, taken)
        waiting = [one.fence for one in loaded.snapshot.attempts if one.state is AttemptState.WAITING]
        await self.end_orphans(waiting, "it held no process")
        found.loaded = loaded
        return found

    def _adopt_orphans(self, attempts: list[Attempt], taken: set[int]) -> list[Command]:
        """Attempts that live in the database while their run does not: what ends them."""
        orphans = [one for one in attempts if one.run_number not in taken]
        self.orphans = {one.fence: one.run_number for one in orphans}
        self._with = {one.fence: one.executor for one in orphans}
        return [
            EndWait(one.fence)
            if one.state is AttemptState.WAITING
            else KillAttempt(one.fence, StopReason.FAIL, one.executor)
            for one in orphans
        ]

    async def _try(self, snapshot: Snapshot, now: Moment, *, rehearse: bool = True) -> Recovered:
        scheduler = self._make()
        turn = scheduler.recover(snapshot, now, self._since)
        if rehearse and turn.saves:
            await self._store.rehearse(turn.saves)
        return Recovered(scheduler, turn)

    async def _raises(self, snapshot: Snapshot, now: Moment) -> Exception | None:
        await asyncio.sleep(0)  # there may be thousands to try: others have their say between
        try:
            await self._try(snapshot, now)
        except Taken:
            raise
        except Exception as error:
            return error
        return None

    async def _isolate(self, snapshot: Snapshot, now: Moment) -> Recovered:
        """Leave out whatever raises alone; and of what raises only together, the last that was added."""
        left_out: list[LeftOut] = []
        parts = Parts(snapshot)
        if (error := await self._raises(parts.of([], []), now)) is not None:
            raise error
        dags: list[str] = []
        for row in snapshot.dags:
            dag_id = row.spec.dag_id
            if (error := await self._raises(parts.of([dag_id], []), now)) is None:
                dags.append(dag_id)
            else:
                left_out.append(LeftOut("dag", dag_id, error))
        good_dags = set(dags)
        runs: list[int] = []
        for run in snapshot.runs:
            alone = parts.of([run.dag_id] if run.dag_id in good_dags else [], [run.number])
            if (error := await self._raises(alone, now)) is None:
                runs.append(run.number)
            else:
                left_out.append(LeftOut("run", run.dag_id, error, run.number, run.run_id))
        return await self._together(parts, dags, runs, left_out, now)

    async def _together(
        self, parts: "Parts", dags: list[str], runs: list[int], left_out: list[LeftOut], now: Moment
    ) -> Recovered:
        """Each of these can be taken alone. Where they raise together, who made it so is found by halves."""
        while (error := await self._raises(parts.of(dags, runs), now)) is not None:
            good, bad = 0, len(dags) + len(runs)
            while bad - good > 1:
                middle = (good + bad) // 2
                raised = await self._raises(parts.of(dags[:middle], runs[: max(0, middle - len(dags))]), now)
                good, bad, error = (middle, bad, error) if raised is None else (good, middle, raised)
            if bad <= len(dags):
                left_out.append(LeftOut("dag", dags.pop(bad - 1), error))
            else:
                run = parts.runs[runs.pop(bad - 1 - len(dags))]
                left_out.append(LeftOut("run", run.dag_id, error, run.number, run.run_id))
        found = await self._try(parts.of(dags, runs), now, rehearse=False)
        found.left_out = left_out
        return found

    # ------------------------------------------------------------------------------------------ evidence

    async def _give_up(self, one: LeftOut) -> None:
        if one.run_number is None:
            outcome = "the dag takes no runs until its file changes or fluxd starts again; its live runs go on"
            await self.keep(Evidence(one.kind, one.error, outcome, one.dag_id, one.dag_id))
            return
        reason = (
            f"FLX-5047: The run cannot be taken into memory ({cause(one.error)}): see fluxctl doctor; trigger it anew"
        )
        await self._store.give_up_run(one.run_number, reason)
        outcome = "the run is failed, what ran of it is ended"
        await self.keep(Evidence(one.kind, one.error, outcome, one.run_number, one.dag_id, one.run_id))

    async def keep(self, evidence: Evidence) -> None:
        """Store the evidence and say so. A failure here is told and stops nothing."""
        names = (evidence.dag_id, evidence.run_id, evidence.task_id)
        what = evidence.kind + "".join(f" {name}" for name in names if name)
        observe(Seen.PUT_ASIDE, error=evidence.error, what=what, reason=evidence.cause, outcome=evidence.outcome)
        try:
            async with asyncio.timeout(KEEP_S):
                await self._store.put_aside(evidence)
        except Taken:
            raise
        except Exception as error:
            observe(Seen.EVIDENCE_LOST, what=what, reason=cause(error))

    async def keep_event(self, event: Event, error: BaseException, outcome: str) -> None:
        """Store the evidence of an event that could not be taken."""
        names = await self.whose(event)
        fence = getattr(event, "fence", None)
        await self.keep(
            Evidence(type(event).__name__, error, outcome, event, names.dag_id, names.run_id, names.task_id, fence)
        )

    async def whose(self, event: Event) -> Names:
        """Whose event it is, as far as that can be known."""
        fence, number = getattr(event, "fence", None), getattr(event, "run_number", None)
        if fence is not None:
            return await self._names(fence, fence=True)
        if number is not None:
            return await self._names(number, fence=False)
        spec = getattr(event, "spec", None)
        return Names(dag_id=getattr(event, "dag_id", None) or getattr(spec, "dag_id", None))

    async def _names(self, number: int, *, fence: bool) -> Names:
        """Nobody's, where that cannot be found out."""
        try:
            async with asyncio.timeout(KEEP_S):
                return await self._store.names_of(number, fence=fence)
        except Exception as error:
            observe(Seen.EVIDENCE_LOST, what=f"the names of {number}", reason=cause(error))
            return Names()

    async def give_up_attempt(self, fence: int, error: BaseException) -> None:
        """Not even its failure can be taken: its run is given up. Recover after this."""
        names = await self._names(fence, fence=True)
        if names.run_number is not None and names.dag_id is not None:
            await self._give_up(LeftOut("run", names.dag_id, error, names.run_number, names.run_id))

    async def end_unknown(self, executor: str, known: set[int]) -> None:
        """An executor has told what it has: orphans that it does not know are gone."""
        gone = [fence for fence, name in self._with.items() if name == executor and fence not in known]
        await self.end_orphans(gone, "its executor does not know it")

    async def end_orphans(self, fences: list[int], how: str) -> None:
        """The processes of these attempts of given-up runs are gone."""
        gone = [fence for fence in fences if fence in self.orphans]
        if gone:
            await self._store.end_orphans(gone, f"FLX-5047: its run was given up; {how}")
            for fence in gone:
                self.orphans.pop(fence, None)


def nobody_runs(command: StartAttempt | KillAttempt, now: datetime) -> AttemptEnded:
    """The end of an attempt that is with an executor this Flux does not have."""
    why = (
        f"FLX-3521: There is no executor {command.executor!r} here: correct the task's argument executor, and clear it."
    )
    return failed_end(command, "NoExecutor", why, now)


def not_started(start: StartAttempt, error: BaseException, now: datetime) -> AttemptEnded:
    """The end of an attempt whose start message cannot be made."""
    why = f"FLX-5046: The attempt cannot be started ({cause(error)}); fluxctl doctor has the evidence"
    return failed_end(start, "NotStarted", why, now)


def failed_end(
    of: StartAttempt | KillAttempt | AttemptEnded | AttemptLost, kind: str, why: str, now: datetime
) -> AttemptEnded:
    """The end of an attempt that fails without another try."""
    outcome = {"state": "failed", "error": {"type": kind, "message": why, "retry": False}}
    return AttemptEnded(of.fence, None, None, now, outcome=outcome, executor=of.executor)


def without_broken(snapshot: Snapshot, broken: list[BrokenRow]) -> tuple[Snapshot, list[LeftOut]]:
    """The snapshot without the dags and runs whose rows cannot be read."""
    dags = {str(row.key["dag_id"]): row.error for row in broken if row.query == "load_dags"}
    versions = {row.key["version_id"]: row.error for row in broken if row.query == "load_versions"}
    numbers = {number: row.error for row in broken if (number := row.key.get("run_number", row.key.get("number")))}
    left_out = [LeftOut("dag", dag_id, error) for dag_id, error in dags.items()]
    known = {run.number for run in snapshot.runs}
    for run in snapshot.runs:
        if (error := versions.get(run.version_id)) is not None:
            numbers.setdefault(run.number, error)
        if run.number in numbers:
            left_out.append(LeftOut("row", run.dag_id, numbers[run.number], run.number, run.run_id))
    left_out += [LeftOut("row", "", error, number) for number, error in numbers.items() if number not in known]
    if not left_out:
        return snapshot, []
    dag_ids = [row.spec.dag_id for row in snapshot.dags]
    return Parts(snapshot).of(dag_ids, [run.number for run in snapshot.runs if run.number not in numbers]), left_out


class Parts:
    """A snapshot by its dags and runs."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.runs = {run.number: run for run in snapshot.runs}
        self._dags = {row.spec.dag_id: row for row in snapshot.dags}
        self._instances: dict[int, list[Instance]] = defaultdict(list)
        for instance in snapshot.instances:
            self._instances[instance.run_number].append(instance)
        self._attempts: dict[int, list[Attempt]] = defaultdict(list)
        for attempt in snapshot.attempts:
            self._attempts[attempt.run_number].append(attempt)
        self._past: dict[str, list[PastRun]] = defaultdict(list)
        for ended in snapshot.past:
            self._past[ended.dag_id].append(ended)

    def of(self, dags: list[str], runs: list[int]) -> Snapshot:
        """The snapshot with these dags and these runs alone."""
        return replace(
            self._snapshot,
            dags=[self._dags[dag_id] for dag_id in dags],
            runs=[self.runs[number] for number in runs],
            instances=[one for number in runs for one in self._instances[number]],
            attempts=[one for number in runs for one in self._attempts[number]],
            past=[one for dag_id in dags for one in self._past[dag_id]],
        )


def instead(event: Event, error: BaseException, now: datetime) -> Event | None:
    """What is posted in place of an event that could not be taken: its attempt fails, without another try."""
    reason = f"FLX-5043: What this attempt told could not be taken ({cause(error)}); fluxctl doctor has the evidence"
    match event:
        case AttemptEnded() | AttemptLost():
            return failed_end(event, "NotTaken", reason, now)
        case WaitEnded():
            return WaitEnded(event.fence, "failed", now, (), reason)
    return None
