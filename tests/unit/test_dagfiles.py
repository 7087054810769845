"""Which files count as dag files, and what a change of a file has for a consequence."""

import asyncio
import contextlib
import logging
import shutil
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fluxd import config, dagfiles, dagfolder
from fluxd.core.events import DagLoaded, DagRemoved, Event
from fluxd.dagfiles import DagFiles, StoredFile, dag_files, in_slices
from fluxd.dagfolder import python_files
from fluxd.errors import Refused

LONG_S = 20.0


class Folder:
    """A folder that is watched, and what came of it. A file "imports" the names in its text; `broken` breaks it,
    `hangs` holds its load up until it is let go, `odd` makes a dag that no dag can be, `crashes` is an error that
    nobody foresaw, `unkept` one that cannot even be stored, `unlucky` finds no process at first. It defines a dag of
    its own name, or those in `dag=`."""

    def __init__(self, home: Path) -> None:
        settings = config.load(home, environment={})
        self.path = settings.dags
        self.path.mkdir(exist_ok=True)
        self.events: list[Event] = []
        self.happened: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.stored: set[str] = set()
        self.errors: dict[str, str] = {}
        self.dags: dict[str, str] = {}  # dag id -> its file
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
        if "crashes" in words or "unkept" in words:
            raise TypeError(" ".join(words))
        if "unlucky" in words and self.loads.count(file) < 3:
            error = {"code": "FLX-2010", "message": "no process"}
        ids = [word.removeprefix("dag=") for word in words if word.startswith("dag=")] or [Path(file).stem]
        specs = [{"dag_id": name} | ({"max_active_runs": "x"} if "odd" in words else {}) for name in ids]
        return {"bundle": "b", "files": files, "dags": specs, "seconds": 0.0, "error": error}

    async def loaded(self, file: str, message: dict[str, Any]) -> StoredFile:
        ids = [spec["dag_id"] for spec in message["dags"]]
        if taken := [dag_id for dag_id in ids if self.dags.get(dag_id, file) != file]:
            raise Refused("FLX-5040", f"{taken[0]} is in {self.dags[taken[0]]}")
        removed = [dag_id for dag_id, owner in self.dags.items() if owner == file and dag_id not in ids]
        self.dags = {dag_id: owner for dag_id, owner in self.dags.items() if owner != file} | dict.fromkeys(ids, file)
        self.stored.add(file)
        self.errors.pop(file, None)
        self.happened.put_nowait(("loaded", file))
        return StoredFile(dict.fromkeys(ids, 1), removed)

    async def broken(self, file: str, error: dict[str, Any]) -> None:
        file.encode()  # as a database does
        if "unkept" in error["message"]:
            raise ValueError("no text for a database")
        self.stored.add(file)
        self.errors[file] = f"{error['code']}: {error['message']}"
        self.happened.put_nowait(("broken", file))

    async def gone(self, file: str) -> list[str]:
        self.stored.discard(file)
        self.errors.pop(file, None)
        removed = [dag_id for dag_id, owner in self.dags.items() if owner == file]
        for dag_id in removed:
            del self.dags[dag_id]
        self.happened.put_nowait(("gone", file))
        return removed

    async def known(self) -> set[str]:
        return set(self.stored)

    async def until(self, what: str, file: str) -> None:
        async with asyncio.timeout(LONG_S):
            while await self.happened.get() != (what, file):
                pass


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@contextlib.asynccontextmanager
async def watching(folder: Folder) -> AsyncIterator[None]:
    """The folder is watched; all its files are looked at."""
    task = asyncio.create_task(folder.files.watch())
    loaded = asyncio.create_task(folder.files.loaded.wait())
    async with asyncio.timeout(LONG_S):
        await asyncio.wait([task, loaded], return_when=asyncio.FIRST_COMPLETED)
    assert not task.done(), task
    yield
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(LONG_S):
            await task


@pytest.fixture
async def watched(folder: Folder) -> AsyncIterator[Folder]:
    folder.write("_helper.py")
    folder.write("sales.py", "_helper.py")
    folder.write("other.py")
    async with watching(folder):
        folder.happened = asyncio.Queue()
        folder.loads.clear()
        yield folder


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dagfolder, "LOOK_S", 0.05)


def test_which_files_count(folder: Folder) -> None:
    for name in ("b.py", "a.py", "team/c.py", "_m.py", ".h.py", "_lib/d.py", ".git/e.py", "data.csv"):
        folder.write(name)
    found = python_files(folder.path)
    assert dag_files(set(found.stamps)) == {"a.py", "b.py", "team/c.py"}
    assert not found.unread and not found.links and not found.shared


@pytest.mark.anyio
async def test_what_went_while_nobody_watched_is_removed(folder: Folder) -> None:
    folder.stored = {"old.py"}
    folder.dags = {"old": "old.py"}
    folder.write("new.py")
    async with watching(folder):
        pass
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
    async with watching(folder):
        pass
    assert [event.spec.dag_id for event in folder.events if isinstance(event, DagLoaded)] == ["good"]
    assert "max_active_runs 'x', which is not a whole number" in folder.errors["odd.py"]


# ------------------------------------------------------------------------------ one bad file stops no other


@pytest.mark.anyio
async def test_an_error_that_nobody_foresaw_stops_no_other_file(folder: Folder, caplog: Any) -> None:
    folder.write("bad.py", "crashes")
    folder.write("worse.py", "unkept")
    folder.write("good.py")
    logging.getLogger("fluxd").addHandler(caplog.handler)
    async with watching(folder):
        assert "good" in folder.dags
        assert folder.errors["bad.py"].startswith("FLX-2011: bad.py could not be loaded") and "worse.py" in caplog.text
        assert "Traceback" in caplog.text and "TypeError: crashes" in caplog.text
        told = [record for record in caplog.records if record.getMessage().startswith("dag file bad.py met")]
        assert {(len(one.getMessage().splitlines()), one.exc_info is not None) for one in told} == {(1, True)}
        folder.write("bad.py", "mended")
        await folder.until("loaded", "bad.py")


@pytest.mark.anyio
async def test_a_name_that_is_no_utf8_is_refused_and_stops_no_other(quick_looks: None, folder: Folder) -> None:
    folder.write("good.py")
    folder.write("caf\udce9.py")
    async with watching(folder):
        assert "good" in folder.dags
        assert folder.errors["caf\\xe9.py"].startswith("FLX-2012")
        folder.write("th\udce9.py")
        await folder.until("broken", "th\\xe9.py")
        folder.write("later.py")
        await folder.until("loaded", "later.py")
        (folder.path / "caf\udce9.py").unlink()
        await folder.until("gone", "caf\\xe9.py")


@pytest.mark.anyio
async def test_a_file_for_which_there_was_no_process_is_tried_again(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dagfiles, "RETRY_FIRST_S", 0.01)
    folder.write("unlucky.py", "unlucky")
    async with watching(folder):
        await folder.until("loaded", "unlucky.py")
        assert folder.loads == ["unlucky.py"] * 3


# ------------------------------------------------------------------------------ dags that change their file


@pytest.mark.anyio
async def test_a_renamed_file_keeps_its_dags(watched: Folder) -> None:
    watched.write("z_old.py", "dag=moved")
    await watched.until("loaded", "z_old.py")
    (watched.path / "z_old.py").rename(watched.path / "m_new.py")
    await watched.until("loaded", "m_new.py")
    assert watched.dags["moved"] == "m_new.py" and "m_new.py" not in watched.errors
    assert [event for event in watched.events if isinstance(event, DagLoaded | DagRemoved)][-1] != DagRemoved("moved")


@pytest.mark.anyio
async def test_a_dag_whose_old_file_goes_late_is_taken_over(watched: Folder) -> None:
    watched.write("old.py", "dag=moved")
    await watched.until("loaded", "old.py")
    watched.write("old.py", "dag=moved hangs")
    await watched.until("loading", "old.py")
    (watched.path / "old.py").rename(watched.path / "kept.txt")
    watched.write("new.py", "dag=moved")
    await watched.until("broken", "new.py")
    watched.let_go.set()
    await watched.until("loaded", "new.py")
    assert watched.dags["moved"] == "new.py"


@pytest.mark.anyio
async def test_a_dag_that_leaves_a_file_for_another_is_taken_over(watched: Folder) -> None:
    watched.write("old.py", "dag=one dag=two")
    await watched.until("loaded", "old.py")
    watched.write("new.py", "dag=two")
    await watched.until("broken", "new.py")
    watched.write("old.py", "dag=one")
    await watched.until("loaded", "new.py")
    assert watched.dags["two"] == "new.py"


@pytest.mark.anyio
async def test_a_file_that_is_gone_is_not_gone_again_when_its_modules_change(watched: Folder) -> None:
    watched.write("also.py", "_helper.py")
    await watched.until("loaded", "also.py")
    (watched.path / "sales.py").unlink()
    await watched.until("gone", "sales.py")
    watched.write("_helper.py", "changed")
    await watched.until("loaded", "also.py")
    assert watched.happened.empty() and "sales.py" not in watched.loads


# ------------------------------------------------------------------------------ the folder itself


@pytest.mark.anyio
async def test_a_link_that_is_switched_is_another_folder(tmp_path: Path, quick_looks: None) -> None:
    for name, file in (("first", "one.py"), ("second", "two.py")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("")
        shutil.copy2(tmp_path / "first" / "one.py", tmp_path / name / "same.py")
    (tmp_path / "dags").symlink_to("first")
    folder = Folder(tmp_path)
    async with watching(folder):
        folder.loads.clear()
        (tmp_path / "new").symlink_to("second")
        (tmp_path / "new").replace(tmp_path / "dags")
        await folder.until("loaded", "two.py")
        assert set(folder.dags) == {"two", "same"} and folder.loads == ["two.py"]
        folder.write("three.py")
        await folder.until("loaded", "three.py")


@pytest.mark.anyio
async def test_a_folder_that_is_replaced_is_another_folder(quick_looks: None, watched: Folder, tmp_path: Path) -> None:
    watched.path.rename(tmp_path / "old")
    watched.path.mkdir()
    watched.write("two.py")
    await watched.until("loaded", "two.py")
    assert set(watched.dags) == {"two"}


@pytest.mark.anyio
async def test_a_folder_that_is_away_for_a_while_ends_nothing(
    quick_looks: None, watched: Folder, tmp_path: Path
) -> None:
    said = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "cannot be watched" in record.getMessage():
                loop.call_soon_threadsafe(said.set)

    logging.getLogger("fluxd").addHandler(listener := Listener())
    watched.path.rename(tmp_path / "away")
    async with asyncio.timeout(LONG_S):
        await said.wait()
    logging.getLogger("fluxd").removeHandler(listener)
    (tmp_path / "away" / "new.py").write_text("")
    (tmp_path / "away").rename(watched.path)
    await watched.until("loaded", "new.py")
    assert set(watched.dags) == {"sales", "other", "new"} and watched.loads == ["new.py"]


@pytest.mark.anyio
async def test_a_link_to_a_folder_inside_is_followed_when_it_is_switched(watched: Folder, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.py").write_text("")
    (watched.path / "team").symlink_to(tmp_path / "first")
    await watched.until("loaded", "team/first.py")
    (tmp_path / "new").symlink_to(tmp_path / "second")
    (tmp_path / "new").replace(watched.path / "team")
    await watched.until("loaded", "team/second.py")
    assert "first" not in watched.dags
    (tmp_path / "second" / "third.py").write_text("")
    await watched.until("loaded", "team/third.py")


@pytest.mark.anyio
async def test_where_nothing_is_told_all_is_looked_through(
    folder: Folder, quick_looks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*arguments: object) -> None:
        raise OSError("the limit of inotify watches is reached")

    monkeypatch.setattr(dagfolder, "RustNotify", none_left)
    monkeypatch.setattr(dagfolder, "RESCAN_S", 0.05)
    folder.write("_lib.py")
    folder.write("a.py", "_lib.py")
    folder.write("b.py")
    async with watching(folder):
        folder.write("_lib.py", "changed")
        folder.write("c.py")
        await folder.until("loaded", "c.py")
        (folder.path / "b.py").unlink()
        await folder.until("gone", "b.py")
        assert folder.loads.count("b.py") == 1 and folder.loads.count("a.py") == 2


@pytest.mark.anyio
async def test_a_disk_that_hangs_would_not_stop_the_loop(watched: Folder) -> None:
    readers: set[int] | None = set()

    def listen(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.scandir" and readers is not None and str(arguments[0]).startswith(str(watched.path)):
            readers.add(threading.get_ident())

    sys.addaudithook(listen)  # for as long as this process lives
    (watched.path / "team").mkdir()
    watched.write("team/x.py")
    await watched.until("loaded", "team/x.py")
    shutil.rmtree(watched.path / "team")
    await watched.until("gone", "team/x.py")
    found, readers = readers, None
    assert found and threading.get_ident() not in found


def test_links_in_a_circle_end(folder: Folder) -> None:
    folder.write("x.py")
    folder.write("team/y.py")
    (folder.path / "here").symlink_to(".")
    (folder.path / "there").symlink_to(".")
    (folder.path / "team" / "up").symlink_to("..")
    (folder.path / "nowhere.py").symlink_to("nowhere.py")
    assert set(python_files(folder.path).stamps) == {"x.py", "team/y.py"}
    assert set(python_files(folder.path, "team").stamps) == {"team/y.py"}


@pytest.mark.anyio
async def test_a_file_of_many_dags_lets_others_have_their_say() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert [one async for one in in_slices(range(1000))] == list(range(1000))
    task.cancel()
    assert turns >= 20
