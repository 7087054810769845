"""What is away is asked again soon, and the log does not drown in it."""

import asyncio
from itertools import pairwise

import pytest

from fluxd import retrying
from fluxd.observations import Seen
from fluxd.retrying import GROWTH, MAX_S, Retrying


def test_pauses_grow_to_a_limit_and_are_seldom_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    said: list[tuple[str, float]] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(retrying.asyncio, "sleep", sleep)
    monkeypatch.setattr(retrying, "observe", lambda seen, *, reason, seconds: said.append((reason, seconds)))

    async def fail() -> None:
        waiting = Retrying(Seen.TURN_RETRIED, 0.1)
        for _ in range(60):
            await waiting.pause("it is away")
        await waiting.pause("it is read-only")

    asyncio.run(fail())
    assert pauses[0] == 0.1
    assert pauses[-1] == MAX_S
    away = 0.0
    for pause in pauses[:20]:
        away += pause
        assert pause <= 0.1 + away / 4
    assert all(later == pytest.approx(min(MAX_S, pause * GROWTH)) for pause, later in pairwise(pauses))
    assert [reason for reason, _ in said[:-1]] == ["it is away"] * 6
    assert said[-1] == ("it is read-only", MAX_S)
