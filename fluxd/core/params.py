"""What a param's value may be: asked when a run is triggered, and again in its tasks.

The schema is the JSON Schema words that a form can show: type, enum, minimum, maximum, minLength, maxLength, pattern,
and title, description and format, which are for people. `required` (our own word) says that there is no default.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fluxd.errors import Invalid

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list, tuple),
    "object": (dict,),
    "null": (type(None),),
}


def _is_regex(value: Any) -> bool:
    try:
        re.compile(value)
    except (TypeError, ValueError, OverflowError, RecursionError, re.error):
        return False
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_types(value: Any) -> bool:
    names = [value] if isinstance(value, str) else value
    return (
        isinstance(names, list | tuple)
        and bool(names)
        and all(isinstance(name, str) and name in TYPES for name in names)
    )


WORDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "type": (_are_types, "one of " + ", ".join(TYPES) + ", or a list of them"),
    "enum": (lambda value: isinstance(value, list | tuple) and bool(value), "a list of values"),
    "minimum": (_is_number, "a number"),
    "maximum": (_is_number, "a number"),
    "minLength": (_is_length, "a number of characters"),
    "maxLength": (_is_length, "a number of characters"),
    "pattern": (_is_regex, "a regular expression"),
    "title": (_is_text, "text"),
    "description": (_is_text, "text"),
    "format": (_is_text, "text"),
}
ALL_WORDS = WORDS | {"required": (lambda value: isinstance(value, bool), "True or False")}


def check_schema(schema: Mapping[str, Any], what: str) -> None:
    """Refuse a schema whose words have values that they cannot have: Invalid FLX-1018."""
    for word, value in schema.items():
        if word not in ALL_WORDS:
            raise Invalid("FLX-1018", f"{what} has {word!r}, which is no word of its schema.")
        fits, words = ALL_WORDS[word]
        if not fits(value):
            raise Invalid("FLX-1018", f"{what} has {word}={value!r:.60}: it must be {words}.")


def check_value(value: Any, schema: Mapping[str, Any], what: str) -> None:
    """Raises Invalid FLX-1015 when `value` is not what the schema allows. `what` names it."""
    wrong = _wrong(value, schema)
    if wrong:
        raise Invalid("FLX-1015", f"{what} {wrong}, not {value!r:.100}.")


def check_values(
    schemas: Mapping[str, Mapping[str, Any]],
    defaults: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    patterns: bool = True,
) -> None:
    """Raises Invalid FLX-1015 for the first param that a run was given a wrong value for, or none and must have one.

    `patterns=False` leaves regular expressions out: one can be written so that it takes for ever.
    """
    for name, schema in schemas.items():
        value = given.get(name, defaults.get(name))
        if schema.get("required") and value is None and "null" not in schema.get("type", ()):
            raise Invalid("FLX-1015", f"param {name!r} has no default: the run must be given a value for it.")
        if not patterns:
            schema = {word: words for word, words in schema.items() if word != "pattern"}
        check_value(value, schema, f"param {name!r}")


def check_names(known: Iterable[str], given: Iterable[str]) -> None:
    """Raises Invalid FLX-4263 for the first given name that is no param of a dag that has some.

    A dag without params may be given anything: its tasks look into the conf themselves.
    """
    names = sorted(known)
    for name in given if names else ():
        if name not in names:
            close = difflib.get_close_matches(name, names, 1, 0.6)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names[:12])}."
            raise Invalid("FLX-4263", f"The dag has no param {name[:80]!r}; {hint}")


def _wrong(value: Any, schema: Mapping[str, Any]) -> str | None:
    """What the schema asks for and `value` is not, as the rest of a sentence; None when all is well."""
    if "type" in schema:
        names = [schema["type"]] if isinstance(schema["type"], str) else list(schema["type"])
        if not any(_is(value, name) for name in names):
            return f"must be of type {' or '.join(names)}"
    if "enum" in schema and value not in schema["enum"]:
        return "must be one of " + ", ".join(repr(choice) for choice in schema["enum"])
    if _is_number(value):
        if "minimum" in schema and value < schema["minimum"]:
            return f"must be at least {schema['minimum']}"
        if "maximum" in schema and value > schema["maximum"]:
            return f"must be at most {schema['maximum']}"
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            return f"must have at least {schema['minLength']} characters"
        if "maxLength" in schema and len(value) > schema["maxLength"]:
            return f"must have at most {schema['maxLength']} characters"
        if "pattern" in schema and not _has(schema["pattern"], value):
            return f"must match the pattern {schema['pattern']!r}"
    return None


def _has(pattern: str, value: str) -> bool:
    # As JSON Schema has it, `$` is the very end, and not before a last end of line too.
    return re.search(re.sub(r"(?<!\\)((?:\\\\)*)\$$", r"\1\\Z", pattern), value) is not None


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool) and name != "boolean":
        return False
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES[name])
