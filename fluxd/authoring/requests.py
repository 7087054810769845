"""What a task hands to others when the rest needs no Python of its own: a command to become, a wait to be kept."""

import contextlib
import errno
import os
import select
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fluxd.errors import Invalid

LINE_MAX = 64 * 1024  # bytes of a last line that is a result
LONG_LINE = (
    f"FLX-3054: the last line of the output has more than {LINE_MAX:,} bytes, so it is no result: write the data to a "
    "file, and print its path as the last line."
)
ARGUMENT_MAX = 128 * 1024 - 1  # bytes of one argument or variable, as Linux has it (MAX_ARG_STRLEN)
GRACE_S = 10.0


@dataclass(frozen=True)
class ExecCommand:
    """Go on as this command: its exit code is the task's end, its last line of output the XCom `return_value`."""

    argv: list[str]
    env: Mapping[str, str]  # the whole environment
    cwd: str | None = None
    skip_on_exit_code: tuple[int, ...] = ()
    pass_fds: tuple[int, ...] = ()  # descriptors that the command reads from

    def run(self) -> tuple[int, str | None]:
        """Run it as a child of this process, its output in our stdout: (exit code, minus a signal; last line).

        As for any task, what it leaves behind in its process group is ended with it, and what counts is the output up
        to then. Raises Invalid FLX-3053.
        """
        import subprocess

        sys.stdout.flush()
        try:
            process = subprocess.Popen(
                self.argv,
                env=dict(self.env),
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=self.pass_fds,
                start_new_session=True,
            )
        except OSError as error:
            raise too_large(error, self.env) or error from None
        last = _LastLine()
        with process:
            try:
                _follow(process, last)
            except BaseException:
                _ask_to_stop(process.pid)
                raise
            finally:
                _end_group(process)
        return process.returncode, last.text()


def too_large(error: OSError, env: Mapping[str, str]) -> Invalid | None:
    """The sentence for a command that the system cannot be given, if it is for its size that it cannot."""
    if error.errno != errno.E2BIG:
        return None
    sizes = {name: len(f"{name}={value}".encode(errors="surrogateescape")) for name, value in env.items()}
    name = max(sizes, key=lambda name: sizes[name], default="")
    return Invalid(
        "FLX-3053",
        f"The command cannot be started: its environment is larger than the system takes (the largest variable is "
        f"{name!r} with {sizes.get(name, 0):,} bytes, and one may have {ARGUMENT_MAX:,}): write the value to a file.",
    )


class _LastLine:
    """The last line of a stream of output, up to LINE_MAX bytes."""

    def __init__(self) -> None:
        self._tail = b""
        self._is_cut = False

    def add(self, chunk: bytes) -> None:
        whole = self._tail + chunk
        self._tail = whole[-LINE_MAX - 2 :]
        self._is_cut = self._is_cut or len(whole) > len(self._tail)

    def text(self) -> str | None:
        lines = self._tail.rstrip(b"\r\n").rsplit(b"\n", 1)
        if len(lines[-1]) > LINE_MAX or (len(lines) == 1 and self._is_cut):
            sys.stdout.write(f"flux: {LONG_LINE}\n")
            return None
        return lines[-1].decode(errors="replace").replace("\0", "\ufffd") or None


def _follow(process: Any, last: _LastLine) -> None:
    """Pass on what the command prints until its process has ended, whoever else may hold its output open."""
    output, ended = process.stdout.fileno(), os.pidfd_open(process.pid)
    os.set_blocking(output, False)
    poll = select.poll()
    poll.register(output, select.POLLIN)
    poll.register(ended, select.POLLIN)
    try:
        over = False
        while not over:
            over = any(fd == ended for fd, _ in poll.poll())
            with contextlib.suppress(BlockingIOError):
                while chunk := os.read(output, 65536):
                    _write(chunk)
                    last.add(chunk)
                if not over:
                    poll.unregister(output)  # closed by all: only the end is still to come
    finally:
        os.close(ended)


def _ask_to_stop(pid: int) -> None:
    """Give the command's group time to end by itself."""
    ended = os.pidfd_open(pid)
    try:
        os.killpg(pid, signal.SIGTERM)
        select.select([ended], [], [], GRACE_S)
    finally:
        os.close(ended)


def _end_group(process: Any) -> None:
    """End what is left of the command's group. Before it is reaped: its number cannot be a stranger's yet."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _write(chunk: bytes) -> None:
    # Where stdout is a notebook's or a test's it may know text only.
    out = getattr(sys.stdout, "buffer", None)
    if out is None:
        sys.stdout.write(chunk.decode(errors="replace"))
    else:
        out.write(chunk)
    sys.stdout.flush()


@dataclass(frozen=True)
class Wait:
    """Wait without a process: the daemon polls the sensor of this name, made with `args`. Durations in seconds."""

    sensor: str
    args: dict[str, Any]
    poke_interval: float
    timeout: float
    soft_fail: bool = False
    exponential_backoff: bool = False

    def __str__(self) -> str:
        wanted = ", ".join(f"{name}={value!r}" for name, value in self.args.items() if value not in (None, 0))
        return (
            f"{self.sensor}({wanted}) is looked at by fluxd every {self.poke_interval:g} s, {self.timeout:g} s at most"
        )
