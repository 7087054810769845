"""How a task's own code says how it ended, other than by returning or by failing.

These are signals, not errors of Flux: they carry the author's words and no code.
"""


class SkipTask(Exception):
    """Raise it in a task to end it as skipped; the text is the reason that people see."""


class FailTask(Exception):
    """Raise it in a task to fail for good: no retry, however many are left."""


class TaskTimeout(Exception):
    """A sensor's `timeout` passed before what it waits for was there."""


class TaskTerminated(BaseException):
    """The attempt was told to stop (SIGTERM). Not an `Exception`, so that `except Exception` does not swallow it."""
