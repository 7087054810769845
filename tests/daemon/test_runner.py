"""The runner as a real process: attempts start, end, are killed and are told."""

import fcntl
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxd.runner.protocol import PROTOCOL, FrameReader, encode
from tests.daemon.runner_rig import PATIENCE_S, Connection, Rig, alive
from tests.fluxd_process import until


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    made.start()
    yield made
    made.close()


def test_a_command_runs_and_its_end_is_told(rig: Rig) -> None:
    ended = rig.run(1, spawn=["/bin/sh", "-c", "echo one; echo two >&2; readlink /proc/self/fd/0"])
    assert ended["outcome"] == {"state": "success", "xcoms": [["return_value", "/dev/null"]]}
    assert (ended["exit_code"], ended["signal"]) == (0, None)
    assert rig.logged(1) == "one\ntwo\n/dev/null\n"
    assert ended["usage"]["max_rss_kb"] > 0
    assert ended["started_at"] <= ended["ended_at"]


@pytest.mark.parametrize(("code", "state"), [(0, "success"), (99, "skipped"), (3, "failed")])
def test_the_exit_code_of_a_command_is_its_outcome(rig: Rig, code: int, state: str) -> None:
    ended = rig.run(1, spawn=["/bin/sh", "-c", f"exit {code}"])
    assert ended["exit_code"] == code
    assert ended["outcome"]["state"] == state
    if state == "failed":
        assert "exit code 3" in ended["outcome"]["error"]["message"]


def test_a_command_that_fails_is_quoted(rig: Rig) -> None:
    said = "printf 'loading\\n\\033[31mpsql: no such\\ttable\\033[0m\\n\\n'; exit 2"
    error = rig.run(1, spawn=["/bin/sh", "-c", said])["outcome"]["error"]
    assert error["message"] == "FLX-3014: The command ended with exit code 2; it said last: psql: no such table"


def test_a_command_that_does_not_exist_is_named(rig: Rig) -> None:
    ended = rig.run(1, spawn=["/no/such/program"])
    assert ended["pid"] is None
    assert "/no/such/program could not be started" in ended["outcome"]["error"]["message"]
    assert "No such file" in rig.logged(1)


def test_a_python_task_runs_in_a_fork_of_its_dag_host(rig: Rig) -> None:
    ended = rig.python(
        1,
        """
        import os, sys
        print("out")
        print("err", file=sys.stderr)
        os.write(1, b"raw\\n")
        return [os.getpid(), os.getppid(), os.getsid(0), os.environ["FLUX_TASK_ID"], sys.stdin.read()]
        """,
    )
    assert ended["outcome"]["state"] == "success", ended
    (key, value) = ended["outcome"]["xcoms"][0]
    pid, host, session, task_id, read = value
    assert (key, pid, session, task_id, read) == ("return_value", ended["pid"], ended["pid"], "t", "")
    assert Path(f"/proc/{host}/comm").read_text() == "flux-host\n"
    assert rig.logged(1) == "out\nerr\nraw\n"


def test_a_failing_task_tells_its_error_and_logs_the_traceback(rig: Rig) -> None:
    ended = rig.python(1, "raise ValueError('not today')")
    assert ended["exit_code"] == 1
    assert ended["outcome"]["state"] == "failed"
    assert "not today" in ended["outcome"]["error"]["message"]
    assert "one.py" in rig.logged(1)


@pytest.mark.parametrize(
    ("body", "exit_code", "number", "words"),
    [
        ("import os\nos._exit(7)", 7, None, "exit code 7"),
        ("import os\nos._exit(0)", 0, None, "exit code 0"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", None, signal.SIGSEGV, "SIGSEGV"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", None, signal.SIGKILL, "memory ran out"),
        ("import ctypes\nctypes.string_at(0)", None, signal.SIGSEGV, "SIGSEGV"),
    ],
)
def test_a_crash_is_told_with_its_reason(
    rig: Rig, body: str, exit_code: int | None, number: int | None, words: str
) -> None:
    ended = rig.python(1, body)
    assert (ended["exit_code"], ended["signal"]) == (exit_code, number)
    assert ended["outcome"]["state"] == "failed"
    assert re.match(r"FLX-\d{4}: ", ended["outcome"]["error"]["message"])
    assert words in ended["outcome"]["error"]["message"]
    assert words in rig.logged(1)


def test_a_bash_task_with_a_template_becomes_its_command(rig: Rig) -> None:
    loaded = rig.load(
        "bash.py",
        """
        from fluxd import DAG
        from fluxd.ops import BashOperator
        with DAG("bash", schedule=None):
            BashOperator(task_id="t", bash_command="echo $$ {{ ds }} $PPID; exit {{ 0 }}")
            BashOperator(task_id="skip", bash_command="exit {{ 99 }}")
            BashOperator(task_id="fail", bash_command="exit {{ 3 }}")
        """,
    )
    ended = rig.run(1, loaded=loaded)
    assert ended["outcome"]["state"] == "success", ended
    pid, date, _ = rig.logged(1).split()
    assert (int(pid), date) == (ended["pid"], "2026-01-01")
    assert ended["outcome"]["xcoms"] == [["return_value", rig.logged(1).strip()]]
    assert "2026-01-01" in ended["outcome"]["rendered"]["bash_command"]
    assert rig.run(2, loaded=loaded, task="skip")["outcome"]["state"] == "skipped"
    assert "exit code 3" in rig.run(3, loaded=loaded, task="fail")["outcome"]["error"]["message"]


def test_attempts_of_one_file_run_side_by_side(rig: Rig) -> None:
    loaded = rig.load_task(f"import fcntl\nfcntl.flock(open({str(rig.home / 'gate')!r}), fcntl.LOCK_SH)")
    with (rig.home / "gate").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        pids = {rig.begin(fence, loaded=loaded)["pid"] for fence in range(1, 9)}
        assert len(pids) == 8
        assert all(map(alive, pids))
    ended = {rig.to.expect("ended", fence=fence)["outcome"]["state"] for fence in range(1, 9)}
    assert ended == {"success"}


def test_many_attempts_at_once_each_end_once(rig: Rig) -> None:
    loaded = rig.load_task("import os\nn = int(os.environ['FLUX_FENCE'])\nassert n % 5\nreturn n")
    waiting, running, ended = list(range(300, 0, -1)), set[int](), dict[int, str]()
    while waiting or running:
        while waiting and len(running) < 32:
            fence = waiting.pop()
            running.add(fence)
            spawn = ["/bin/sh", "-c", f"exit {fence % 5 == 0:d}"] if fence % 3 == 0 else None
            rig.to.send(rig.order(fence, spawn=spawn, loaded=loaded))
            if fence % 50 == 1:
                rig.to.send({"type": "kill", "fence": fence, "reason": "cancel"})
        message = rig.to.expect("ended")
        running.remove(message["fence"])
        ended[message["fence"]] = message["outcome"]["state"]
        rig.to.send({"type": "ack", "fences": [message["fence"]]})
    for fence, state in ended.items():
        assert state == ("failed" if fence % 5 == 0 else "success") or fence % 50 == 1
    until(lambda: not rig.records(), "empty records")
    assert (rig.home / "runner.log").read_text() == "ready\n"


def waiting_child(rig: Rig) -> int | None:
    """The process that was forked ahead for the next order, once it waits."""
    pid = rig.pid
    for host in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        for child in Path(f"/proc/{host}/task/{host}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text() == "flux-spare\n":
                return int(child)
    return None


def test_a_child_waits_for_the_next_order(rig: Rig) -> None:
    loaded = rig.load_task("import os\nreturn os.environ['FLUX_FENCE']")
    rig.run(1, loaded=loaded)
    waiting = until(lambda: waiting_child(rig), "a child waits")
    ended = rig.run(2, loaded=loaded)
    assert (ended["pid"], ended["outcome"]["xcoms"]) == (waiting, [["return_value", "2"]])


def test_a_waiting_child_that_dies_is_replaced(rig: Rig) -> None:
    loaded = rig.load_task("return 1")
    rig.run(1, loaded=loaded)
    waiting = until(lambda: waiting_child(rig), "a child waits")
    os.kill(waiting, signal.SIGKILL)
    assert rig.run(2, loaded=loaded)["outcome"]["state"] in ("success", "failed")
    until(lambda: waiting_child(rig) not in (None, waiting), "another child waits")
    assert rig.run(3, loaded=loaded)["outcome"]["xcoms"] == [["return_value", 1]]


def test_told_to_stop_a_task_gets_term_and_its_clean_up_runs(rig: Rig) -> None:
    loaded = rig.load_task(
        """
        import time
        print("begun")
        try:
            time.sleep(60)
        finally:
            print("cleaned up")
        """
    )
    rig.begin(1, loaded=loaded)
    until(lambda: "begun" in rig.logged(1), "the task has begun")
    rig.to.send({"type": "kill", "fence": 1, "reason": "timeout", "grace_s": 20})
    ended = rig.to.expect("ended", fence=1)
    assert (ended["exit_code"], ended["killed"]) == (1, "timeout")
    assert ended["outcome"]["state"] == "failed"
    assert "cleaned up" in rig.logged(1)
    assert "SIGTERM" in rig.logged(1)


def test_a_result_that_was_told_before_the_order_to_stop_stands(rig: Rig) -> None:
    loaded = rig.load_task(
        """
        import atexit, sys, time
        atexit.register(lambda: (print("told", flush=True), time.sleep(300)))
        return 7
        """
    )
    rig.begin(1, loaded=loaded)
    until(lambda: "told" in rig.logged(1), "the task to have told its result")
    rig.to.send({"type": "kill", "fence": 1, "reason": "cancel"})
    ended = rig.to.expect("ended", fence=1)
    assert (ended["outcome"]["state"], "killed" in ended) == ("success", False)


def test_a_task_that_catches_the_order_to_stop_was_told_all_the_same(rig: Rig) -> None:
    loaded = rig.load_task(
        """
        import time
        try:
            print("working", flush=True)
            time.sleep(300)
        except BaseException:
            pass
        return 7
        """
    )
    rig.begin(1, loaded=loaded)
    until(lambda: "working" in rig.logged(1), "the task to work")
    rig.to.send({"type": "kill", "fence": 1, "reason": "timeout"})
    ended = rig.to.expect("ended", fence=1)
    assert (ended["outcome"]["state"], ended["killed"]) == ("success", "timeout")
    assert "stopped" not in ended["outcome"]


def test_a_tree_that_ignores_term_is_killed_whole(rig: Rig) -> None:
    script = """
    trap '' TERM
    (trap '' TERM; sleep 300) &
    setsid sh -c 'trap "" TERM; echo escaped $$; sleep 300; true' &
    echo inner $!
    sleep 300
    """
    began = rig.begin(1, spawn=["/bin/bash", "-c", script])
    until(lambda: "escaped" in rig.logged(1), "all processes run")
    escaped = int(re.search(r"escaped (\d+)", rig.logged(1))[1])
    rig.to.send({"type": "kill", "fence": 1, "reason": "cancel", "grace_s": 0.2})
    ended = rig.to.expect("ended", fence=1)
    assert (ended["signal"], ended["killed"]) == (signal.SIGKILL, "cancel")
    assert "SIGKILL" in rig.logged(1)
    until(lambda: not alive(escaped), "the end of the process that made its own session")
    assert not alive(began["pid"])


def test_a_forked_child_that_leaves_its_session_ends_with_the_attempt(rig: Rig) -> None:
    ended = rig.python(
        1,
        """
        import os, time
        read, write = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(write, str(os.getpid()).encode())
                time.sleep(300)
            os._exit(0)
        return int(os.read(read, 100))
        """,
    )
    assert ended["outcome"]["state"] == "success", ended
    grandchild = ended["outcome"]["xcoms"][0][1]
    until(lambda: not alive(grandchild), "the end of the grandchild")


def test_a_stopped_process_is_killed(rig: Rig) -> None:
    began = rig.begin(1, spawn=["/bin/sh", "-c", "trap '' TERM; echo set; sleep 300"])
    until(lambda: rig.logged(1), "the trap")
    os.kill(began["pid"], signal.SIGSTOP)
    rig.to.send({"type": "kill", "fence": 1, "reason": "timeout", "grace_s": 0.1})
    assert rig.to.expect("ended", fence=1)["signal"] == signal.SIGKILL


def test_a_second_start_of_a_fence_starts_nothing(rig: Rig) -> None:
    order = rig.order(1, spawn=["/bin/sh", "-c", "echo x"])
    rig.to.send(order)
    first = rig.to.expect("ended", fence=1)
    rig.to.send(order)
    assert rig.to.expect("ended", fence=1) == first
    assert rig.logged(1) == "x\n"


def test_results_are_kept_until_they_are_acknowledged(rig: Rig) -> None:
    loaded = rig.load_task("return 5")
    rig.begin(1, spawn=["/bin/sh", "-c", "exit 4"])
    rig.begin(2, loaded=loaded)
    assert rig.to.expect("ended", fence=2)["outcome"]["xcoms"] == [["return_value", 5]]
    rig.to.expect("ended", fence=1)
    rig.begin(3, spawn=["/bin/sleep", "300"])
    rig.to.close()
    rig.to = Connection(rig.home)
    assert sorted(ended["fence"] for ended in rig.to.hello["ended"]) == [1, 2]
    assert [running["fence"] for running in rig.to.hello["running"]] == [3]
    rig.to.send({"type": "ack", "fences": [1, 2]})
    rig.to.send({"type": "kill", "fence": 3, "reason": "cancel"})
    rig.to.expect("ended", fence=3)
    rig.to.send({"type": "ack", "fences": [3]})
    until(lambda: not rig.records(), "empty records")
    rig.to.close()
    rig.to = Connection(rig.home)
    assert (rig.to.hello["ended"], rig.to.hello["running"], rig.to.hello["lost"]) == ([], [], [])


def test_a_second_daemon_is_told_whom_the_runner_serves(rig: Rig) -> None:
    with socket.socket(socket.AF_UNIX) as second:
        second.settimeout(PATIENCE_S)
        second.connect(str(rig.home / "runner.sock"))
        second.sendall(encode({"type": "hello", "protocol": PROTOCOL}))
        (told,) = FrameReader().feed(second.recv(4096))
        assert json.loads(told) == {"type": "busy", "pid": os.getpid()}
        assert rig.run(1, spawn=["/bin/true"])["exit_code"] == 0, "the first is served as before"


def test_one_that_connects_and_says_nothing_keeps_nobody_out_for_long(rig: Rig) -> None:
    rig.to.close()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(rig.home / "runner.sock"))
        rig.to = Connection(rig.home)
        assert silent.recv(1) == b""


def test_results_that_are_large_together_are_told_all_the_same(rig: Rig) -> None:
    one = "from fluxd.authoring.current import running\nfor i in range(3):\n"
    one += "    running.get()['ti'].xcom_push(f'k{i}', 'x' * 1_000_000)\nreturn 1"
    loaded = rig.load_task(one)
    for fence in range(1, 31):
        rig.to.send(rig.order(fence, loaded=loaded))
    for fence in range(1, 31):
        assert rig.to.expect("ended", fence=fence)["outcome"]["state"] == "success"
    rig.to.close()
    rig.to = Connection(rig.home)
    assert len(rig.to.hello["ended"]) == 30


def test_a_result_that_is_too_large_fails_its_task_alone(rig: Rig) -> None:
    one = "from fluxd.authoring.current import running\nfor i in range(40):\n"
    one += "    running.get()['ti'].xcom_push(f'k{i}', 'x' * 1_000_000)\nreturn 1"
    error = rig.python(1, one)["outcome"]["error"]
    assert error["message"].startswith("FLX-7023") and not error["retry"]
    assert rig.run(2, spawn=["/bin/true"])["exit_code"] == 0


def test_a_pipe_in_place_of_a_log_is_not_waited_for(rig: Rig) -> None:
    rig.log(1).parent.mkdir(parents=True)
    os.mkfifo(rig.log(1))
    ended = rig.run(1, spawn=["/bin/true"])
    assert ended["exit_code"] == 0 and "FLX-7020" in ended["log_note"]


def test_only_one_daemon_at_a_time(rig: Rig) -> None:
    began = rig.begin(1, spawn=["/bin/sleep", "300"])
    rig.to.send({"type": "kill", "fence": 1, "reason": "cancel"})
    rig.to.close()
    # The kill was read before the end of file, and the new connection is served after it.
    second = Connection(rig.home)
    if second.hello["running"]:
        second.expect("ended", fence=1)
    second.close()
    rig.to = Connection(rig.home)
    assert [ended["fence"] for ended in rig.to.hello["ended"]] == [1]
    assert not alive(began["pid"])


def test_another_protocol_is_told_and_serves_nothing(rig: Rig) -> None:
    rig.to.close()
    rig.to = Connection(rig.home, protocol=99)
    assert rig.to.hello["protocol"] == 1
    rig.to.send(rig.order(1, spawn=["/bin/true"]))
    rig.to.close()
    rig.to = Connection(rig.home)
    assert rig.to.hello["running"] == []
    assert rig.to.hello["ended"] == []


def test_nonsense_closes_the_connection_and_nothing_else(rig: Rig) -> None:
    rig.begin(1, spawn=["/bin/sleep", "300"])
    rig.to._socket.sendall(b"\xff\xff\xff\xffGET / HTTP/1.1")
    assert rig.to.at_end()
    rig.to.close()
    rig.to = Connection(rig.home)
    assert [running["fence"] for running in rig.to.hello["running"]] == [1]


def test_stop_ends_all_attempts_and_the_runner(rig: Rig) -> None:
    loaded = rig.load_task("import time\ntime.sleep(300)")
    pids = [rig.begin(1, spawn=["/bin/sleep", "300"])["pid"], rig.begin(2, loaded=loaded)["pid"]]
    rig.to.send({"type": "stop"})
    assert {rig.to.expect("ended", fence=fence)["killed"] for fence in (1, 2)} == {"stop"}
    assert rig.to.at_end()
    assert rig.process is not None
    assert rig.process.wait(10) == 0
    assert not any(map(alive, pids))


def test_the_runner_leaves_when_nobody_needs_it(rig: Rig) -> None:
    rig.close()
    rig.start("--linger", "0.2")
    rig.run(1, spawn=["/bin/true"])
    rig.to.close()
    # The result is not acknowledged: it stays.
    rig.to = Connection(rig.home)
    rig.to.send({"type": "ack", "fences": [1]})
    rig.to.close()
    assert rig.process is not None
    assert rig.process.wait(10) == 0


def test_a_second_runner_for_a_home_leaves_at_once(rig: Rig) -> None:
    other = Rig.__new__(Rig)
    other.home = rig.home
    other.start(connect=False)
    assert other.said.startswith("FLX-7001")
    assert other.process is not None
    assert other.process.wait(10) == 0
    assert rig.run(1, spawn=["/bin/true"])["exit_code"] == 0


def test_tasks_see_nothing_of_the_environment_of_the_daemon(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.start(env={**os.environ, "FLUXD_DATABASE_URL": "secret", "AWS_SECRET": "secret", "LC_TIME": "C"})
    try:
        ended = rig.run(1, spawn=["/bin/sh", "-c", "env; cat /proc/$PPID/environ | tr '\\0' '\\n'"])
        assert ended["exit_code"] == 0
        seen = rig.logged(1)
        assert "secret" not in seen
        assert "LC_TIME" not in seen
        assert f"FLUX_RUNNER={rig.home}" in seen
        ended = rig.python(2, "import os\nreturn dict(os.environ)")
        assert "secret" not in json.dumps(ended)
    finally:
        rig.close()


def test_the_socket_is_for_our_user_alone(rig: Rig) -> None:
    assert (rig.home / "runner.sock").stat().st_mode & 0o777 == 0o600
    assert (rig.home / "runner").stat().st_mode & 0o777 == 0o700


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.home = tmp_path / "file"
    rig.home.mkdir()
    (rig.home / "runner").write_text("in the way")
    rig.start(connect=False)
    assert rig.said.startswith("FLX-7004")
    assert rig.process is not None
    assert rig.process.wait(10) == 1
