"""Dag files, their dags and versions."""

from typing import Any

import pytest

from fluxd.errors import Refused
from fluxd.store import dags, loading
from fluxd.store.dags import KnownFile, spec_hash
from fluxd.store.database import Database

pytestmark = pytest.mark.anyio


def spec(dag_id: str, **more: Any) -> dict[str, Any]:
    return {"dag_id": dag_id, "tasks": [{"task_id": "t", "operator": "BashOperator"}], **more}


async def store(db: Database, file: str, bundle: str, *specs: dict[str, Any], paused: bool = False) -> dags.StoredLoad:
    return await dags.store_load(db.writer, file, bundle, {file: f"# {bundle}"}, specs, 0.25, paused=paused)


async def test_a_version_is_what_a_dag_means_and_the_source_that_does_it(db: Database) -> None:
    first = await store(db, "a.py", "b1", spec("x"), spec("y"))
    assert [(dag_id, changed) for dag_id, _, changed in first] == [("x", True), ("y", True)]
    assert first.gone == []
    again = await store(db, "a.py", "b1", spec("x"), spec("y"))
    assert again.dags == [(dag_id, version_id, False) for dag_id, version_id, _ in first]
    other_source = await store(db, "a.py", "b2", spec("x"), spec("y"))
    assert [changed for _, _, changed in other_source] == [True, True]
    meaning = await store(db, "a.py", "b2", spec("x", tags=["new"]), spec("y"))
    assert [changed for _, _, changed in meaning] == [True, False]
    back = await store(db, "a.py", "b1", spec("x"), spec("y"))
    assert back.dags == first.dags, "what came back is the version it was"
    numbers = await db.read.fetch("SELECT dag_id, number FROM dag_version ORDER BY 1, 2")
    assert [tuple(row) for row in numbers] == [("x", 1), ("x", 2), ("x", 3), ("y", 1), ("y", 2)]
    assert await db.read.fetchval("SELECT spec_hash FROM dag_version WHERE id = $1", back.dags[0][1]) == spec_hash(
        spec("x")
    )
    assert await dags.bundle(db.read, "b2") == ("a.py", {"a.py": "# b2"})
    assert await dags.bundle(db.read, "b3") is None


async def test_dags_that_a_file_no_longer_defines_are_gone_and_may_come_back(db: Database) -> None:
    await store(db, "a.py", "b1", spec("x"), spec("y"))
    assert (await store(db, "a.py", "b2", spec("x"))).gone == ["y"]
    assert (await store(db, "a.py", "b2", spec("x"))).gone == [], "told once"
    assert [(dag.spec.dag_id, dag.removed) for dag in (await loading.load(db.writer)).snapshot.dags] == [
        ("x", False),
        ("y", True),
    ]
    assert (await store(db, "a.py", "b3")).gone == ["x"], "a file may define nothing"
    back = await store(db, "a.py", "b1", spec("x"), spec("y"))
    assert [changed for _, _, changed in back] == [True, True], "a dag that came back is news, whatever its version"
    assert not any(dag.removed for dag in (await loading.load(db.writer)).snapshot.dags)


async def test_a_dag_in_two_files_is_refused_and_nothing_stored(db: Database) -> None:
    await store(db, "a.py", "b1", spec("x"))
    with pytest.raises(Refused) as caught:
        await store(db, "b.py", "b2", spec("w"), spec("x"))
    assert isinstance(caught.value, dags.DagTaken)
    assert (caught.value.dag_id, caught.value.file, caught.value.other_file) == ("x", "b.py", "a.py")
    with pytest.raises(dags.DagTaken, match=r"'x' in b\.py is already defined in b.py"):
        await store(db, "b.py", "b2", spec("x"), spec("x"))
    for word in ("FLX-5040", "'x'", "a.py", "b.py"):
        assert word in str(caught.value)
    assert list(await dags.known_files(db.read)) == ["a.py"]
    # Once the first file is gone, the other may have it; its versions go on.
    assert await dags.remove_file(db.writer, "a.py") == ["x"]
    assert len(await store(db, "b.py", "b2", spec("w"), spec("x"))) == 2
    assert await dags.remove_file(db.writer, "a.py") == []


async def test_a_file_that_breaks_keeps_its_dags(db: Database) -> None:
    await store(db, "a.py", "b1", spec("x"))
    error = {"code": "FLX-2001", "message": "Zeile 3 \0 kaputt \ud800", "line": 3, "traceback": "…", "at": "now"}
    await dags.store_error(db.writer, "a.py", error)
    await dags.store_error(db.writer, "new.py", error)
    known = await dags.known_files(db.read)
    kept = {**error, "message": "Zeile 3 � kaputt ���"}
    assert known["new.py"] == KnownFile("new.py", None, None, None, kept, removed=False, dag_ids=[])
    assert (known["a.py"].bundle, known["a.py"].error, known["a.py"].dag_ids) == ("b1", kept, ["x"])
    await store(db, "a.py", "b1", spec("x"))
    assert (await dags.known_files(db.read))["a.py"].error is None
    await dags.remove_file(db.writer, "a.py")
    assert (await dags.known_files(db.read))["a.py"].removed


@pytest.mark.parametrize(
    ("setting", "asked", "paused"),
    [(False, None, False), (True, None, True), (True, False, False), (False, True, True)],
)
async def test_what_a_dag_is_at_first_sight(db: Database, setting: bool, asked: bool | None, paused: bool) -> None:
    one = spec("x", is_paused_upon_creation=asked)
    await store(db, "a.py", "b1", one, paused=setting)
    assert (await loading.load(db.writer)).snapshot.dags[0].paused is paused
    # Seen before, it stays as it is.
    await store(db, "a.py", "b2", one, paused=not paused)
    assert (await loading.load(db.writer)).snapshot.dags[0].paused is paused


async def test_a_thousand_dags_in_one_file(db: Database) -> None:
    stored = await store(db, "a.py", "b1", *(spec(f"d{n}") for n in range(1000)))
    assert [dag_id for dag_id, _, _ in stored] == [f"d{n}" for n in range(1000)]
