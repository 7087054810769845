"""Whether the daemon does its work: when it last took a turn, saved one, and heard from the runner.

Whoever wants to know (healthz, status, the watchdog of systemd) asks here. Each sign of life is only looked at; the
room that gives it keeps the time by itself and knows nothing of health.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

Moment = Callable[[], float | None]  # seconds of the monotonic clock; None: it has not begun


def _never() -> float | None:
    return None


@dataclass(frozen=True, slots=True)
class Sign:
    """One sign of life. `last`: when it was last given. `tried`: when it was last tried for, by one who waits for
    something outside (a database that is away) and knows it. `of`: the sign in words."""

    name: str
    of: str
    limit_s: float
    last: Moment
    tried: Moment = _never


class Health:
    """All signs of life of one daemon."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._signs: list[Sign] = []

    def expect(self, sign: Sign) -> None:
        """From now on this sign is to come again within its limit."""
        self._signs.append(sign)

    def ages(self) -> dict[str, float | None]:
        """Name -> seconds since each sign was last given; None where it has not begun."""
        return {sign.name: self._age(sign.last()) for sign in self._signs}

    def late(self) -> list[str]:
        """What is late, a sentence each; empty when all is well."""
        return [
            f"{sign.of} was {age:.0f} s ago, it is due every {sign.limit_s:.0f} s"
            for sign in self._signs
            if (age := self._age(sign.last())) is not None and age > sign.limit_s
        ]

    def hung(self) -> list[str]:
        """Of what is late, that which does not even try any more: only a restart of the daemon mends it.

        A daemon whose database is away is late and not hung: it asks again and again, and another would do no better.
        """
        return [
            f"{sign.of} was {age:.0f} s ago, and nothing tries for it"
            for sign in self._signs
            if (age := self._age(sign.last())) is not None
            and age > sign.limit_s
            and ((tried := self._age(sign.tried())) is None or tried > sign.limit_s)
        ]

    def _age(self, moment: float | None) -> float | None:
        return None if moment is None else max(0.0, self._clock() - moment)
