"""Every argument with its edge values: refused where it is written, or taken; never an error that is not ours."""

import contextlib
import datetime as dt
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fluxd import DAG, TaskGroup, Variable, dag, task
from fluxd.authoring.dag import DAG_ARGUMENTS
from fluxd.authoring.operator import accepted
from fluxd.authoring.policy import TASK_ARGUMENTS
from fluxd.core.spec import dag_from_json
from fluxd.errors import FluxError, Invalid
from fluxd.ops import BashOperator, EmptyOperator, PythonOperator
from fluxd.sensors import FileSensor, TimeSensor

EDGES: list[Any] = [
    None, 0, 1, -1, 10**5000, -(10**400), 2**31, 0.0, 0.5, -0.5, math.nan, math.inf, True, False, "", "  ", "x", "\0",
    "\ud800",
    "1h", "0s", "-1s", "9" * 400 + "d", b"x", [], [1], [None], [""], {}, {1: 2}, {"a": None}, set(), {1, "a"}, object(),
    print,
    dt.timedelta(0), dt.timedelta(seconds=-1), dt.timedelta.max, dt.datetime.max, dt.date.min, dt.time(), Decimal(1),
    Path(), Path("x"), range(3), lambda: None, int, "{{ ds }}", "x" * 100_000,
]  # fmt: skip
NEEDS: dict[type, dict[str, Any]] = {
    BashOperator: {"bash_command": "true"},
    PythonOperator: {"python_callable": print},
    EmptyOperator: {},
    FileSensor: {"path": "/x"},
    TimeSensor: {"at": "06:00"},
}
OPERATORS = [
    (operator, name, needs)
    for operator, needs in NEEDS.items()
    for name in sorted(accepted(operator).names | TASK_ARGUMENTS)
]


@pytest.mark.parametrize(("operator", "name", "needs"), OPERATORS)
def test_arguments_of_tasks(operator: Any, name: str, needs: dict[str, Any]) -> None:
    other = {"filepath": "path", "target_time": "at"}.get(name)
    for value in EDGES:
        given = {"task_id": "t", **{key: item for key, item in needs.items() if key != other}, name: value}
        with DAG("d") as made:
            try:
                operator(**given)
            except Invalid:
                continue
        dag_from_json(made.to_spec())  # what is taken can be told to the daemon


@pytest.mark.parametrize("name", DAG_ARGUMENTS)
def test_arguments_of_dags(name: str) -> None:
    for value in EDGES:
        try:
            with DAG(**{"dag_id": "d", name: value}) as made:
                EmptyOperator(task_id="t")
            dag_from_json(made.to_spec())
        except FluxError:
            continue


@pytest.mark.parametrize("name", ["group_id", "prefix_group_id", "default_args", "dag", "parent_group"])
def test_arguments_of_groups(name: str) -> None:
    for value in EDGES:
        with contextlib.suppress(Invalid), DAG("d"):
            TaskGroup(**{"group_id": "g", name: value})


def refused(code: str, words: str, make: Any) -> None:
    with DAG("d"), pytest.raises(FluxError) as caught:
        make()
    assert caught.value.code == code and words in caught.value.message, caught.value


def test_what_has_two_names_is_given_once() -> None:
    two = "names of one argument"
    refused("FLX-1070", two, lambda: DAG("e", schedule="@daily", schedule_interval="@hourly"))
    refused("FLX-1070", two, lambda: DAG("e", schedule=None, schedule_interval="@hourly"))
    refused("FLX-1070", two, lambda: FileSensor(task_id="t", path="a", filepath="a"))
    refused("FLX-1070", two, lambda: TimeSensor(task_id="t", at="06:00", target_time="07:00"))
    refused("FLX-1070", two, lambda: Variable.get("k", default=1, default_var=1))
    refused("FLX-1070", "twice", lambda: dag("name", dag_id="other")(print))
    refused("FLX-1070", "Param 'x'", lambda: dag(params={"x": 1})(lambda x=2: None)())
    refused("FLX-1002", "op_args", lambda: task(op_args=[1])(print))
    with DAG("other") as other, TaskGroup("g") as group:
        pass
    refused("FLX-1071", "group of dag 'other'", lambda: EmptyOperator(task_id="t", dag=DAG("e"), task_group=group))
    refused("FLX-1071", "group of dag 'other'", lambda: TaskGroup("h", dag=DAG("e"), parent_group=group))
    EmptyOperator(task_id="t", dag=other, task_group=group)
    assert DAG("e", schedule_interval="@hourly").schedule == DAG("f", schedule="@hourly").schedule


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("FLX-1073", lambda: BashOperator(task_id="t", bash_command="")),
        ("FLX-1073", lambda: BashOperator(task_id="t", bash_command=" \n")),
        ("FLX-1073", lambda: BashOperator(task_id="t", bash_command="x", cwd="")),
        ("FLX-1073", lambda: FileSensor(task_id="t", path="")),
        ("FLX-1073", lambda: FileSensor(task_id="t", path="x", contains="")),
        ("FLX-1073", lambda: EmptyOperator(task_id="t", pool="")),
        ("FLX-1073", lambda: EmptyOperator(task_id="t", email=[""])),
        ("FLX-1073", lambda: DAG("e", tags=[" "])),
        ("FLX-1005", lambda: DAG("e", timezone="")),
        ("FLX-1006", lambda: TimeSensor(task_id="t", at="25:00")),
        ("FLX-1006", lambda: TimeSensor(task_id="t", at="")),
        ("FLX-1003", lambda: FileSensor(task_id="t", path=5)),
        ("FLX-1003", lambda: BashOperator(task_id="t", bash_command="x", cwd=5)),
        ("FLX-1003", lambda: BashOperator(task_id="t", bash_command="x", env={"A": None})),
        ("FLX-1003", lambda: BashOperator(task_id="t", bash_command="x", env={"A": ["a"]})),
        ("FLX-1003", lambda: BashOperator(task_id="t", bash_command="x", skip_on_exit_code=256)),
        ("FLX-1003", lambda: BashOperator(task_id="t", bash_command="x", skip_on_exit_code=99.0)),
        ("FLX-1003", lambda: PythonOperator(task_id="t", python_callable=print, op_args="abc")),
        ("FLX-1003", lambda: EmptyOperator(task_id="t", dag="d")),
        ("FLX-1003", lambda: EmptyOperator(task_id="t", task_group="g")),
    ],
)
def test_what_can_mean_nothing_is_refused(code: str, make: Any) -> None:
    refused(code, "", make)
