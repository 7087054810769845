"""`fluxctl runs …`: what ran and runs."""

import json
import sys
from typing import Any

import click

from fluxd.ctl import show
from fluxd.ctl.client import address
from fluxd.ctl.printing import machine, run_with_tasks, runs_table, task_name, why_failed
from fluxd.ctl.verbs import Noun, Session
from fluxd.ctl.waiting import wait_for_run


@click.group(cls=Noun)
def runs() -> None:
    """What ran and runs: list, show, wait, cancel, run again.

    Example: fluxctl runs list sales --state failed
    """


@runs.command("list")
@click.argument("dag_id", required=False)
@click.option("--state", metavar="STATES", help="Only these states, separated by commas.")
@click.option("--since", metavar="TIME", help="Only runs with this logical date or a later one.")
@click.option("--until", metavar="TIME", help="Only runs with an earlier logical date.")
@click.option("--limit", type=click.IntRange(1), default=25, show_default=True, help="How many at most.")
@click.pass_obj
def list_runs(
    session: Session, dag_id: str | None, state: str | None, since: str | None, until: str | None, limit: int
) -> None:
    """The runs of a dag, or of all dags, newest first.

    Example: fluxctl runs list sales --state failed,running
    """
    where = ("dags", dag_id, "runs") if dag_id is not None else ("runs",)
    found = session.client.pages("runs", limit, *where, state=state, since=since, until=until)
    if session.json:
        show.out(json.dumps({"runs": found}, ensure_ascii=False))
    else:
        runs_table(found, with_dag=dag_id is None)


@runs.command("show")
@click.argument("dag_id")
@click.argument("run_id")
@click.pass_obj
def show_run(session: Session, dag_id: str, run_id: str) -> None:
    """One run with its tasks, and why those that do not run do not.

    Example: fluxctl runs show sales scheduled__20260102T060000Z
    """
    answer = session.client.get(address("dags", dag_id, "runs", run_id))
    machine(answer) if session.json else run_with_tasks(answer.body)


def _not_negative(_: click.Context, __: click.Parameter, seconds: float | None) -> float | None:
    """click's own range lets NaN through, with which waiting would never end."""
    if seconds is not None and not seconds >= 0:
        raise click.BadParameter("it is a number of seconds, 0 or more.")
    return seconds


@runs.command()
@click.argument("dag_id")
@click.argument("run_id")
@click.option(
    "--timeout", type=float, callback=_not_negative, metavar="SECONDS", help="Give up after so long (exit code 1)."
)
@click.pass_obj
def wait(session: Session, dag_id: str, run_id: str, timeout: float | None) -> int:
    """Until the run has ended; exit code 1 where it did not succeed.

    Example: fluxctl runs wait sales RUN --timeout 600
    """
    answer, ended = wait_for_run(session.client, dag_id, run_id, timeout)
    run = answer.body
    machine(answer) if session.json else run_with_tasks(run)
    if run["state"] == "success":
        return 0
    late = "" if ended else f" after {timeout:g} s of waiting"
    sys.stderr.write(f"fluxctl: {why_failed(run)}{late}\n")
    return 1


@runs.command()
@click.argument("dag_id")
@click.argument("run_id")
@click.pass_obj
def cancel(session: Session, dag_id: str, run_id: str) -> None:
    """Stop a run: nothing of it starts any more, what runs of it is ended.

    Example: fluxctl runs cancel sales RUN
    """
    answer = session.client.post(address("dags", dag_id, "runs", run_id, "cancel"))
    if session.json:
        machine(answer)
    else:
        ended = answer.body["state"] == "cancelled"
        show.out(f"{run_id} is cancelled." if ended else f"{run_id} is being cancelled: its processes are ended.")


def change(session: Session, dag_id: str, run_id: str, verb: str, body: dict[str, Any]) -> None:
    """Clear or mark, and say what it did."""
    answer = session.client.post(address("dags", dag_id, "runs", run_id, verb), body)
    if session.json:
        machine(answer)
        return
    done = "cleared" if verb == "clear" else "marked"
    tasks = [task_name(task) for task in answer.body[done]]
    how = f" {body['state']}" if "state" in body else ""
    shown = f": {', '.join(tasks[:20])}{' …' if len(tasks) > 20 else ''}" if tasks else ""
    show.out(f"{len(tasks)} task{'' if len(tasks) == 1 else 's'} {done}{how}{shown}.")
    if note := answer.body.get("note"):
        show.out(note)


@runs.command()
@click.argument("dag_id")
@click.argument("run_id")
@click.option("--failed", is_flag=True, help="Only the tasks that failed.")
@click.pass_obj
def clear(session: Session, dag_id: str, run_id: str, failed: bool) -> None:
    """Run it again: all of its tasks, or those that failed.

    Example: fluxctl runs clear sales RUN --failed
    """
    change(session, dag_id, run_id, "clear", {"only_failed": failed})


@runs.command()
@click.argument("dag_id")
@click.argument("run_id")
@click.argument("state", type=click.Choice(["success", "failed", "skipped"]))
@click.pass_obj
def mark(session: Session, dag_id: str, run_id: str, state: str) -> None:
    """Say how it ended: success marks all tasks that did not succeed, the others all that have not ended.

    Example: fluxctl runs mark sales RUN success
    """
    change(session, dag_id, run_id, "mark", {"state": state})
