"""What went wrong, in the order in which people ask: what happened, in which task, under which code."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fluxd.core.states import State

# As core/settle.py words the reason of a run: "task load failed: FLX-3014: ledger 120.00, mart 119.50".
OF_A_TASK = re.compile(r"task (\S+) (failed|upstream_failed|cancelled)(?:: (.*))?", re.DOTALL)
OF_AN_ERROR = re.compile(r"(FLX-\d{4}): (.*)", re.DOTALL)
SEPARATOR = " · "


@dataclass(frozen=True, slots=True)
class Cause:
    """`what` happened, in which `task`, under which `code`; the last two are None where the reason names none."""

    what: str
    task: str | None = None
    code: str | None = None

    def __str__(self) -> str:
        return SEPARATOR.join(part for part in (self.what, self.task, self.code) if part)


def cause(reason: str) -> Cause:
    """The parts of a reason of a run or of a task instance."""
    task, what = None, reason
    if matched := OF_A_TASK.fullmatch(reason):
        task, what = matched[1], matched[3] or matched[2].replace("_", " ")
    if matched := OF_AN_ERROR.fullmatch(what):
        return Cause(matched[2], task, matched[1])
    return Cause(what, task)


def failed_upstreams(tasks: Iterable[tuple[str, str, Iterable[str], str | None]]) -> Mapping[str, str]:
    """task id -> which task failed before it, and of what, for tasks that are `upstream_failed`.

    `tasks`: (task id, state, upstream ids, reason), upstream first.
    """
    failed: dict[str, str] = {}  # what each task that is not well comes from
    found: dict[str, str] = {}
    for task_id, state, upstream, reason in tasks:
        if state in (State.FAILED, State.CANCELLED):
            failed.setdefault(task_id, f"{task_id} {state}" + (f": {cause(reason).what}" if reason else ""))
        elif state == State.UPSTREAM_FAILED:
            root = next((failed[up] for up in upstream if up in failed), None)
            if root is not None:
                failed[task_id] = found[task_id] = root
    return found
