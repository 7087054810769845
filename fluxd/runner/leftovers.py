"""What a runner that died left behind: its processes are ended and proved dead, its records read.

Attempts cannot be taken over from a dead runner (nobody but a parent learns how a process ended), so they are ended.
Dag hosts see the end of their runner by themselves and tell their attempts to stop; commands without a host get their
TERM here.
"""

import contextlib
import os
import signal
import sys
import time
from typing import Any

from fluxd.runner import processes, records
from fluxd.runner.environment import MARK
from fluxd.runner.protocol import Message, to_json
from fluxd.runner.records import Records
from fluxd.runner.results import Results

GRACE_S = 5.0
STEP_S = 0.02
SLOW_STEP_S = 1.0


def settle(folder: str, home: str, boot_id: str, reusable: Records, results: Results) -> None:
    """End what lives of an earlier runner of this home, and put what its records tell among the results."""
    _end(_running(folder, boot_id), home)
    for fence, (name, known) in records.stored(folder).items():
        record = reusable.open(name)
        message = _told(fence, known, boot_id)
        results.keep(message["type"], fence, to_json(message), record)
    records.sweep(folder)


def _running(folder: str, boot_id: str) -> dict[int, float]:
    """pid -> when it was seen (seconds since boot), of the attempts without an end."""
    return {
        known["pid"]: known["seen"]
        for _, known in records.stored(folder).values()
        if "end" not in known and known.get("boot_id") == boot_id and "pid" in known
    }


def _end(pids: dict[int, float], home: str) -> None:
    """TERM to the recorded groups, KILL to everything of this home that is still there after the grace."""
    mark = f"{MARK}={home}".encode()
    for pid, seen in pids.items():
        if processes.alive(pid, seen):
            _signal_group(pid, signal.SIGTERM)
    began, said = time.monotonic(), False
    while remaining := _remaining(pids, mark):
        waited_s = time.monotonic() - began
        if waited_s > GRACE_S:
            for pid in remaining:
                _signal_group(pid, signal.SIGKILL)
        if waited_s > 2 * GRACE_S and not said:
            # Some may not be ended by us (they changed their user, say). While they live, no attempt may begin.
            sys.stderr.write(f"waiting for the end of processes {remaining} of an earlier runner: end them\n")
            said = True
        time.sleep(SLOW_STEP_S if said else STEP_S)


def _remaining(pids: dict[int, float], mark: bytes) -> list[int]:
    living = [pid for pid, seen in pids.items() if processes.alive(pid, seen)]
    return living or [pid for pid in processes.carrying(mark) if processes.alive(pid)]


def _signal_group(pid: int, number: int) -> None:
    for send in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            send(pid, number)


def _told(fence: int, known: dict[str, Any], boot_id: str) -> Message:
    """`ended` for a record that holds a result, else `lost`."""
    if "end" in known:
        end: Message = known["end"]
        return end
    outcome = known.get("outcome")
    # A task that was told to stop because its runner was gone has not failed by itself.
    if outcome is None or (outcome.get("error") or {}).get("type") == "TaskTerminated":
        return {
            "type": "lost", "fence": fence, "evidence": _evidence(known, boot_id), "began": "entered" in known,
        }  # fmt: skip
    outcome.pop("stopped", None)  # that it was told to stop was none of anybody's will
    return {
        "type": "ended", "fence": fence, "pid": known.get("pid"), "started_at": known.get("started_at"),
        "ended_at": time.time(), "exit_code": 1 if outcome["state"] == "failed" else 0, "signal": None,
        "outcome": outcome, "usage": None,
    }  # fmt: skip


def _evidence(known: dict[str, Any], boot_id: str) -> str:
    if known.get("boot_id") != boot_id:
        return "the machine was restarted while it ran"
    if "entered" not in known:
        return "its runner died before its process began"
    pid = known.get("pid") or known["entered"] or "unknown"
    return f"its runner died while it ran; its process {pid} was ended and is gone"
