"""Schedules and catch-up as authors write them, in the form that the spec has."""

import datetime as dt
from typing import Any

from fluxd.authoring import checks
from fluxd.authoring.safely import spoken
from fluxd.core.cron import PRESETS
from fluxd.core.spec import Schedule
from fluxd.core.timetable import validate_schedule
from fluxd.errors import Invalid


def make_schedule(given: Any, timezone: str, dst: str, what: str) -> Schedule:
    """The schedule that `given` means: None, "@once", a preset, cron text or a timedelta. Raises Invalid FLX-104x."""
    match given:
        case None | "@none":
            return Schedule()
        case "@once":
            return Schedule("once")
        case dt.timedelta():
            schedule = Schedule("interval", seconds=given.total_seconds())
        case str() if given.startswith("@"):
            name = given.strip().lower()
            if name not in PRESETS:
                meant = checks.nearest(name, [*PRESETS, "@once"])
                hint = f"did you mean {meant!r}?" if meant else "it is one of " + ", ".join([*PRESETS, "@once"]) + "."
                raise Invalid("FLX-1004", f"{what} cannot be {spoken(given)}: {hint}")
            schedule = Schedule("cron", PRESETS[name])
        case str():
            schedule = Schedule("cron", " ".join(given.split()))
        case _:
            raise Invalid(
                "FLX-1004",
                f"{what} must be cron text, a preset like '@daily', a timedelta, '@once' or None, not {spoken(given)}.",
            )
    try:
        validate_schedule(schedule, timezone, dst)
    except Invalid as error:
        raise Invalid(error.code, f"{what}: {error.message}") from None
    return schedule


def make_catchup(given: Any, what: str) -> bool | str | float:
    """False, True, "latest", or how far back in seconds."""
    if isinstance(given, bool) or given == "latest":
        return given  # type: ignore[no-any-return]
    try:
        return checks.seconds(given, what)
    except Invalid:
        raise Invalid(
            "FLX-1003",
            f'{what} must be True, False, "latest", or how far back: a timedelta or text like "2d", '
            f"not {spoken(given)}.",
        ) from None


def zone_of(moment: Any) -> Any:
    """The time zone that a dag has whose start date is this: its zone where it has a named one, else UTC."""
    zone = getattr(moment, "tzinfo", None)
    return zone if isinstance(getattr(zone, "key", None) or getattr(zone, "name", None), str) else "UTC"
