"""A machine with a real systemd: this machine's /usr in a container of systemd-nspawn, with Flux in its /usr/local.

All else of it is new and empty, and goes with it. Nothing of it is seen outside but its processes.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.fluxd_process import ROOT, until

PACKAGES = ["systemd", "systemd-container", "python3-venv"]
PYTHON = "/usr/bin/python3"
BOOT_S = 30.0
PATIENCE_S = 60.0


class NoContainer(Exception):
    """Why there can be none here, in one line."""


def prepare() -> None:
    """See that a container can be had; install what it needs where we may (a throw-away machine, as root)."""
    if os.geteuid() != 0:
        raise NoContainer("only root may boot a container")
    if not (shutil.which("systemd-nspawn") and _has_venv()) and shutil.which("apt-get"):
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", *PACKAGES]):
            subprocess.run(command, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, capture_output=True)
    if not shutil.which("systemd-nspawn"):
        raise NoContainer("there is no systemd-nspawn")
    if not _has_venv():
        raise NoContainer(f"{PYTHON} is not Python 3.11 or newer with its venv")


def _has_venv() -> bool:
    test = "import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 11))"
    with contextlib.suppress(OSError):
        return subprocess.run([PYTHON, "-c", test], capture_output=True).returncode == 0
    return False


def install(stage: Path, release: str = "test") -> Path:
    """`make install` into a folder; the folder that is to be /usr/local."""
    words = [f"DESTDIR={stage}", f"PYTHON={PYTHON}", f"RELEASE={release}"]
    done = subprocess.run(["make", "--no-print-directory", "install", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return stage / "usr" / "local"


class Container:
    """One booted machine; `run` does something in it as its root."""

    def __init__(self, leader: subprocess.Popen[bytes], pid1: int) -> None:
        self._leader = leader
        self._pid1 = pid1

    def run(self, *command: str, check: bool = True, user: str | None = None) -> str:
        """The output of a command in there; with `check` False also what it says on stderr, and it may fail."""
        if user is not None:
            command = ("setpriv", f"--reuid={user}", "--init-groups", "--reset-env", *command)
        done = subprocess.run(
            ["nsenter", "-t", str(self._pid1), "-a", *command],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin", "HOME": "/root", "LANG": "C.UTF-8"},
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return (done.stdout if check else done.stdout + done.stderr).strip()

    def write(self, path: str, text: str) -> None:
        """A file in there, whole at once, for all to read."""
        script = 'umask 022; mkdir -p "$(dirname "$0")"; printf %s "$1" > "$0.new"; mv "$0.new" "$0"'
        self.run("/bin/sh", "-c", script, path, text)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", name, unit)

    def pid(self, unit: str) -> int:
        """The main process of a unit, as it is numbered in there."""
        return int(self.show(unit, "MainPID"))

    def log(self, unit: str) -> str:
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for what no event of the outside tells of."""
        try:
            return until(condition, what, PATIENCE_S)
        except AssertionError as error:
            error.add_note(
                self.run("systemctl", "status", "--no-pager", "-n", "30", "fluxd", "fluxd-runner", check=False)
            )
            raise

    def power_off(self) -> None:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.run("systemctl", "poweroff", "--force", check=False)
            self._leader.wait(20)
        _end(self._leader)


@contextlib.contextmanager
def booted(local: Path, log: Path) -> Iterator[Container]:
    """A machine with `local` as its /usr/local, up and running. Raises NoContainer where it may not boot."""
    command = [
        *("systemd-nspawn", "-q", "-D", "/", "--volatile=yes", "--register=no", "--keep-unit", "--private-network"),
        *(f"--machine=fluxd-test-{os.getpid()}", f"--bind-ro={local}:/usr/local", "-b"),
        *("systemd.firstboot=off", "systemd.unit=basic.target"),
    ]
    group = _own_group()
    enter = ("/bin/sh", "-c", 'if [ "$0" ]; then echo $$ >"$0/cgroup.procs" || exit; fi; exec "$@"', str(group or ""))
    with log.open("wb") as output:
        leader = subprocess.Popen([*enter, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    container = None
    try:
        container = Container(leader, _first_process(leader, log))
        running = ("running", "degraded")
        with contextlib.suppress(AssertionError):
            until(lambda: container.run("systemctl", "is-system-running", check=False) in running, "booted", BOOT_S)
        state = container.run("systemctl", "is-system-running", check=False)
        if state not in running:
            raise NoContainer(f"a container does not boot here ({state})")
        yield container
    finally:
        if container is not None:
            container.power_off()
        _end(leader)
        if group is not None:
            for place in (group, *Path("/sys/fs/cgroup").glob(f"*/{group.name}")):  # nspawn makes one of that name too
                for folder, _, _ in os.walk(place, topdown=False):
                    with contextlib.suppress(OSError):
                        Path(folder).rmdir()


def _own_group() -> Path | None:
    """A new control group below ours: two machines in one would count each other's processes to their services."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    root = next((mount[1] for mount in mounts if mount[2] == "cgroup2"), None)
    ours = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"), None)
    if root is None or ours is None:
        return None
    group = Path(root + ours) / f"fluxd-test-{os.getpid()}"
    try:
        group.mkdir(exist_ok=True)
    except OSError as error:
        raise NoContainer(f"no control group can be made for a container: {error.strerror}") from None
    return group


def _children(leader: "subprocess.Popen[bytes]") -> list[int]:
    with contextlib.suppress(OSError):
        return [int(pid) for pid in Path(f"/proc/{leader.pid}/task/{leader.pid}/children").read_text().split()]
    return []


def _end(leader: "subprocess.Popen[bytes]") -> None:
    """Nothing of the machine stays, however far it has come: all of it goes with its first process."""
    if leader.poll() is None:
        for pid in _children(leader):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            leader.wait(10)
    if leader.poll() is None:
        leader.kill()
        leader.wait()


def _first_process(leader: subprocess.Popen[bytes], log: Path) -> int:
    """The number of the container's systemd."""
    deadline = time.monotonic() + BOOT_S
    while time.monotonic() < deadline and leader.poll() is None:
        for pid in _children(leader):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                    return pid
        time.sleep(0.02)
    raise NoContainer(f"a container does not boot here: {log.read_text(errors='replace').strip()[-200:]}")
