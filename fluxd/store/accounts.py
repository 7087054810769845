"""Who may come in: accounts, one-time login links, sessions. The database never holds a secret that opens anything."""

import contextlib
import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg

from fluxd.errors import NotFound
from fluxd.store.database import PASSING
from fluxd.store.queries import QUERIES

ADMIN = "admin"
# A session that nobody used for so long is over, whatever its full time.
IDLE = timedelta(hours=8)

# A pool or a connection: both have fetchrow, fetchval and execute.
Executor = Any


@dataclass(frozen=True, slots=True)
class Session:
    """A login. `hash` is its key in the database; the cookie that hashes to it is known to the browser alone."""

    hash: bytes
    name: str
    role: str
    csrf: str


def hash_secret(secret: str) -> bytes:
    """A secret's key in the database. The secrets have 256 random bits: a plain hash is as good as a slow one."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


async def ensure_admin(db: Executor) -> bool:
    """Make the one account of the first start. True when it was made now."""
    return await db.fetchval(QUERIES["ensure_admin"]) is not None


async def make_login_link(db: Executor, minutes: float, name: str = ADMIN) -> str:
    """A new one-time login link of this account: its path, good for `minutes`. Raises NotFound FLX-4081."""
    secret = secrets.token_urlsafe(32)
    made = await db.fetchval(QUERIES["add_login_link"], hash_secret(secret), name, timedelta(minutes=minutes))
    if made is None:
        raise NotFound("FLX-4081", f"There is no account {name!r}, so no login link can be made for it.")
    return f"/login/{secret}"


async def login_link_good(db: Executor, secret: str) -> bool:
    """Whether this link could be used now; looking does not use it."""
    return bool(await db.fetchval(QUERIES["login_link_good"], hash_secret(secret)))


async def use_login_link(db: Executor, secret: str, lifetime: timedelta) -> str | None:
    """Use the link up and begin a session: the cookie's value, or None if the link was used before or is too old."""
    cookie, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(24)
    used = await db.fetchval(QUERIES["use_login_link"], hash_secret(secret), hash_secret(cookie), csrf, lifetime)
    return None if used is None else cookie


async def find_session(db: Executor, cookie: str) -> Session | None:
    """The session of this cookie, unless it is over."""
    key = hash_secret(cookie)
    row: asyncpg.Record | None = await db.fetchrow(QUERIES["session"], key, IDLE)
    if row is None:
        return None
    if row["stale"]:
        with contextlib.suppress(*PASSING):  # a database that only reads keeps nobody from looking
            await db.execute(QUERIES["session_seen"], key)
    return Session(key, row["name"], row["role"], row["csrf"])


async def end_session(db: Executor, key: bytes) -> None:
    """Log out: the cookie is worth nothing from now on."""
    await db.execute(QUERIES["end_session"], key)
