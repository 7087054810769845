"""The sensors that come with Flux, one small file each. The daemon polls these, and only these, itself."""

from typing import Any

from fluxd.authoring.sensor import BaseSensor, PokeResult
from fluxd.errors import NotFound
from fluxd.sensors.file import FileSensor
from fluxd.sensors.time import TimeSensor

SHIPPED: dict[str, type[Any]] = {sensor.__name__: sensor for sensor in (FileSensor, TimeSensor)}


def get(name: str) -> type[Any]:
    """The sensor class of this name. Raises NotFound FLX-3042."""
    try:
        return SHIPPED[name]
    except KeyError:
        raise NotFound(
            "FLX-3042", f"No sensor {name!r} comes with Flux: it has {', '.join(sorted(SHIPPED))}."
        ) from None


__all__ = ["SHIPPED", "BaseSensor", "FileSensor", "PokeResult", "TimeSensor", "get"]
