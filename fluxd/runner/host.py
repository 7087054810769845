"""A dag host: imports one dag file version once, tells what it found, and forks an attempt for each order.

It talks to the runner alone. When the runner is gone (end of file), it goes too; its attempts live on, and the next
runner takes them over.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import time
import traceback
from functools import partial
from typing import Any, NoReturn

from fluxd.authoring import execution, tasklog, template
from fluxd.errors import FluxError, Invalid
from fluxd.runner import child, loading
from fluxd.runner import spare as spares
from fluxd.runner.forking import fork
from fluxd.runner.logs import write_log
from fluxd.runner.outcomes import failed
from fluxd.runner.processes import HOST_NAME, set_name, signal_group, since_boot
from fluxd.runner.protocol import BadFrame, FrameReader, Message, encode, frame, from_json
from fluxd.runner.records import Record, open_record
from fluxd.runner.spare import Spare
from fluxd.signals import STRAY

READ_SIZE = 256 * 1024
SPARE_BELOW = 2  # attempts that run at once
EXIT_CUT_OFF = 71  # EX_OSERR
WARM_AFTER_S = 0.2
ALIVE = encode({"type": "alive"})
PRINTS = "Importing the file prints to its output; move this into a task, or drop it."
THREADS = (
    "Importing the file leaves {count} thread(s) running, so each attempt imports it anew in a fresh process, which is "
    "slower; start threads inside a task."
)


class ImportedFile:
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
            names = self.source.warnings()
            for dag in found:
                self.dags[dag.dag_id] = dag
                spec = dag.to_spec()
                if not isinstance(spec, dict):
                    why = f"Dag {dag.dag_id!r} describes itself as {type(spec).__name__}: do not override to_spec()."
                    raise Invalid("FLX-1047", why)
                more = [*names, *([THREADS.format(count=self.threads)] if self.threads else [])]
                spec["warnings"] = [*spec.get("warnings", ()), *more]
                self.specs.append(spec)
        except Exception as error:
            self.error = loading.describe(error, self.file, self.source.dags_dir, 0, 0)

    def refuse(self, error: FluxError) -> None:
        """What was imported well is of no use all the same."""
        self.error = loading.describe(error, self.file, self.source.dags_dir, 0, 0)
        self.specs, self.source.files = [], {}

    def perform(self, order: Message, record: Record) -> dict[str, Any]:
        """Run the task that an order names."""
        tasklog.begin()
        dag = self.dags.get(order["dag_id"])
        if dag is None:
            return failed("FLX-7017", "DagMissing", f"{self.file} defines no dag {order['dag_id']!r}.", retry=False)
        outcome: dict[str, Any] = execution.run(
            dag, order["task_id"], order["context"], replace=partial(child.become, record)
        )
        return outcome


def run_host(sock: socket.socket, order: Message, folder: str, log: int) -> NoReturn:
    """The life of a host: `order` is a `load` or a `source` message, `log` the runner's. Leaves by os._exit."""
    status = 1
    try:
        # stdin, stdout and stderr are set by the runner: /dev/null and a pipe that it reads while we import.
        os.setsid()
        set_name(HOST_NAME)
        loaded = ImportedFile(order)
        _report_back(sock, log, _encoded_report(loaded, order))
        if loaded.error is None and not loaded.threads:
            _Host(sock, loaded, folder).serve()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _encoded_report(loaded: ImportedFile, order: Message) -> bytes:
    try:
        return encode(_report(loaded, order))
    except (TypeError, ValueError, RecursionError, BadFrame) as error:
        why = f"what it defines cannot be told to fluxd: {error}; a dag is made of text and numbers."
        loaded.refuse(Invalid("FLX-1047", why))
        return encode(_report(loaded, order))


def _report_back(sock: socket.socket, log: int, report: bytes) -> None:
    """Let go of the pipe that the import wrote to, and tell what came of it."""
    child.flush_streams()
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        sock.sendall(report)
    except OSError:  # the import closed what it had not opened, or the runner is gone
        os._exit(EXIT_CUT_OFF)


def run_afresh(order: Message, source: Message, record: Record) -> NoReturn:
    """An attempt in a process of its own that imports the file anew (its import leaves threads behind)."""

    def perform(order: Message, record: Record) -> dict[str, Any]:
        loaded = ImportedFile(source)
        if loaded.error is not None:
            write_log(order["log"], loaded.error["traceback"])
            why = f"Its dag file could not be imported: {loaded.error['message']}"
            return failed("FLX-7018", "ImportFailed", why)
        return loaded.perform(order, record)

    child.detach()
    child.attempt(order, record, perform)


def _report(loaded: ImportedFile, order: Message) -> Message:
    if order["type"] == "source":
        return {"type": "ready", "bundle": order["bundle"], "error": loaded.error, "threads": loaded.threads}
    return {
        "type": "loaded", "id": order["id"], "file": loaded.file, "bundle": loaded.source.bundle(),
        "files": loaded.source.files, "dags": loaded.specs, "error": loaded.error, "seconds": loaded.seconds,
        "threads": loaded.threads,
    }  # fmt: skip


class _Host:
    """The loop after the import: orders in, attempts forked, ends told.

    It does as little as it can: after each fork, whatever it touches has to be copied. So it knows attempts only as
    fence and pid, hands orders to the child unread, and has no signal handlers that the child would have to undo.
    """

    def __init__(self, sock: socket.socket, loaded: ImportedFile, folder: str) -> None:
        self._sock = sock
        self._frames = FrameReader()
        self._loaded = loaded
        self._folder = folder
        self._out: list[bytes] = []
        self._poll = select.epoll()
        self._poll.register(sock, select.EPOLLIN)
        self._pids: dict[int, int] = {}  # fence -> pid
        self._fences: dict[int, int] = {}  # pid -> fence
        self._ends: dict[int, int] = {}  # pidfd -> pid
        self._is_warm = False
        self._spare: Spare | None = None
        self._spare_died = False  # one that was never used; the next order is to come before another is made

    def serve(self) -> None:
        """Until the runner lets go of us."""
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # whatever the import made of them
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_BLOCK, STRAY)
        reader = self._sock.fileno()
        while True:
            ready = self._poll.poll(None if self._is_warm else WARM_AFTER_S)
            if not self._is_warm and not ready:
                self._warm()  # nobody is in a hurry, and we were not dropped at once
            for fd, _ in ready:
                if fd != reader:
                    self._reap(fd)
                elif not self._read():
                    return
            self._flush()
            self._make_spare()

    def _read(self) -> bool:
        """Handle what the runner sent. False at the end of file: it is gone, or lets us go."""
        try:
            data = self._sock.recv(READ_SIZE)
        except ConnectionError:
            data = b""
        for payload in self._frames.feed(data):
            fence, argument = payload.partition(b"\n")[0][1:].split()
            if payload[:1] == b"S":
                self._start(int(fence), payload)
                continue
            if int(fence) in self._pids:
                signal_group(self._pids[int(fence)], int(argument))
            self._out.append(ALIVE)
        return bool(data)

    def _start(self, fence: int, payload: bytes) -> None:
        """Have a child run this order: the one that waits, or a new one."""
        self._warm()
        self._spare_died = False
        spare, self._spare = self._spare, None
        if spare is not None and spare.send(payload):
            pid = spare.pid
        else:
            try:
                pid = fork()
            except OSError as error:
                self._out.append(encode({"type": "not_began", "fence": fence, "why": str(error)}))
                return
            if pid == 0:
                self._become(payload)
            self._watch(pid)
        self._pids[fence] = pid
        self._fences[pid] = fence
        self._out.append(
            frame(
                b'{"type":"began","fence":%d,"pid":%d,"at":%.6f,"seen":%.3f}' % (fence, pid, time.time(), since_boot())
            )
        )

    def _watch(self, pid: int) -> None:
        """Hear of the end of this child."""
        end = os.pidfd_open(pid)
        self._ends[end] = pid
        self._poll.register(end, select.EPOLLIN)

    def _become(self, payload: bytes) -> NoReturn:
        """In the child: run the order."""
        try:
            self._let_go()
            child.detach()
            self._perform(payload)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(70)

    def _perform(self, payload: bytes) -> NoReturn:
        head, _, order = payload.partition(b"\n")
        record = head.split()[1].decode()
        child.attempt(from_json(order), open_record(self._folder, record), self._loaded.perform)

    def _make_spare(self) -> None:
        """For the next order, unless so much runs at once that all wait for the processors anyway."""
        wanted = self._is_warm and len(self._pids) < SPARE_BELOW
        if wanted and self._spare is None and not self._spare_died:
            with contextlib.suppress(OSError):
                pid, write_end = spares.make(self._let_go, self._rehearse, self._perform)
                self._watch(pid)
                self._spare = Spare(pid, write_end)

    def _rehearse(self) -> None:
        child.detach()
        with contextlib.suppress(Exception):  # what is wrong with a task is told when it runs
            child.rehearse(self._loaded.dags.values())

    def _let_go(self) -> None:
        """In a child: the descriptors of the host are not for it."""
        self._sock.close()
        self._poll.close()
        for end in self._ends:
            os.close(end)
        if self._spare is not None:
            self._spare.close()

    def _reap(self, end: int) -> None:
        """A child is a zombie: end what is left of its group, whose number it still holds, let it go, and tell."""
        now = time.time()
        pid = self._ends.pop(end)
        fence = self._fences.pop(pid, None)
        self._poll.unregister(end)  # closing is not enough while a forked child has a copy
        os.close(end)
        if fence is None:
            self._bury_spare(pid)
            return
        del self._pids[fence]
        signal_group(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        exited = os.WIFEXITED(status)
        self._out.append(
            frame(
                b'{"type":"done","fence":%d,"exited":%d,"status":%d,"usage":[%.6f,%.6f,%d],"at":%.6f}'
                % (
                    *(fence, exited, os.WEXITSTATUS(status) if exited else os.WTERMSIG(status)),
                    *(usage.ru_utime, usage.ru_stime, usage.ru_maxrss, now),
                )
            )
        )

    def _bury_spare(self, pid: int) -> None:
        """A child that waited died before there was an order for it."""
        os.waitpid(pid, 0)
        if self._spare is not None and self._spare.pid == pid:
            self._spare.close()
            self._spare = None
            self._spare_died = True

    def _warm(self) -> None:
        """Before the first fork: what every attempt would do for itself else."""
        if not self._is_warm:
            self._is_warm = True
            with contextlib.suppress(Exception):  # what is wrong with a task is told when it runs
                tasklog.begin()  # here once, where the file has imported logging
                template.warm(self._loaded.dags.values())
                # The interpreter makes code faster, and fills caches, where it runs: here once for all forks.
                for _ in range(loading.REHEARSALS):
                    child.rehearse(self._loaded.dags.values())
            gc.collect()
            gc.freeze()

    def _flush(self) -> None:
        if self._out:
            with contextlib.suppress(ConnectionError):  # the end of file is read next
                self._sock.sendall(b"".join(self._out))
        self._out.clear()
