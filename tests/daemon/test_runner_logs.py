"""What a task may do to its log, and what the disk may do to it: the task goes on, and what is missing is said."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.runner_rig import Rig

MB = 1024 * 1024


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    made.start()
    yield made
    made.close()


def test_a_log_that_cannot_be_opened_does_not_stop_the_task(rig: Rig) -> None:
    (rig.home / "logs").write_text("no folder")
    ended = rig.run(1, spawn=["/bin/sh", "-c", "echo lost"])
    assert ended["outcome"]["state"] == "success"
    assert "FLX-7020" in ended["log_note"]
    assert "Not a directory" in ended["log_note"]
    ended = rig.python(2, "print('lost')\nreturn 1")
    assert ended["outcome"]["xcoms"] == [["return_value", 1]]
    assert "FLX-7020" in ended["log_note"]


def test_a_log_that_is_a_link_is_not_followed(rig: Rig, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    rig.log(1).parent.mkdir(parents=True)
    rig.log(1).symlink_to(secret)
    ended = rig.run(1, spawn=["/bin/sh", "-c", "echo overwritten"])
    assert "FLX-7020" in ended["log_note"]
    assert secret.read_text() == "mine"


def test_200_megabytes_in_one_line(rig: Rig) -> None:
    ended = rig.run(1, spawn=["/bin/sh", "-c", "head -c 209715200 /dev/zero | tr '\\0' x"])
    assert ended["outcome"] == {"state": "success", "xcoms": []}, "such a line is no XCom"
    with rig.log(1).open("rb") as log:
        log.seek(200 * MB - 1)
        assert log.read(1) == b"x"
        assert b"FLX-3054" in log.read(1000)
    rig.log(1).unlink()
    ended = rig.python(2, "print('y' * (200 * 1024 * 1024), end='')\nreturn 2")
    assert ended["outcome"]["xcoms"] == [["return_value", 2]]
    assert rig.log(2).stat().st_size == 200 * MB
    rig.log(2).unlink()


def test_output_that_is_no_text_is_kept_as_it_is(rig: Rig) -> None:
    ended = rig.run(1, spawn=["/bin/sh", "-c", "printf 'a\\377\\000b\\n'"])
    assert rig.log(1).read_bytes() == b"a\xff\x00b\n"
    assert ended["outcome"]["xcoms"] == [["return_value", "a\ufffd\ufffdb"]]
    ended = rig.python(
        2, "import sys\nprint('\\udcff\\ud800 caf\\xe9')\nsys.stdout.buffer.write(b'\\xff\\x00')\nreturn 1"
    )
    assert ended["outcome"]["state"] == "success", ended
    assert rig.log(2).read_bytes() == b"\\udcff\\ud800 caf\xc3\xa9\n\xff\x00"


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("'\\\\\\\\u0000'", "\\\\u0000"),
        ("'\\U0001f600'", "\U0001f600"),
    ],
)
def test_strange_text_in_a_result_arrives_as_text(rig: Rig, value: str, seen: str) -> None:
    ended = rig.python(1, f"return {value}")
    assert ended["outcome"]["state"] == "success", ended
    assert ended["outcome"]["xcoms"] == [["return_value", seen]]


def test_strange_text_in_an_error_arrives_as_text(rig: Rig) -> None:
    ended = rig.python(1, "raise ValueError('a\\0b \\ud800 \\\\u0000')")
    message = ended["outcome"]["error"]["message"]
    assert "a\ufffdb \\ud800 \\u0000" in message, message


@pytest.mark.parametrize("value", ["object()", "'\\ud800x'", "float('nan')", "{1, 2}.__iter__()"])
def test_a_result_that_is_no_json_is_a_failure_that_says_so(rig: Rig, value: str) -> None:
    ended = rig.python(1, f"return {value}")
    assert ended["outcome"]["state"] == "failed"
    assert "FLX-" in ended["outcome"]["error"]["message"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_for_logs_is_said_and_the_task_goes_on(rig: Rig) -> None:
    logs = rig.home / "logs"
    logs.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(logs)], capture_output=True)
    if mounted.returncode:
        pytest.skip(mounted.stderr.decode())
    try:
        ended = rig.python(1, "for _ in range(100):\n    print('x' * 2000)\nreturn 'done'")
        assert ended["outcome"]["xcoms"] == [["return_value", "done"]], ended
        assert "bytes of the output could not be written" in ended["log_note"]
        assert "No space left" in ended["log_note"]
    finally:
        subprocess.run(["umount", str(logs)], check=True)


def test_threads_that_are_no_daemons_are_waited_for_and_exit_handlers_run(rig: Rig) -> None:
    ended = rig.python(
        1,
        """
        import atexit, threading, time
        atexit.register(lambda: print("handled"))
        threading.Thread(target=lambda: (time.sleep(0.3), print("thread"))).start()
        print("returned")
        """,
    )
    assert ended["outcome"]["state"] == "success"
    assert rig.logged(1) == "returned\nthread\nhandled\n"


def test_handlers_of_the_import_do_not_run_in_attempts(rig: Rig) -> None:
    loaded = rig.load(
        "handlers.py",
        "import atexit, signal\nfrom fluxd import DAG, task\natexit.register(lambda: print('of the import'))\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "with DAG('h', schedule=None):\n    @task\n    def t():\n        import subprocess, time\n"
        "        assert subprocess.run(['sh', '-c', 'exit 3']).returncode == 3\n        print('on')\n    t()\n",
    )
    ended = rig.run(1, loaded=loaded)
    assert ended["outcome"]["state"] == "success", ended
    assert rig.logged(1) == "on\n"


def test_a_result_that_is_large_arrives_whole(rig: Rig) -> None:
    ended = rig.python(1, "return 'x' * 900_000")
    assert ended["outcome"]["xcoms"] == [["return_value", "x" * 900_000]]


def test_random_numbers_differ_between_attempts(rig: Rig) -> None:
    loaded = rig.load(
        "dice.py",
        "import random\nfrom fluxd import DAG, task\nwith DAG('dice', schedule=None):\n"
        "    @task\n    def t():\n        return random.random()\n    t()\n",
    )
    values = {rig.run(fence, loaded=loaded)["outcome"]["xcoms"][0][1] for fence in (1, 2, 3)}
    assert len(values) == 3


def test_a_task_may_fork_and_thread_as_anybody(rig: Rig) -> None:
    ended = rig.python(
        1,
        """
        import multiprocessing, threading
        from concurrent.futures import ThreadPoolExecutor, ProcessPoolExecutor
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(abs, [-1, -2])) == [1, 2]
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as processes:
            assert list(processes.map(abs, [-1, -2])) == [1, 2]
        return threading.current_thread() is threading.main_thread()
        """,
    )
    assert ended["outcome"]["state"] == "success", (ended, rig.logged(1))
    assert ended["outcome"]["xcoms"] == [["return_value", True]]


def test_only_the_task_itself_tells_its_result_and_not_a_child_it_forked(rig: Rig) -> None:
    ended = rig.python(
        1,
        """
        import os
        child = os.fork()
        if child == 0:
            return "the child's"
        os.waitpid(child, 0)
        os._exit(3)
        """,
    )
    assert ended["outcome"]["state"] == "failed", ended
    assert "exit code 3" in ended["outcome"]["error"]["message"]
