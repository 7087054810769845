"""BashOperator, PythonOperator, EmptyOperator, run for real."""

import functools
from pathlib import Path
from typing import Any

import pytest

from fluxd import DAG
from fluxd.authoring.requests import LINE_MAX
from fluxd.authoring.testing import TestedTask
from fluxd.errors import Invalid
from fluxd.ops import BashOperator, EmptyOperator, PythonOperator


def run(operator: Any, **arguments: Any) -> TestedTask:
    with DAG("d", params={"p": 1}) as dag:
        operator(task_id="t", **arguments)
    return dag.test("2026-01-05", run_id="r")["t"]


def bash(command: str, **arguments: Any) -> TestedTask:
    return run(BashOperator, bash_command=command, **arguments)


def test_the_last_line_is_the_result(capfd: pytest.CaptureFixture[str]) -> None:
    done = bash("echo one; echo two >&2; echo three {{ ds }}; echo")
    assert (done.state, done.result) == ("success", "three 2026-01-05")
    assert capfd.readouterr().out == "one\ntwo\nthree 2026-01-05\n\n"


def test_no_output_no_result() -> None:
    assert bash("true").xcoms == {}


def test_a_last_line_that_is_too_long_is_no_result_and_the_log_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    assert bash(f"head -c {LINE_MAX} /dev/zero | tr '\\0' x; echo").result == "x" * LINE_MAX
    assert "FLX-3054" not in capfd.readouterr().out
    assert bash(f"head -c {LINE_MAX + 1} /dev/zero | tr '\\0' x").xcoms == {}
    assert "flux: FLX-3054: the last line of the output has more than 65,536 bytes" in capfd.readouterr().out
    assert bash("head -c 100000 /dev/zero | tr '\\0' x; echo; echo end").result == "end"


def test_output_that_is_not_utf8() -> None:
    assert bash(r"printf 'a\377\000b\n'").result == "a\ufffd\ufffdb"


@pytest.mark.parametrize(
    ("command", "arguments", "state", "reason"),
    [
        ("exit 3", {}, "failed", "FLX-3014: The command ended with exit code 3."),
        ("kill -9 $$", {}, "failed", "FLX-3014: The command was ended by signal 9."),
        ("exit 99", {}, "skipped", "the command ended with exit code 99"),
        ("exit 99", {"skip_on_exit_code": None}, "failed", "FLX-3014: The command ended with exit code 99."),
        ("exit 7", {"skip_on_exit_code": [5, 7]}, "skipped", "the command ended with exit code 7"),
    ],
)
def test_exit_codes(command: str, arguments: dict[str, Any], state: str, reason: str) -> None:
    done = bash(command, **arguments)
    assert (done.state, done.reason) == (state, reason)


def test_environment_and_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OUTSIDE", "o")
    assert bash("echo $OUTSIDE $A", env={"A": "{{ ds }}"}).result == "o 2026-01-05"
    assert bash("echo $OUTSIDE $A", env={"A": "a"}, append_env=False).result == "a"
    assert bash("pwd", cwd=str(tmp_path)).result == str(tmp_path)
    assert bash("pwd", cwd="..").result == str(Path(__file__).parent.parent)
    assert bash("true", cwd="nowhere").reason == (
        f"FLX-3023: The cwd {str(Path(__file__).parent / 'nowhere')!r} of task 't' is not a folder: make it first."
    )
    told = bash("echo $FLUX_DAG_ID $FLUX_TASK_ID $FLUX_RUN_ID $FLUX_TRY_NUMBER $FLUX_LOGICAL_DATE $FLUX_MAP_INDEX")
    assert told.result == "d t r 1 2026-01-05T00:00:00Z -1"


def test_values_are_quoted_for_the_shell() -> None:
    with DAG("d") as dag:
        BashOperator(task_id="t", bash_command="echo {{ conf.x | q }}")
    for payload in ("$(touch /tmp/no)", "a; exit 3", 'it\'s "so"', "`id`"):
        assert dag.test(conf={"x": payload})["t"].result == payload


def test_a_script_beside_the_dag_file_is_a_template(tmp_path: Path) -> None:
    (tmp_path / "load.sh").write_text("# a script\necho from the script {{ ds }}\n")
    with DAG("d", template_searchpath=str(tmp_path)) as dag:
        BashOperator(task_id="script", bash_command="load.sh")
        BashOperator(task_id="command", bash_command="/nowhere/load.sh")
    result = dag.test("2026-01-05")
    assert result["script"].result == "from the script 2026-01-05"
    assert result["command"].reason == "FLX-3014: The command ended with exit code 127."


@pytest.mark.parametrize(
    ("arguments", "spawned"),
    [
        ({"bash_command": "echo x"}, True),
        ({"bash_command": "echo x", "env": {"A": "a"}}, True),
        ({"bash_command": "echo {{ ds }}"}, False),
        ({"bash_command": "echo {# x #}"}, False),
        ({"bash_command": "load.sh"}, False),
        ({"bash_command": "./load.sh x"}, True),
        ({"bash_command": "echo x", "env": {"A": "{{ ds }}"}}, False),
        ({"bash_command": "echo x", "append_env": False}, False),
        ({"bash_command": "echo x", "cwd": "/"}, False),
        ({"bash_command": "echo x", "skip_on_exit_code": [1, 2]}, False),
    ],
)
def test_what_needs_nothing_of_python_is_spawned(arguments: dict[str, Any], spawned: bool) -> None:
    with DAG("d") as dag:
        BashOperator(task_id="t", **arguments)
    spawn = dag.to_spec()["tasks"][0]["spawn"]
    if spawned:
        command = ["/bin/bash", "-c", arguments["bash_command"]]
        assert spawn == {"argv": command, "env": arguments.get("env", {}), "skip_on_exit_code": 99}
    else:
        assert spawn is None


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"bash_command": 5}, "FLX-1003"),
        ({"bash_command": "x\0y"}, "FLX-1003"),
        ({"bash_command": "x", "env": "A=b"}, "FLX-1003"),
        ({"bash_command": "x", "env": {"A=B": "c"}}, "FLX-1003"),
        ({"bash_command": "x", "skip_on_exit_code": "1"}, "FLX-1003"),
        ({"comand": "x"}, "FLX-1002"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], code: str) -> None:
    with DAG("d"), pytest.raises(Invalid, match=code):
        BashOperator(task_id="t", **arguments)


def add(a: int, b: int = 0, **context: Any) -> list[Any]:
    return [a, b, context.get("ds")]


async def later(a: int) -> int:
    return a + 1


class Callable:
    def __call__(self, ds: str) -> str:
        return ds


def test_python_functions_of_all_kinds() -> None:
    assert run(PythonOperator, python_callable=add, op_args=[1], op_kwargs={"b": "{{ ds }}"}).result == [
        1,
        "2026-01-05",
        "2026-01-05",
    ]
    assert run(PythonOperator, python_callable=later, op_args=(1,)).result == 2
    assert run(PythonOperator, python_callable=functools.partial(add, 1, b=2)).result == [1, 2, "2026-01-05"]
    assert run(PythonOperator, python_callable=Callable()).result == "2026-01-05"
    assert run(PythonOperator, python_callable=len, op_args=["{{ ds }}"]).result == 10
    assert run(PythonOperator, python_callable=lambda: None).xcoms == {}


def test_templates_dict() -> None:
    def work(templates_dict: dict[str, str]) -> str:
        return templates_dict["query"]

    done = run(PythonOperator, python_callable=work, templates_dict={"query": "SELECT {{ params.p }}"})
    assert done.result == "SELECT 1"


def test_python_callable_must_be_one() -> None:
    with DAG("d"), pytest.raises(Invalid, match="FLX-1003: python_callable must be a function"):
        PythonOperator(task_id="t", python_callable="work")  # type: ignore[arg-type]


def test_empty_is_done_at_once() -> None:
    assert run(EmptyOperator).state == "success"
    with DAG("d") as dag:
        EmptyOperator(task_id="t")
    assert dag.to_spec()["tasks"][0]["kind"] == "empty"
