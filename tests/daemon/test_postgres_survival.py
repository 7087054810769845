"""The embedded Postgres, killed under a running fluxd, kept from starting, and left behind by nobody."""

import asyncio
import json
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from fluxd.store import postmaster
from fluxd.store.embedded import Embedded
from tests.faults.targets import Targets, lives, signal_all
from tests.fluxd_process import BIN, Daemon, until

GATED = """
import time
from pathlib import Path
from fluxd import DAG, task

HERE = Path(__file__).parent.parent

with DAG("gated", schedule=None):

    @task
    def first() -> int:
        (HERE / "begun").touch()
        while not (HERE / "go").exists():
            time.sleep(0.01)
        return 1

    @task
    def second(number: int) -> None:
        with (HERE / "journal").open("a") as file:
            file.write(f"{number}\\n")

    second(first())
"""


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    one = Daemon()
    one.write("gated.py", GATED)
    with one:
        one.until_known("gated")
        yield one


def data(daemon: Daemon) -> Path:
    return (daemon.home / "pg" / "data").resolve()


def kill_postgres(daemon: Daemon) -> int:
    """kill -9 for its first process; the pid, once it is gone."""
    found = postmaster.alive(data(daemon))
    assert found is not None
    handle = os.pidfd_open(found.pid)
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    ended = select.poll()
    ended.register(handle, select.POLLIN)
    assert ended.poll(10_000)
    os.close(handle)
    return found.pid


def begin(daemon: Daemon) -> str:
    """A run whose first task is under way."""
    run_id = daemon.trigger("gated")
    until(lambda: (daemon.folder / "begun").exists(), "the first task has begun")
    return run_id


def ends_well(daemon: Daemon, run_id: str) -> None:
    run = daemon.wait("gated", run_id)
    assert [(task["state"], task["try_number"]) for task in run["tasks"]] == [("success", 1)] * 2, run
    assert (daemon.folder / "journal").read_text() == "1\n"


def test_a_killed_postgres_is_started_again_and_nothing_is_lost(daemon: Daemon) -> None:
    run_id = begin(daemon)
    said = len(daemon.lines)
    first = kill_postgres(daemon)
    (daemon.folder / "go").touch()
    daemon.wait_for_line("the embedded Postgres has ended; it is started again in 0 s", since=said)
    daemon.wait_for_line("embedded in the home, started again", since=said)
    daemon.wait_for_line("the database answers again", since=said)
    ends_well(daemon, run_id)
    found = postmaster.alive(data(daemon))
    assert found is not None and found.pid != first
    said = len(daemon.lines)
    assert daemon.stop() == 0
    assert not any("Postgres" in line for line in daemon.lines[said:]), "its end was wanted"
    assert postmaster.alive(data(daemon)) is None


def findings(daemon: Daemon) -> dict[str, dict[str, str]]:
    """What doctor says, by name."""
    told = json.loads(daemon.ctl("doctor", "--json", check=False).stdout)
    return {one["name"]: one for one in told["findings"]}


def test_a_postgres_that_cannot_start_is_tried_again(daemon: Daemon) -> None:
    run_id = begin(daemon)
    own_settings = daemon.home / "pg" / "settings" / "local.conf"
    own_settings.write_text("work_mem = 'much'\n")
    said = len(daemon.lines)
    kill_postgres(daemon)
    assert "local.conf" in daemon.wait_for_line("could not be started again: The embedded Postgres", since=said)
    told = findings(daemon)
    assert told["fluxd"]["state"] == "ok", told
    assert told["dags folder"] == {"name": "dags folder", "state": "ok", "words": str(daemon.dags), "next_step": None}
    assert told["database"]["state"] == "bad" and "does not answer fluxd" in told["database"]["words"]
    assert "pg/server.log" in told["database"]["next_step"]
    shown = daemon.ctl("status", check=False)
    assert (shown.returncode, "FLX-4089" in shown.stderr) == (5, True) and str(daemon.dags) in shown.stdout
    (daemon.folder / "go").touch()
    own_settings.write_text("")
    daemon.wait_for_line("embedded in the home, started again", since=said)
    daemon.wait_for_line("the database answers again", since=said)
    ends_well(daemon, run_id)
    assert findings(daemon)["database"]["words"] == "embedded, answers fluxd"


def test_fluxd_can_stop_while_postgres_is_away(daemon: Daemon) -> None:
    (daemon.home / "pg" / "settings" / "local.conf").write_text("work_mem = 'much'\n")
    said = len(daemon.lines)
    kill_postgres(daemon)
    daemon.wait_for_line("could not be started again", since=said)
    assert daemon.stop() == 0
    assert postmaster.alive(data(daemon)) is None


# -------------------------------------------------------------------------------------------- a start that fails


def failed_start(home: os.PathLike[str] | bytes) -> str:
    """What fluxd said last when it did not start."""
    done = subprocess.run(
        [BIN / "fluxd", "--home", home, "--listen", "127.0.0.1:0"], capture_output=True, timeout=60, check=False
    )
    said = done.stderr.decode()
    assert done.returncode == 1 and "Traceback" not in said, said
    return said.splitlines()[-1]


async def make_newer(url: str) -> None:
    conn = await asyncpg.connect(url)
    await conn.execute("UPDATE schema_step SET number = number + 900, name = '0901_later' WHERE number = 1")
    await conn.close()


def test_a_start_that_fails_leaves_no_postgres_behind(daemon: Daemon) -> None:
    assert daemon.stop() == 0
    server = Embedded(daemon.home)
    server.start()
    asyncio.run(make_newer(server.url()))
    server.stop()
    assert "FLX-5010" in failed_start(daemon.home)
    assert not server.running()
    server.start()  # somebody else's
    assert "FLX-5010" in failed_start(daemon.home)
    assert server.running()


def test_a_home_that_is_not_utf_8_is_refused() -> None:
    with tempfile.TemporaryDirectory(prefix="fluxd-") as folder:
        home = os.fsencode(folder) + b"/\xff"
        said = failed_start(home)
        assert said.startswith(f"fluxd: FLX-6016: The path {folder}/\\xff is not UTF-8"), said
        assert not os.path.lexists(home)


def test_a_stopped_session_of_fluxd_is_ended_and_work_goes_on(daemon: Daemon) -> None:
    """As in a hang of the disk below one process: the session holds the daemon's lock and obeys nobody."""
    daemon.write("one.py", "from fluxd import DAG, task\nwith DAG('one'):\n    @task\n    def a(): pass\n    a()\n")
    daemon.until_known("one")
    stopped = Targets(daemon).backends("fluxd fluxd")()
    assert stopped
    signal_all(stopped, signal.SIGSTOP)
    said = len(daemon.lines)
    run_id = daemon.trigger("one")
    assert daemon.wait("one", run_id)["state"] == "success"
    assert any("the database answers again" in line for line in daemon.lines[said:]), daemon.lines[said:]
    assert not any(map(lives, stopped))
