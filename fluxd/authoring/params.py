"""Params: the values a run may be given when it is triggered, their defaults, and what they may be.

The schema is the JSON Schema words that a form can show: type, enum, minimum, maximum, minLength, maxLength, pattern.
"""

import re
from collections.abc import Mapping
from typing import Any

from fluxd.authoring import checks
from fluxd.authoring.jsonvalue import to_json
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
SCHEMA_WORDS = (
    "type",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "title",
    "description",
    "format",
)


class Param:
    """A param with a default and a schema: `Param(5, type="integer", minimum=1, description="days to keep")`.

    Without a default (`Param(type="string")`) every run must be given a value.
    """

    __slots__ = ("default", "description", "required", "schema")

    def __init__(self, default: Any = ..., *, description: str | None = None, **schema: Any) -> None:
        for word in schema:
            if word not in SCHEMA_WORDS:
                raise checks.unknown_argument(word, ("default", *SCHEMA_WORDS), "Param")
        types = schema.get("type", [])
        for name in [types] if isinstance(types, str) else types:
            checks.one_of(name, TYPES, "type of a Param")
        self.required = default is ...
        self.default = None if self.required else default
        self.description = description
        self.schema = schema

    def check(self, value: Any, what: str) -> None:
        """Raises Invalid FLX-1015 when `value` is not what the schema allows."""
        wrong = _wrong(value, self.schema)
        if wrong:
            raise Invalid("FLX-1015", f"{what} {wrong}, not {value!r:.100}.")


def _wrong(value: Any, schema: Mapping[str, Any]) -> str | None:
    """What the schema asks for and `value` is not, as the rest of a sentence; None when all is well."""
    if "type" in schema:
        names = [schema["type"]] if isinstance(schema["type"], str) else list(schema["type"])
        if not any(_is(value, name) for name in names):
            return f"must be of type {' or '.join(names)}"
    if "enum" in schema and value not in schema["enum"]:
        return "must be one of " + ", ".join(repr(choice) for choice in schema["enum"])
    if isinstance(value, int | float) and not isinstance(value, bool):
        if "minimum" in schema and value < schema["minimum"]:
            return f"must be at least {schema['minimum']}"
        if "maximum" in schema and value > schema["maximum"]:
            return f"must be at most {schema['maximum']}"
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            return f"must have at least {schema['minLength']} characters"
        if "maxLength" in schema and len(value) > schema["maxLength"]:
            return f"must have at most {schema['maxLength']} characters"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            return f"must match the pattern {schema['pattern']!r}"
    return None


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool) and name != "boolean":
        return False
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES[name])


def make_params(given: Any, what: str) -> dict[str, Param]:
    """Params by name, from plain defaults and Params; each default is checked and put into its JSON form."""
    params: dict[str, Param] = {}
    for name, value in checks.mapping(given, what).items():
        param = value if isinstance(value, Param) else Param(value)
        if not param.required:
            param.default = to_json(param.default, f"param {name!r}")
            param.check(param.default, f"param {name!r}")
        params[name] = param
    return params


def merge(params: Mapping[str, Param], given: Mapping[str, Any]) -> dict[str, Any]:
    """The params of a run: what it was given for them, else their defaults. Raises Invalid FLX-1015."""
    values = {name: given.get(name, param.default) for name, param in params.items()}
    for name, param in params.items():
        # The daemon gives None for a default that there is none of.
        if param.required and values[name] is None and "null" not in param.schema.get("type", ()):
            raise Invalid("FLX-1015", f"param {name!r} has no default: the run must be given a value for it.")
        param.check(values[name], f"param {name!r}")
    return values
