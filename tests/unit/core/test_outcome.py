"""Outcomes as user code may have written them: a known form comes out, or a failure that says why."""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxd.core.outcome import SECONDS_MAX, integer, moment, read_outcome, usage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = ("state", "error", "xcoms", "wait", "rendered", "progress", "stopped", "odd")
STATES = st.sampled_from(["success", "failed", "skipped", "waiting"]) | ANYTHING
WAITS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("sensor", "args", "timeout", "poke_interval", "soft_fail"), ANYTHING)
)
OUTCOMES = ANYTHING | st.fixed_dictionaries(
    {"state": STATES}, optional=dict.fromkeys(NAMES[1:], ANYTHING) | {"wait": WAITS | ANYTHING}
)


@given(OUTCOMES)
def test_no_outcome_breaks_the_reading(raw: Any) -> None:
    outcome = read_outcome(raw)
    if outcome is None:
        assert raw is None
        return
    assert outcome["state"] in ("success", "failed", "skipped", "waiting")
    assert outcome.keys() <= {"state", "error", "xcoms", "wait", "rendered", "progress"}
    for part, kind in (("error", dict), ("xcoms", list), ("wait", dict), ("rendered", dict)):
        assert isinstance(outcome.get(part, kind()), kind)
    assert all(isinstance(key, str) for key, _ in outcome.get("xcoms", ()))
    for name in ("timeout", "poke_interval"):
        seconds = outcome.get("wait", {}).get(name, 0.0)
        NOW + timedelta(seconds=seconds)
        assert 0 <= seconds <= SECONDS_MAX


@given(ANYTHING)
def test_no_number_and_no_time_of_the_runner_breaks_a_row(raw: Any) -> None:
    number = integer(raw)
    assert number is None or -(2**31) <= number < 2**31
    assert moment(raw, NOW).tzinfo is not None
    found = usage(raw)
    assert found is None or all(isinstance(part, str | int | float) for part in found.values())


@pytest.mark.parametrize("timeout", [10**12, 1e300, math.inf, math.nan, -1, True, "60", [], 10**400])
def test_an_absurd_timeout_is_named(timeout: Any) -> None:
    outcome = read_outcome({"state": "waiting", "wait": {"sensor": "s", "args": {}, "timeout": timeout}})
    assert outcome is not None and outcome["state"] == "failed"
    assert outcome["error"]["message"].startswith("FLX-5048") and "wait.timeout" in outcome["error"]["message"]
    assert outcome["error"]["retry"] is False


def test_good_ones_stay_as_they_are() -> None:
    for good in (
        {"state": "success", "xcoms": [["return_value", {"a": [1]}]], "rendered": {"x": "y"}},
        {"state": "failed", "error": {"type": "E", "message": "no", "retry": False}},
        {"state": "skipped", "error": {"type": "SkipTask", "message": "why", "retry": True}},
        {
            "state": "waiting",
            "wait": {
                "sensor": "FileSensor",
                "args": {"path": "/x"},
                "poke_interval": 30.0,
                "timeout": 60.0,
                "soft_fail": True,
                "exponential_backoff": False,
            },
        },
    ):
        assert read_outcome(json.loads(json.dumps(good))) == good
