"""What of its starter's environment the runner keeps for itself and for everything below it.

Connections and variables (FLUX_CONN_*, FLUX_VAR_*) are no part of it: they come over a descriptor (see secret_names).
"""

import os

KEPT = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TZ", "TMPDIR", "VIRTUAL_ENV"}
# Of Python's own variables those that say where things are; others (PYTHONINSPECT, PYTHONOPTIMIZE) change what it does.
KEPT_PYTHON = {"PYTHONPATH", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"}
DEFAULTS = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "SHELL": "/bin/sh"}
LOCALE = {"LANG": "C.UTF-8"}  # whoever started us: sort orders and encodings of tasks are the same
MARK = "FLUX_RUNNER"  # all descendants of a runner carry its home in this variable


def clean_environment(home: str | os.PathLike[str]) -> dict[str, str]:
    """No secret, nothing that was meant for our starter alone; the mark of the home, by which leftovers are found."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT | KEPT_PYTHON}
    return DEFAULTS | kept | LOCALE | {MARK: os.fspath(home)}
