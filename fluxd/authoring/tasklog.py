"""What a task says through Python's `logging` reaches its log: from INFO on, with time, level and logger.

`logging` is not imported for that: a task that has no use for it does not pay. An author's own configuration, before
or in the task, takes the place of ours, so that nothing is said twice.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def begin() -> None:
    """From now on in this process: at once where `logging` is imported, else as soon as somebody imports it."""
    if "logging" in sys.modules:
        _configure(sys.modules["logging"])
    elif not any(isinstance(finder, _WhenImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenImported())


@contextmanager
def during() -> Iterator[None]:
    """For as long as a task runs in somebody else's process, which is left as it was."""
    root = sys.modules["logging"].root if "logging" in sys.modules else None
    level, warns = (root.level, sys.modules["logging"]._warnings_showwarning) if root is not None else (None, None)
    begin()
    try:
        yield
    finally:
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _WhenImported)]
        logging: Any = sys.modules.get("logging")
        ours = [] if logging is None else [one for one in logging.root.handlers if hasattr(one, "is_flux")]
        for handler in ours:
            handler.remove()
            if logging.root.level == logging.INFO:
                logging.root.setLevel(logging.WARNING if level is None else level)
            if warns is None:
                logging.captureWarnings(False)


def _configure(logging: Any) -> None:
    """Give the root logger a handler of ours where it has none."""
    root = logging.root
    if root.handlers:
        return  # ours, or the author's

    class TaskLog(logging.StreamHandler):  # type: ignore[misc]
        """Says what nobody else says: a record for which there is any other handler is left to that."""

        is_flux = True

        def __init__(self) -> None:
            logging.Handler.__init__(self)
            self.setFormatter(logging.Formatter(FORMAT))
            self._basic_config = logging.basicConfig
            logging.basicConfig = self._configured

        @property
        def stream(self) -> Any:
            return sys.stderr  # the one of the moment

        def emit(self, record: Any) -> None:
            if not self._is_said(record):
                super().emit(record)

        def _is_said(self, record: Any) -> bool:
            logger = logging.getLogger(record.name)
            while logger is not None:
                if any(one is not self and not isinstance(one, logging.NullHandler) for one in logger.handlers):
                    return True
                logger = logger.parent if logger.propagate else None
            return False

        def _configured(self, *args: Any, **kwargs: Any) -> None:
            """`basicConfig` of the author: it must not find a handler of ours."""
            self.remove()
            logging.basicConfig(*args, **kwargs)

        def remove(self) -> None:
            root.removeHandler(self)
            if logging.basicConfig == self._configured:
                logging.basicConfig = self._basic_config

    root.addHandler(TaskLog())
    if root.level == logging.WARNING:  # as it comes
        root.setLevel(logging.INFO)
    logging.captureWarnings(True)


class _WhenImported:
    """Finds `logging` once, and has it configured when it has been executed."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "logging":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Configuring(spec.loader)  # type: ignore[assignment]
        return spec


class _Configuring:
    """The loader of `logging`, and what comes after it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _configure(module)
