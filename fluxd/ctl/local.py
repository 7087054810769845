"""`fluxctl dags test`, `tasks test`, `tasks run`, `tasks render`: a dag file carried out right here, without a daemon.

Nothing is stored and nobody else is told: for trying out what one is writing.
"""

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from fluxd import config
from fluxd.authoring import safely, testing
from fluxd.authoring.dag import DAG
from fluxd.ctl import show
from fluxd.ctl.client import address
from fluxd.ctl.conf import read_conf, read_results
from fluxd.ctl.verbs import Session, Verb
from fluxd.errors import FluxError, Invalid, NotFound, Unavailable

WHAT = click.argument("what", metavar="FILE|DAG")
TASK = click.argument("task_id")
DATE = click.option("--logical-date", metavar="TIME", help="The time it is for (default: now).")
CONF = click.option("--conf", metavar="JSON", help="Values for the run, over the dag's params.")

RESULTS = click.option(
    "--result",
    "results",
    metavar="TASK=JSON",
    multiple=True,
    help="What a task before it returned; repeatable.",
)


@click.command("test", cls=Verb)
@WHAT
@DATE
@CONF
@click.pass_obj
def test_dag(session: Session, what: str, logical_date: str | None, conf: str | None) -> int:
    """Run a whole dag here, without a daemon; exit code 1 where it did not succeed. Retries come at once,
    and execution_timeout is not kept.

    Example: fluxctl dags test dags/sales.py --logical-date 2026-01-31
    """
    given = read_conf(conf)
    with _output_aside(session.json):
        run = testing.test_dag(_find(session, what), logical_date, conf=given)
    failed = [task for task in run.tasks.values() if task.state in ("failed", "upstream_failed")]
    if session.json:
        told = {
            "dag_id": run.dag_id,
            "run_id": run.run_id,
            "state": run.state,
            "tasks": [
                {"task_id": task.task_id, "state": task.state, "try_number": task.tries, "reason": task.reason}
                for task in run.tasks.values()
            ],
        }
        show.out(json.dumps(told, ensure_ascii=False))
    else:
        rows = [[task.task_id, show.state(str(task.state)), task.tries, task.reason] for task in run.tasks.values()]
        show.table(["TASK", "STATE", "TRIES", "REASON"], rows, "This dag has no tasks.")
    if run.state == "success":
        return 0
    sys.stderr.write(f"fluxctl: {run.dag_id} failed: {', '.join(task.task_id for task in failed)}\n")
    return 1


@click.command("test", cls=Verb)
@WHAT
@TASK
@DATE
@CONF
@RESULTS
@click.pass_obj
def test_task(session: Session, /, what: str, task_id: str, **given: Any) -> int:
    """Run one task here, once, whatever comes before it; exit code 1 where it failed.

    Example: fluxctl tasks test dags/sales.py load --logical-date 2026-01-31 --result 'extract={"rows": 3}'
    """
    return _try_out(session, what, task_id, once=True, **given)


@click.command("run", cls=Verb)
@WHAT
@TASK
@DATE
@CONF
@RESULTS
@click.pass_obj
def run_task(session: Session, /, what: str, task_id: str, **given: Any) -> int:
    """Run one task here as often as its retries allow (without the delay); exit code 1 where all tries failed.

    Example: fluxctl tasks run sales load
    """
    return _try_out(session, what, task_id, once=False, **given)


def _try_out(
    session: Session,
    what: str,
    task_id: str,
    *,
    once: bool,
    logical_date: str | None,
    conf: str | None,
    results: Sequence[str],
) -> int:
    given = {"conf": read_conf(conf), "results": read_results(results)}
    with _output_aside(session.json):
        dag = _find(session, what, task_id)
        spec: dict[str, Any] = next((task for task in dag.to_spec()["tasks"] if task["task_id"] == task_id), {})
        tries = 1 if once else 1 + int(spec.get("retries", 0))
        for number in range(1, tries + 1):
            outcome: dict[str, Any] = testing.test_task(dag, task_id, logical_date, try_number=number, **given)
            error = outcome.get("error") or {}
            if outcome["state"] != "failed" or not error.get("retry", True):
                break
    xcoms = dict(outcome.get("xcoms", ()))
    if session.json:
        told = {
            "dag_id": dag.dag_id,
            "task_id": task_id,
            "state": outcome["state"],
            "try_number": number,
            "reason": testing.reason_of(outcome),
            "xcoms": xcoms,
        }
        show.out(json.dumps(told, ensure_ascii=False, default=str))
    else:
        show.facts(
            [
                ("task", task_id),
                ("state", show.state(str(outcome["state"]))),
                ("tries", number),
                *((f"xcom {key}", _shown(value)) for key, value in xcoms.items()),
            ]
        )
    if outcome["state"] != "failed":
        return 0
    sys.stderr.write(f"fluxctl: {task_id} failed: {testing.reason_of(outcome)}\n")
    return 1


@click.command("render", cls=Verb)
@WHAT
@TASK
@DATE
@CONF
@RESULTS
@click.pass_obj
def render_task(
    session: Session, what: str, task_id: str, logical_date: str | None, conf: str | None, results: Sequence[str]
) -> None:
    """Show a task's fields as it would see them, templates filled in.

    Example: fluxctl tasks render dags/sales.py load --logical-date 2026-01-31
    """
    given = {"conf": read_conf(conf), "results": read_results(results)}
    with _output_aside(session.json):
        fields = testing.render(_find(session, what, task_id), task_id, logical_date, **given)
    if session.json:
        show.out(json.dumps({"task_id": task_id, "fields": fields}, ensure_ascii=False, default=str))
        return
    show.facts([(name, _shown(value)) for name, value in fields.items()])


def _shown(value: Any) -> str | None:
    """A value for people: text as it is, all else as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


@contextlib.contextmanager
def _output_aside(aside: bool) -> Iterator[None]:
    """What files and tasks print goes to stderr where stdout is for a machine, child processes included."""
    if not aside:
        yield
        sys.stdout.flush()
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _find(session: Session, what: str, task_id: str | None = None) -> DAG:
    """The dag of a file, or the dag with this id in the dags folder."""
    path = Path(what).expanduser()
    if what.endswith(".py") or path.is_file():
        dags = _load(path)
        having = [dag for dag in dags if task_id is None or task_id in dag.tasks]
        if len(dags) == 1:
            return dags[0]
        if len(having) == 1:
            return having[0]
        if not dags:
            raise NotFound("FLX-8016", f"The file {what} defines no dag.")
        names = ", ".join(dag.dag_id for dag in dags)
        raise Invalid(
            "FLX-8017", f"The file {what} defines several dags ({names}); name one of them instead of the file."
        )
    for file in _files_of(session, what):
        for dag in _load(file):
            if dag.dag_id == what:
                return dag
    raise NotFound("FLX-8016", f"There is no dag {what!r} in the dags folder; give the path of its file instead.")


def _files_of(session: Session, dag_id: str) -> list[Path]:
    """Where a dag may be defined: the daemon knows; without one, those files of the folder that name it."""
    try:
        file = session.client.get(address("dags", dag_id)).body["file"]
        return [Path(session.client.get(address("status")).body["dags_folder"]) / file]
    except Unavailable:
        folder = config.load(session.home).dags
        return [path for path in sorted(folder.rglob("*.py")) if dag_id.encode() in path.read_bytes()]


def _load(path: Path) -> list[DAG]:
    """The dags of a file. Where it cannot be loaded, raises Invalid naming file and line: FLX-8018, or our own code."""
    try:
        return testing.load_file(path)
    except FluxError as error:
        if error.code == "FLX-2020":
            raise  # there is no such file, and so no line of it
        line = _line(error, path)
        place = f"{path}, line {line}" if line else str(path)
        raise Invalid(error.code, f"{place}: {error.message}") from None
    except (Exception, SystemExit) as error:
        line = _line(error, path)
        reason = f"{safely.kind(error)}: {safely.text(error)}".splitlines()[0]
        raise Invalid("FLX-8018", f"{path}, line {line or 1}: the file cannot be imported: {reason}") from None


def _line(error: BaseException, path: Path) -> int | None:
    """The line of the file that is no Python, else the innermost one that the error came through."""
    if isinstance(error, SyntaxError) and error.filename == str(path.resolve()):
        return error.lineno
    frames = traceback.extract_tb(safely.traceback_of(error))
    return next((frame.lineno for frame in reversed(frames) if frame.filename == str(path.resolve())), None)
