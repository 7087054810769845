"""Real kills: of the runner, of a dag host. What ran is ended and proved dead, and no result is lost."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxd.runner import processes, records
from tests.daemon.runner_rig import Connection, Rig, alive
from tests.fluxd_process import until

FOREVER = "echo on; while :; do sleep 1; done"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    made.start()
    yield made
    made.close()


def kill_runner(rig: Rig) -> None:
    """And its parent, which would note how attempts end."""
    assert rig.process is not None
    rig.process.kill()
    rig.process.wait()
    os.kill(rig.pid, signal.SIGKILL)
    assert rig.to.at_end()
    rig.to.close()


def by_fence(messages: list[dict[str, object]]) -> dict[object, dict[str, object]]:
    return {message["fence"]: message for message in messages}


def test_what_a_killed_runner_ran_is_taken_over_and_no_result_is_lost(rig: Rig) -> None:
    gate = rig.home / "gate"
    wait = f"import os, time\nprint('on')\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n"
    slow = rig.load_task(f"{wait}return 'kept'", "slow.py")
    shell = f"echo on; while [ ! -e {gate} ]; do sleep 0.01; done; echo last; exit "
    rig.run(1, spawn=["/bin/sh", "-c", "exit 7"])
    pids = [
        rig.begin(2, loaded=slow)["pid"],
        *(rig.begin(fence, spawn=["/bin/sh", "-c", f"{shell}{code}"])["pid"] for fence, code in ((3, 0), (4, 6))),
    ]
    until(lambda: all(rig.logged(fence) for fence in (2, 3, 4)), "all run")
    rig.lose_runner()
    assert [ended["exit_code"] for ended in rig.to.hello["ended"]] == [7]
    assert {(running["fence"], running["pid"]) for running in rig.to.hello["running"]} == set(
        zip((2, 3, 4), pids, strict=True)
    )
    rig.lose_runner()  # and once more: the next one knows them all the same
    gate.touch()
    told = {ended["fence"]: ended for ended in rig.to.hello["ended"]}
    for fence in {2, 3, 4} - told.keys():
        told[fence] = rig.to.expect("ended", fence=fence)
    assert told[2]["outcome"]["xcoms"] == [["return_value", "kept"]]
    assert (told[3]["exit_code"], told[3]["outcome"]["xcoms"]) == (0, [["return_value", "last"]])
    assert (told[4]["exit_code"], told[4]["outcome"]["state"]) == (6, "failed")
    # A start that is repeated starts nothing.
    rig.to.send(rig.order(3, spawn=["/bin/false"]))
    assert rig.to.expect("ended", fence=3)["exit_code"] == 0
    rig.to.send({"type": "ack", "fences": [1, 2, 3, 4]})
    rig.to.close()
    rig.to = Connection(rig.home)
    assert (rig.to.hello["ended"], rig.to.hello["lost"], rig.records()) == ([], [], [])


def test_a_command_that_ends_while_there_is_no_runner_is_not_lost(rig: Rig) -> None:
    gate = rig.home / "gate"
    command = f"while [ ! -e {gate} ]; do sleep 0.01; done; echo last; exit "
    pids = [rig.begin(fence, spawn=["/bin/sh", "-c", f"{command}{fence - 1}"])["pid"] for fence in (1, 2)]
    runner, reaper = rig.pid, rig.process
    assert reaper is not None
    reaper.send_signal(signal.SIGSTOP)  # so that no other runner comes
    os.kill(runner, signal.SIGKILL)
    assert rig.to.at_end()
    rig.to.close()
    gate.touch()
    until(lambda: not any(map(alive, pids)), "the end of both")
    reaper.send_signal(signal.SIGCONT)
    until(lambda: rig._met(runner), "another runner takes over")
    told = {ended["fence"]: ended["exit_code"] for ended in rig.to.hello["ended"]}
    for fence in {1, 2} - told.keys():
        told[fence] = rig.to.expect("ended", fence=fence)["exit_code"]
    assert told == {1: 0, 2: 1}


def test_a_taken_over_attempt_can_be_stopped(rig: Rig) -> None:
    loaded = rig.load_task("import time\nprint('on')\ntime.sleep(300)")
    pids = [
        rig.begin(1, loaded=loaded)["pid"],
        rig.begin(2, spawn=["/bin/sh", "-c", f"trap '' TERM; {FOREVER}"], kill_grace_s=0.2)["pid"],
    ]
    until(lambda: rig.logged(1) and rig.logged(2), "both run")
    rig.lose_runner()
    for fence in (1, 2):
        rig.to.send({"type": "kill", "fence": fence, "reason": "cancel"})
    for fence in (1, 2):
        assert rig.to.expect("ended", fence=fence)["killed"] == "cancel"
    assert not any(map(alive, pids))


def test_after_a_taken_over_attempt_nothing_of_it_lives(rig: Rig) -> None:
    escape = "setsid env -i sh -c 'echo $$; exec sleep 300' & until [ -e %s ]; do sleep 0.01; done"
    gate = rig.home / "gate"
    rig.begin(1, spawn=["/bin/sh", "-c", escape % gate])
    escaped = int(until(lambda: rig.logged(1).strip(), "the daemon of the task runs"))
    rig.lose_runner()
    assert alive(escaped)
    gate.touch()
    assert rig.to.expect("ended", fence=1)["exit_code"] == 0
    until(lambda: not alive(escaped), "its end")


def test_with_the_reaper_gone_too_an_outcome_that_was_written_counts_and_the_rest_is_lost(rig: Rig) -> None:
    gate = rig.home / "gate"
    wait = f"import os, time\nprint('on')\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n"
    loaded = rig.load_task(f"{wait}return 'kept'")
    rig.begin(1, loaded=loaded)
    rig.begin(2, spawn=["/bin/sh", "-c", f"echo on; while [ ! -e {gate} ]; do sleep 0.01; done"])
    until(lambda: rig.logged(1) and rig.logged(2), "both run")
    kill_runner(rig)
    rig.start()
    assert {running["fence"] for running in rig.to.hello["running"]} == {1, 2}
    gate.touch()
    assert rig.to.expect("ended", fence=1)["outcome"]["xcoms"] == [["return_value", "kept"]]
    told = next(message for message in iter(rig.to.receive, None) if message.get("fence") == 2)
    if told["type"] == "lost":
        assert "neither its runner nor that one's parent" in told["evidence"] and told["began"]
    else:  # whoever is the parent now has not looked at it yet: the zombie tells
        assert told["exit_code"] == 0


def test_a_host_that_is_killed_leaves_its_attempts_to_the_runner(rig: Rig) -> None:
    gate = rig.home / "gate"
    loaded = rig.load_task(
        f"import os, time\nprint(os.getppid())\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n"
        "return 8"
    )
    began = rig.begin(1, loaded=loaded)
    until(lambda: rig.logged(1), "it runs")
    host = int(rig.logged(1))
    os.kill(host, signal.SIGKILL)
    # While it is a zombie the runner may not know yet, and would hand the next attempt to it.
    until(lambda: not Path(f"/proc/{host}").exists(), "the runner to know of the end of the host")
    # The next attempt of the same version gets a new host, from the stored source.
    rig.to.send(rig.order(2, loaded=loaded))
    rig.to.expect("need_source")
    rig.to.send({"type": "source", "bundle": loaded["bundle"], "file": loaded["file"], "files": loaded["files"]})
    rig.to.expect("started", fence=2)
    assert alive(began["pid"])
    gate.touch()
    for fence in (1, 2):
        assert rig.to.expect("ended", fence=fence)["outcome"]["xcoms"] == [["return_value", 8]]
    rig.to.send({"type": "ack", "fences": [1, 2]})
    until(lambda: not rig.records(), "empty records")


def test_told_to_stop_an_adopted_attempt_ends(rig: Rig) -> None:
    loaded = rig.load_task("import os, time\nprint(os.getppid())\ntime.sleep(300)")
    began = rig.begin(1, loaded=loaded)
    until(lambda: rig.logged(1), "it runs")
    os.kill(int(rig.logged(1)), signal.SIGKILL)
    rig.to.send({"type": "kill", "fence": 1, "reason": "cancel"})
    ended = rig.to.expect("ended", fence=1)
    assert ended["killed"] == "cancel" or ended["outcome"]["state"] == "failed"
    assert not alive(began["pid"])


def test_a_torn_or_foreign_record_is_no_trap(rig: Rig) -> None:
    rig.run(1, spawn=["/bin/true"])
    rig.run(2, spawn=["/bin/true"])
    kill_runner(rig)
    whole, torn = sorted(rig.records(), key=lambda path: path.name)
    torn.write_bytes(torn.read_bytes()[:-30])
    whole.with_name("99.1.rec").write_bytes(b"\xff\xfe nonsense\n")
    whole.with_name("99.2.rec").write_bytes(b"")
    rig.start()
    assert len(rig.to.hello["ended"]) == 1
    assert len(rig.to.hello["lost"]) == 1


def test_records_of_before_a_reboot_trust_no_pid(rig: Rig) -> None:
    kill_runner(rig)
    stranger = subprocess.Popen(["sleep", "300"])
    try:
        record = records.Records(str(rig.home / "runner")).take()
        record.append({"fence": 1, "boot_id": "of-another-life"})
        record.append({"pid": stranger.pid, "seen": processes.since_boot(), "started_at": 0.0})
        rig.start()
        (lost,) = rig.to.hello["lost"]
        assert (lost["fence"], lost["evidence"]) == (1, "the machine was restarted while it ran")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_the_daemon_may_come_and_go_while_tasks_run(rig: Rig) -> None:
    gate = rig.home / "gate"
    loaded = rig.load_task(f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\nreturn 1")
    pid = rig.begin(1, loaded=loaded)["pid"]
    for _ in range(3):
        rig.to.close()
        rig.to = Connection(rig.home)
        assert [(running["fence"], running["pid"]) for running in rig.to.hello["running"]] == [(1, pid)]
    rig.to.close()
    gate.touch()
    until(lambda: not alive(pid), "the end of the task")
    rig.to = Connection(rig.home)
    if rig.to.hello["running"]:
        rig.to.expect("ended", fence=1)
    else:
        assert rig.to.hello["ended"][0]["outcome"]["xcoms"] == [["return_value", 1]]


def test_a_start_that_waits_for_its_source_survives_a_reconnect(rig: Rig) -> None:
    loaded = rig.load_task("return 3")
    rig.close()
    rig.start()
    rig.to.send(rig.order(1, loaded=loaded))
    rig.to.expect("need_source")
    rig.to.close()
    rig.to = Connection(rig.home)
    assert rig.to.hello["running"] == [{"fence": 1, "pid": None, "started_at": None}]
    rig.to.expect("need_source", bundle=loaded["bundle"])
    rig.to.send({"type": "source", "bundle": loaded["bundle"], "file": loaded["file"], "files": loaded["files"]})
    assert rig.to.expect("ended", fence=1)["outcome"]["state"] == "success"


def test_told_to_stop_before_it_began(rig: Rig) -> None:
    loaded = rig.load_task("return 3")
    rig.close()
    rig.start()
    rig.to.send(rig.order(1, loaded=loaded))
    rig.to.expect("need_source")
    rig.to.send({"type": "kill", "fence": 1, "reason": "cancel"})
    ended = rig.to.expect("ended", fence=1)
    assert ended["pid"] is None
    assert "before its process began" in ended["outcome"]["error"]["message"]
    rig.to.send({"type": "source", "bundle": loaded["bundle"], "file": loaded["file"], "files": loaded["files"]})
    assert rig.run(2, spawn=["/bin/true"])["exit_code"] == 0
    assert "before its process began" in rig.logged(1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_runner_in_order(rig: Rig, number: signal.Signals) -> None:
    began = rig.begin(1, spawn=["/bin/sleep", "300"])
    assert rig.process is not None
    rig.process.send_signal(number)
    assert rig.to.expect("ended", fence=1)["killed"] == "stop"
    assert rig.process.wait(10) == 0
    assert not alive(began["pid"])
    rig.to.close()
    rig.start()
    assert [ended["fence"] for ended in rig.to.hello["ended"]] == [1], "nobody had acknowledged it"


def test_one_that_is_told_to_stop_while_it_starts_stops(rig: Rig) -> None:
    rig.close()
    rig.start(connect=False)
    for _ in range(5):
        assert rig.process is not None
        rig.process.terminate()
        assert rig.process.wait(20) == 0
        rig.process = begin(rig)
    rig.process.terminate()
    assert rig.process.wait(20) == 0


def begin(rig: Rig) -> "subprocess.Popen[bytes]":
    """A reaper whose runner has just been made: it holds its lock, and does not listen yet."""
    lock = rig.home / "runner" / "lock"
    lock.unlink()
    arguments = [sys.executable, "-m", "fluxd.runner", "--home", str(rig.home)]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not lock.exists() and process.poll() is None:
        pass
    return process
