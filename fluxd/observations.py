"""Every line that fluxd logs, by name. Nobody writes free text in the middle of logic: they say which thing was seen.

One list means that a reader can know all that the daemon may ever say, and a collector can count by name.
"""

import json
import logging
import sys
from enum import Enum
from typing import Any

LOG = logging.getLogger("fluxd")


class Seen(Enum):
    """name = (level, sentence)."""

    STARTING = (logging.INFO, "fluxd {version} starts: home {home}, dags {dags}")
    DATABASE_READY = (logging.INFO, "database ready in {seconds:.2f} s: {where}")
    DATABASE_ENDED = (logging.ERROR, "the embedded Postgres has ended; it is started again in {seconds:.0f} s")
    DATABASE_NOT_STARTED = (logging.ERROR, "the embedded Postgres could not be started again: {reason}")
    SCHEMA_MIGRATED = (logging.INFO, "database schema brought up to date: {steps}")
    SIGNAL_IGNORED = (logging.WARNING, "{signal} means nothing to fluxd and is ignored; SIGTERM or SIGINT stop it")
    RUNNER_GONE = (logging.WARNING, "the connection to the runner (pid {pid}) broke; connecting again")
    RUNNER_SOCKET_GONE = (logging.WARNING, "{path} is gone, the runner (pid {pid}) lives: it makes it again in seconds")
    RUNNER_HUNG = (
        logging.ERROR,
        "FLX-7038: the runner (pid {pid}) has not answered for {seconds:g} s and is ended; the next one takes over its "
        "attempts",
    )
    RUNNER_AWAITED = (logging.WARNING, "there is no runner: {reason}; trying again")
    RUNNER_UNREADABLE = (logging.ERROR, "a message of the runner ({kind}) cannot be read: {reason}")
    RUNNER_BACK = (logging.INFO, "connected to the runner (pid {pid}); it tells of {attempts} attempts")
    SOURCE_FAILED = (logging.ERROR, "the stored source {bundle} could not be handed to the runner: {reason}")
    RECOVERED = (logging.INFO, "recovered {runs} live runs and {attempts} live attempts of {dags} dags")
    DAG_FILE_LOADED = (logging.INFO, "dag file {file} loaded in {seconds:.3f} s: {dags}")
    DAG_FILE_BROKEN = (logging.WARNING, "dag file {file} cannot be loaded: {reason}")
    DAG_FILE_REMOVED = (logging.INFO, "dag file {file} is gone: {dags} take no new runs")
    DAG_FILE_UNFORESEEN = (logging.ERROR, "dag file {file} met an error that Flux did not foresee: {reason}")
    DAG_FILE_UNKEPT = (logging.ERROR, "what became of dag file {file} cannot be stored: {reason}")
    DAGS_FOLDER_UNWATCHED = (
        logging.WARNING,
        "the dags folder {folder} cannot be watched ({reason}); its dags stay, and it is looked at in {seconds:.0f} s",
    )
    TURN_RETRIED = (logging.WARNING, "saving failed ({reason}); trying again in {seconds:.1f} s, running tasks go on")
    TURN_SAVED_AGAIN = (logging.WARNING, "the database answers again after {seconds:.1f} s")
    TURN_UNDONE = (
        logging.ERROR,
        "a turn failed ({reason}) and is undone: the scheduler begins again from the database and looks for the cause",
    )
    PUT_ASIDE = (logging.ERROR, "{what} was put aside ({reason}): {outcome}; fluxctl doctor has the evidence")
    EVIDENCE_LOST = (logging.ERROR, "the evidence of {what} could not be stored: {reason}")
    RECOVERY_RETRIED = (
        logging.ERROR,
        "the scheduler cannot begin again ({reason}); it is tried again in {seconds:.0f} s, running tasks go on",
    )
    DAG_FORGOTTEN = (logging.INFO, "the history of the deleted dag {dag} is removed: {rows} rows")
    FILE_MADE_AGAIN = (logging.WARNING, "{path} was gone and is made again")
    LATE = (logging.WARNING, "late: {what}")
    CLOCK_SET = (logging.WARNING, "the clock of this machine was set {direction} by {seconds:.0f} s; durations go on")
    DATABASE_AWAITED = (logging.WARNING, "the database is away ({reason}); asking again in {seconds:.1f} s")
    SENSOR_SLOW = (logging.WARNING, "sensor {sensor} of {what} did not answer within {seconds:.0f} s")
    COROUTINE_RESTARTED = (logging.ERROR, "the coroutine {name} ended with {reason}; started again in {seconds:.0f} s")
    LOOP_BLOCKED = (logging.WARNING, "the event loop did not answer for {seconds:.2f} s; it was at {where}")
    STOPPING = (logging.INFO, "stopping: {reason}; {running} tasks {fate}")
    STOPPED = (logging.INFO, "stopped")
    REQUEST_FAILED = (logging.ERROR, "request {method} {path} failed: {reason}")


def observe(seen: Seen, *, error: BaseException | None = None, **facts: Any) -> None:
    """Log one observation. `facts` fill its sentence and go as they are into JSON logs; of `error` the traceback."""
    level, sentence = seen.value
    if LOG.isEnabledFor(level):
        extra = {"seen": seen.name.lower(), "facts": facts}
        LOG.log(level, sentence.format(**facts), exc_info=error, extra=extra)


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = getattr(record, "facts", {})
        line = {"time": self.formatTime(record), "level": record.levelname.lower(), "message": record.getMessage()}
        if hasattr(record, "seen"):
            line["seen"] = record.seen
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line | {name: str(value) for name, value in facts.items()}, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """One line a record, and below it the traceback if there is one, set in. Foreign text cannot fake a line."""

    def format(self, record: logging.LogRecord) -> str:
        record.exc_text = None  # as another handler may have written the traceback, unescaped
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        return _escaped(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return "\n".join("  " + _escaped(line) for line in super().formatException(ei).split("\n"))


def _escaped(text: str) -> str:
    """Every character that is not printable as Python writes it: a newline as backslash and n."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def start_logging(level: str, form: str) -> None:
    """Send the log to stderr in the given form (text | json)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter() if form == "json" else TextFormatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    )
    LOG.handlers[:] = [handler]
    LOG.setLevel(level.upper())
    LOG.propagate = False
