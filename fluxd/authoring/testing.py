"""Dags without a daemon: read a file, render a task, run a task or a whole dag in this process.

For tests, notebooks, debuggers and `fluxctl dags test|tasks render|tasks test`. Nothing is stored anywhere.
"""

import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxd.authoring import checks, registry, tasklog
from fluxd.authoring.context import make_context
from fluxd.authoring.execution import Outcome, run
from fluxd.authoring.params import merge
from fluxd.authoring.references import RETURN_VALUE
from fluxd.authoring.spec import shown
from fluxd.authoring.template import renderer_of
from fluxd.core.rules import COLUMN, RULES, Verdict, judge
from fluxd.core.spec import dag_from_json
from fluxd.core.states import State
from fluxd.core.timetable import make_timetable, rfc3339
from fluxd.errors import Invalid, NotFound

if TYPE_CHECKING:
    from fluxd.authoring.dag import DAG

VERDICTS = {Verdict.SKIP: State.SKIPPED, Verdict.FAIL: State.UPSTREAM_FAILED, Verdict.WAIT: State.UPSTREAM_FAILED}


@dataclass
class TestedTask:
    """How a task ended. `tries` is 0 where its trigger rule did not let it run."""

    task_id: str
    state: str
    tries: int = 0
    reason: str | None = None
    xcoms: dict[str, Any] = field(default_factory=dict)
    rendered: dict[str, Any] = field(default_factory=dict)

    @property
    def result(self) -> Any:
        """What it returned."""
        return self.xcoms.get("return_value")


@dataclass
class TestedRun:
    """How a run ended: `run["task_id"].result`, `run.state` ("success" or "failed")."""

    dag_id: str
    run_id: str
    state: str
    logical_date: datetime
    tasks: dict[str, TestedTask]

    def __getitem__(self, task_id: str) -> TestedTask:
        return self.tasks[task_id]


# pytest takes classes whose name begins with Test for tests.
TestedTask.__test__ = TestedRun.__test__ = False  # type: ignore[attr-defined]


def load_file(path: str | os.PathLike[str]) -> "list[DAG]":
    """The dags of a file, each checked. Raises what importing it raises, and NotFound FLX-2020."""
    file = Path(path).resolve()
    if not file.is_file():
        raise NotFound("FLX-2020", f"There is no dag file {str(path)!r}: give the path of a .py file.")
    registry.forget()
    spec = importlib.util.spec_from_file_location(f"flux_dag_file_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    # A dag file imports its neighbours, also while its tasks run. They come last, as in the daemon: a file `email.py`
    # must not become the `email` of every library.
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    try:
        spec.loader.exec_module(module)
        return registry.collect()
    finally:
        registry.forget()


def render(
    dag: "DAG",
    task_id: str,
    logical_date: Any = None,
    *,
    conf: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The template fields of a task as it would see them, each shortened to 2,000 characters.

    `results`: what other tasks returned, by task id. Raises NotFound FLX-3013 for a task that the dag does not have.
    """
    _task(dag, task_id)
    given = {**make_given(dag, logical_date, conf), "upstream_xcoms": _as_xcoms(dag, results)}
    operator = renderer_of(dag).operator(dag.tasks[task_id], make_context(dag, task_id, given))
    return {name: shown(getattr(operator, name)) for name in operator.template_fields}


def test_task(
    dag: "DAG",
    task_id: str,
    logical_date: Any = None,
    *,
    conf: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
    try_number: int = 1,
) -> Outcome:
    """Run one task, whatever its upstreams: {"state", "error"?, "xcoms"?, "rendered"}.

    `results`: what other tasks returned, by task id. Raises NotFound FLX-3013 for a task that the dag does not have.
    """
    _task(dag, task_id)
    given = {**make_given(dag, logical_date, conf), "max_tries": 1 + dag.tasks[task_id].task_policy.retries}
    return _run(dag, task_id, given, _as_xcoms(dag, results), try_number)


def _as_xcoms(dag: "DAG", results: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    for task_id in results or ():
        _task(dag, task_id)
    return {task_id: {RETURN_VALUE: value} for task_id, value in (results or {}).items()}


def test_dag(
    dag: "DAG", logical_date: Any = None, *, conf: Mapping[str, Any] | None = None, run_id: str | None = None
) -> TestedRun:
    """Run a whole dag, one task after the other, each as often as its retries allow (without the delay between)."""
    spec = dag_from_json(dag.to_spec())
    given = make_given(dag, logical_date, conf, run_id)
    tasks: dict[str, TestedTask] = {}
    for task in spec.tasks:
        counts = [0, 0, 0, 0]
        for upstream in task.upstream:
            counts[COLUMN[State(tasks[upstream].state)]] += 1
        verdict = judge(RULES[task.trigger_rule], len(task.upstream), counts)
        if verdict is not Verdict.RUN:
            reason = "its trigger rule " + task.trigger_rule + " cannot be met any more"
            tasks[task.task_id] = TestedTask(task.task_id, VERDICTS[verdict], reason=reason)
        elif task.kind == "empty":
            tasks[task.task_id] = TestedTask(task.task_id, State.SUCCESS)
        else:
            xcoms = {name: done.xcoms for name, done in tasks.items()}
            tasks[task.task_id] = _try(dag, task.task_id, task.retries, given, xcoms)
    leaves = [tasks[task_id] for task_id, after in spec.downstream.items() if not after]
    failed = any(leaf.state in (State.FAILED, State.UPSTREAM_FAILED) for leaf in leaves)
    when = datetime.fromisoformat(given["logical_date"])
    return TestedRun(dag.dag_id, given["run_id"], "failed" if failed else "success", when, tasks)


def _task(dag: "DAG", task_id: str) -> None:
    if task_id not in dag.tasks:
        meant = checks.nearest(task_id, dag.tasks)
        hint = f": did you mean {meant!r}?" if meant else "."
        raise NotFound("FLX-3013", f"Dag {dag.dag_id!r} has no task {task_id!r}{hint}")


def _try(dag: "DAG", task_id: str, retries: int, given: dict[str, Any], xcoms: dict[str, Any]) -> TestedTask:
    for number in range(1, retries + 2):
        outcome = _run(dag, task_id, {**given, "max_tries": retries + 1}, xcoms, number)
        error = outcome.get("error") or {}
        if outcome["state"] != "failed" or not error.get("retry", True):
            break
    return TestedTask(
        task_id, outcome["state"], number, reason_of(outcome), dict(outcome.get("xcoms", ())), outcome["rendered"]
    )


def reason_of(outcome: Outcome) -> str | None:
    """Why a task failed or was skipped, as people see it."""
    error = outcome.get("error") or {}
    kind, message = error.get("type"), error.get("message")
    if outcome["state"] == "skipped" or (message and message.startswith("FLX-")):
        return message
    return f"{kind}: {message}" if message else kind


def _run(dag: "DAG", task_id: str, given: dict[str, Any], xcoms: dict[str, Any], number: int) -> Outcome:
    context = {**given, "task_id": task_id, "try_number": number, "upstream_xcoms": xcoms}
    with _environment(dag, context), tasklog.during():
        return run(dag, task_id, context, local=True)


def make_given(
    dag: "DAG", logical_date: Any = None, conf: Mapping[str, Any] | None = None, run_id: str | None = None
) -> dict[str, Any]:
    """What the daemon would give the tasks of a manual run (see `context.make_context`)."""
    now = datetime.now(UTC)
    table = make_timetable(dag_from_json(dag.to_spec()))
    wanted = checks.moment(logical_date, dag.timezone, "logical_date")
    start, end = table.covered_by_manual(wanted, now)
    logical = wanted or now
    given = checks.mapping(conf, "conf")
    return {
        "dag_id": dag.dag_id,
        "run_id": run_id or f"manual__{logical:%Y%m%dT%H%M%S}.{logical.microsecond:06}Z",
        "run_type": "manual",
        "logical_date": rfc3339(logical),
        "data_interval_start": rfc3339(start),
        "data_interval_end": rfc3339(end),
        "queued_at": rfc3339(now),
        "started_at": rfc3339(now),
        "conf": given,
        "params": merge(dag.params, given),
        "map_index": -1,
        "max_tries": 1,
        "test_mode": True,
    }


@contextmanager
def _environment(dag: "DAG", given: Mapping[str, Any]) -> Iterator[None]:
    """The environment variables of a task, for as long as it runs."""
    ours = {
        "FLUX_DAG_ID": dag.dag_id,
        "FLUX_TASK_ID": given["task_id"],
        "FLUX_RUN_ID": given["run_id"],
        "FLUX_MAP_INDEX": "-1",
        "FLUX_TRY_NUMBER": str(given["try_number"]),
        "FLUX_LOGICAL_DATE": given["logical_date"],
        "FLUX_DATA_INTERVAL_START": given["data_interval_start"],
        "FLUX_DATA_INTERVAL_END": given["data_interval_end"],
        "FLUX_IDEMPOTENCY_KEY": f"{dag.dag_id}/{given['run_id']}/{given['task_id']}/-1/{given['try_number']}",
        "FLUX_FENCE": "0",
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def main(dag: "DAG", arguments: list[str]) -> int:
    """`python my_dag.py [--logical-date T] [--conf JSON] [TASK …]`; gives the exit code: 1 if a task failed."""
    import argparse

    parser = argparse.ArgumentParser(description=f"Run the dag {dag.dag_id} here, without the daemon.")
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="run only these, whatever their upstreams")
    parser.add_argument("--logical-date", help="the date that the run is for (default: now)")
    parser.add_argument("--conf", default="{}", help="the run's conf, as a JSON object")
    given = parser.parse_args(arguments)
    if sys.path[:1] == [str(dag.folder)]:
        sys.path.append(sys.path.pop(0))  # Python puts a script's folder first; the daemon looks there last
    try:
        conf = json.loads(given.conf)
    except ValueError as error:
        raise Invalid("FLX-3021", f"--conf is not JSON ({error}).") from None
    if given.tasks:
        outcomes = [(name, test_task(dag, name, given.logical_date, conf=conf)) for name in given.tasks]
        lines = [(name, outcome["state"], reason_of(outcome)) for name, outcome in outcomes]
    else:
        tested = test_dag(dag, given.logical_date, conf=conf)
        lines = [(task.task_id, task.state, task.reason) for task in tested.tasks.values()]
    for name, state, reason in lines:
        sys.stderr.write(f"{state:<16} {name}{'  ' + reason if reason else ''}\n")
    return 1 if any(state in (State.FAILED, State.UPSTREAM_FAILED) for _, state, _ in lines) else 0


# The same for these two functions.
test_task.__test__ = test_dag.__test__ = False  # type: ignore[attr-defined]
