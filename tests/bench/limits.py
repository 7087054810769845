"""(i): what this machine can do at most: attempts that the warm runner starts and ends, and commits of one row.

No scheduler and no database stand round the runner here, and no runner round the database: what Flux loses against
these is what Flux itself costs.
"""

import asyncio
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg

from fluxd.runner.protocol import PROTOCOL, FrameReader, encode
from fluxd.store.embedded import Embedded
from tests.bench.figures import Figure

ATTEMPTS = 500
COMMITS = 2000
DAG = """
from fluxd import DAG, task

with DAG("bare", schedule=None):
    @task
    def nothing():
        pass

    nothing()
"""
MOMENT = "2026-01-01T00:00:00Z"


def measure(repeat: int) -> list[Figure]:
    figures = [
        Figure("i", "the bare warm runner, one attempt at a time", "attempts/s", more=True),
        Figure("i", "the bare warm runner, 32 at once", "attempts/s", more=True),
        Figure("i", "`true` from the bare runner, 32 at once", "attempts/s", more=True),
        Figure("i", "fork, exit and wait, a bare Python", "forks/s", more=True),
        Figure("i", "commits of one row, one connection, fsync on", "commits/s", more=True),
    ]
    folder = Path(tempfile.mkdtemp(prefix="fluxd-"))
    folder.chmod(0o755)
    runner = BareRunner(folder)
    server = Embedded(folder / "home")
    try:
        runner.start()
        url = server.start()
        runner.attempts_per_second(50, at_once=1)
        for _ in range(repeat):
            figures[0].samples.append(runner.attempts_per_second(ATTEMPTS, at_once=1))
            figures[1].samples.append(runner.attempts_per_second(ATTEMPTS, at_once=32))
            figures[2].samples.append(runner.attempts_per_second(ATTEMPTS, at_once=32, spawn=True))
            figures[3].samples.append(_forks_per_second(ATTEMPTS))
            figures[4].samples.append(asyncio.run(_commits_per_second(url)))
    finally:
        runner.stop()
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return figures


class BareRunner:
    """A runner with one warm dag file, spoken to as fluxd does."""

    def __init__(self, folder: Path) -> None:
        self.home, self.dags = folder / "home", folder / "dags"
        self.home.mkdir()
        self.dags.mkdir()
        (self.dags / "bare.py").write_text(DAG)
        self._fences = itertools.count(1)
        self._frames = FrameReader()
        self._messages: list[dict[str, Any]] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._bundle = ""

    def start(self) -> None:
        ready, ready_fd = os.pipe()
        command = [sys.executable, "-m", "fluxd.runner", "--home", str(self.home), "--ready-fd", str(ready_fd)]
        self._process = subprocess.Popen(command, pass_fds=[ready_fd], stderr=subprocess.DEVNULL)
        os.close(ready_fd)
        assert os.read(ready, 4096) == b"ready\n"
        os.close(ready)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(self.home / "runner.sock"))
        self._send({"type": "hello", "protocol": PROTOCOL})
        self._next("hello")
        self._send(
            {"type": "load", "id": 1, "file": "bare.py", "dags_dir": str(self.dags), "timeout_s": 30, "memory_mb": 1024}
        )
        loaded = self._next("loaded")
        assert loaded["error"] is None, loaded
        self._bundle, self._files = loaded["bundle"], loaded["files"]

    def stop(self) -> None:
        if self._process is not None:
            self._send({"type": "stop"})
            self._process.wait(30)

    def attempts_per_second(self, count: int, *, at_once: int, spawn: bool = False) -> float:
        """Start attempts, never more than `at_once`, acknowledge each end, until all have ended."""
        begun = time.perf_counter()
        left, live = count, 0
        while left or live:
            orders = [encode(self._order(spawn)) for _ in range(min(left, at_once - live))]
            if orders:
                self._socket.sendall(b"".join(orders))
                left -= len(orders)
                live += len(orders)
            ended = [message for message in self._receive() if self._is_end(message)]
            if ended:
                self._send({"type": "ack", "fences": [message["fence"] for message in ended]})
                live -= len(ended)
        return count / (time.perf_counter() - begun)

    def _is_end(self, message: dict[str, Any]) -> bool:
        if message["type"] == "need_source":
            self._send({"type": "source", "bundle": self._bundle, "file": "bare.py", "files": self._files})
        if message["type"] == "ended":
            assert message["exit_code"] == 0, message
        return message["type"] == "ended"

    def _order(self, spawn: bool) -> dict[str, Any]:
        fence = next(self._fences)
        names = {"dag_id": "bare", "run_id": f"bare__{fence}", "task_id": "nothing", "map_index": -1, "try_number": 1}
        context = names | {
            "run_type": "manual", "logical_date": MOMENT, "data_interval_start": MOMENT, "data_interval_end": MOMENT,
            "queued_at": MOMENT, "conf": {}, "params": {}, "max_tries": 1, "upstream_xcoms": {},
            "home": str(self.home), "socket": str(self.home / "fluxd.sock"), "fence": fence, "xcom_max_kb": 64,
        }  # fmt: skip
        return names | {
            "type": "start", "fence": fence, "bundle": self._bundle, "file": "bare.py", "dags_dir": str(self.dags),
            "log": f"{self.home}/logs/bare/{fence}/nothing/1.log", "env": {"FLUX_FENCE": str(fence)},
            "context": None if spawn else context, "spawn": {"argv": ["/bin/true"], "env": {}} if spawn else None,
            "kill_grace_s": 5,
        }  # fmt: skip

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.sendall(encode(message))

    def _receive(self) -> list[dict[str, Any]]:
        if not self._messages:
            data = self._socket.recv(1 << 20)
            assert data, "the runner is gone"
            self._messages = [json.loads(payload) for payload in self._frames.feed(data)]
        messages, self._messages = self._messages, []
        return messages

    def _next(self, kind: str) -> dict[str, Any]:
        while True:
            messages = self._receive()
            for at, message in enumerate(messages):
                if message["type"] == kind:
                    self._messages = messages[at + 1 :]
                    return message


def _forks_per_second(count: int) -> float:
    """In a fresh small Python: what the kernel gives."""
    code = f"""
import os, time
begun = time.perf_counter()
for _ in range({count}):
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
print({count} / (time.perf_counter() - begun))
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


async def _commits_per_second(url: str) -> float:
    db = await asyncpg.connect(url)
    try:
        assert await db.fetchval("SHOW fsync") == "on"
        assert await db.fetchval("SHOW synchronous_commit") == "on"
        await db.execute("DROP TABLE IF EXISTS bench; CREATE TABLE bench (number bigint PRIMARY KEY, at timestamptz)")
        insert = await db.prepare("INSERT INTO bench VALUES ($1, now())")
        begun = time.perf_counter()
        for number in range(COMMITS):
            await insert.fetch(number)
        return COMMITS / (time.perf_counter() - begun)
    finally:
        await db.close()
