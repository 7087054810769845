"""XComs and params: what has a JSON form, and what has not."""

import datetime as dt
import enum
import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxd.authoring.checks import seconds
from fluxd.authoring.jsonvalue import to_json
from fluxd.authoring.params import Param, make_params, merge
from fluxd.errors import Invalid


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), "2026-01-02T03:00:00+00:00"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (dt.time(3, 4), "03:04:00"),
        (dt.timedelta(minutes=1), 60.0),
        (Decimal("1.10"), "1.10"),
        (Path("/a/b"), "/a/b"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Colour.RED, "red"),
        ((1, [2, {"a": None}]), [1, [2, {"a": None}]]),
        ("ünï 🐘", "ünï 🐘"),
        (2**64 - 1, 2**64 - 1),
    ],
)
def test_what_has_a_form(value: Any, form: Any) -> None:
    assert to_json(value, "x") == form


class Odd:
    pass


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(200):
        value = [value]
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "holds nan, which JSON does not have"),
        ([float("inf")], "holds inf"),
        ({"a": {1: 2}}, "the key 1: JSON keys are text"),
        (Odd(), "holds a tests.unit.authoring.test_values.Odd, which has no JSON form"),
        ({1, 2}, "holds a builtins.set"),
        (b"x", "holds a builtins.bytes"),
        (2**64, "more than 64 bits"),
        ("a\0b", "NUL character"),
        ("\ud800", "not valid Unicode"),
        (deep(), "nested more than 100 deep"),
        (endless(), "nested more than 100 deep"),
    ],
)
def test_what_has_none_is_said_in_one_sentence(value: Any, words: str) -> None:
    with pytest.raises(Invalid, match="FLX-3004: What task 't' returned") as error:
        to_json(value, "What task 't' returned")
    assert words in str(error.value)


def test_too_large() -> None:
    to_json("x" * (1024 * 1024 - 2), "It")
    with pytest.raises(Invalid, match="FLX-3005: It is 1,024 KB of JSON and at most 1,024 KB are kept"):
        to_json("x" * 1024 * 1024, "It")
    with pytest.raises(Invalid, match="at most 1 KB"):
        to_json("ü" * 600, "It", size_max_kb=1)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="ascii", min_codepoint=32)), inner),
    )
)
def test_json_stays_what_it_is(value: Any) -> None:
    assert to_json(value, "x") == value == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    ("text", "value"),
    [("90s", 90), ("1h30m", 5400), ("2d", 172800), ("1w", 604800), ("500ms", 0.5), ("1.5 h", 5400), ("2 h 5 m", 7500)],
)
def test_durations_as_text(text: str, value: float) -> None:
    assert seconds(text, "x") == value


@pytest.mark.parametrize("wrong", ["", "h", "5", "5 minutes", "-1h", -1, True, None, float("nan"), float("inf"), []])
def test_wrong_durations(wrong: Any) -> None:
    with pytest.raises(Invalid, match="FLX-1007: x must be"):
        seconds(wrong, "x")


@pytest.mark.parametrize(
    ("schema", "good", "bad", "words"),
    [
        ({"type": "integer"}, 5, 5.5, "of type integer"),
        ({"type": "integer"}, 5.0, True, "of type integer"),
        ({"type": "number"}, 5.5, "5", "of type number"),
        ({"type": "boolean"}, False, 0, "of type boolean"),
        ({"type": ["string", "null"]}, None, 5, "of type string or null"),
        ({"type": "array"}, [1], {}, "of type array"),
        ({"type": "object"}, {"a": 1}, [], "of type object"),
        ({"enum": ["a", "b"]}, "a", "c", "one of 'a', 'b'"),
        ({"minimum": 1, "maximum": 9}, 1, 0, "at least 1"),
        ({"minimum": 1, "maximum": 9}, 9, 10, "at most 9"),
        ({"minLength": 2}, "ab", "a", "at least 2 characters"),
        ({"maxLength": 2}, "ab", "abc", "at most 2 characters"),
        ({"pattern": "^a+$"}, "aa", "b", "match the pattern"),
        ({"pattern": "^a+$"}, "aa", "aa\n", "match the pattern"),
    ],
)
def test_params_are_checked(schema: dict[str, Any], good: Any, bad: Any, words: str) -> None:
    params = {"p": Param(**schema)}
    assert merge(params, {"p": good}) == {"p": good}
    with pytest.raises(Invalid, match="FLX-1015: param 'p' must") as error:
        merge(params, {"p": bad})
    assert words in str(error.value)


def test_a_param_without_default_must_be_given() -> None:
    params = make_params({"p": Param(type="string"), "q": 1}, "params")
    assert merge(params, {"p": "x", "more": 2}) == {"p": "x", "q": 1}
    with pytest.raises(Invalid, match="FLX-1015: param 'p' has no default"):
        merge(params, {})


def test_a_wrong_schema_is_refused() -> None:
    with pytest.raises(Invalid, match="did you mean 'minimum'"):
        Param(5, minimun=1)
    with pytest.raises(Invalid, match="did you mean 'integer'"):
        Param(5, type="integr")
    for schema in ({"minimum": "1"}, {"enum": "ab"}, {"pattern": "("}, {"maxLength": -1}, {"type": ["string", "text"]}):
        with pytest.raises(Invalid, match="FLX-1018: A Param has"):
            Param(**schema)
