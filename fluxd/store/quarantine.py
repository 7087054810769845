"""What was put aside because it could not be taken: an event, a run, a dag. Kept with all that a mender needs."""

import hashlib
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import asyncpg

from fluxd.store.queries import QUERIES
from fluxd.store.storable import JSON_NULL, json_bytes, text

EVENT_MAX = 256 * 1024  # bytes of JSON; a larger one is kept as its beginning
TRACEBACK_MAX = 20_000
ERROR_MAX = 1000
BIGINT_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that was put aside. kind: the name of an event, or run | dag | row | command | time.

    outcome: in words, what became of it."""

    kind: str
    error: BaseException
    outcome: str
    thing: Any = None  # the event, or whatever says best what it was
    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    fence: int | None = None

    @property
    def cause(self) -> str:
        """The error in one line."""
        return cause(self.error)


@dataclass(frozen=True, slots=True)
class Names:
    """Whose it was, as far as that is known."""

    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    run_number: int | None = None


def cause(error: BaseException) -> str:
    """An error in one line: its type and what it says. It never fails, whatever the error's own code does."""
    try:
        said = " ".join(str(error).split())
    except Exception:
        said = "(its text cannot be had)"
    return f"{type(error).__name__}: {said}"[:ERROR_MAX] if said else type(error).__name__


async def put_aside(conn: asyncpg.Connection, evidence: Evidence) -> None:
    """Keep it. The same thing with the same error is one row with a count."""
    try:
        lines = "".join(traceback.format_exception(evidence.error))
    except Exception:
        lines = "(the traceback cannot be written)"
    names = (evidence.kind, evidence.dag_id, evidence.run_id, evidence.task_id)
    said = text(evidence.cause)
    signature = hashlib.sha256(
        repr((*names, type(evidence.error).__name__, _where(evidence.error))).encode()
    ).hexdigest()
    fence = evidence.fence
    await conn.execute(
        QUERIES["put_aside"],
        signature,
        *(text(name) for name in names),
        fence if isinstance(fence, int) and abs(fence) <= BIGINT_MAX else None,
        _kept(evidence.thing),
        said,
        text(lines[-TRACEBACK_MAX:]),
        text(evidence.outcome),
    )


async def read(conn: asyncpg.Connection | asyncpg.Pool, limit: int) -> list[dict[str, Any]]:
    """The newest first."""
    return [dict(row) for row in await conn.fetch(QUERIES["quarantine"], limit)]


async def names_of(conn: asyncpg.Connection, number: int, *, fence: bool) -> Names:
    """Whose attempt this is (`fence`), or which run has this number."""
    row = None
    if isinstance(number, int) and abs(number) <= BIGINT_MAX:
        row = await conn.fetchrow(QUERIES["name_of_fence" if fence else "name_of_number"], number)
    return Names() if row is None else Names(**dict(row))


async def give_up_run(conn: asyncpg.Connection, run_number: int, reason: str) -> None:
    """End a live run as failed, whatever its rows hold."""
    await conn.execute(QUERIES["give_up_run"], run_number, text(reason))


async def end_orphans(conn: asyncpg.Connection, fences: Sequence[int], reason: str) -> None:
    """The processes of these attempts are gone, and no live run waits for them."""
    await conn.executemany(QUERIES["end_orphan"], [(fence, text(reason)) for fence in fences])


def _where(error: BaseException) -> list[tuple[str, int]]:
    return [(frame.name, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)][-3:]


def _kept(thing: Any) -> Any:
    """The thing as JSON, bounded."""
    value = plain(thing)
    data = json_bytes(value)
    if len(data) <= EVENT_MAX:
        return JSON_NULL if value is None else value
    return {"too_large": len(data), "begins": data[:4096].decode("utf-8", "replace")}


def plain(value: Any, depth: int = 20) -> Any:
    """Dataclasses as dicts, all the way down; what is no JSON as its repr."""
    if depth < 0:
        return "…"
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name, None), depth - 1) for one in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth - 1) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return _shown(value)


def _shown(value: Any) -> str:
    try:
        return str(value)[:4096]
    except Exception:
        return f"({type(value).__name__})"
