"""Where in the author's own code something happened: people want their line, not ours."""

import sys
import traceback
from pathlib import Path
from types import FrameType, TracebackType

from fluxd.authoring import safely

ROOT = str(Path(__file__).parent.parent) + "/"


def caller() -> tuple[str, int]:
    """File and line of the nearest code outside of Flux that is being run; ("", 0) if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(ROOT) and not name.startswith("<frozen"):
            return name, frame.f_lineno
        frame = frame.f_back
    return "", 0


def users_part(tb: TracebackType | None) -> TracebackType | None:
    """The traceback from the author's first frame on; all of it where the author has none."""
    whole = tb
    while tb is not None and _ours(tb):
        tb = tb.tb_next
    return tb or whole


def _ours(tb: TracebackType) -> bool:
    name = tb.tb_frame.f_code.co_filename
    return name.startswith((ROOT, "<frozen")) or "/asyncio/" in name


def where(error: BaseException) -> tuple[str, int] | None:
    """File and line of the author's innermost frame in the error's traceback, else of the innermost one."""
    if type(error) is SyntaxError and error.filename:
        return error.filename, error.lineno or 0
    found = None
    installed = (ROOT, sys.prefix + "/lib", sys.base_prefix + "/lib", "<")
    for frame, line in traceback.walk_tb(safely.traceback_of(error)):
        if not frame.f_code.co_filename.startswith(installed):
            found = frame.f_code.co_filename, line
    return found


def sentence(error: BaseException) -> str:
    """One line for people, without the error's type: the first line of its text, and the author's file and line."""
    text = next(iter(safely.text(error).strip().splitlines()), "")
    if len(text) > 500:
        text = text[:499] + "…"
    place = where(error)
    if place is None:
        return text
    at = f"{Path(place[0]).name}:{place[1]}"
    return f"{text} ({at})" if text else f"at {at}"


def formatted(error: BaseException) -> str:
    """The traceback, from the author's first frame on."""
    return safely.formatted(error, users_part(safely.traceback_of(error)))
