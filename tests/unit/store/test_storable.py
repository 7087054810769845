"""Whatever a task says, Postgres takes it, and says it back."""

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluxd.store.database import Database
from fluxd.store.storable import JSON_NULL, json_bytes, text

# All code points, halves of pairs and NUL among them.
any_text = st.text(st.characters(codec=None), max_size=20)
# jsonb says 1e16 as 10000000000000000: the same number, but no float any more. So the floats here are smaller.
floats = st.floats(-1e15, 1e15) | st.sampled_from([float("nan"), float("inf"), float("-inf")])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.anyio
async def test_postgres_takes_everything(db: Database) -> None:
    texts: list[str | None] = []
    values: list[Any] = []

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(any_text, anything)
    def collect(one_text: str, value: Any) -> None:
        texts.append(text(one_text))
        values.append(value)

    collect()
    assert await db.read.fetchval("SELECT $1::text[]", texts) == texts
    stored = await db.read.fetchval("SELECT $1::jsonb", values)
    assert stored == orjson.loads(json_bytes(values))


def test_what_can_be_kept_is_kept() -> None:
    kept = {"a": [1, -(2**63), 2**64 - 1, 0.1, True, None, "ü 😀 \\u0000 \t\n\x01"]}
    assert orjson.loads(json_bytes(kept)) == kept
    assert json_bytes(JSON_NULL) == json_bytes(None) == b"null"
    assert text(None) is None
    assert text("ü") == "ü"
