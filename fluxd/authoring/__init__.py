"""The author's side: what a dag file imports, and what runs in the processes of its tasks.

Light on purpose: writing a dag imports neither the daemon's libraries nor Jinja2, nor anything of this package that
only a running task needs. It knows no database and no daemon, but for the questions of `daemon.py`.
"""

import importlib
from collections.abc import Iterable
from typing import Any

# The rooms that a dag file has no need of: they are imported when somebody asks for them.
LATE = ("execution", "template", "testing")


def __getattr__(name: str) -> Any:
    if name in LATE:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def preload(dags: Iterable[Any] = ()) -> None:
    """Import now what the attempts of these dags will need, so that every fork has it at hand (`template.preload`)."""
    __getattr__("execution")
    __getattr__("template").preload(dags)
