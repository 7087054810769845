"""Fields of operators that must be text with something in it: checked where they are written, and again as rendered.

A template, or the result of another task, is known only when the task runs; an empty path or command would then be
taken for a good one, and so would the word "None".
"""

import os
from typing import Any

from fluxd.authoring import checks
from fluxd.authoring.references import Reference, is_dynamic
from fluxd.authoring.safely import spoken
from fluxd.errors import Invalid


def path(value: Any) -> Any:
    """A path as text; all else as it is."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def written(value: Any, what: str) -> Any:
    """A field as the author wrote it. Raises Invalid FLX-1003 (no text), FLX-1073 (empty)."""
    if isinstance(value, Reference):
        return value
    return checks.text(value, what) if is_dynamic(value) else checks.filled(value, what)


def rendered(value: Any, what: str) -> str:
    """A field when its task runs. Raises Invalid FLX-3051 (empty), FLX-3052 (no text), FLX-1003 (a NUL in it)."""
    if not isinstance(value, str) or value == "None":
        raise Invalid(
            "FLX-3052",
            f"{what} must be text, but when it runs it is {spoken(value)}: look at what its template or the task "
            "before it gives.",
        )
    if not value.strip():
        raise Invalid(
            "FLX-3051", f"{what} is empty when it runs: look at what its template or the task before it gives."
        )
    return checks.text(value, what)
