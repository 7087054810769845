"""Edges: operators, lists, chains, groups, results of tasks."""

import pytest

from fluxd import DAG, TaskGroup, chain, cross_downstream, task
from fluxd.errors import Invalid
from fluxd.ops import BashOperator, EmptyOperator


def empties(names: str) -> list[EmptyOperator]:
    return [EmptyOperator(task_id=name) for name in names.split()]


def edges(dag: DAG) -> set[str]:
    return {f"{before}>{after}" for before, after in dag.edges()}


def test_arrows_both_ways_and_lists() -> None:
    with DAG("d") as dag:
        a, b, c, d, e = empties("a b c d e")
        a >> [b, c] >> d
        e << [b, c]
        [d, e] >> EmptyOperator(task_id="f")
        EmptyOperator(task_id="g") << d
    assert edges(dag) == {"a>b", "a>c", "b>d", "c>d", "b>e", "c>e", "d>f", "e>f", "d>g"}


def test_set_upstream_and_downstream() -> None:
    with DAG("d") as dag:
        a, b, c = empties("a b c")
        a.set_downstream([b])
        c.set_upstream(b)
    assert edges(dag) == {"a>b", "b>c"}


def test_chain_and_cross_downstream() -> None:
    with DAG("d") as dag:
        a, b, c, d, e, f, g, h, i, j = empties("a b c d e f g h i j")
        chain(a, [b, c], [d, e], f)
        cross_downstream([g, h], [i, j])
        with pytest.raises(Invalid, match="they have 2 and 1 tasks"):
            chain([a, b], [c])
    assert edges(dag) == {"a>b", "a>c", "b>d", "c>e", "d>f", "e>f", "g>i", "g>j", "h>i", "h>j"}


def test_groups_prefix_and_stand_for_their_ends() -> None:
    with DAG("d") as dag:
        start, end = empties("start end")
        with TaskGroup("load") as load:
            a, b, c, _d = empties("a b c d")
            a >> [b, c]
        start >> load >> end
    assert set(dag.tasks) == {"start", "end", "load.a", "load.b", "load.c", "load.d"}
    assert edges(dag) == {
        *("load.a>load.b", "load.a>load.c"),
        *("start>load.a", "start>load.d"),
        *("load.b>end", "load.c>end", "load.d>end"),
    }
    assert {task["task_id"]: task["group"] for task in dag.to_spec()["tasks"]}["load.a"] == "load"


def test_edges_to_a_group_may_be_written_before_its_tasks() -> None:
    with DAG("d") as dag:
        start = EmptyOperator(task_id="start")
        with TaskGroup("g") as group:
            start >> group
            a, b = empties("a b")
            a >> b
    assert edges(dag) == {"start>g.a", "g.a>g.b"}


def test_groups_in_groups() -> None:
    with DAG("d") as dag:
        with TaskGroup("outer") as outer:
            with TaskGroup("one") as one:
                EmptyOperator(task_id="a")
            with TaskGroup("two") as two:
                EmptyOperator(task_id="b")
            one >> two
        outer >> EmptyOperator(task_id="end")
        EmptyOperator(task_id="start") >> outer
    assert edges(dag) == {"outer.one.a>outer.two.b", "outer.two.b>end", "start>outer.one.a"}


def test_an_empty_group_passes_on() -> None:
    with DAG("d") as dag:
        a, b = empties("a b")
        with TaskGroup("nothing") as nothing:
            pass
        a >> nothing >> b
    assert edges(dag) == {"a>b"}


def test_a_group_without_prefix_and_with_defaults() -> None:
    with DAG("d", default_args={"retries": 1, "pool": "x"}) as dag:
        inner = TaskGroup("g", prefix_group_id=False, default_args={"retries": 5})
    with inner:
        EmptyOperator(task_id="a")
        with TaskGroup("h"):
            EmptyOperator(task_id="b", default_args={"retries": 6})
    a, b = dag.to_spec()["tasks"]
    assert (a["task_id"], a["group"], a["retries"], a["pool"]) == ("a", "g", 5, "x")
    assert (b["task_id"], b["group"], b["retries"]) == ("h.b", "h", 6)


def test_unknown_argument_of_a_group() -> None:
    with DAG("d"), pytest.raises(Invalid, match="did you mean 'tooltip'"):
        TaskGroup("g", tooltips="x")


def test_a_result_in_an_argument_is_an_edge() -> None:
    @task
    def extract() -> list[int]:
        return [1]

    @task
    def load(rows: list[int], name: str) -> None: ...

    with DAG("d") as dag:
        bash = BashOperator(task_id="bash", bash_command="echo x")
        rows = extract()
        load([rows], name=bash.output)
        BashOperator(task_id="deep", bash_command="echo", env={"X": rows["a"][0]})
        rows >> EmptyOperator(task_id="after")
    assert edges(dag) == {"extract>load", "bash>load", "extract>deep", "extract>after"}


def test_results_are_not_known_in_the_dag_file() -> None:
    @task
    def extract() -> list[int]:
        return [1]

    with DAG("d"):
        rows = extract()
        with pytest.raises(Invalid, match=r"FLX-1019: .*cannot be looped over"):
            list(rows)
        with pytest.raises(Invalid, match=r"FLX-1019: .*tested for truth"):
            bool(rows)
        assert f"{rows['a'][0]}" == "{{ ti.xcom_pull('extract')['a'][0] }}"
