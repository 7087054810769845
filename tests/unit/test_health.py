"""Signs of life: late, and hung, are two things."""

from fluxd.health import Health, Sign


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def test_what_is_late_is_named_with_its_age() -> None:
    clock = Clock()
    health = Health(clock)
    health.expect(Sign("turn", "the last turn", 30.0, lambda: 1000.0))
    health.expect(Sign("save", "the last save", 45.0, lambda: 1000.0))
    clock.at = 1029.0
    assert health.late() == []
    clock.at = 1041.0
    assert health.late() == ["the last turn was 41 s ago, it is due every 30 s"]
    assert health.ages() == {"turn": 41.0, "save": 41.0}


def test_what_has_not_begun_is_not_late() -> None:
    health = Health(Clock())
    health.expect(Sign("runner", "the last answer of the runner", 1.0, lambda: None))
    assert health.late() == [] and health.hung() == [] and health.ages() == {"runner": None}


def test_one_who_still_tries_is_late_and_not_hung() -> None:
    clock = Clock()
    tried = 1000.0
    health = Health(clock)
    health.expect(Sign("save", "the last save", 45.0, lambda: 0.0, lambda: tried))
    assert health.late() and not health.hung()
    clock.at = 1046.0
    assert health.late() and health.hung() == ["the last save was 1046 s ago, and nothing tries for it"]
