"""Sees changed dag files, has the runner load them, keeps what came of it, and tells the scheduler.

A file that breaks keeps its last good version, with the error beside it. A file that is gone takes no new runs; its
live runs end on the version they began with.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from watchfiles import Change, awatch

from fluxd.config import Settings
from fluxd.core.events import DagLoaded, DagRemoved, Event
from fluxd.core.spec import DagSpec
from fluxd.core.specchecks import checked_dag
from fluxd.errors import FluxError
from fluxd.observations import Seen, observe


@dataclass(frozen=True)
class Loaded:
    """What a load came to: the dags that the file defines now, and those that it no longer does."""

    versions: dict[str, int]  # dag id -> version id
    removed: list[str]


class DagStore(Protocol):
    """Where what is known of dag files is kept."""

    async def loaded(self, file: str, message: dict[str, Any]) -> Loaded: ...

    async def broken(self, file: str, error: dict[str, Any]) -> None: ...

    async def gone(self, file: str) -> list[str]: ...

    async def known(self) -> set[str]: ...


def is_dag_file(path: Path) -> bool:
    """Every .py file counts, except hidden ones and those whose name (or a folder of theirs) begins with `_`."""
    return path.suffix == ".py" and not any(part.startswith((".", "_")) for part in path.parts)


def dag_files(folder: Path) -> list[str]:
    """The dag files below a folder, as sorted relative paths."""
    found = []
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        found += [str(path) for name in files if is_dag_file(path := (Path(root) / name).relative_to(folder))]
    return sorted(found)


@dataclass
class DagFiles:
    """Watches the folder. `load` asks the runner; `store` keeps; `post` tells the scheduler."""

    settings: Settings
    load: Callable[[str], Awaitable[dict[str, Any]]]
    store: DagStore
    post: Callable[[Event], None]
    on_change: Callable[[str], None]
    # module of the folder -> the dag files that imported it, so that a changed module reloads them
    _importers: dict[str, set[str]] = field(default_factory=dict)
    # Files that could not be loaded: what they lack may be in any module that changes.
    _broken_files: set[str] = field(default_factory=set)
    loaded: asyncio.Event = field(default_factory=asyncio.Event)  # all files of the folder were looked at once
    _slots: asyncio.Semaphore = field(init=False)
    # Loads of one file are kept in order: the newest content is the last to be stored.
    _loading: dict[str, asyncio.Lock] = field(default_factory=dict)
    _waiting: set[str] = field(default_factory=set)  # files whose load has not begun yet

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.settings.dagfiles.loads_at_once)

    async def load_all(self) -> None:
        """Load every file of the folder, and forget those that went while nobody watched."""
        present = dag_files(self.settings.dags)
        for file in sorted(await self.store.known() - set(present)):
            await self._gone(file)
        async with asyncio.TaskGroup() as group:
            for file in present:
                group.create_task(self.reload(file))
        self.loaded.set()

    async def watch(self) -> None:
        """Load all files, and then what changes, until cancelled. Begun anew, it finds what changed meanwhile."""
        stop = asyncio.Event()
        self._waiting.clear()  # of a watch that failed
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch(stop))  # first, so that no change falls between the two
                group.create_task(self.load_all())
        finally:
            stop.set()  # the watching thread would else finish its wait of seconds first

    async def _watch(self, stop: asyncio.Event) -> None:
        # Nobody waits for the loads of the last change: one file that hangs would hold up all others.
        async with asyncio.TaskGroup() as group, contextlib.aclosing(self._changes(stop)) as found:
            async for changes in found:
                for file in sorted(self._affected(changes)):
                    group.create_task(self.reload(file))

    def _changes(self, stop: asyncio.Event) -> AsyncGenerator[set[tuple[Change, str]], None]:
        settle_ms = self.settings.dagfiles.settle_ms
        return awatch(
            self.settings.dags,
            watch_filter=lambda change, path: path.endswith(".py") or change is Change.deleted or Path(path).is_dir(),
            debounce=max(1, settle_ms * 10),
            step=max(1, settle_ms),
            recursive=True,
            stop_event=stop,
        )

    def _affected(self, changes: set[tuple[Change, str]]) -> set[str]:
        files = set()
        for _, path in changes:
            relative = os.path.relpath(path, self.settings.dags)
            if not relative.endswith(".py"):
                # A folder that came or went as a whole: nothing is told of the files in it.
                there = dag_files(self.settings.dags) if Path(path).is_dir() else []
                files |= {file for file in [*there, *self._loading] if file.startswith(relative + os.sep)}
                continue
            if is_dag_file(Path(relative)):
                files.add(relative)
            files |= self._importers.get(relative, set()) | self._broken_files
        return files

    async def reload(self, file: str) -> None:
        """Load one file now and store what came of it."""
        if file in self._waiting:
            return  # that load will see what the file holds now
        self._waiting.add(file)
        lock = self._loading.setdefault(file, asyncio.Lock())
        async with lock, self._slots:
            self._waiting.discard(file)
            if not (self.settings.dags / file).is_file():
                await self._gone(file)
                return
            try:
                message = await self.load(file)
                if message["error"] is None:
                    await self._loaded(file, message, [checked_dag(spec) for spec in message["dags"]])
                else:
                    await self._broken(file, message["error"])
            except FluxError as error:
                await self._broken(file, {"code": error.code, "message": error.message, "file": file})

    async def _loaded(self, file: str, message: dict[str, Any], dags: list[DagSpec]) -> None:
        for importers in self._importers.values():
            importers.discard(file)
        for module in message["files"]:
            if module != file:
                self._importers.setdefault(module, set()).add(file)
        result = await self.store.loaded(file, message)
        self._broken_files.discard(file)
        for dag_id in result.removed:
            self.post(DagRemoved(dag_id))
        for dag in dags:
            if dag.dag_id in result.versions:
                asked = dag.is_paused_upon_creation
                paused = self.settings.daemon.paused_at_creation if asked is None else asked
                self.post(DagLoaded(dag, result.versions[dag.dag_id], paused))
        names = ", ".join(dag.dag_id for dag in dags) or "no dags"
        observe(Seen.DAG_FILE_LOADED, file=file, seconds=message["seconds"], dags=names)
        self.on_change(file)

    async def _broken(self, file: str, error: dict[str, Any]) -> None:
        self._broken_files.add(file)
        await self.store.broken(file, error)
        observe(Seen.DAG_FILE_BROKEN, file=file, reason=f"{error['code']}: {error['message']}")
        self.on_change(file)

    async def _gone(self, file: str) -> None:
        self._broken_files.discard(file)
        dag_ids = await self.store.gone(file)
        for dag_id in dag_ids:
            self.post(DagRemoved(dag_id))
        observe(Seen.DAG_FILE_REMOVED, file=file, dags=", ".join(dag_ids) or "its dags")
        self.on_change(file)
