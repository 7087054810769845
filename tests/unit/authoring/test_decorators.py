"""@task and @dag."""

import asyncio
from typing import Any

import pytest

from fluxd import DAG, FailTask, Param, SkipTask, TaskGroup, dag, get_current_context, task
from fluxd.authoring import registry
from fluxd.errors import Invalid, Refused
from fluxd.ops import BashOperator


def test_results_flow_from_task_to_task() -> None:
    @task
    def extract(ds: str) -> dict[str, Any]:
        return {"day": ds, "rows": [1, 2, 3]}

    @task
    async def add_up(rows: list[int], factor: int = 1) -> int:
        await asyncio.sleep(0)
        return sum(rows) * factor

    @task()
    def say(total: int, day: str) -> str:
        return f"{day}: {total}"

    with DAG("d") as made:
        got = extract()
        say(total=add_up(got["rows"], factor=10), day=got["day"])
    run = made.test("2026-03-01")
    assert run.state == "success"
    assert run["say"].result == "2026-03-01: 60"
    assert run["add_up"].rendered == {"op_args": "[[1, 2, 3]]", "op_kwargs": '{"factor": 10}', "templates_dict": None}


def test_multiple_outputs_are_xcoms_of_their_own() -> None:
    @task(multiple_outputs=True)
    def pair() -> dict[str, int]:
        return {"a": 1, "b": 2}

    @task(multiple_outputs=True)
    def single() -> int:
        return 1

    @task
    def add(x: int, y: int) -> int:
        return x + y

    with DAG("d") as made:
        got = pair()
        add(got["a"], got["b"])
        single()
    run = made.test()
    assert run["pair"].xcoms == {"a": 1, "b": 2, "return_value": {"a": 1, "b": 2}}
    assert run["add"].result == 3
    assert run["single"].reason == "FLX-3015: Task 'single' has multiple_outputs=True, but returned int: return a dict."


def test_task_arguments_names_and_override() -> None:
    @task(retries=2, pool="db")
    def work(n: int) -> int:
        return n

    with DAG("d", default_args={"owner": "ann"}) as made:
        work(1)
        work(2)
        work.override(task_id="third", retries=0)(3)
        with TaskGroup("g"):
            work(4)
            work(5)
        with pytest.raises(Invalid, match="FLX-1008"):
            work.override(task_id="third")(6)
        with pytest.raises(Invalid, match="did you mean 'retries'"):
            work.override(retrys=1)(7)
    tasks = {one["task_id"]: one for one in made.to_spec()["tasks"]}
    assert set(tasks) == {"work", "work__1", "third", "g.work", "g.work__1"}
    assert (tasks["work"]["retries"], tasks["third"]["retries"], tasks["third"]["pool"]) == (2, 0, "db")
    assert (tasks["work"]["operator"], tasks["work"]["owner"]) == ("@task", "ann")


def test_a_wrong_call_is_refused_where_it_is_written() -> None:
    @task
    def work(rows: int, ds: str, params: Any = None) -> None: ...

    with DAG("d"):
        with pytest.raises(Invalid, match=r"FLX-1012: @task function 'work' cannot be called like this: .*'rows'"):
            work()
        with pytest.raises(Invalid, match="unexpected keyword argument 'row'"):
            work(row=1)
        work(1)


def test_outside_of_a_dag_a_task_function_says_what_to_do() -> None:
    @task
    def work(n: int) -> int:
        """Works."""
        return n + 1

    with pytest.raises(Invalid, match=r"FLX-1017: @task function 'work' is called outside of a dag.*work\.function"):
        work(1)
    assert work.function(1) == 2
    assert (work.__name__, work.__doc__) == ("work", "Works.")


def test_inside_a_running_task_a_task_function_is_just_called() -> None:
    @task
    def double(n: int) -> int:
        return 2 * n

    @task
    def outer() -> int:
        return double(21)  # type: ignore[no-any-return]

    with DAG("d") as made:
        outer()
    assert made.test()["outer"].result == 42


def test_the_context_by_name_by_kwargs_and_by_call() -> None:
    @task
    def by_name(ti: Any, params: Any, run_id: str, data_interval_end: Any, extra: int = 5) -> list[Any]:
        return [ti.task_id, params["p"], run_id, data_interval_end, extra]

    @task
    def by_kwargs(p: int, **context: Any) -> list[Any]:
        return [p, context["ds"], context["task"].task_id]

    @task
    def by_context(context: Any) -> Any:
        return context["ds"]

    @task
    def by_call() -> Any:
        return get_current_context()["ti"].try_number

    with DAG("d", params={"p": 1}, schedule="@daily") as made:
        by_name()
        by_kwargs(7)
        by_context()
        by_call()
    run = made.test("2026-01-01", run_id="mine")
    assert run["by_name"].result == ["by_name", 1, "mine", "2026-01-02T00:00:00+00:00", 5]
    assert run["by_kwargs"].result == [7, "2026-01-01", "by_kwargs"]
    assert run["by_context"].result == "2026-01-01"
    assert run["by_call"].result == 1
    with pytest.raises(Refused, match="FLX-3012"):
        get_current_context()


def test_a_dag_function_is_a_dag_once_it_is_called() -> None:
    @dag(schedule="@daily", tags=["x"])
    def sales(region: str = "eu", days: Any = Param(3, type="integer")) -> None:  # noqa: B008
        """What was sold."""

        @task
        def work(region: str, days: int) -> list[Any]:
            return [region, days]

        work(region, days)
        BashOperator(task_id="bash", bash_command=f"echo {region}")

    made = sales(region="us")
    assert (made.dag_id, made.doc_md, made.tags) == ("sales", "What was sold.", ("x",))
    assert made.to_spec()["params"] == {"region": "us", "days": 3}
    run = made.test(conf={"days": 5})
    assert run["work"].result == ["us", 5]
    assert run["bash"].result == "us"
    assert registry.collect() == [made]


def test_bare_dag_decorator_and_a_name_of_its_own() -> None:
    @dag
    def plain() -> None: ...

    @dag("named", description="d")
    def function() -> None: ...

    assert [plain().dag_id, function().dag_id] == ["plain", "named"]


def test_a_dag_function_that_nobody_calls_is_told_of() -> None:
    @dag(schedule="@daily")
    def forgotten() -> None: ...

    with pytest.raises(Invalid, match=r"FLX-1016: The @dag function '.*forgotten' \(test_decorators.py:\d+\) is never"):
        registry.collect()


def test_skip_and_fail_from_code_and_the_trigger_rules_after_them() -> None:
    calls = []

    @task(retries=2)
    def flaky() -> int:
        calls.append("flaky")
        if len(calls) < 3:
            raise ValueError("not yet")
        return len(calls)

    @task(retries=5)
    def fails() -> None:
        calls.append("fails")
        raise FailTask("no use")

    @task
    def skips() -> None:
        raise SkipTask("nothing to do")

    @task
    def after(**_: Any) -> None: ...

    with DAG("d") as made:
        flaky() >> after.override(task_id="a")()
        fails() >> after.override(task_id="b")()
        skips() >> after.override(task_id="c")()
        [made.tasks["fails"], made.tasks["skips"]] >> after.override(task_id="all", trigger_rule="all_done")()
    run = made.test()
    states = {name: (one.state, one.tries) for name, one in run.tasks.items()}
    assert states == {
        "flaky": ("success", 3),
        "fails": ("failed", 1),
        "skips": ("skipped", 1),
        "a": ("success", 1),
        "b": ("upstream_failed", 0),
        "c": ("skipped", 0),
        "all": ("success", 1),
    }
    assert run.state == "failed"
    assert run["fails"].reason is not None and run["fails"].reason.startswith("FailTask: no use (test_decorators.py:")
    assert run["skips"].reason == "nothing to do"
