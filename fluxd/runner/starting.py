"""How a daemon starts a runner: in a session of its own, with a clean environment, its secrets over a descriptor."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from fluxd.errors import Unavailable
from fluxd.runner.doorway import placed
from fluxd.runner.environment import clean_environment
from fluxd.secret_names import secrets_of, to_descriptor

READY_FD = 3  # where a starting runner writes its first line
SECRETS_FD = 4  # where it reads connections and variables


@dataclass(frozen=True)
class RunnerOptions:
    """How a runner is started when there is none; `start` False: by somebody else, who is waited for."""

    start: bool = True
    hosts_max: int = 8
    host_idle_s: float = 60.0
    linger_s: float = 30.0
    answer_s: float = 10.0  # a runner, or a dag host, that is silent for so long is ended and replaced


def no_answer(home: Path, options: RunnerOptions, log: Path) -> Unavailable:
    """What is said when no runner has come in time."""
    if not options.start:
        return Unavailable(
            "FLX-6040",
            f"No runner answers on {home}/runner.sock, and fluxd is not to start one (runner.start = false): see "
            "'systemctl status fluxd-runner'.",
        )
    return Unavailable("FLX-7003", f"The runner of {home} does not answer; look into {log} for the cause.")


def spawn_runner(home: Path, options: RunnerOptions, log: Path, ready: int) -> int:
    """The pid of a new reaper with its runner; its first line comes on `ready`."""
    arguments = [
        *(sys.executable, "-m", "fluxd.runner", "--home", str(home)),
        *("--hosts-max", str(options.hosts_max), "--host-idle", str(options.host_idle_s)),
        *("--linger", str(options.linger_s), "--answer", str(options.answer_s)),
        *("--ready-fd", str(READY_FD), "--secrets-fd", str(SECRETS_FD)),
    ]
    secrets = to_descriptor(secrets_of(os.environ))
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        *placed({ready: READY_FD, secrets: SECRETS_FD}),
    ]
    try:
        return os.posix_spawn(
            sys.executable, arguments, clean_environment(home), file_actions=actions, setsid=True, setsigmask=()
        )
    finally:
        os.close(secrets)
