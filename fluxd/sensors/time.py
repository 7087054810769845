"""Waits for a time of day or for a point in time."""

import datetime as dt
from collections.abc import Sequence
from typing import Any, ClassVar

from fluxd.authoring import checks
from fluxd.authoring.sensor import BaseSensor, PokeResult
from fluxd.errors import Invalid


class TimeSensor(BaseSensor):
    """Waits until a time of day (on the day on which the run is due), or until a point in time.

    at (or target_time): a `datetime.time` or "HH:MM[:SS]", or a datetime or ISO 8601 text; in the dag's time zone
    where it has none of its own.
    """

    template_fields: ClassVar[Sequence[str]] = ("at",)

    def __init__(self, *, at: Any = None, target_time: Any = None, **sensor_arguments: Any) -> None:
        super().__init__(**sensor_arguments)
        self.at = at if at is not None else target_time
        if self.at is None:
            raise Invalid("FLX-1012", f"TimeSensor {self.task_id!r} needs the argument 'at'.")

    async def poke(self, context: dict[str, Any] | None = None) -> PokeResult:
        """Whether the time has come."""
        moment = self._moment(context)
        return PokeResult(dt.datetime.now(dt.UTC) >= moment, checks.utc_text(moment))

    def wait_args(self, context: dict[str, Any]) -> dict[str, Any]:
        return {"at": checks.utc_text(self._moment(context))}

    def _moment(self, context: dict[str, Any] | None) -> dt.datetime:
        zone: dt.tzinfo = self.dag.timezone if self.dag else dt.UTC
        at = self.at
        if isinstance(at, str):
            try:
                at = dt.time.fromisoformat(at.strip())
            except ValueError:
                at = self.at
        if isinstance(at, dt.time):
            if context is None:
                raise Invalid("FLX-3043", "TimeSensor: a time of day means something only in a run.")
            day = context["data_interval_end"].astimezone(zone).date()
            at = dt.datetime.combine(day, at, at.tzinfo or zone)
        moment = checks.moment(at, zone, f"at of TimeSensor {self.task_id!r}")
        assert moment is not None
        return moment
