"""Imports one dag file in a dag host: from disk (keeping the bytes of all it imports) or from a stored bundle.

A *bundle* is the file and every module of the dags folder that its import pulled in. Its hash is over those bytes, so
equal bundles mean equal code. Everything else (installed libraries) is imported as usual.
"""

import hashlib
import importlib
import importlib.util
import linecache
import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.machinery import ModuleSpec, PathFinder
from types import FrameType, ModuleType
from typing import Any

import fluxd
from fluxd import DAG, chain, task
from fluxd.authoring import registry, safely
from fluxd.errors import FluxError
from fluxd.filenames import is_dag_file
from fluxd.runner.protocol import encode

MB = 1024 * 1024
REHEARSALS = 12  # above the number of runs after which the interpreter specialises code


IMPORTS = re.compile(r"^[ \t]*(?:from[ \t]+(\w+)|import[ \t]+([^#;\n]+))", re.MULTILINE)
OWN_NAME = (
    "{file} has a name that is taken: `import {name}` gets the module of the standard library or of an installed "
    "package. Rename the file (or its folder) if other files are to import it."
)
HIDDEN = (
    "{file} in the dags folder is not what `import {name}` gets: the standard library or an installed package has that "
    "name. Rename the file."
)


class ImportTimeout(BaseException):
    """Raised in the middle of an import that takes too long; no `except Exception` of the file stops it."""


class Source:  # a finder and a loader; the classes of importlib.abc would pull in half of the library
    """Finds the modules of the dags folder; remembers what it served.

    A name that the standard library or an installed package has is theirs, whatever lies in the folder: a file
    `email.py` there must not become the `email` of every library.
    """

    def __init__(self, dags_dir: str, stored: dict[str, str] | None = None) -> None:
        self.dags_dir = dags_dir
        self.files: dict[str, str] = {}  # relative path -> text, as imported
        self._bytes: dict[str, bytes] = {}
        self._stored = stored or {}
        self.main = ""

    def install(self) -> None:
        at = next((i for i, finder in enumerate(sys.meta_path) if finder is PathFinder), len(sys.meta_path))
        sys.meta_path.insert(at, self)

    def bundle(self) -> str:
        """The hash of all that was imported from disk; 16 hex digits."""
        # Two files that import each other are made of the same modules, and are not the same.
        digest = hashlib.sha256(f"{self.main}\0".encode())
        for name in sorted(self._bytes):
            data = self._bytes[name]
            digest.update(f"{name}\0{len(data)}\0".encode())
            digest.update(data)
        return digest.hexdigest()[:16]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        base = fullname.replace(".", "/")
        if path is not None and not any(f"{entry}/".startswith(f"{self.dags_dir}/") for entry in path):
            return None
        for relative, is_package in ((f"{base}/__init__.py", True), (f"{base}.py", False)):
            if self._has(relative):
                if path is None and self.elsewhere(fullname):
                    return None
                return self.spec(fullname, relative, is_package)
        folder = os.path.join(self.dags_dir, base)
        if os.path.isdir(folder) or any(name.startswith(f"{base}/") for name in self._stored):
            found = PathFinder.find_spec(fullname) if path is None else None
            if found is not None and found.loader is not None:
                return None  # a folder of that name is no reason to hide an installed package
            spec = ModuleSpec(fullname, None, is_package=True)
            # Where folders elsewhere have parts of such a package, it is made of all of them.
            spec.submodule_search_locations = [*((found and found.submodule_search_locations) or ()), folder]
            return spec
        return None

    def elsewhere(self, name: str) -> bool:
        """Whether the standard library or an installed package has a module of this name (a mere folder is none)."""
        if name in sys.stdlib_module_names:
            return True
        loaded = sys.modules.get(name)
        found = loaded.__spec__ if loaded is not None else None
        for finder in sys.meta_path if found is None else ():
            find = None if finder is self else getattr(finder, "find_spec", None)
            found = find(name, None) if find is not None else None
            if found is not None:
                break
        if found is None or found.loader is None:
            return False
        loader: Any = found.loader
        return loader is not self and not str(found.origin).startswith(f"{self.dags_dir}/")

    def hidden(self) -> list[str]:
        """Files of the folder that are imported by a name which is somebody else's: those who import it get that."""
        names = {match[1] or name.strip() for text in self.files.values() for match in IMPORTS.finditer(text)
                 for name in (match[2] or "").split(",")}  # fmt: skip
        tops = sorted({name.partition(".")[0].partition(" ")[0] for name in names if name})
        files = [f"{top}{end}" for top in tops for end in (".py", "/__init__.py") if self._has(f"{top}{end}")]
        return [file for file in files if file != self.main and self.elsewhere(_top(file))]

    def warnings(self) -> list[str]:
        """What the author should know of the names of files, in sentences."""
        found = [HIDDEN.format(file=file, name=_top(file)) for file in self.hidden()]
        if self.elsewhere(_top(self.main)):
            found.insert(0, OWN_NAME.format(file=self.main, name=_top(self.main)))
        return found

    def spec(self, fullname: str, relative: str, is_package: bool) -> ModuleSpec:
        path = os.path.join(self.dags_dir, relative)
        loader: Any = self
        spec = ModuleSpec(fullname, loader, origin=path, loader_state=relative, is_package=is_package)
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations = [os.path.dirname(path)]
        return spec

    def _has(self, relative: str) -> bool:
        return relative in self._stored or os.path.isfile(os.path.join(self.dags_dir, relative))

    def _read(self, relative: str) -> str:
        # A module that was not part of the stored import (say, one imported inside a task) comes from disk.
        text = self._stored.get(relative)
        if text is None:
            with open(os.path.join(self.dags_dir, relative), "rb") as file:
                data = file.read()
            text = importlib.util.decode_source(data)
            self._bytes[relative] = data
        self.files[relative] = text
        return text

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None and spec.origin is not None
        relative, path = spec.loader_state, spec.origin
        text = self._read(relative)
        # Tracebacks and inspect.getsource show what was imported, also when the file on disk has changed.
        linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
        code = compile(text, path, "exec", dont_inherit=True)
        # Dags that another dag file makes are that file's own, also when this one imports it.
        foreign = relative != self.main and is_dag_file(relative)
        with registry.apart() if foreign else nullcontext():
            exec(code, module.__dict__)  # noqa: S102 - this is what loading a dag file means

    def get_source(self, fullname: str) -> str | None:
        module = sys.modules.get(fullname)
        spec = module.__spec__ if module else None
        return self.files.get(spec.loader_state) if spec else None

    def load(self, file: str) -> list[Any]:
        """Import the dag file; the dags it made, in order."""
        self.main = file
        name, parent = self._module_name(file)
        if parent:
            importlib.import_module(parent)
        spec = self.spec(name, file, is_package=False)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        self.exec_module(module)
        return registry.collect()

    def _module_name(self, file: str) -> tuple[str, str]:
        """(module name, parent package) of a dag file: its own name where that is free, so that siblings find it."""
        parts = file.removesuffix(".py").split("/")
        if all(part.isidentifier() for part in parts) and parts[0] not in sys.modules and not self.elsewhere(parts[0]):
            return ".".join(parts), ".".join(parts[:-1])
        return "flux_dag_" + "".join(c if c.isalnum() else "_" for c in file), ""


def preload() -> None:
    """Import what dag files are made of, and make a dag of it often enough: here once, for all that is forked."""
    for name in fluxd.__all__:
        getattr(fluxd, name)
    importlib.import_module("fluxd.ops")
    for _ in range(REHEARSALS):
        with registry.apart():
            encode({"dags": [_small_dag().to_spec()]})


def _small_dag() -> DAG:
    with DAG("rehearsal", schedule="@daily", start_date="2026-01-01", params={"days": 1}, tags=["a"]) as dag:

        @task(retries=1)
        def work(day: str) -> str:
            return day

        first, second = (work.override(task_id=f"t{number}")("{{ ds }}") for number in range(2))
        chain(first, work(second))
    return dag


def _top(file: str) -> str:
    """The name by which a file, or the package that it lies in, would be imported."""
    return file.removesuffix(".py").partition("/")[0]


class LimitedImport:
    """Time and memory while importing. The time limit raises in the main thread, so that the line is known."""

    def __init__(self, timeout_s: float, memory_mb: int) -> None:
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        self._data = resource.getrlimit(resource.RLIMIT_DATA)

    def __enter__(self) -> None:
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[5]) * resource.getpagesize()
        soft, hard = used + self._memory_mb * MB, self._data[1]
        if hard != resource.RLIM_INFINITY:
            soft = min(soft, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        signal.signal(signal.SIGALRM, self._alarm)
        signal.setitimer(signal.ITIMER_REAL, self._timeout_s)

    def __exit__(self, *exc: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_DATA, self._data)

    def _alarm(self, signum: int, frame: FrameType | None) -> None:
        raise ImportTimeout


def load(source: Source, file: str, timeout_s: float, memory_mb: int) -> tuple[list[Any], dict[str, Any] | None]:
    """Import under the limits. Returns (dags, None) or ([], error): error is {code, message, line, traceback}."""
    source.install()
    try:
        with LimitedImport(timeout_s, memory_mb):
            return source.load(file), None
    except BaseException as error:
        told = describe(error, file, source.dags_dir, timeout_s, memory_mb)
        if isinstance(error, ImportError) and (hidden := source.hidden()):
            told["message"] += " " + HIDDEN.format(file=hidden[0], name=_top(hidden[0]))
        return [], told


def describe(error: BaseException, file: str, dags_dir: str, timeout_s: float, memory_mb: int) -> dict[str, Any]:
    """The error of an import in one sentence, with the user's frames only."""
    frames = [
        frame for frame in traceback.extract_tb(safely.traceback_of(error)) if frame.filename.startswith(f"{dags_dir}/")
    ]
    line = frames[-1].lineno if frames else None
    where = os.path.relpath(frames[-1].filename, dags_dir) if frames else file
    shown = "".join(traceback.format_list(frames[-8:])) + _last_lines(error)
    if isinstance(error, SyntaxError) and (error.filename or "").startswith(f"{dags_dir}/"):
        line, where = error.lineno, os.path.relpath(str(error.filename), dags_dir)
    place = f"{where}, line {line}" if line else where
    code, words = _words(error, timeout_s, memory_mb)
    return {"code": code, "message": f"{place}: {words}", "line": line, "file": where, "traceback": shown[-20_000:]}


def _last_lines(error: BaseException) -> str:
    return safely.formatted(error, None).removeprefix("Traceback (most recent call last):\n")


def _words(error: BaseException, timeout_s: float, memory_mb: int) -> tuple[str, str]:
    kind, text = safely.kind(error), safely.text(error).strip()
    match error:
        case FluxError():
            return error.code, error.message
        case ImportTimeout():
            return "FLX-2004", f"importing it took longer than {timeout_s:g} s; move slow work into a task."
        case MemoryError():
            return "FLX-2005", f"importing it needs more than {memory_mb} MB of memory; move this work into a task."
        case SyntaxError():
            return "FLX-2001", f"{error.msg}; mend the syntax."
        case ImportError():
            return "FLX-2002", f"{text} ({kind}); install it into Flux's environment or mend the import."
        case SystemExit():
            return (
                "FLX-2008",
                f"it calls sys.exit({safely.spoken(error.code)}) while being imported; a dag file only defines dags.",
            )
        case KeyboardInterrupt():
            return "FLX-2008", "it raises KeyboardInterrupt while being imported; a dag file only defines dags."
        case OSError() if error.filename:
            return "FLX-2009", f"{error.strerror}: {error.filename} ({kind})."
        case _:
            return "FLX-2003", f"{kind}: {text}" if text else f"{kind} was raised while importing it."


def threads_left() -> int:
    """How many threads an import left behind that make a fork unsafe.

    A thread that Python knows may hold any lock at the moment of a fork. Of threads that only the system knows, those
    of numpy's BLAS are safe (it stops them around a fork), so they do not count where numpy is loaded.
    """
    threading = sys.modules.get("threading")
    python_threads = threading.active_count() - 1 if threading else 0
    system_threads = len(os.listdir("/proc/self/task")) - 1
    if python_threads == 0 and "numpy" in sys.modules:
        return 0
    return max(python_threads, system_threads)


def seconds_since(start: float) -> float:
    return round(time.monotonic() - start, 4)
