"""A real fluxd in a process of its own, for tests and the bench: started, asked, killed, started again, cleared away.

It works in a home and a dags folder under /tmp, with the embedded Postgres. Whoever waits here waits for something that
the daemon says: a line, an answer of the API, a message of its event stream. The only thing that is polled for is the
end of foreign processes, of which nobody is told.
"""

import contextlib
import http.client
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
START_S = 120.0
STOP_S = 60.0


class ApiError(Exception):
    """The API answered with a problem."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(f"{status}: {problem.get('code')}: {problem.get('detail')}")
        self.status = status
        self.problem = problem


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


class Daemon:
    """One home and the fluxd in it. As a context manager it starts, and at the end clears away whatever is left.

    settings: environment variables such as FLUXD__EXECUTOR__PARALLELISM. dags: its files are copied in.
    """

    def __init__(self, *, dags: Path | None = None, settings: dict[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fluxd-"))
        # Not 0700: the embedded Postgres of a daemon that runs as root is another user's process.
        self.folder.chmod(0o755)
        self.home = self.folder / "home"
        self.dags = self.folder / "dags"
        self.dags.mkdir()
        if dags is not None:
            shutil.copytree(dags, self.dags, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        self.settings = settings or {}
        self.address = ""
        self.lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._said = threading.Condition()
        self._connection: UnixConnection | None = None

    # ------------------------------------------------------------------------------------------- start and stop

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note("fluxd said:\n" + "\n".join(self.lines[-60:]))
        self.remove()

    def start(self, timeout: float = START_S) -> float:
        """Start fluxd and wait for its `ready:`. Returns the seconds that it took."""
        assert self._process is None, "it runs already"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("FLUX", "PG"))}
        said = len(self.lines)
        begun = time.monotonic()
        self._process = subprocess.Popen(
            [str(BIN / "fluxd"), "--home", str(self.home), "--dags", str(self.dags), "--listen", "127.0.0.1:0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env=clean | self.settings,
        )
        listening = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        listening.start()
        threading.Thread(target=self._watch, args=(self._process, listening), daemon=True).start()
        ready = self.wait_for_line("ready: ", timeout, said)
        seconds = time.monotonic() - begun
        self.address = ready.partition("ready: ")[2].strip()
        return seconds

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                self._heard(line.rstrip("\n"))

    def _watch(self, process: subprocess.Popen[str], listening: threading.Thread) -> None:
        code = process.wait()
        # What it said last comes first; but a child of it may hold the pipe open for long.
        listening.join(1.0)
        self._heard(f"(fluxd {process.pid} ended: {code})")

    def _heard(self, line: str) -> None:
        with self._said:
            self.lines.append(line)
            self._said.notify_all()

    def wait_for_line(self, text: str, timeout: float = 30.0, since: int | None = None) -> str:
        """The first line with this text that comes after the first `since` lines (default: after those said so far)."""
        seen = len(self.lines) if since is None else since
        deadline = time.monotonic() + timeout
        with self._said:
            while True:
                for line in self.lines[seen:]:
                    seen += 1
                    if text in line:
                        return line
                    if line.startswith(f"(fluxd {self.pid} ended"):
                        raise AssertionError(f"fluxd ended before it said {text!r}:\n" + "\n".join(self.lines[-40:]))
                if not self._said.wait(deadline - time.monotonic()):
                    raise AssertionError(f"fluxd did not say {text!r}:\n" + "\n".join(self.lines[-40:]))

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    def signal(self, number: signal.Signals, timeout: float = STOP_S) -> int:
        """Send a signal that ends the daemon; returns its exit code once it is gone."""
        assert self._process is not None, "it does not run"
        self._disconnect()
        self._process.send_signal(number)
        code = self._process.wait(timeout)
        self._process = None
        return code

    def forget_ended(self) -> int:
        """Its process was ended from outside: wait for that. Returns its exit code."""
        assert self._process is not None, "it does not run"
        self._disconnect()
        code = self._process.wait(STOP_S)
        self._process = None
        return code

    def kill(self) -> None:
        """kill -9: the daemon gets no chance to say goodbye. Tasks, runner and Postgres live on."""
        self.signal(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM: the daemon stops and running tasks live on."""
        return self.signal(signal.SIGTERM)

    def interrupt(self) -> int:
        """Ctrl-C: the daemon stops, and so does all that belongs to it."""
        return self.signal(signal.SIGINT)

    def remove(self) -> None:
        """End what is left of this home, by process id, and delete its folder."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.interrupt()
        for number in (signal.SIGINT, signal.SIGKILL):
            for pid in self.leftovers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            with contextlib.suppress(AssertionError):
                until(lambda: not self.leftovers(), "all processes of the home are gone", timeout=10)
                break
        pg = self.home / "pg"
        if pg.is_symlink():
            shutil.rmtree(pg.resolve(), ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def leftovers(self) -> list[int]:
        """The processes that still belong to this home: its path is in their command line or in their environment."""
        marks = {os.fsencode(self.folder)}
        with contextlib.suppress(OSError):
            marks.add(os.fsencode((self.home / "pg").resolve()))
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if any(mark in (entry / "cmdline").read_bytes() for mark in marks):
                        found.append(int(entry.name))
        return found

    # ---------------------------------------------------------------------------------------------------- asking

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def api(self, method: str, path: str, body: Any = None, *, patience: float = 60.0, **query: Any) -> Any:
        """Ask the JSON API over the Unix socket; `path` comes after /api/v1. Raises ApiError for a problem."""
        kept = self._connection.sock if self._connection is not None else None
        # fluxd closes a connection that nobody uses for a while: that is seen as something to read.
        if kept is not None and select.select([kept], [], [], 0)[0]:
            self._disconnect()
        if self._connection is None:
            self._connection = UnixConnection(self.home / "fluxd.sock", patience)
        else:
            self._connection.timeout = patience
            if self._connection.sock is not None:
                self._connection.sock.settimeout(patience)
        url = f"/api/v1{path}" + (f"?{urlencode(query)}" if query else "")
        content = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, url, content, {"Content-Type": "application/json"} if content else {})
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            self._disconnect()
            raise
        answer = json.loads(text) if text else None
        if response.status >= 400:
            raise ApiError(response.status, answer)
        return answer

    def get(self, path: str, **query: Any) -> Any:
        return self.api("GET", path, **query)

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        return self.api("POST", path, {} if body is None else body, **query)

    def all(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """All things of a list, over all its pages."""
        things: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = self.get(path, **query, limit=200, **({"cursor": cursor} if cursor else {}))
            cursor = page.pop("next_cursor", None)
            things += next(value for value in page.values() if isinstance(value, list))
            if cursor is None:
                return things

    def trigger(self, dag_id: str, **body: Any) -> str:
        """Trigger a run; its id."""
        return str(self.post(f"/dags/{quote(dag_id)}/trigger", body)["run_id"])

    def run(self, dag_id: str, run_id: str) -> Any:
        return self.get(f"/dags/{quote(dag_id)}/runs/{quote(run_id)}")

    def wait(self, dag_id: str, run_id: str, timeout: float = 120.0) -> Any:
        """The run, once it has ended."""
        path = f"/dags/{quote(dag_id)}/runs/{quote(run_id)}/wait"
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            run = self.api("GET", path, patience=left + 30, timeout=min(60, round(left, 3)))
            if run["state"] in ("success", "failed", "cancelled"):
                return run
        raise AssertionError(f"{dag_id} {run_id} has not ended within {timeout} s: {self.run(dag_id, run_id)}")

    @contextlib.contextmanager
    def events(self, timeout: float = 120.0) -> Iterator[Iterator[dict[str, Any]]]:
        """The event stream: dicts with `kind` and what the message carries; `timeout` is the longest silence.

        The stream is open when the block is entered: nothing that happens in the block is missed.
        """
        connection = UnixConnection(self.home / "fluxd.sock", timeout)
        try:
            connection.request("GET", "/api/v1/events")
            response = connection.getresponse()
            assert response.status == 200, response.read()
            yield _messages(response)
        finally:
            connection.close()

    def until(self, condition: Callable[[], Any], what: str, timeout: float = 60.0) -> Any:
        """Look at once and after each message of the event stream, until `condition` is true; its value."""
        deadline = time.monotonic() + timeout
        with self.events() as messages:
            value = condition()
            while not value:
                next(messages)
                value = condition()
                if not value and time.monotonic() > deadline:
                    raise AssertionError(f"not within {timeout} s: {what}")
        return value

    def until_known(self, dag_id: str, timeout: float = 60.0) -> Any:
        """The dag, once its file is loaded."""
        return self.until(lambda: self.known(dag_id), f"the dag {dag_id} is known", timeout)

    def known(self, dag_id: str) -> Any:
        """The dag, or None."""
        try:
            return self.get(f"/dags/{quote(dag_id)}")
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    def finished_runs(self, dag_id: str, count: int, timeout: float) -> dict[str, str]:
        """run id -> state, once this many runs of the dag have ended."""
        return self.until_runs(dag_id, lambda runs: len(runs) >= count, timeout)

    def until_runs(self, dag_id: str, enough: Callable[[dict[str, str]], bool], timeout: float) -> dict[str, str]:
        """run id -> state of the ended runs of a dag, once that is `enough`. Counted from the event stream: asking
        for all runs again after each message would be more work than running them."""
        deadline = time.monotonic() + timeout
        with self.events() as messages:
            ended = self._ended(dag_id)
            while not enough(ended):
                message = next(messages)
                if message["kind"] == "reset":
                    ended = self._ended(dag_id)
                for run_dag, run_id, state, *_ in message.get("runs", ()):
                    if run_dag == dag_id and state in ("success", "failed", "cancelled"):
                        ended[run_id] = state
                if time.monotonic() > deadline:
                    raise AssertionError(f"{dag_id}: only {len(ended)} runs have ended within {timeout} s")
        return ended

    def _ended(self, dag_id: str) -> dict[str, str]:
        states = ("success", "failed", "cancelled")
        return {run["run_id"]: run["state"] for run in self.all(f"/dags/{quote(dag_id)}/runs", state=",".join(states))}

    def ctl(self, *arguments: str, check: bool = True, timeout: float = 120.0) -> "subprocess.CompletedProcess[str]":
        """Run fluxctl against this home."""
        done = subprocess.run(
            [str(BIN / "fluxctl"), "--home", str(self.home), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"fluxctl {' '.join(arguments)}: {done.returncode}\n{done.stderr}"
        return done

    def write(self, name: str, text: str) -> Path:
        """Put a dag file into the folder, whole at once."""
        path = self.dags / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(text)
        new.replace(path)
        return path


def _messages(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    kind, data = "", ""
    for raw in response:
        line = raw.decode().rstrip("\r\n")
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            data += value
        elif not line and kind:
            yield {"kind": kind, **json.loads(data or "{}")}
            kind, data = "", ""
    raise AssertionError("the event stream ended")


def until(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    """Poll for what the outside world gives no event of; its value once it is true."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.01)
    return value
