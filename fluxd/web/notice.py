"""What an action has to say on the page that follows it: carried over the redirect in a cookie, shown once."""

from dataclasses import dataclass
from urllib.parse import quote, unquote

from aiohttp import web

from fluxd.errors import FluxError

COOKIE = "flux_notice"
LIMIT = 600


@dataclass(frozen=True, slots=True)
class Notice:
    kind: str  # done | refused
    text: str


def leave(response: web.StreamResponse, said: "str | FluxError") -> None:
    """Have the next page say this."""
    kind, text = ("refused", str(said)) if isinstance(said, FluxError) else ("done", said)
    response.set_cookie(
        COOKIE, f"{kind}.{quote(text[:LIMIT], safe='')}", max_age=60, path="/", httponly=True, samesite="Lax"
    )


def read(request: web.Request) -> Notice | None:
    """What the action before this page said."""
    kind, _, text = request.cookies.get(COOKIE, "").partition(".")
    return Notice(kind, unquote(text)[:LIMIT]) if kind in ("done", "refused") else None


def forget(response: web.StreamResponse) -> None:
    response.del_cookie(COOKIE, path="/")
