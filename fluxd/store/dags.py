"""Dag files and their dags: what was loaded, which version is the newest, what is wrong with a file.

Every load is one transaction. A file that breaks keeps its dags and their last good version, with the error beside.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg

from fluxd.errors import Refused
from fluxd.store.database import answering
from fluxd.store.queries import QUERIES
from fluxd.store.storable import json_bytes

LOAD_SECONDS = 30.0


def spec_hash(data: dict[str, Any]) -> str:
    """The hash of a spec's meaning: equal for equal JSON whatever the order of keys; 16 hex digits."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class DagTaken(Refused):
    """A dag id is defined in two files. `dag_id`, `file` (the one refused) and `other_file` say which."""

    def __init__(self, dag_id: str, file: str, other_file: str) -> None:
        super().__init__(
            "FLX-5040",
            f"The dag {dag_id!r} in {file} is already defined in {other_file}: give one of them another dag_id.",
        )
        self.dag_id, self.file, self.other_file = dag_id, file, other_file


@dataclass(frozen=True, slots=True)
class StoredLoad:
    """What a load changed. Iterating gives `dags`."""

    # (dag_id, version_id, whether it is another version than before or was gone), in the order of the specs
    dags: list[tuple[str, int, bool]]
    gone: list[str] = field(default_factory=list)  # dags that this file defined until now

    def __iter__(self) -> Iterator[tuple[str, int, bool]]:
        return iter(self.dags)

    def __len__(self) -> int:
        return len(self.dags)


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A dag file as it was last seen."""

    file: str
    bundle: str | None  # of the last good load
    loaded_at: datetime | None
    seconds: float | None
    error: dict[str, Any] | None
    removed: bool
    dag_ids: list[str]


async def store_load(
    conn: asyncpg.Connection,
    file: str,
    bundle_hash: str,
    files: dict[str, str],
    specs: Sequence[dict[str, Any]],
    seconds: float,
    *,
    paused: bool = False,
) -> StoredLoad:
    """A file was imported well: store its source, its dags and their versions.

    specs: the JSON form of each dag. paused: what a dag is at first sight, unless its spec says
    `is_paused_upon_creation`; one that was seen before stays as it is.
    Raises DagTaken (FLX-5040), and stores nothing, when a dag lives in another file.
    """
    ids = [spec["dag_id"] for spec in specs]
    if twice := [dag_id for dag_id, times in Counter(ids).items() if times > 1]:
        raise DagTaken(twice[0], file, file)
    asked = [spec.get("is_paused_upon_creation") for spec in specs]
    values = (
        ids,
        [json_bytes(spec).decode() for spec in specs],
        [spec_hash(spec) for spec in specs],
        [paused if one is None else one for one in asked],
    )
    async with answering(conn, LOAD_SECONDS), conn.transaction():
        rows = await conn.fetch(QUERIES["store_load"], file, bundle_hash, files, seconds, *values)
        found = {row["dag_id"]: (row["dag_id"], row["version_id"], row["changed"]) for row in rows if not row["gone"]}
        if len(found) < len(ids):
            taken = await conn.fetchrow(QUERIES["find_taken"], ids, file)
            if taken["forgotten"]:
                raise Refused(
                    "FLX-5049",
                    f"The history of the deleted dag {taken['dag_id']!r} is still being removed; {file} is loaded "
                    "again after that.",
                )
            raise DagTaken(taken["dag_id"], file, taken["file"])
    return StoredLoad(dags=[found[dag_id] for dag_id in ids], gone=sorted(row["dag_id"] for row in rows if row["gone"]))


async def store_error(conn: asyncpg.Connection, file: str, error: dict[str, Any]) -> None:
    """A file could not be loaded: {"code", "message", "line", "traceback", "at"}. Its dags stay as they are."""
    async with answering(conn, LOAD_SECONDS):
        await conn.execute(QUERIES["put_file_error"], file, error)


async def remove_file(conn: asyncpg.Connection, file: str) -> list[str]:
    """A file is gone: its dags are marked so. Returns their ids."""
    async with answering(conn, LOAD_SECONDS), conn.transaction():
        await conn.execute(QUERIES["mark_file_removed"], file)
        return sorted(row["dag_id"] for row in await conn.fetch(QUERIES["remove_dags_of_file"], file))


async def bundle(conn: asyncpg.Connection | asyncpg.Pool, bundle_hash: str) -> tuple[str, dict[str, str]] | None:
    """The source that a version runs: (file, {relative path: text}), or None when it is not stored."""
    row = await conn.fetchrow(QUERIES["read_bundle"], bundle_hash)
    return (row["file"], row["files"]) if row else None


async def known_files(conn: asyncpg.Connection | asyncpg.Pool) -> dict[str, KnownFile]:
    """All files ever seen, by their path relative to the dags folder."""
    return {row["file"]: KnownFile(**dict(row)) for row in await conn.fetch(QUERIES["read_files"])}
