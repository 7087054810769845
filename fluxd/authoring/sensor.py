"""The base of all sensors: something that is waited for, looked at again and again by `poke`."""

import inspect
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Unpack

from fluxd.authoring import checks
from fluxd.authoring.operator import BaseOperator, accepted
from fluxd.authoring.outcomes import SkipTask, TaskTimeout
from fluxd.authoring.policy import Duration, TaskArguments
from fluxd.authoring.requests import Wait
from fluxd.errors import Unavailable

POKE_INTERVAL_S = 30.0
POKE_INTERVAL_MAX_S = 3600.0
TIMEOUT_S = 7 * 86400.0
# The sensors that come with Flux, by name; `fluxd.sensors` fills it in. The daemon polls these itself.
SHIPPED: dict[str, type[Any]] = {}


@dataclass(frozen=True)
class PokeResult:
    """What a look found: whether the wait is over, and the XCom `return_value` that it gives then."""

    done: bool
    value: Any = None

    def __bool__(self) -> bool:
        return self.done


class BaseSensor(BaseOperator):
    """Waits until `poke(context)` (an `async def`) gives true or a PokeResult that is done.

    poke_interval: time between looks. timeout: how long to wait at most, from the first look; then the task fails, or
    is skipped with soft_fail; it looks at least once. An execution_timeout that is shorter ends the try.
    exponential_backoff: each pause is twice the last, up to an hour. `mode` is accepted for those who are used to it
    and means nothing: waiting holds no slot where the sensor comes with Flux, and one process where its class is an
    author's own.
    """

    kind: ClassVar[str] = "sensor"

    def __init__(
        self,
        *,
        poke_interval: Duration = POKE_INTERVAL_S,
        timeout: Duration = TIMEOUT_S,
        soft_fail: bool = False,
        exponential_backoff: bool = False,
        mode: Literal["poke", "reschedule"] | None = None,
        **task_arguments: Unpack[TaskArguments],
    ) -> None:
        super().__init__(**task_arguments)
        what = f"of {type(self).__name__} {self.task_id!r}"
        self.poke_interval = checks.seconds(poke_interval, f"poke_interval {what}", positive=True)
        self.timeout = checks.seconds(timeout, f"timeout {what}")
        self.soft_fail = checks.boolean(soft_fail, f"soft_fail {what}")
        self.exponential_backoff = checks.boolean(exponential_backoff, f"exponential_backoff {what}")
        if mode is not None:
            checks.one_of(mode, ("poke", "reschedule"), f"mode {what}")

    async def poke(self, context: dict[str, Any] | None = None) -> bool | PokeResult:
        """Look once. Raises what means that waiting is of no use."""
        raise NotImplementedError(f"{type(self).__name__} has no poke()")

    async def execute(self, context: dict[str, Any]) -> Any:
        """Wait in this process; gives the value of the look that ended the wait.

        Raises TaskTimeout, SkipTask; Unavailable FLX-3503 where its execution_timeout is the shorter one.
        """
        import asyncio

        pause, began, limit = self.poke_interval, time.monotonic(), self.task_policy.execution_timeout
        while True:
            found = self.poke(context)
            result = await found if inspect.isawaitable(found) else found
            if result:
                return result.value if isinstance(result, PokeResult) else None
            waited = time.monotonic() - began
            if limit is not None and limit < self.timeout and waited >= limit:
                raise Unavailable(
                    "FLX-3503",
                    f"Task {self.task_id!r} ran longer than its execution_timeout of {limit:g} s and was ended",
                )
            left = min(self.timeout, self.timeout if limit is None else limit) - waited
            if left <= 0:
                words = f"what it waited for did not come within {self.timeout:g} s"
                raise SkipTask(words) if self.soft_fail else TaskTimeout(words)
            await asyncio.sleep(min(pause, left))
            if self.exponential_backoff:
                pause = min(pause * 2, POKE_INTERVAL_MAX_S)

    def wait(self, context: dict[str, Any]) -> Wait:
        """The request with which the daemon waits in our place."""
        return Wait(
            type(self).__name__,
            self.wait_args(context),
            self.poke_interval,
            self.timeout,
            self.soft_fail,
            self.exponential_backoff,
        )

    def wait_args(self, context: dict[str, Any]) -> dict[str, Any]:
        """The arguments, as JSON, from which the daemon makes this sensor anew: by default its own, as rendered."""
        names = accepted(type(self)).names - accepted(BaseSensor).names
        return {name: getattr(self, name) for name in sorted(names)}
