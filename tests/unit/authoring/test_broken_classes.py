"""Classes of authors whose words raise: the error that people see is the first one, and never ours."""

from pathlib import Path
from typing import Any

import pytest

from fluxd import DAG, FailTask, SkipTask, TaskGroup, task
from fluxd.authoring import execution, safely
from fluxd.authoring.testing import make_given
from fluxd.errors import Invalid
from fluxd.ops import BashOperator, PythonOperator
from fluxd.runner import loading
from fluxd.sensors import FileSensor


def boom(*_: Any) -> Any:
    raise RuntimeError("no words")


def leave(*_: Any) -> Any:
    raise SystemExit(3)


WORDS: list[Any] = [boom, leave, lambda self: 5, lambda self: "\ud800", lambda self: str(self)]


def broken(base: type, words: Any, **more: Any) -> Any:
    return type("Broken", (base,), {"__str__": words, "__repr__": words, **more})


def outcome(function: Any) -> dict[str, Any]:
    with DAG("d") as dag:
        PythonOperator(task_id="t", python_callable=function)
    return execution.run(dag, "t", make_given(dag))


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize(("base", "state"), [(Exception, "failed"), (SkipTask, "skipped"), (FailTask, "failed")])
def test_an_error_without_words_ends_its_task_as_any_other(
    words: Any, base: type, state: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise broken(base, words)

    ended = outcome(work)
    assert (ended["state"], ended["error"]["type"]) == (state, "Broken")
    if base is Exception:
        assert f"({Path(__file__).name}:" in ended["error"]["message"]
        assert "in work" in capfd.readouterr().err


@pytest.mark.parametrize(
    "attribute", ["__traceback__", "__notes__", "__cause__", "__context__", "__suppress_context__", "__class__"]
)
def test_an_error_whose_attributes_raise(attribute: str, capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise type("Broken", (Exception,), {attribute: property(boom)})("its words")

    ended = outcome(work)
    assert ended["error"]["type"] == "Broken" and ended["error"]["message"].startswith("its words")
    assert "its words" in capfd.readouterr().err


def test_the_code_of_an_exit_may_be_anything() -> None:
    def work() -> None:
        raise SystemExit(broken(object, boom)())

    assert outcome(work)["error"]["message"] == (
        "the task called sys.exit(<Broken, whose __repr__ raises RuntimeError>)"
    )


def test_a_task_may_leave_its_streams_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    def work() -> None:
        monkeypatch.setattr(sys, "stdout", None)
        monkeypatch.setattr(sys, "stderr", Path("/dev/null").open("w"))  # noqa: SIM115
        sys.stderr.close()
        raise ValueError("the cause")

    ended = outcome(work)
    monkeypatch.undo()
    assert ended["error"]["type"] == "ValueError"


def test_an_error_of_on_kill_does_not_hide_the_stop() -> None:
    from fluxd.authoring.outcomes import TaskTerminated

    class Work(PythonOperator):
        def on_kill(self) -> None:
            raise SystemExit(5)

    def work() -> None:
        raise TaskTerminated

    with DAG("d") as dag:
        Work(task_id="t", python_callable=work)
    assert execution.run(dag, "t", make_given(dag))["error"]["message"].startswith("FLX-3010")


@pytest.mark.parametrize("words", WORDS)
def test_values_without_words_are_refused_with_our_sentence(words: Any) -> None:
    value = broken(object, words)()
    with DAG("d") as dag:
        for make in (
            lambda: BashOperator(task_id="a", bash_command=value),
            lambda: BashOperator(task_id="b", bash_command="x", env={"A": value}),
            lambda: FileSensor(task_id="c", path=value),
            lambda: FileSensor(task_id="d", path="x", timeout=value),
            lambda: PythonOperator(task_id="e", python_callable=value),
            lambda: PythonOperator(task_id="f", python_callable=print, op_args=value),
            lambda: DAG("e", schedule=value),
            lambda: DAG("f", tags=value),
            lambda: DAG("g", start_date=value),
            lambda: DAG("h", timezone=value),
            lambda: DAG("i", catchup=value),
            lambda: DAG(value),
            lambda: task(value),
            lambda: BashOperator(task_id="g", bash_command="x", trigger_rule=value),
            lambda: BashOperator(task_id="h", bash_command="x", dag=value),
            lambda: TaskGroup("i", dag=value),
            lambda: value >> TaskGroup("j", dag=dag),
        ):
            with pytest.raises(Invalid):
                make()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("words", WORDS)
def test_a_value_without_words_is_no_reason_to_refuse_a_dag(words: Any) -> None:
    odd = [broken(object, words)(), broken(object, boom, __getattr__=boom)()]
    with DAG("d") as dag:
        PythonOperator(task_id="t", python_callable=len, op_args=[odd])
    assert "Broken" in dag.to_spec()["tasks"][0]["fields"]["op_args"] or words is WORDS[3]
    assert dag.test()["t"].result == 2


def test_an_import_that_raises_something_without_words_is_described() -> None:
    for words in WORDS:
        told = loading.describe(broken(Exception, words)(), "a.py", "/dags", 1, 1)
        assert told["code"] == "FLX-2003" and "Broken" in told["message"] + told["traceback"]


def test_words_are_bounded() -> None:
    assert safely.spoken("x" * 500, 20) == "'xxxxxxxxxxxxxxxxxx…"
    assert safely.spoken(10**10000) == "<int, whose __repr__ raises ValueError>"
