"""Writing a dag: what its arguments become, and the sentences about wrong ones."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from fluxd import DAG, Param, TaskGroup, task
from fluxd.authoring import registry
from fluxd.core.spec import dag_from_json
from fluxd.errors import Invalid
from fluxd.ops import BashOperator, EmptyOperator, PythonOperator
from fluxd.store.dags import spec_hash

UTC = dt.UTC


def empty(task_id: str, **arguments: object) -> EmptyOperator:
    return EmptyOperator(task_id=task_id, **arguments)


def test_arguments_arrive_in_the_spec() -> None:
    with DAG(
        "sales",
        schedule="0 6 * * *",
        start_date="2026-01-01",
        end_date=dt.date(2026, 12, 31),
        timezone="Europe/Paris",
        dst="both",
        catchup="2d",
        params={"region": "eu", "days": Param(3, type="integer", minimum=1)},
        tags={"b", "a"},
        max_active_runs=2,
        max_active_tasks=4,
        dagrun_timeout=dt.timedelta(hours=1),
        description="What was sold",
        doc_md="# Sales",
        owner="ann",
        is_paused_upon_creation=True,
        default_args={"retries": 2, "owner": "bob", "email": "team@example.com"},
    ) as dag:
        first = BashOperator(
            task_id="first", bash_command="echo {{ ds }}", retry_delay="1h30m", pool="db", pool_slots=2
        )
        second = empty("second", retries=0, trigger_rule="all_done", execution_timeout=90, depends_on_past=True)
        first >> second

    spec = dag_from_json(dag.to_spec())
    assert (spec.dag_id, spec.timezone, spec.dst, spec.catchup) == ("sales", "Europe/Paris", "both", 172800.0)
    assert spec.schedule.kind == "cron" and spec.schedule.expression == "0 6 * * *"
    assert spec.start_date == dt.datetime(2025, 12, 31, 23, tzinfo=UTC)
    assert spec.end_date == dt.datetime(2026, 12, 30, 23, tzinfo=UTC)
    assert spec.params == {"region": "eu", "days": 3}
    assert spec.tags == ("a", "b")
    assert (spec.max_active_runs, spec.max_active_tasks, spec.dagrun_timeout) == (2, 4, 3600.0)
    assert (spec.description, spec.doc_md, spec.owner) == ("What was sold", "# Sales", "ann")
    assert spec.is_paused_upon_creation is True and spec.warnings == ()
    one, two = spec.tasks
    assert (one.retries, one.retry_delay, one.owner, one.email) == (2, 5400.0, "bob", ("team@example.com",))
    assert (one.pool, one.pool_slots, one.fields["bash_command"]) == ("db", 2, "echo {{ ds }}")
    assert (two.retries, two.trigger_rule, two.execution_timeout) == (0, "all_done", 90.0)
    assert two.depends_on_past is True
    assert (two.kind, two.upstream) == ("empty", ("first",))


def test_the_same_dag_has_the_same_spec_each_time() -> None:
    def make() -> DAG:
        with DAG("same", tags={"x", "y", "z"}, params={"p": {"k": [1, 2]}}) as dag:
            PythonOperator(
                task_id="t", python_callable=print, op_kwargs={"s": {"c", "b", "a"}, "f": lambda: 0, "o": object()}
            )
            BashOperator(task_id="long", bash_command="x" * 5000)
        return dag

    first, second = make().to_spec(), make().to_spec()
    assert spec_hash(first) == spec_hash(second)
    assert "0x" not in str(first)
    assert len(first["tasks"][1]["fields"]["bash_command"]) == 2000


@pytest.mark.parametrize(
    ("schedule", "kind", "value"),
    [
        (None, "none", None),
        ("@once", "once", None),
        ("@hourly", "cron", "0 * * * *"),
        ("@daily", "cron", "0 0 * * *"),
        ("@weekly", "cron", "0 0 * * 0"),
        ("@monthly", "cron", "0 0 1 * *"),
        (" */5  * * * 1-5 ", "cron", "*/5 * * * 1-5"),
        (dt.timedelta(minutes=10), "interval", 600.0),
    ],
)
def test_schedules(schedule: object, kind: str, value: object) -> None:
    made = DAG("d", schedule=schedule).schedule  # type: ignore[arg-type]
    assert made.kind == kind
    assert (made.expression or made.seconds) == value


def test_schedule_interval_is_understood() -> None:
    assert DAG("d", schedule_interval="@daily").schedule.expression == "0 0 * * *"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"schedule": "61 * * * *"}, "FLX-1040: schedule of dag 'd'"),
        ({"schedule": "0 0 31 2 *"}, "FLX-1041: schedule of dag 'd'"),
        ({"schedule": "@dayly"}, "did you mean '@daily'?"),
        ({"schedule": "@continuous"}, "FLX-1004: schedule of dag 'd' cannot be '@continuous'"),
        ({"schedule": [1]}, "FLX-1004: schedule of dag 'd' must be cron text"),
        ({"schedule": dt.timedelta(0)}, "FLX-1045"),
        ({"shedule": "@daily"}, "FLX-1002: DAG 'd' takes no argument 'shedule': did you mean 'schedule'?"),
        ({"start_date": "tomorrow"}, "FLX-1006: start_date of dag 'd' 'tomorrow' is not a date"),
        ({"timezone": "Europe/Pariss"}, "FLX-1005: timezone of dag 'd' 'Europe/Pariss' is not a time zone"),
        ({"timezone": "../../etc/passwd"}, "FLX-1005"),
        ({"catchup": "sometimes"}, "FLX-1003: catchup of dag 'd' must be True, False"),
        (
            {"max_active_runs": 0},
            "FLX-1003: max_active_runs of dag 'd' must be a whole number from 1 to 2147483647, not 0.",
        ),
        ({"max_active_tasks": "4"}, "FLX-1003"),
        ({"dagrun_timeout": "soon"}, "FLX-1007: dagrun_timeout of dag 'd' must be more than zero"),
        ({"doc_md": "a\0b"}, "FLX-1003: doc_md of dag 'd' holds a NUL"),
        ({"description": "\ud800"}, "FLX-1003: description of dag 'd' holds a NUL or half a character"),
        ({"max_active_runs": 2**31}, "FLX-1003"),
        ({"dagrun_timeout": 1e300}, "FLX-1007"),
        ({"start_date": dt.datetime.min, "timezone": "Asia/Tokyo"}, "it must lie in the years 1900 to 2199"),
        (
            {"start_date": "2026-01-02", "end_date": "2026-01-01", "timezone": "Europe/Paris"},
            "FLX-1020: end_date of dag 'd' 2025-12-31T23:00:00Z is before its start_date 2026-01-01T23:00:00Z",
        ),
        ({"tags": [1]}, "FLX-1003: tags of dag 'd' must be a list of texts"),
        ({"params": {"p": object()}}, "FLX-3004: param 'p' holds a builtins.object"),
        ({"params": {"p": Param("x", type="integer")}}, "FLX-1015: param 'p' must be of type integer, not 'x'."),
        ({"default_args": [1]}, "FLX-1003: default_args of dag 'd' must be a dict"),
        ({"dst": "both "}, "did you mean 'both'?"),
        ({"is_paused_upon_creation": "no"}, "FLX-1003"),
    ],
)
def test_a_wrong_argument_of_a_dag_is_said_in_one_sentence(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(Invalid) as error:
        DAG("d", **arguments)  # type: ignore[arg-type]
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dag_id", ["", "a b", "../x", ".hidden", "-x", "ünïcode", "a/b", "x" * 201, "a\n", None, 7])
def test_ids_that_cannot_be_names_of_folders_are_refused(dag_id: object) -> None:
    with pytest.raises(Invalid, match="FLX-1001"):
        DAG(dag_id)  # type: ignore[arg-type]
    with DAG("d"), pytest.raises(Invalid, match=r"FLX-1001|FLX-1012"):
        empty(dag_id)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"retrys": 3}, "FLX-1002: EmptyOperator 't' takes no argument 'retrys': did you mean 'retries'?"),
        ({"retry_dealy": 3}, "did you mean 'retry_delay'?"),
        ({"retries": -1}, "FLX-1003: retries of task 't' must be a whole number from 0 to 2147483647, not -1."),
        ({"retries": 10**12}, "retries of task 't' must be a whole number from 0 to 2147483647, not 1000000000000."),
        ({"retries": True}, "FLX-1003"),
        ({"retries": "3"}, "not '3'."),
        ({"retry_delay": "5 minutes"}, "FLX-1007: retry_delay of task 't'"),
        ({"execution_timeout": 0}, "FLX-1007: execution_timeout of task 't' must be more than zero"),
        ({"trigger_rule": "all_sucess"}, "FLX-1003: trigger_rule of task 't' cannot be 'all_sucess'"),
        ({"pool": 5}, "FLX-1003: pool of task 't' must be text, not 5."),
        ({"pool_slots": 0}, "FLX-1003"),
        ({"executor": "celery"}, "FLX-3520"),
        ({"executor": 7}, "FLX-3520"),
        ({"depends_on_past": 1}, "FLX-1003"),
        ({"email": 5}, "FLX-1003: email of task 't'"),
    ],
)
def test_a_wrong_argument_of_a_task_is_said_in_one_sentence(arguments: dict[str, object], sentence: str) -> None:
    with DAG("d"), pytest.raises(Invalid) as error:
        empty("t", **arguments)
    assert sentence in str(error.value)


def test_missing_arguments_are_named() -> None:
    with DAG("d"):
        with pytest.raises(Invalid, match=r"FLX-1012: BashOperator 'b' needs the argument 'bash_command'\."):
            BashOperator(task_id="b")  # type: ignore[call-arg]
        with pytest.raises(Invalid, match="FLX-1012: EmptyOperator needs the argument 'task_id'"):
            EmptyOperator()


def test_a_default_that_no_operator_takes_is_refused() -> None:
    words = "FLX-1002: default_args of dag 'd' takes no argument 'retris': did you mean 'retries'"
    with pytest.raises(Invalid, match=words), DAG("d", default_args={"retris": 3}):
        empty("t")
    with pytest.raises(Invalid, match="FLX-1002: default_args of group 'g' takes no argument 'retris'"), DAG("d"):
        TaskGroup("g", default_args={"retris": 3})


def test_a_default_that_no_task_of_this_dag_takes_is_a_warning() -> None:
    defaults = {"skip_on_exit_code": 5, "env": {"A": "1"}, "retries": 1}
    with DAG("d", default_args=defaults) as dag:
        empty("t")
    assert dag.to_spec()["warnings"] == [
        f"default_args names {name!r}, which no task of this dag takes: it has no effect."
        for name in ("skip_on_exit_code", "env")
    ]
    with DAG("d", default_args={"bash_command": "true"}) as dag:
        BashOperator(task_id="t")  # type: ignore[call-arg]
    assert dag.to_spec()["warnings"] == []
    assert dag.to_spec()["tasks"][0]["fields"]["bash_command"] == "true"


def test_a_start_date_that_moves_is_a_warning() -> None:
    warnings = DAG("d", start_date=dt.datetime(2026, 1, 2, 3, 4, 5, 678)).to_spec()["warnings"]
    assert warnings == [
        "start_date has microseconds, as now() has: it moves each time the file is read; write a fixed date."
    ]


def test_dates_in_default_args_are_the_dags() -> None:
    with DAG("d", default_args={"start_date": dt.datetime(2026, 1, 1), "retries": 1}, schedule="@daily") as dag:
        empty("t")
    assert dag.to_spec()["start_date"] == "2026-01-01T00:00:00Z"
    assert dag.to_spec()["warnings"] == []


def test_the_zone_of_the_start_date_is_the_zone_of_the_dag() -> None:
    aware = dt.datetime(2026, 7, 1, tzinfo=ZoneInfo("Asia/Tokyo"))
    assert str(DAG("a", start_date=aware).timezone) == "Asia/Tokyo"
    assert str(DAG("b", start_date=aware, timezone="UTC").timezone) == "UTC"
    assert str(DAG("c", start_date=dt.datetime(2026, 7, 1, tzinfo=UTC)).timezone) == "UTC"
    offset = DAG("e", start_date=dt.datetime(2026, 7, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))))
    assert str(offset.timezone) == "UTC"
    assert offset.start_date == dt.datetime(2026, 6, 30, 22, tzinfo=UTC)


def test_two_tasks_of_one_id() -> None:
    with DAG("d"):
        empty("same")
        with pytest.raises(Invalid, match="FLX-1008: Task 'same' is twice in dag 'd'"):
            empty("same")
        with pytest.raises(Invalid, match="FLX-1008: Group 'same' is twice"):
            TaskGroup("same")


def test_two_dags_of_one_id_in_a_file_name_both_places() -> None:
    DAG("twice")
    DAG("twice")
    with pytest.raises(Invalid, match=r"FLX-1009: Dag 'twice' is defined twice, at test_dag.py:\d+ and at test_dag.py"):
        registry.collect()
    assert registry.collect() == []


def test_dags_are_collected_in_order_and_once() -> None:
    made = [DAG("b"), DAG("a")]
    assert registry.collect() == made
    assert registry.collect() == []


def test_a_cycle_is_named() -> None:
    with pytest.raises(Invalid) as error, DAG("d"):
        a, b, c, d = (empty(name) for name in "abcd")
        a >> b >> c >> d
        c >> b
    assert str(error.value) == "FLX-1010: Dag 'd' has a cycle: b → c → b."


def test_a_task_cannot_wait_for_itself() -> None:
    with DAG("d"):
        a = empty("a")
        with pytest.raises(Invalid, match="a → a"):
            a >> a


def test_a_cycle_made_after_the_with_block_is_found_when_collected() -> None:
    with DAG("d"):
        a, b = empty("a"), empty("b")
    a >> b >> a
    with pytest.raises(Invalid, match="FLX-1010"):
        registry.collect()


def test_a_cycle_through_groups_is_named_by_its_tasks() -> None:
    with pytest.raises(Invalid, match="FLX-1010"), DAG("d"):
        with TaskGroup("g") as group:
            empty("a") >> empty("b")
        outside = empty("outside")
        group >> outside >> group


def test_a_chain_of_5000_and_10000_tasks() -> None:
    with DAG("deep") as dag:
        before = empty("t0")
        for number in range(1, 5000):
            before = before >> empty(f"t{number}")
    spec = dag.to_spec()
    assert [task["task_id"] for task in spec["tasks"]] == [f"t{number}" for number in range(5000)]
    with DAG("wide") as dag, TaskGroup("g"):
        first = empty("first")
        for number in range(10_000):
            first >> empty(f"t{number}")
    assert len(dag.to_spec()["tasks"]) == 10_001
    with pytest.raises(Invalid, match=r"t0 → t1 → .* → … → t0"), DAG("ring"):
        tasks = [empty(f"t{number}") for number in range(5000)]
        for before, after in zip(tasks, [*tasks[1:], tasks[0]], strict=True):
            before >> after


def test_an_operator_with_old_style_constructor() -> None:
    """Operators written for others pass task_id on, fix arguments for their base, or call no constructor at all."""

    class Passing(BashOperator):
        def __init__(self, *, task_id: str, table: str, **kwargs: object) -> None:
            super().__init__(task_id=task_id, bash_command=f"load {table}", retries=7, **kwargs)  # type: ignore[arg-type]

    class Silent(EmptyOperator):
        def __init__(self, table: str) -> None:
            self.table = table

    class Own(EmptyOperator):
        """Its arguments have the names of things that a task has too."""

        template_fields = ("value",)

        def __init__(self, *, group: str, kind: str, policy: str, value: object) -> None:
            self.group, self.kind, self.policy, self.value = group, kind, policy, value  # type: ignore[misc]

    with DAG("d", default_args={"retries": 1}) as dag:
        Passing(task_id="p", table="t", pool="db")
        Silent(task_id="s", table="u", retries=2)
        with pytest.raises(Invalid, match="did you mean 'table'"):
            Silent(task_id="x", tabel="u")  # type: ignore[call-arg]
        Own(task_id="o", group="a", kind="b", policy="c", value=float("nan"))
    p, s, o = dag.to_spec()["tasks"]
    assert (o["kind"], o["group"], o["fields"]) == ("empty", None, {"value": "NaN"})
    assert (p["retries"], p["pool"], p["fields"]["bash_command"]) == (7, "db", "load t")
    assert (s["retries"], s["operator"]) == (2, "Silent")


def test_a_task_may_be_given_its_dag() -> None:
    dag = DAG("d")
    a = empty("a", dag=dag)
    with TaskGroup("g", dag=dag):
        empty("b")
    a >> dag.tasks["g.b"]
    assert dag.edges() == [("a", "g.b")]
    loose = empty("loose")
    with pytest.raises(Invalid, match="FLX-1011: Task 'loose' belongs to no dag"):
        a >> loose


def test_edges_stay_inside_one_dag() -> None:
    with DAG("one"):
        a = empty("a")
    with DAG("two"):
        b = empty("b")
    with pytest.raises(Invalid, match="FLX-1013: 'a' of dag 'one' cannot be wired to 'b' of dag 'two'"):
        a >> b


def test_only_tasks_can_be_wired() -> None:
    @task
    def function() -> None: ...

    with DAG("d"):
        a = empty("a")
        with pytest.raises(Invalid, match="FLX-1014: Only tasks and groups"):
            a >> "b"
        with pytest.raises(Invalid, match="call it to make its task"):
            a >> function
