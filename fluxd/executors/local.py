"""Runs attempts on this machine, through the runner: its messages become events of the scheduler.

A lost connection is mended here: reconnect (or start a new runner), post what it has, and have the engine repeat what
it does not know.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from fluxd.core import outcome
from fluxd.core.events import AttemptEnded, AttemptLost, AttemptStarted, Event
from fluxd.errors import FluxError, Unavailable
from fluxd.executors import Executor
from fluxd.observations import Seen, observe
from fluxd.runner.client import ImportLimits, RunnerClient
from fluxd.runner.outcomes import failed
from fluxd.runner.protocol import MAX_FRAME, BadFrame, Message
from fluxd.runner.starting import RunnerOptions

Source = tuple[str, dict[str, str]]  # (dag file, relative path -> text)
LOAD_TRIES = 3
SOURCE_TRIES = 3
RETRY_S = 1.0
RETRY_MAX_S = 30.0
STEADY_S = 10.0  # a connection that lasted so long was a good one
MB = 1024 * 1024


class LocalExecutor(Executor):
    """`post` drops an event. `source` finds the stored source of a bundle (None: there is none). `reconciled` is
    awaited with the fences that a runner has after each reconnect. `troubled` hears why there is no runner.
    """

    def __init__(
        self,
        home: Path,
        *,
        post: Callable[[Event], None],
        source: Callable[[str], Awaitable[Source | None]],
        reconciled: Callable[[set[int]], Awaitable[None]],
        troubled: Callable[[FluxError], None],
        options: RunnerOptions | None = None,
        limits: ImportLimits | None = None,
    ) -> None:
        self._post = post
        self._source = source
        self._reconciled = reconciled
        self._troubled = troubled
        self._limits = limits or ImportLimits()
        self._client = RunnerClient(
            home, on_message=self._heard, on_lost=self._lost, on_hung=self._hung, options=options
        )
        self._connected = asyncio.Event()
        self._disconnected = asyncio.Event()
        self._answer_s = (options or RunnerOptions()).answer_s
        self._opened_at = -STEADY_S
        self._failures = 0  # connections in a row that did not last
        self._reconnecting = False
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.runner: Message = {}  # its last hello: runner_id, pid, boot_id

    @property
    def last_answer(self) -> float | None:
        """When the runner was last heard of (time.monotonic); it is asked every few seconds."""
        return self._client.last_answer

    @property
    def last_try(self) -> float | None:
        """Now, while a runner that was lost is looked for or waited for (time.monotonic); else None."""
        return time.monotonic() if self._reconnecting else None

    async def open(self) -> set[int]:
        """Connect to the runner, starting one where none is; post what it has. Returns the fences it knows."""
        hello = await self._client.connect()
        self.runner = {name: hello[name] for name in ("runner_id", "pid", "boot_id")}
        self._opened_at = time.monotonic()
        self._disconnected.clear()
        for running in hello["running"]:
            if running["pid"] is not None:
                self._heard(running | {"type": "started"})
        for ended in hello["ended"]:
            self._heard(ended)
        for lost in hello["lost"]:
            self._heard(lost | {"type": "lost"})
        self._connected.set()
        return {told["fence"] for name in ("running", "ended", "lost") for told in hello[name]}

    def start(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            try:
                self._client.send(message)
            except BadFrame:
                self._post(_never_sent(message))

    def kill(self, fence: int, reason: str) -> None:
        self._client.kill(fence, reason)

    def ack(self, fences: list[int]) -> None:
        self._client.ack(fences)

    async def load(self, file: str, dags_dir: Path) -> Message:
        """Have a dag file imported: the runner's `loaded` message. Waits for a runner that is away.

        Raises Unavailable FLX-7005 when the runner went away each time it imported the file.
        """
        for _ in range(LOAD_TRIES):
            await self._connected.wait()
            try:
                return await self._client.load(file, dags_dir, self._limits)
            except Unavailable:
                continue
        raise Unavailable("FLX-7005", f"{file}: the runner went away {LOAD_TRIES} times while it imported this file.")

    async def stop(self) -> None:
        """End all attempts; returns when the runner has told their ends and left."""
        self._closing = True
        if self._client.connected:
            self._client.stop()
            await self._disconnected.wait()

    async def close(self) -> None:
        """Leave the runner and what it runs alone."""
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        await self._client.close()

    def _heard(self, message: Message) -> None:
        """A message of the runner. One that cannot be read is told and changes nothing."""
        try:
            self._take(message)
        except Exception as error:
            observe(
                Seen.RUNNER_UNREADABLE, error=error, kind=str(message.get("type"))[:80], reason=type(error).__name__
            )

    def _take(self, message: Message) -> None:
        match message["type"]:
            case "started":
                started_at = outcome.moment(message["started_at"], datetime.now(UTC))
                self._post(AttemptStarted(message["fence"], outcome.integer(message["pid"]) or 0, started_at))
            case "ended":
                self._post(_ended(message))
            case "lost":
                began = message.get("began", True)
                self._post(AttemptLost(message["fence"], datetime.now(UTC), message["evidence"], began))
            case "need_source":
                self._spawn(self._send_source(message["bundle"]))

    async def _send_source(self, bundle: str) -> None:
        """Always answers: attempts wait for it in the runner, which does not ask twice over one connection."""
        for _ in range(SOURCE_TRIES):
            try:
                file, files = await self._source(bundle) or (None, {})
                self._client.source(bundle, file, files, self._limits)
                return
            except Exception as error:
                observe(Seen.SOURCE_FAILED, bundle=bundle, reason=f"{type(error).__name__}: {error}")
            await asyncio.sleep(RETRY_S)
        self._client.source(bundle, None, {}, self._limits)

    def _lost(self) -> None:
        self._connected.clear()
        self._disconnected.set()
        if not self._closing:
            observe(Seen.RUNNER_GONE, pid=self.runner.get("pid"))
            self._spawn(self._look_for_runner())

    def _hung(self, pid: int) -> None:
        observe(Seen.RUNNER_HUNG, pid=pid, seconds=self._answer_s)

    async def _look_for_runner(self) -> None:
        self._reconnecting = True
        try:
            await self._reconnect()
        finally:
            self._reconnecting = False

    async def _reconnect(self) -> None:
        # A runner that is lost again and again (what it is sent kills it, say) is waited for longer each time.
        brief = time.monotonic() - self._opened_at < STEADY_S
        self._failures = self._failures + 1 if brief else 0
        if self._failures > 1:
            await asyncio.sleep(min(RETRY_S * 2 ** (self._failures - 2), RETRY_MAX_S))
        pause_s = RETRY_S
        while True:
            try:
                known = await self.open()
                break
            except FluxError as error:
                self._troubled(error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
        observe(Seen.RUNNER_BACK, pid=self.runner["pid"], attempts=len(known))
        await self._reconciled(known)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _never_sent(message: Message) -> AttemptEnded:
    """The end of an attempt whose start message is above what a frame holds: sent again, it would be no smaller."""
    why = (
        f"Task {message['task_id']!r} cannot be started: what it is given is more than the {MAX_FRAME // MB} MB that "
        f"can be sent to it, most of it {_largest(message)}: write that to files or tables and hand on their names."
    )
    end = failed("FLX-7022", "TooLarge", why, retry=False)
    return AttemptEnded(message["fence"], None, None, datetime.now(UTC), outcome=end)


def _largest(message: Message) -> str:
    """What makes a start message large, in words."""
    context = message["context"] or {}
    upstream = {name: _size(values) for name, values in context.get("upstream_xcoms", {}).items()}
    most = max(upstream, key=upstream.__getitem__, default="")
    sizes = {
        f"what {len(upstream)} upstream tasks handed on, {most!r} the most": sum(upstream.values()),
        "the conf of the run": _size(context.get("conf")),
        "the params of the run": _size(context.get("params")),
        "its command": _size(message["spawn"]),
    }
    what = max(sizes, key=sizes.__getitem__)
    return f"{what} ({sizes[what] / MB:.1f} MB in all)"


def _size(value: Any) -> int:
    return len(orjson.dumps(value))


def _ended(message: Message) -> AttemptEnded:
    now = datetime.now(UTC)
    usage = outcome.usage(message["usage"])
    if note := message.get("log_note"):
        usage = {**(usage or {}), "log_note": str(note)[: outcome.TEXT_MAX]}
    started_at, killed = message["started_at"], message.get("killed")
    return AttemptEnded(
        fence=message["fence"],
        pid=outcome.integer(message["pid"]),
        started_at=None if started_at is None else outcome.moment(started_at, now),
        ended_at=outcome.moment(message["ended_at"], now),
        exit_code=outcome.integer(message["exit_code"]),
        signal=outcome.integer(message["signal"]),
        outcome=outcome.read_outcome(message["outcome"]),
        usage=usage,
        killed=None if killed is None else str(killed)[: outcome.NAME_MAX],
    )
