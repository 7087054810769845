"""The web application, put together: one for the TCP address and the Unix socket alike."""

from aiohttp import web

from fluxd.web import api
from fluxd.web.auth import check_forgery, check_host, know_who
from fluxd.web.doors import check_text, note_work, take_body
from fluxd.web.drawing import Drawings
from fluxd.web.failures import answer_failures
from fluxd.web.health import healthz
from fluxd.web.live import stream_events
from fluxd.web.pages.routes import ROUTES as PAGES
from fluxd.web.security_headers import add_headers
from fluxd.web.state import DRAWINGS, STATE, WORKING, WebState
from fluxd.web.static_files import static_file

BODY_LIMIT = 1024 * 1024


def make_app(state: WebState) -> web.Application:
    """The whole web side of a daemon: pages, API, live stream, static files, behind one door."""
    app = web.Application(
        middlewares=[note_work, answer_failures, check_text, check_host, know_who, take_body, check_forgery],
        client_max_size=BODY_LIMIT,
    )
    app[STATE] = state
    app[DRAWINGS] = Drawings()
    app[WORKING] = set()
    app.on_response_prepare.append(add_headers)

    async def events(request: web.Request) -> web.StreamResponse:
        return await stream_events(request, state.live)

    async def close_streams(_: web.Application) -> None:
        state.live.close()
        await app[DRAWINGS].close()

    app.add_routes(PAGES)
    app.router.add_get("/healthz", healthz)
    # Before the API's own routes: the last of those answers for every address below /api/v1 that is not there.
    app.router.add_get("/api/v1/events", events)
    app.add_routes(api.routes(state))
    app.router.add_get("/static/{version}/{name}", static_file)
    app.on_shutdown.append(close_streams)
    return app
