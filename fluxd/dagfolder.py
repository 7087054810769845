"""Sees which Python files lie in the dags folder, and which of them changed.

All that touches the folder's disk happens in one thread: a disk that hangs holds up this thread and nothing else.

inotify tells of a change within milliseconds, but not of every one. A deploy may switch a link, or put another folder
in the place of this one, while inotify stays with the old; so the folder's identity is compared every two seconds.
inotify forgets when too much happens, and network disks tell nothing; so everything is looked through every minute.
"""

import asyncio
import contextlib
import errno
import os
import stat
import threading
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from watchfiles._rust_notify import RustNotify

from fluxd.observations import Seen, observe

LOOK_S = 2.0
RESCAN_S = 60.0
STOP_S = 1.0

Stamp = tuple[int, int]  # mtime in ns, size: equal stamps mean that the file is as it was
Identity = tuple[int, int]  # device and inode


@dataclass(frozen=True)
class FolderChange:
    """What a look at the folder found: Python files, by their paths relative to it."""

    changed: set[str]
    gone: set[str]
    present: set[str] | None = None  # all that are there, when the whole folder was looked through
    unread: set[str] = field(default_factory=set)  # what could not be read: nothing is known of the files in it
    anew: bool = False  # the watch began: what happened before it is unknown


def lies_in(file: str, paths: set[str]) -> bool:
    """Whether one of these is the file or a folder above it."""
    return file in paths or (bool(paths) and not paths.isdisjoint(map(str, Path(file).parents)))


def _identity(path: Path) -> Identity:
    found = path.stat()
    return found.st_dev, found.st_ino


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.split("/"))


@dataclass(frozen=True)
class Found:
    """The Python files at or below a folder, and what of it makes inotify tell of other paths than those."""

    stamps: dict[str, Stamp] = field(default_factory=dict)  # by relative path
    unread: set[str] = field(default_factory=set)
    links: dict[str, Identity] = field(default_factory=dict)  # to folders: where each leads
    shared: set[str] = field(default_factory=set)  # files that have other names too: links, also hard ones


def python_files(folder: Path, start: str = "") -> Found:
    """What lies at or below `start`, without hidden files.

    Links are followed, but not back to a folder that leads to them. Raises OSError when `folder` itself is away.
    """
    result = Found()
    stamps, unread = result.stamps, result.unread
    parts = Path(start).parts
    try:
        above = frozenset(_identity(Path(folder, *parts[:depth])) for depth in range(len(parts)))
    except (FileNotFoundError, NotADirectoryError):
        return result
    ahead = [(start, above)] if len(above) == len(parts) else []
    while ahead:
        name, above = ahead.pop()
        path = folder / name
        try:
            found = path.stat()
            if stat.S_ISREG(found.st_mode) and name.endswith(".py"):
                stamps[name] = (found.st_mtime_ns, found.st_size)
                if found.st_nlink > 1 or path.is_symlink():
                    result.shared.add(name)
            elif stat.S_ISDIR(found.st_mode) and (own := (found.st_dev, found.st_ino)) not in above:
                ahead += [(f"{name}/{entry}" if name else entry, above | {own}) for entry in _entries(path)]
                if name and path.is_symlink():
                    result.links[name] = own
        except OSError as error:
            if not name:
                raise
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                unread.add(name)
    return result


def _entries(path: Path) -> list[str]:
    """Names that are worth a look; data files that lie beside are not."""
    with os.scandir(path) as entries:
        return [
            entry.name
            for entry in entries
            if not _is_hidden(entry.name)
            and (entry.name.endswith(".py") or entry.is_symlink() or entry.is_dir(follow_symlinks=False))
        ]


async def changes(folder: Path, settle_ms: int) -> AsyncGenerator[FolderChange, None]:
    """First all that is there, then what changes. A folder that is away for a while changes nothing."""
    loop = asyncio.get_running_loop()
    looks: asyncio.Queue[FolderChange] = asyncio.Queue()
    ended = asyncio.Event()
    stop = threading.Event()

    def on_loop(call: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # a loop that is closed listens no more
            loop.call_soon_threadsafe(call)

    def work() -> None:
        _Watch(folder, settle_ms, lambda look: on_loop(lambda: looks.put_nowait(look)), stop).run()
        on_loop(ended.set)

    # A thread of its own: who waits for those of a pool at the end would wait for a disk that hangs.
    threading.Thread(target=work, name="dags-folder", daemon=True).start()
    try:
        while True:
            yield await looks.get()
    finally:
        stop.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await ended.wait()


class _Watch:
    """The thread's work: looks at the folder until `stop` is set, and tells what changed."""

    def __init__(
        self, folder: Path, settle_ms: int, tell: Callable[[FolderChange], None], stop: threading.Event
    ) -> None:
        self._folder = folder
        self._settle_ms = settle_ms
        self._tell = tell
        self._stop = stop
        self._real = folder  # where the folder is now, links resolved
        self._own: Identity = (0, 0)
        self._stamps: dict[str, Stamp] = {}
        self._links: dict[str, Identity] = {}
        self._is_linked = False  # one file may have several paths, of which inotify tells one: perhaps a hidden one
        self._hindrance = ""  # said once, and not at every look

    def run(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch()
            except Exception as error:  # whatever it is, it may be over at the next look
                self._hindered(error, LOOK_S)
                self._stop.wait(LOOK_S)

    def _hindered(self, error: Exception, seconds: float) -> None:
        if str(error) != self._hindrance:
            self._hindrance = str(error)
            observe(Seen.DAGS_FOLDER_UNWATCHED, folder=self._folder, reason=error, seconds=seconds)

    def _watch(self) -> None:
        """Watch until another folder is in this place. Raises OSError while there is none."""
        self._real = self._folder.resolve()
        self._own = _identity(self._real)
        with contextlib.ExitStack() as stack:
            watcher = None
            try:
                watcher = stack.enter_context(RustNotify([str(self._real)], False, False, 300, True, True))
            except Exception as error:  # no inotify here, or all its watches are taken
                self._hindered(error, RESCAN_S)
            if not self._look_through(anew=True):  # after the watch began: no change falls between the two
                return
            looked = time.monotonic()
            while not self._stop.is_set():
                touched = self._touched(watcher)
                if touched and self._is_linked:
                    if not self._look_through(touched=touched):
                        return
                    looked = time.monotonic()
                elif touched and not self._look_at(touched):
                    return
                if _identity(self._folder) != self._own:
                    return
                if time.monotonic() - looked > RESCAN_S:
                    if watcher is None or not self._look_through():
                        return  # a watch may be had again
                    looked = time.monotonic()
                    self._hindrance = ""

    def _touched(self, watcher: RustNotify | None) -> set[str]:
        """Relative paths of which inotify tells; none when nothing happens within LOOK_S."""
        if watcher is None:
            self._stop.wait(LOOK_S)
            return set()
        settle_ms = max(1, self._settle_ms)
        told = watcher.watch(settle_ms * 10, settle_ms, int(LOOK_S * 1000), self._stop)
        if isinstance(told, str):  # why there is nothing
            return set()
        paths = {os.path.relpath(path, self._real) for _, path in told} - {"."}
        return paths if self._is_linked else {path for path in paths if not _is_hidden(path)}

    def _look_through(self, *, anew: bool = False, touched: frozenset[str] | set[str] = frozenset()) -> bool:
        """Look at all. False when a new watch is needed: another folder is in this place now (what was seen counts for
        nothing then), or a link leads elsewhere, since inotify follows links when a watch begins, and then no more."""
        found = python_files(self._real)
        if not anew and found.links != self._links:
            return False
        now, unread = found.stamps, found.unread
        self._links, self._is_linked = found.links, bool(found.links or found.shared)
        before = self._stamps
        # A file that is told of was written, even when its stamp is the same: the clock of a disk is coarse.
        changed = {file for file, stamp in now.items() if file in touched or before.get(file) != stamp}
        kept = {file: before[file] for file in before.keys() - now.keys() if lies_in(file, unread)}
        gone = before.keys() - now.keys() - kept.keys()
        return self._found(now | kept, FolderChange(changed, gone, now.keys() | kept.keys(), unread, anew))

    def _look_at(self, touched: set[str]) -> bool:
        """Look at these paths, each a file or a folder that came, went or changed. False as in `_look_through`."""
        # inotify follows links to folders when a watch begins, and then no more.
        if any(path.is_symlink() and path.is_dir() for path in (self._real / name for name in touched)):
            return False
        now: dict[str, Stamp] = {}
        unread: set[str] = set()
        for path in touched:
            found = python_files(self._real, path)
            now |= found.stamps
            unread |= found.unread
            self._is_linked = self._is_linked or bool(found.shared or found.links)
        # A file that is told of was written, even when its stamp is the same: the clock of a disk is coarse.
        changed = {file for file, stamp in now.items() if file in touched or self._stamps.get(file) != stamp}
        maybe_gone = touched - now.keys()  # files, or folders above files
        missing = {file for file in self._stamps.keys() - now.keys() if lies_in(file, maybe_gone)}
        gone = {file for file in missing if not lies_in(file, unread)}
        if not changed and not gone:
            return True
        rest = {file: stamp for file, stamp in self._stamps.items() if file not in gone}
        return self._found(rest | now, FolderChange(changed, gone))

    def _found(self, stamps: dict[str, Stamp], look: FolderChange) -> bool:
        # A folder that is moved away during a look seems to lose its files.
        if _identity(self._folder) != self._own:
            return False
        self._stamps = stamps
        self._tell(look)
        return True
