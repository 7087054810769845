"""What tasks find does not depend on how the runner was started: it has a hostile starter here."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxd.runner.inheritance import CORE, STACK, UMASK
from fluxd.signals import STRAY
from tests.daemon.runner_rig import Connection, Rig, alive
from tests.fluxd_process import until

# Becomes `python -m fluxd.runner` after it has spoiled all that a process inherits.
HOSTILE = """
import json, os, resource, signal, sys
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
signal.setitimer(signal.ITIMER_VIRTUAL, 0.05)
os.umask(0o777)
for limit, soft in ((resource.RLIMIT_NOFILE, 40), (resource.RLIMIT_CPU, 7), (resource.RLIMIT_FSIZE, 1 << 20),
                    (resource.RLIMIT_STACK, 1 << 20), (resource.RLIMIT_CORE, resource.RLIM_INFINITY)):
    resource.setrlimit(limit, (soft, resource.getrlimit(limit)[1]))
os.nice(7)
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
for _ in range(5):
    os.set_inheritable(os.open("/etc/passwd", os.O_RDONLY), True)
master, terminal = os.openpty()
os.setsid()
import fcntl, termios
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
for fd in (0, 1):
    os.dup2(terminal, fd)
os.set_inheritable(master, True)
os.chdir("/proc")
if os.fork() == 0:  # no session leader, below a terminal
    noise = {**os.environ, **json.loads(sys.argv[1])}
    os.execve(sys.executable, [sys.executable, "-m", "fluxd.runner", *sys.argv[2:]], noise)
os._exit(0)
"""
NOISE = {
    **{"LANG": "tr_TR.ISO-8859-9", "LC_ALL": "C", "LANGUAGE": "fr", "PYTHONINSPECT": "1", "PYTHONOPTIMIZE": "2"},
    **{"NOTIFY_SOCKET": "/run/x", "LISTEN_FDS": "1", "LISTEN_PID": "1", "WATCHDOG_USEC": "1", "INVOCATION_ID": "1"},
    **{"BASH_ENV": "/tmp/x", "ENV": "/tmp/x", "LD_PRELOAD": "", "MALLOC_PERTURB_": "1", "SSH_AUTH_SOCK": "/x"},
    **{"FLUX_CONN_SALES": "postgres://u:sesame@h/db", "FLUX_VAR_BUCKET": "sesame", "PGPASSWORD": "sesame"},
}
LOOK = """
import json, os, resource, sys
LIMITS = ("NOFILE", "CPU", "FSIZE", "STACK", "CORE")
def look():
    status = dict(l.split(":\\t", 1) for l in open("/proc/self/status").read().splitlines() if ":\\t" in l)
    mask = os.umask(0); os.umask(mask)
    try:
        os.close(os.open("/dev/tty", os.O_RDWR)); terminal = True
    except OSError:
        terminal = False
    limits = {n: resource.getrlimit(getattr(resource, "RLIMIT_" + n)) for n in LIMITS}
    fds = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return {
        "ignored": status["SigIgn"], "blocked": status["SigBlk"], "umask": mask, "nice": os.nice(0),
        "policy": os.sched_getscheduler(0), "terminal": terminal, "cwd": os.getcwd(),
        "stdin": os.readlink("/proc/self/fd/0"), "limits": {n: soft for n, (soft, _) in limits.items()},
        "hard": {n: hard for n, (_, hard) in limits.items()},
        "open": [os.readlink(fd) for fd in fds if os.path.exists(fd)],
        "environment": dict(os.environ),
        "started_with": open("/proc/self/environ", errors="replace").read().replace(chr(0), " "),
        "flags": [sys.flags.inspect, sys.flags.optimize],
    }
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    ready, told = os.pipe()
    with (rig.home / "runner.log").open("ab") as log:
        subprocess.run(
            [sys.executable, "-c", HOSTILE, json.dumps(NOISE), "--home", str(rig.home), "--ready-fd", str(told)],
            stderr=log, pass_fds=(told,), check=True,
        )  # fmt: skip
    os.close(told)
    assert os.read(ready, 4096) == b"ready\n", (rig.home / "runner.log").read_text()
    os.close(ready)
    rig.to = Connection(rig.home)
    yield rig
    rig.to.send({"type": "stop"})
    assert rig.to.at_end()
    rig.close()


def by_python(rig: Rig) -> Any:
    ended = rig.run(1, loaded=rig.load_task(f"{LOOK}\nreturn look()"), secrets={"FLUX_CONN_MORE": "sesame"})
    assert ended["outcome"]["state"] == "success", rig.logged(1)
    return dict(ended["outcome"]["xcoms"])["return_value"]


def by_bash(rig: Rig) -> Any:
    script = f"{LOOK}\nprint(json.dumps(look()))"
    ended = rig.run(2, spawn=["/bin/bash", "-c", f"exec {sys.executable} -c '{script}'"])
    assert ended["exit_code"] == 0, rig.logged(2)
    return json.loads(rig.logged(2).splitlines()[-1])


@pytest.mark.parametrize("look", [by_python, by_bash])
def test_a_task_finds_what_is_named_whatever_its_starter_had(hostile: Rig, look: Any) -> None:
    seen = look(hostile)
    python = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    unsettable = 1 << 31 | 1 << 32  # those of the C library, which no program may set
    assert int(seen["ignored"], 16) & ~unsettable == python, "those that any Python ignores, and no other"
    assert int(seen["blocked"], 16) == 0
    assert (seen["umask"], seen["nice"], seen["policy"]) == (UMASK, 0, os.SCHED_OTHER)
    assert (seen["terminal"], seen["stdin"], seen["cwd"]) == (False, "/dev/null", str(hostile.home / "work"))
    limits, hard = seen["limits"], seen["hard"]
    assert limits["NOFILE"] == min(65536, hard["NOFILE"] if hard["NOFILE"] > 0 else 65536)
    assert (limits["CPU"], limits["FSIZE"]) == (hard["CPU"], hard["FSIZE"])
    assert (limits["STACK"], limits["CORE"]) == (STACK, CORE)
    assert "/etc/passwd" not in seen["open"] and not any("pts" in name or "ptmx" in name for name in seen["open"])
    assert seen["flags"] == [0, 0]
    environment = {name for name in seen["environment"] if name in NOISE}
    assert environment <= {"LANG", "FLUX_CONN_SALES", "FLUX_VAR_BUCKET"}
    assert seen["environment"]["LANG"] == "C.UTF-8"
    assert "sesame" not in seen["started_with"]


def test_a_python_task_has_its_secrets_and_no_process_shows_them(hostile: Rig) -> None:
    seen = by_python(hostile)["environment"]
    assert (seen["FLUX_VAR_BUCKET"], seen["FLUX_CONN_MORE"]) == ("sesame", "sesame")
    parent = int(Path(f"/proc/{hostile.pid}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in (hostile.pid, parent):
        assert b"sesame" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert b"sesame" not in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize(
    ("command", "has"),
    [
        ("env", set()),
        ("echo $FLUX_VAR_BUCKET; env", {"FLUX_VAR_BUCKET"}),
        (': "${FLUX_CONN_MORE:?}"; env', {"FLUX_CONN_MORE"}),
        ("echo $FLUX_VAR_BUCKETS; env", set()),
    ],
)
def test_a_command_is_started_with_the_secrets_that_it_names(hostile: Rig, command: str, has: set[str]) -> None:
    hostile.run(1, spawn=["/bin/bash", "-c", command], secrets={"FLUX_CONN_MORE": "sesame"})
    names = {
        line.partition("=")[0] for line in hostile.logged(1).splitlines() if "=sesame" in line or "u:sesame" in line
    }
    assert names == has


@pytest.mark.parametrize("whom", ["runner", "reaper", "host"])
def test_a_stray_signal_ends_nobody(tmp_path: Path, whom: str) -> None:
    rig = Rig(tmp_path)
    rig.start()
    try:
        loaded = rig.load_task("import os\nreturn os.getppid()")
        host = rig.run(1, loaded=loaded)["outcome"]["xcoms"][0][1]
        assert rig.process is not None
        pid = {"runner": rig.pid, "reaper": rig.process.pid, "host": host}[whom]
        for number in STRAY | {signal.SIGWINCH, signal.SIGURG, signal.SIGCONT}:
            os.kill(pid, number)
        again = rig.run(2, loaded=loaded)["outcome"]["xcoms"][0][1]
        assert (again, alive(pid), rig.process.poll()) == (host, True, None)
        # And none of it is held back in what they start.
        began = rig.begin(3, loaded=rig.load_task("import time\nprint('on')\ntime.sleep(300)", "slow.py"))
        until(lambda: rig.logged(3), "it runs")
        os.kill(began["pid"], signal.SIGUSR1)
        assert rig.to.expect("ended", fence=3)["signal"] == signal.SIGUSR1
    finally:
        rig.close()
