"""A served web side with an empty database, and a client that keeps cookies."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from fluxd.store.database import Database
from tests.web.serving import Served, serve


@pytest.fixture
async def served(db: Database, tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(db, tmp_path) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Cookies of bare addresses are kept too."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
        yield client
