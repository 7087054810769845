"""Requests that wait for their answer: each gets exactly one, when the turn that took it is saved."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from fluxd.core.commands import Reply
from fluxd.core.events import Event
from fluxd.errors import FluxError, Refused, Unavailable

# A request that no turn has taken by then is withdrawn: whoever asked may ask again.
ASK_S = 60.0


class Answers:
    """Who asked, by the number of the request."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._stopped = False

    async def ask(
        self, make: Callable[[int], Event], post: Callable[[Event], None], withdraw: Callable[[Event], bool]
    ) -> Any:
        """Post the event that `make` builds from a request number; return the answer once it is saved.

        `withdraw` takes an event back that no turn has taken, and says whether it could. Raises the FluxError that was
        the answer, or Unavailable when the daemon stops meanwhile or no turn takes the request in time: nothing of it
        is done then.
        """
        if self._stopped:
            raise stopping()
        request = next(self._numbers)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._asked[request] = answer
        event = make(request)
        post(event)

        def give_up() -> None:
            if not answer.done() and withdraw(event):
                answer.set_exception(not_taken())

        limit = loop.call_later(ASK_S, give_up)
        try:
            return await answer
        finally:
            limit.cancel()
            self._asked.pop(request, None)

    def reply(self, reply: Reply) -> None:
        """Answer, unless who asked has gone."""
        answer = self._asked.get(reply.request)
        if answer is None or answer.done():
            return
        if reply.error is not None:
            answer.set_exception(reply.error)
        else:
            answer.set_result(reply.value)

    def stop(self) -> None:
        """Nobody is answered any more."""
        self._stopped = True
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(stopping())


def stopping() -> Unavailable:
    return Unavailable("FLX-4090", "fluxd is stopping and takes no more requests; ask again when it is back.")


def not_taken() -> Unavailable:
    return Unavailable(
        "FLX-4234",
        f"The scheduler did not come to this request within {ASK_S:.0f} s, and nothing of it was done: see `fluxctl "
        "doctor`, then ask again.",
    )


def failed_inside(cause: str) -> FluxError:
    return FluxError(
        "FLX-4230",
        f"The request failed inside fluxd ({cause}), and nothing of it was kept: `fluxctl doctor` shows the evidence; "
        "please report it.",
    )


def left_out(dag_id: str, why: str) -> FluxError:
    return Refused(
        "FLX-4231",
        f"Dag {dag_id!r} was put aside, since the scheduler cannot take it ({why}): change its file, or restart fluxd.",
    )


def still_ending() -> FluxError:
    return Refused(
        "FLX-4232", "The run was given up and what ran of it is still being ended: ask again in some seconds."
    )
