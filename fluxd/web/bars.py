"""Runs and tasks as bars: from times to rectangles. What a state looks like is said in the style sheet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from fluxd.web import words

LEAST = 5.0  # a run of no length is to be seen and hit too
LEAST_FAILED = 8.0  # room for its cross


def run_href(dag_id: str, run_id: str) -> str:
    return f"/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"


def task_href(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    mapped = f"?map_index={map_index}" if map_index >= 0 else ""
    return f"{run_href(dag_id, run_id)}/tasks/{quote(task_id, safe='')}{mapped}"


@dataclass(frozen=True, slots=True)
class Bar:
    """One run, as paths: its whole column (to be hit), the part that is seen, and the cross of a failed one."""

    state: str
    href: str
    title: str
    column: str
    seen: str
    cross: str


@dataclass(frozen=True, slots=True)
class BarRow:
    bars: tuple[Bar, ...]
    width: int
    height: int
    longest: float  # seconds


def run_title(run: Mapping[str, Any], zone: str, now: datetime) -> str:
    """A run in a sentence: what it covers, how it is, how long it took, and why."""
    covers = words.stretch(run["data_interval_start"], run["data_interval_end"], zone)
    text = f"{covers} · {run['state']}"
    seconds = words.took(run["started_at"], run["ended_at"], now)
    if seconds is not None:
        text += f" {'after' if run['ended_at'] else 'for'} {words.duration(seconds)}"
    return f"{text} · {words.cause(run['reason'])}" if run["reason"] else text


def run_bars(
    dag_id: str, runs: Sequence[Mapping[str, Any]], zone: str, now: datetime, *, slots: int, pitch: int, height: int
) -> BarRow:
    """Bars of these runs (oldest first), the newest at the right edge of `slots` columns of `pitch` pixels."""
    seconds = [words.took(run["started_at"], run["ended_at"], now) or 0.0 for run in runs]
    longest = max(seconds, default=0.0)
    bars = []
    for index, (run, took) in enumerate(zip(runs, seconds, strict=True), slots - len(runs)):
        state = run["state"]
        least = LEAST_FAILED if state == "failed" else LEAST
        tall = max(least, (took / longest if longest else 0.0) * (height - 1))
        bars.append(
            Bar(
                state=state,
                href=run_href(dag_id, run["run_id"]),
                title=run_title(run, zone, now),
                column=f"M{index * pitch} 0h{pitch}v{height}h-{pitch}z",
                seen=_seen(state, index * pitch + 1, pitch - 2, tall, height),
                cross=_cross(index * pitch + 1, pitch - 2, tall, height) if state == "failed" else "",
            )
        )
    return BarRow(tuple(bars), slots * pitch, height, longest)


def _seen(state: str, x: float, width: float, tall: float, height: float) -> str:
    """The visible part; what lives is an outline (half of its stroke lies outside), what was cancelled is thin."""
    if state == "cancelled":
        x, width = x + width / 3, width / 3
    elif state in ("running", "queued"):
        x, width, tall, height = x + 0.8, width - 1.6, tall - 1.6, height - 0.8
    return f"M{x:.1f} {height - tall:.1f}h{width:.1f}v{tall:.1f}h-{width:.1f}z"


def _cross(x: float, width: float, tall: float, height: float) -> str:
    arm = min(width, 9) / 2 - 1.7
    left, right, upper = x + width / 2 - arm, x + width / 2 + arm, height - tall + min(width, tall) / 2 + 0.4 - arm
    return f"M{left:.1f} {upper:.1f}l{2 * arm:.1f} {2 * arm:.1f}M{right:.1f} {upper:.1f}l-{2 * arm:.1f} {2 * arm:.1f}"


@dataclass(frozen=True, slots=True)
class Span:
    """A task on the time line of its run, in percent of it: it waited for a process, then it ran."""

    wait_left: float
    wait_width: float
    left: float
    width: float


def spans(
    tasks: Sequence[Mapping[str, Any]], begin: datetime | None, end: datetime | None, now: datetime
) -> list[Span | None]:
    """Where each task lies between the run's begin and its end (or now); None for those that did not start."""
    if begin is None:
        return [None] * len(tasks)
    whole = max(((end or now) - begin).total_seconds(), 0.001)

    def percent(at: datetime) -> float:
        return min(100.0, max(0.0, (at - begin).total_seconds() / whole * 100))

    found: list[Span | None] = []
    for task in tasks:
        started = task["started_at"]
        if started is None:
            found.append(None)
            continue
        left = percent(started)
        width = max(0.6, percent(task["ended_at"] or now) - left)
        queued = percent(task["queued_at"] or started)
        left = min(left, 99.4)
        found.append(Span(round(queued, 2), round(max(0.0, left - queued), 2), round(left, 2), round(width, 2)))
    return found
