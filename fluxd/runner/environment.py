"""What of its starter's environment the runner keeps for itself and for everything below it."""

import os

KEPT = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV"}
KEPT_PREFIXES = ("LC_", "PYTHON", "FLUX_CONN_", "FLUX_VAR_")
MARK = "FLUX_RUNNER"  # all descendants of a runner carry its home in this variable


def clean_environment(home: str | os.PathLike[str]) -> dict[str, str]:
    """No secret of the daemon; the mark of the home, by which leftovers are found."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith(KEPT_PREFIXES)}
    return kept | {MARK: os.fspath(home)}
