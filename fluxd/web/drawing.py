"""The picture of a dag within a time that nobody has to fear: small ones at once, big ones by a process of their own.

The layout library holds the interpreter's lock while it works, for minutes with some graphs: in this process the
scheduler would stand still. So a big graph is laid out by a process that is ended at its deadline, and is then drawn
plainly. Pictures are kept by the shape of the dag.
"""

import asyncio
import contextlib
import hashlib
import resource
import subprocess
import sys
from collections import OrderedDict
from typing import Any

import orjson

from fluxd.web.graph import Box, Edge, Layout, Shape, TaskBox, lay_out, lay_out_plainly

# Tasks and edges of a graph that is laid out at once: some milliseconds at most.
SMALL = 100
DEADLINE_S = 2.0
MEMORY_BYTES = 2 * 2**30
# Tasks and edges of all pictures that are kept: some tens of MiB.
KEPT = 50_000


class Drawings:
    """Pictures by shape: `of` gives one within about DEADLINE_S. One per application; `close` ends what still draws."""

    def __init__(self, deadline_s: float = DEADLINE_S, kept: int = KEPT) -> None:
        self._deadline_s = deadline_s
        self._most = kept
        self._kept: OrderedDict[bytes, Layout] = OrderedDict()
        self._drawing: dict[bytes, asyncio.Task[Layout]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def of(self, shape: Shape) -> Layout:
        """The picture of a dag. Who asks for one that is being drawn waits for the same drawing."""
        wanted = await asyncio.to_thread(_packed, shape)
        key = hashlib.sha256(wanted).digest()
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        task = self._drawing.get(key)
        if task is None:
            task = self._drawing[key] = asyncio.create_task(self._draw(key, wanted, shape))
            task.add_done_callback(lambda _: self._drawing.pop(key, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End the processes that still draw."""
        tasks = list(self._drawing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _draw(self, key: bytes, wanted: bytes, shape: Shape) -> Layout:
        keep = True
        if weight(shape) <= SMALL:
            layout = await asyncio.to_thread(lay_out, shape)
        else:
            drawn: Layout | None = None
            try:
                async with asyncio.timeout(self._deadline_s) as waited:
                    await self._one_at_a_time.acquire()
            except TimeoutError:
                assert waited.expired()
                keep = False  # others were drawn meanwhile; this one gets its time when it is looked at again
            else:
                try:
                    drawn = await _in_process(wanted, self._deadline_s)
                finally:
                    self._one_at_a_time.release()
            layout = await asyncio.to_thread(lay_out_plainly, shape) if drawn is None else drawn
        if keep:
            self._keep(key, layout)
        return layout

    def _keep(self, key: bytes, layout: Layout) -> None:
        self._kept[key] = layout
        while len(self._kept) > 1 and sum(len(one.nodes) + len(one.edges) for one in self._kept.values()) > self._most:
            self._kept.popitem(last=False)


def weight(shape: Shape) -> int:
    """Tasks and edges."""
    return len(shape) + sum(len(upstream) for _, upstream, _ in shape)


def _packed(shape: Shape) -> bytes:
    return orjson.dumps(shape)


async def _in_process(wanted: bytes, deadline_s: float) -> Layout | None:
    """The picture as another process draws it; None where it is not ready in time, or fails."""
    process = _start()
    done = asyncio.create_task(asyncio.to_thread(_answer, process, wanted, deadline_s))
    try:
        return await asyncio.shield(done)
    finally:
        process.kill()
        await asyncio.gather(done, return_exceptions=True)


def _start() -> "subprocess.Popen[bytes]":
    # Not by the event loop's own spawn: that of uvloop takes several times as long.
    return subprocess.Popen(
        [sys.executable, "-m", "fluxd.web.drawing"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _answer(process: "subprocess.Popen[bytes]", wanted: bytes, deadline_s: float) -> Layout | None:
    with process:
        try:
            answer, _ = process.communicate(wanted, deadline_s)
        except subprocess.TimeoutExpired:
            answer = b""
        process.kill()
    return _unpacked(orjson.loads(answer)) if answer and process.returncode == 0 else None


def _unpacked(layout: dict[str, Any]) -> Layout:
    return Layout(
        nodes=tuple(TaskBox(**node) for node in layout["nodes"]),
        edges=tuple(Edge(**edge) for edge in layout["edges"]),
        boxes=tuple(Box(**box) for box in layout["boxes"]),
        width=layout["width"],
        height=layout["height"],
    )


def main() -> None:
    """The process: a shape on stdin, its layout on stdout. It ends itself too, should fluxd be killed meanwhile."""
    seconds = int(DEADLINE_S) + 1
    with contextlib.suppress(ValueError, OSError):  # a lower limit is set already
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    shape = tuple(
        (task_id, tuple(upstream), group) for task_id, upstream, group in orjson.loads(sys.stdin.buffer.read())
    )
    sys.stdout.buffer.write(orjson.dumps(lay_out(shape)))


if __name__ == "__main__":
    main()
