"""Templates: every name and filter, and errors that say where."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxd import DAG, BaseOperator, Param
from fluxd.authoring.context import make_context
from fluxd.authoring.names import CONTEXT_NAMES
from fluxd.authoring.template import preload, renderer_of
from fluxd.authoring.testing import make_given, render
from fluxd.errors import Invalid, NotFound
from fluxd.ops import BashOperator

Render = Callable[..., Any]


class Show(BaseOperator):
    """Has one template field."""

    template_fields = ("text",)
    template_ext = (".sql",)

    def __init__(self, *, text: Any) -> None:
        self.text = text


def rendered(text: Any, when: Any = "2026-03-05T06:30:00", conf: Any = None, **dag_arguments: Any) -> Any:
    arguments = {"schedule": "30 6 * * *", "timezone": "Europe/Paris", "params": {"region": "eu"}, **dag_arguments}
    with DAG("sales", **arguments) as dag:
        Show(task_id="show", text=text)
    context = make_context(dag, "show", make_given(dag, when, conf, "mine"))
    return renderer_of(dag).operator(dag.tasks["show"], context).text  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ ds }} {{ ds_nodash }}", "2026-03-05 20260305"),
        ("{{ ts }}", "2026-03-05T06:30:00+01:00"),
        ("{{ ts_nodash }} {{ ts_nodash_with_tz }}", "20260305T063000 20260305T063000+0100"),
        ("{{ logical_date }} {{ execution_date == logical_date }}", "2026-03-05 06:30:00+01:00 True"),
        ("{{ logical_date.strftime('%d.%m.%Y') }}", "05.03.2026"),
        (
            "{{ data_interval_start | ts }} {{ data_interval_end | ts_nodash }}",
            "2026-03-05T06:30:00+01:00 20260306T063000",
        ),
        (
            "{{ prev_ds }} {{ prev_ds_nodash }} {{ prev_execution_date }}",
            "2026-03-04 20260304 2026-03-04 06:30:00+01:00",
        ),
        (
            "{{ next_ds }} {{ next_ds_nodash }} {{ next_execution_date }}",
            "2026-03-06 20260306 2026-03-06 06:30:00+01:00",
        ),
        ("{{ yesterday_ds }} {{ yesterday_ds_nodash }}", "2026-03-04 20260304"),
        ("{{ tomorrow_ds }} {{ tomorrow_ds_nodash }}", "2026-03-06 20260306"),
        ("{{ params.region }} {{ params['region'] }} {{ conf.get('x', 1) }}", "eu eu 1"),
        ("{{ dag.dag_id }} {{ task.task_id }} {{ run_id }} {{ dag_run.run_type }}", "sales show mine manual"),
        ("{{ ti.task_id }} {{ task_instance.try_number }} {{ ti.dag_run.run_id }}", "show 1 mine"),
        ("{{ task_instance_key_str }} {{ map_index }} {{ try_number }}", "sales__show__20260305 -1 1"),
        ("{{ dag_run.logical_date == logical_date }} {{ dag_run.external_trigger }}", "True True"),
        ("{{ test_mode }} {{ inlets }} {{ templates_dict }}", "True [] None"),
        ("{{ prev_data_interval_start_success }} {{ prev_data_interval_end_success }}", "None None"),
        ("{{ prev_start_date_success }} {{ prev_end_date_success }}", "None None"),
        ("{{ prev_execution_date_success }} {{ prev_logical_date_success }}", "None None"),
        ("{{ macros.ds_add(ds, 7) }} {{ macros.ds_add(ds, -5) }}", "2026-03-12 2026-02-28"),
        ("{{ macros.ds_format(ds, '%Y-%m-%d', '%m/%d/%y') }}", "03/05/26"),
        ("{{ logical_date + macros.timedelta(days=1) }}", "2026-03-06 06:30:00+01:00"),
        ("{{ macros.datetime(2026, 1, 1) | ds }} {{ macros.json.dumps([1]) }}", "2026-01-01 [1]"),
        ("{{ macros.datetime_diff_for_humans(logical_date, data_interval_end) }}", "1 day before"),
        ("{{ macros.uuid.UUID(int=5) | string | length }} {{ macros.random.Random(1).randint(5, 5) }}", "36 5"),
        ("{{ ti.xcom_pull('nobody') }} {{ ti.xcom_pull('nobody', key='k', default=3) }}", "None 3"),
        ("{{ 'a b' | q }} {{ \"it's\" | q }}", "'a b' 'it'\"'\"'s'"),
        ('{{ "O\'Hara" | sqlq }} {{ 5 | sqlq }} {{ none | sqlq }} {{ true | sqlq }}', "'O''Hara' 5 NULL TRUE"),
        ("{{ logical_date | ds }} {{ logical_date | ds_nodash }}", "2026-03-05 20260305"),
        ("{{ data_interval_end | ts_nodash_with_tz }}", "20260306T063000+0100"),
        ("{% for i in range(3) %}{{ i }}{% endfor %}{# gone #}", "012"),
        ("no template at all: { } %", "no template at all: { } %"),
        ("two lines\n{{ ds }}\n", "two lines\n2026-03-05\n"),
    ],
)
def test_names_and_filters(template: str, text: str) -> None:
    assert rendered(template) == text


def test_every_name_is_there() -> None:
    with DAG("d", schedule="@daily") as dag:
        Show(task_id="t", text="x")
    context = make_context(dag, "t", make_given(dag))
    assert set(context) | set(context.lazy) | {"context"} == CONTEXT_NAMES
    for name in CONTEXT_NAMES - {"context"}:
        context[name]


def test_without_a_schedule_the_neighbours_are_the_date_itself() -> None:
    assert rendered("{{ prev_ds }} {{ next_ds }}", schedule=None) == "2026-03-05 2026-03-05"


def test_over_a_change_of_clocks() -> None:
    text = "{{ prev_execution_date | ts }} {{ ts }} {{ next_execution_date | ts }}"
    found = rendered(text, when="2026-03-28T06:30:00")
    assert found == "2026-03-27T06:30:00+01:00 2026-03-28T06:30:00+01:00 2026-03-29T06:30:00+02:00"


def test_variables_and_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUX_VAR_BUCKET", "s3://b")
    monkeypatch.setenv("FLUX_VAR_LIMITS", '{"rows": 5}')
    monkeypatch.setenv("FLUX_CONN_WAREHOUSE", "postgres://ann:s%40crt@db.example:5433/sales?sslmode=require")
    assert rendered("{{ var.value.bucket }} {{ var.json.limits.rows }} {{ var.value.get('no', 'x') }}") == "s3://b 5 x"
    text = "{{ conn.warehouse.host }} {{ conn.warehouse.port }} {{ conn.warehouse.login }} {{ conn.warehouse.schema }}"
    assert rendered(text) == "db.example 5433 ann sales"
    assert rendered("{{ conn.warehouse.password }} {{ conn.warehouse.extra_dejson.sslmode }}") == "s@crt require"
    with pytest.raises(
        NotFound, match=r"FLX-3006: Template text .* line 1: There is no variable 'no': set FLUX_VAR_NO"
    ):
        rendered("{{ var.value.no }}")
    with pytest.raises(NotFound, match=r"FLX-3007: .*set FLUX_CONN_NO_DB to its URI"):
        rendered("{{ conn['no-db'].host }}")


def test_nested_values_are_rendered_and_others_left_alone() -> None:
    marker = object()
    value = {"a": ["{{ ds }}", ("{{ ds_nodash }}", 5)], "b": {"{{ ds }}"}, "c": marker, "{{ ds }}": None}
    assert rendered(value) == {
        "a": ["2026-03-05", ("20260305", 5)],
        "b": {"2026-03-05"},
        "c": marker,
        "{{ ds }}": None,
    }


def test_values_that_users_give_are_never_rendered_again() -> None:
    for payload in ("{{ 7 * 7 }}", "{% raw %}", "{{ dag }}"):
        assert (
            rendered("{{ params.region }}|{{ conf.x }}", conf={"region": payload, "x": payload})
            == f"{payload}|{payload}"
        )


def test_native_objects() -> None:
    assert rendered("{{ params.list }}", params={"list": [1, 2]}, render_template_as_native_obj=True) == [1, 2]
    assert rendered("{{ 5 }}{{ ds }}", render_template_as_native_obj=True) == "52026-03-05"


def test_macros_and_filters_of_the_dag() -> None:
    found = rendered(
        "{{ twice(2) }} {{ 'a' | shout }} {{ NAME }}",
        user_defined_macros={"twice": lambda n: 2 * n, "NAME": "x", "ds": "not mine"},
        user_defined_filters={"shout": lambda text: text.upper() + "!"},
    )
    assert found == "4 A! x"


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (
            "{{ dss }}",
            "FLX-3001: Template text of task 'show' of dag 'sales', line 1: 'dss' is undefined: did you mean 'ds'",
        ),
        ("a\nb\n{{ params.regoin }}", "line 3: 'dict object' has no attribute 'regoin'."),
        ("a\n{{ ds ", "line 2: unexpected end of template"),
        ("a\n\n{% if %}", "line 3: Expected an expression"),
        ("{{ ds | nothing }}", "line 1: No filter named 'nothing'"),
        ("{{ 1 / 0 }}", "line 1: division by zero."),
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe."),
        ("{{ params.update({'a': 1}) }}", "access to attribute 'update' of 'dict' object is unsafe."),
        ("{{ ds.nope.deeper }}", "has no attribute 'nope'"),
        ("{{ 'x' * 10 ** 9 }}", "FLX-3003: Template text of task 'show' of dag 'sales', line 1: it repeats something"),
        ("{{ 9 ** 9 ** 9 ** 9 ** 9 ** 9 }}", "it computes a power of more than 100,000 bits"),
        ("{% for i in range(90000) %}{{ 'x' * 100 }}{% endfor %}", "it renders to more than 4,194,304 characters"),
        ("{% for i in range(10 ** 8) %}{% endfor %}", "Range too big"),
        ({"a": ["ok", "{{ nope }}"]}, "Template text['a'][1] of task 'show'"),
    ],
)
def test_errors_name_dag_task_field_and_line(template: Any, sentence: str) -> None:
    with pytest.raises(Invalid) as error:
        rendered(template)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_template_files(tmp_path: Path) -> None:
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "load.sql").write_text("-- load\nSELECT '{{ ds }}'\n")
    (tmp_path / "bad.sql").write_text("-- one\n-- two\n{{ nope }}\n")
    (tmp_path / "sql" / "part.sql").write_text("{% include 'sql/load.sql' %}")
    folder = str(tmp_path)
    assert rendered("sql/load.sql", template_searchpath=folder) == "-- load\nSELECT '2026-03-05'\n"
    assert rendered("load.sql", template_searchpath=[folder, f"{folder}/sql"]) == "-- load\nSELECT '2026-03-05'\n"
    assert rendered("sql/part.sql", template_searchpath=folder) == "-- load\nSELECT '2026-03-05'\n"
    assert rendered("SELECT 1 FROM x.sql", template_searchpath=folder) == "SELECT 1 FROM x.sql"
    with pytest.raises(Invalid, match=r"file bad.sql, line 3: 'nope' is undefined"):
        rendered("bad.sql", template_searchpath=folder)
    with pytest.raises(Invalid, match=r"FLX-3002: .*there is no template file 'none.sql' in "):
        rendered("none.sql", template_searchpath=folder)


def test_an_operator_that_lacks_its_field_says_so() -> None:
    class Lacking(BaseOperator):
        template_fields = ("missing",)

    with DAG("d") as dag:
        Lacking(task_id="t")
    with pytest.raises(Invalid, match="FLX-3001: Lacking names 'missing' among its template_fields"):
        render(dag, "t")


def test_render_shows_the_fields() -> None:
    with DAG("d", params={"n": Param(1, type="integer")}) as dag:
        BashOperator(task_id="t", bash_command="echo {{ ds }} {{ params.n }}", env={"A": "{{ ds }}"})
    assert render(dag, "t", "2026-01-01", conf={"n": 2}) == {
        "bash_command": "echo 2026-01-01 2",
        "env": '{"A": "2026-01-01"}',
        "cwd": None,
    }
    with pytest.raises(Invalid, match="FLX-1015"):
        render(dag, "t", "2026-01-01", conf={"n": "x"})
    with pytest.raises(NotFound, match="FLX-3013: Dag 'd' has no task 'tt': did you mean 't'"):
        render(dag, "tt")


def test_wrong_templates_do_not_stop_the_preload() -> None:
    with DAG("d") as dag:
        BashOperator(task_id="t", bash_command="{{ wrong")
    preload([dag])
