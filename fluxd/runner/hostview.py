"""One dag host as the runner sees it, and what is told of one that could not import its file."""

import math
import os
import signal
import time
from typing import Any

from fluxd.runner.attempts import Process
from fluxd.runner.channel import Channel
from fluxd.runner.host import EXIT_CUT_OFF
from fluxd.runner.outcomes import signal_name
from fluxd.runner.protocol import Message
from fluxd.runner.silence import Silence

KILL_AFTER_S = 1.0  # beyond the time limit, which the host itself enforces first


class Host:
    """One host process, as the runner sees it."""

    def __init__(self, pid: int, import_order: Message, prints: int) -> None:
        self.pid = pid
        self.import_order = import_order
        self.bundle: str | None = import_order.get("bundle")
        self.channel: Channel
        self.ready = False
        self.told = False  # whether the outcome of its import went out
        self.why_killed: tuple[str, str] | None = None
        self.attempts: dict[int, Process] = {}  # live ones, sent or waiting for the import
        self.deadline = time.monotonic() + import_order.get("timeout_s", 30.0) + KILL_AFTER_S
        self.used_at = time.monotonic()
        self.silence: Silence | None = None  # from when it serves
        self.signals: dict[int, tuple[int, float]] = {}  # fence -> (number, when), not known to be passed on
        self.dropped = False  # let go by us
        self.leaves_by = math.inf
        self.cut_off = False  # its connection ended before it did
        self.dead = False  # known to be; its attempts are ours then
        self.prints = prints  # the pipe that its stdout and stderr are while it imports
        self.printed = 0
        self.shown = bytearray()


def import_death(info: Any, cut_off: bool) -> tuple[str, str]:
    """(code, words) of an import that ended its process."""
    if cut_off or (info.si_code == os.CLD_EXITED and info.si_status == EXIT_CUT_OFF):
        words = "importing it closed what it had not opened (os.closerange?), or became another program (os.exec?)"
        return "FLX-2007", f"{words}; drop that call."
    if info.si_code == os.CLD_EXITED:
        words = f"importing it ended the process with exit code {info.si_status} (os._exit?); drop that call."
        return "FLX-2007", words
    name = signal_name(info.si_status)
    hint = ": often the kernel, when memory ran out" if info.si_status == signal.SIGKILL else ""
    return "FLX-2007", f"importing it was ended by {name}{hint}; look at the libraries it imports."


def not_loaded(order: Message, code: str, message: str, error: Message | None = None) -> Message:
    """The answer to a load that gave nothing."""
    error = error or {"code": code, "message": message, "line": None, "file": order["file"], "traceback": ""}
    return {
        "type": "loaded", "id": order["id"], "file": order["file"], "bundle": None, "files": {}, "dags": [],
        "error": error, "seconds": 0.0,
    }  # fmt: skip
