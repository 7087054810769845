"""What a runner that died left behind: attempts that live are taken over, the rest is ended and proved dead.

Of a dag host or of a child that has not become an attempt yet nothing can be told later on, so they are ended; after
that the records say which attempts there are, and nobody is left who could begin another.
"""

import contextlib
import os
import signal
import sys
import time
from typing import Any, Protocol

from fluxd.runner import processes, reaper, records
from fluxd.runner.protocol import Message, to_json
from fluxd.runner.records import Record, Records
from fluxd.runner.results import Results

STEP_S = 0.02
SLOW_STEP_S = 1.0
SAID_AFTER_S = 5.0

Known = dict[str, Any]  # what a record tells
TAKEN_OVER = {"log", "grace_s", "boot_id", "entered"}  # what must be known of one that is taken over


class Adopting(Protocol):
    """Who goes on with attempts that live."""

    def take_over(self, fence: int, known: Message, record: Record) -> None: ...

    def settled(self) -> None: ...


class Leftovers:
    """Of the home with this number."""

    def __init__(self, folder: str, home: str, home_number: int, boot_id: str) -> None:
        self._folder = folder
        self._home = home
        self._home_number = home_number
        self._boot_id = boot_id

    def settle(self, reusable: Records, results: Results, adopting: Adopting) -> None:
        """Take over what lives, end the rest, and put what the records tell among the results."""
        living = {fence for fence, (_, known) in records.stored(self._folder).items() if self._lives(fence, known)}
        self._end_all_but(living)
        for fence, (name, known) in records.stored(self._folder).items():
            record = reusable.open(name)
            if fence in living and "end" not in known:
                adopting.take_over(fence, known, record)
                continue
            message = self._told(fence, known)
            results.keep(message["type"], fence, to_json(message), record)
        records.sweep(self._folder)
        adopting.settled()

    def _lives(self, fence: int, known: Known) -> bool:
        """Whether the process of this record runs, or can tell how it ended."""
        if "end" in known or not known.keys() >= TAKEN_OVER or known["boot_id"] != self._boot_id:
            return False
        pid, seen = known.get("pid") or known["entered"], known.get("seen")
        if not pid or seen is None:
            return False
        if processes.there(pid, seen):
            return processes.fence_of(pid, self._home_number) == fence
        return reaper.how_it_ended(self._folder, pid, seen) is not None

    def _end_all_but(self, living: set[int]) -> None:
        """KILL everything of this home that belongs to no living attempt, until nothing of it is left."""
        began, said = time.monotonic(), False
        while remaining := self._remaining(living):
            for pid in remaining:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() - began > SAID_AFTER_S and not said:
                # Some may not be ended by us (they changed their user, say). While they live, no attempt may begin.
                sys.stderr.write(f"waiting for the end of processes {remaining} of an earlier runner: end them\n")
                sys.stderr.flush()
                said = True
            time.sleep(SLOW_STEP_S if said else STEP_S)

    def _remaining(self, living: set[int]) -> list[int]:
        marked = processes.marked(self._home_number)
        # One of an earlier version has no mark, and tells by its environment.
        unmarked = [pid for pid in processes.carrying(self._home) if pid not in marked and processes.alive(pid)]
        ours = {os.getppid(), os.getpid()}
        found = [pid for pid, fence in marked.items() if fence not in living] + unmarked
        return [pid for pid in found if pid not in ours]

    def _told(self, fence: int, known: Known) -> Message:
        """`ended` for a record that holds a result, or whose process was waited for, else `lost`."""
        if "end" in known and known["end"]["fence"] == fence:
            end: Message = known["end"]
            return end
        outcome = known.get("outcome")
        if outcome is None:
            evidence = self._evidence(known)
            return {"type": "lost", "fence": fence, "evidence": evidence, "began": "entered" in known}
        outcome.pop("stopped", None)  # that it was told to stop was none of anybody's will
        return {
            "type": "ended", "fence": fence, "pid": known.get("pid"), "started_at": known.get("started_at"),
            "ended_at": time.time(), "exit_code": 1 if outcome["state"] == "failed" else 0, "signal": None,
            "outcome": outcome, "usage": None,
        }  # fmt: skip

    def _evidence(self, known: Known) -> str:
        if known.get("boot_id") != self._boot_id:
            return "the machine was restarted while it ran"
        if "entered" not in known:
            return "its runner died before its process began"
        pid = known.get("pid") or known["entered"] or "unknown"
        return f"its runner died while it ran; its process {pid} was ended and is gone"
