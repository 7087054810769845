"""openapi.json, written from the table of routes: it cannot say anything else than what is mounted."""

import re
from typing import Any

from fluxd.web.api import schemas as s
from fluxd.web.api.routes import PREFIX, ROUTES, Route
from fluxd.web.api.validation import Field

KINDS: dict[str, s.Schema] = {
    "text": s.TEXT,
    "integer": s.INTEGER,
    "number": s.NUMBER,
    "boolean": s.BOOLEAN,
    "time": s.TIME,
    "object": s.OBJECT,
    "texts": s.many(s.TEXT),
    "names": s.many(s.TEXT) | {"minItems": 1},
}
PROBLEM = {"content": {"application/problem+json": {"schema": s.named("Problem")}}}
PATH_NAME = re.compile(r"\{(\w+)\}")


def _schema(field: Field) -> s.Schema:
    schema = dict(KINDS[field.kind])
    if field.choices:
        choices = [str(choice) for choice in field.choices]
        if field.kind == "texts":
            schema["items"] = s.one_of(choices)
        else:
            schema["enum"] = choices
    more = {"default": field.default, "minimum": field.least, "maximum": field.most, "pattern": field.pattern}
    return schema | {name: value for name, value in more.items() if value is not None}


def _parameters(route: Route) -> list[dict[str, Any]]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": s.TEXT} for name in PATH_NAME.findall(route.path)
    ]
    in_query = [
        {
            "name": field.name,
            "in": "query",
            "required": field.required,
            "description": field.about,
            "schema": _schema(field),
            **({"style": "form", "explode": False} if field.kind == "texts" else {}),
        }
        for field in route.query
    ]
    key = {"name": "Idempotency-Key", "in": "header", "schema": s.TEXT, "description": "Repeated: the same answer"}
    return in_path + in_query + ([key] if route.method == "POST" and route.keyed else [])


def _operation(route: Route) -> dict[str, Any]:
    parts = [part for part in re.split(r"\W+", f"{route.method.lower()} {route.path}") if part]
    operation: dict[str, Any] = {
        "operationId": "_".join(parts),
        "summary": route.about,
        "tags": [route.path.split("/")[1]],
        "parameters": _parameters(route),
        "responses": {
            str(route.status): {"description": route.about, "content": {route.media: {"schema": route.answer}}},
            "default": {"description": "What is wrong, in one sentence with a code", **PROBLEM},
        },
    }
    if route.body:
        fields = {field.name: _schema(field) | {"description": field.about} for field in route.body}
        required = [field.name for field in route.body if field.required]
        body = {"type": "object", "properties": fields, "additionalProperties": False}
        operation["requestBody"] = {
            "required": bool(required),
            "content": {"application/json": {"schema": body | ({"required": required} if required else {})}},
        }
    return operation


def description(version: str) -> dict[str, Any]:
    """The whole description, OpenAPI 3.1."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Flux", "version": version, "description": "The API of fluxd. Times are RFC 3339 in UTC."},
        "paths": paths,
        "components": {
            "schemas": s.NAMED,
            "securitySchemes": {"session": {"type": "apiKey", "in": "cookie", "name": "session"}},
        },
    }
