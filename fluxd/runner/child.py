"""The inside of an attempt: what happens between the fork and `os._exit`.

The child's stdout and stderr *are* the log file, so nothing stands between the task and its log. Whatever the task
does, this code leaves by `os._exit`: the stack below belongs to the dag host or the runner.
"""

import _signal  # type: ignore[import-not-found]  # `signal` wraps it in enums: pages that each child would copy
import atexit
import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, NoReturn

from fluxd.authoring import execution, safely
from fluxd.authoring.dag import DAG
from fluxd.authoring.outcomes import TaskTerminated
from fluxd.authoring.requests import ExecCommand, too_large
from fluxd.errors import Unavailable
from fluxd.runner import outcomes
from fluxd.runner.logs import open_log
from fluxd.runner.outcomes import EXIT_NO_RECORD, OUTCOME_MAX, failed
from fluxd.runner.processes import mark_attempt, set_name, since_boot
from fluxd.runner.protocol import Message, to_json
from fluxd.runner.records import Record

EXIT_FAILED = 1
IGNORED_BY_PYTHON = (_signal.SIGPIPE, _signal.SIGXFSZ)
ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
NUL_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")

Perform = Callable[[Message, Record], dict[str, Any]]


_told_to_stop = False  # whether SIGTERM came while the task was at work; it may have caught what we raise then


class LogFile(io.FileIO):
    """A log that may be full: what cannot be written is counted, and the task goes on."""

    lost = 0
    why = ""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            size = memoryview(data).nbytes
            LogFile.lost += size
            LogFile.why = error.strerror or str(error)
            return size


def open_streams() -> None:
    """Make sys.stdout and sys.stderr over descriptors 1 and 2: line by line, and able to print anything."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        raw = io.BufferedWriter(LogFile(number, "w", closefd=False))
        stream = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def print_error(error: BaseException) -> None:
    """Its traceback, to stderr; neither the error nor what the task made of the stream can prevent what comes next."""
    with contextlib.suppress(Exception):
        sys.stderr.write(safely.formatted(error, safely.traceback_of(error)))


def flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    global _told_to_stop
    _told_to_stop = True
    raise TaskTerminated("the task was told to stop (SIGTERM)")


def detach() -> None:
    """Leave the parent: own session, no signal held back, and none of the exit handlers of its imports."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    os.setsid()
    if atexit._ncallbacks():
        # Registered while importing: those belong to the process that imported, not to each of its forks.
        atexit._clear()


def rehearse(dags: Iterable[DAG]) -> None:
    """Touch what every attempt touches, while there is time: the pages that are copied now are not copied later."""
    execution.rehearse(dags)
    ENCODER.encode({"outcome": {"state": "success", "xcoms": [], "rendered": {}}})
    add_environment({"FLUX_FENCE": ""})
    flush_streams()


def enter(order: Message, record: Record) -> None:
    """Become the attempt: its name, its log, its environment."""
    set_name(f"flux:{order['fence']}")
    log, note = open_log(order["log"])
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    if note is not None:
        record.append({"log_note": note})
    add_environment(order["env"])
    add_environment(order.get("secrets") or {})


def add_environment(variables: dict[str, str]) -> None:
    """`os.environ.update`, by a shorter way: the long one costs each child a dozen copied pages."""
    known = os.environ._data  # type: ignore[attr-defined]
    for name, value in variables.items():
        key, text = name.encode(), value.encode("utf-8", "surrogateescape")
        os.putenv(key, text)
        known[key] = text


def attempt(order: Message, record: Record, perform: Perform) -> NoReturn:
    """Run one attempt to its end and leave the process, which has detached itself."""
    status = EXIT_NO_RECORD
    pid = os.getpid()
    try:
        mark_attempt(order["fence"])
        # From here on something of the task may have run.
        record.append_payload(b'{"entered":%d,"seen":%.3f}' % (pid, since_boot()))
        enter(order, record)
        outcome = _perform(order, record, perform)
        if _told_to_stop:
            outcome["stopped"] = True
        if os.getpid() != pid:  # the task forked, and its child came back here too: the result is the parent's to tell
            os._exit(0)
        if LogFile.lost:
            note = f"FLX-7021: {LogFile.lost} bytes of the output could not be written to the log ({LogFile.why})."
            record.append({"log_note": note})
        status = EXIT_FAILED if _tell(record, outcome) == "failed" else 0
        # From here on the result stands: told to stop, the process just goes.
        _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
        flush_streams()
        _leave()
    except BaseException as error:
        # Nothing above may fail but for a full disk; the log (or the runner's) gets to know.
        print_error(error)
    finally:
        flush_streams()
        os._exit(status)


def _perform(order: Message, record: Record, perform: Perform) -> dict[str, Any]:
    try:
        _signal.signal(_signal.SIGTERM, _terminate)
        try:
            return perform(order, record)
        finally:
            _signal.signal(_signal.SIGTERM, _signal.SIG_IGN)
    except TaskTerminated as stop:
        return failed("FLX-7013", "TaskTerminated", f"{stop}.")
    except BaseException as error:
        print_error(error)
        return failed("FLX-7015", safely.kind(error), f"Flux could not run the task: {safely.spoken(error, 500)}.")


def become(record: Record, command: ExecCommand, rendered: dict[str, Any]) -> NoReturn:
    """Go on as this command: whoever reaps us makes the outcome of its exit code.

    Raises Unavailable FLX-7010 when it cannot be executed, Invalid FLX-3053 when it is too large for that.
    """
    record.append({"command": {"skip_on_exit_code": list(command.skip_on_exit_code)}, "rendered": rendered})
    flush_streams()
    for number in IGNORED_BY_PYTHON:
        _signal.signal(number, _signal.SIG_DFL)
    try:
        if command.cwd is not None:
            os.chdir(command.cwd)
        os.execvpe(command.argv[0], command.argv, command.env)
    except (OSError, ValueError) as error:
        refused = too_large(error, command.env) if isinstance(error, OSError) else None
        if refused is not None:
            raise refused from error
        why = f"The command {command.argv[0]} could not be started in {command.cwd or os.getcwd()}: {error}."
        raise Unavailable("FLX-7010", why) from error


def _tell(record: Record, outcome: dict[str, Any]) -> str:
    """Write the outcome line; one that is no JSON becomes a failure that says so. Returns the state."""
    try:
        text = ENCODER.encode({"outcome": outcome})
    except (TypeError, ValueError, RecursionError) as error:
        why = f"The task's result is no JSON: {safely.text(error)}."
        outcome = failed("FLX-7016", safely.kind(error), why, retry=False)
        text = ENCODER.encode({"outcome": outcome})
    if "\\u0000" in text:
        text = NUL_ESCAPE.sub(r"\1\\ufffd", text)  # Postgres keeps no NUL in text
    payload = text.encode("utf-8", "replace")
    if len(payload) > OUTCOME_MAX:
        outcome = outcomes.too_large(len(payload))
        payload = to_json({"outcome": outcome})
    record.append_payload(payload)
    return str(outcome["state"])


def _leave() -> None:
    """What the interpreter does at its end: wait for threads, then the exit handlers."""
    threading = sys.modules.get("threading")
    if threading is None and not atexit._ncallbacks():
        return
    try:
        if threading is not None:
            threading._shutdown()
        atexit._run_exitfuncs()
    except Exception as error:
        print_error(error)
