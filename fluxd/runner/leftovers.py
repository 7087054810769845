"""What a runner that died left behind: its processes are ended and proved dead, its records read.

Attempts cannot be taken over from a dead runner (nobody but a parent learns how a process ended), so they are ended.
Dag hosts see the end of their runner by themselves and end their attempts with the usual grace; commands without a
host get their TERM here.
"""

import contextlib
import os
import signal
import time
from typing import Any, NamedTuple

from fluxd.runner import processes, records
from fluxd.runner.environment import MARK
from fluxd.runner.protocol import Message, to_json

GRACE_S = 5.0
STEP_S = 0.02
RUNNER_DIED = "runner died"


class Leftovers(NamedTuple):
    """Results and losses by fence, each with the name of its record."""

    ended: dict[int, tuple[bytes, str]]
    lost: dict[int, tuple[str, str]]


def settle(folder: str, home: str, boot_id: str) -> Leftovers:
    """End what lives of an earlier runner of this home. Returns what it leaves to be acknowledged."""
    records.sweep(folder)
    found = records.stored(folder)
    pids = {
        record["pid"]: record["start_ticks"]
        for _, record in found.values()
        if "end" not in record and record.get("boot_id") == boot_id and "pid" in record
    }
    _end(pids, home)
    left = Leftovers({}, {})
    for fence, (name, record) in records.stored(folder).items():
        message = _ended(fence, record)
        if message is not None:
            left.ended[fence] = (to_json(message), name)
        else:
            left.lost[fence] = (_evidence(record, boot_id), name)
    return left


def _end(pids: dict[int, int], home: str) -> None:
    """TERM to the recorded groups, KILL to everything of this home that is still there after the grace."""
    mark = f"{MARK}={home}".encode()
    for pid, ticks in pids.items():
        if processes.alive(pid, ticks):
            _signal_group(pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    hard = False
    while remaining := _remaining(pids, mark):
        if time.monotonic() > deadline or hard:
            hard = True
            for pid in remaining:
                _signal_group(pid, signal.SIGKILL)
        time.sleep(STEP_S)


def _remaining(pids: dict[int, int], mark: bytes) -> list[int]:
    living = [pid for pid, ticks in pids.items() if processes.alive(pid, ticks)]
    return living or [pid for pid in processes.carrying(mark) if processes.alive(pid, processes.start_ticks(pid))]


def _signal_group(pid: int, number: int) -> None:
    for send in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            send(pid, number)


def _ended(fence: int, record: dict[str, Any]) -> Message | None:
    """The message of a record that holds a result; None where there is none."""
    end: Message = record.get("end") or {}
    outcome = record.get("outcome") or end.get("outcome")
    if outcome is None:
        return None
    if end.get("killed") == RUNNER_DIED and outcome["state"] == "failed":
        return None  # it failed because its runner was gone, not by itself
    message: Message = {
        "type": "ended", "fence": fence, "pid": record.get("pid"), "started_at": record.get("started_at"),
        "ended_at": time.time(), "exit_code": None, "signal": None, "usage": None,
    }  # fmt: skip
    return message | end | {"outcome": outcome}


def _evidence(record: dict[str, Any], boot_id: str) -> str:
    if record.get("boot_id") != boot_id:
        return "the machine was restarted while it ran"
    if "pid" not in record:
        return "its runner died before its process began"
    return f"its runner died while it ran; its process {record['pid']} was ended and is gone"
