"""From a route of the table to a handler of aiohttp: read and check, do it once, answer, put every error in words."""

import traceback
from collections.abc import Awaitable, Callable
from importlib.metadata import version

import orjson
from aiohttp import web

from fluxd.errors import FluxError, NotFound
from fluxd.observations import Seen, observe
from fluxd.store.database import AWAY, database_trouble
from fluxd.web.api.answers import problem, problem_of
from fluxd.web.api.idempotency import Once
from fluxd.web.api.openapi import description
from fluxd.web.api.routes import PREFIX, ROUTES, Route
from fluxd.web.api.validation import Ask, read_body, read_query
from fluxd.web.state import WebState

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes(state: WebState) -> list[web.RouteDef]:
    """All routes of the API below /api/v1, and a last one that says in words that there is no such address."""
    once = Once()
    mounted = [web.route(route.method, PREFIX + route.path, _handler(route, state, once)) for route in ROUTES]
    described = orjson.dumps(description(version("fluxd")))

    async def openapi(_: web.Request) -> web.Response:
        return web.Response(body=described, content_type="application/json")

    mounted.append(web.get(PREFIX + "/openapi.json", openapi))
    mounted.append(web.route("*", PREFIX + "/{rest:.*}", _nowhere))
    return mounted


async def _nowhere(request: web.Request) -> web.Response:
    error = NotFound(
        "FLX-4100",
        f"There is no {request.method} {request.path[:200]} in the API; {PREFIX}/openapi.json describes what there is.",
    )
    return problem_of(error, request.path)


def _handler(route: Route, state: WebState, once: Once) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            path = dict(request.match_info)
            raw, body = await read_body(request, route.body)
            ask = Ask(state, request, path, read_query(request, route.query), body)
            if route.method == "POST" and route.keyed:
                return await once.run(ask, raw, route.handler)
            return await route.handler(ask)
        except FluxError as error:
            return problem_of(error, request.path)
        except web.HTTPException as error:
            return problem(error.status, "FLX-4107", f"The request cannot be taken: {error.reason}.", request.path)
        except (TimeoutError, *AWAY) as error:
            return problem(
                503,
                "FLX-4108",
                f"{database_trouble(error)}; running tasks go on, ask again shortly.",
                request.path,
            )
        except Exception as error:
            reason = "".join(traceback.format_exception_only(error)).strip()
            observe(Seen.REQUEST_FAILED, error=error, method=request.method, path=request.path, reason=reason)
            return problem(
                500,
                "FLX-4109",
                f"The request failed inside fluxd ({reason.splitlines()[0][:200]}); its log has the details.",
                request.path,
            )

    return handle
