"""The waiting: one coroutine polls for all waiters that want the same thing, each look under a deadline.

A wait holds no process and no slot. Only sensor classes that ship with Flux are polled here; they are asked through
`poke`, and every look has a deadline, so that a disk or a server that hangs delays nobody but its own waiters. When the
time of a wait is over is decided by the scheduler alone, which says `end` then.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fluxd import sensors
from fluxd.core.commands import BeginWait
from fluxd.core.events import Event, WaitEnded
from fluxd.errors import FluxError
from fluxd.observations import Seen, observe

ERRORS_IN_A_ROW_MAX = 3
PAUSE_MIN_S = 0.01
INTERVAL_MAX_S = 3600.0


def utc_now() -> datetime:
    """The wall clock. The simulation passes one of its own."""
    return datetime.now(UTC)


@dataclass
class Probe:
    """One thing that is waited for, and all who wait for it."""

    sensor: str
    args: dict[str, Any]
    interval_s: float
    backoff: bool
    waiters: dict[int, str]  # fence -> the names of dag, run and task
    errors: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # somebody new wants an answer, or the last one left


class Sensing:
    """Polls for waiting instances and posts `WaitEnded`."""

    def __init__(
        self,
        post: Callable[[Event], None],
        *,
        poke_timeout_s: float,
        pokes_at_once: int,
        xcom_max_kb: int,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._now = now
        self._post = post
        self._xcom_max_kb = xcom_max_kb
        self._timeout_s = poke_timeout_s
        self._slots = asyncio.Semaphore(pokes_at_once)
        self._probes: dict[str, Probe] = {}
        self._probe_of: dict[int, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        return len(self._probe_of)

    def begin(self, command: BeginWait) -> None:
        """Wait for this too. Beginning a wait that is under way changes nothing."""
        if command.fence in self._probe_of:
            return
        try:
            self._begin(command)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # A request as no child of ours writes it: its task fails, nobody else is hurt.
            reason = f"FLX-3045: the request of the sensor cannot be read ({type(error).__name__}: {error})"
            self._post(WaitEnded(command.fence, "failed", self._now(), (), reason))

    def _begin(self, command: BeginWait) -> None:
        request = command.request
        interval_s = float(request.get("poke_interval") or 30.0)
        backoff = bool(request.get("exponential_backoff"))
        what = f"{command.run.dag_id}/{command.run.run_id}/{command.instance.task_id}"
        key = json.dumps([request["sensor"], request["args"], interval_s, backoff], sort_keys=True)
        self._probe_of[command.fence] = key
        if probe := self._probes.get(key):
            probe.waiters[command.fence] = what
            probe.changed.set()
            return
        probe = Probe(request["sensor"], request["args"], interval_s, backoff, {command.fence: what})
        self._probes[key] = probe
        task = asyncio.get_running_loop().create_task(self._poll(key, probe), name=f"probe {probe.sensor}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end(self, fence: int) -> None:
        """Nobody waits for this any more."""
        key = self._probe_of.pop(fence, None)
        if key is not None and (probe := self._probes.get(key)):
            probe.waiters.pop(fence, None)
            if not probe.waiters:
                probe.changed.set()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _poll(self, key: str, probe: Probe) -> None:
        """Look, and look again, until nobody waits."""
        interval_s = probe.interval_s
        try:
            sensor = sensors.get(probe.sensor)(**probe.args)
        except Exception as error:
            self._fail_all(probe, f"the sensor {probe.sensor} cannot be made: {error}")
            self._probes.pop(key, None)
            return
        while probe.waiters:
            probe.changed.clear()
            await self._look(sensor, probe)
            if not probe.waiters:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(PAUSE_MIN_S, interval_s)):
                    await probe.changed.wait()
            if probe.changed.is_set():
                interval_s = probe.interval_s
            elif probe.backoff:
                interval_s = min(INTERVAL_MAX_S, interval_s * 2)
        self._probes.pop(key, None)

    async def _look(self, sensor: Any, probe: Probe) -> None:
        try:
            async with self._slots, asyncio.timeout(self._timeout_s):
                result = await sensor.poke(None)
            value = sensors.handed_on(probe.sensor, result, self._xcom_max_kb)
        except TimeoutError:
            observe(
                Seen.SENSOR_SLOW,
                sensor=probe.sensor,
                what=next(iter(probe.waiters.values()), "nobody"),
                seconds=self._timeout_s,
            )
            self._count_error(probe, f"did not answer within {self._timeout_s:g} s")
        except FluxError as error:
            self._fail_all(probe, str(error))
        except Exception as error:
            self._count_error(probe, f"{type(error).__name__}: {error}")
        else:
            probe.errors = 0
            if result:
                for fence in list(probe.waiters):
                    self._over(probe, fence, "success", value=value)

    def _count_error(self, probe: Probe, reason: str) -> None:
        probe.errors += 1
        if probe.errors >= ERRORS_IN_A_ROW_MAX:
            self._fail_all(
                probe, f"FLX-3041: the sensor {probe.sensor} failed {probe.errors} times in a row; last: {reason}"
            )

    def _fail_all(self, probe: Probe, reason: str) -> None:
        for fence in list(probe.waiters):
            self._over(probe, fence, "failed", error=reason)

    def _over(self, probe: Probe, fence: int, state: str, *, value: Any = None, error: str | None = None) -> None:
        probe.waiters.pop(fence, None)
        self._probe_of.pop(fence, None)
        xcoms = () if value is None else (("return_value", value),)
        self._post(WaitEnded(fence, state, self._now(), xcoms, error))
