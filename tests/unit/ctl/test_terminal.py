"""What fluxctl shows on a terminal: nothing is cut off, whatever its width and however long the names are."""

import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from fluxd.ctl import printing, show
from fluxd.ctl.dags import upcoming_table

LONG = "a_dag_of_the_warehouse_team_that_has_a_very_long_name_because_it_says_all.of.it_" + "x" * 100
RUN_IDS = ("one", "scheduled__20260102T060000Z", f"manual__2026-01-02T06:00:00.000000+00:00__{'r' * 120}")
REASON = "task marts.reconcile failed: FLX-3014: ledger 120.00, mart 119.50 in the books of the whole last quarter"
AT = "2026-01-02T06:00:00Z"
STATES = ("failed", "running", "up_for_retry", "upstream_failed")


def runs() -> list[dict[str, Any]]:
    times = dict.fromkeys(("data_interval_start", "data_interval_end", "started_at", "ended_at"), AT)
    same = {"run_type": "scheduled", "reason": REASON, **times}
    return [{"run_id": run, "dag_id": LONG, "state": "failed", **same} for run in RUN_IDS]


def tasks() -> list[dict[str, Any]]:
    same = {
        "map_index": -1,
        "try_number": 1,
        "max_tries": 3,
        "started_at": AT,
        "ended_at": AT,
        "operator": "BashOperator",
    }
    return [
        {"task_id": f"{name}_{state}", "state": state, "reason": REASON, **same}
        for name in ("load", LONG)
        for state in STATES
    ]


def try_out(rows: int) -> None:
    table = [[LONG, show.state(state), "1.py", "word " * 30, LONG[::-1]] for state in STATES[:rows]]
    show.table(["FILE", "STATE", "LINE", "REASON", "STILL RUNS"], table, "")


SHOWN: dict[str, tuple[Callable[[], None], list[str]]] = {
    "runs of all": (lambda: printing.runs_table(runs(), with_dag=True), [*RUN_IDS, LONG, "✗ failed", "FLX-3014"]),
    "runs of one": (
        lambda: printing.runs_table(runs()[:2], with_dag=False),
        [*RUN_IDS[:2], "✗ failed", "ledger 120.00"],
    ),
    "tasks": (lambda: printing.tasks_table(tasks()), [f"{LONG}_failed", *STATES, "load_running", "marts.reconcile"]),
    "short tasks": (
        lambda: printing.tasks_table(tasks()[:4]),
        [*(f"load_{state}" for state in STATES), "↻ up_for_retry"],
    ),
    "coming": (lambda: upcoming_table([{"due_at": AT, "words": "covers " + "a day " * 40}]), ["2026-01-02"]),
    "any": (lambda: try_out(3), [LONG, LONG[::-1], "✗ failed", "▶ running", "↻ up_for_retry"]),
}


def solid(text: str) -> str:
    """Without the blanks: a name that is folded over lines is whole again."""
    return "".join(text.split())


@pytest.mark.parametrize("width", [20, 40, 80, 140, 400])
@pytest.mark.parametrize("what", SHOWN)
def test_nothing_is_cut_off(
    what: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shows, wanted = SHOWN[what]
    shows()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).split("\n")
    assert max(len(line.rstrip()) for line in lines) <= width
    text = solid("".join(lines))
    assert [words for words in wanted if solid(words) not in text] == []


def test_states_come_first_where_rows_are_stacked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    printing.tasks_table(tasks()[:1])
    state, name, *more = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).split("\n")
    assert (state, name) == ("✗ failed", "load_failed")
    assert any(line.startswith("  REASON") and "ledger 120.00" in line for line in more)
