"""What a run, its tasks and a dag look like for people; used by several nouns."""

import json
import sys
from typing import Any

from fluxd.ctl import show
from fluxd.ctl.client import Answer


def machine(answer: Answer) -> None:
    """The daemon's JSON, byte for byte, on a line of its own."""
    sys.stdout.write(answer.raw.decode() + "\n")


def runs_table(runs: list[dict[str, Any]], *, with_dag: bool) -> None:
    """Runs, one a line."""
    zone = show.zone()
    columns = ["RUN", "STATE", "COVERS", f"STARTED ({zone})", "TOOK", "TYPE", "REASON"]
    rows: list[list[show.Cell]] = [
        [
            run["run_id"],
            show.state(run["state"]),
            show.covers(run),
            show.when(run["started_at"]),
            show.took(run["started_at"], run["ended_at"]),
            run["run_type"],
            show.cause(run["reason"]),
        ]
        for run in runs
    ]
    if with_dag:
        columns.insert(1, "DAG")
        for row, run in zip(rows, runs, strict=True):
            row.insert(1, run["dag_id"])
    show.table(columns, rows, "There are no such runs.")


def run_facts(run: dict[str, Any]) -> None:
    """A run in a few lines, without its tasks."""
    show.facts(
        [
            ("dag", run["dag_id"]),
            ("run", run["run_id"]),
            ("state", show.state(run["state"])),
            ("reason", show.cause(run["reason"])),
            ("covers", show.covers(run)),
            ("logical date", show.when_in_full(run["logical_date"])),
            ("queued", show.when_in_full(run["queued_at"])),
            ("started", show.when_in_full(run["started_at"])),
            ("ended", show.when_in_full(run["ended_at"])),
            ("took", show.took(run["started_at"], run["ended_at"])),
            ("type", f"{run['run_type']}, by {run['created_by']}"),
            ("conf", json.dumps(run["conf"], ensure_ascii=False) if run.get("conf") else None),
        ]
    )


def task_name(task: dict[str, Any]) -> str:
    """load, or load[3] where it is mapped."""
    return task["task_id"] if task["map_index"] < 0 else f"{task['task_id']}[{task['map_index']}]"


def tasks_table(tasks: list[dict[str, Any]]) -> None:
    """Task instances, one a line, in the dag's order."""
    show.table(
        ["TASK", "STATE", "TRY", f"STARTED ({show.zone()})", "TOOK", "OPERATOR", "REASON"],
        [
            [
                task_name(task),
                show.state(task["state"]),
                f"{task['try_number']}/{task['max_tries']}",
                show.when(task["started_at"]),
                show.took(task["started_at"], task["ended_at"]),
                task["operator"],
                show.cause(task["reason"]),
            ]
            for task in tasks
        ],
        "This run has no tasks.",
    )


def run_with_tasks(run: dict[str, Any]) -> None:
    """A run and its tasks."""
    run_facts(run)
    show.out()
    tasks_table(run["tasks"])


def why_failed(run: dict[str, Any]) -> str:
    """One sentence about a run that did not succeed."""
    reason = f": {show.cause(run['reason'])}" if run["reason"] else ""
    return f"The run {run['run_id']} of {run['dag_id']} is {run['state']}{reason}"
