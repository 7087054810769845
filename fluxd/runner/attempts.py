"""All attempts of a runner: what is written, said and done when they begin, are told to stop, and end.

The runner is the parent of spawned commands; a dag host is that of the processes it forks. Whoever is the parent, the
books are kept here, because the memory of a process that forks is expensive to touch (each fork makes its pages be
copied again), and because the attempts of a host that dies go on as children of the runner.
"""

import contextlib
import os
import signal
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from fluxd.authoring.requests import too_large
from fluxd.runner.forking import fork
from fluxd.runner.logs import open_log, write_log
from fluxd.runner.outcomes import crashed, failed, of_command
from fluxd.runner.processes import IMPORT, mark_attempt, signal_group, since_boot
from fluxd.runner.protocol import Message, to_json
from fluxd.runner.records import Record, Records
from fluxd.secret_names import named_in, secrets_of, without_secrets

DEFAULT_GRACE_S = 10.0
# Ignored signals survive an exec; a command must find them at their defaults.
RESET_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)

HUNG = (
    "The task's process did not come to its first step within {seconds:g} s, so it was ended: a library that the dag "
    "file imports blocks in a hook after a fork, say."
)

Body = Callable[[Message, Record], NoReturn]
Tell = Callable[["Process", bytes, bool], None]  # (attempt, message as JSON, whether it has ended)
Send = Callable[[int, int], None]  # (fence, signal number) to the process that is the parent


class Process:
    """One try, from its start order to its acknowledgement. `send` signals it where its parent is a dag host."""

    __slots__ = (
        *("fence", "kill_at", "killed", "log_note", "order", "payload", "pid", "record", "send", "started_at"),
        *("enter_by", "hung", "seen"),
    )

    def __init__(self, order: Message, payload: bytes) -> None:
        self.fence: int = order["fence"]
        self.order = order
        self.payload = payload  # the order as it came
        self.pid: int | None = None
        self.started_at: float | None = None
        self.record: Record | None = None
        self.send: Send | None = None
        self.log_note: str | None = None
        self.killed: tuple[str, float] | None = None  # (reason, grace in seconds), once it was told to stop
        self.kill_at: float | None = None  # when SIGKILL follows (monotonic)
        self.enter_by: float | None = None  # when a forked one must have taken its first step (monotonic)
        self.hung = False  # it did not
        self.seen = 0.0  # of one that an earlier runner started: when it was there (seconds since boot)


class Attempts:
    """Those that have not ended, by fence. `tell` gets the messages `started` and `ended`."""

    def __init__(self, records: Records, boot_id: str, answer_s: float, tell: Tell) -> None:
        self.live: dict[int, Process] = {}
        self.by_pid: dict[int, Process] = {}  # our own children
        self._records = records
        self._boot_id = boot_id
        self._answer_s = answer_s
        self._tell = tell
        self._environment = without_secrets(os.environ)
        self._secrets = secrets_of(os.environ)

    # Beginning

    def accept(self, order: Message, payload: bytes) -> Process:
        """From here on the attempt is known; its process may have to wait for its dag host."""
        attempt = self.live[order["fence"]] = Process(order, payload)
        return attempt

    def spawn(self, attempt: Process) -> None:
        """Start a command that needs nothing of Python in its child."""
        order, record = attempt.order, self.write_ahead(attempt)
        if record is None:
            return
        try:
            log, attempt.log_note = open_log(order["log"])
        except OSError as error:  # no descriptor is left, not even for /dev/null
            self.never_began(attempt, "FLX-7010", "NotStarted", f"Its log could not be opened: {error}.")
            return
        argv = order["spawn"]["argv"]
        own = order["spawn"].get("env") or {}
        secrets = named_in({**self._secrets, **order.get("secrets", {})}, (*argv, *own.values()))
        environment = {**self._environment, **secrets, **order["env"], **own}
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ]
        try:
            mark_attempt(attempt.fence)
            pid = os.posix_spawnp(
                argv[0], argv, environment, file_actions=actions, setsid=True, setsigdef=RESET_SIGNALS, setsigmask=()
            )
        except (OSError, ValueError) as error:
            refused = too_large(error, environment) if isinstance(error, OSError) else None
            if refused is not None:
                self.never_began(attempt, refused.code, "Invalid", refused.message, retry=False)
                return
            self.never_began(attempt, "FLX-7010", "NotStarted", f"The command {argv[0]} could not be started: {error}.")
        else:
            self.by_pid[pid] = attempt
            self.began(attempt, pid, time.time(), since_boot())
        finally:
            mark_attempt(IMPORT)
            os.close(log)

    def fork(self, attempt: Process, body: Body, close: Callable[[], None]) -> None:
        """Start a forked child: `close` drops this process's own descriptors there, then `body` runs and exits."""
        record = self.write_ahead(attempt)
        if record is None:
            return
        try:
            pid = fork()
        except OSError as error:
            self.never_began(attempt, "FLX-7010", "NotStarted", f"A process could not be made: {error}.")
            return
        if pid == 0:
            try:
                close()
                self._records.forget(besides=record.fd)
                body(attempt.order, record)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(70)
        self.by_pid[pid] = attempt
        self.began(attempt, pid, time.time(), since_boot())

    def write_ahead(self, attempt: Process) -> Record | None:
        """The exit record, before anything runs. None: it cannot be made, so the attempt has ended."""
        try:
            attempt.record = self._records.take()
            # A command begins with its process; a forked child says itself that it has begun.
            attempt.record.append_payload(self._head(attempt))
            return attempt.record
        except OSError as error:
            why = f"Its exit record could not be written: {error}."
            self.never_began(attempt, "FLX-7010", "NotStarted", why)
            return None

    def _head(self, attempt: Process) -> bytes:
        """What a later runner has to know to take it over."""
        order = attempt.order
        spawn = order.get("spawn")
        head: Message = {
            "fence": attempt.fence,
            "boot_id": self._boot_id,
            "log": order["log"],
            "grace_s": order.get("kill_grace_s", DEFAULT_GRACE_S),
        }
        if spawn:
            head["entered"] = 0
            head["command"] = {name: spawn[name] for name in ("xcom", "skip_on_exit_code") if name in spawn}
        return to_json(head)

    def take_over(self, fence: int, known: Message, record: Record, send: Send) -> Process:
        """One that an earlier runner started, and whose process lives: `send` signals it."""
        order = {"fence": fence, "log": known["log"], "kill_grace_s": known["grace_s"]}
        attempt = self.accept(order, b"")
        attempt.record, attempt.send = record, send
        attempt.pid = known.get("pid") or known["entered"]
        attempt.started_at = known.get("started_at") or time.time() - (since_boot() - known["seen"])
        return attempt

    def began(self, attempt: Process, pid: int, at: float, seen: float) -> None:
        """Its process runs; `seen` is the same moment in seconds since boot."""
        attempt.pid, attempt.started_at = pid, at
        if not attempt.order.get("spawn"):
            attempt.enter_by = time.monotonic() + self._answer_s
        self._append(attempt, b'{"pid":%d,"seen":%.3f,"started_at":%.6f}' % (pid, seen, at))
        self._tell(
            attempt, b'{"type":"started","fence":%d,"pid":%d,"started_at":%.6f}' % (attempt.fence, pid, at), False
        )

    def never_began(self, attempt: Process, code: str, kind: str, why: str, *, retry: bool = True) -> None:
        """It ended before it had a process."""
        write_log(attempt.order["log"], f"flux: {why}")
        self._end(attempt, None, None, failed(code, kind, why, retry=retry), None, time.time())

    # Ending

    def reap(self, pid: int, exited: bool, status: int) -> None:
        """A child of ours is a zombie: note its end, end what is left of its group, let it go, and tell.

        In this order the zombie still holds the number of the group, so that no stranger can have it.
        """
        attempt = self.by_pid[pid]
        ended_at = time.time()
        signal_group(pid, signal.SIGKILL)
        _, _, usage = os.wait4(pid, 0)
        del self.by_pid[pid]
        self.ended(attempt, exited, status, (usage.ru_utime, usage.ru_stime, usage.ru_maxrss), ended_at)

    def ended(
        self, attempt: Process, exited: bool, status: int, usage: tuple[float, float, int] | None, ended_at: float
    ) -> None:
        """Its process is gone."""
        exit_code, by_signal = (status, None) if exited else (None, status)
        known = _content(attempt) if attempt.order.get("spawn") is None else {}
        attempt.log_note = known.get("log_note", attempt.log_note)
        outcome = known.get("outcome")
        if outcome is not None and not outcome.pop("stopped", False):
            attempt.killed = None  # its result was there before it was told to stop
        if outcome is None:
            outcome = self._told_by_nobody(attempt, known.get("command"), exit_code, by_signal)
            if "rendered" in known:
                outcome["rendered"] = known["rendered"]
        self._end(attempt, exit_code, by_signal, outcome, usage, ended_at)

    def _told_by_nobody(
        self, attempt: Process, command: Message | None, exit_code: int | None, by_signal: int | None
    ) -> Message:
        """The outcome of a command (spawned, or that the child became), or of a crash."""
        command, log = attempt.order.get("spawn") or command, attempt.order["log"]
        if command is not None and exit_code is not None:
            return of_command(command, log, exit_code)
        outcome = crashed(exit_code, by_signal, attempt.killed[0] if attempt.killed else None)
        if attempt.hung and attempt.killed is None:
            outcome = failed("FLX-7037", "NotBegun", HUNG.format(seconds=self._answer_s))
        if attempt.killed is None:
            write_log(log, f"flux: {outcome['error']['message']}")
        return outcome

    def _end(
        self,
        attempt: Process,
        exit_code: int | None,
        by_signal: int | None,
        outcome: Message,
        usage: tuple[float, float, int] | None,
        ended_at: float,
    ) -> None:
        ended: dict[str, Any] = {
            "type": "ended", "fence": attempt.fence, "pid": attempt.pid, "started_at": attempt.started_at,
            "ended_at": ended_at, "exit_code": exit_code, "signal": by_signal, "outcome": outcome, "usage": None,
        }  # fmt: skip
        if usage is not None:
            user_s, system_s, max_rss_kb = usage
            ended["usage"] = {
                "user_s": round(user_s, 6), "system_s": round(system_s, 6), "max_rss_kb": max_rss_kb,
            }  # fmt: skip
        if attempt.killed is not None:
            ended["killed"] = attempt.killed[0]
        if attempt.log_note is not None:
            ended["log_note"] = attempt.log_note
        payload = to_json(ended)
        self._append(attempt, b'{"end":%b}' % payload)
        del self.live[attempt.fence]
        self._tell(attempt, payload, True)

    def _append(self, attempt: Process, payload: bytes) -> None:
        if attempt.record is not None:
            with contextlib.suppress(OSError):  # a full disk; what we know is told all the same
                attempt.record.append_payload(payload)

    def lost(self, attempt: Process) -> None:
        """It is proved gone, and nobody will tell how it ended."""
        del self.live[attempt.fence]

    def stand_in(self, attempt: Process, known: Message) -> None:
        """It is gone without anybody who could tell how, but what it had told stands in its record."""
        status = 1 if known["outcome"]["state"] == "failed" else 0
        self.ended(attempt, True, status, None, time.time())

    def adopt(self, attempt: Process, pid: int) -> None:
        """Its dag host died: as the subreaper we are its parent now."""
        attempt.send = None
        self.by_pid[pid] = attempt
        if attempt.pid is None:
            self.began(attempt, pid, time.time(), since_boot())
        if attempt.killed is not None:  # the host may not have heard of it any more
            self._tell_to_stop(attempt)

    # Stopping

    def kill(self, attempt: Process, reason: str, grace_s: float | None = None) -> None:
        """TERM now, KILL after the grace. Only the first time counts."""
        if attempt.killed is None:
            grace_s = attempt.order.get("kill_grace_s", DEFAULT_GRACE_S) if grace_s is None else grace_s
            attempt.killed = (reason, grace_s)
            attempt.kill_at = time.monotonic() + grace_s
            write_log(attempt.order["log"], f"flux: told to stop ({reason}): SIGTERM")
            self._tell_to_stop(attempt)

    def _tell_to_stop(self, attempt: Process) -> None:
        self._signal(attempt, signal.SIGTERM)
        self._signal(attempt, signal.SIGCONT)  # one that is stopped could not obey

    def next_deadline(self) -> float | None:
        """When `enforce` has something to do (monotonic)."""
        moments = [moment for a in self.live.values() for moment in (a.kill_at, a.enter_by) if moment is not None]
        return min(moments, default=None)

    def enforce(self) -> None:
        """KILL what did not go in its grace, and what hangs between its fork and its first step."""
        now = time.monotonic()
        for attempt in self.live.values():
            if attempt.enter_by is not None and attempt.enter_by <= now:
                attempt.enter_by = None
                attempt.hung = "entered" not in _content(attempt)
                if attempt.hung:
                    attempt.kill_at = now
            if attempt.kill_at is not None and attempt.kill_at <= now:
                attempt.kill_at = None
                if not attempt.hung:
                    write_log(attempt.order["log"], "flux: still running after its grace: SIGKILL")
                self._signal(attempt, signal.SIGKILL)

    def _signal(self, attempt: Process, number: int) -> None:
        # A pid is safe to signal only for its parent, which alone knows that it is not reaped yet.
        if attempt.send is not None:
            attempt.send(attempt.fence, number)
        elif attempt.pid is not None:
            signal_group(attempt.pid, number)


def _content(attempt: Process) -> Message:
    """What its record tells. What cannot be read was not told."""
    with contextlib.suppress(OSError, ValueError):
        return attempt.record.content() if attempt.record is not None else {}
    return {}
