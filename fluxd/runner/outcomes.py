"""How an attempt ended, in words: for processes that could not tell it themselves."""

import re
import signal
from typing import Any

from fluxd.authoring.requests import LONG_LINE
from fluxd.runner.logs import LineTooLong, disk_is_full, last_line, write_log

SKIP_EXIT_CODE = 99
EXIT_NO_RECORD = 74  # EX_IOERR: a child that could not write its record leaves with this
OUTCOME_MAX = 32 * 1024 * 1024  # bytes of JSON; half of what one message to the daemon takes

SAID_MAX = 200
COLOURS = re.compile(r"\x1b\[[0-9;:]*[A-Za-z]")

Outcome = dict[str, Any]


def failed(code: str, kind: str, message: str, *, retry: bool = True) -> Outcome:
    """The outcome of a failure: `kind` is a short type name, `retry` False when trying again cannot help."""
    return {"state": "failed", "error": {"type": kind, "message": f"{code}: {message}", "retry": retry}}


def too_large(size: int) -> Outcome:
    """The outcome in place of one that is larger than OUTCOME_MAX."""
    return failed(
        "FLX-7023",
        "ResultTooLarge",
        f"The task's XComs are {size:,} bytes together, above the limit of {OUTCOME_MAX:,}: put the data into a file "
        "or a table, and hand on where it is.",
        retry=False,
    )


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def crashed(exit_code: int | None, by_signal: int | None, killed: str | None) -> Outcome:
    """A process that ended without telling an outcome."""
    if by_signal is not None:
        name = signal_name(by_signal)
        if killed is not None:
            return failed("FLX-7013", "Killed", f"The task was told to stop ({killed}) and ended by {name}.")
        hint = " (often the kernel, when memory ran out)" if by_signal == signal.SIGKILL else ""
        return failed("FLX-7011", "Crashed", f"The task's process was ended by {name}{hint}, without a result.")
    if exit_code == EXIT_NO_RECORD:
        return failed(
            "FLX-7012",
            "Crashed",
            f"The task's process left with exit code {exit_code}: its result could not be written to the runner folder "
            "of the home (is its disk full?).",
        )
    return failed(
        "FLX-7012",
        "Crashed",
        f"The task's process left with exit code {exit_code} before its result was known (os._exit, or an exec?).",
    )


def of_command(spawn: dict[str, Any], log: str, exit_code: int) -> Outcome:
    """A spawned command: 0 is success, and its last line of output the XCom `return_value`."""
    if exit_code == 0:
        line = _result(log) if spawn.get("xcom", True) else None
        return {"state": "success", "xcoms": [] if line is None else [["return_value", line]]}
    skips = spawn.get("skip_on_exit_code", SKIP_EXIT_CODE)
    if exit_code == skips or (isinstance(skips, list) and exit_code in skips):
        said = f"the command ended with exit code {exit_code}"
        return {"state": "skipped", "error": {"type": "SkipTask", "message": said, "retry": False}}
    if disk_is_full(log):
        # What the command had to say about it could not be written either.
        return failed(
            "FLX-3016",
            "CommandFailed",
            f"The command ended with exit code {exit_code}, and there is no space left on the disk of its log {log}: "
            "free some, then clear the task.",
        )
    said = _shown(_said(log))
    words = f"The command ended with exit code {exit_code}" + (f"; it said last: {said}" if said else ".")
    return failed("FLX-3014", "CommandFailed", words)


def _result(log: str) -> str | None:
    try:
        return last_line(log)
    except LineTooLong:
        write_log(log, f"flux: {LONG_LINE}")
        return None


def _said(log: str) -> str:
    try:
        return last_line(log) or ""
    except LineTooLong:
        return ""


def _shown(line: str) -> str:
    """A line of output for people to read: no colours, nothing that does not print, not too long."""
    text = "".join(c if c.isprintable() else " " for c in COLOURS.sub("", line)).strip()
    return text if len(text) <= SAID_MAX else f"{text[: SAID_MAX - 1]}…"
