"""The dag hosts as the runner sees them: made by fork, bounded, dropped when idle, killed when an import runs wild."""

import contextlib
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from fluxd.runner import processes
from fluxd.runner.attempts import Attempts, Process
from fluxd.runner.channel import Channel
from fluxd.runner.forking import fork
from fluxd.runner.host import PRINTS, run_host
from fluxd.runner.hostview import Host, import_death, not_loaded
from fluxd.runner.protocol import Message, frame, from_json, to_json
from fluxd.runner.records import Records
from fluxd.runner.silence import Silence

KILL_HEARD_S = 1.0  # a host passes a signal on within this time, or we send it ourselves
PRINT_LIMIT = 1024 * 1024
PRINT_SHOWN = 2000


class Owner(Protocol):
    """Whom the hosts serve: the runner."""

    folder: str

    def reply(self, payload: bytes) -> None:
        """Send this to the daemon, if there is one."""

    def import_failed(self, host: Host, error: Message) -> None:
        """The host of waiting orders cannot be: its file does not import any more."""

    def threaded(self, bundle: str, host: Host | None) -> None:
        """This bundle's import leaves threads: its attempts (and those that wait for `host`) go without a host."""

    def died(self, host: Host) -> None:
        """A host that served is gone; its attempts may live."""


class Hosts:
    """All dag hosts."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        dirty: set[Channel],
        owner: "Owner",
        attempts: Attempts,
        records: Records,
        *,
        hosts_max: int,
        idle_s: float,
        answer_s: float,
        home_number: int,
        in_child: Callable[[], None],
    ) -> None:
        self._selector = selector
        self._dirty = dirty
        self._owner = owner
        self._attempts = attempts
        self._records = records
        self._max = hosts_max
        self._idle_s = idle_s
        self._answer_s = answer_s
        self._home_number = home_number
        self._in_child = in_child
        self._importing: set[Host] = set()
        self.by_pid: dict[int, Host] = {}
        self.by_bundle: dict[str, Host] = {}

    def load(self, order: Message) -> None:
        """Import a file from disk. The daemon asks for a few at a time."""
        try:
            self._fork(order)
        except OSError as error:
            why = f"{order['file']}: no process could be made to import it ({error.strerror}); it is tried again."
            self._owner.reply(to_json(not_loaded(order, "FLX-2010", why)))

    def import_source(self, order: Message) -> Host:
        """Make a host from a stored bundle at once: attempts wait for it."""
        return self._fork(order)

    def _fork(self, order: Message) -> Host:
        ours, theirs = socket.socketpair()
        prints, print_end = os.pipe2(os.O_CLOEXEC)
        try:
            pid = fork()
        except OSError:
            ours.close()
            theirs.close()
            os.close(prints)
            os.close(print_end)
            raise
        if pid == 0:
            try:
                ours.close()
                os.close(prints)
                self._in_child()
                self._records.forget()
                log = os.dup(2)
                os.dup2(print_end, 1)
                os.dup2(print_end, 2)
                os.close(print_end)
                run_host(theirs, order, self._owner.folder, log)
            finally:
                os._exit(70)
        theirs.close()
        os.close(print_end)
        os.set_blocking(prints, False)
        host = Host(pid, order, prints)
        host.channel = Channel(
            ours, self._selector, self._dirty, lambda payload: self._heard(host, payload), lambda: self._ended(host)
        )
        self._selector.register(prints, selectors.EVENT_READ, lambda _: self._read_prints(host))
        self.by_pid[pid] = host
        self._importing.add(host)
        if host.bundle is not None:
            self.by_bundle[host.bundle] = host
        return host

    def forget(self) -> None:
        """In a forked child: let go of every descriptor of ours."""
        for host in self.by_pid.values():
            host.channel.forget()
            if host.prints >= 0:
                os.close(host.prints)

    def start(self, host: Host, attempt: Process) -> None:
        """Give an attempt to a host; one that still imports gets it afterwards."""
        host.attempts[attempt.fence] = attempt
        if host.ready:
            self._hand_over(host, attempt)

    def let_go(self, fence: int) -> None:
        """No host is to start this attempt any more."""
        for host in self.by_pid.values():
            host.attempts.pop(fence, None)

    def _hand_over(self, host: Host, attempt: Process) -> None:
        record = self._attempts.write_ahead(attempt)
        if record is None:
            del host.attempts[attempt.fence]
            return
        if host.silence is not None and len(host.attempts) == 1:
            host.silence.rest(time.monotonic())
        attempt.send = lambda fence, number: self._signal(host, fence, number)
        host.channel.send(frame(b"S%d %b\n%b" % (attempt.fence, record.name.encode(), attempt.payload)))
        attempt.payload = b""
        attempt.order.pop("context", None)  # nobody here needs it any more

    def _signal(self, host: Host, fence: int, number: int) -> None:
        """Have the host signal an attempt: as its parent it cannot hit a stranger."""
        host.channel.send(frame(b"K%d %d" % (fence, number)))
        if number != signal.SIGCONT:
            host.signals[fence] = (number, time.monotonic())

    def _signal_ourselves(self, host: Host, fence: int, number: int) -> None:
        """The second road of a signal, which needs no host."""
        attempt = host.attempts.get(fence)
        if attempt is None:
            return
        group = attempt.pid if number != signal.SIGKILL else None
        processes.signal_attempt(self._home_number, fence, number, group=group)
        if number != signal.SIGKILL:
            processes.signal_attempt(self._home_number, fence, signal.SIGCONT, group=group)

    def _heard(self, host: Host, payload: bytes) -> None:
        message = from_json(payload)
        kind = message["type"]
        if host.silence is not None:
            host.silence.heard(time.monotonic())
        if kind == "alive":
            host.signals.clear()
            return
        if kind in ("loaded", "ready"):
            self._imported(host, message, payload)
            return
        attempt = host.attempts[message["fence"]]
        if kind == "began":
            self._attempts.began(attempt, message["pid"], message["at"], message["seen"])
            return
        del host.attempts[attempt.fence]
        host.used_at = time.monotonic()
        if kind == "done":
            self._attempts.ended(attempt, message["exited"], message["status"], message["usage"], message["at"])
        else:
            why = f"A process could not be made: {message['why']}."
            self._attempts.never_began(attempt, "FLX-7010", "NotStarted", why)

    def _imported(self, host: Host, message: Message, payload: bytes) -> None:
        self._end_import(host)
        if message["type"] == "loaded":
            threads = message["threads"]
            if threads and message["error"] is None:
                self._owner.threaded(message["bundle"], None)
            if host.printed:
                message["printed"] = host.shown.decode(errors="replace").replace("\0", "\ufffd")
                for spec in message["dags"]:
                    spec["warnings"] = [*spec.get("warnings", ()), PRINTS]
                payload = to_json(message)
            host.told = True
            if host.import_order["id"] is not None:
                self._owner.reply(payload)
            host.bundle = message["bundle"]
            usable = message["error"] is None and not threads and message["dags"]
            if usable and host.bundle not in self.by_bundle:
                self.by_bundle[message["bundle"]] = host
                self._serve(host)
            else:
                self._drop(host)
            return
        host.told = True
        if message["error"] is not None:
            self._owner.import_failed(host, message["error"])
            self._drop(host)
        elif message["threads"]:
            self._owner.threaded(message["bundle"], host)
            self._drop(host)
        else:
            self._serve(host)

    def _serve(self, host: Host) -> None:
        host.ready = True
        host.used_at = time.monotonic()
        host.silence = Silence(self._answer_s, host.used_at)
        for attempt in list(host.attempts.values()):
            self._hand_over(host, attempt)
        idle = sorted((h for h in self.by_pid.values() if h.ready and not h.attempts), key=lambda h: h.used_at)
        surplus = sum(h.ready for h in self.by_pid.values()) - self._max
        for old in idle[: max(0, surplus)]:
            self._drop(old)

    def _drop(self, host: Host) -> None:
        """Close the connection; the host reads the end of file and goes. It is reaped as it ends."""
        host.ready = False
        host.dropped = True
        host.leaves_by = time.monotonic() + self._answer_s
        host.channel.close()
        if host.bundle is not None and self.by_bundle.get(host.bundle) is host:
            del self.by_bundle[host.bundle]

    def _read_prints(self, host: Host) -> bool:
        """What the file prints while it is imported. False when there is no more now."""
        if host.prints < 0:
            return False  # closed by what was handled before in this turn
        try:
            data = os.read(host.prints, 65536)
        except BlockingIOError:
            return False
        if not data:
            self._close_prints(host)
            return False
        host.printed += len(data)
        host.shown += data[: PRINT_SHOWN - len(host.shown)]
        if host.printed > PRINT_LIMIT and host.why_killed is None:
            self._kill(host, "FLX-2006", "importing it prints more than 1 MiB; move this into a task.")
        return True

    def _close_prints(self, host: Host) -> None:
        if host.prints >= 0:
            self._selector.unregister(host.prints)
            os.close(host.prints)
            host.prints = -1

    def _end_import(self, host: Host) -> None:
        while self._read_prints(host):
            pass
        self._close_prints(host)
        self._importing.discard(host)

    def _kill(self, host: Host, code: str, words: str) -> None:
        host.why_killed = (code, words)
        with contextlib.suppress(ProcessLookupError):
            os.kill(host.pid, signal.SIGKILL)
            os.killpg(host.pid, signal.SIGKILL)

    def _ended(self, host: Host) -> None:
        """The connection is gone without our doing: the host died, or its file closed our socket."""
        host.cut_off = not processes.exiting(host.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(host.pid, signal.SIGKILL)
        host.ready = False
        if host.bundle is not None and self.by_bundle.get(host.bundle) is host:
            del self.by_bundle[host.bundle]
        # Not before it is a zombie are its attempts our children. That takes long where a disk holds it up.
        info = os.waitid(os.P_PID, host.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if info is not None:
            self._buried(host, info)

    def _buried(self, host: Host, info: Any) -> None:
        """The host is dead for sure."""
        if host.dead:
            return
        host.dead = True
        if host.told:
            self._owner.died(host)
            return
        self._end_import(host)
        code, words = host.why_killed or import_death(info, host.cut_off)
        order = host.import_order
        file = order["file"]
        error = {"code": code, "message": f"{file}: {words}", "line": None, "file": file, "traceback": ""}
        error["traceback"] = host.shown.decode(errors="replace").replace("\0", "\ufffd")
        host.told = True
        if order["type"] == "load":
            if order["id"] is not None:
                self._owner.reply(to_json(not_loaded(order, code, error["message"], error)))
        else:
            self._owner.import_failed(host, error)

    def last_look(self, pid: int) -> None:
        """Before a zombie is reaped. Of a host, hear the last words, and end what its import left in its group.

        A stranger may be an attempt whose host died this moment: hear that first, so that it is adopted.
        """
        host = self.by_pid.get(pid)
        if host is not None:
            host.channel.drain()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            # A process that the import forked may still hold the other end: no end of file would be read.
            host.channel.end()
            if not host.dropped:
                self._buried(host, os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT))
        elif pid not in self._attempts.by_pid:
            for each in list(self.by_pid.values()):
                each.channel.drain()

    def forget_loads(self) -> None:
        """Nobody waits for the answers of loads any more."""
        for host in self._importing:
            if host.import_order["type"] == "load":
                host.import_order["id"] = None

    def next_deadline(self) -> float | None:
        deadlines = [host.deadline for host in self._importing if host.why_killed is None]
        for host in self.by_pid.values():
            if host.ready and not host.attempts:
                deadlines.append(host.used_at + self._idle_s)
            elif host.ready and host.silence is not None:
                deadlines.append(host.silence.next_look)
            deadlines.append(host.leaves_by)
            deadlines += [at + KILL_HEARD_S for _, at in host.signals.values()]
        return min((deadline for deadline in deadlines if deadline < math.inf), default=None)

    def enforce(self) -> None:
        """Kill imports that do not heed their limit; drop hosts that nobody used for a while."""
        now = time.monotonic()
        for host in list(self._importing):
            if host.deadline <= now and host.why_killed is None:
                limit = host.import_order.get("timeout_s", 30.0)
                self._kill(host, "FLX-2004", f"importing it took longer than {limit:g} s; move slow work into a task.")
        for host in list(self.by_pid.values()):
            if host.ready and not host.attempts and host.used_at + self._idle_s <= now:
                self._drop(host)
            if host.leaves_by <= now:
                host.leaves_by = math.inf
                self._end_hung(host, "it was let go, and stays")
            self._ask(host, now)

    def _ask(self, host: Host, now: float) -> None:
        """Whether a host that has work answers; what it does not pass on is sent without it."""
        for fence, (number, at) in list(host.signals.items()):
            if at + KILL_HEARD_S <= now:
                del host.signals[fence]
                self._signal_ourselves(host, fence, number)
        silence = host.silence
        if silence is None or not host.ready or not silence.due(now):
            return
        if not host.attempts:  # nobody waits for it
            silence.rest(now)
        elif silence.look(now):
            self._end_hung(host, f"it has not answered for {self._answer_s:g} s")
        else:
            host.channel.send(frame(b"P0 0"))

    def _end_hung(self, host: Host, why: str) -> None:
        """A host that hangs: what runs under it is ours once it is dead, what has not begun may begin elsewhere."""
        what = host.import_order["file"]
        sys.stderr.write(f"FLX-7036: the process that holds {what} (pid {host.pid}) is ended: {why}.\n")
        sys.stderr.flush()
        with contextlib.suppress(ProcessLookupError):
            os.kill(host.pid, signal.SIGKILL)
        if not host.channel.closed:  # a process that hangs in a fork may hold the other end, so do not wait for its end
            host.channel.drain()
            host.channel.end()

    def close(self) -> None:
        """Let every idle host go."""
        for host in list(self.by_pid.values()):
            if not host.attempts and not host.channel.closed:
                self._drop(host)
