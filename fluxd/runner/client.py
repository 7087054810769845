"""The daemon's end of the runner's socket: connect (or start a runner), ask, tell, and hear.

Everything that is sent in one turn of the event loop goes out in one write.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import orjson

from fluxd.errors import Refused, Unavailable
from fluxd.observations import Seen, observe
from fluxd.runner.environment import clean_environment
from fluxd.runner.protocol import PROTOCOL, BadFrame, FrameReader, Message, frame

CONNECT_TIMEOUT_S = 30.0  # a new runner may first have to end what a dead one left
RETRY_S = 0.02
SOCKET_GONE_S = 10.0  # a runner that lives looks every few seconds whether its socket is still there
SOCKET_RETRY_S = 0.25
FLOCK = "hhqqi4x"  # struct flock of fcntl(2)
READY_FD = 3  # where a starting runner writes its first line
SOCKET_PATH_MAX = 100


@dataclass(frozen=True)
class RunnerOptions:
    """How a runner is started when there is none."""

    hosts_max: int = 8
    host_idle_s: float = 60.0
    linger_s: float = 30.0


@dataclass(frozen=True)
class ImportLimits:
    """What importing a dag file may take: when it is loaded, and when it is imported again to run a task."""

    timeout_s: float = 30.0
    memory_mb: int = 1024


class RunnerClient:
    """One connection to the runner of a home.

    `on_message` gets started, ended, lost and need_source messages (dicts, see PROTOCOL in the package); `on_lost` is
    called once when an open connection goes away other than by `close`.
    """

    def __init__(
        self,
        home: Path,
        *,
        on_message: Callable[[Message], None],
        on_lost: Callable[[], None],
        options: RunnerOptions | None = None,
    ) -> None:
        self._home = home.resolve()
        self._on_message = on_message
        self._on_lost = on_lost
        self._options = options or RunnerOptions()
        self._transport: asyncio.Transport | None = None
        self._hello: asyncio.Future[Message] | None = None
        self._greeting: Message = {}  # the runner's hello, while the results that it announced still come
        self._loads: dict[int, asyncio.Future[Message]] = {}
        self._next_load = 0
        self._out: list[bytes] = []
        self._started: int | None = None  # the pid of a runner that we are the parent of

    @property
    def connected(self) -> bool:
        return self._transport is not None

    async def connect(self, *, start: bool = True) -> Message:
        """Connect and greet; with `start`, a runner is started where none answers. Returns the runner's hello.

        Raises Unavailable FLX-7003 when none can be reached, FLX-7004 when it cannot start or the system does not let
        us (no descriptors are left, say), and Refused FLX-7002 when the one that runs speaks another protocol.
        """
        try:
            return await self._connect(start)
        except OSError as error:
            raise Unavailable(
                "FLX-7004",
                f"The runner of {self._home} cannot be started or reached: {error}; mend this, and start fluxd again "
                "if it does not run.",
            ) from error

    async def _connect(self, start: bool) -> Message:
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        patience = time.monotonic() + SOCKET_GONE_S
        while True:
            hello = await self._try_connect(deadline)
            if hello is not None:
                return hello
            if not start:
                raise Unavailable("FLX-7003", f"No runner answers on {self._home / 'runner.sock'}; start fluxd-runner.")
            if (pid := living_runner(self._home)) is not None and time.monotonic() < patience:
                observe(Seen.RUNNER_SOCKET_GONE, pid=pid, path=self._home / "runner.sock")
                await asyncio.sleep(SOCKET_RETRY_S)  # it makes its socket again
                continue
            if time.monotonic() > deadline:
                raise Unavailable(
                    "FLX-7003",
                    f"The runner of {self._home} does not answer; look into {self._log_path()} for the cause.",
                )
            await self._start_runner(deadline)

    async def _try_connect(self, deadline: float) -> Message | None:
        loop = asyncio.get_running_loop()
        self._hello = hello = loop.create_future()
        try:
            with _short_path(self._home / "runner.sock") as path:
                transport, _ = await loop.create_unix_connection(lambda: _Connection(self), path)
        except (FileNotFoundError, ConnectionError):
            return None
        transport.write(frame(orjson.dumps({"type": "hello", "protocol": PROTOCOL})))
        try:
            async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                message: Message = await hello
        except TimeoutError:
            transport.abort()
            raise Unavailable(
                "FLX-7003", f"The runner of {self._home} is busy with another daemon; stop that one first."
            ) from None
        except ConnectionError:
            return None
        if message["protocol"] != PROTOCOL:
            transport.abort()
            raise Refused(
                "FLX-7002",
                f"The runner that serves {self._home} (pid {message['pid']}) is of another version of Flux (protocol "
                f"{message['protocol']}, this one has {PROTOCOL}): let its tasks end, stop it, and start fluxd again.",
            )
        self._transport = transport
        return message

    def _log_path(self) -> Path:
        return self._home / "logs" / "runner.log"

    async def _start_runner(self, deadline: float) -> None:
        """Start a runner that outlives us, and wait for its first line."""
        self._reap()
        log = self._log_path()
        log.parent.mkdir(parents=True, exist_ok=True)
        read_end, write_end = os.pipe()
        try:
            try:
                self._started = self._spawn(log, write_end)
            finally:
                os.close(write_end)
            line = await _first_line(read_end, deadline)
        finally:
            os.close(read_end)
        if line.startswith("FLX-7001"):
            await asyncio.sleep(RETRY_S)  # another one is starting: it will listen in a moment
        elif line != "ready":
            code, _, words = line.partition(": ")
            if not words:
                code, words = "FLX-7003", f"The runner of {self._home} did not start; look into {log} for the cause."
            raise Unavailable(code, words)

    def _spawn(self, log: Path, ready: int) -> int:
        """The pid of a new runner, in a session of its own; its first line comes on `ready`."""
        options = self._options
        arguments = [
            *(sys.executable, "-m", "fluxd.runner", "--home", str(self._home)),
            *("--hosts-max", str(options.hosts_max), "--host-idle", str(options.host_idle_s)),
            *("--linger", str(options.linger_s), "--ready-fd", str(READY_FD)),
        ]
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            (os.POSIX_SPAWN_DUP2, ready, READY_FD),
        ]
        environment = clean_environment(self._home)
        return os.posix_spawn(sys.executable, arguments, environment, file_actions=actions, setsid=True, setsigmask=())

    # Speaking

    def send(self, message: Message) -> None:
        """Queue one message. Without a connection it is dropped: after a reconnect, what counts is asked again.

        Raises BadFrame, with nothing queued, when it is too large to be sent.
        """
        if self._transport is None:
            return
        framed = frame(orjson.dumps(message))
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(framed)

    def _flush(self) -> None:
        if self._transport is not None and self._out:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def kill(self, fence: int, reason: str, grace_s: float | None = None) -> None:
        """TERM to the attempt's process group; KILL after the grace (None: the one its start message named)."""
        self.send({"type": "kill", "fence": fence, "reason": reason, "grace_s": grace_s})

    def ack(self, fences: list[int]) -> None:
        """These results are stored: the runner may forget them."""
        self.send({"type": "ack", "fences": fences})

    def source(self, bundle: str, file: str | None, files: dict[str, str], limits: ImportLimits) -> None:
        """The answer to need_source; `file` None where nobody has it."""
        self.send({"type": "source", "bundle": bundle, "file": file, "files": files} | asdict(limits))

    def stop(self) -> None:
        """End all attempts, report them, and leave."""
        self.send({"type": "stop"})

    async def load(self, file: str, dags_dir: Path, limits: ImportLimits) -> Message:
        """Import a dag file: the `loaded` message, whose `error` says what was wrong with the file.

        Raises Unavailable FLX-7003 when the connection is lost meanwhile.
        """
        if self._transport is None:
            raise Unavailable("FLX-7003", "The runner is away at the moment; the file is loaded when it is back.")
        self._next_load += 1
        number = self._next_load
        answer = self._loads[number] = asyncio.get_running_loop().create_future()
        self.send({"type": "load", "id": number, "file": file, "dags_dir": str(dags_dir)} | asdict(limits))
        try:
            loaded: Message = await answer
            return loaded
        finally:
            self._loads.pop(number, None)

    # Hearing

    def heard(self, payload: bytes) -> None:
        """One message of the runner."""
        try:
            message: Message = orjson.loads(payload)
        except orjson.JSONDecodeError:
            message = json.loads(payload)
        kind = message["type"]
        if self._hello is not None and not self._hello.done():
            self._greeted(message)
        elif kind == "loaded":
            answer = self._loads.get(message["id"])
            if answer is not None and not answer.done():
                answer.set_result(message)
        else:
            self._on_message(message)

    def _greeted(self, message: Message) -> None:
        """The hello, or one of the results that follow it: all of them make what `connect` returns."""
        if message["type"] == "hello":
            self._greeting = message | {"ended": [], "lost": []}
        else:
            self._greeting[message["type"]].append(message)
        told = len(self._greeting["ended"]) + len(self._greeting["lost"])
        if self._hello is not None and told == self._greeting.get("results", 0):
            self._hello.set_result(self._greeting)

    def gone(self) -> None:
        """The connection is closed by the other side."""
        if self._hello is not None and not self._hello.done():
            self._hello.set_exception(ConnectionError("closed before its hello"))
        if self._transport is None:
            return
        self._transport = None
        self._out.clear()
        lost = Unavailable("FLX-7003", "The runner went away while it imported the file; it is loaded again.")
        for answer in self._loads.values():
            if not answer.done():
                answer.set_exception(lost)
        self._reap()
        self._on_lost()

    def _reap(self) -> None:
        """Leave no zombie of a runner that we started."""
        if self._started is not None:
            with contextlib.suppress(ChildProcessError):
                pid, _ = os.waitpid(self._started, os.WNOHANG)
                if pid == 0:
                    return
            self._started = None

    async def close(self) -> None:
        """Say what is queued and leave; the runner and its attempts live on."""
        transport, self._transport = self._transport, None
        if transport is not None:
            if self._out:
                transport.write(b"".join(self._out))
                self._out.clear()
            transport.close()


def living_runner(home: Path) -> int | None:
    """The pid of the runner that holds the lock of this home, found without its socket."""
    asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        with (home / "runner" / "lock").open("rb") as file:
            kind, _, _, _, pid = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
    except OSError:
        return None
    return pid if kind == fcntl.F_WRLCK else None


class _Connection(asyncio.Protocol):
    """Bytes in, messages out: a plain protocol, because streams cost a task switch per message."""

    def __init__(self, client: RunnerClient) -> None:
        self._client = client
        self._frames = FrameReader()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self._frames.feed(data):
                self._client.heard(payload)
        except BadFrame:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.gone()


class _short_path:
    """A path that fits into a socket address, also where the home is far down: over a descriptor of the folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> str:
        if len(str(self._path)) <= SOCKET_PATH_MAX:
            return str(self._path)
        self._fd = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._fd}/{self._path.name}"

    def __exit__(self, *exc: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


async def _first_line(fd: int, deadline: float) -> str:
    """What a starting runner says, or "" when it left or stays silent."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(fd, readable.set)
    try:
        async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
            await readable.wait()
    except TimeoutError:
        return ""
    finally:
        loop.remove_reader(fd)
    return os.read(fd, 4096).decode(errors="replace").strip()
