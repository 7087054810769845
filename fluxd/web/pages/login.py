"""In and out: the one-time link, the end of a session, and light or dark.

Opening a link does not use it (mail programs and chats open links to preview them); its button does.
"""

from urllib.parse import quote, unquote

from aiohttp import web

from fluxd.store import accounts
from fluxd.web.auth import begin_session, end_session, local_path
from fluxd.web.render import THEME_COOKIE, THEMES, render
from fluxd.web.state import STATE
from fluxd.web.who import WHO

YEAR_S = 365 * 86400
NEXT_COOKIE, NEXT_S = "flux_next", 3600


async def ask(request: web.Request) -> web.Response:
    """GET /login: how to get in."""
    there = local_path(request.query.get("next"), "/dags")
    if WHO in request:
        raise web.HTTPSeeOther(there)
    response = await render(request, "login.html", good=False, tried=False)
    if there != "/dags":
        # The link that is opened next knows nothing of it: the browser remembers it for so long.
        response.set_cookie(
            NEXT_COOKIE, quote(there, safe=""), max_age=NEXT_S, path="/login", httponly=True, samesite="Lax"
        )
    return response


async def look_at_link(request: web.Request) -> web.Response:
    """GET /login/{secret}: a button, if the link is still good."""
    good = await accounts.login_link_good(request.app[STATE].db.read, request.match_info["secret"])
    return await render(request, "login.html", good=good, tried=True, status=200 if good else 410)


async def use_link(request: web.Request) -> web.Response:
    """POST /login/{secret}: a new session, whatever session there was."""
    there = local_path(unquote(request.cookies.get(NEXT_COOKIE, "")), "/dags")
    response = web.Response(status=303, headers={"Location": there})
    if not await begin_session(request, response, request.match_info["secret"]):
        return await render(request, "login.html", good=False, tried=True, status=410)
    response.del_cookie(NEXT_COOKIE, path="/login")
    return response


async def leave(request: web.Request) -> web.Response:
    """POST /logout."""
    response = web.Response(status=303, headers={"Location": "/login"})
    await end_session(request, response)
    return response


async def choose_theme(request: web.Request) -> web.Response:
    """POST /theme: light, dark or as the system has it (auto)."""
    form = await request.post()
    chosen = str(form.get("theme", "auto"))
    response = web.Response(status=303, headers={"Location": local_path(str(form.get("back", "")), "/dags")})
    # Readable by our script, which changes it without loading the page anew. It holds nothing worth hiding.
    response.set_cookie(THEME_COOKIE, chosen if chosen in THEMES else "auto", max_age=YEAR_S, path="/", samesite="Lax")
    return response
