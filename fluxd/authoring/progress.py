"""What a running task says of itself: how far it is, and what its next try is to know."""

import time
from typing import Any

from fluxd.authoring import checks
from fluxd.authoring.daemon import Door
from fluxd.authoring.jsonvalue import to_json
from fluxd.core.progress import COUNT_MAX, NOTE_MAX

INTERVAL_S = 1.0  # no more often is the daemon told
DEAF_S = 30.0  # after it did not hear
STATE_MAX_KB = 64


class Progress:
    """How far the task is. What was told last goes with the outcome, so that it need not have been heard before."""

    def __init__(self, door: Door | None) -> None:
        self.told: dict[str, Any] = {}
        self._door = door
        self._next = 0.0

    def tell(self, rows: int | None, size: int | None, note: str | None) -> None:
        told = {
            "rows": None if rows is None else checks.whole(rows, "rows of ti.progress()", most=COUNT_MAX),
            "bytes": None if size is None else checks.whole(size, "bytes of ti.progress()", most=COUNT_MAX),
            "note": None if note is None else checks.text(note, "note of ti.progress()")[:NOTE_MAX],
        }
        self.told |= {name: value for name, value in told.items() if value is not None}
        if self._door is None or not self.told or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + DEAF_S  # also while we ask: another thread need not wait for it too
        if self._door.tell("progress", self.told):
            self._next = time.monotonic() + INTERVAL_S


class Kept:
    """What the tries of a task instance keep for one another: a small dict, in the daemon's database."""

    def __init__(self, door: Door | None) -> None:
        self._door = door
        self._here: dict[str, Any] = {}  # where there is no daemon

    def get(self) -> dict[str, Any]:
        if self._door is None:
            return dict(self._here)
        answer = self._door.get("state")
        return dict(answer["state"]) if answer else {}

    def set(self, state: dict[str, Any]) -> None:
        plain = to_json(
            checks.mapping(state, "The state of ti.set_state()"), "The state of ti.set_state()", STATE_MAX_KB
        )
        if self._door is None:
            self._here = plain
        else:
            self._door.put("state", {"state": plain})
