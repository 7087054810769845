"""The sensors that come with Flux, one small file each. The daemon polls these, and only these, itself."""

from typing import Any

from fluxd.authoring.jsonvalue import to_json
from fluxd.authoring.sensor import SHIPPED, BaseSensor, PokeResult
from fluxd.errors import NotFound
from fluxd.sensors.file import FileSensor
from fluxd.sensors.time import TimeSensor

SHIPPED.update((sensor.__name__, sensor) for sensor in (FileSensor, TimeSensor))


def get(name: str) -> type[Any]:
    """The sensor class of this name. Raises NotFound FLX-3042."""
    try:
        return SHIPPED[name]
    except KeyError:
        raise NotFound(
            "FLX-3042", f"No sensor {name!r} comes with Flux: it has {', '.join(sorted(SHIPPED))}."
        ) from None


def handed_on(name: str, result: Any, size_max_kb: int) -> Any:
    """The value of what a look gave (a bool, or a PokeResult), in the form in which it is kept.

    Raises Invalid FLX-3004 when it has no JSON form, FLX-3005 when it is too large.
    """
    value = result.value if isinstance(result, PokeResult) and result else None
    return to_json(value, f"What the sensor {name} found", size_max_kb)


__all__ = ["SHIPPED", "BaseSensor", "FileSensor", "PokeResult", "TimeSensor", "get", "handed_on"]
