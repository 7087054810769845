"""How long somebody who is asked again and again has been silent."""

LOOKS = 5  # within the limit


class Silence:
    """Time without an answer, as far as we were awake to hear one.

    Whoever waits may have been stopped itself, or the whole machine asleep: then the clock has moved and nobody had a
    chance to answer. So no more counts than two steps from one look to the next.
    """

    def __init__(self, limit_s: float, now: float) -> None:
        self.limit_s = limit_s
        self.step_s = limit_s / LOOKS  # look, and ask, this often
        self.heard_at = now
        self._looked_at = now
        self._silent_s = 0.0

    def heard(self, now: float) -> None:
        """An answer, or any other word."""
        self.heard_at = now
        self._silent_s = 0.0

    def rest(self, now: float) -> None:
        """Nothing was asked until now."""
        self._silent_s = 0.0
        self._looked_at = now

    def due(self, now: float) -> bool:
        """Whether it is time to look, and to ask."""
        return now - self._looked_at >= self.step_s

    @property
    def next_look(self) -> float:
        return self._looked_at + self.step_s

    def look(self, now: float) -> bool:
        """Count what has passed since the last look. True when the limit is exceeded."""
        self._silent_s += min(now - self._looked_at, 2 * self.step_s)
        self._looked_at = now
        return self._silent_s > self.limit_s
