"""What a child wrote as its outcome, read as untrusted data: user code runs in that child and may write anything.

Every field has its type and its range; what is not known is left out. An outcome that is not of the form is a failed
one that says so: nothing that comes out of here can break a turn or a save.
"""

import math
import re
from datetime import UTC, datetime
from typing import Any

from fluxd.core.progress import kept_progress

STATES = ("success", "failed", "skipped", "waiting")
TEXT_MAX = 10_000
NAME_MAX = 500
XCOMS_MAX = 10_000
RENDERED_MAX = 500
# Longer than anybody waits, and far from where dates end.
SECONDS_MAX = 100 * 366 * 86400.0
SENSOR = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,199}")
INT4_MAX = 2**31 - 1

Outcome = dict[str, Any]


class _Bad(Exception):
    """A field that cannot be taken; says which."""


def read_outcome(raw: Any) -> Outcome | None:
    """The outcome with known fields of known form; None where the child wrote none."""
    if raw is None:
        return None
    try:
        return _read(raw)
    except _Bad as bad:
        message = f"FLX-5048: The outcome that the task's process wrote cannot be taken: {bad}"
        return {"state": "failed", "error": {"type": "BadOutcome", "message": message, "retry": False}}


def _read(raw: Any) -> Outcome:
    if not isinstance(raw, dict):
        raise _Bad(f"it is {_kind(raw)}, not an object")
    state = raw.get("state")
    if not isinstance(state, str) or state not in STATES:
        raise _Bad(f"its state is {_kind(state)}, not one of {', '.join(STATES)}")
    outcome: Outcome = {"state": state}
    if raw.get("error") is not None:
        outcome["error"] = _error(raw["error"])
    if raw.get("xcoms") is not None:
        outcome["xcoms"] = _xcoms(raw["xcoms"])
    if raw.get("rendered") is not None:
        outcome["rendered"] = _rendered(raw["rendered"])
    if (progress := kept_progress(raw.get("progress"))) is not None:
        outcome["progress"] = progress
    if state == "waiting":
        outcome["wait"] = _wait(raw.get("wait"))
    return outcome


def _error(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise _Bad(f"its error is {_kind(raw)}, not an object")
    error: dict[str, Any] = {
        name: _text(raw[name], f"error.{name}") for name in ("type", "message") if raw.get(name) is not None
    }
    error["retry"] = raw.get("retry", True) is not False
    return error


def _xcoms(raw: Any) -> list[list[Any]]:
    if not isinstance(raw, list) or len(raw) > XCOMS_MAX:
        raise _Bad(f"its xcoms are {_kind(raw)}, not a list of at most {XCOMS_MAX} pairs")
    for pair in raw:
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str) or not pair[0]:
            raise _Bad("one of its xcoms is not a pair of a name and a value")
    return [[key[:NAME_MAX], value] for key, value in raw]


def _rendered(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict) or len(raw) > RENDERED_MAX:
        raise _Bad(f"its rendered fields are {_kind(raw)}, not an object of at most {RENDERED_MAX}")
    return {str(name)[:NAME_MAX]: value for name, value in raw.items()}


def _wait(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise _Bad(f"what it waits for is {_kind(raw)}, not an object")
    sensor, args = raw.get("sensor"), raw.get("args")
    if not isinstance(sensor, str) or not SENSOR.fullmatch(sensor):
        raise _Bad(f"the sensor that it waits for is {_kind(sensor)}, not a name")
    if not isinstance(args, dict):
        raise _Bad(f"the arguments of its sensor are {_kind(args)}, not an object")
    wait: dict[str, Any] = {"sensor": sensor, "args": args}
    for name, least in (("poke_interval", 0.0), ("timeout", 0.0)):
        if raw.get(name) is not None:
            wait[name] = _seconds(raw[name], f"wait.{name}", least)
    for name in ("soft_fail", "exponential_backoff"):
        if not isinstance(raw.get(name, False), bool):
            raise _Bad(f"wait.{name} is {_kind(raw[name])}, not true or false")
        wait[name] = raw.get(name, False)
    return wait


def _seconds(value: Any, name: str, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= SECONDS_MAX:
        raise _Bad(f"{name} is {_kind(value)}, not a number of seconds from {least:g} to {SECONDS_MAX:.0f}")
    return float(value)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _Bad(f"{name} is {_kind(value)}, not a text")
    return value[:TEXT_MAX]


def _kind(value: Any) -> str:
    """A value in some words, whatever it is."""
    if value is None:
        return "missing"
    if isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if -(10**18) < value < 10**18 else "a huge number"
    if isinstance(value, str):
        return repr(value[:60])
    return f"a {'list' if isinstance(value, list) else 'object'} of {len(value)}" if hasattr(value, "__len__") else "?"


# ---------------------------------------------------------------------------------------------- what the runner adds


def integer(value: Any) -> int | None:
    """A number that the database holds (int4), else None."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if -INT4_MAX - 1 <= value <= INT4_MAX else None


def moment(value: Any, now: datetime) -> datetime:
    """Seconds since 1970 as a time, in UTC; `now` where they are none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return now
    return datetime.fromtimestamp(value, UTC) if 0 <= value <= 32_503_680_000 else now  # the year 3000


def usage(value: Any) -> dict[str, Any] | None:
    """What the attempt used: a flat object of numbers and texts."""
    if not isinstance(value, dict):
        return None
    return {
        str(name)[:NAME_MAX]: part[:TEXT_MAX] if isinstance(part, str) else part
        for name, part in list(value.items())[:100]
        if isinstance(part, str | int | float)
    }
