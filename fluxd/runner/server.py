"""The runner's loop: one daemon, many dag hosts, the attempts that are its own children, and what nobody acknowledged.

Single-threaded and synchronous: everything happens in `serve`, in turns of one `select`. What a turn has to say is
written once, at its end.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import struct
import time
from types import FrameType

from fluxd.runner import processes, records
from fluxd.runner.attempts import Attempts
from fluxd.runner.channel import Channel
from fluxd.runner.host import import_failed, run_afresh
from fluxd.runner.hosts import Host, Hosts
from fluxd.runner.outcomes import failed
from fluxd.runner.protocol import PROTOCOL, Message, encode, frame, to_json
from fluxd.runner.results import Results

BUNDLES_REMEMBERED = 10_000


class Live:
    """An attempt that was accepted and has not ended. `host` is None for what the runner is itself the parent of."""

    __slots__ = ("host", "kill", "order", "pid", "record", "started_at")

    def __init__(self, order: Message) -> None:
        self.order = order
        self.host: Host | None = None
        self.pid: int | None = None
        self.started_at: float | None = None
        self.record: str | None = None
        self.kill: tuple[str, float | None] | None = None  # (reason, grace) once it was told to stop


class Runner:
    """Serves one home. `results` may hold what an earlier runner left."""

    def __init__(
        self, folder: str, lock: int, listener: socket.socket, *, hosts_max: int, host_idle_s: float, linger_s: float
    ) -> None:
        self.folder = folder
        self.boot_id = processes.boot_id()
        self._id = os.urandom(16).hex()
        self._live: dict[int, Live] = {}
        self._wanted: dict[str, list[Message]] = {}  # bundle -> start orders that wait for its source
        self._threaded: set[str] = set()
        self._lock = lock
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._dirty: set[Channel] = set()
        self._daemon: Channel | None = None
        self._greeted = False
        self._linger_s = linger_s
        self._idle_since = time.monotonic()
        self._attempts = Attempts(folder, self.boot_id, self._own_told)
        self.results = Results(folder, self._attempts)
        self._hosts = Hosts(
            self._selector, self._dirty, self, hosts_max=hosts_max, idle_s=host_idle_s, in_child=self._become_child
        )
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._child_ended = False
        self._sweep_due = False
        self._stop_asked = False
        self._stopping = False

    # The loop

    def serve(self) -> None:
        """Until told to stop, or idle for the linger time."""
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, lambda _: os.read(self._wake_read, 4096))
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        while not self._finished():
            for key, mask in self._selector.select(self._timeout()):
                key.data(mask)
            if self._stop_asked:
                self._stop()
            if self._child_ended:
                self._reap()
            self._attempts.enforce()
            self._hosts.enforce()
            if self._sweep_due:
                self._sweep()
            for channel in list(self._dirty):
                channel.flush()
            self._dirty.clear()
        self._hosts.close()
        self._attempts.close()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGCHLD:
            self._child_ended = True
        else:
            self._stop_asked = True  # handled in the loop: a handler may run between any two steps

    def _timeout(self) -> float | None:
        deadlines = [self._attempts.next_deadline(), self._hosts.next_deadline()]
        if self._idle():
            deadlines.append(self._idle_since + self._linger_s)
        known = [deadline for deadline in deadlines if deadline is not None]
        return max(0.0, min(known) - time.monotonic()) if known else None

    def _idle(self) -> bool:
        """Nobody needs us: no daemon, nothing runs, nothing waits to be acknowledged."""
        return bool(self._linger_s) and not (self._daemon or self._live or self.results)

    def _finished(self) -> bool:
        if self._stopping:
            return not self._live and (self._daemon is None or self._daemon.flushed)
        return self._idle() and time.monotonic() >= self._idle_since + self._linger_s

    def _reap(self) -> None:
        self._child_ended = False
        for pid, _ in self._attempts.reap(self._stranger):
            self._hosts.by_pid.pop(pid, None)
            self._sweep_due = True

    def _stranger(self, pid: int) -> None:
        """A zombie that is no attempt of ours: a host, or an orphan whose host may have died this moment."""
        if pid in self._hosts.by_pid:
            self._hosts.last_look(pid)
        else:
            for host in list(self._hosts.by_pid.values()):
                host.channel.drain()

    def _become_child(self) -> None:
        """In a forked child: nothing of the runner's descriptors and signal handling stays."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._hosts.forget()
        self._attempts.forget()
        self._selector.close()
        self._listener.close()
        if self._daemon is not None:
            self._daemon.forget()
        for fd in (self._wake_read, self._wake_write, self._lock):
            os.close(fd)

    # The daemon

    def _accept(self, mask: int) -> None:
        connection, _ = self._listener.accept()
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.getuid()):
            connection.close()
            return
        self._selector.unregister(self._listener)
        self._greeted = False
        self._daemon = Channel(connection, self._selector, self._dirty, self._ordered, self._daemon_gone)

    def _daemon_gone(self) -> None:
        self._daemon = None
        self._idle_since = time.monotonic()
        self._hosts.forget_loads()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def reply(self, payload: bytes) -> None:
        if self._daemon is not None and self._greeted:
            self._daemon.send(frame(payload))

    def _ordered(self, payload: bytes) -> None:
        order = json.loads(payload)
        kind = order["type"]
        if not self._greeted:
            self._hello(order)
        elif kind == "start":
            self._start(order, payload)
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
        running = [{"fence": f, "pid": live.pid, "started_at": live.started_at} for f, live in self._live.items()]
        head = to_json(
            {
                "type": "hello", "protocol": PROTOCOL, "runner_id": self._id, "pid": os.getpid(),
                "boot_id": self.boot_id, "running": running,
            }
        )  # fmt: skip
        ended, lost = self.results.payloads("ended"), self.results.payloads("lost")
        self._daemon.send(frame(b'%b,"ended":%b,"lost":%b}' % (head[:-1], ended, lost)))
        for bundle in self._wanted:
            self.reply(to_json({"type": "need_source", "bundle": bundle}))

    def _acknowledged(self, fences: list[int]) -> None:
        self.results.acknowledged(fences)
        self._idle_since = time.monotonic()

    # Attempts

    def _start(self, order: Message, payload: bytes) -> None:
        fence = order["fence"]
        if fence in self._live or self._stopping:
            return
        known = self.results.get(fence)
        if known is not None:
            self.reply(known.payload)
            return
        live = self._live[fence] = Live(order)
        if order.get("spawn"):
            self._attempts.spawn(order)
            return
        bundle = order["bundle"]
        host = self._hosts.by_bundle.get(bundle)
        if host is not None:
            live.host = host
            self._hosts.start(host, order, payload)
        elif bundle in self._wanted:
            self._wanted[bundle].append(order)
        else:
            self._wanted[bundle] = [order]
            self.reply(to_json({"type": "need_source", "bundle": bundle}))

    def _source(self, source: Message) -> None:
        bundle = source["bundle"]
        orders = [order for order in self._wanted.pop(bundle, []) if order["fence"] in self._live]
        if not orders:
            return
        if not source.get("file"):
            why = f"The stored source {bundle} of its dag is missing from the database, so it cannot be run."
            self._fail(orders, failed("FLX-7019", "SourceMissing", why, retry=False))
            return
        source.setdefault("dags_dir", orders[0]["dags_dir"])
        if bundle in self._threaded:
            self._run_afresh(orders, source)
            return
        host = self._hosts.by_bundle.get(bundle)
        if host is None:
            try:
                host = self._hosts.import_source(source)
            except OSError as error:
                why = f"No process could be made to import its dag file: {error.strerror}."
                self._fail(orders, failed("FLX-7010", "NotStarted", why))
                return
        for order in orders:
            self._live[order["fence"]].host = host
            self._hosts.start(host, order)

    def _run_afresh(self, orders: list[Message], source: Message) -> None:
        for order in orders:
            self._live[order["fence"]].host = None
            self._attempts.fork(order, lambda order, record: run_afresh(order, source, record), self._become_child)

    def _fail(self, orders: list[Message], outcome: Message) -> None:
        """These never began."""
        for order in orders:
            ended: Message = {
                "type": "ended", "fence": order["fence"], "pid": None, "started_at": None, "ended_at": time.time(),
                "exit_code": None, "signal": None, "outcome": outcome, "usage": None,
            }  # fmt: skip
            self._own_told(ended)

    def _own_told(self, message: Message) -> None:
        self.told(None, message, to_json(message))

    def told(self, host: Host | None, message: Message, payload: bytes) -> None:
        fence = message["fence"]
        if message["type"] == "started":
            live = self._live[fence]
            live.pid, live.started_at, live.record = message["pid"], message["started_at"], message["record"]
        else:
            self._live.pop(fence, None)
            self.results.ended(message, payload, host)
            self._sweep_due = True
        self.reply(payload)

    def import_failed(self, host: Host, error: Message) -> None:
        for order in list(host.orders.values()):
            self._fail([order], import_failed(order, error))
        host.orders.clear()

    def threaded(self, bundle: str, host: Host | None) -> None:
        if len(self._threaded) >= BUNDLES_REMEMBERED:
            self._threaded.clear()  # learned again when it matters
        self._threaded.add(bundle)
        if host is not None:
            self._run_afresh(list(host.orders.values()), host.import_order)
            host.orders.clear()

    def died(self, host: Host) -> None:
        """A host is gone and its attempts are our children now: those that began go on, the others are lost."""
        strangers = {processes.fence_of(pid): pid for pid in self._strangers()}
        stored = records.stored(self.folder) if host.orders else {}
        for fence, order in host.orders.items():
            live = self._live.get(fence)
            if live is None:
                continue
            live.host = None
            record = live.record or stored.get(fence, (None,))[0]
            pid = live.pid or strangers.get(fence)
            if pid is not None and record is not None:
                live.pid, live.started_at, live.record = pid, live.started_at or time.time(), record
                self._attempts.adopt(order, pid, live.started_at, record)
                if live.kill is not None:  # the host may not have read it any more
                    self._attempts.kill(fence, *live.kill)
            else:
                del self._live[fence]
                evidence = f"the process that held its dag file (pid {host.pid}) died before it began"
                self.reply(self.results.lost(fence, evidence, record))
        host.orders.clear()
        self._child_ended = True

    def _kill(self, fence: int, reason: str, grace_s: float | None) -> None:
        live = self._live.get(fence)
        if live is None or live.kill is not None:
            return
        live.kill = (reason, grace_s)
        if self._attempts.kill(fence, reason, grace_s):
            return
        if live.host is not None and live.host.ready:
            live.host.channel.send(encode({"type": "kill", "fence": fence, "reason": reason, "grace_s": grace_s}))
            return
        if live.host is not None:
            live.host.orders.pop(fence, None)
        outcome = failed("FLX-7013", "Killed", f"The task was told to stop ({reason}) before its process began.")
        self._fail([live.order], outcome)

    def _stop(self) -> None:
        self._stopping = True
        for fence in list(self._live):
            self._kill(fence, "stop", None)

    # Orphans

    def _strangers(self) -> list[int]:
        """Children of ours that we did not make: what attempts and imports left behind."""
        mine, hosts = self._attempts.by_pid, self._hosts.by_pid
        return [pid for pid in processes.children() if pid not in mine and pid not in hosts]

    def _sweep(self) -> None:
        """End what outlived its attempt by leaving its process group. What cannot be told apart stays for later."""
        self._sweep_due = False
        for pid in self._strangers():
            fence = processes.fence_of(pid)
            if (not self._live) if fence is None else (fence not in self._live):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
