"""What the door notes on a request that it lets in, for everybody behind it."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from fluxd.store.accounts import Session

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
StillWelcome = Callable[[], Awaitable[bool]]

# {"name", "via"}: who asks, and through which door (socket | session).
WHO = web.RequestKey("who", dict[str, str])
# The login, where it came by a session cookie.
SESSION = web.RequestKey("session", Session)
# Asked by long answers from time to time: whether the login still holds.
STILL_WELCOME: web.RequestKey[StillWelcome] = web.RequestKey("still_welcome")
