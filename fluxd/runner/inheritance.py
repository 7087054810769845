"""What a task finds is named here, and does not depend on how fluxd, or the runner, happened to be started.

Of what a process inherits, these are set: signals and their mask, timers, umask, soft limits, niceness and scheduling
policy, descriptors, session and terminal, the environment (see environment). What an administrator sets from outside
stays: hard limits, processors, control groups, namespaces, the user.
"""

import contextlib
import os
import resource
import signal

UMASK = 0o027
DESCRIPTORS = 65536  # each attempt holds one; more would be dear for programs that close all they might have
FIRST = 3  # after stdin, stdout and stderr
STACK = 8 * 1024 * 1024
CORE = 0  # a crash leaves no copy of a task's memory on disk, unless the task asks (ulimit -c)
# Soft limits that whoever started us may have lowered for its own sake.
RAISED = (
    *(resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE),
    *(resource.RLIMIT_NPROC, resource.RLIMIT_RSS, resource.RLIMIT_MEMLOCK, resource.RLIMIT_SIGPENDING),
)
IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}


def settle(keep: set[int]) -> None:
    """Put this process, and so all below it, into the named state. `keep` are descriptors that stay open."""
    _signals()
    os.umask(UMASK)
    _limits()
    _priority()
    _descriptors(keep)


def _signals() -> None:
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)
    settable = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    for number in settable:
        signal.signal(number, signal.SIG_IGN)  # what was held back is dropped by this
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in settable - IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _limits() -> None:
    for limit in RAISED:
        _soft(limit, resource.RLIM_INFINITY)
    _soft(resource.RLIMIT_NOFILE, DESCRIPTORS)
    _soft(resource.RLIMIT_STACK, STACK)
    _soft(resource.RLIMIT_CORE, CORE)


def _soft(limit: int, wanted: int) -> None:
    """The soft limit becomes this, or as much as the hard one allows."""
    _, hard = resource.getrlimit(limit)
    if hard != resource.RLIM_INFINITY:
        wanted = hard if wanted == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(limit, (wanted, hard))


def _priority() -> None:
    with contextlib.suppress(OSError):  # only who may, may be less nice
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _descriptors(keep: set[int]) -> None:
    while (standard := os.open(os.devnull, os.O_RDWR)) < FIRST:
        os.set_inheritable(standard, True)  # one of 0, 1 and 2 was closed: what is opened next would become it
    at = FIRST
    for fd in sorted(number for number in keep if number >= FIRST):
        os.closerange(at, fd)
        at = fd + 1
    os.closerange(at, max(map(int, os.listdir("/proc/self/fd"))) + 1)
