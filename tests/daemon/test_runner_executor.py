"""The daemon's end: LocalExecutor and RunnerClient with a real runner."""

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fluxd.core.events import AttemptEnded, AttemptStarted, Event
from fluxd.errors import FluxError, Refused, Unavailable
from fluxd.executors import local
from fluxd.executors.local import LocalExecutor
from fluxd.health import Health, Sign
from fluxd.runner import client
from fluxd.runner.client import ImportLimits, RunnerClient
from fluxd.runner.doorway import lock_holder
from fluxd.runner.starting import RunnerOptions
from tests.daemon.runner_rig import Rig, alive

pytestmark = pytest.mark.anyio

TASK = (
    "from fluxd import DAG, task\nwith DAG('d', schedule=None):\n    @task\n    def t():\n        return 6\n    t()\n"
)
# What limits the import of its own file: seconds until the alarm, and bytes of data.
LIMITS = """
import resource, signal
from fluxd import DAG, task

LIMITS = [signal.getitimer(signal.ITIMER_REAL)[0], resource.getrlimit(resource.RLIMIT_DATA)[0]]

with DAG("d", schedule=None):
    @task
    def t():
        return LIMITS
    t()
"""


class Side:
    """An executor with a note of what it posts."""

    def __init__(self, rig: Rig, *, limits: ImportLimits | None = None, **options: Any) -> None:
        self.rig = rig
        self.events: list[Event] = []
        self.sources: dict[str, tuple[str, dict[str, str]]] = {}
        self.known: list[set[int]] = []
        self.troubles: list[FluxError] = []
        self.faults: list[Exception] = []  # raised, one each, when a source is asked for
        self._changed = asyncio.Event()
        self.executor = LocalExecutor(
            rig.home,
            post=self._post,
            source=self._source,
            reconciled=self._reconciled,
            troubled=self._troubled,
            options=RunnerOptions(**options),
            limits=limits or ImportLimits(20.0),
        )

    def _post(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def _source(self, bundle: str) -> tuple[str, dict[str, str]] | None:
        if self.faults:
            raise self.faults.pop()
        return self.sources.get(bundle)

    def _troubled(self, error: FluxError) -> None:
        self.troubles.append(error)
        self._changed.set()

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
    loaded = await side.executor.load(name, side.rig.dags)
    assert [spec["dag_id"] for spec in loaded["dags"]] == ["d"]
    broken = await side.executor.load(side.rig.write("x.py", "1/0"), side.rig.dags)
    assert "ZeroDivisionError" in broken["error"]["message"]
    stored = loaded | {"bundle": "stored"}
    side.executor.start([side.rig.order(1, loaded=stored)])
    assert "FLX-7019" in (await side.ended(1)).outcome["error"]["message"]  # type: ignore[index]
    side.sources["stored"] = ("d.py", loaded["files"])
    side.executor.start([side.rig.order(2, loaded=stored)])
    assert (await side.ended(2)).outcome["xcoms"] == [["return_value", 6]]  # type: ignore[index]


async def test_a_source_that_cannot_be_read_at_first_is_read_again(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "RETRY_S", 0.01)
    await side.executor.open()
    loaded = await side.executor.load(side.rig.write("d.py", TASK), side.rig.dags)
    side.sources["stored"] = ("d.py", loaded["files"])
    side.faults = [AttributeError("not yet")]
    side.executor.start([side.rig.order(1, loaded=loaded | {"bundle": "stored"})])
    assert (await side.ended(1)).outcome["xcoms"] == [["return_value", 6]]  # type: ignore[index]
    side.faults = [OSError("never")] * local.SOURCE_TRIES
    side.executor.start([side.rig.order(2, loaded=loaded | {"bundle": "other"})])
    assert "FLX-7019" in (await side.ended(2)).outcome["error"]["message"]  # type: ignore[index]
    assert not side.faults


async def test_a_stored_source_is_imported_within_the_limits_of_the_settings(tmp_path: Path) -> None:
    side = Side(Rig(tmp_path), limits=ImportLimits(500.0, 2000), linger_s=5.0)
    await side.executor.open()
    name = side.rig.write("d.py", LIMITS)
    loaded = await side.executor.load(name, side.rig.dags)
    side.sources["stored"] = (name, loaded["files"])
    for fence, bundle in enumerate((loaded["bundle"], "stored"), 1):
        side.executor.start([side.rig.order(fence, loaded=loaded | {"bundle": bundle})])
        ((_, (seconds, memory)),) = (await side.ended(fence)).outcome["xcoms"]  # type: ignore[index]
        assert 400 < seconds <= 500
        assert memory > 2000 * 1024 * 1024
    await side.executor.stop()


async def test_a_start_that_is_too_large_to_be_sent_fails_alone(side: Side) -> None:
    await side.executor.open()
    large = side.rig.order(1, task="join", spawn=["/bin/true"])
    large["context"]["upstream_xcoms"] = {f"u{n}": {"return_value": "x" * (1_000_000 + n)} for n in range(70)}
    large["context"]["conf"] = {"x": "x" * 1_000_000}
    side.executor.start([large, side.rig.order(2, spawn=["/bin/true"])])
    assert (await side.ended(2)).exit_code == 0
    ended = await side.ended(1)
    assert ended.outcome == {
        "state": "failed",
        "error": {
            "type": "TooLarge",
            "message": (
                "FLX-7022: Task 'join' cannot be started: what it is given is more than the 64 MB that can be sent to "
                "it, most of it what 70 upstream tasks handed on, 'u69' the most (66.8 MB in all): write that to files "
                "or tables and hand on their names."
            ),
            "retry": False,
        },
    }
    assert (ended.pid, ended.exit_code) == (None, None)
    assert not side.known  # the connection stands


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


async def test_a_killed_runner_is_replaced_and_what_it_ran_goes_on(side: Side) -> None:
    await side.executor.open()
    first = side.executor.runner["pid"]
    side.executor.start([side.rig.order(1, spawn=["/bin/sleep", "300"])])
    started = await side.until(lambda: side.of(AttemptStarted, 1))
    os.kill(first, signal.SIGKILL)
    await side.until(lambda: side.known)
    assert side.known == [{1}]
    assert side.executor.runner["pid"] != first
    assert alive(started.pid)
    name = side.rig.write("d.py", TASK)
    assert (await side.executor.load(name, side.rig.dags))["error"] is None
    side.executor.kill(1, "cancel")
    await side.until(lambda: side.of(AttemptEnded, 1))
    assert not alive(started.pid)


async def test_a_runner_that_cannot_be_started_is_tried_again(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "RETRY_S", 0.01)
    await side.executor.open()
    logs = side.rig.home / "logs"
    logs.rename(side.rig.home / "away")
    logs.write_text("in the way")
    reaper = lock_holder(side.rig.home / "runner" / "reaper.lock")
    assert reaper is not None
    for pid in (reaper, side.executor.runner["pid"]):  # else the reaper would start another
        os.kill(pid, signal.SIGKILL)
    await side.until(lambda: len(side.troubles) > 1)
    assert {error.code for error in side.troubles} == {"FLX-7004"}
    assert str(logs) in side.troubles[0].message
    logs.unlink()
    await side.until(lambda: side.known)


async def test_a_process_without_descriptors_says_so(tmp_path: Path) -> None:
    ours = RunnerClient(Rig(tmp_path).home, on_message=lambda message: None, on_lost=lambda: None)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(Unavailable, match=r"FLX-7004.*Too many open files"):
            await ours.connect()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_file_that_kills_the_runner_is_given_up(side: Side) -> None:
    await side.executor.open()
    name = side.rig.write(
        "killer.py", "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nimport time\ntime.sleep(9)"
    )
    with pytest.raises(Unavailable, match="FLX-7005"):
        await side.executor.load(name, side.rig.dags)


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
    ours = RunnerClient(tmp_path, on_message=lambda message: None, on_lost=lambda: None)
    with pytest.raises(Unavailable, match="FLX-7003"):
        await ours.connect(start=False)


async def test_a_runner_that_somebody_else_starts_is_waited_for(tmp_path: Path) -> None:
    side = Side(Rig(tmp_path), start=False)
    opening = asyncio.create_task(side.executor.open())
    await asyncio.to_thread(side.rig.start, connect=False)
    try:
        await opening
        assert side.rig.said == "ready"  # it was the first one
        assert side.rig.process is not None
        assert lock_holder(side.rig.home / "runner" / "reaper.lock") == side.rig.process.pid
    finally:
        await side.executor.stop()
        if side.rig.process is not None:
            await asyncio.to_thread(side.rig.process.wait)


async def test_a_runner_that_nobody_starts_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT_TIMEOUT_S", 0.1)
    with pytest.raises(Unavailable, match=r"FLX-6040.*fluxd-runner"):
        await Side(Rig(tmp_path), start=False).executor.open()
    assert lock_holder(tmp_path / "home" / "runner" / "lock") is None


async def test_a_fluxd_that_waits_for_a_lost_runner_is_late_and_not_hung(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its watchdog would end it again and again, which brings no runner back."""
    rig = Rig(tmp_path)
    first = Side(rig, linger_s=5.0)
    await first.executor.open()
    await first.executor.close()
    monkeypatch.setattr(client, "CONNECT_TIMEOUT_S", 0.1)
    side = Side(rig, start=False)
    await side.executor.open()
    assert side.executor.last_try is None, "nothing is tried for while it answers"
    health = Health()
    health.expect(
        Sign("runner", "its last answer", 0.05, lambda: side.executor.last_answer, lambda: side.executor.last_try)
    )
    os.kill(side.executor.runner["pid"], signal.SIGTERM)
    await side.until(lambda: side.troubles)  # it is waited for, and nobody starts it
    assert health.late()
    assert [side.troubles[0].code, health.hung()] == ["FLX-6040", []]
    await side.executor.close()


async def test_a_runner_of_another_version_is_refused_in_words(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        payload = b'{"type":"hello","protocol":7,"pid":4711}'
        writer.write(len(payload).to_bytes(4, "big") + payload)
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "runner.sock"):
        ours = RunnerClient(tmp_path, on_message=lambda message: None, on_lost=lambda: None)
        with pytest.raises(Refused, match=r"FLX-7002.*4711"):
            await ours.connect()


async def test_a_home_far_down_in_the_tree(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 20) / ("deeper" * 20)
    folder.mkdir(parents=True)
    side = Side(Rig(folder))
    await side.executor.open()
    side.executor.start([side.rig.order(1, spawn=["/bin/true"])])
    assert (await side.ended(1)).exit_code == 0
    await side.executor.stop()
