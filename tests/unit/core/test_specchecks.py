"""A spec from outside: what a dag file can make of it must not reach the scheduler."""

import math
from typing import Any

import pytest

from fluxd import DAG
from fluxd.core.specchecks import checked_dag
from fluxd.errors import Invalid
from fluxd.ops import BashOperator, EmptyOperator


def good() -> dict[str, Any]:
    with DAG("d", schedule="0 6 * * *", start_date="2026-01-01", params={"a": 1}, tags=["x"]) as dag:
        EmptyOperator(task_id="a") >> BashOperator(task_id="b", bash_command="true", retries=2)
    return dag.to_spec()


def test_what_authors_make_passes() -> None:
    assert checked_dag(good()).by_id["b"].retries == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_active_runs": "x"}, "max_active_runs 'x', which is not a whole number"),
        ({"max_active_runs": 0}, "max_active_runs 0, which is below 1"),
        ({"max_active_runs": True}, "max_active_runs True"),
        ({"max_active_tasks": 2**40}, "max_active_tasks"),
        ({"description": ["x"]}, "description ['x'], which is not text or None"),
        ({"dagrun_timeout": math.nan}, "dagrun_timeout nan, which is not a number or None"),
        ({"tags": [1]}, "tags (1,), which is not a list"),
        ({"start_date": "nonsense"}, "cannot be read"),
        ({"start_date": "0001-01-01T00:00:00Z"}, "FLX-1046"),
        ({"schedule": None}, "cannot be read"),
        ({"schedule": {"kind": "cron", "expression": None}}, "FLX-10"),
        ({"schedule": {"kind": "cron", "expression": "garbage"}}, "FLX-1040"),
        ({"schedule": {"kind": "interval", "seconds": "1"}}, "seconds '1', which is not a number or None"),
        ({"params": [1]}, "params"),
        ({"param_schemas": {"a": 1}}, "a schema of param 'a' that is 1"),
        ({"param_schemas": {"a": {"minimum": "x"}}}, "FLX-1018: Param 'a' of dag 'd' has minimum='x'"),
        ({"param_schemas": {"a": {"nonsense": 1}}}, "FLX-1018"),
        ({"param_schemas": {"a": {"type": [["a"]]}}}, "FLX-1018"),
        ({"param_schemas": {"a": {"pattern": "a{99999999999}"}}}, "FLX-1018"),
        ({"dag_id": "../../out"}, "has an id that cannot be one"),
        ({"dag_id": "a\0b"}, "has a NUL character in it"),
        ({"doc_md": "a\0b"}, "has a NUL character in it"),
        ({"tasks": None}, "cannot be read"),
        ({"surprise": 1}, "FLX-2090"),
    ],
)
def test_what_no_dag_can_have_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid) as refused:
        checked_dag(good() | change)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("number", "change", "words"),
    [
        (1, {"retries": "three"}, "Task 'b' of dag 'd' has retries 'three', which is not a whole number"),
        (1, {"pool_slots": 0}, "pool_slots 0"),
        (1, {"executor": "celery"}, "FLX-3520"),
        (1, {"executor": "daemon"}, "FLX-3520"),
        (1, {"upstream": ["nope"]}, "waits for 'nope', which is no task before it"),
        (0, {"upstream": ["b"]}, "waits for 'b', which is no task before it"),
        (0, {"upstream": ["a"]}, "waits for 'a', which is no task before it"),
        (0, {"task_id": "b"}, "which is no task before it|twice"),
        (1, {"task_id": "../b"}, "'../b', whose id cannot be one"),
        (1, {"trigger_rule": "sometimes"}, "trigger_rule 'sometimes', which is none"),
        (1, {"spawn": "true"}, "spawn 'true', which is not a dict or None"),
    ],
)
def test_what_no_task_can_have_is_named(number: int, change: dict[str, Any], words: str) -> None:
    spec = good()
    spec["tasks"][number] |= change
    with pytest.raises(Invalid) as refused:
        checked_dag(spec)
    assert any(each in str(refused.value) for each in words.split("|")), refused.value
