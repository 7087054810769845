"""The door: who asks, and whether they may. Whatever is not named in PUBLIC answers only to somebody who is known.

On the Unix socket the kernel says who it is (SO_PEERCRED); on TCP a session cookie does, made from a one-time link.
A request that changes something must in addition come from a page of ours: token, `Origin`, `Sec-Fetch-Site`.
"""

import grp
import os
import pwd
import secrets
import socket
import struct
from datetime import timedelta

from aiohttp import web

from fluxd.config import listen_address
from fluxd.errors import FluxError
from fluxd.store import accounts
from fluxd.web.state import STATE
from fluxd.web.who import SESSION, STILL_WELCOME, WHO, Handler

# What answers without a login, by the pattern of its route. A test walks all routes and compares.
PUBLIC = frozenset({"/healthz", "/login", "/login/{secret}", "/static/{version}/{name}"})
READING = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
CSRF_FIELD = "csrf"
CSRF_HEADER = "X-CSRF-Token"


class LoginNeeded(FluxError):
    """Nobody is logged in."""

    status = 401


class Forbidden(FluxError):
    """Whoever asks may not do this, or does not ask from a page of ours."""

    status = 403


class Misdirected(FluxError):
    """The request was meant for another host name."""

    status = 421


def peer_uid(request: web.Request) -> int | None:
    """The uid at the other end of the Unix socket; None on TCP."""
    sock = request.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def _local_address(request: web.Request) -> tuple[str, int]:
    name = request.get_extra_info("sockname")
    return (name[0], name[1]) if isinstance(name, tuple) else ("", 0)


def _cookie_name(request: web.Request) -> str:
    """Cookies know no ports: two daemons on one host must not overwrite each other's."""
    return f"flux_session_{_local_address(request)[1]}"


def host_name(host: str) -> str:
    """The name in a Host header: without port, brackets and final dot, in small letters."""
    if host.startswith("["):
        name = host[1:].partition("]")[0]
    else:
        name, colon, port = host.rpartition(":")
        if not colon or not port.isdigit():
            name = host
    return name.rstrip(".").lower()


@web.middleware
async def check_host(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse names that are not ours: a foreign name that resolves to this address is an attack (DNS rebinding)."""
    if peer_uid(request) is None:
        settings = request.app[STATE].settings
        name = host_name(request.headers.get("Host", ""))
        # The address the connection came to is fine too: an address, unlike a name, cannot be rebound.
        ours = LOOPBACK | {listen_address(settings)[0].lower(), _local_address(request)[0].lower()}
        if name not in ours and name not in {host.lower() for host in settings.web.hosts}:
            raise Misdirected(
                "FLX-4082", f"This Flux is not called {name[:200]!r}: add the name to web.hosts in fluxd.toml."
            )
    return await handler(request)


def _is_public(request: web.Request) -> bool:
    resource = request.match_info.route.resource
    return resource is not None and resource.canonical in PUBLIC


@web.middleware
async def know_who(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Put WHO on the request (and SESSION and STILL_WELCOME on TCP), or refuse."""
    uid = peer_uid(request)
    if uid is not None:
        group = request.app[STATE].settings.web.socket_group
        if uid not in (0, os.geteuid()) and not _is_member(uid, group):
            raise Forbidden(
                "FLX-4083",
                f"{_user_name(uid)} may not use this socket: ask as root, as the user of fluxd"
                + (f", or as a member of the group {group}." if group else "."),
            )
        request[WHO] = {"name": _user_name(uid), "via": "socket"}
        return await handler(request)

    cookie = request.cookies.get(_cookie_name(request))
    session = await accounts.find_session(request.app[STATE].db.read, cookie) if cookie else None
    if session is not None:
        request[SESSION] = session
        request[WHO] = {"name": session.name, "via": "session"}

        async def still_welcome() -> bool:
            assert cookie is not None
            return await accounts.find_session(request.app[STATE].db.read, cookie) is not None

        request[STILL_WELCOME] = still_welcome
    elif not _is_public(request):
        raise LoginNeeded(
            "FLX-4084", "Nobody is logged in here: run 'fluxctl users login-link' and open the link that it prints."
        )
    return await handler(request)


def _is_member(uid: int, group: str) -> bool:
    """Whether the group has this user, as his primary group or as another one."""
    try:
        user = pwd.getpwuid(uid)
        return bool(group) and grp.getgrnam(group).gr_gid in os.getgrouplist(user.pw_name, user.pw_gid)
    except KeyError:  # no such user or group
        return False


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


@web.middleware
async def check_forgery(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a change that another site's page asked a logged-in browser for."""
    if request.method in READING or peer_uid(request) is not None:
        return await handler(request)
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    origin = request.headers.get("Origin")
    if site not in ("same-origin", "none") or (origin is not None and origin.partition("://")[2] != request.host):
        raise Forbidden("FLX-4085", "This request comes from a page of another site, so it was not carried out.")
    session: accounts.Session | None = request.get(SESSION)
    if session is not None and not secrets.compare_digest(await _given_token(request), session.csrf.encode()):
        raise Forbidden("FLX-4086", "This page is too old to change something: load it again and repeat what you did.")
    return await handler(request)


async def _given_token(request: web.Request) -> bytes:
    token = request.headers.get(CSRF_HEADER)
    if token is None and request.content_type in ("application/x-www-form-urlencoded", "multipart/form-data"):
        field = (await request.post()).get(CSRF_FIELD)
        token = field if isinstance(field, str) else None
    return (token or "").encode("utf-8", "surrogateescape")


async def begin_session(request: web.Request, response: web.StreamResponse, secret: str) -> bool:
    """Use a one-time link up; on success the response carries a new session's cookie."""
    state = request.app[STATE]
    lifetime = timedelta(hours=state.settings.web.session_hours)
    cookie = await accounts.use_login_link(state.db.read, secret, lifetime)
    if cookie is None:
        return False
    response.set_cookie(
        _cookie_name(request),
        cookie,
        max_age=int(lifetime.total_seconds()),
        path="/",
        httponly=True,
        samesite="Lax",
        secure=request.secure,
    )
    return True


async def end_session(request: web.Request, response: web.StreamResponse) -> None:
    """Log out: in the database, so that a copy of the cookie is worth nothing either."""
    session: accounts.Session | None = request.get(SESSION)
    if session is not None:
        await accounts.end_session(request.app[STATE].db.read, session.hash)
    response.del_cookie(_cookie_name(request), path="/")


def local_path(text: str | None, otherwise: str = "/") -> str:
    """`text` if it is a path on this very server, else `otherwise`: nobody is sent to another site."""
    if text and text[0] == "/" and text[1:2] not in ("/", "\\") and text.isprintable() and "\\" not in text:
        return text
    return otherwise
