"""A file that has several paths: each of them is told of, whichever inotify names."""

import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fluxd.dagfolder import FolderChange, _Watch

PATIENCE_S = 20.0  # less than the time to the next look at everything
Step = Callable[[Path], object]


def write(name: str, text: str) -> Step:
    return lambda dags: (dags / name).write_text(text)


def switch(link: str, to: str) -> Step:
    """What a deploy does: a new link is put in the place of the old one."""

    def step(dags: Path) -> None:
        (dags / f"{link}.new").symlink_to(to)
        (dags / f"{link}.new").replace(dags / link)

    return step


def twice(dags: Path) -> None:
    (dags / "team").mkdir()
    (dags / "team/common").symlink_to("../common")


def release(dags: Path) -> None:
    for version in ("v1", "v2"):
        (dags / ".rel" / version).mkdir(parents=True)
        (dags / ".rel" / version / "m.py").write_text(version)
    (dags / "cur").symlink_to(".rel/v1")


def mounted(dags: Path) -> None:
    """As a volume of configuration is mounted: each file is a link through a hidden one."""
    for version in ("..1", "..22"):
        (dags / version).mkdir()
        (dags / version / "m.py").write_text(version)
    (dags / "..data").symlink_to("..1")
    (dags / "m.py").symlink_to("..data/m.py")


def hard(dags: Path) -> None:
    os.link(dags / "common/m.py", dags / "second.py")


def file_link(dags: Path) -> None:
    (dags / "second.py").symlink_to("common/m.py")


BOTH = {"common/m.py", "team/common/m.py"}
NEW = {"common/n.py", "team/common/n.py"}
SECOND = {"common/m.py", "second.py"}


def gone(name: str) -> Step:
    return lambda dags: (dags / name).unlink()


CASES: list[tuple[Step, list[tuple[Step, set[str]]]]] = [
    (twice, [(write("common/m.py", "22"), BOTH), (write("team/common/m.py", "333"), BOTH)]),
    (twice, [(gone("team/common"), {"team/common/m.py"}), (write("common/m.py", "22"), {"common/m.py"})]),
    (twice, [(gone("common/m.py"), BOTH), (write("common/n.py", "1"), NEW)]),
    (release, [(write("cur/m.py", "written"), {"cur/m.py"}), (switch("cur", ".rel/v2"), {"cur/m.py"})]),
    (release, [(switch("cur", ".rel/v2"), {"cur/m.py"}), (write(".rel/v2/m.py", "written"), {"cur/m.py"})]),
    (mounted, [(switch("..data", "..22"), {"m.py"}), (write("..22/m.py", "written"), {"m.py"})]),
    (hard, [(write("common/m.py", "22"), SECOND), (write("second.py", "333"), SECOND)]),
    (file_link, [(write("common/m.py", "22"), SECOND)]),
    (lambda d: None, [(twice, {"team/common/m.py"}), (write("common/m.py", "22"), BOTH)]),
    (lambda d: None, [(hard, {"second.py"}), (write("common/m.py", "22"), SECOND)]),
]  # fmt: skip


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    (tmp_path / "dags/common").mkdir(parents=True)
    (tmp_path / "dags/common/m.py").write_text("1")
    return tmp_path / "dags"


@pytest.fixture
def watch(dags: Path) -> Iterator[Callable[[Step], "queue.Queue[FolderChange]"]]:
    stop = threading.Event()
    threads = []

    def begin(prepare: Step) -> "queue.Queue[FolderChange]":
        prepare(dags)
        seen: queue.Queue[FolderChange] = queue.Queue()
        threads.append(threading.Thread(target=_Watch(dags, 25, seen.put, stop).run))
        threads[0].start()
        assert seen.get(timeout=PATIENCE_S).anew
        return seen

    yield begin
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)


@pytest.mark.parametrize(("prepare", "steps"), CASES)
def test_every_path_of_a_file_is_told_of(
    watch: Callable[[Step], "queue.Queue[FolderChange]"], dags: Path, prepare: Step, steps: list[tuple[Step, set[str]]]
) -> None:
    seen = watch(prepare)
    for step, wanted in steps:
        step(dags)
        missing = set(wanted)
        while missing:
            look = seen.get(timeout=PATIENCE_S)
            missing -= look.changed | look.gone
