"""The daemon's end of the runner's socket: connect (or start a runner), ask, tell, and hear.

Everything that is sent in one turn of the event loop goes out in one write.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import orjson

from fluxd.errors import Refused, Unavailable
from fluxd.observations import Seen, observe
from fluxd.runner.doorway import Busy, answers, first_line, lock_holder, readable, short_path
from fluxd.runner.protocol import PROTOCOL, BadFrame, FrameReader, Message, frame
from fluxd.runner.silence import Silence
from fluxd.runner.starting import RunnerOptions, no_answer, spawn_runner

CONNECT_TIMEOUT_S = 30.0  # a new runner may first have to end what a dead one left
RETRY_S = 0.02
RETRY_MAX_S = 0.5
SOCKET_GONE_S = 10.0  # a runner that lives looks every few seconds whether its socket is still there

END_S = 5.0  # a process that is killed is gone by then, unless a disk holds it up


@dataclass(frozen=True)
class ImportLimits:
    """What importing a dag file may take: when it is loaded, and when it is imported again to run a task."""

    timeout_s: float = 30.0
    memory_mb: int = 1024


class RunnerClient:
    """One connection to the runner of a home.

    `on_message` gets started, ended, lost and need_source messages (dicts, see PROTOCOL in the package); `on_lost` is
    called once when an open connection goes away other than by `close`. `on_hung` hears of a runner that
    is ended because it does not answer: its pid.
    """

    def __init__(
        self,
        home: Path,
        *,
        on_message: Callable[[Message], None],
        on_lost: Callable[[], None],
        on_hung: Callable[[int], None] = lambda pid: None,
        options: RunnerOptions | None = None,
    ) -> None:
        self._home = home.resolve()
        self._on_message = on_message
        self._on_lost = on_lost
        self._on_hung = on_hung
        self._options = options or RunnerOptions()
        self._transport: asyncio.Transport | None = None
        self._hello: asyncio.Future[Message] | None = None
        self._greeting: Message = {}  # the runner's hello, while the results that it announced still come
        self._loads: dict[int, asyncio.Future[Message]] = {}
        self._next_load = 0
        self._out: list[bytes] = []
        self._started: int | None = None  # the pid of a reaper that we are the parent of
        self._answers = False
        self._watching: asyncio.Task[None] | None = None
        self._silence = Silence(self._options.answer_s, time.monotonic())

    @property
    def connected(self) -> bool:
        return self._transport is not None

    async def connect(self, *, start: bool = True) -> Message:
        """Connect and greet; with `start`, a runner is started where none answers. Returns the runner's hello.

        Raises Unavailable FLX-7003 or FLX-6040 when none can be reached, FLX-7004 when it cannot start or the system
        does not let us (no descriptors are left, say), and Refused FLX-7002 when the one that runs speaks another
        protocol.
        """
        try:
            return await self._connect(start)
        except OSError as error:
            raise Unavailable(
                "FLX-7004",
                f"The runner of {self._home} cannot be started or reached: {error}; mend this, and start fluxd again "
                "if it does not run.",
            ) from error

    @property
    def last_answer(self) -> float | None:
        """When the runner was last heard of (time.monotonic). None when none was met yet that answers."""
        return self._silence.heard_at if self._answers else None

    async def _connect(self, start: bool) -> Message:
        began = time.monotonic()
        deadline = began + CONNECT_TIMEOUT_S
        pause_s = RETRY_S
        while True:
            try:
                hello = await self._try_connect()
            except Busy as busy:
                if time.monotonic() > deadline:
                    why = f"The runner of {self._home} serves another daemon (pid {busy.pid}); stop that one first."
                    raise Unavailable("FLX-7032", why) from None
            except TimeoutError:
                await self._end_hung(start)
            else:
                if hello is not None:
                    return hello
                if not start:
                    raise Unavailable("FLX-7003", f"No runner answers on {self._home}/runner.sock; start fluxd-runner.")
                if time.monotonic() - began < SOCKET_GONE_S and self._socket_is_gone():
                    await asyncio.sleep(RETRY_MAX_S)
                    continue
                if self._options.start:
                    await self._start_runner(deadline)
                if time.monotonic() - began > self._options.answer_s:
                    await self._end_hung_reaper()
            if time.monotonic() > deadline:
                if start:
                    await self._end_hung(start)
                raise no_answer(self._home, self._options, self._log_path())
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    def _socket_is_gone(self) -> bool:
        """Whether a runner lives whose socket somebody removed: it makes it again."""
        path, pid = self._home / "runner.sock", lock_holder(self._home / "runner" / "lock")
        if pid is None or path.exists():
            return False
        observe(Seen.RUNNER_SOCKET_GONE, pid=pid, path=path)
        return True

    async def _try_connect(self) -> Message | None:
        """The hello, or None where nobody listens. Raises TimeoutError where somebody does, and says nothing."""
        loop = asyncio.get_running_loop()
        self._hello = hello = loop.create_future()
        transport = None
        try:
            async with asyncio.timeout(self._options.answer_s):
                with short_path(self._home / "runner.sock") as path:
                    transport, _ = await loop.create_unix_connection(lambda: _Connection(self), path)
                transport.write(frame(orjson.dumps({"type": "hello", "protocol": PROTOCOL})))
                message: Message = await hello
        except BlockingIOError:  # its queue of connections is full
            raise TimeoutError from None
        except (FileNotFoundError, ConnectionError):
            return None
        except BaseException:
            if transport is not None:
                transport.abort()
            raise
        if message["protocol"] != PROTOCOL:
            transport.abort()
            raise Refused(
                "FLX-7002",
                f"The runner that serves {self._home} (pid {message['pid']}) is of another version of Flux (protocol "
                f"{message['protocol']}, this one has {PROTOCOL}): let its tasks end, stop it, and start fluxd again.",
            )
        self._transport = transport
        self._silence.heard(time.monotonic())
        self._answers = bool(message.get("answers"))  # one of an earlier version does not
        if self._answers:
            self._watching = loop.create_task(self._watch(message["pid"]))
        return message

    # A runner that hangs

    async def _watch(self, pid: int) -> None:
        """Ask again and again while connected; a runner that is silent for too long is ended."""
        held = os.pidfd_open(pid)  # it has just answered: it is the one that we know
        try:
            self._silence.rest(time.monotonic())
            while self._transport is not None:
                self.send({"type": "ping"})
                await asyncio.sleep(self._silence.step_s)
                if self._silence.look(time.monotonic()):
                    await self._end(pid, held)
                    return
        except ProcessLookupError:
            return
        finally:
            os.close(held)

    async def _end_hung(self, start: bool) -> None:
        """End who holds the place of the runner and does not answer. Raises Unavailable where that cannot be told."""
        folder = self._home / "runner"
        pid = lock_holder(folder / "lock")
        if pid is None:
            await self._end_hung_reaper()
        elif not start or not answers(folder / "lock", pid):
            # One of an earlier version says nothing while it serves another daemon.
            raise Unavailable(
                "FLX-7003", f"The runner of {self._home} (pid {pid}) is busy with another daemon; stop that one first."
            )
        else:
            await self._end_holder(pid, folder / "lock")

    async def _end_hung_reaper(self) -> None:
        """One that has no runner, and starts none, keeps any other out."""
        folder = self._home / "runner"
        reaper = lock_holder(folder / "reaper.lock")
        if reaper is not None and lock_holder(folder / "lock") is None:
            await self._end_holder(reaper, folder / "reaper.lock")

    async def _end_holder(self, pid: int, lock: Path) -> None:
        with contextlib.suppress(ProcessLookupError):
            held = os.pidfd_open(pid)
            try:
                if lock_holder(lock) == pid:  # else it went by itself, and the pid may be a stranger's
                    await self._end(pid, held)
            finally:
                os.close(held)

    async def _end(self, pid: int, held: int) -> None:
        """KILL, and wait until it is dead: its locks and its socket are free then, and its attempts are taken over."""
        self._on_hung(pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(held, signal.SIGKILL)
            await readable(held, END_S)
        self._reap()

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
                self._started = spawn_runner(self._home, self._options, log, write_end)
            finally:
                os.close(write_end)
            line = await first_line(read_end, deadline)
        finally:
            os.close(read_end)
        # With FLX-7001 another one is starting: it will listen in a moment.
        if line != "ready" and not line.startswith("FLX-7001"):
            code, _, words = line.partition(": ")
            if not words:
                code, words = "FLX-7003", f"The runner of {self._home} did not start; look into {log} for the cause."
            raise Unavailable(code, words)

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
        self._silence.heard(time.monotonic())
        if self._hello is not None and not self._hello.done():
            self._greeted(message)
        elif kind == "loaded":
            answer = self._loads.get(message["id"])
            if answer is not None and not answer.done():
                answer.set_result(message)
        elif kind != "pong":
            self._on_message(message)

    def _greeted(self, message: Message) -> None:
        """The hello, or one of the results that follow it: all of them make what `connect` returns."""
        if message["type"] == "busy":
            assert self._hello is not None
            self._hello.set_exception(Busy(message["pid"]))
            return
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
        self._unwatch()
        self._out.clear()
        lost = Unavailable("FLX-7003", "The runner went away while it imported the file; it is loaded again.")
        for answer in self._loads.values():
            if not answer.done():
                answer.set_exception(lost)
        self._reap()
        self._on_lost()

    def _unwatch(self) -> None:
        if self._watching is not None and self._watching is not asyncio.current_task():
            self._watching.cancel()
        self._watching = None

    def _reap(self) -> None:
        """Leave no zombie of a reaper that we started."""
        if self._started is not None:
            with contextlib.suppress(ChildProcessError):
                pid, _ = os.waitpid(self._started, os.WNOHANG)
                if pid == 0:
                    return
            self._started = None

    async def close(self) -> None:
        """Say what is queued and leave; the runner and its attempts live on."""
        transport, self._transport = self._transport, None
        self._unwatch()
        if transport is not None:
            if self._out:
                transport.write(b"".join(self._out))
                self._out.clear()
            transport.close()


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
