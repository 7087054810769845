"""A fork that copies little: what a child touches first is what it costs."""

import os
import sys


def _nothing() -> None:
    """Stands in for a hook that has nothing to do."""


def fork() -> int:
    """`os.fork` for a process of one thread.

    After a fork, `threading` makes its locks anew for each thread. With one thread there is nothing to mend, but the
    work touches some 130 pages, each of which has to be copied: a third of the cost of a small fork. So it is left out
    for this fork alone; the forks that a task makes later have it again.
    """
    threading = sys.modules.get("threading")
    hook = getattr(threading, "_after_fork", None)
    if threading is None or hook is None or threading.active_count() > 1:
        return os.fork()
    code = hook.__code__
    hook.__code__ = _nothing.__code__
    try:
        return os.fork()
    finally:
        hook.__code__ = code
