"""Which signals mean something to our processes, and which must not end them."""

import signal

TOLD_TO_STOP = frozenset({signal.SIGTERM, signal.SIGINT})
# Faults of the process itself, or what only the kernel decides.
_FAULTS = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS", "SIGKILL", "SIGSTOP"}
# Their default is to do nothing, to stop, or to go on: they end nobody.
_HARMLESS = {"SIGCHLD", "SIGCONT", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGWINCH"}
# The default of all others is to end the process: a hangup of a terminal, a timer, a user's mistake.
STRAY = frozenset(
    number
    for number in signal.valid_signals()
    if number not in TOLD_TO_STOP and getattr(number, "name", "") not in _FAULTS | _HARMLESS
)
# Those of them that have a name, and that a program may want to hear of: the others do nothing in silence.
NAMED_STRAY = tuple(
    number for number in signal.Signals if number in STRAY and number not in {signal.SIGPIPE, signal.SIGXFSZ}
)


def outlive_stray_signals() -> None:
    """What nobody meant for this process does not end it, from now on. A program that it starts has the defaults."""
    for number in STRAY - {signal.SIGPIPE, signal.SIGXFSZ}:  # which Python ignores already
        signal.signal(number, lambda number, frame: None)
