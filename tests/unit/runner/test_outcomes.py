from pathlib import Path

import pytest

from fluxd.authoring.requests import LINE_MAX
from fluxd.runner.logs import last_line
from fluxd.runner.outcomes import crashed, of_command


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", None),
        (b"\n\n", None),
        (b"one", "one"),
        (b"one\ntwo\n", "two"),
        (b"one\r\ntwo\r\n", "two"),
        (b"one\ntwo\n\n\n", "two"),
        (b"x" * 4096, "x" * 4096),
        (b"x" * 5000, "x" * 5000),
        (b"a\n" + b"x" * LINE_MAX + b"\n", "x" * LINE_MAX),
        (b"x" * 5000 + b"\nend\n", "end"),
        (b"a\xff\x00b", "a\ufffd\ufffdb"),
    ],
)
def test_the_last_line_of_a_log(tmp_path: Path, content: bytes, line: str | None) -> None:
    (tmp_path / "log").write_bytes(content)
    assert last_line(str(tmp_path / "log")) == line


def test_no_log_has_no_last_line(tmp_path: Path) -> None:
    assert last_line(str(tmp_path / "none")) is None


def test_exit_codes_of_commands(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    assert of_command({}, log, 0) == {"state": "success", "xcoms": []}
    assert of_command({}, log, 99)["state"] == "skipped"
    assert of_command({"skip_on_exit_code": 5}, log, 5)["state"] == "skipped"
    assert of_command({"skip_on_exit_code": [5, 6]}, log, 6)["state"] == "skipped"
    assert of_command({"skip_on_exit_code": None}, log, 99)["state"] == "failed"


@pytest.mark.parametrize(
    ("exit_code", "signal", "killed", "words"),
    [
        (3, None, None, "exit code 3"),
        (None, 11, None, "SIGSEGV"),
        (None, 9, None, "memory ran out"),
        (None, 9, "timeout", "told to stop (timeout)"),
        (None, 63, None, "signal 63"),
    ],
)
def test_a_crash_in_words(exit_code: int | None, signal: int | None, killed: str | None, words: str) -> None:
    outcome = crashed(exit_code, signal, killed)
    assert outcome["state"] == "failed"
    assert words in outcome["error"]["message"]
