"""Has the runner load dag files that changed, keeps what came of it, and tells the scheduler.

A file that breaks keeps its last good version, with the error beside it. A file that is gone takes no new runs; its
live runs end on the version they began with. Whatever is wrong with one file, the others are loaded.
"""

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

from fluxd.config import Settings
from fluxd.core.events import DagLoaded, DagRemoved, Event
from fluxd.core.spec import DagSpec
from fluxd.core.specchecks import checked_dag
from fluxd.dagfolder import FolderChange, changes, lies_in
from fluxd.errors import FluxError, Invalid
from fluxd.filenames import is_dag_file
from fluxd.observations import Seen, observe

DAG_TAKEN = "FLX-5040"
# No fault of the file: no process could be made for it, or the runner went away.
PASSING = ("FLX-2010", "FLX-5049", "FLX-7005")
RETRY_FIRST_S = 1.0
RETRY_MAX_S = 60.0
SLICE = 50

T = TypeVar("T")


@dataclass(frozen=True)
class StoredFile:
    """What a load came to: the dags that the file defines now, and those that it no longer does."""

    versions: dict[str, int]  # dag id -> version id
    removed: list[str]


class DagStore(Protocol):
    """Where what is known of dag files is kept."""

    async def loaded(self, file: str, message: dict[str, Any]) -> StoredFile: ...

    async def broken(self, file: str, error: dict[str, Any]) -> None: ...

    async def gone(self, file: str) -> list[str]: ...

    async def known(self) -> set[str]: ...


def dag_files(files: set[str]) -> set[str]:
    return {file for file in files if is_dag_file(file)}


def shown(file: str) -> str:
    r"""The path as text that can be printed and stored: bytes that are no UTF-8 become `\xe9`."""
    return file.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


async def in_slices(many: Sequence[T]) -> AsyncIterator[T]:
    """One after the other, and others of the event loop have their say in between."""
    for number, one in enumerate(many, 1):
        yield one
        if number % SLICE == 0:
            await asyncio.sleep(0)


@dataclass
class DagFiles:
    """Watches the folder. `load` asks the runner; `store` keeps; `post` tells the scheduler."""

    settings: Settings
    load: Callable[[str], Awaitable[dict[str, Any]]]
    store: DagStore
    post: Callable[[Event], None]
    on_change: Callable[[str], None]
    loaded: asyncio.Event = field(default_factory=asyncio.Event)  # all files of the folder were looked at once
    _there: set[str] = field(default_factory=set)  # the dag files that the folder holds
    # module of the folder -> the dag files that imported it, so that a changed module reloads them
    _importers: dict[str, set[str]] = field(default_factory=dict)
    # Files that could not be loaded, and the code that says why: what they lack may be in any module that changes.
    _broken_files: dict[str, str] = field(default_factory=dict)
    _slots: asyncio.Semaphore = field(init=False)
    _group: asyncio.TaskGroup = field(init=False)  # of the watch
    # Loads of one file are kept in order: the newest content is the last to be stored.
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    _waiting: set[str] = field(default_factory=set)  # files whose load has not begun yet
    _removals: int = 0  # how often dags were removed: their names are free since
    _delays: dict[str, float] = field(default_factory=dict)  # file that is to be tried again -> the next delay
    _retrying: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.settings.dagfiles.loads_at_once)

    async def watch(self) -> None:
        """Load all files, and then what changes, until cancelled. Begun anew, it finds what changed meanwhile."""
        self._waiting.clear()  # of a watch that failed
        self._retrying.clear()
        found = changes(self.settings.dags, self.settings.dagfiles.settle_ms)
        # Nobody waits for the loads of the last change: one file that hangs would hold up all others.
        async with asyncio.TaskGroup() as self._group, contextlib.aclosing(found):
            async for look in found:
                await self._follow(look)

    async def _follow(self, look: FolderChange) -> None:
        gone = {shown(file) for file in dag_files(look.gone)}
        if look.present is not None:
            self._there = dag_files(look.present)
            # Those too that went while nobody watched.
            known = await self.store.known() - {shown(file) for file in self._there}
            gone |= {file for file in known if not lies_in(file, look.unread)}
        self._there |= dag_files(look.changed)
        self._there -= look.gone
        # First, and without a slot: a file that has a new name brings its dags with it, and the old one holds them.
        for file in sorted(gone):
            if self._lock(file).locked():
                self._group.create_task(self._remove(file))  # after the load that goes on
            else:
                await self._remove(file)
        loads = [self._group.create_task(self.reload(file)) for file in sorted(self._affected(look))]
        if not self.loaded.is_set():
            self._group.create_task(self._first(loads))

    async def _first(self, loads: list[asyncio.Task[None]]) -> None:
        await asyncio.gather(*loads)
        self.loaded.set()

    def _affected(self, look: FolderChange) -> set[str]:
        files = dag_files(look.changed)
        changed = look.changed | look.gone
        if changed or look.anew:
            files |= self._broken_files.keys()
        for module in changed:
            files |= self._importers.get(module, set())
        return files & self._there

    def _lock(self, file: str) -> asyncio.Lock:
        return self._locks.setdefault(file, asyncio.Lock())

    async def reload(self, file: str) -> None:
        """Load one file now and store what came of it."""
        if file in self._waiting:
            return  # that load will see what the file holds now
        self._waiting.add(file)
        async with self._lock(file), self._slots:
            self._waiting.discard(file)
            if file not in self._there:
                return
            removals = self._removals
            error = await self._load(file)
            if error is None:
                self._delays.pop(file, None)
                return
            await self._broken(shown(file), error)
        if error["code"] == DAG_TAKEN and removals != self._removals:
            self._group.create_task(self.reload(file))  # by dags that were removed meanwhile
        elif error["code"] in PASSING:
            self._group.create_task(self._retry(file))

    async def _load(self, file: str) -> dict[str, Any] | None:
        """None when the file is loaded and stored, else what is wrong with it."""
        name = shown(file)
        try:
            if name != file:
                raise Invalid("FLX-2012", f"The name of the dag file {name} is not UTF-8: rename it.")
            message = await self.load(file)
            broken: dict[str, Any] | None = message["error"]
            if broken is None:
                await self._loaded(file, message, [checked_dag(spec) async for spec in in_slices(message["dags"])])
            return broken
        except FluxError as error:
            return {"code": error.code, "message": error.message, "file": name}
        except Exception as error:
            reason = "".join(traceback.format_exception_only(error)).strip().splitlines()[0]
            observe(Seen.DAG_FILE_UNFORESEEN, file=name, reason=reason, error=error)
            words = f"{name} could not be loaded for a reason that Flux did not foresee ({reason}); the log has more."
            return {"code": "FLX-2011", "message": words, "file": name, "traceback": traceback.format_exc()}

    async def _loaded(self, file: str, message: dict[str, Any], dags: list[DagSpec]) -> None:
        self._forget_imports(file)
        for module in message["files"]:
            if module != file:
                self._importers.setdefault(module, set()).add(file)
        result = await self.store.loaded(file, message)
        self._broken_files.pop(file, None)
        self._removed(result.removed)
        async for dag in in_slices(dags):
            if dag.dag_id in result.versions:
                asked = dag.is_paused_upon_creation
                paused = self.settings.daemon.paused_at_creation if asked is None else asked
                self.post(DagLoaded(dag, result.versions[dag.dag_id], paused))
        names = ", ".join(dag.dag_id for dag in dags) or "no dags"
        observe(Seen.DAG_FILE_LOADED, file=file, seconds=message["seconds"], dags=names)
        self.on_change(file)

    async def _broken(self, file: str, error: dict[str, Any]) -> None:
        self._broken_files[file] = error["code"]
        observe(Seen.DAG_FILE_BROKEN, file=file, reason=f"{error['code']}: {error['message']}")
        try:
            await self.store.broken(file, error)
        except Exception as failure:
            observe(Seen.DAG_FILE_UNKEPT, file=file, reason=type(failure).__name__, error=failure)
        self.on_change(file)

    async def _retry(self, file: str) -> None:
        """Load the file again a little later, and later each time."""
        if file in self._retrying:
            return
        self._retrying.add(file)
        delay_s = self._delays.get(file, RETRY_FIRST_S)
        self._delays[file] = min(RETRY_MAX_S, delay_s * 2)
        await asyncio.sleep(delay_s)
        self._retrying.discard(file)
        if self._broken_files.get(file) in PASSING:
            await self.reload(file)

    async def _remove(self, file: str) -> None:
        async with self._lock(file):
            self._forget_imports(file)
            self._broken_files.pop(file, None)
            self._delays.pop(file, None)
            try:
                dag_ids = await self.store.gone(file)
            except Exception as failure:
                observe(Seen.DAG_FILE_UNKEPT, file=file, reason=type(failure).__name__, error=failure)
                return
            self._removed(dag_ids)
            observe(Seen.DAG_FILE_REMOVED, file=file, dags=", ".join(dag_ids) or "its dags")
            self.on_change(file)

    def _forget_imports(self, file: str) -> None:
        for importers in self._importers.values():
            importers.discard(file)

    def _removed(self, dag_ids: list[str]) -> None:
        """These dags are no more; a file that could not have one of their names may have it now."""
        for dag_id in dag_ids:
            self.post(DagRemoved(dag_id))
        if dag_ids:
            self._removals += 1
            for file in [file for file, code in self._broken_files.items() if code == DAG_TAKEN]:
                self._group.create_task(self.reload(file))
