"""The log: one line an observation, whatever foreign text is in it."""

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest

from fluxd.observations import LOG, JsonFormatter, Seen, TextFormatter, observe

FOREIGN = "ValueError: a\n12:00:00 INFO    stopped\r\x1b[2K\u2028\x85é"


def failed() -> Exception:
    """An error with a traceback."""
    try:
        raise ValueError(FOREIGN)
    except ValueError as error:
        return error


@pytest.fixture
def log() -> Iterator[Callable[[logging.Formatter], io.StringIO]]:
    before = LOG.level
    handlers: list[logging.Handler] = []

    def to(formatter: logging.Formatter) -> io.StringIO:
        stream = io.StringIO()
        handlers.append(logging.StreamHandler(stream))
        handlers[-1].setFormatter(formatter)
        LOG.addHandler(handlers[-1])
        return stream

    LOG.setLevel(logging.INFO)
    yield to
    for handler in handlers:
        LOG.removeHandler(handler)
    LOG.setLevel(before)


def test_foreign_text_cannot_fake_a_line(log: Callable[[logging.Formatter], io.StringIO]) -> None:
    text = log(TextFormatter("%(levelname)s %(message)s"))
    observe(Seen.DAG_FILE_BROKEN, file="x.py", reason=FOREIGN)
    assert text.getvalue() == (
        "WARNING dag file x.py cannot be loaded: "
        r"ValueError: a\n12:00:00 INFO    stopped\r\x1b[2K\u2028\x85é"
        "\n"
    )


def test_a_traceback_keeps_its_lines_and_they_look_like_no_line_of_the_log(
    log: Callable[[logging.Formatter], io.StringIO],
) -> None:
    text, structured = log(TextFormatter("%(levelname)s %(message)s")), log(JsonFormatter())
    observe(Seen.REQUEST_FAILED, error=failed(), method="GET", path="/", reason="ValueError")
    first, *trace = text.getvalue().rstrip("\n").split("\n")
    assert first == "ERROR request GET / failed: ValueError"
    assert trace[0] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") and line.isprintable() for line in trace)
    assert r"  12:00:00 INFO    stopped\r\x1b[2K\u2028\x85é" in trace
    assert "in failed" in json.loads(structured.getvalue())["traceback"]
