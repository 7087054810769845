"""The source of a dag as it was when the version was made: what runs, not what lies in the folder by now."""

import re
from functools import lru_cache
from typing import Any

from aiohttp import web

from fluxd.errors import NotFound
from fluxd.store import page_views
from fluxd.web.render import render
from fluxd.web.state import STATE

# Which of pygments' kinds of text are coloured, and by which class of our style sheet.
CLASSES = {
    "Token.Keyword": "kw",
    "Token.Operator.Word": "kw",
    "Token.Literal.String": "st",
    "Token.Literal.Number": "nu",
    "Token.Comment": "co",
    "Token.Name.Decorator": "de",
    "Token.Name.Function": "na",
    "Token.Name.Class": "na",
}
COLOURED_MOST = 200_000  # characters; what is longer is shown plain


async def page(request: web.Request) -> web.Response:
    """GET /dags/{dag_id}/source?version=."""
    dag_id, wanted = request.match_info["dag_id"], request.query.get("version", "")
    version = int(wanted) if wanted.isdecimal() and len(wanted) < 9 else None
    row = await page_views.source(request.app[STATE].db.read, dag_id, version)
    if row is None:
        raise NotFound("FLX-4096", f"There is no source of the dag {dag_id[:200]!r} in this version.")
    files = sorted(row["files"].items(), key=lambda item: (item[0] != row["file"], item[0]))
    versions = await page_views.versions(request.app[STATE].db.read, dag_id, 30)
    return await render(
        request,
        "source.html",
        dag_id=dag_id,
        row=row,
        versions=versions,
        files=[(name, text.count("\n") + 1, _coloured(text)) for name, text in files],
    )


@lru_cache(maxsize=8)
def _coloured(text: str) -> list[tuple[str | None, str]]:
    """The text in pieces: (class, text)."""
    from pygments.lexers.python import PythonLexer  # type: ignore[import-untyped]  # late: an idle daemon needs no lexer in its memory

    if len(text) > COLOURED_MOST:
        return [(None, text)]
    pieces: list[tuple[str | None, str]] = []
    for kind, piece in PythonLexer(stripnl=False, ensurenl=False).get_tokens(text):
        found = _class(kind)
        if pieces and pieces[-1][0] == found:
            pieces[-1] = (found, pieces[-1][1] + piece)
        else:
            pieces.append((found, piece))
    return pieces


def _class(kind: Any) -> str | None:
    name = str(kind)
    while name:
        if name in CLASSES:
            return CLASSES[name]
        name = re.sub(r"\.?\w+$", "", name)
    return None
