"""Causes in parts: what happened comes first, whatever the reason is."""

import pytest

from fluxd.core.causes import Cause, cause, failed_upstreams


@pytest.mark.parametrize(
    ("reason", "parts", "said"),
    [
        (
            "task marts.reconcile failed: FLX-3014: ledger 120.00, mart 119.50",
            Cause("ledger 120.00, mart 119.50", "marts.reconcile", "FLX-3014"),
            "ledger 120.00, mart 119.50 · marts.reconcile · FLX-3014",
        ),
        ("task load failed: exit code 3", Cause("exit code 3", "load"), "exit code 3 · load"),
        ("task load failed", Cause("failed", "load"), "failed · load"),
        ("task a upstream_failed: its rule", Cause("its rule", "a"), "its rule · a"),
        ("task a upstream_failed", Cause("upstream failed", "a"), "upstream failed · a"),
        ("FLX-7011: a signal ended it", Cause("a signal ended it", None, "FLX-7011"), "a signal ended it · FLX-7011"),
        (
            "task a failed: two\nlines: FLX-3014: x",
            Cause("two\nlines: FLX-3014: x", "a"),
            "two\nlines: FLX-3014: x · a",
        ),
        (
            "dagrun_timeout of 300 s exceeded",
            Cause("dagrun_timeout of 300 s exceeded"),
            "dagrun_timeout of 300 s exceeded",
        ),
        ("a task was cancelled", Cause("a task was cancelled"), "a task was cancelled"),
        ("task  failed: x", Cause("task  failed: x"), "task  failed: x"),
        ("", Cause(""), ""),
    ],
)
def test_what_happened_comes_first(reason: str, parts: Cause, said: str) -> None:
    assert cause(reason) == parts
    assert str(cause(reason)) == said


def test_what_failed_before_is_named_however_far_away() -> None:
    chain = [(f"t{n}", "upstream_failed", (f"t{n - 1}",), "its trigger rule cannot be met") for n in range(1, 2000)]
    found = failed_upstreams([("t0", "failed", (), "FLX-3014: no ledger"), *chain, ("ok", "success", ("t0",), None)])
    assert set(found) == {f"t{n}" for n in range(1, 2000)}
    assert set(found.values()) == {"t0 failed: no ledger"}


def test_mapped_and_cancelled_and_unknown_upstreams() -> None:
    assert failed_upstreams(
        [
            ("m", "success", (), None),
            ("m", "failed", (), "one"),
            ("m", "failed", (), "two"),
            ("c", "cancelled", (), None),
            ("after_m", "upstream_failed", ("m",), "x"),
            ("after_c", "upstream_failed", ("gone", "c"), "x"),
            ("after_nothing", "upstream_failed", ("gone",), "x"),
        ]
    ) == {"after_m": "m failed: one", "after_c": "c cancelled"}
