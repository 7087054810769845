"""The daemon's end: LocalExecutor and RunnerClient with a real runner."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fluxd.core.events import AttemptEnded, AttemptLost, AttemptStarted, Event
from fluxd.errors import FluxError, Refused, Unavailable
from fluxd.executors.local import LocalExecutor
from fluxd.runner.client import RunnerClient, RunnerOptions
from tests.daemon.runner_rig import Rig, alive

pytestmark = pytest.mark.anyio

TASK = (
    "from fluxd import DAG, task\nwith DAG('d', schedule=None):\n    @task\n    def t():\n        return 6\n    t()\n"
)


class Side:
    """An executor with a note of what it posts."""

    def __init__(self, rig: Rig, **options: Any) -> None:
        self.rig = rig
        self.events: list[Event] = []
        self.sources: dict[str, tuple[str, dict[str, str]]] = {}
        self.known: list[set[int]] = []
        self.troubles: list[FluxError] = []
        self._changed = asyncio.Event()
        self.executor = LocalExecutor(
            rig.home,
            post=self._post,
            source=self._source,
            reconciled=self._reconciled,
            troubled=self.troubles.append,
            options=RunnerOptions(**options),
        )

    def _post(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def _source(self, bundle: str) -> tuple[str, dict[str, str]] | None:
        return self.sources.get(bundle)

    async def _reconciled(self, known: set[int]) -> None:
        self.known.append(known)
        self._changed.set()

    async def until(self, condition: Callable[[], Any]) -> Any:
        async with asyncio.timeout(30):
            while not (value := condition()):
                self._changed.clear()
                await self._changed.wait()
        return value

    def of(self, kind: type, fence: int) -> Any:
        return next((event for event in self.events if type(event) is kind and event.fence == fence), None)

    async def ended(self, fence: int) -> AttemptEnded:
        ended: AttemptEnded = await self.until(lambda: self.of(AttemptEnded, fence))
        return ended


@pytest.fixture
async def side(tmp_path: Path) -> AsyncIterator[Side]:
    made = Side(Rig(tmp_path), linger_s=5.0)
    yield made
    await made.executor.stop()
    await made.executor.close()


async def test_a_runner_is_started_and_attempts_become_events(side: Side) -> None:
    assert await side.executor.open() == set()
    side.executor.start([side.rig.order(fence, spawn=["/bin/sh", "-c", f"exit {fence}"]) for fence in (1, 2)])
    for fence in (1, 2):
        ended = await side.ended(fence)
        assert ended.exit_code == fence
        started = side.of(AttemptStarted, fence)
        assert started.pid == ended.pid
        assert started.at == ended.started_at <= ended.ended_at
        assert ended.usage is not None
    side.executor.ack([1, 2])


async def test_files_load_and_sources_are_found_when_needed(side: Side) -> None:
    await side.executor.open()
    name = side.rig.write("d.py", TASK)
    loaded = await side.executor.load(name, side.rig.dags, 20, 1024)
    assert [spec["dag_id"] for spec in loaded["dags"]] == ["d"]
    broken = await side.executor.load(side.rig.write("x.py", "1/0"), side.rig.dags, 20, 1024)
    assert "ZeroDivisionError" in broken["error"]["message"]
    stored = loaded | {"bundle": "stored"}
    side.executor.start([side.rig.order(1, loaded=stored)])
    assert "FLX-7019" in (await side.ended(1)).outcome["error"]["message"]  # type: ignore[index]
    side.sources["stored"] = ("d.py", loaded["files"])
    side.executor.start([side.rig.order(2, loaded=stored)])
    assert (await side.ended(2)).outcome["xcoms"] == [["return_value", 6]]  # type: ignore[index]


async def test_a_daemon_that_comes_back_finds_what_runs_and_what_ended(side: Side) -> None:
    await side.executor.open()
    side.executor.start([side.rig.order(1, spawn=["/bin/sleep", "300"]), side.rig.order(2, spawn=["/bin/true"])])
    await side.ended(2)
    await side.executor.close()
    again = Side(side.rig)
    assert await again.executor.open() == {1, 2}
    assert again.of(AttemptStarted, 1).pid == side.of(AttemptStarted, 1).pid
    assert again.of(AttemptEnded, 2) == side.of(AttemptEnded, 2)
    again.executor.kill(1, "cancel")
    assert (await again.ended(1)).signal == signal.SIGTERM
    await again.executor.stop()


async def test_a_killed_runner_is_replaced_and_what_it_ran_is_lost(side: Side) -> None:
    await side.executor.open()
    first = side.executor.runner["pid"]
    side.executor.start([side.rig.order(1, spawn=["/bin/sleep", "300"])])
    started = await side.until(lambda: side.of(AttemptStarted, 1))
    os.kill(first, signal.SIGKILL)
    lost = await side.until(lambda: side.of(AttemptLost, 1))
    assert str(started.pid) in lost.evidence
    assert not alive(started.pid)
    await side.until(lambda: side.known)
    assert side.known == [{1}]
    assert side.executor.runner["pid"] != first
    name = side.rig.write("d.py", TASK)
    assert (await side.executor.load(name, side.rig.dags, 20, 1024))["error"] is None


async def test_a_file_that_kills_the_runner_is_given_up(side: Side) -> None:
    await side.executor.open()
    name = side.rig.write(
        "killer.py", "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nimport time\ntime.sleep(9)"
    )
    with pytest.raises(Unavailable, match="FLX-7005"):
        await side.executor.load(name, side.rig.dags, 20, 1024)


async def test_stop_ends_all_and_waits(side: Side) -> None:
    await side.executor.open()
    side.executor.start([side.rig.order(1, spawn=["/bin/sleep", "300"])])
    started = await side.until(lambda: side.of(AttemptStarted, 1))
    await side.executor.stop()
    assert side.of(AttemptEnded, 1).signal == signal.SIGTERM
    assert not alive(started.pid)


async def test_a_home_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    (rig.home / "runner").write_text("in the way")
    with pytest.raises(Unavailable, match="FLX-7004"):
        await Side(rig).executor.open()


async def test_no_runner_and_none_to_be_started(tmp_path: Path) -> None:
    client = RunnerClient(tmp_path, on_message=lambda message: None, on_lost=lambda: None)
    with pytest.raises(Unavailable, match="FLX-7003"):
        await client.connect(start=False)


async def test_a_runner_of_another_version_is_refused_in_words(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        payload = b'{"type":"hello","protocol":7,"pid":4711}'
        writer.write(len(payload).to_bytes(4, "big") + payload)
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "runner.sock"):
        client = RunnerClient(tmp_path, on_message=lambda message: None, on_lost=lambda: None)
        with pytest.raises(Refused, match=r"FLX-7002.*4711"):
            await client.connect()


async def test_a_home_far_down_in_the_tree(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 20) / ("deeper" * 20)
    folder.mkdir(parents=True)
    side = Side(Rig(folder))
    await side.executor.open()
    side.executor.start([side.rig.order(1, spawn=["/bin/true"])])
    assert (await side.ended(1)).exit_code == 0
    await side.executor.stop()
