"""Trigger rules: may a task start, given how many of its upstreams ended and how.

A rule sees four numbers only, never the upstreams themselves. So the end of one task costs one look at each task
behind it, however many upstreams those have. The rules and their corner cases are those of Airflow
(airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html#trigger-rules).
"""

from collections.abc import Callable
from enum import Enum

from fluxd.core.states import State


class Verdict(Enum):
    """What a trigger rule says now. WAIT: not decided yet; an upstream's end may decide it."""

    WAIT = "wait"
    RUN = "run"
    SKIP = "skip"
    FAIL = "upstream_failed"


# Which column an ended upstream counts in; 0 = not ended. A cancelled task counts as failed, a removed one as skipped.
UNDONE, SUCCESS, FAILED, SKIPPED = 0, 1, 2, 3
COLUMN: dict[State, int] = dict.fromkeys(State, UNDONE) | {
    State.SUCCESS: SUCCESS,
    State.FAILED: FAILED,
    State.UPSTREAM_FAILED: FAILED,
    State.CANCELLED: FAILED,
    State.SKIPPED: SKIPPED,
    State.REMOVED: SKIPPED,
}

WAIT, RUN, SKIP, FAIL = Verdict.WAIT, Verdict.RUN, Verdict.SKIP, Verdict.FAIL
# (still to end, succeeded, failed, skipped) -> verdict
Rule = Callable[[int, int, int, int], Verdict]


def _all_success(undone: int, success: int, failed: int, skipped: int) -> Verdict:
    if failed:
        return FAIL
    if skipped:
        return SKIP
    return WAIT if undone else RUN


def _all_failed(undone: int, success: int, failed: int, skipped: int) -> Verdict:
    if success or skipped:
        return SKIP
    return WAIT if undone else RUN


def _all_done(undone: int, success: int, failed: int, skipped: int) -> Verdict:
    return WAIT if undone else RUN


def _one_success(undone: int, success: int, failed: int, skipped: int) -> Verdict:
    if success:
        return RUN
    if undone:
        return WAIT
    return FAIL if failed else SKIP


def _one_failed(undone: int, success: int, failed: int, skipped: int) -> Verdict:
    if failed:
        return RUN
    return WAIT if undone else SKIP


def _one_done(undone: int, success: int, failed: int, skipped: int) -> Verdict:
    if success or failed:
        return RUN
    return WAIT if undone else SKIP


def _none_failed(undone: int, success: int, failed: int, skipped: int) -> Verdict:
    if failed:
        return FAIL
    return WAIT if undone else RUN


def _none_failed_min_one_success(undone: int, success: int, failed: int, skipped: int) -> Verdict:
    if failed:
        return FAIL
    if undone:
        return WAIT
    return RUN if success else SKIP


def _none_skipped(undone: int, success: int, failed: int, skipped: int) -> Verdict:
    if skipped:
        return SKIP
    return WAIT if undone else RUN


def _all_skipped(undone: int, success: int, failed: int, skipped: int) -> Verdict:
    if success or failed:
        return SKIP
    return WAIT if undone else RUN


def _always(undone: int, success: int, failed: int, skipped: int) -> Verdict:
    return RUN


RULES: dict[str, Rule] = {
    "all_success": _all_success,
    "all_failed": _all_failed,
    "all_done": _all_done,
    "one_success": _one_success,
    "one_failed": _one_failed,
    "one_done": _one_done,
    "none_failed": _none_failed,
    "none_failed_min_one_success": _none_failed_min_one_success,
    "none_skipped": _none_skipped,
    "all_skipped": _all_skipped,
    "always": _always,
}


def judge(rule: Rule, upstream: int, counts: list[int]) -> Verdict:
    """What `rule` says of a task with this many upstreams; `counts` as in COLUMN. No upstream: it may run."""
    if not upstream:
        return RUN
    _, success, failed, skipped = counts
    return rule(upstream - success - failed - skipped, success, failed, skipped)
