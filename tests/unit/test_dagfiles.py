"""Which files count as dag files, and what a change of a file has for a consequence."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fluxd import config
from fluxd.core.events import DagLoaded, DagRemoved, Event
from fluxd.dagfiles import DagFiles, Loaded, dag_files

LONG_S = 20.0


class Folder:
    """A folder that is watched, and what came of it. A file "imports" the names in its text; `broken` breaks it,
    `hangs` holds its load up until it is let go, `odd` makes a dag that no dag can be."""

    def __init__(self, home: Path) -> None:
        settings = config.load(home, environment={})
        self.path = settings.dags
        self.path.mkdir()
        self.events: list[Event] = []
        self.happened: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.stored: set[str] = set()
        self.errors: dict[str, str] = {}
        self.loads: list[str] = []
        self.let_go = asyncio.Event()
        self.files = DagFiles(settings, self.load, self, self.events.append, lambda file: None)

    def write(self, name: str, text: str = "") -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(text)

    async def load(self, file: str) -> dict[str, Any]:
        words = (self.path / file).read_text().split()
        modules = [word for word in words if (self.path / word).is_file()]
        texts = {name: (self.path / name).read_text() for name in [file, *modules]}
        error = {"code": "FLX-2001", "message": "no"} if any("broken" in text for text in texts.values()) else None
        files = {} if error else texts
        self.loads.append(file)
        if "hangs" in words:
            self.happened.put_nowait(("loading", file))
            await self.let_go.wait()
        spec = {"dag_id": Path(file).stem} | ({"max_active_runs": "x"} if "odd" in words else {})
        return {"bundle": "b", "files": files, "dags": [spec], "seconds": 0.0, "error": error}

    async def loaded(self, file: str, message: dict[str, Any]) -> Loaded:
        self.stored.add(file)
        self.happened.put_nowait(("loaded", file))
        return Loaded({spec["dag_id"]: 1 for spec in message["dags"]}, [])

    async def broken(self, file: str, error: dict[str, Any]) -> None:
        self.stored.add(file)
        self.errors[file] = error["message"]
        self.happened.put_nowait(("broken", file))

    async def gone(self, file: str) -> list[str]:
        self.stored.discard(file)
        self.happened.put_nowait(("gone", file))
        return [Path(file).stem]

    async def known(self) -> set[str]:
        return set(self.stored)

    async def until(self, what: str, file: str) -> None:
        async with asyncio.timeout(LONG_S):
            while await self.happened.get() != (what, file):
                pass


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
async def watched(folder: Folder) -> AsyncIterator[Folder]:
    folder.write("_helper.py")
    folder.write("sales.py", "_helper.py")
    folder.write("other.py")
    task = asyncio.create_task(folder.files.watch())
    async with asyncio.timeout(LONG_S):
        await folder.files.loaded.wait()
    folder.happened = asyncio.Queue()
    yield folder
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(LONG_S):
            await task


def test_which_files_count(folder: Folder) -> None:
    for name in ("b.py", "a.py", "team/c.py", "_m.py", ".h.py", "_lib/d.py", ".git/e.py", "data.csv"):
        folder.write(name)
    assert dag_files(folder.path) == ["a.py", "b.py", "team/c.py"]


@pytest.mark.anyio
async def test_what_went_while_nobody_watched_is_removed(folder: Folder) -> None:
    folder.stored = {"old.py"}
    folder.write("new.py")
    await folder.files.load_all()
    assert DagRemoved("old") in folder.events
    assert [event.spec.dag_id for event in folder.events if isinstance(event, DagLoaded)] == ["new"]


@pytest.mark.anyio
async def test_a_changed_module_reloads_those_that_import_it_alone(watched: Folder) -> None:
    watched.write("_helper.py", "changed")
    await watched.until("loaded", "sales.py")
    assert watched.happened.empty()


@pytest.mark.anyio
async def test_a_mended_module_reloads_what_it_had_broken(watched: Folder) -> None:
    watched.write("_lib.py", "broken")
    watched.write("new.py", "_lib.py")
    await watched.until("broken", "new.py")
    watched.write("_lib.py", "well")
    await watched.until("loaded", "new.py")


@pytest.mark.anyio
async def test_a_removed_file_removes_its_dags(watched: Folder) -> None:
    (watched.path / "other.py").unlink()
    await watched.until("gone", "other.py")
    watched.write("other.py", "again")
    await watched.until("loaded", "other.py")


@pytest.mark.anyio
async def test_a_folder_that_comes_and_goes_as_a_whole(watched: Folder, tmp_path: Path) -> None:
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "x.py").write_text("")
    shutil.move(tmp_path / "team", watched.path / "team")
    await watched.until("loaded", "team/x.py")
    shutil.move(watched.path / "team", tmp_path / "team")
    await watched.until("gone", "team/x.py")


@pytest.mark.anyio
async def test_a_file_that_hangs_holds_up_no_other(watched: Folder) -> None:
    watched.write("slow.py", "hangs")
    await watched.until("loading", "slow.py")
    watched.write("quick.py")
    await watched.until("loaded", "quick.py")
    for round_ in range(3):  # what comes meanwhile is one load, of the newest content
        watched.write("slow.py", f"hangs {round_}")
        watched.write("quick.py", f"{round_}")
        await watched.until("loaded", "quick.py")
    watched.let_go.set()
    await watched.until("loaded", "slow.py")
    await watched.until("loaded", "slow.py")
    assert watched.loads.count("slow.py") == 2


@pytest.mark.anyio
async def test_a_dag_that_describes_itself_wrongly_is_not_stored(folder: Folder) -> None:
    folder.write("odd.py", "odd")
    folder.write("good.py")
    await folder.files.load_all()
    assert [event.spec.dag_id for event in folder.events if isinstance(event, DagLoaded)] == ["good"]
    assert "max_active_runs 'x', which is not a whole number" in folder.errors["odd.py"]
