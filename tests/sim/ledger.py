"""The ledger of ticks: each tick of a dag's timetable is one run or one recorded skip, never none, never both.

Which ticks there are is said by the simulation's own calendar.
"""

from collections import Counter, defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from fluxd.core.events import Event, PauseDag
from fluxd.core.moment import Moment
from fluxd.core.spec import DagSpec
from tests.sim.calendar import covered, ticks
from tests.sim.tables import Change, DagEntry, SkipRow
from tests.sim.violation import require

if TYPE_CHECKING:
    from tests.sim.world import World

MICROSECOND = timedelta(microseconds=1)
FAR = timedelta(days=8)
# Ticks that the wall clock left out for so long follow the catch-up, as those of a time away.
MISSED = timedelta(minutes=10)


def timing(spec: DagSpec) -> tuple[object, ...]:
    return spec.schedule, spec.timezone, spec.dst, spec.start_date, spec.end_date


def ticking(spec: DagSpec) -> bool:
    return spec.schedule.kind in ("cron", "interval")


class Ledger:
    def __init__(self, world: "World") -> None:
        self.world = world
        self.tables = world.tables
        # The spec under which each dag's saved cursor was made.
        self.stands: dict[str, DagSpec] = {}
        self.skipped: dict[str, set[datetime]] = defaultdict(set)
        self._edits: Counter[str] = Counter()

        self._missed: tuple[datetime, datetime] | None = None  # between them nobody lived

    def decided(self, edits: Counter[str], last: Moment | None, now: Moment) -> None:
        self._edits, self._missed = edits, None
        if last is not None and (now.wall - last.wall) - (now.awake - last.awake) >= MISSED:
            self._missed = (last.wall, now.wall - MISSED)

    def committed(self, change: Change, events: list[Event] | None, now: datetime, specs: dict[str, DagSpec]) -> None:
        made: dict[str, list[datetime]] = defaultdict(list)
        for old, run in change.runs.values():
            if old is None and run.due_at is not None:
                made[run.dag_id].append(run.due_at)
                spec = self.tables.versions[run.version_id]
                if ticking(spec):
                    due = run.due_at
                    edge = self.stands.get(run.dag_id)
                    known = ticks(spec, due, due) or (edge is not None and ticks(edge, due, due))
                    require(known, "a run for no tick:", run)
                    span = (run.data_interval_start, run.data_interval_end)
                    require(span == covered(spec, due), "it covers", span, "and not", covered(spec, due))
                    require(run.logical_date == span[0], "logical date of", run)
                require(run.due_at not in self.skipped[run.dag_id], "a tick was skipped and ran:", run)
        skips: dict[str, list[SkipRow]] = defaultdict(list)
        for skip in change.skips:
            skips[skip.dag_id].append(skip)
        for dag_id, (old, new) in change.cursors.items():
            spec = specs.get(dag_id)
            if spec is None or dag_id not in self.tables.dags:
                continue
            begins = old.next_due_at is None and dag_id not in self.stands
            if self._edits[dag_id] <= 1:
                self._account(dag_id, old, new, spec, now, sorted(made[dag_id]), skips[dag_id], begins, events)
            self.stands[dag_id] = spec
        if events is None:
            self._unmoved(set(change.cursors), now, specs)
        for dag_id, rows in skips.items():
            spec = specs.get(dag_id)
            for row in rows:
                require(row.count > 0, row)
                if spec is not None and ticking(spec):
                    gone = set(ticks(spec, row.first, row.last))
                    if len(gone) == row.count:
                        twice = gone & (self.skipped[dag_id] | set(self.tables.ticks.get(dag_id, {})))
                        require(not twice or self._edits[dag_id], "skipped, and had a run or a skip:", row, twice)
                        self.skipped[dag_id] |= gone
        for dag_id in set(self.stands) - set(self.tables.dags):
            del self.stands[dag_id]
            self.skipped.pop(dag_id, None)

    def _unmoved(self, moved: set[str], now: datetime, specs: dict[str, DagSpec]) -> None:
        """A recovery: what was edited meanwhile and has its cursor where it was goes on from there."""
        for dag_id, spec in specs.items():
            before, entry = self.stands.get(dag_id), self.tables.dags.get(dag_id)
            if dag_id in moved or before is None or entry is None or timing(before) == timing(spec):
                continue
            self._edited(dag_id, before, spec, entry.next_due_at, entry.next_due_at, set(), now, True)
            self.stands[dag_id] = spec

    def _account(
        self,
        dag_id: str,
        old: DagEntry,
        new: DagEntry,
        spec: DagSpec,
        now: datetime,
        made: list[datetime],
        skips: list[SkipRow],
        begins: bool,
        events: list[Event] | None,
    ) -> None:
        cursor = new.next_due_at
        if begins:
            self._begins(spec, cursor, now, made)
            return
        before = self.stands.get(dag_id, spec)
        owed = old.next_due_at
        served = set(made)
        for skip in skips:
            for one in (before, spec):
                gone = ticks(one, skip.first, skip.last) if ticking(one) else [skip.first]
                if len(gone) == skip.count and gone[0] == skip.first and gone[-1] == skip.last:
                    break
            else:
                odd = skip.count == 1 and skip.first == skip.last == owed  # a cursor of a schedule that is gone
                require(odd or before != spec, "a skip does not tell its ticks:", skip, gone)
                gone = gone or [skip.first]
            served.update(gone)
        if timing(before) == timing(spec):
            self._unedited(dag_id, spec, owed, cursor, served, now)
            if skips and spec == before:
                self._kept(spec, skips, now)
        else:
            self._edited(dag_id, before, spec, owed, cursor, served, now, events is None)
        if cursor is not None and ticking(spec):
            fits = ticks(spec, cursor, cursor)
            require(fits or cursor == owed, "the cursor of", dag_id, "stands on no tick:", cursor)
        woken = events is None or any(
            isinstance(event, PauseDag) and event.dag_id == dag_id and not event.paused for event in events
        )
        if woken and old.paused != new.paused and not new.paused and not new.removed and cursor is not None:
            self._caught_up(spec, cursor, now, made)
        if not woken and not self._edits[dag_id] and not new.paused and not new.removed:
            slept = self._missed is not None and owed is not None and self._missed[0] < owed < self._missed[1]
            require(slept or not skips, "ticks were skipped, and nobody was away:", skips)
            if slept and cursor is not None:
                self._caught_up(spec, cursor, now, made)

    def _begins(self, spec: DagSpec, cursor: datetime | None, now: datetime, made: list[datetime]) -> None:
        """A dag that was never seen: where its timetable begins is said by its catch-up."""
        if spec.schedule.kind == "none":
            require(cursor is None and not made, "runs of no schedule", spec.dag_id)
            return
        if spec.schedule.kind == "once":
            at = spec.start_date or now
            late = spec.end_date is not None and at > spec.end_date
            expected = [] if late else [at]
            require(made + [one for one in (cursor,) if one is not None] == expected, "once:", spec, made, cursor)
            return
        ahead = ticks(spec, now + MICROSECOND, now + FAR)
        if spec.start_date is not None and spec.start_date > now:
            ahead = ticks(spec, now, spec.start_date + FAR)
        if spec.catchup is False:
            wanted = ahead[:1]
        elif spec.catchup == "latest":
            wanted = ticks(spec, now - FAR, now)[-1:] or ahead[:1]
        elif spec.catchup is True:
            wanted = (ticks(spec, min(spec.start_date, now), now) if spec.start_date else []) + ahead
        else:
            wanted = ticks(spec, now - timedelta(seconds=float(spec.catchup)), now) + ahead
        chain = made + [one for one in (cursor,) if one is not None]
        require(chain[:1] == wanted[:1], spec.dag_id, "begins at", chain[:1], "and not at", wanted[:1], spec)
        if made:
            passed = ticks(spec, made[0], (cursor or made[-1]) - (MICROSECOND if cursor else timedelta()))
            require(made == passed, "runs", made, "for the ticks", passed)

    def _unedited(
        self,
        dag_id: str,
        spec: DagSpec,
        owed: datetime | None,
        cursor: datetime | None,
        served: set[datetime],
        now: datetime,
    ) -> None:
        if owed == cursor:
            require(not served, "served and the cursor stands:", dag_id, owed, served)
            return
        if not ticking(spec):
            require(owed is None or cursor == owed or served == {owed}, dag_id, "owed", owed, "and served", served)
            return
        if owed is None:
            return
        until = max(now, max(served, default=now)) if cursor is None else cursor - MICROSECOND
        expected = set(ticks(spec, owed, until))
        require(served == expected, dag_id, "owed", sorted(expected), "and served", sorted(served), "cursor", cursor)

    def _edited(
        self,
        dag_id: str,
        before: DagSpec,
        spec: DagSpec,
        owed: datetime | None,
        cursor: datetime | None,
        served: set[datetime],
        now: datetime,
        recovering: bool,
    ) -> None:
        handled = served | set(self.tables.ticks.get(dag_id, {})) | self.skipped[dag_id]
        dates_alone = timing(before)[:3] == timing(spec)[:3]
        replaced = spec.catchup is True and ticking(spec)
        if owed is not None and owed <= now and not replaced and not recovering:
            for tick in ticks(before, owed, now) if ticking(before) else [owed]:
                if dates_alone and not ticks(spec, tick, tick):
                    continue  # the author took it out by the dates
                later = cursor is not None and tick >= cursor and (not ticking(spec) or ticks(spec, tick, tick))
                require(tick in handled or later, dag_id, "was edited and owed", tick, "which has no run and no skip")
        if not ticking(spec):
            return
        begin = owed if owed is not None and owed <= now and (replaced or recovering) else now + MICROSECOND
        end = now + FAR if cursor is None else cursor - MICROSECOND
        for tick in ticks(spec, begin, end):
            newest = max((*self.tables.ticks.get(dag_id, {}), *self.skipped[dag_id]), default=None)
            passed = newest is not None and tick <= newest
            require(tick in handled or passed, dag_id, "was edited and drops", tick, "; it goes on at", cursor, spec)

    def _kept(self, spec: DagSpec, skips: list[SkipRow], now: datetime) -> None:
        """Which ticks may be skipped at all: catch-up says what is kept."""
        if not ticking(spec):
            return
        last = max(skip.last for skip in skips)
        require(spec.catchup is not True, "a dag that catches up on everything skips", skips)
        if spec.catchup is False or spec.catchup == "latest":
            require(last not in ticks(spec, now - FAR, now)[-1:], "the latest tick was skipped:", skips, now)
        else:
            kept = ticks(spec, now - timedelta(seconds=float(spec.catchup)), now)
            require(not kept or last < kept[0], "a tick within catchup was skipped:", skips, kept[:1])

    def _caught_up(self, spec: DagSpec, cursor: datetime, now: datetime, made: list[datetime]) -> None:
        """After a time away no more is owed than catch-up says."""
        if not ticking(spec) or spec.catchup is True or cursor > now:
            return
        late = len(ticks(spec, cursor, now)) + len(made)
        if spec.catchup is False or spec.catchup == "latest":
            require(late <= 1, spec.dag_id, "owes", late, "ticks, and catchup is", spec.catchup)
        else:
            oldest = now - timedelta(seconds=float(spec.catchup))
            require(cursor >= oldest or made, spec.dag_id, "owes", cursor, "catchup is", spec.catchup)
