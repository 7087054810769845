"""A run as JSON: the shape that `runs show` and the answer to a trigger have."""

from datetime import datetime
from typing import Any

from fluxd.core.model import Run
from fluxd.core.timetable import rfc3339


def _time(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)


def run_to_json(run: Run) -> dict[str, Any]:
    """The fields of a run, times RFC 3339 in UTC. `runs show` adds its `tasks`."""
    return {
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "state": str(run.state),
        "run_type": run.run_type,
        "logical_date": rfc3339(run.logical_date),
        "data_interval_start": rfc3339(run.data_interval_start),
        "data_interval_end": rfc3339(run.data_interval_end),
        "due_at": _time(run.due_at),
        "queued_at": rfc3339(run.queued_at),
        "started_at": _time(run.started_at),
        "ended_at": _time(run.ended_at),
        "conf": run.conf,
        "reason": run.reason,
        "created_by": run.created_by,
    }
