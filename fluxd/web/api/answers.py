"""How the API speaks: JSON by orjson with times in UTC (`…Z`), errors as problem details (RFC 9457)."""

from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web

from fluxd.errors import FluxError

PROBLEM_TYPE = "urn:flux:error:"


def dumps(body: Any) -> bytes:
    """JSON with times as RFC 3339 in UTC. What JSON does not know is an error, never a guess."""
    return orjson.dumps(body, option=orjson.OPT_UTC_Z)


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer. Answers are never kept by caches: they are out of date with the next turn of the scheduler."""
    return web.Response(
        body=dumps(body),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def problem(status: int, code: str, detail: str, instance: str) -> web.Response:
    """An error as problem details: `code` is Flux's own (docs/errors.md), `detail` one sentence."""
    body = {
        "type": PROBLEM_TYPE + code,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "instance": instance,
    }
    return web.Response(
        body=dumps(body),
        status=status,
        content_type="application/problem+json",
        headers={"Cache-Control": "no-store"},
    )


def problem_of(error: FluxError, instance: str) -> web.Response:
    """The problem details of one of our own errors."""
    return problem(error.status, error.code, error.message, instance)
