"""From a template and its values to a page. All text is escaped; no template may say otherwise (a test looks)."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fluxd.store.accounts import Session
from fluxd.web import markdown, notice, words
from fluxd.web.static_files import static_url
from fluxd.web.who import SESSION, WHO

THEMES = ("auto", "light", "dark")
THEME_COOKIE = "flux_theme"
ZONE_COOKIE = "flux_zone"  # set by our script

# How a state is called on pages, where that is not its name.
STATE_WORDS = {"upstream_failed": "upstream failed", "up_for_retry": "up for retry", "none": "not started"}


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals["static"] = static_url
    environment.globals["words"] = words
    environment.globals["markdown"] = markdown.blocks
    environment.filters["seg"] = lambda text: quote(text, safe="")
    environment.filters["json"] = lambda value: orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode()
    environment.filters["state_words"] = lambda state: STATE_WORDS.get(state, state)
    return environment


ENVIRONMENT = _environment()


def theme(request: web.Request) -> str:
    """auto | light | dark, as chosen by the reader."""
    chosen = request.cookies.get(THEME_COOKIE, "auto")
    return chosen if chosen in THEMES else "auto"


def reader_zone(request: web.Request) -> str | None:
    """The time zone of the reader's clocks, as their browser told it; None where it told none that we know."""
    told = request.cookies.get(ZONE_COOKIE, "")
    return told if told and words.zone(told).key == told else None


async def render(request: web.Request, template: str, *, status: int = 200, **values: Any) -> web.Response:
    """The page of this template. All templates may use now, who, csrf, theme, reader (a zone), here, said.

    It is made in a thread: a big page takes a tenth of a second, and the scheduler shall not wait for it.
    """
    session: Session | None = request.get(SESSION)
    said = notice.read(request)
    page = await asyncio.to_thread(
        ENVIRONMENT.get_template(template).render,
        now=datetime.now(UTC),
        who=request.get(WHO),
        csrf=session.csrf if session else "",
        theme=theme(request),
        reader=reader_zone(request),
        here=request.path_qs,
        said=said,
        **values,
    )
    response = web.Response(text=page, content_type="text/html", charset="utf-8", status=status)
    if said:
        notice.forget(response)
    return response
