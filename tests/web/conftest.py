"""A served web side with an empty database, a client that keeps cookies, and a browser that is logged in."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from fluxd.store import accounts
from fluxd.store.database import Database
from tests.web.browser import Page, find_chromium, open_page
from tests.web.example_data import SAMPLES, fill
from tests.web.serving import Served, serve

LOGGED_IN = "location.pathname === '/dags' && document.querySelector('[data-link-state=on]')"


@pytest.fixture
async def served(db: Database, tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(db, tmp_path) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Cookies of bare addresses are kept too."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
        yield client


@pytest.fixture
async def page(served: Served, tmp_path: Path) -> AsyncIterator[Page]:
    """A browser that is logged in, at the list of dags."""
    chromium = await asyncio.to_thread(find_chromium)
    if chromium is None:
        pytest.skip("there is no Chromium on this machine")
    few = [sample for sample in SAMPLES if sample.dag_id in ("sales", "dim_stores", "ledger_close")]
    await fill(served.state.db, tmp_path / "logs", datetime.now(UTC), few)
    async with open_page(chromium) as opened:
        await opened.view(1440, 900)
        await opened.go(served.url + await accounts.make_login_link(served.state.db.read, 15))
        await opened.run("document.querySelector('button.main').click()")
        await opened.until(LOGGED_IN)
        yield opened
        assert opened.complaints == []
