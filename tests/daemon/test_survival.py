"""Real kills: of the daemon, of the runner, of a task. What ran goes on, nothing is lost, nothing runs twice.

The tasks keep a journal of their own, which Flux does not know: a line when they begin and one when they end.
"""

import os
import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from fluxd.signals import STRAY
from tests.daemon.runner_rig import Connection, Rig
from tests.fluxd_process import Daemon, until

JOURNAL = '''
import os, time
from pathlib import Path
from fluxd import DAG, task
from fluxd.ops import BashOperator

HERE = Path(__file__).parent.parent

def note(word):
    line = f"{word} {os.environ['FLUX_TASK_ID']} {os.environ['FLUX_TRY_NUMBER']} {os.getpid()}\\n"
    fd = os.open(HERE / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line.encode())
    os.fsync(fd)
    os.close(fd)

def until_told(name="go"):
    """A gate that the test opens: the task runs until then."""
    note("begin")
    while not (HERE / name).exists():
        time.sleep(0.01)
    note("end")
'''

GATED = (
    JOURNAL
    + """
with DAG("gated", schedule=None):
    for number in range(5):

        @task(task_id=f"t{number}")
        def wait_for_the_gate() -> int:
            until_told()
            return os.getpid()

        wait_for_the_gate()
    BashOperator(task_id="shell", bash_command=f"echo $$; while [ ! -e {HERE}/go ]; do sleep 0.01; done; exit 0")

with DAG("retrying", schedule=None):

    @task(retries=2, retry_delay=0)
    def third_time_lucky() -> None:
        note("begin")
        if os.environ["FLUX_TRY_NUMBER"] != "3":
            raise ValueError("not yet")

    third_time_lucky()

with DAG("killed", schedule=None):

    @task(retries=1, retry_delay=0)
    def survivor() -> None:
        if os.environ["FLUX_TRY_NUMBER"] == "1":
            until_told("never")
        note("begin")

    survivor()

with DAG("slow", schedule=None):

    @task(execution_timeout=0.3)
    def too_slow() -> None:
        until_told("never")

    too_slow()
"""
)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    one = Daemon(settings={"FLUXD__EXECUTOR__KILL_GRACE_S": "1"})
    one.write("gated.py", GATED)
    with one:
        one.until_known("gated")
        yield one


def journal(daemon: Daemon) -> list[tuple[str, str, int, int]]:
    """(begin | end, task id, try, pid), in order."""
    path = daemon.folder / "journal"
    if not path.exists():
        return []
    lines = [line.split() for line in path.read_text().splitlines()]
    return [(word, task, int(number), int(pid)) for word, task, number, pid in lines]


def running(daemon: Daemon, run_id: str, count: int, dag_id: str = "gated") -> None:
    """Wait until so many tasks of the run are running and have begun."""

    def all_run() -> bool:
        tasks = daemon.run(dag_id, run_id)["tasks"]
        return sum(task["state"] == "running" for task in tasks) == count

    daemon.until(all_run, f"{count} tasks run")


def begun(daemon: Daemon, count: int) -> None:
    until(lambda: sum(word == "begin" for word, *_ in journal(daemon)) >= count, f"{count} tasks have begun")


def open_gate(daemon: Daemon) -> None:
    (daemon.folder / "go").touch()


def test_a_killed_daemon_finds_its_tasks_again(daemon: Daemon) -> None:
    run_id = daemon.trigger("gated")
    running(daemon, run_id, 6)
    begun(daemon, 5)
    before = journal(daemon)
    daemon.kill()
    daemon.start()
    assert sum(task["state"] == "running" for task in daemon.run("gated", run_id)["tasks"]) == 6
    open_gate(daemon)
    run = daemon.wait("gated", run_id)
    assert run["state"] == "success", run
    assert all(task["try_number"] == 1 for task in run["tasks"])
    after = journal(daemon)
    assert after[: len(before)] == before
    assert [word for word, *_ in after[len(before) :]] == ["end"] * 5
    assert {pid for _, _, _, pid in before} == {pid for word, _, _, pid in after if word == "end"}


def test_results_of_tasks_that_end_while_the_daemon_is_down_are_kept(daemon: Daemon) -> None:
    run_id = daemon.trigger("gated")
    running(daemon, run_id, 6)
    begun(daemon, 5)
    daemon.kill()
    open_gate(daemon)
    gone = [Path(f"/proc/{pid}") for word, _, _, pid in journal(daemon) if word == "begin"]
    until(lambda: not any(path.exists() for path in gone), "all have ended")
    ended_before = datetime.now().astimezone()
    daemon.start()
    run = daemon.wait("gated", run_id)
    assert run["state"] == "success"
    for task in run["tasks"]:
        if task["task_id"] != "shell":
            assert datetime.fromisoformat(task["ended_at"]) < ended_before, "the true time of its end"
    assert len(journal(daemon)) == 10


def test_an_orderly_stop_leaves_tasks_alone(daemon: Daemon) -> None:
    run_id = daemon.trigger("gated")
    running(daemon, run_id, 6)
    begun(daemon, 5)
    assert daemon.stop() == 0
    assert len(journal(daemon)) == 5
    daemon.start()
    open_gate(daemon)
    assert daemon.wait("gated", run_id)["state"] == "success"
    assert len(journal(daemon)) == 10


def test_ctrl_c_ends_tasks_and_marks_them_interrupted(daemon: Daemon) -> None:
    run_id = daemon.trigger("gated")
    running(daemon, run_id, 6)
    begun(daemon, 5)
    pids = [pid for _, _, _, pid in journal(daemon)]
    assert daemon.interrupt() == 0
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    until(lambda: not daemon.leftovers(), "runner and Postgres are gone")
    daemon.start()
    run = daemon.wait("gated", run_id)
    assert run["state"] == "failed"
    assert all(task["state"] == "failed" and "nterrupted" in task["reason"] for task in run["tasks"]), run


DEAF = (
    JOURNAL
    + """
import signal
with DAG("deaf", schedule=None):
    @task(retries=3)
    def deaf() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        until_told("never")
    deaf()
"""
)


def test_a_second_ctrl_c_waits_no_longer_for_what_does_not_end() -> None:
    daemon = Daemon(settings={"FLUXD__EXECUTOR__KILL_GRACE_S": "600"})
    daemon.write("deaf.py", DEAF)
    with daemon:
        daemon.until_known("deaf")
        run_id = daemon.trigger("deaf")
        begun(daemon, 1)
        (_, _, _, pid) = journal(daemon)[0]
        os.kill(daemon.pid, signal.SIGINT)
        daemon.wait_for_line("ending: deaf", since=0)
        assert daemon.interrupt() == 0
        assert Path(f"/proc/{pid}").exists(), "it did not wait for the task"
        os.kill(pid, signal.SIGKILL)
        daemon.start()
        run = daemon.wait("deaf", run_id)
        (deaf,) = run["tasks"]
        assert (run["state"], deaf["state"], deaf["try_number"]) == ("failed", "failed", 1)
        assert "nterrupted" in deaf["reason"]


def test_a_command_that_goes_in_good_order_when_it_is_timed_out_has_failed(daemon: Daemon) -> None:
    daemon.write(
        "orderly.py",
        """
from fluxd import DAG
from fluxd.ops import BashOperator
with DAG("orderly", schedule=None):
    export = BashOperator(
        task_id="export", bash_command="trap 'exit 0' TERM; sleep 300 & wait", execution_timeout=0.3
    )
    export >> BashOperator(task_id="publish", bash_command="true")
""",
    )
    daemon.until_known("orderly")
    run = daemon.wait("orderly", daemon.trigger("orderly"))
    export, publish = run["tasks"]
    assert (export["state"], publish["state"], run["state"]) == ("failed", "upstream_failed", "failed")
    assert export["reason"].startswith("FLX-3503")


def test_a_killed_runner_leaves_its_tasks_to_the_next_one(daemon: Daemon) -> None:
    run_id = daemon.trigger("gated")
    begun(daemon, 5)
    runner = daemon.get("/status")["runner_pid"]
    os.kill(runner, signal.SIGKILL)
    daemon.wait_for_line(f"the connection to the runner (pid {runner}) broke", since=0)
    daemon.wait_for_line("connected to the runner (pid", since=0)
    open_gate(daemon)
    tasks = daemon.wait("gated", run_id)["tasks"]
    assert [(task["state"], task["try_number"]) for task in tasks] == [("success", 1)] * 6
    assert sorted(word for word, *_ in journal(daemon)) == ["begin"] * 5 + ["end"] * 5


def test_an_attempt_that_waits_for_its_source_gets_it_from_the_next_daemon(daemon: Daemon) -> None:
    """A runner asks for it as soon as it is connected: before the next daemon has opened its database."""
    runner = daemon.get("/status")["runner_pid"]
    daemon.kill()
    to = Connection(daemon.home)
    file = {"file": "gated.py", "dags_dir": str(daemon.dags), "timeout_s": 30, "memory_mb": 1024}
    to.send({"type": "load", "id": 1, **file})
    loaded = to.expect("loaded")
    to.close()
    # A runner that has not imported the file, with what the killed daemon had sent to it.
    for pid in (int(Path(f"/proc/{runner}/stat").read_text().rpartition(")")[2].split()[1]), runner):
        os.kill(pid, signal.SIGKILL)
    new = Rig(daemon.folder)
    new.start()
    environment = {"FLUX_TASK_ID": "t0", "FLUX_TRY_NUMBER": "1"}
    new.to.send(new.order(10**6, task="t0", loaded=loaded, env=environment))
    new.to.expect("need_source", bundle=loaded["bundle"])
    new.to.close()
    open_gate(daemon)
    daemon.start()
    begun(daemon, 1)
    daemon.interrupt()
    new.close()


def test_a_killed_task_says_by_which_signal(daemon: Daemon) -> None:
    run_id = daemon.trigger("gated")
    running(daemon, run_id, 6)
    begun(daemon, 5)
    _, victim, _, pid = journal(daemon)[0]
    os.kill(pid, signal.SIGKILL)
    open_gate(daemon)
    run = daemon.wait("gated", run_id)
    assert run["state"] == "failed"
    reasons = {task["task_id"]: task["reason"] for task in run["tasks"] if task["state"] == "failed"}
    assert list(reasons) == [victim] and "SIGKILL" in reasons[victim], reasons


def test_retries_until_it_works(daemon: Daemon) -> None:
    run = daemon.wait("retrying", daemon.trigger("retrying"))
    assert run["state"] == "success" and run["tasks"][0]["try_number"] == 3


def test_execution_timeout_ends_the_task(daemon: Daemon) -> None:
    run = daemon.wait("slow", daemon.trigger("slow"))
    assert run["state"] == "failed"
    assert "0.3" in run["tasks"][0]["reason"], run["tasks"][0]


def test_cancel_ends_processes_first(daemon: Daemon) -> None:
    run_id = daemon.trigger("gated")
    running(daemon, run_id, 6)
    begun(daemon, 5)
    daemon.post(f"/dags/gated/runs/{run_id}/cancel")
    run = daemon.wait("gated", run_id)
    assert run["state"] == "cancelled"
    assert {task["state"] for task in run["tasks"]} == {"cancelled"}
    assert not [pid for _, _, _, pid in journal(daemon) if Path(f"/proc/{pid}").exists()]


def test_clear_while_running_waits_for_the_end_of_the_first_process(daemon: Daemon) -> None:
    run_id = daemon.trigger("gated")
    running(daemon, run_id, 6)
    begun(daemon, 5)
    daemon.post(f"/dags/gated/runs/{run_id}/clear", {"task_ids": ["t0"]})
    begun(daemon, 6)
    (first, second) = [pid for word, task, _, pid in journal(daemon) if task == "t0" and word == "begin"]
    assert not Path(f"/proc/{first}").exists() and Path(f"/proc/{second}").exists()
    open_gate(daemon)
    assert daemon.wait("gated", run_id)["state"] == "success"


def test_a_finished_run_can_be_cleared_and_runs_again(daemon: Daemon) -> None:
    open_gate(daemon)
    run_id = daemon.trigger("gated")
    assert daemon.wait("gated", run_id)["state"] == "success"
    daemon.post(f"/dags/gated/runs/{run_id}/clear", {"task_ids": ["t1"]})
    run = daemon.wait("gated", run_id)
    assert run["state"] == "success"
    assert {task["task_id"]: task["try_number"] for task in run["tasks"]}["t1"] == 2


def test_a_stray_signal_does_not_end_fluxd(daemon: Daemon) -> None:
    for number in sorted(STRAY | {signal.SIGWINCH}):
        os.kill(daemon.pid, number)
    daemon.wait_for_line("SIGUSR1 means nothing to fluxd", since=0)
    assert daemon.get("/status")["pid"] == daemon.pid
    assert daemon.stop() == 0


def test_fluxd_ends_a_runner_that_hangs_and_its_tasks_go_on() -> None:
    with Daemon(settings={"FLUXD__RUNNER__ANSWER_S": "1"}) as daemon:
        daemon.write("gated.py", GATED)
        daemon.until_known("gated")
        run_id = daemon.trigger("gated")
        begun(daemon, 5)
        runner = daemon.get("/status")["runner_pid"]
        os.kill(runner, signal.SIGSTOP)
        daemon.wait_for_line(f"FLX-7038: the runner (pid {runner}) has not answered for 1 s", since=0)
        daemon.wait_for_line("connected to the runner (pid", since=0)
        open_gate(daemon)
        tasks = daemon.wait("gated", run_id)["tasks"]
        assert [(task["state"], task["try_number"]) for task in tasks] == [("success", 1)] * 6
        assert sorted(word for word, *_ in journal(daemon)) == ["begin"] * 5 + ["end"] * 5
