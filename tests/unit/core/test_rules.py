"""Trigger rules, as a table: how the upstreams ended so far, and what the rule says."""

import pytest

from fluxd.core.rules import RULES, judge

# done so far: (success, failed, skipped) of 3 upstreams -> verdict
CASES = {
    "all_success": {
        (0, 0, 0): "wait",
        (2, 0, 0): "wait",
        (3, 0, 0): "run",
        (0, 1, 0): "upstream_failed",
        (0, 0, 1): "skip",
    },
    "all_failed": {(0, 2, 0): "wait", (0, 3, 0): "run", (1, 0, 0): "skip", (0, 0, 1): "skip"},
    "all_done": {(1, 1, 0): "wait", (1, 1, 1): "run", (0, 3, 0): "run"},
    "one_success": {(0, 2, 0): "wait", (1, 0, 0): "run", (0, 3, 0): "upstream_failed", (0, 0, 3): "skip"},
    "one_failed": {(2, 0, 0): "wait", (0, 1, 0): "run", (3, 0, 0): "skip", (1, 0, 2): "skip"},
    "one_done": {(0, 0, 2): "wait", (1, 0, 0): "run", (0, 1, 0): "run", (0, 0, 3): "skip"},
    "none_failed": {(1, 0, 1): "wait", (1, 0, 2): "run", (0, 0, 3): "run", (0, 1, 0): "upstream_failed"},
    "none_failed_min_one_success": {
        (1, 0, 1): "wait",
        (1, 0, 2): "run",
        (0, 0, 3): "skip",
        (2, 1, 0): "upstream_failed",
    },
    "none_skipped": {(1, 1, 0): "wait", (1, 2, 0): "run", (0, 0, 1): "skip"},
    "all_skipped": {(0, 0, 2): "wait", (0, 0, 3): "run", (1, 0, 0): "skip", (0, 1, 0): "skip"},
    "always": {(0, 0, 0): "run"},
}


def test_every_rule_has_cases() -> None:
    assert set(CASES) == set(RULES)


@pytest.mark.parametrize(
    ("rule", "ended", "verdict"),
    [(rule, ended, verdict) for rule, cases in CASES.items() for ended, verdict in cases.items()],
)
def test_verdict(rule: str, ended: tuple[int, int, int], verdict: str) -> None:
    assert judge(RULES[rule], 3, [0, *ended]).value == verdict


@pytest.mark.parametrize("rule", RULES)
def test_a_task_without_upstreams_runs_whatever_its_rule(rule: str) -> None:
    assert judge(RULES[rule], 0, [0, 0, 0, 0]).value == "run"
