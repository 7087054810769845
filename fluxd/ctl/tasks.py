"""`fluxctl tasks …`: the tasks of a run, and one task tried out on its own."""

import json
from typing import Any

import click

from fluxd.ctl import show
from fluxd.ctl.client import address
from fluxd.ctl.printing import machine, task_name, tasks_table
from fluxd.ctl.runs import change
from fluxd.ctl.verbs import Noun, Session

LOCAL = "fluxd.ctl.local"


@click.group(
    cls=Noun,
    later={
        "run": (f"{LOCAL}:run_task", "Run one task here as the daemon would, with retries and waiting."),
        "test": (f"{LOCAL}:test_task", "Run one task here, once, without a daemon."),
        "render": (f"{LOCAL}:render_task", "Show a task's fields as it would see them."),
    },
)
def tasks() -> None:
    """The tasks of a run, and one task tried out on its own.

    Example: fluxctl tasks show sales RUN load
    """


@tasks.command("list")
@click.argument("dag_id")
@click.argument("run_id")
@click.pass_obj
def list_tasks(session: Session, dag_id: str, run_id: str) -> None:
    """The tasks of a run in the dag's order.

    Example: fluxctl tasks list sales RUN
    """
    answer = session.client.get(address("dags", dag_id, "runs", run_id, "tasks"))
    machine(answer) if session.json else tasks_table(answer.body["tasks"])


MAP_INDEX = click.option("--map-index", type=int, help="Which one of a mapped task.")


@tasks.command("show")
@click.argument("dag_id")
@click.argument("run_id")
@click.argument("task_id")
@MAP_INDEX
@click.pass_obj
def show_task(session: Session, dag_id: str, run_id: str, task_id: str, map_index: int | None) -> None:
    """One task of a run with its tries.

    Example: fluxctl tasks show sales RUN load
    """
    answer = session.client.get(address("dags", dag_id, "runs", run_id, "tasks", task_id, map_index=map_index))
    if session.json:
        machine(answer)
        return
    task = answer.body
    show.facts(
        [
            ("task", task_name(task)),
            ("run", f"{task['dag_id']} {task['run_id']}"),
            ("state", show.state(task["state"])),
            ("reason", show.cause(task["reason"])),
            ("operator", task["operator"]),
            ("after", ", ".join(task["upstream"])),
            ("next try", show.when_in_full(task["retry_at"])),
            ("waits until", show.when_in_full(task["wait_until"])),
            ("progress", progress_words(task["progress"])),
        ]
    )
    show.out()
    show.table(
        ["TRY", "STATE", f"STARTED ({show.zone()})", "TOOK", "EXIT", "MEMORY", "REASON"],
        [_try_row(one) for one in task["tries"]],
        "It was not tried yet.",
    )
    rendered = next((one["rendered"] for one in reversed(task["tries"]) if one["rendered"]), None)
    if rendered:
        show.out()
        show.facts([(name, _shown(value)) for name, value in rendered.items()])


def progress_words(progress: dict[str, Any] | None) -> str | None:
    """1,200 rows, 4,096 bytes: loading."""
    told = progress or {}
    counts = ", ".join(f"{told[name]:,} {name}" for name in ("rows", "bytes") if name in told)
    return ": ".join(part for part in (counts, told.get("note")) if part) or None


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _try_row(one: dict[str, Any]) -> list[show.Cell]:
    code = f"signal {one['signal']}" if one["signal"] else one["exit_code"]
    memory = (one["usage"] or {}).get("max_rss_kb")
    return [
        one["try_number"],
        show.state(one["state"]),
        show.when(one["started_at"]),
        show.took(one["started_at"], one["ended_at"]),
        code,
        f"{memory / 1024:.0f} MiB" if memory else "",
        show.cause(one["reason"]),
    ]


@tasks.command()
@click.argument("dag_id")
@click.argument("run_id")
@click.argument("task_ids", metavar="TASK_ID...", nargs=-1, required=True)
@click.option("--downstream/--no-downstream", default=True, show_default=True, help="Also all that comes after.")
@click.option("--failed", is_flag=True, help="Of these only what failed.")
@MAP_INDEX
@click.pass_obj
def clear(
    session: Session,
    dag_id: str,
    run_id: str,
    task_ids: tuple[str, ...],
    downstream: bool,
    failed: bool,
    map_index: int | None,
) -> None:
    """Run tasks again, with what comes after them; those that run are stopped first.

    Example: fluxctl tasks clear sales RUN load --no-downstream
    """
    body = {"task_ids": list(task_ids), "downstream": downstream, "only_failed": failed, "map_index": map_index}
    change(session, dag_id, run_id, "clear", body)


@tasks.command()
@click.argument("dag_id")
@click.argument("run_id")
@click.argument("state", type=click.Choice(["success", "failed", "skipped"]))
@click.argument("task_ids", metavar="TASK_ID...", nargs=-1, required=True)
@MAP_INDEX
@click.pass_obj
def mark(
    session: Session, dag_id: str, run_id: str, state: str, task_ids: tuple[str, ...], map_index: int | None
) -> None:
    """Say how tasks ended; those that run are stopped.

    Example: fluxctl tasks mark sales RUN success load
    """
    change(session, dag_id, run_id, "mark", {"state": state, "task_ids": list(task_ids), "map_index": map_index})
