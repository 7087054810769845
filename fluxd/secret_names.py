"""Which variables of an environment hold secrets: connections and variables, FLUX_CONN_<ID> and FLUX_VAR_<KEY>.

What a process is *started* with, everybody of the same user may read in /proc for as long as it runs. So these come to
the runner and to attempts over descriptors, and a command that has to be started with them gets those that it names.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping

PREFIXES = ("FLUX_CONN_", "FLUX_VAR_")
_NAME = re.compile(r"FLUX_(?:CONN|VAR)_\w+")


def secrets_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The connections and variables among these."""
    return {name: value for name, value in environment.items() if name.startswith(PREFIXES)}


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """All but these."""
    return {name: value for name, value in environment.items() if not name.startswith(PREFIXES)}


def named_in(secrets: Mapping[str, str], texts: Iterable[str]) -> dict[str, str]:
    """Those of the secrets whose names stand in these texts: what a command needs, as far as can be seen."""
    if not secrets:
        return {}
    names = {name for text in texts for name in _NAME.findall(text)}
    return {name: secrets[name] for name in names if name in secrets}


def to_descriptor(secrets: Mapping[str, str]) -> int:
    """A descriptor from which `from_descriptor` reads them."""
    fd = os.memfd_create("flux-secrets", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(json.dumps(dict(secrets)).encode("utf-8", "surrogateescape"))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def from_descriptor(fd: int) -> dict[str, str]:
    """What `to_descriptor` wrote; closes it."""
    with open(fd, "rb") as file:
        told: dict[str, str] = json.loads(file.read().decode("utf-8", "surrogateescape"))
    return told
