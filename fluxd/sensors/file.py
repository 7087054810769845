"""Waits for a file, or for files that fit a pattern."""

import contextlib
import glob
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from fluxd.authoring import checks, fields
from fluxd.authoring.policy import Duration
from fluxd.authoring.sensor import BaseSensor, PokeResult
from fluxd.errors import Invalid

CHUNK = 1024 * 1024
SIZE_MAX = 2**63 - 1  # of a file, as the kernel counts it


class Scan:
    """One look at the disk, and whether anybody still wants to know."""

    given_up = False


class FileSensor(BaseSensor):
    """Waits until a file is there; its path (for a pattern: the sorted paths of all that fit) is the XCom.

    path (or filepath): may hold * ? [] and **; relative to the folder of the dag file. min_size: bytes. unchanged_for:
    time since the last change, for files that are still being written. contains: a line begins with this text; only
    regular files are read for it.
    """

    template_fields: ClassVar[Sequence[str]] = ("path", "contains")
    strict_fields: ClassVar[Sequence[str]] = ("path", "contains")

    def __init__(
        self,
        *,
        path: str | os.PathLike[str] = checks.NOT_GIVEN,
        filepath: str | os.PathLike[str] = checks.NOT_GIVEN,
        min_size: int = 0,
        unchanged_for: Duration = 0.0,
        contains: str | None = None,
        **sensor_arguments: Any,
    ) -> None:
        super().__init__(**sensor_arguments)
        given = checks.one_name(f"FileSensor {self.task_id!r}", path=path, filepath=filepath)
        if given is None:
            raise Invalid("FLX-1012", f"FileSensor {self.task_id!r} needs the argument 'path'.")
        what = f"of FileSensor {self.task_id!r}"
        self.path = fields.written(fields.path(given), f"path {what}")
        self.min_size = checks.whole(min_size, f"min_size {what}", most=SIZE_MAX)
        self.unchanged_for = checks.seconds(unchanged_for, f"unchanged_for {what}")
        self.contains = checks.optional(fields.written, contains, f"contains {what}")

    async def poke(self, context: dict[str, Any] | None = None) -> PokeResult:
        """Look for the file, in a thread of its own: a file system may hang, and nobody waits for that one then."""
        look = Scan()
        self._beginning()  # refused here, where nobody has asked for our arguments
        try:
            return await in_thread(lambda: self._look(look))
        finally:
            look.given_up = True

    def wait_args(self, context: dict[str, Any]) -> dict[str, Any]:
        return {
            "path": self._pattern(),
            "min_size": self.min_size,
            "unchanged_for": self.unchanged_for,
            "contains": self._beginning(),
        }

    def _beginning(self) -> str | None:
        return checks.optional(fields.rendered, self.contains, f"contains of FileSensor {self.task_id!r}")

    def _pattern(self) -> str:
        path = fields.rendered(fields.path(self.path), f"path of FileSensor {self.task_id!r}")
        return str((self.dag.folder if self.dag else Path.cwd()) / path)

    def _look(self, look: Scan) -> PokeResult:
        pattern = self._pattern()
        if Path(pattern).exists() or not glob.has_magic(pattern):
            return PokeResult(self._fits(pattern, look), pattern)
        found = sorted(path for path in matches(pattern, look) if self._fits(path, look))
        return PokeResult(bool(found), found)

    def _fits(self, path: str, look: Scan) -> bool:
        try:
            state = Path(path).stat()
            if state.st_size < self.min_size or time.time() - state.st_mtime < self.unchanged_for:
                return False
            if self.contains is None:
                return True
            if not stat.S_ISREG(state.st_mode):  # to open a FIFO is to wait for its writer; a device may have no end
                raise Invalid(
                    "FLX-3044",
                    f"FileSensor: {path} is no regular file, so no line can be looked for: leave out contains.",
                )
            return has_line(path, self.contains, look)
        except (FileNotFoundError, NotADirectoryError):
            return False


def matches(pattern: str, look: Scan) -> Iterator[str]:
    """The paths that fit a pattern. A `**` may lead through a whole disk: the walk ends when it is given up."""
    head, deep, tail = pattern.partition("**/")
    if not deep:
        yield from glob.iglob(pattern)
        return
    for start in glob.iglob(head) if glob.has_magic(head) else [head or "."]:
        for folder, folders, _ in os.walk(start):
            if look.given_up:
                return
            folders[:] = [name for name in folders if not name.startswith(".")]  # as glob does
            yield from matches(f"{glob.escape(folder.rstrip('/'))}/{tail}", look)


async def in_thread(look: Callable[[], PokeResult]) -> PokeResult:
    """Call `look` in a daemon thread: one that hangs holds up neither other looks nor the end of the process."""
    import asyncio
    import threading

    loop = asyncio.get_running_loop()
    answer: asyncio.Future[PokeResult] = loop.create_future()

    def tell(result: PokeResult | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        elif result is not None:
            answer.set_result(result)

    def work() -> None:
        result, failure = None, None
        try:
            result = look()
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            loop.call_soon_threadsafe(tell, result, failure)

    threading.Thread(target=work, name="file-sensor", daemon=True).start()
    return await answer


def has_line(path: str, beginning: str, look: Scan) -> bool:
    """Whether a line of the file begins with this text. A file may be long: the reading ends when it is given up."""
    wanted = b"\n" + beginning.encode()
    # The line before the first is empty; what is kept of a chunk lets a match reach over its end.
    kept = b"\n"
    with Path(path).open("rb") as file:
        while not look.given_up and (chunk := file.read(CHUNK)):
            data = kept + chunk
            if wanted in data:
                return True
            kept = data[-len(wanted) + 1 :] if len(wanted) > 1 else b""
    return False
