"""Waits for a time of day or for a point in time."""

import contextlib
import datetime as dt
from collections.abc import Sequence
from typing import Any, ClassVar

from fluxd.authoring import checks
from fluxd.authoring.references import is_dynamic
from fluxd.authoring.sensor import BaseSensor, PokeResult
from fluxd.errors import Invalid

NOTHING = "nothing"  # what a result that came to None is called in the sentence about it


class TimeSensor(BaseSensor):
    """Waits until a time of day (on the day on which the run is due), or until a point in time.

    at (or target_time): a `datetime.time` or "HH:MM[:SS]", or a datetime or ISO 8601 text; in the dag's time zone
    where it has none of its own.
    """

    template_fields: ClassVar[Sequence[str]] = ("at",)
    strict_fields: ClassVar[Sequence[str]] = ("at",)

    def __init__(
        self, *, at: Any = checks.NOT_GIVEN, target_time: Any = checks.NOT_GIVEN, **sensor_arguments: Any
    ) -> None:
        super().__init__(**sensor_arguments)
        self.at = checks.one_name(f"TimeSensor {self.task_id!r}", at=at, target_time=target_time)
        if self.at is None:
            raise Invalid("FLX-1012", f"TimeSensor {self.task_id!r} needs the argument 'at'.")
        if not is_dynamic(self.at):
            self._time_or_moment()

    async def poke(self, context: dict[str, Any] | None = None) -> PokeResult:
        """Whether the time has come."""
        moment = self._moment(context)
        return PokeResult(dt.datetime.now(dt.UTC) >= moment, checks.utc_text(moment))

    def wait_args(self, context: dict[str, Any]) -> dict[str, Any]:
        return {"at": checks.utc_text(self._moment(context))}

    @property
    def _zone(self) -> dt.tzinfo:
        return self.dag.timezone if self.dag else dt.UTC

    def _time_or_moment(self) -> dt.time | dt.datetime:
        at = self.at
        if isinstance(at, str):
            with contextlib.suppress(ValueError):
                return dt.time.fromisoformat(at.strip())
        if isinstance(at, dt.time):
            return at
        moment = checks.moment(NOTHING if at is None else at, self._zone, f"at of TimeSensor {self.task_id!r}")
        assert moment is not None
        return moment

    def _moment(self, context: dict[str, Any] | None) -> dt.datetime:
        zone, at = self._zone, self._time_or_moment()
        if isinstance(at, dt.time):
            if context is None:
                raise Invalid("FLX-3043", "TimeSensor: a time of day means something only in a run.")
            day = context["data_interval_end"].astimezone(zone).date()
            return dt.datetime.combine(day, at, at.tzinfo or zone).astimezone(dt.UTC)
        return at
