"""Every named query is prepared against the real schema, the ones of pages and API too."""

import pytest

from fluxd.store.database import Database
from fluxd.store.queries import QUERIES, read


@pytest.mark.anyio
async def test_every_query_fits_the_schema(db: Database) -> None:
    wrong = {}
    for name, sql in QUERIES.items():
        try:
            await db.writer.prepare(sql)
        except Exception as error:
            wrong[name] = str(error)
    assert not wrong


def test_a_file_is_blocks_with_names() -> None:
    assert read("-- head\n\n-- name: one\n-- why\nSELECT 1;\n\n-- name: two\nSELECT 2\n") == {
        "one": "-- why\nSELECT 1",
        "two": "SELECT 2",
    }


@pytest.mark.parametrize("text", ["SELECT 1", "-- name: one\nSELECT 1\n-- name: one\nSELECT 2"])
def test_what_is_no_block_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="text: "):
        read(text)
