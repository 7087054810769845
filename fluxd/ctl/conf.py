"""The values of --conf and --result: JSON as it is written, or a sentence that says what is wrong with it."""

import json
import math
from collections.abc import Iterable
from typing import Any

from fluxd.errors import Invalid
from fluxd.json_limits import DEPTH_MAX, read_whole, too_big, too_deep

CODE = "FLX-8010"
EXAMPLE = 'write it like --conf \'{"key": "value"}\'.'


def read_conf(text: str | None) -> dict[str, Any] | None:
    """The value of --conf. Raises Invalid FLX-8010."""
    if text is None:
        return None
    deep = Invalid(CODE, f"--conf is nested too deep: {DEPTH_MAX} levels are allowed.")
    try:
        conf = json.loads(
            text, parse_int=read_whole, parse_float=_number, parse_constant=_number, object_pairs_hook=_object
        )
    except ValueError as error:
        raise Invalid(CODE, f"--conf is not JSON ({error}); {EXAMPLE}") from None
    except RecursionError:
        raise deep from None
    if too_deep(conf):
        raise deep
    if not isinstance(conf, dict):
        raise Invalid(CODE, f'--conf must be a JSON object like \'{{"key": "value"}}\', not {text[:60]!r}.')
    if wrong := too_big(conf):
        raise Invalid(CODE, f"--conf cannot be kept: {wrong}.")
    try:
        json.dumps(conf, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Invalid(CODE, "--conf has half of a character in it (\\ud800 to \\udfff alone); leave it out.") from None
    return conf


def read_results(pairs: Iterable[str]) -> dict[str, Any]:
    """The values of --result, by task id. Raises Invalid FLX-8019."""
    found = {}
    for pair in pairs:
        task_id, is_there, value = pair.partition("=")
        try:
            found[task_id] = json.loads(value)
        except (ValueError, RecursionError) as error:
            words = f"is not JSON ({error})" if is_there else "has no ="
            hint = "write it like --result 'extract={\"rows\": 3}'"
            raise Invalid("FLX-8019", f"--result {pair[:60]!r} {words}; {hint}.") from None
    return found


def _number(text: str) -> float:
    """A number with a point. Python reads NaN and Infinity, which JSON does not know, and makes Infinity of 1e999."""
    number = float(text)
    if not math.isfinite(number):
        raise Invalid(CODE, f"--conf has {text[:40]} in it, which no number of JSON can hold; give it as text.")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of which nothing is silently dropped."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise Invalid(CODE, f"--conf has the key {name[:60]!r} twice; give it once.")
        found[name] = value
    return found
