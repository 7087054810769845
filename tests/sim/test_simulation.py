"""Two thousand lives of the scheduler, each with its own dags, faults and people."""

import pytest

from tests.sim.__main__ import live
from tests.sim.world import World

LIVES = 2000
SLICES = 10


@pytest.mark.parametrize("part", range(SLICES))
def test_nothing_breaks_the_rules(part: int) -> None:
    size = LIVES // SLICES
    for seed in range(1 + part * size, 1 + (part + 1) * size):
        live(seed)


def test_a_seed_replays_step_for_step() -> None:
    for seed in (3, 5, 8):
        assert live(seed, traced=True).digest.digest() == live(seed, traced=True).digest.digest()


def test_the_faults_are_there() -> None:
    faults = World(0).faults
    for seed in range(1, 120):
        faults += live(seed).faults
    assert set(faults) >= {
        "crash before the save",
        "crash between save and commands",
        "crash between two commands",
        "commit repeated",
        "connection broken",
        "message late",
        "message repeated",
        "runner died",
        "start repeated",
        "clock set back",
        "clock set forward",
    }
