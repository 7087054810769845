"""Processes that hang, for real: stopped, spinning, or stuck in a fork. They are noticed, named, ended and replaced."""

import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fluxd.core.events import AttemptEnded, AttemptLost, AttemptStarted
from fluxd.errors import Unavailable
from fluxd.runner.client import RunnerClient
from fluxd.runner.doorway import lock_holder
from fluxd.runner.silence import Silence
from fluxd.runner.starting import RunnerOptions
from tests.daemon.runner_rig import Message, Rig, alive
from tests.daemon.test_runner_executor import Side
from tests.fluxd_process import until

ANSWER_S = 0.5

HOOK = '''
import os
import pathlib
from fluxd import DAG, task

HERE = pathlib.Path(__file__).parent

def block() -> None:
    """As a library does that waits for a lock of another thread."""
    while (HERE / "blocks").exists():
        {body}

{register}

with DAG("hooked", schedule=None):
    @task
    def t() -> int:
        return 5

    t()
'''
STUCK = {
    "before the fork": ("os.register_at_fork(before=block)", "__import__('time').sleep(0.01)"),
    "after it in the parent": ("os.register_at_fork(after_in_parent=block)", "__import__('time').sleep(0.01)"),
    "after it in the child": ("os.register_at_fork(after_in_child=block)", "__import__('time').sleep(0.01)"),
    "spinning": ("os.register_at_fork(before=block)", "sum(range(100_000))"),
}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    made.start("--answer", str(ANSWER_S))
    yield made
    made.close()


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it is stopped")


def source_of(loaded: Message) -> Message:
    return {"type": "source", "bundle": loaded["bundle"], "file": loaded["file"], "files": loaded["files"]}


def gated(rig: Rig) -> tuple[Message, int, int]:
    """A running task that waits for the file `gate`: (its file, its pid, its host's pid)."""
    gate = rig.home / "gate"
    wait = f"while not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)"
    loaded = rig.load_task(f"import os, time\nprint(os.getppid())\n{wait}\nreturn 8")
    pid = rig.begin(1, loaded=loaded)["pid"]
    return loaded, pid, int(until(lambda: rig.logged(1).strip(), "it runs"))


def test_a_stopped_host_is_replaced_and_what_it_ran_goes_on(rig: Rig) -> None:
    loaded, pid, host = gated(rig)
    stop(host)
    until(lambda: not Path(f"/proc/{host}").exists(), "the end of the host")
    assert f"(pid {host}) is ended: it has not answered" in (rig.home / "runner.log").read_text()
    rig.to.send(rig.order(2, loaded=loaded))
    rig.to.expect("need_source")
    rig.to.send(source_of(loaded))
    rig.to.expect("started", fence=2)
    assert alive(pid)
    (rig.home / "gate").touch()
    for fence in (1, 2):
        assert rig.to.expect("ended", fence=fence)["outcome"]["xcoms"] == [["return_value", 8]]


@pytest.mark.parametrize("where", STUCK)
def test_a_task_whose_library_blocks_at_a_fork_ends_with_a_sentence_and_is_no_double(rig: Rig, where: str) -> None:
    register, body = STUCK[where]
    loaded = rig.load("hooked.py", HOOK.format(register=register, body=body))
    assert loaded["error"] is None
    (rig.dags / "blocks").touch()
    rig.to.send(rig.order(1, loaded=loaded))
    told = next(m for m in iter(rig.to.receive, None) if m["type"] in ("ended", "lost"))
    if where == "after it in the parent":  # its child runs all the same, and its result counts
        assert told["outcome"]["state"] == "success"
    elif where == "after it in the child":
        assert told["outcome"]["error"]["message"].startswith("FLX-7037")
    else:
        assert not told["began"]
    # Another task of another file was never held up, and once nothing blocks this one goes as well.
    (rig.dags / "blocks").unlink()
    assert rig.python(3, "return 1")["outcome"]["state"] == "success"
    rig.to.send(rig.order(2, loaded=loaded))
    while (message := rig.to.receive()).get("fence") != 2 or message["type"] != "ended":
        if message["type"] == "need_source":
            rig.to.send(source_of(loaded))
    assert message["outcome"]["xcoms"] == [["return_value", 5]]


@pytest.mark.parametrize("attempt_is_stopped", [False, True])
def test_a_kill_needs_no_host(tmp_path: Path, attempt_is_stopped: bool) -> None:
    rig = Rig(tmp_path)
    rig.start("--answer", "600")  # the host is not missed meanwhile
    try:
        _, pid, host = gated(rig)
        stop(host)
        if attempt_is_stopped:
            stop(pid)
        rig.to.send({"type": "kill", "fence": 1, "reason": "cancel", "grace_s": 0.5})
        until(lambda: not alive(pid), "the end of the attempt")
        assert alive(host)
        os.kill(host, signal.SIGCONT)
        assert rig.to.expect("ended", fence=1)["killed"] == "cancel"
    finally:
        rig.close()


def test_a_host_that_is_let_go_and_stays_is_ended(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.start("--answer", str(ANSWER_S), "--host-idle", "0.1")
    try:
        loaded = rig.load_task("import os\nreturn os.getppid()")
        host = rig.run(1, loaded=loaded)["outcome"]["xcoms"][0][1]
        if Path(f"/proc/{host}").exists():
            os.kill(host, signal.SIGSTOP)
        until(lambda: not Path(f"/proc/{host}").exists(), "the end of the host")
    finally:
        rig.close()


def client(side: Side) -> RunnerClient:
    options = RunnerOptions(answer_s=ANSWER_S, linger_s=5.0)
    return RunnerClient(side.rig.home, on_message=lambda _: None, on_lost=lambda: None, options=options)


@pytest.fixture
async def side(tmp_path: Path) -> AsyncIterator[Side]:
    made = Side(Rig(tmp_path), linger_s=5.0, answer_s=ANSWER_S)
    yield made
    await made.executor.stop()
    await made.executor.close()


@pytest.mark.anyio
async def test_a_stopped_runner_is_ended_and_the_next_one_goes_on(side: Side) -> None:
    await side.executor.open()
    first = side.executor.runner["pid"]
    side.executor.start([side.rig.order(1, spawn=["/bin/sleep", "300"])])
    started = await side.until(lambda: side.of(AttemptStarted, 1))
    before = side.executor.last_answer
    stop(first)
    await side.until(lambda: side.known)
    assert side.known == [{1}] and side.executor.runner["pid"] != first
    assert alive(started.pid)
    assert side.executor.last_answer > before
    side.executor.kill(1, "cancel")
    await side.until(lambda: side.of(AttemptEnded, 1))
    assert side.of(AttemptLost, 1) is None


@pytest.mark.anyio
async def test_a_daemon_that_starts_ends_a_runner_that_hangs(side: Side) -> None:
    await side.executor.open()
    first = side.executor.runner["pid"]
    side.executor.start([side.rig.order(1, spawn=["/bin/sleep", "300"])])
    started = await side.until(lambda: side.of(AttemptStarted, 1))
    await side.executor.close()
    stop(first)
    after = client(side)
    hello = await after.connect()
    assert hello["pid"] != first
    assert [(running["fence"], running["pid"]) for running in hello["running"]] == [(1, started.pid)]
    after.stop()
    await after.close()


@pytest.mark.anyio
async def test_a_reaper_that_hangs_keeps_no_new_runner_out(side: Side) -> None:
    await side.executor.open()
    await side.executor.close()
    reaper = lock_holder(side.rig.home / "runner" / "reaper.lock")
    assert reaper is not None
    stop(reaper)
    first = side.executor.runner["pid"]
    os.kill(first, signal.SIGKILL)
    after = client(side)
    hello = await after.connect()
    assert hello["pid"] != first
    after.stop()
    await after.close()


@pytest.mark.anyio
async def test_a_second_daemon_is_refused_with_the_pid_of_the_first(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    await side.executor.open()
    monkeypatch.setattr("fluxd.runner.client.CONNECT_TIMEOUT_S", 0.0)
    with pytest.raises(Unavailable, match=rf"FLX-7032.*serves another daemon \(pid {os.getpid()}\)"):
        await client(side).connect()


def test_time_that_we_slept_is_nobodys_silence() -> None:
    now = time.monotonic()
    silence = Silence(10.0, now)
    assert not silence.look(now + 1000)  # we were stopped
    looks = 0
    while not silence.look(now + 1000 + 2 * (looks := looks + 1)):
        assert looks < 10
    assert 2 <= looks <= 5
