"""The runner's loop: one daemon, many dag hosts, the attempts that are its own children, and what nobody acknowledged.

Single-threaded and synchronous: everything happens in `serve`, in turns of one `select`. What a turn has to say is
written once, at its end.
"""

import contextlib
import os
import selectors
import signal
import socket
import struct
import time
import traceback
from collections.abc import Callable
from types import FrameType

from fluxd.runner import processes
from fluxd.runner.adopted import Adopted
from fluxd.runner.attempts import Attempts, Process
from fluxd.runner.channel import Channel
from fluxd.runner.door import Door
from fluxd.runner.host import run_afresh
from fluxd.runner.hosts import Hosts
from fluxd.runner.hostview import Host
from fluxd.runner.logs import write_log
from fluxd.runner.orphans import Orphans
from fluxd.runner.protocol import PROTOCOL, Message, frame, from_json, to_json
from fluxd.runner.records import Records
from fluxd.runner.results import Results
from fluxd.signals import STRAY

BUNDLES_REMEMBERED = 10_000
GREET_S = 5.0
ACCEPT_PAUSE_S = 0.1
PONG = to_json({"type": "pong"})


class Runner:
    """Serves one home. `results` may hold what an earlier runner left."""

    def __init__(
        self,
        folder: str,
        lock: int,
        home_number: int,
        *,
        hosts_max: int,
        host_idle_s: float,
        linger_s: float,
        answer_s: float,
    ) -> None:
        self.folder = folder
        self.records = Records(folder)
        self.results = Results(self.records)
        self.boot_id = processes.boot_id()
        self._id = os.urandom(16).hex()
        self._wanted: dict[str, list[Process]] = {}  # bundle -> attempts that wait for its source
        self._threaded: set[str] = set()
        self._lock = lock
        self._door: Door
        self._selector = selectors.DefaultSelector()
        self._dirty: set[Channel] = set()
        self._daemon: Channel | None = None
        self._daemon_pid = 0
        self._visitors: set[Channel] = set()
        self._greeted = False
        self._greet_by = 0.0  # one that connects and says nothing keeps the daemon out no longer than this
        self._linger_s = linger_s
        self._idle_since = time.monotonic()
        self._attempts = Attempts(self.records, self.boot_id, answer_s, self._told)
        self._hosts = Hosts(
            self._selector,
            self._dirty,
            self,
            self._attempts,
            self.records,
            hosts_max=hosts_max,
            idle_s=host_idle_s,
            answer_s=answer_s,
            home_number=home_number,
            in_child=self._become_child,
        )
        self.adopted = Adopted(self._selector, self._attempts, folder, home_number, self._lost)
        self._orphans = Orphans(self._attempts, self._hosts, self.adopted, home_number)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._child_ended = False
        self._sweep_due = False
        self._stop_asked = False
        self._stopping = False

    # The loop

    def listen(self, make: Callable[[], tuple[socket.socket, int]], is_there: Callable[[int], bool]) -> None:
        """Take daemons from the socket that `make` gives, one at a time (see Door)."""
        self._door = Door(self._selector, make, is_there, self._accept)

    def serve(self) -> None:
        """Until told to stop, or idle for the linger time."""
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, lambda _: os.read(self._wake_read, 4096))
        signal.pthread_sigmask(signal.SIG_SETMASK, STRAY)  # one that was told to stop meanwhile hears of it now
        while not self._finished():
            for key, mask in self._selector.select(self._timeout()):
                key.data(mask)
            if self._stop_asked:
                self._stop()
            if self._child_ended:
                self._reap()
            self._attempts.enforce()
            self._hosts.enforce()
            self._door.look()
            if self._daemon is not None and not self._greeted and time.monotonic() >= self._greet_by:
                self._daemon.end()
            if self._sweep_due:
                self._sweep_due = False
                self._orphans.sweep()
            for channel in list(self._dirty):
                channel.flush()
            self._dirty.clear()
        self._hosts.close()
        self.records.close()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGCHLD:
            self._child_ended = True
        else:
            self._stop_asked = True  # handled in the loop: a handler may run between any two steps

    def _timeout(self) -> float | None:
        deadlines = [self._door.look_at, self._attempts.next_deadline(), self._hosts.next_deadline()]
        if self._daemon is not None and not self._greeted:
            deadlines.append(self._greet_by)
        if self._idle():
            deadlines.append(self._idle_since + self._linger_s)
        known = [deadline for deadline in deadlines if deadline is not None]
        return max(0.0, min(known) - time.monotonic()) if known else None

    def _idle(self) -> bool:
        """Nobody needs us: no daemon, nothing runs, nothing waits to be acknowledged."""
        return bool(self._linger_s) and not (self._daemon or self._attempts.live or self.results)

    def _finished(self) -> bool:
        if self._stopping:
            return not self._attempts.live and (self._daemon is None or self._daemon.flushed)
        return self._idle() and time.monotonic() >= self._idle_since + self._linger_s

    def _reap(self) -> None:
        """Everything that ended: attempts, hosts, orphans."""
        self._child_ended = False
        with contextlib.suppress(ChildProcessError):  # no children at all
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                pid = found.si_pid
                self._hosts.last_look(pid)
                if pid in self._attempts.by_pid:
                    self._attempts.reap(pid, found.si_code == os.CLD_EXITED, found.si_status)
                else:
                    os.waitpid(pid, 0)
                    self._hosts.by_pid.pop(pid, None)
                    self._sweep_due = True

    def _become_child(self) -> None:
        """In a forked child: nothing of the runner's descriptors and signal handling stays."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._hosts.forget()
        self._selector.close()
        self._door.listener.close()
        for channel in (*self._visitors, *([self._daemon] if self._daemon else ())):
            channel.forget()
        for fd in (self._wake_read, self._wake_write, self._lock, *self.adopted.descriptors()):
            os.close(fd)

    # The daemon

    def _accept(self, mask: int) -> None:
        try:
            connection, _ = self._door.listener.accept()
        except OSError:  # it is gone already, or no descriptor is left
            traceback.print_exc()
            time.sleep(ACCEPT_PAUSE_S)
            return
        pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.getuid()):
            connection.close()
            return
        if self._daemon is not None:
            self._daemon.drain()  # it may have greeted, or left, and we have not read it yet
        if self._daemon is not None and not self._greeted:
            self._daemon.end()
        if self._daemon is not None:
            self._turn_away(connection)
            return
        self._daemon_pid = pid
        self._greeted = False
        self._greet_by = time.monotonic() + GREET_S
        self._daemon = Channel(connection, self._selector, self._dirty, self._ordered, self._daemon_gone)

    def _turn_away(self, connection: socket.socket) -> None:
        """Tell whoever greets that there is a daemon already, and which."""
        busy = frame(to_json({"type": "busy", "pid": self._daemon_pid}))
        visitor: Channel = Channel(
            *(connection, self._selector, self._dirty),
            on_payload=lambda _: visitor.send(busy),
            on_end=lambda: self._visitors.discard(visitor),
        )
        self._visitors.add(visitor)

    def _daemon_gone(self) -> None:
        self._daemon = None
        self._idle_since = time.monotonic()
        self._hosts.forget_loads()

    def reply(self, payload: bytes) -> None:
        if self._daemon is not None and self._greeted:
            self._daemon.send(frame(payload))

    def _ordered(self, payload: bytes) -> None:
        order = from_json(payload)
        kind = order["type"]
        if not self._greeted:
            self._hello(order)
        elif kind == "ping":
            self.reply(PONG)
        elif kind == "start":
            self._start_safely(order, payload)
        elif kind == "ack":
            self._acknowledged(order["fences"])
        elif kind == "kill":
            self._kill(order["fence"], order["reason"], order.get("grace_s"))
        elif kind == "load":
            self._hosts.load(order)
        elif kind == "source":
            self._source(order)
        elif kind == "stop":
            self._stop()

    def _hello(self, order: Message) -> None:
        assert self._daemon is not None
        self._greeted = order.get("type") == "hello" and order.get("protocol") == PROTOCOL
        running = [
            {"fence": attempt.fence, "pid": attempt.pid, "started_at": attempt.started_at}
            for attempt in self._attempts.live.values()
        ]
        kept = self.results.payloads()
        hello = {
            "type": "hello", "protocol": PROTOCOL, "runner_id": self._id, "pid": os.getpid(),
            "boot_id": self.boot_id, "running": running, "results": len(kept), "answers": True,
        }  # fmt: skip
        self._daemon.send(frame(to_json(hello)))
        for payload in kept:  # each by itself: together they may be more than a frame takes
            self._daemon.send(frame(payload))
        for bundle in self._wanted:
            self.reply(to_json({"type": "need_source", "bundle": bundle}))

    def _acknowledged(self, fences: list[int]) -> None:
        self.results.acknowledged(fences)
        self._idle_since = time.monotonic()

    def _start_safely(self, order: Message, payload: bytes) -> None:
        """An order that cannot be carried out ends its attempt, not the connection: it would be sent again for ever."""
        try:
            self._start(order, payload)
        except Exception as error:
            traceback.print_exc()
            attempt = self._attempts.live.get(order["fence"])
            if attempt is None:
                raise
            self._hosts.let_go(attempt.fence)
            why = f"What it is to do cannot be carried out: {type(error).__name__}: {error}."
            self._attempts.never_began(attempt, "FLX-7031", "NotStarted", why, retry=False)

    def _start(self, order: Message, payload: bytes) -> None:
        fence = order["fence"]
        if fence in self._attempts.live or self._stopping:
            return
        known = self.results.get(fence)
        if known is not None:
            self.reply(known.payload)
            return
        attempt = self._attempts.accept(order, payload)
        if order.get("spawn"):
            self._attempts.spawn(attempt)
            return
        bundle = order["bundle"]
        host = self._hosts.by_bundle.get(bundle)
        if host is not None:
            self._hosts.start(host, attempt)
        elif bundle in self._wanted:
            self._wanted[bundle].append(attempt)
        else:
            self._wanted[bundle] = [attempt]
            self.reply(to_json({"type": "need_source", "bundle": bundle}))

    def _source(self, source: Message) -> None:
        bundle = source["bundle"]
        attempts = [a for a in self._wanted.pop(bundle, []) if a.fence in self._attempts.live]
        if not attempts:
            return
        source.setdefault("dags_dir", attempts[0].order["dags_dir"])
        if not source.get("file"):
            why = f"The stored source {bundle} of its dag is missing from the database, so it cannot be run."
            for attempt in attempts:
                self._attempts.never_began(attempt, "FLX-7019", "SourceMissing", why, retry=False)
        elif bundle in self._threaded:
            self._run_afresh(attempts, source)
        else:
            self._run_in_host(attempts, source)

    def _run_in_host(self, attempts: list[Process], source: Message) -> None:
        host = self._hosts.by_bundle.get(source["bundle"])
        if host is None:
            try:
                host = self._hosts.import_source(source)
            except OSError as error:
                why = f"No process could be made to import its dag file: {error.strerror}."
                for attempt in attempts:
                    self._attempts.never_began(attempt, "FLX-7010", "NotStarted", why)
                return
        for attempt in attempts:
            self._hosts.start(host, attempt)

    def _run_afresh(self, attempts: list[Process], source: Message) -> None:
        for attempt in attempts:
            self._attempts.fork(attempt, lambda order, record: run_afresh(order, source, record), self._become_child)

    def _told(self, attempt: Process, payload: bytes, ended: bool) -> None:
        """An attempt began or ended."""
        if ended:
            self.results.keep("ended", attempt.fence, payload, attempt.record)
            self._sweep_due = True
        self.reply(payload)

    def import_failed(self, host: Host, error: Message) -> None:
        why = f"Its dag file could not be imported: {error['message']}"
        for attempt in list(host.attempts.values()):
            write_log(attempt.order["log"], error["traceback"])
            self._attempts.never_began(attempt, "FLX-7018", "ImportFailed", why)
        host.attempts.clear()

    def threaded(self, bundle: str, host: Host | None) -> None:
        if len(self._threaded) >= BUNDLES_REMEMBERED:
            self._threaded.clear()  # learned again when it matters
        self._threaded.add(bundle)
        if host is not None:
            self._run_afresh(list(host.attempts.values()), host.import_order)
            host.attempts.clear()

    def died(self, host: Host) -> None:
        """A host is gone and its attempts are our children now: those that live go on, the others are settled."""
        strangers = self._orphans.by_fence()
        if processes.IMPORT in strangers:  # it may be a child that had not begun to be an attempt: it never will
            self._orphans.sweep()
        for attempt in host.attempts.values():
            pid = attempt.pid or strangers.get(attempt.fence)
            if pid is not None and processes.is_child(pid):
                self._attempts.adopt(attempt, pid)
            else:
                self._settle(attempt, host)
        host.attempts.clear()
        self._child_ended = True

    def _settle(self, attempt: Process, host: Host) -> None:
        """The end of an attempt that its host reaped, or never made, without telling us."""
        known = attempt.record.content() if attempt.record else {}
        if "outcome" in known:
            self._attempts.stand_in(attempt, known)
            return
        evidence = f"the process that held its dag file (pid {host.pid}) died, and the attempt's own is gone"
        self._lost(attempt, evidence, "entered" in known)

    def _lost(self, attempt: Process, evidence: str, began: bool) -> None:
        self._attempts.lost(attempt)
        lost = {"type": "lost", "fence": attempt.fence, "evidence": evidence, "began": began}
        payload = to_json(lost)
        self.results.keep("lost", attempt.fence, payload, attempt.record)
        self.reply(payload)

    def _kill(self, fence: int, reason: str, grace_s: float | None) -> None:
        attempt = self._attempts.live.get(fence)
        if attempt is None:
            return
        if attempt.pid is not None or attempt.send is not None:
            self._attempts.kill(attempt, reason, grace_s)
            return
        self._hosts.let_go(fence)
        why = f"The task was told to stop ({reason}) before its process began."
        self._attempts.never_began(attempt, "FLX-7013", "Killed", why)

    def _stop(self) -> None:
        self._stop_asked, self._stopping = False, True
        for fence in list(self._attempts.live):
            self._kill(fence, "stop", None)
