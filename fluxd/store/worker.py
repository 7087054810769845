"""What running attempts read and keep: one function, one statement. `db` is a pool or a connection."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fluxd.core.model import InstanceKey
from fluxd.store.queries import QUERIES


async def keep_progress(db: Any, told: Sequence[tuple[int, dict[str, Any], datetime]]) -> None:
    """(fence, progress, when) of each; those of attempts that have ended are left out."""
    await db.execute(QUERIES["keep_progress"], *([list(column) for column in zip(*told, strict=True)]))


async def keep_state(db: Any, fence: int, state: dict[str, Any]) -> bool:
    """False: the attempt has ended, and nothing was kept."""
    return await db.fetchval(QUERIES["keep_state"], fence, state) is not None


async def read_state(db: Any, instance: InstanceKey) -> dict[str, Any]:
    """{} where nothing is kept."""
    return await db.fetchval(QUERIES["read_state"], *instance) or {}


async def xcom(db: Any, instance: InstanceKey, key: str) -> Any:
    """A row with the `value`; None where the instance handed on nothing under this key."""
    return await db.fetchrow(QUERIES["worker_xcom"], *instance, key)


async def previous_success(db: Any, run_number: int) -> Any:
    """The row of the successful run before this one, or None."""
    return await db.fetchrow(QUERIES["previous_success"], run_number)
