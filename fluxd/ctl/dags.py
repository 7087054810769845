"""`fluxctl dags …`: what there is to run."""

import json
import sys
from typing import Any

import click

from fluxd.ctl import show
from fluxd.ctl.client import address
from fluxd.ctl.conf import read_conf
from fluxd.ctl.printing import machine, run_facts, run_with_tasks, why_failed
from fluxd.ctl.verbs import Noun, Session
from fluxd.ctl.waiting import wait_for_run
from fluxd.errors import Refused


@click.group(cls=Noun, later={"test": ("fluxd.ctl.local:test_dag", "Run a whole dag here, without a daemon.")})
def dags() -> None:
    """What there is to run: list, show, trigger, pause, try out.

    Example: fluxctl dags trigger sales --wait
    """


@dags.command("list")
@click.option("--tag", help="Only dags with this tag.")
@click.option("--paused", is_flag=True, help="Only paused ones.")
@click.option("--active", is_flag=True, help="Only those that are not paused.")
@click.option("--all", "removed", is_flag=True, help="Also dags whose file is gone.")
@click.pass_obj
def list_dags(session: Session, tag: str | None, paused: bool, active: bool, removed: bool) -> None:
    """The dags, with their last run and what comes next.

    Example: fluxctl dags list --tag money
    """
    if paused and active:
        raise click.UsageError("--paused and --active do not go together; leave both out to see all.")
    only = paused if paused or active else None
    found = session.client.pages("dags", None, "dags", tag=tag, paused=only, removed=removed or None)
    if session.json:
        show.out(json.dumps({"dags": found}, ensure_ascii=False))
        return
    zone = show.zone()
    show.table(
        ["DAG", "SCHEDULE", f"NEXT ({zone})", "LAST RUN", f"STARTED ({zone})", "TOOK", "LIVE", "NOTE"],
        [_dag_row(dag) for dag in found],
        "There are no dags yet: put a dag file into the dags folder (fluxctl status says where it is).",
    )


def _dag_row(dag: dict[str, Any]) -> list[show.Cell]:
    last = dag["last_run"] or {}
    note: show.Cell = None
    if dag["error"]:
        note = show.Styled(f"file is broken: {dag['error']['reason']}", "red")
    elif dag["removed"]:
        note = show.Styled("file is gone", "yellow")
    elif last.get("state") == "failed":
        note = show.cause(last["reason"])
    return [
        dag["dag_id"],
        dag["schedule_words"],
        show.state("paused") if dag["paused"] else show.when(dag["next_due_at"]),
        show.state(last.get("state")),
        show.when(last.get("started_at")),
        show.took(last.get("started_at"), last.get("ended_at")),
        dag["running_runs"] + dag["queued_runs"] or "",
        note,
    ]


@dags.command("show")
@click.argument("dag_id")
@click.pass_obj
def show_dag(session: Session, dag_id: str) -> None:
    """One dag: its schedule, its limits, its tasks.

    Example: fluxctl dags show sales
    """
    answer = session.client.get(address("dags", dag_id))
    if session.json:
        machine(answer)
        return
    dag = answer.body
    note = None
    if dag["error"]:
        note = show.Styled(f"the file is broken, this is its last good version: {dag['error']['reason']}", "red")
    show.facts(
        [
            ("dag", dag["dag_id"]),
            ("", note),
            ("about", dag["description"]),
            ("schedule", dag["schedule_words"]),
            ("next run", show.state("paused") if dag["paused"] else show.when_in_full(dag["next_due_at"])),
            ("starts", show.when_in_full(dag["start_date"])),
            ("ends", show.when_in_full(dag["end_date"])),
            ("catch-up", _catchup(dag["catchup"])),
            (
                "at once",
                f"{show.counted(dag['max_active_runs'], 'run')}, {show.counted(dag['max_active_tasks'], 'task')}",
            ),
            ("now", f"{dag['running_runs']} running, {dag['queued_runs']} queued"),
            ("params", json.dumps(dag["params"], ensure_ascii=False) if dag["params"] else None),
            ("tags", ", ".join(dag["tags"])),
            ("owner", dag["owner"]),
            ("file", f"{dag['file']} (version {dag['version']})"),
            *(("warning", show.Styled(text, "yellow")) for text in dag["warnings"]),
        ]
    )
    show.out()
    show.table(
        ["TASK", "OPERATOR", "AFTER", "RULE", "RETRIES", "POOL"],
        [
            [
                task["task_id"],
                task["operator"],
                ", ".join(task["upstream"]),
                "" if task["trigger_rule"] == "all_success" else task["trigger_rule"],
                task["retries"] or "",
                "" if task["pool"] == "default_pool" else task["pool"],
            ]
            for task in dag["tasks"]
        ],
        "This dag has no tasks.",
    )


def _catchup(rule: bool | str | float) -> str:
    if isinstance(rule, bool):
        return "every run since its start date" if rule else "none: what was missed is skipped"
    return "the latest run only" if rule == "latest" else f"what was due in the last {show.duration(float(rule))}"


@dags.command()
@click.argument("dag_id")
@click.option("--conf", metavar="JSON", help="Values for this run, over the dag's params.")
@click.option("--logical-date", metavar="TIME", help="The time it is for; without a zone in the dag's zone.")
@click.option("--run-id", metavar="ID", help="A name for the run; made from the time where none is given.")
@click.option("--wait", is_flag=True, help="Until it has ended; exit code 1 where it did not succeed.")
@click.pass_obj
def trigger(
    session: Session, dag_id: str, conf: str | None, logical_date: str | None, run_id: str | None, wait: bool
) -> int:
    """Start a run now.

    Example: fluxctl dags trigger sales --logical-date 2026-01-31 --wait
    """
    body = {"conf": read_conf(conf), "logical_date": logical_date, "run_id": run_id}
    answer = session.client.post(address("dags", dag_id, "trigger"), body)
    if not wait:
        if session.json:
            machine(answer)
        else:
            run_facts(answer.body)
            sys.stderr.write(f"Follow it: fluxctl runs show {dag_id} {answer.body['run_id']}\n")
        return 0
    if not session.json:
        sys.stderr.write(f"The run {answer.body['run_id']} has begun; waiting for its end …\n")
    answer, _ = wait_for_run(session.client, dag_id, answer.body["run_id"])
    run = answer.body
    machine(answer) if session.json else run_with_tasks(run)
    if run["state"] == "success":
        return 0
    sys.stderr.write(f"fluxctl: {why_failed(run)}\n")
    return 1


def _set_paused(session: Session, dag_ids: tuple[str, ...], verb: str) -> None:
    if len(dag_ids) > 1:
        for dag_id in dag_ids:  # a name that is wrong is found before anything is changed
            session.client.get(address("dags", dag_id))
    answers = []
    for dag_id in dag_ids:
        answers.append(session.client.post(address("dags", dag_id, verb)))
        if not session.json:
            show.out(f"{dag_id} is {'paused' if verb == 'pause' else 'active'}.")
    if session.json and len(answers) == 1:
        machine(answers[0])
    elif session.json:
        show.out(json.dumps({"dags": [answer.body for answer in answers]}, ensure_ascii=False))


@dags.command()
@click.argument("dag_ids", metavar="DAG_ID...", nargs=-1, required=True)
@click.pass_obj
def pause(session: Session, dag_ids: tuple[str, ...]) -> None:
    """No new runs from now on; those that live go on.

    Example: fluxctl dags pause sales
    """
    _set_paused(session, dag_ids, "pause")


@dags.command()
@click.argument("dag_ids", metavar="DAG_ID...", nargs=-1, required=True)
@click.pass_obj
def unpause(session: Session, dag_ids: tuple[str, ...]) -> None:
    """New runs again; what was missed follows the dag's catch-up rule.

    Example: fluxctl dags unpause sales
    """
    _set_paused(session, dag_ids, "unpause")


@dags.command("next")
@click.argument("dag_id")
@click.option("--from", "start", metavar="TIME", help="Due at this time or later; without a zone in the dag's zone.")
@click.option("--count", default=5, show_default=True, help="How many.")
@click.pass_obj
def next_runs(session: Session, dag_id: str, start: str | None, count: int) -> None:
    """The runs to come, and what each covers.

    Example: fluxctl dags next sales --from 2026-03-28 --count 3
    """
    answer = session.client.get(address("dags", dag_id, "next", from_=start, count=count))
    if session.json:
        machine(answer)
        return
    coming = answer.body
    if coming["paused"]:
        sys.stderr.write(f"{dag_id} is paused: nothing of this happens before 'fluxctl dags unpause {dag_id}'.\n")
    if coming["runs"] and coming["reason"]:
        sys.stderr.write(f"{coming['reason']}\n")
    upcoming_table(coming["runs"], coming["reason"])


def upcoming_table(runs: list[dict[str, Any]], why_none: str | None = None) -> None:
    """The runs to come, one a line; where there are none, why."""
    show.table(
        [f"DUE ({show.zone()})", "WORDS"],
        [[show.when(run["due_at"]), run["words"]] for run in runs],
        why_none or "Nothing comes: the schedule has no more times.",
    )


@dags.command()
@click.pass_obj
def errors(session: Session) -> None:
    """The dag files that cannot be loaded: file, line, reason.

    Example: fluxctl dags errors
    """
    answer = session.client.get(address("dag-errors"))
    if session.json:
        machine(answer)
        return
    show.table(
        ["FILE", "LINE", "REASON", "STILL RUNS"],
        [[error["file"], error["line"], _said(error), ", ".join(error["dag_ids"])] for error in answer.body["errors"]],
        "All dag files are good.",
    )


def _said(error: dict[str, Any]) -> str:
    return f"{error['code']}: {error['reason']}" if error["code"] else str(error["reason"])


@dags.command()
@click.argument("dag_id")
@click.option("--version", type=int, help="Which version (default: the newest).")
@click.pass_obj
def source(session: Session, dag_id: str, version: int | None) -> None:
    """The dag's file as it was when the version was loaded.

    Example: fluxctl dags source sales
    """
    answer = session.client.get(address("dags", dag_id, "source", version=version))
    if session.json:
        machine(answer)
    else:
        sys.stdout.write(answer.body["files"][answer.body["file"]])


@dags.command()
@click.argument("dag_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(session: Session, dag_id: str, yes: bool) -> None:
    """Delete a dag's runs and all that is known of them. Refused while its file is there: remove that first.

    Example: fluxctl dags delete sales
    """
    if not yes:
        if not sys.stdin.isatty():
            raise Refused("FLX-8011", f"Deleting {dag_id!r} cannot be undone; say --yes where nobody can be asked.")
        click.confirm(f"Delete {dag_id} with all its runs and their logs?", abort=True, err=True)
    answer = session.client.delete(address("dags", dag_id))
    machine(answer) if session.json else show.out(f"{dag_id} is deleted.")
