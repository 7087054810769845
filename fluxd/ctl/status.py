"""`fluxctl status`: one screen about the daemon."""

from typing import Any

import click

from fluxd.ctl import show
from fluxd.ctl.client import address
from fluxd.ctl.printing import machine
from fluxd.ctl.verbs import Session, Verb
from fluxd.errors import Unavailable


@click.command(cls=Verb)
@click.pass_obj
def status(session: Session) -> None:
    """How the daemon is and what lives.

    Example: fluxctl status
    """
    answer = session.client.get(address("status"))
    told = answer.body
    if session.json:
        machine(answer)
    else:
        show.facts(_facts(told))
    if not told["database_answers"]:
        raise Unavailable(
            "FLX-4089", "The database does not answer fluxd; running tasks go on: fluxctl doctor says more."
        )


def _facts(told: dict[str, Any]) -> list[tuple[str, Any]]:
    facts = [
        ("fluxd", f"{told.get('version', '')} runs since {show.when_in_full(told['started_at'])}"),
        ("web", told.get("address")),
        ("home", told["home"]),
        ("dags folder", told.get("dags_folder")),
        ("database", told.get("database")),
        ("process", f"{told['pid']} on {told.get('host', 'this machine')}" if "pid" in told else None),
        ("runner", str(told["runner_pid"]) if told.get("runner_pid") else None),
    ]
    if told["late"]:
        facts.append(("late", show.Styled("; ".join(told["late"]), "red")))
    if not told["database_answers"]:
        return facts
    broken = told["dag_errors"]
    return [
        *facts,
        ("dags", f"{told['dags']}, {told['paused_dags']} paused"),
        ("broken files", show.Styled(f"{broken}: see fluxctl dags errors", "red") if broken else None),
        ("runs", f"{told['running_runs']} running, {told['queued_runs']} queued"),
        (
            "tasks",
            f"{told['running_tasks']} running, {told['queued_tasks']} queued, {told['waiting_tasks']} waiting",
        ),
    ]
