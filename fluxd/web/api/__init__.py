"""The JSON API below /api/v1: a table of routes, one small handler each. Nothing is shown here that Postgres or a log
file does not say, and nothing is changed but by an event to the scheduler."""

from fluxd.web.api.mount import routes

__all__ = ["routes"]
