"""Connections and variables by name, from the environment: FLUX_CONN_<ID> and FLUX_VAR_<KEY>."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fluxd.authoring.checks import NOT_GIVEN, one_name
from fluxd.errors import Invalid, NotFound

MISSING: Any = NOT_GIVEN


def _variable_name(prefix: str, name: str) -> str:
    return prefix + re.sub(r"[^A-Za-z0-9]", "_", name).upper()


@dataclass(frozen=True)
class Connection:
    """The address of an outside system. `schema` is what most systems call the database."""

    conn_id: str
    conn_type: str
    host: str | None = None
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    port: int | None = None
    schema: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def get(cls, conn_id: str) -> "Connection":
        """The connection of this name. Raises NotFound FLX-3007, Invalid FLX-3017 where its text cannot be read."""
        name = _variable_name("FLUX_CONN_", conn_id)
        text = os.environ.get(name)
        if text is None:
            raise NotFound("FLX-3007", f"There is no connection {conn_id!r}: set {name} to its URI or JSON.")
        try:
            return (
                cls._from_json(conn_id, json.loads(text))
                if text.lstrip().startswith("{")
                else cls._from_uri(conn_id, text)
            )
        except (ValueError, TypeError, AttributeError):
            # The text may hold a password: it is not shown.
            raise Invalid(
                "FLX-3017", f"{name} cannot be read: write type://login:password@host:port/schema or JSON."
            ) from None

    @classmethod
    def _from_json(cls, conn_id: str, data: dict[str, Any]) -> "Connection":
        extra = data.get("extra") or {}
        return cls(
            conn_id,
            str(data["conn_type"]) if "conn_type" in data else "",
            data.get("host"),
            data.get("login"),
            data.get("password"),
            int(data["port"]) if data.get("port") is not None else None,
            data.get("schema"),
            json.loads(extra) if isinstance(extra, str) else dict(extra),
        )

    @classmethod
    def _from_uri(cls, conn_id: str, text: str) -> "Connection":
        from urllib.parse import parse_qsl, unquote, urlsplit

        uri = urlsplit(text)
        if not uri.scheme:
            raise ValueError
        extra: dict[str, Any] = dict(parse_qsl(uri.query, keep_blank_values=True))
        if "__extra__" in extra:
            extra = {**json.loads(extra.pop("__extra__")), **extra}
        # urlsplit lowers the host's case; socket paths and service names must keep theirs.
        place = uri.netloc.rpartition("@")[2]
        host = place[1:].partition("]")[0] if place.startswith("[") else place.partition(":")[0]
        return cls(
            conn_id,
            uri.scheme.replace("-", "_"),
            unquote(host) or None,
            uri.username and unquote(uri.username),
            uri.password and unquote(uri.password),
            uri.port,
            unquote(uri.path[1:]) or None,
            extra,
        )

    @property
    def extra_dejson(self) -> Mapping[str, Any]:
        return self.extra

    def get_uri(self) -> str:
        """As a URI, with percent-encoding; what it does not have is left out."""
        from urllib.parse import quote, urlencode

        who = "".join([quote(self.login or "", safe=""), f":{quote(self.password, safe='')}" if self.password else ""])
        host = f"[{self.host}]" if self.host and ":" in self.host else quote(self.host or "", safe="")
        place = f"{who}@{host}" if who else host
        port = f":{self.port}" if self.port else ""
        path = f"/{quote(self.schema, safe='')}" if self.schema else ""
        simple = all(isinstance(value, str) for value in self.extra.values())
        extra = dict(self.extra) if simple else {"__extra__": json.dumps(self.extra)}
        query = f"?{urlencode(extra)}" if extra else ""
        return f"{self.conn_type.replace('_', '-')}://{place}{port}{path}{query}"

    def __str__(self) -> str:
        return self.conn_id


class Variable:
    """Named values that dags share."""

    @staticmethod
    def get(key: str, default: Any = MISSING, *, deserialize_json: bool = False, default_var: Any = MISSING) -> Any:
        """The text of a variable, or what its JSON says. Raises NotFound FLX-3006 where there is no default."""
        default = one_name(f"Variable.get({key!r})", MISSING, default=default, default_var=default_var)
        name = _variable_name("FLUX_VAR_", key)
        text = os.environ.get(name)
        if text is None:
            if default is MISSING:
                raise NotFound("FLX-3006", f"There is no variable {key!r}: set {name}, or give a default.")
            return default
        if not deserialize_json:
            return text
        try:
            return json.loads(text)
        except ValueError as error:
            raise Invalid("FLX-3018", f"The variable {key!r} is not JSON ({error}): correct {name}.") from None


class _ByName:
    """`var.value.key` and `var.value.get("key", default)` in templates."""

    def __init__(self, deserialize_json: bool) -> None:
        self._json = deserialize_json

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        return Variable.get(key, deserialize_json=self._json)

    def __getitem__(self, key: str) -> Any:
        return Variable.get(key, deserialize_json=self._json)

    def get(self, key: str, default: Any = MISSING, default_var: Any = MISSING) -> Any:
        return Variable.get(key, default, default_var=default_var, deserialize_json=self._json)


class Variables:
    """`var` in templates."""

    value = _ByName(False)
    json = _ByName(True)


class Connections:
    """`conn` in templates: `conn.warehouse.host`."""

    def __getattr__(self, conn_id: str) -> Connection:
        if conn_id.startswith("__"):
            raise AttributeError(conn_id)
        return Connection.get(conn_id)

    def __getitem__(self, conn_id: str) -> Connection:
        return Connection.get(conn_id)

    def get(self, conn_id: str, default: Any = None) -> Any:
        try:
            return Connection.get(conn_id)
        except NotFound:
            return default
