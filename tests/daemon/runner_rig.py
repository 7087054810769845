"""A runner of one's own, spoken to frame by frame, for the tests of the runner."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections import deque
from pathlib import Path
from typing import Any

from fluxd.runner import records
from fluxd.runner.protocol import PROTOCOL, FrameReader, encode
from tests.fluxd_process import until

PATIENCE_S = 30.0

Message = dict[str, Any]


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Connection:
    """One connection of a daemon, greeted."""

    def __init__(self, home: Path, protocol: int = PROTOCOL) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE_S)
        self._frames = FrameReader()
        self.inbox: deque[Message] = deque()
        try:
            self._socket.connect(str(home / "runner.sock"))
            self.hello = self._greet(protocol)
        except BaseException:
            self._socket.close()
            raise

    def _greet(self, protocol: int) -> Message:
        self.send({"type": "hello", "protocol": protocol})
        hello = self.expect("hello") | {"ended": [], "lost": []}
        for _ in range(hello["results"]):
            result = self.receive()
            hello[result["type"]].append(result)
        return hello

    def send(self, message: Message) -> None:
        self._socket.sendall(encode(message))

    def receive(self) -> Message:
        while not self.inbox:
            data = self._socket.recv(1 << 18)
            if not data:
                raise EOFError("the runner closed the connection")
            self.inbox.extend(json.loads(payload) for payload in self._frames.feed(data))
        return self.inbox.popleft()

    def expect(self, kind: str, **values: Any) -> Message:
        """The next message of this kind with these values; others stay for later."""
        skipped: list[Message] = []
        while True:
            message = self.receive()
            if message["type"] == kind and all(message[name] == value for name, value in values.items()):
                self.inbox.extendleft(reversed(skipped))
                return message
            skipped.append(message)

    def at_end(self) -> bool:
        """Wait for the end of file."""
        while data := self._socket.recv(1 << 18):
            self.inbox.extend(json.loads(payload) for payload in self._frames.feed(data))
        return True

    def close(self) -> None:
        self._socket.close()


class Rig:
    """A home, a folder of dags, a runner and a connection to it."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.dags = folder / "dags"
        self.home.mkdir(exist_ok=True)
        self.dags.mkdir(exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.to: Connection
        self._loads = 0

    def start(self, *options: str, env: dict[str, str] | None = None, connect: bool = True) -> None:
        """Start the runner, wait until it is ready, and connect."""
        ready, told = os.pipe()
        arguments = ["--home", str(self.home), "--ready-fd", str(told), *options]
        with (self.home / "runner.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fluxd.runner", *arguments], stdout=log, stderr=log, pass_fds=(told,), env=env
            )
        os.close(told)
        self.said = os.read(ready, 4096).decode().strip()
        os.close(ready)
        if connect:
            assert self.said == "ready", self.said
            self.to = Connection(self.home)

    @property
    def pid(self) -> int:
        """The runner's pid; `process` is its parent, the reaper."""
        pid: int = self.to.hello["pid"]
        return pid

    def lose_runner(self) -> None:
        """Kill the runner and meet the one that takes over."""
        before = self.pid
        os.kill(before, signal.SIGKILL)
        self.meet_next(before)

    def meet_next(self, before: int) -> None:
        """Connect to the runner that takes over from the one with this pid."""
        assert self.to.at_end()
        self.to.close()
        until(lambda: self._met(before), "another runner takes over")

    def _met(self, before: int) -> bool:
        with contextlib.suppress(OSError, EOFError):
            self.to = Connection(self.home)
            return self.pid != before
        return False

    def write(self, name: str, text: str) -> str:
        path = self.dags / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return name

    def load(self, name: str, text: str | None = None, timeout_s: float = 20.0, memory_mb: int = 1024) -> Message:
        """Load a dag file: the runner's answer."""
        if text is not None:
            self.write(name, text)
        return self.to.expect("loaded", id=self.ask_to_load(name, timeout_s, memory_mb))

    def ask_to_load(self, name: str, timeout_s: float = 20.0, memory_mb: int = 1024) -> int:
        """Ask for a load: the id of its answer."""
        self._loads += 1
        self.to.send(
            {
                "type": "load",
                "id": self._loads,
                "file": name,
                "dags_dir": str(self.dags),
                "timeout_s": timeout_s,
                "memory_mb": memory_mb,
            }
        )
        return self._loads

    def order(self, fence: int, *, task: str = "t", loaded: Message | None = None, **more: Any) -> Message:
        """A start message: for a task of a loaded file, or with spawn=[...] for a command."""
        spawn = more.pop("spawn", None)
        file = loaded["file"] if loaded else "none.py"
        dag_id = loaded["dags"][0]["dag_id"] if loaded else "d"
        moment = "2026-01-01T00:00:00Z"
        return {
            "type": "start",
            "fence": fence,
            "dag_id": dag_id,
            "run_id": "r",
            "task_id": task,
            "map_index": -1,
            "try_number": 1,
            "bundle": loaded["bundle"] if loaded else "none",
            "file": file,
            "dags_dir": str(self.dags),
            "log": str(self.log(fence)),
            "env": {"FLUX_FENCE": str(fence), "FLUX_TASK_ID": task},
            "context": {
                **{"dag_id": dag_id, "run_id": "r", "run_type": "manual", "task_id": task, "map_index": -1},
                **{"logical_date": moment, "data_interval_start": moment, "data_interval_end": moment},
                **{"queued_at": moment, "conf": {}, "params": {}, "try_number": 1, "max_tries": 1},
                **{
                    "upstream_xcoms": {},
                    "home": str(self.home),
                    "socket": str(self.home / "fluxd.sock"),
                    "fence": fence,
                },
            },
            "spawn": {"argv": spawn, "env": {}} if spawn else None,
            "kill_grace_s": 10.0,
            **more,
        }

    def log(self, fence: int) -> Path:
        return self.home / "logs" / f"{fence}" / "1.log"

    def logged(self, fence: int) -> str:
        """What the log holds by now."""
        return self.log(fence).read_text() if self.log(fence).exists() else ""

    def begin(self, fence: int, **order: Any) -> Message:
        """Start an attempt: its `started` message."""
        self.to.send(self.order(fence, **order))
        return self.to.expect("started", fence=fence)

    def run(self, fence: int, **order: Any) -> Message:
        """Start an attempt and wait for its end."""
        self.to.send(self.order(fence, **order))
        return self.to.expect("ended", fence=fence)

    def python(self, fence: int, body: str, **order: Any) -> Message:
        """Run a Python task whose function has this body."""
        return self.run(fence, loaded=self.load_task(body), **order)

    def load_task(self, body: str, name: str = "one.py") -> Message:
        """Load a dag of one task `t` whose function has this body."""
        text = "from fluxd import DAG, task\n\nwith DAG('one', schedule=None):\n\n    @task\n    def t():\n"
        loaded = self.load(name, text + textwrap.indent(textwrap.dedent(body).strip("\n"), " " * 8) + "\n\n    t()\n")
        assert loaded["error"] is None, loaded["error"]
        return loaded

    def records(self) -> list[Path]:
        """The exit records that are in use."""
        folder = self.home / "runner"
        return [folder / name for name, _ in records.stored(str(folder)).values()]

    def stop(self) -> int:
        """Stop the runner by SIGTERM."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if hasattr(self, "to"):
            self.to.close()
        if self.process is not None:
            if self.process.poll() is None:
                self.stop()
            self.process.wait()
