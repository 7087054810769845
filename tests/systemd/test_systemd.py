"""Flux as `make install` leaves it, under a real systemd in a container: what its units promise."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.systemd.container import Container, NoContainer, booted, install, prepare

HOME = "/var/lib/fluxd"
LIMITS = {"fluxd": 15, "fluxd-runner": 30}  # of `systemd-analyze security`, in tenths
DROP_INS = Path("/usr/local/share/fluxd/drop-ins")
# As it is, only sooner.
SOONER = "[Service]\nWatchdogSec=3\nTimeoutAbortSec=2\n"
DAG = """
from datetime import timedelta

from fluxd import DAG
from fluxd.ops import BashOperator

with DAG("held", schedule=None):
    BashOperator(
        task_id="waits",
        bash_command="echo $$ >mine; cat gate; echo through $FLUX_VAR_COLOUR",
        retries=1,
        retry_delay=timedelta(0),
    )
"""
# What a task may not do by itself, and may with the drop-in of this name.
NEEDS = {
    "runner-sudo": "grep '^NoNewPrivs:.0' /proc/self/status && ! grep '^CapBnd:.0*$' /proc/self/status",
    "runner-home": "ls /home/somebody",
    "runner-devices": "test -e /dev/pts/ptmx && test -e /dev/net/tun",
    "runner-containers": "unshare --user --map-root-user true",
}
NEED_DAG = """
with DAG({name!r}, schedule=None):
    BashOperator(task_id="does", bash_command={command!r})
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A machine on which Flux was installed and started."""
    folder = tmp_path_factory.mktemp("machine")
    try:
        prepare()
        with booted(install(folder), folder / "console.log") as container:
            container.run("systemd-sysusers", "fluxd.conf")
            container.run("systemd-tmpfiles", "--create", "fluxd.conf")
            needs = (NEED_DAG.format(name=name, command=command) for name, command in NEEDS.items())
            container.write(f"{HOME}/dags/held.py", DAG + "".join(needs))
            container.run("install", "-d", "/home/somebody")
            container.write("/etc/systemd/system/fluxd.service.d/sooner.conf", SOONER)
            container.write("/etc/default/fluxd", "FLUX_VAR_COLOUR=green\n")
            container.run("systemctl", "daemon-reload")
            container.run("systemctl", "enable", "--now", "fluxd")
            yield container
    except NoContainer as why:
        pytest.skip(str(why))


def ask(machine: Container, *words: str, **options: Any) -> Any:
    return json.loads(machine.run("fluxctl", *words, "--json", **options))


def begin_held(machine: Container) -> tuple[str, int]:
    """A run whose task waits at a pipe; the run and the task's process."""
    machine.run("/bin/sh", "-c", f"cd {HOME}/work; rm -f mine gate; mkfifo -m 666 gate")
    machine.until(lambda: ask(machine, "dags", "list")["dags"], "the dag is known")
    run_id = ask(machine, "dags", "trigger", "held")["run_id"]
    return run_id, the_task(machine)


def the_task(machine: Container) -> int:
    """The process of the task, once it runs."""

    def noted() -> str:
        word = machine.run("cat", f"{HOME}/work/mine", check=False)
        return word if word.isdigit() else ""

    return int(machine.until(noted, "the task runs"))


def end_held(machine: Container, run_id: str) -> None:
    """Let it through: it ends well in its first try."""
    machine.run("/bin/sh", "-c", f"echo >{HOME}/work/gate")
    assert ask(machine, "runs", "wait", "held", run_id)["state"] == "success"
    shown = ask(machine, "runs", "show", "held", run_id)
    assert [task["try_number"] for task in shown["tasks"]] == [1]
    assert "through green" in machine.run("fluxctl", "logs", "held", run_id, "waits")


def alive(machine: Container, pid: int) -> bool:
    return machine.run("/bin/sh", "-c", f"test -d /proc/{pid} && echo yes; true") == "yes"


def postmaster(machine: Container) -> int:
    return int(machine.run("head", "-1", f"{HOME}/pg/data/postmaster.pid"))


def reaper(machine: Container) -> int:
    """The parent of the runner that fluxd knows."""
    runner = ask(machine, "status")["runner_pid"]
    told = machine.run("/bin/sh", "-c", f"grep ^PPid: /proc/{runner}/status; true")
    return int(told.removeprefix("PPid:").strip() or 0)


def others(machine: Container) -> tuple[int, int, int]:
    """The reaper, the runner, Postgres: what a fluxd that ends leaves alone."""
    return machine.pid("fluxd-runner"), ask(machine, "status")["runner_pid"], postmaster(machine)


def again(machine: Container, unit: str, old: int) -> None:
    """The unit runs anew and is ready."""
    machine.until(lambda: machine.pid(unit) not in (0, old), f"{unit} was started again")
    machine.until(lambda: machine.show(unit, "SubState") == "running", f"{unit} is ready")


def test_the_units_are_sound_and_tight(machine: Container) -> None:
    for unit, limit in LIMITS.items():
        path = f"/usr/local/lib/systemd/system/{unit}.service"
        assert machine.run("systemd-analyze", "verify", path, check=False) == ""
        machine.run("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={limit}", path)
    assert "\nWatchdogSec=30\n" in machine.run("cat", "/usr/local/lib/systemd/system/fluxd.service")  # see SOONER


def test_every_drop_in_is_understood(machine: Container) -> None:
    names = machine.run("ls", str(DROP_INS)).split()
    assert names
    for name in names:
        unit = f"/run/try-{name}/fluxd-runner.service"
        machine.run("install", "-Dm644", "/usr/local/lib/systemd/system/fluxd-runner.service", unit)
        machine.run("install", "-Dm644", str(DROP_INS / name), f"{unit}.d/{name}")
        assert machine.run("systemd-analyze", "verify", unit, check=False) == "", name


def test_drop_ins_let_tasks_do_what_they_say(machine: Container) -> None:
    assert {name: state_of_run(machine, name) for name in NEEDS} == dict.fromkeys(NEEDS, "failed")
    ended = {}
    for name in NEEDS:
        drop_in = f"/etc/systemd/system/fluxd-runner.service.d/{name}.conf"
        machine.run("install", "-Dm644", f"{DROP_INS}/{name}.conf", drop_in)
        start_anew(machine)
        ended[name] = state_of_run(machine, name)
        machine.run("rm", drop_in)
    start_anew(machine)
    assert ended == dict.fromkeys(NEEDS, "success")


def start_anew(machine: Container) -> None:
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "fluxd", "fluxd-runner")


def state_of_run(machine: Container, dag_id: str) -> Any:
    """How a new run ends."""
    machine.until(lambda: ask(machine, "dags", "list")["dags"], "the dags are known")
    run_id = ask(machine, "dags", "trigger", dag_id)["run_id"]
    machine.run("fluxctl", "runs", "wait", dag_id, run_id, check=False)
    return ask(machine, "runs", "show", dag_id, run_id)["state"]


def test_ready_is_said_when_it_is_so(machine: Container) -> None:
    assert machine.show("fluxd", "ActiveState") == "active"
    status = ask(machine, "status")
    assert status["pid"] == machine.pid("fluxd")
    assert reaper(machine) == machine.pid("fluxd-runner")
    assert machine.show("fluxd", "StatusText") == status["address"]
    assert machine.run("stat", "-c", "%a %U %G", f"{HOME}/fluxd.sock") == "660 fluxd fluxd"
    assert machine.run("stat", "-c", "%a", f"{HOME}/pg/data") == "700"


def test_a_restart_of_fluxd_leaves_tasks_their_runner_and_postgres_alone(machine: Container) -> None:
    run_id, task = begin_held(machine)
    fluxd, before = machine.pid("fluxd"), others(machine)
    machine.run("systemctl", "restart", "fluxd")
    assert machine.pid("fluxd") != fluxd
    assert others(machine) == before
    assert alive(machine, task)
    end_held(machine, run_id)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_fluxd_that_hangs_or_ends_is_started_again(machine: Container, number: signal.Signals) -> None:
    run_id, task = begin_held(machine)
    fluxd, before = machine.pid("fluxd"), others(machine)
    machine.run("kill", f"-{number.name[3:]}", str(fluxd))
    again(machine, "fluxd", fluxd)
    if number == signal.SIGSTOP:
        assert "Watchdog timeout" in machine.log("fluxd")
    assert others(machine) == before
    assert alive(machine, task)
    end_held(machine, run_id)


def test_a_runner_that_is_lost_with_its_parent_comes_again_and_the_task_is_tried_again(machine: Container) -> None:
    fluxd = machine.pid("fluxd")
    run_id, task = begin_held(machine)
    parent = machine.pid("fluxd-runner")
    machine.run("rm", f"{HOME}/work/mine")
    machine.run("kill", "-KILL", str(parent))
    again(machine, "fluxd-runner", parent)
    assert not alive(machine, task)
    assert the_task(machine) != task
    machine.run("/bin/sh", "-c", f"echo >{HOME}/work/gate")
    assert ask(machine, "runs", "wait", "held", run_id)["state"] == "success"
    assert machine.pid("fluxd") == fluxd


def test_members_of_the_group_may_use_the_socket_and_others_may_not(machine: Container) -> None:
    machine.run("systemd-sysusers", "--inline", "u operator -", "u stranger -", "m operator fluxd")
    assert ask(machine, "dags", "list", user="operator")["dags"]
    assert ask(machine, "dags", "pause", "held", user="operator")
    assert ask(machine, "dags", "unpause", "held", user="operator")
    assert "FLX-8003" in machine.run("fluxctl", "dags", "list", user="stranger", check=False)


def test_a_fluxd_waits_for_its_runner_and_starts_none(machine: Container) -> None:
    machine.run("systemctl", "stop", "fluxd-runner")
    assert machine.show("fluxd-runner", "Result") == "success", machine.log("fluxd-runner")
    machine.run("systemctl", "start", "fluxd-runner")
    machine.until(lambda: reaper(machine) == machine.pid("fluxd-runner"), "fluxd has met the runner of the unit")
    run_id, _ = begin_held(machine)
    end_held(machine, run_id)


def test_after_a_stop_under_a_running_task_postgres_is_left_for_it(machine: Container) -> None:
    run_id, task = begin_held(machine)
    postgres = postmaster(machine)
    machine.run("systemctl", "stop", "fluxd")
    assert alive(machine, task) and alive(machine, postgres)
    machine.run("systemctl", "stop", "fluxd-runner")
    assert not alive(machine, task)
    machine.run("/bin/sh", "-c", f"kill -INT $(head -1 {HOME}/pg/data/postmaster.pid)")  # as docs/systemd.md says
    machine.until(lambda: machine.run("pgrep", "-u", "fluxd", check=False) == "", "no process is left")
    machine.run("systemctl", "start", "fluxd")
    machine.run("fluxctl", "runs", "cancel", "held", run_id)


def test_stop_ends_what_is_fluxds(machine: Container) -> None:
    run_id, _ = begin_held(machine)
    end_held(machine, run_id)
    machine.run("systemctl", "stop", "fluxd", "fluxd-runner")
    for unit in ("fluxd", "fluxd-runner"):
        assert machine.show(unit, "Result") == "success", machine.log(unit)
    assert machine.run("pgrep", "-u", "fluxd", check=False) == ""
    assert "FLX-8001" in machine.run("fluxctl", "--home", HOME, "status", check=False)
