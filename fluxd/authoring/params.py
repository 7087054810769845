"""Params: the values a run may be given when it is triggered, their defaults, and what they may be."""

from collections.abc import Mapping
from typing import Any

from fluxd.authoring import checks
from fluxd.authoring.jsonvalue import to_json
from fluxd.core.params import TYPES, WORDS, check_schema, check_value, check_values


class Param:
    """A param with a default and a schema: `Param(5, type="integer", minimum=1, description="days to keep")`.

    Without a default (`Param(type="string")`) every run must be given a value.
    """

    __slots__ = ("default", "required", "schema")

    def __init__(self, default: Any = ..., *, description: str | None = None, **schema: Any) -> None:
        for word in schema:
            if word not in WORDS:
                raise checks.unknown_argument(word, ("default", *WORDS), "Param")
        names = schema.get("type", [])
        for name in [names] if isinstance(names, str) else []:
            checks.one_of(name, TYPES, "type of a Param")
        check_schema(schema, "A Param")
        self.required = default is ...
        self.default = None if self.required else default
        if description is not None:
            schema["description"] = description
        if self.required:
            schema["required"] = True
        # As plain data: the daemon checks what a run is given by the same words.
        self.schema: dict[str, Any] = {word: to_json(value, f"{word} of a Param") for word, value in schema.items()}


def make_params(given: Any, what: str) -> dict[str, Param]:
    """Params by name, from plain defaults and Params; each default is checked and put into its JSON form."""
    params: dict[str, Param] = {}
    for name, value in checks.mapping(given, what).items():
        param = value if isinstance(value, Param) else Param(value)
        if not param.required:
            param.default = to_json(param.default, f"param {name!r}")
            check_value(param.default, param.schema, f"param {name!r}")
        params[name] = param
    return params


def merge(params: Mapping[str, Param], given: Mapping[str, Any]) -> dict[str, Any]:
    """The params of a run: what it was given for them, else their defaults. Raises Invalid FLX-1015."""
    defaults = {name: param.default for name, param in params.items()}
    check_values({name: param.schema for name, param in params.items()}, defaults, given)
    return {name: given.get(name, default) for name, default in defaults.items()}
