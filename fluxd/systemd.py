"""What fluxd tells systemd about itself (sd_notify(3)): ready, alive, stopping, and a line for `systemctl status`.

Started by anything else, nobody listens and nothing is sent. Signs of life come from the event loop that does the
work, and only while nothing is hung: so a fluxd that stands still is ended and started again by systemd's watchdog.
"""

import asyncio
import contextlib
import faulthandler
import os
import socket
from collections.abc import AsyncIterator, Callable, MutableMapping

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
# Signs of life within the time that systemd waits for one: some may come late on a loaded machine.
SIGNS_PER_LIMIT = 4
SIGN_MAX_S = 5.0
# A start may take this much longer, counted from each sign of life: Postgres may have to repair what a crash left.
EXTENDED_S = 30.0


class Systemd:
    """Our end of the notify socket.

    address: where systemd listens; None: nobody does. limit_s: how long we may be silent once ready; None: nobody
    watches. started_us: whether systemd started this process, so that there is no terminal to speak to.
    """

    def __init__(self, address: str | None = None, limit_s: float | None = None, *, started_us: bool = False) -> None:
        self.started_us = started_us
        self.interval_s = SIGN_MAX_S if limit_s is None else min(SIGN_MAX_S, limit_s / SIGNS_PER_LIMIT)
        self._address = address
        self._status = "starting"
        self._said = ""
        self._ready = False

    @classmethod
    def take(cls, environment: MutableMapping[str, str] = os.environ) -> "Systemd":
        """From the environment, and out of it: nothing that we start is to speak for us."""
        address, limit_us, pid = (environment.pop(name, None) for name in VARIABLES)
        watched = limit_us is not None and limit_us.isdigit() and pid in (None, str(os.getpid()))
        if watched:
            faulthandler.enable()  # one that the watchdog ends (SIGABRT) says where it stood
        started_us = address is not None or "INVOCATION_ID" in environment
        return cls(address or None, int(limit_us) / 1e6 if watched and limit_us else None, started_us=started_us)

    @contextlib.asynccontextmanager
    async def signs_of_life(self, hung: Callable[[], list[str]]) -> AsyncIterator[None]:
        """In this block the running event loop gives signs of life, except while `hung` names a reason."""
        giving = asyncio.create_task(self._give_signs(hung)) if self._address else None
        try:
            yield
        finally:
            if giving is not None:
                giving.cancel()
                await asyncio.wait({giving})

    def ready(self, status: str) -> None:
        """The start is over; from now on the watchdog counts."""
        self._ready = True
        self._status = status
        self._tell("READY=1", *self._words(status))

    def stopping(self) -> None:
        """The stop has begun."""
        self._status = "stopping"
        self._tell("STOPPING=1", *self._words(self._status))

    async def _give_signs(self, hung: Callable[[], list[str]]) -> None:
        while True:
            if reasons := hung():
                self._tell(*self._words(f"hung: {'; '.join(reasons)}"))
            elif self._ready:
                self._tell("WATCHDOG=1", *self._words(self._status))
            else:
                self._tell(f"EXTEND_TIMEOUT_USEC={EXTENDED_S * 1e6:.0f}", *self._words(self._status))
            await asyncio.sleep(self.interval_s)

    def _words(self, status: str) -> list[str]:
        """The line of the status, where it is another one than before."""
        line = " ".join(status.split())  # a second line would be another message
        if line == self._said:
            return []
        self._said = line
        return [f"STATUS={line}"]

    def _tell(self, *lines: str) -> None:
        """Send `NAME=value` lines. The socket lives for this message alone, so that no fork inherits it."""
        if self._address is None or not lines:
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
            door.setblocking(False)  # a systemd that is behind is no reason to stand still
            door.sendto("\n".join(lines).encode(errors="replace"), address)
