"""What comes next for a dag, and what its schedule says, from its spec as the database holds it."""

from datetime import UTC, datetime
from typing import Any

from fluxd.core.cronwords import schedule_in_words
from fluxd.core.spec import DagSpec, Schedule
from fluxd.core.timetable import make_timetable, next_runs, rfc3339, waits_for_clock
from fluxd.errors import FluxError


def schedule_words(schedule: dict[str, Any], timezone: str) -> str:
    """When runs are due, for people; the bare expression where a stored one is not understood any more."""
    try:
        return schedule_in_words(Schedule(**schedule), timezone)
    except (FluxError, TypeError):
        return str(schedule.get("expression"))


def coming_runs(
    spec: DagSpec, next_due_at: datetime | None, start: datetime | None, count: int
) -> list[dict[str, Any]]:
    """The next runs due at or after `start`; without it, from where the dag's timetable stands."""
    if spec.schedule.kind == "once" and next_due_at is None:
        return []  # its one run was there
    return next_runs(
        spec.schedule,
        spec.timezone,
        spec.dst,
        start or next_due_at or datetime.now(UTC),
        count,
        start_date=spec.start_date,
        end_date=spec.end_date,
    )


def what_to_know(spec: DagSpec, next_due_at: datetime | None, runs: list[dict[str, Any]]) -> str | None:
    """Why there are no runs to come, or why they are so far away, in words; None: there is nothing to be said."""
    if not runs:
        return _why_nothing_comes(spec, next_due_at)
    return waits_for_clock(make_timetable(spec), next_due_at, datetime.now(UTC).replace(microsecond=0))


def _why_nothing_comes(spec: DagSpec, next_due_at: datetime | None) -> str:
    if spec.schedule.kind == "none":
        return "Nothing comes: it has no schedule, so it runs only when triggered."
    if spec.schedule.kind == "once" and next_due_at is None:
        return "Nothing comes: it runs once, and that run was made already."
    if spec.end_date is not None:
        return f"Nothing comes: no run is due up to its end date, {rfc3339(spec.end_date)}."
    return "Nothing comes: its schedule has no more times."
