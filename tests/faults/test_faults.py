"""A short campaign of real kills under load: `python -m tests.faults` is the long one."""

import pytest

from tests.faults.campaign import campaign


@pytest.mark.parametrize("seed", [20261125, 7])
def test_kills_under_load_lose_nothing(seed: int) -> None:
    result = campaign(seed=seed, kill_count=12, hang_count=0, hang_s=0.0, pause_s=0.5)
    assert result.well, str(result)
    assert result.tasks > 50
