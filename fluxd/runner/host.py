"""A dag host: imports one dag file version once, tells what it found, and forks an attempt for each order.

It talks to the runner alone. When the runner is gone (end of file), it ends its attempts, leaves their records to the
next runner, and goes.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import time
import traceback
from functools import partial
from types import FrameType
from typing import Any, NoReturn

from fluxd.authoring import execution, template
from fluxd.runner import child, loading
from fluxd.runner.attempts import Attempts
from fluxd.runner.logs import write_log
from fluxd.runner.outcomes import failed
from fluxd.runner.processes import HOST_NAME, set_name
from fluxd.runner.protocol import FrameReader, Message, encode
from fluxd.runner.records import Record
from fluxd.runner.spare import Spare

READ_SIZE = 256 * 1024
SPARE_BELOW = 2  # attempts that run at once
WARM_AFTER_MS = 200
PRINTS = "Importing the file prints to its output; move this into a task, or drop it."
THREADS = (
    "Importing the file leaves {count} thread(s) running, so each attempt imports it anew in a fresh process, which is "
    "slower; start threads inside a task."
)


def _noted(signum: int, frame: FrameType | None) -> None:
    """The wake-up descriptor says it all."""


class Loaded:
    """What an import gave: the dags, or the error."""

    def __init__(self, order: Message) -> None:
        start = time.monotonic()
        self.file: str = order["file"]
        self.source = loading.Source(order["dags_dir"], order.get("files"))
        self.dags: dict[str, Any] = {}
        self.specs: list[dict[str, Any]] = []
        found, self.error = loading.load(
            self.source, self.file, order.get("timeout_s", 30.0), order.get("memory_mb", 1024)
        )
        self.threads = loading.threads_left()
        if self.error is None:
            self._describe(found)
        self.seconds = loading.seconds_since(start)

    def _describe(self, found: list[Any]) -> None:
        try:
            for dag in found:
                self.dags[dag.dag_id] = dag
                spec = dag.to_spec()
                if self.threads:
                    spec["warnings"] = [*spec.get("warnings", ()), THREADS.format(count=self.threads)]
                self.specs.append(spec)
        except Exception as error:
            self.error = loading.describe(error, self.file, self.source.dags_dir, 0, 0)

    def perform(self, order: Message, record: Record) -> dict[str, Any]:
        """Run the task that an order names."""
        dag = self.dags.get(order["dag_id"])
        if dag is None:
            return failed("FLX-7017", "DagMissing", f"{self.file} defines no dag {order['dag_id']!r}.", retry=False)
        outcome: dict[str, Any] = execution.run(
            dag, order["task_id"], order["context"], replace=partial(child.become, record)
        )
        return outcome


def run_host(sock: socket.socket, order: Message, folder: str, boot_id: str) -> NoReturn:
    """The life of a host: `order` is a `load` or a `source` message. Leaves by os._exit."""
    status = 1
    try:
        # stdin, stdout and stderr are set by the runner: /dev/null and a pipe that it reads while we import.
        os.setsid()
        set_name(HOST_NAME)
        loaded = Loaded(order)
        child.flush_streams()
        os.dup2(0, 1)
        os.dup2(0, 2)
        sock.sendall(encode(_report(loaded, order)))
        if loaded.error is None and not loaded.threads:
            _Host(sock, loaded, folder, boot_id).serve()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def run_afresh(order: Message, source: Message, record: Record) -> NoReturn:
    """An attempt in a process of its own that imports the file anew (its import leaves threads behind)."""

    child.detach()

    def perform(order: Message, record: Record) -> dict[str, Any]:
        loaded = Loaded(source)
        if loaded.error is not None:
            return import_failed(order, loaded.error)
        return loaded.perform(order, record)

    child.attempt(order, record, perform)


def import_failed(order: Message, error: dict[str, Any]) -> dict[str, Any]:
    """The outcome of an attempt whose file cannot be imported any more; the traceback goes to its log."""
    write_log(order["log"], f"{error.get('traceback', '')}\nflux: {error['code']}: {error['message']}")
    return failed("FLX-7018", "ImportFailed", f"Its dag file could not be imported: {error['message']}")


def _report(loaded: Loaded, order: Message) -> Message:
    if order["type"] == "source":
        return {"type": "ready", "bundle": order["bundle"], "error": loaded.error, "threads": loaded.threads}
    return {
        "type": "loaded", "id": order["id"], "file": loaded.file, "bundle": loaded.source.bundle(),
        "files": loaded.source.files, "dags": loaded.specs, "error": loaded.error, "seconds": loaded.seconds,
        "threads": loaded.threads,
    }  # fmt: skip


class _Host:
    """The loop after the import: orders in, attempts forked, ends told."""

    def __init__(self, sock: socket.socket, loaded: Loaded, folder: str, boot_id: str) -> None:
        self._sock = sock
        self._frames = FrameReader()
        self._loaded = loaded
        self._out: list[bytes] = []
        self._attempts = Attempts(folder, boot_id, self._tell)
        self._orphaned = False
        self._is_warm = False
        self._spare: Spare | None = None
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> None:
        """Until the runner lets go of us."""
        signal.signal(signal.SIGCHLD, _noted)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while not (self._orphaned and not self._attempts.by_pid):
            deadline = self._attempts.next_deadline()
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000 + 1
            ready = poll.poll(timeout if self._is_warm else WARM_AFTER_MS)
            if not ready:
                self._warm()  # nobody is in a hurry, and we were not dropped at once
            for fd, _ in ready:
                if fd == self._wake_read:
                    os.read(self._wake_read, 4096)
                elif not self._read():
                    poll.unregister(self._sock)
                    self._orphaned = True
                    self._attempts.kill_all("runner died")
                    self._let_spare_go()
            self._attempts.reap(self._stranger)
            self._attempts.enforce()
            self._flush()
            self._make_spare()
        self._attempts.close()

    def _read(self) -> bool:
        """Handle what the runner sent; False at the end of file."""
        try:
            data = self._sock.recv(READ_SIZE)
        except ConnectionError:
            return False
        for payload in self._frames.feed(data):
            order = json.loads(payload)
            if order["type"] == "start":
                self._warm()
                self._start(order)
            elif order["type"] == "ack":
                for fence in order["fences"]:
                    self._attempts.acknowledged(fence)
            else:
                self._attempts.kill(order["fence"], order["reason"], order.get("grace_s"))
        return bool(data)

    def _warm(self) -> None:
        """Before the first fork: what every attempt would do for itself else."""
        if not self._is_warm:
            self._is_warm = True
            template.warm(self._loaded.dags.values())
            gc.collect()
            gc.freeze()

    def _start(self, order: Message) -> None:
        spare, self._spare = self._spare, None
        if spare is None or not self._attempts.hand_over(order, spare):
            self._attempts.fork(order, self._body, self._close)

    def _body(self, order: Message, record: Record) -> NoReturn:
        child.detach()
        child.attempt(order, record, self._loaded.perform)

    def _make_spare(self) -> None:
        """For the next order, unless so much runs at once that all wait for the processors anyway."""
        if self._spare is None and self._is_warm and not self._orphaned and len(self._attempts.by_pid) < SPARE_BELOW:
            self._spare = self._attempts.make_spare(self._rehearse, self._waiting_body, self._close)

    def _let_spare_go(self) -> None:
        if self._spare is not None:
            self._attempts.drop_spare(self._spare)
            self._spare = None

    def _rehearse(self) -> None:
        child.detach()
        child.rehearse(self._loaded.dags.values())

    def _waiting_body(self, order: Message, record: Record) -> NoReturn:
        child.attempt(order, record, self._loaded.perform)

    def _stranger(self, pid: int) -> None:
        """A spare that died before it was needed, or a process that the import started."""
        if self._spare is not None and self._spare.pid == pid:
            self._let_spare_go()

    def _close(self) -> None:
        if self._spare is not None:
            self._spare.close()
        self._sock.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _tell(self, message: Message) -> None:
        self._out.append(encode(message))

    def _flush(self) -> None:
        if self._out and not self._orphaned:
            with contextlib.suppress(ConnectionError):  # the end of file is read next
                self._sock.sendall(b"".join(self._out))
        self._out.clear()
