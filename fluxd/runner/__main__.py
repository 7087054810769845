"""`python -m fluxd.runner --home DIR`: set the stage, then serve.

Where its environment is not clean the runner runs itself once more, so that neither it nor anything below it has what
its starter had in mind for itself (passwords, say), and so that all its descendants carry its mark.
"""

import argparse
import contextlib
import fcntl
import gc
import os
import socket
import sys

from fluxd.runner import inheritance, loading, processes
from fluxd.runner.child import open_streams
from fluxd.runner.environment import clean_environment
from fluxd.runner.leftovers import Leftovers
from fluxd.runner.reaper import Reaper
from fluxd.runner.server import Runner
from fluxd.secret_names import from_descriptor, secrets_of, to_descriptor

SOCKET_PATH_MAX = 100


def socket_path(folder: str) -> str:
    return os.path.join(os.path.dirname(folder), "runner.sock")


def is_there(folder: str, file: int) -> bool:
    """Whether the socket's file is the one with this number; also makes folder and lock again, if they are gone."""
    with contextlib.suppress(OSError):  # taken: another runner was started meanwhile
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if not os.path.exists(os.path.join(folder, "lock")):
            lock_for_runner(folder)
    try:
        return os.stat(socket_path(folder)).st_ino == file
    except OSError:
        return False


def listen(folder: str) -> tuple[socket.socket, int]:
    """The socket beside the folder, for our user alone, and the number of its file."""
    path = socket_path(folder)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        if len(path) > SOCKET_PATH_MAX:  # the kernel takes 107 bytes: go there and bind the name alone
            here = os.getcwd()
            os.chdir(os.path.dirname(path))
            listener.bind("runner.sock")
            os.chdir(here)
        else:
            listener.bind(path)
    finally:
        os.umask(before)
    listener.listen(8)
    return listener, os.stat(path).st_ino


def lock(folder: str, name: str) -> int:
    """A lock that says who serves this home; not inherited by forks. Raises BlockingIOError when it is taken."""
    fd = os.open(os.path.join(folder, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.ftruncate(fd, 0)
    return fd


def lock_for_runner(folder: str) -> int:
    """The runner's own lock, with its pid in it: so a daemon knows that this one answers whoever asks."""
    fd = lock(folder, "lock")
    os.write(fd, b"%d\n" % os.getpid())
    return fd


def say(ready_fd: int, line: str) -> None:
    """Tell whoever started us how it went."""
    sys.stderr.write(f"{line}\n")
    if ready_fd >= 0:
        with contextlib.suppress(OSError):  # whoever started us has gone meanwhile; the next daemon finds us
            os.write(ready_fd, f"{line}\n".encode())
        os.close(ready_fd)


class Options(argparse.Namespace):
    """The flags of `python -m fluxd.runner`."""

    home: str
    hosts_max: int
    host_idle: float
    linger: float
    answer: float
    ready_fd: int
    secrets_fd: int


def parse(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m fluxd.runner", description="The fork server of Flux.")
    parser.add_argument("--home", required=True, help="Flux's home; the socket is runner.sock in it")
    parser.add_argument("--hosts-max", type=int, default=8, help="dag files kept imported at once")
    parser.add_argument("--host-idle", type=float, default=60.0, help="seconds until an unused one is dropped")
    parser.add_argument("--linger", type=float, default=30.0, help="seconds without daemon and work; 0 = for ever")
    parser.add_argument("--answer", type=float, default=10.0, help="seconds in which a dag file's process answers")
    parser.add_argument("--ready-fd", type=int, default=-1, help="where to write one line when ready")
    parser.add_argument("--secrets-fd", type=int, default=-1, help="where to read connections and variables (JSON)")
    return parser.parse_args(arguments, namespace=Options())


def run_cleanly(options: Options, home: str) -> None:
    """Run ourselves once more where our environment is not what it should be. What is secret goes by a descriptor."""
    environment = clean_environment(home)
    if environment == dict(os.environ):
        return
    arguments = sys.argv[1:]
    if secrets := secrets_of(os.environ):
        secrets_fd = to_descriptor(secrets)
        os.set_inheritable(secrets_fd, True)
        arguments += ["--secrets-fd", str(secrets_fd)]
    elif options.secrets_fd >= 0:
        os.set_inheritable(options.secrets_fd, True)
    if options.ready_fd >= 0:
        os.set_inheritable(options.ready_fd, True)
    os.execve(sys.executable, [sys.executable, "-m", "fluxd.runner", *arguments], environment)


def serve(options: Options, home: str, home_number: int, first: bool) -> int:
    """The runner itself, in a child of the reaper: its exit code. Only for the word of the first does somebody wait."""
    ready_fd = options.ready_fd if first else -1
    folder = os.path.join(home, "runner")
    try:
        locked = lock_for_runner(folder)
    except BlockingIOError:
        say(ready_fd, f"FLX-7001: another runner serves {home} already; nothing to do.")
        return 0
    runner = Runner(
        folder,
        locked,
        home_number,
        hosts_max=options.hosts_max,
        host_idle_s=options.host_idle,
        linger_s=options.linger,
        answer_s=options.answer,
    )
    Leftovers(folder, home, home_number, runner.boot_id).settle(runner.records, runner.results, runner.adopted)
    runner.listen(lambda: listen(folder), lambda file: is_there(folder, file))
    say(ready_fd, "ready")
    runner.serve()
    return 0


def main() -> int:
    options = parse(sys.argv[1:])
    home = os.path.realpath(options.home)
    run_cleanly(options, home)
    inheritance.settle({options.ready_fd, options.secrets_fd})
    if options.secrets_fd >= 0:
        os.environ.update(from_descriptor(options.secrets_fd))
    folder, work = os.path.join(home, "runner"), os.path.join(home, "work")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.makedirs(work, mode=0o750, exist_ok=True)
        locked = lock(folder, "reaper.lock")
        os.chdir(work)
    except BlockingIOError:
        say(options.ready_fd, f"FLX-7001: another runner serves {home} already; nothing to do.")
        return 0
    except OSError as error:
        say(
            options.ready_fd,
            f"FLX-7004: the runner cannot write in {home} ({error.strerror}); give it a writable home.",
        )
        return 1
    stdin = os.open(os.devnull, os.O_RDONLY)
    os.dup2(stdin, 0)
    os.close(stdin)
    processes.become_subreaper()
    home_number = processes.mark_home(home)
    loading.preload()
    open_streams()
    gc.collect()
    gc.freeze()

    def run(first: bool) -> int:
        os.close(locked)  # the lock itself is the reaper's alone
        processes.become_subreaper()  # forks do not inherit it
        return serve(options, home, home_number, first)

    def started() -> None:
        if options.ready_fd >= 0:
            os.close(options.ready_fd)

    return Reaper(folder, run, started).serve()


if __name__ == "__main__":
    sys.exit(main())
