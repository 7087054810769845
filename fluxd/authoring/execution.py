"""Running one task in this process: render, execute, collect the XComs, and say in one dict how it ended.

The outcome is what core.events.AttemptEnded describes. Nothing that a task does raises out of `run`.
"""

import contextlib
import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from fluxd.authoring import safely, traces
from fluxd.authoring.context import Context, make_context
from fluxd.authoring.current import running
from fluxd.authoring.operator import BaseOperator
from fluxd.authoring.outcomes import FailTask, SkipTask, TaskTerminated, TaskTimeout
from fluxd.authoring.references import RETURN_VALUE
from fluxd.authoring.requests import ExecCommand
from fluxd.authoring.sensor import BaseSensor
from fluxd.authoring.spec import shown
from fluxd.authoring.template import renderer_of, waits_in_daemon
from fluxd.errors import FluxError, Invalid, NotFound

if TYPE_CHECKING:
    from fluxd.authoring.dag import DAG

Outcome = dict[str, Any]
REHEARSAL = {
    "run_id": "rehearsal",
    "logical_date": "2000-01-01T00:00:00Z",
    "data_interval_start": "2000-01-01T00:00:00Z",
    "data_interval_end": "2000-01-02T00:00:00Z",
}
# Becomes the command and never returns; `rendered` is to be kept first, for nobody can tell it afterwards.
Replace = Callable[[ExecCommand, dict[str, Any]], NoReturn]


def run(
    dag: "DAG", task_id: str, context: Mapping[str, Any], *, replace: Replace | None = None, local: bool = False
) -> Outcome:
    """Run one task of a dag; `context` is what the daemon gave for it (see runner/protocol.py).

    `replace`, where given, lets a command take the place of this process. `local`: there is no daemon that could wait
    in a sensor's place.
    """
    attempt = Execution(dag, task_id, context, replace, local)
    token = running.set(None)
    try:
        return attempt.run()
    finally:
        running.reset(token)


def rehearse(dags: Iterable["DAG"]) -> None:
    """Do what comes before any task's own work, for nobody: a process that waits for its order does it ahead."""
    for dag in dags:
        for task_id in dag.tasks:
            context = make_context(dag, task_id, REHEARSAL)
            shown({"name": [context["ds"], 1, None]})
            return


class Execution:
    """One task being run."""

    def __init__(
        self, dag: "DAG", task_id: str, given: Mapping[str, Any], replace: Replace | None, local: bool
    ) -> None:
        self.dag, self.task_id, self.given, self.replace, self.local = dag, task_id, given, replace, local
        self.operator: BaseOperator | None = None
        self.context: Context | None = None
        self.rendered: dict[str, Any] = {}

    def run(self) -> Outcome:
        try:
            outcome = self._perform()
        except SkipTask as skip:
            why = safely.text(skip)
            outcome = _ended("skipped", skip, why or "the task skipped itself", retry=False)
            _say(f"Skipped: {why}\n" if why else "Skipped.\n")
        except TaskTerminated as stop:
            self._on_kill()
            outcome = _failed(stop, "FLX-3010: The task was told to stop and did.")
        except FluxError as error:
            _say(f"{safely.text(error)}\n")
            outcome = _failed(error, safely.text(error), retry=not isinstance(error, Invalid))
        except TaskTimeout as error:
            _say(f"{safely.text(error)}\n")
            outcome = _failed(error, f"FLX-3040: {safely.text(error)}", retry=False)  # it had its time
        except FailTask as error:
            _say(traces.formatted(error))
            outcome = _failed(error, traces.sentence(error), retry=False)
        except SystemExit as exit_:
            if exit_.code in (None, 0):
                outcome = {"state": "success"}
            else:
                _say(traces.formatted(exit_))
                outcome = _failed(exit_, f"the task called sys.exit({safely.spoken(exit_.code)})")
        except KeyboardInterrupt:
            if self.local:
                raise
            outcome = {
                "state": "failed",
                "error": {"type": "KeyboardInterrupt", "message": "interrupted", "retry": True},
            }
        except BaseException as error:
            _say(traces.formatted(error))
            outcome = _failed(error, traces.sentence(error))
        pushed = self.context["ti"].xcoms.pushed if self.context is not None else {}
        if outcome["state"] in ("success", "skipped"):
            outcome["xcoms"] = [[key, value] for key, value in pushed.items()]
        outcome["rendered"] = self.rendered
        if self.context is not None and self.context["ti"].told.told:
            outcome["progress"] = self.context["ti"].told.told
        return outcome

    def _perform(self) -> Outcome:
        task = self.dag.tasks.get(self.task_id)
        if task is None:
            raise NotFound("FLX-3013", f"Dag {self.dag.dag_id!r} has no task {self.task_id!r}.")
        context = self.context = make_context(self.dag, self.task_id, self.given)
        running.set(context)
        operator = self.operator = self._rendered(task, context)
        context["task"] = context["ti"].task = operator
        if isinstance(operator, BaseSensor) and waits_in_daemon(operator) and not self.local:
            request = operator.wait(context)
            sys.stdout.write(f"flux: {request}\n")
            return {"state": "waiting", "wait": dataclasses.asdict(request)}
        result = operator.execute(context)
        if inspect.isawaitable(result):
            result = _finish(result)
        if isinstance(result, ExecCommand):
            return self._command(result)
        self._push(operator, result)
        return {"state": "success"}

    def _rendered(self, task: BaseOperator, context: Context) -> BaseOperator:
        """The task with its fields rendered; one with nothing to render as it is, for this process ends with it."""
        renderer = renderer_of(self.dag)
        plain = None if self.local else renderer.plain(task)
        if plain is not None:
            self.rendered = plain
            return task
        operator = renderer.operator(task, context)
        self.rendered = {name: shown(getattr(operator, name)) for name in operator.template_fields}
        return operator

    def _command(self, command: ExecCommand) -> Outcome:
        if self.replace is not None:
            self.replace(command, self.rendered)
        code, last_line = command.run()
        if code in command.skip_on_exit_code:
            raise SkipTask(f"the command ended with exit code {code}")
        if code:
            ended = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
            return {
                "state": "failed",
                "error": {"type": "CommandFailed", "message": f"FLX-3014: The command {ended}.", "retry": True},
            }
        if last_line is not None and self.context is not None:
            self.context["ti"].xcoms.pushed[RETURN_VALUE] = last_line
        return {"state": "success"}

    def _push(self, operator: BaseOperator, result: Any) -> None:
        if result is None or self.context is None:
            return
        ti = self.context["ti"]
        if getattr(operator, "multiple_outputs", False):
            if not isinstance(result, dict):
                raise Invalid(
                    "FLX-3015",
                    f"Task {self.task_id!r} has multiple_outputs=True, but returned "
                    f"{type(result).__name__}: return a dict.",
                )
            for key, value in result.items():
                ti.xcom_push(key, value)
        ti.xcom_push(RETURN_VALUE, result)

    def _on_kill(self) -> None:
        if self.operator is None:
            return
        try:
            self.operator.on_kill()
        except BaseException as error:  # it was told to stop already: whatever this is, the task ends now
            _say(traces.formatted(error))


def _say(text: str) -> None:
    """Add to the log, which is what stderr is; the task may have put anything in the place of the streams."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    for stream in (sys.stderr, sys.__stderr__):
        with contextlib.suppress(Exception):
            stream.write(text)  # type: ignore[union-attr]
            stream.flush()  # type: ignore[union-attr]
            return


def _finish(awaitable: Any) -> Any:
    """The result of a coroutine, in an event loop of its own; in a thread of its own where one runs already."""
    import asyncio

    async def awaited() -> Any:
        return await awaitable

    if asyncio._get_running_loop() is None:
        return asyncio.run(awaited())
    # A notebook: its loop runs around us.
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_context().run, asyncio.run, awaited()).result()


def _failed(error: BaseException, message: str, retry: bool = True) -> Outcome:
    return _ended("failed", error, message, retry)


def _ended(state: str, error: BaseException, message: str, retry: bool) -> Outcome:
    return {"state": state, "error": {"type": safely.kind(error), "message": message, "retry": retry}}
