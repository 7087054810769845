"""Values from outside in a command for a shell: each hostile character by each way of use."""

from typing import Any

import pytest

from fluxd import DAG, dag
from fluxd.authoring.outside import READ_BY_SHELLS
from fluxd.authoring.testing import render
from fluxd.errors import Invalid
from fluxd.ops import BashOperator

HOSTILE = [*sorted(READ_BY_SHELLS), " ", "\n", "\t", "\r", "\x01", "\u3000"]
# Ways that put the text of params.x (or of what holds it) into the command.
WAYS = [
    "{{ params.x }}", "{{ params['x'] }}", "{{ conf.x }}", "{{ dag_run.conf.x }}", "{{ ti.dag_run.conf['x'] }}",
    "{{ task_instance.run.conf.x }}", "{{ params.x ~ '.csv' }}", "{{ 'a' ~ params.x }}", "{{ 'a' + params.x }}",
    "{{ params.x + 'a' }}", "{{ '%s.csv' % params.x }}", "{{ 'a%sb' | format(params.x) }}", "{{ params.x * 2 }}",
    "{{ 'a{}b'.format(params.x) }}", "{{ params.x.upper() }}", "{{ params.x | lower }}", "{{ params.x[0:] }}",
    "{{ params.x | replace('nothing', '') }}", "{{ 'here' | replace('here', params.x) }}", "{{ params.x | string }}",
    "{{ [params.x, 'b'] | join('-') }}", "{{ ['a', 'b'] | join(params.x) }}", "{{ params.list | join(',') }}",
    "{{ params.list }}", "{{ params.list[0] }}", "{{ params.list | first }}", "{{ params.deep.a[0].b }}",
    "{{ params }}",
    "{% for one in params.list %}{{ one }}{% endfor %}", "{% for c in params.x %}{{ c }}{% endfor %}",
    "{% for k, v in params.deep.items() %}{{ v }}{% endfor %}", "{% for c in params.x | list %}{{ c }}{% endfor %}",
    "{% set y = params.x %}{{ y }}", "{% with y = params.x %}{{ y }}{% endwith %}", "{{ params.x | default('d') }}",
    "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(params.x) }}", "{{ params.list | map('upper') | join }}",
    "{{ params.x if true else 'b' }}", "{{ params.x | tojson }}", "{{ params.list | map('lower') | list }}",
    "{{ params.x.partition('nothing')[0] }}", "{{ ''.join(params.list) }}", "{{ mine(params.x) }}",
    "{{ params.x | other }}", "{{ params.get('x') }}", "{{ (params.x, 1) }}", "{{ {'a': params.x} }}",
    "{% set ns = namespace() %}{% set ns.y = params.x %}{{ ns.y }}", "\"{{ params.x }}\"", "'{{ params.x }}'",
    "{{ params.x | q ~ params.x }}", "{{ params.list | batch(1) | first }}", "{{ params.list | unique | join }}",
]  # fmt: skip
# Ways that say how it is meant, or put nothing of it out.
GOOD = [
    "{{ params.x | q }}", "{{ params.x | raw }}", "{{ conf.x | q }}", "{{ ('--x=' ~ params.x) | q }}",
    "{% if params.x %}yes{% endif %}", "{{ 'a b' if params.x else 'c' }}", "{{ params.x | length }}",
    "{% for one in params.list %}{{ one | q }} {% endfor %}", "{{ params.list | map('q') | join(' ') }}",
    "{% macro m(x) %}{{ x | q }}{% endmacro %}{{ m(params.x) }}", "{{ params | tojson | q }}", "{{ params.n + 1 }}",
    "{{ ds }} {{ params.safe }} {{ params.n }} {{ run_id }}", "{{ params.x == 'y z' }}", "{{ params.deep.a[0].b | q }}",
    "{{ 'a; b' }}", "{{ ti.xcom_pull('no') or 'a b' }}", "{{ params.x | mine | raw }}", "{{ params.x | upper | q }}",
]  # fmt: skip


def command(text: Any, value: str, **more: Any) -> str:
    """The command that bash would get."""
    values = {"x": value, "list": [value, "b"], "deep": {"a": [{"b": value}]}, "n": 1, "safe": "2026-01-05/a_b.csv,c"}
    own = {"user_defined_macros": {"mine": lambda x: x}, "user_defined_filters": {"mine": str, "other": lambda x: x[:]}}
    with DAG("sales", params=values, **own) as made:
        BashOperator(task_id="load", bash_command=text, **more)
    return str(render(made, "load", "2026-01-05", conf=values)["bash_command"])


@pytest.mark.parametrize("way", WAYS)
def test_what_a_shell_reads_is_refused(way: str) -> None:
    for character in HOSTILE:
        with pytest.raises(Invalid) as caught:
            command(way, f"a{character}b")
        assert caught.value.code == "FLX-3050", (way, character)
    command(way, "ab")


@pytest.mark.parametrize("way", GOOD)
def test_what_is_said_how_it_is_meant_is_taken(way: str) -> None:
    for character in HOSTILE:
        command(way, f"a{character}b")


def test_the_sentence_names_the_value_the_character_and_the_way_out() -> None:
    with pytest.raises(Invalid) as caught:
        command("first\necho {{ params.deep.a[0].b }}", "x; rm -rf /")
    assert str(caught.value) == (
        "FLX-3050: Template bash_command of task 'load' of dag 'sales', line 2: params.deep.a[0].b has ';' in it, "
        "which a shell reads: write `| q` behind it to hand it over as one word, or `| raw` if a shell is to read it."
    )


def test_quoted_values_arrive_as_one_word_and_raw_ones_as_they_are() -> None:
    for character in HOSTILE:
        with DAG("d") as made:
            BashOperator(task_id="t", bash_command="printf '<%s>' {{ conf.x | q }}")
        assert made.test(conf={"x": f"a{character}b"})["t"].result.splitlines()[-1:] == [
            f"<a{character}b>".splitlines()[-1]
        ]
    assert command("echo {{ params.x | raw }}", "a; echo b") == "echo a; echo b"


def test_other_fields_take_any_value() -> None:
    with DAG("d", params={"x": "a; b"}) as made:
        BashOperator(task_id="t", bash_command='echo "$X"', env={"X": "{{ params.x }}"})
    assert made.test()["t"].result == "a; b"


def test_a_param_that_is_the_whole_command_is_refused_too() -> None:
    @dag()
    def whole(x: str = "echo a; echo b") -> None:
        BashOperator(task_id="t", bash_command=x)

    with pytest.raises(
        Invalid, match=r"FLX-3050: Template bash_command of task 't' of dag 'whole': params\.x has a space"
    ):
        render(whole(), "t")


def test_native_dags_and_included_files_are_no_way_round(tmp_path: Any) -> None:
    (tmp_path / "part.txt").write_text("{{ params.x }} {{ y }}")
    text = "{% set y = params.x | q %}{% include 'part.txt' %}"
    for native in (False, True):
        with DAG(
            "d", params={"x": "a; b"}, template_searchpath=str(tmp_path), render_template_as_native_obj=native
        ) as d:
            BashOperator(task_id="t", bash_command=text)
        with pytest.raises(Invalid, match="FLX-3050"):
            render(d, "t")
