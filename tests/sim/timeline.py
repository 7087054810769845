"""Virtual time: what happens next, a die that only the seed throws, and a count of what went wrong."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from random import Random

# Ordinary days, and the nights on which clocks change in the zones of the random dags.
STARTS = tuple(
    datetime(*parts, tzinfo=UTC)
    for parts in ((2026, 1, 10, 9), (2025, 3, 29, 22), (2025, 10, 25, 21), (2025, 11, 2, 3), (2025, 4, 5, 12))
)


class Timeline:
    """The present, and the actions that lie ahead of it."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.start = self.now = self.rng.choice(STARTS)
        self.faulty = self.rng.choice((0.0, 0.02, 0.1))
        self._ahead: list[tuple[datetime, int, Callable[[], None]]] = []
        self._serial = 0

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self._serial += 1
        heappush(self._ahead, (self.now + timedelta(seconds=seconds), self._serial, action))

    def next_at(self) -> datetime | None:
        return self._ahead[0][0] if self._ahead else None

    def happen(self) -> None:
        """Go to the next action, and do it."""
        at, _, action = heappop(self._ahead)
        self.now = max(self.now, at)
        action()

    def chance(self, fault: str, share: float = 1.0) -> bool:
        """Whether this fault strikes now; it is counted if so."""
        if self.faulty and self.rng.random() < self.faulty * share * 0.3:
            self.faults[fault] += 1
            return True
        return False
