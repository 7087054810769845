"""Files that somebody deletes from the home while Flux runs, or between two runs: they are made again."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fluxd_process import Daemon, until

DAG = """
from fluxd import DAG
from fluxd.ops import BashOperator
with DAG("d", schedule=None):
    BashOperator(task_id="t", bash_command="echo 1")
with DAG("gated", schedule=None):
    BashOperator(task_id="t", bash_command="while [ ! -e {go} ]; do sleep 0.05; done")
"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    made = Daemon(settings={"FLUXD__RUNNER__LINGER_S": "120"})
    (made.dags / "d.py").write_text(DAG.format(go=made.folder / "go"))
    with made:
        made.until_known("d")
        yield made


def run_one(daemon: Daemon) -> None:
    assert daemon.wait("d", daemon.trigger("d"))["state"] == "success"


GONE: dict[str, Callable[[Path], None]] = {
    "fluxd.sock": lambda home: (home / "fluxd.sock").unlink(),
    "runner.sock": lambda home: (home / "runner.sock").unlink(),
    "runner": lambda home: shutil.rmtree(home / "runner"),
    "logs": lambda home: shutil.rmtree(home / "logs"),
    "reports": lambda home: shutil.rmtree(home / "reports"),
    "runner/lock": lambda home: (home / "runner" / "lock").unlink(),
}


@pytest.mark.parametrize("name", GONE)
def test_what_is_deleted_while_it_runs_is_made_again(daemon: Daemon, name: str) -> None:
    GONE[name](daemon.home)
    daemon._disconnect()
    until(lambda: (daemon.home / name).exists(), f"{name} is there again", timeout=30)
    run_one(daemon)


def test_a_living_runner_without_its_socket_is_found_by_the_next_fluxd(daemon: Daemon) -> None:
    run_id = daemon.trigger("gated")
    path = f"/dags/gated/runs/{run_id}"
    daemon.until(lambda: daemon.get(path)["tasks"][0]["state"] == "running", "the task runs")
    runner = daemon.get("/status")["runner_pid"]
    daemon.kill()
    (daemon.home / "runner.sock").unlink(missing_ok=True)
    daemon.start()
    assert daemon.get("/status")["runner_pid"] == runner
    (daemon.folder / "go").touch()
    run = daemon.wait("gated", run_id)
    assert (run["state"], run["tasks"][0]["try_number"]) == ("success", 1)
