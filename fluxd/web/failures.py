"""What went wrong, told in the form that was asked for: a page to a browser, problem details (RFC 9457) to a program.

An error that nobody foresaw shows its code alone; what is behind it is in the daemon's log.
"""

import traceback
from http import HTTPStatus
from urllib.parse import urlencode

import orjson
from aiohttp import web

from fluxd.errors import FluxError
from fluxd.observations import Seen, observe
from fluxd.store.database import AWAY, database_trouble
from fluxd.web.auth import LoginNeeded
from fluxd.web.render import render
from fluxd.web.who import Handler

# What we say for the answers of the HTTP library itself.
SENTENCES = {
    404: "There is no page at this address: it may have been deleted, or the link has a typing error.",
    405: "This address exists, but it cannot be asked for in this way.",
    413: "That was too much data for one request: the limit is 1 MiB.",
}


def _is_for_program(request: web.Request) -> bool:
    return request.path.startswith(("/api/", "/metrics", "/healthz"))


def problem(status: int, code: str, message: str) -> web.Response:
    """Problem details in JSON."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": message,
        "code": code,
    }
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/problem+json")


async def failure(request: web.Request, status: int, code: str, message: str) -> web.Response:
    """The answer to a request that failed."""
    if _is_for_program(request):
        return problem(status, code, message)
    title = HTTPStatus(status).phrase
    return await render(request, "error.html", status=status, number=status, title=title, code=code, message=message)


def login_address(request: web.Request) -> str:
    """Where to log in, and where to go then: the page that was asked for, if it can be asked for again."""
    there = request.path_qs if request.method == "GET" else ""
    return f"/login?{urlencode({'next': there})}" if there not in ("", "/", "/dags") else "/login"


@web.middleware
async def answer_failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost middleware: no exception of a handler leaves it, so every answer is ours."""
    try:
        return await handler(request)
    except LoginNeeded as error:
        if _is_for_program(request):
            return problem(error.status, error.code, error.message)
        return web.Response(status=303, headers={"Location": login_address(request)})
    except FluxError as error:
        return await failure(request, error.status, error.code, error.message)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        answer = await failure(request, error.status, "FLX-4087", SENTENCES.get(error.status, f"{error.reason}."))
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer
    except (TimeoutError, *AWAY) as error:
        return await failure(request, 503, "FLX-4089", f"{database_trouble(error)}; running tasks go on.")
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        observe(Seen.REQUEST_FAILED, method=request.method, path=request.path, reason=reason)
        return await failure(request, 500, "FLX-4088", "Something in Flux itself failed here; its log says what.")
