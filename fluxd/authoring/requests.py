"""What a task hands to others when the rest needs no Python of its own: a command to become, a wait to be kept."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LINE_MAX = 4096


@dataclass(frozen=True)
class ExecCommand:
    """Go on as this command: its exit code is the task's end, its last line of output the XCom `return_value`."""

    argv: list[str]
    env: Mapping[str, str]  # the whole environment
    cwd: str | None = None
    skip_on_exit_code: tuple[int, ...] = ()

    def run(self) -> tuple[int, str | None]:
        """Run it as a child of this process, its output in our stdout: (exit code, minus a signal; last line)."""
        import subprocess

        sys.stdout.flush()
        last = b""
        with subprocess.Popen(
            self.argv,
            env=dict(self.env),
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            assert process.stdout is not None
            try:
                while chunk := os.read(process.stdout.fileno(), 65536):
                    _write(chunk)
                    last = (last + chunk)[-LINE_MAX - 2 :]
            except BaseException:
                process.terminate()
                raise
        lines = last.rstrip(b"\r\n").rsplit(b"\n", 1)
        whole = len(lines) == 2 or len(last) <= LINE_MAX
        return process.returncode, lines[-1].decode(errors="replace").replace("\0", "\ufffd") or None if whole else None


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
