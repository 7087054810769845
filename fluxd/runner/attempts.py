"""The attempts that this process is the parent of: start, kill, reap. Used by the runner and by each dag host.

The order at an end is what keeps the promises: look at the zombie without reaping it, write the record's last line,
end what is left of its process group (the zombie still holds the group's number, so no stranger can have it), reap,
and only then tell.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any, NoReturn

from fluxd.runner import spare as spares
from fluxd.runner.forking import fork
from fluxd.runner.logs import open_log, write_log
from fluxd.runner.outcomes import crashed, failed, of_command
from fluxd.runner.processes import start_ticks
from fluxd.runner.protocol import Message
from fluxd.runner.records import Record, Records
from fluxd.runner.spare import Spare

DEFAULT_GRACE_S = 10.0
# Ignored signals survive an exec; a command must find them at their defaults.
RESET_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)

Body = Callable[[Message, Record], NoReturn]


class Attempt:
    """One process (and its group) that we are the parent of."""

    __slots__ = ("fence", "grace_s", "kill_at", "killed", "log", "log_note", "pid", "record", "spawn", "started_at")

    def __init__(self, order: Message, pid: int, record: Record, started_at: float) -> None:
        self.fence: int = order["fence"]
        self.log: str = order["log"]
        self.spawn: dict[str, Any] | None = order.get("spawn")
        self.grace_s: float = order.get("kill_grace_s", DEFAULT_GRACE_S)
        self.pid = pid
        self.record = record
        self.started_at = started_at
        self.log_note: str | None = None
        self.killed: str | None = None  # the reason, once it was told to stop
        self.kill_at: float | None = None  # when SIGKILL follows (monotonic)


class Attempts:
    """`tell` gets the messages `started` and `ended`."""

    def __init__(self, folder: str, boot_id: str, tell: Callable[[Message], None]) -> None:
        self.by_pid: dict[int, Attempt] = {}
        self._by_fence: dict[int, Attempt] = {}
        self._records = Records(folder)
        self._unacknowledged: dict[int, Record] = {}
        self._boot_id = boot_id
        self._tell = tell
        self._environment = dict(os.environ)

    def spawn(self, order: Message) -> None:
        """Start a command that needs nothing of Python in its child."""
        record = self._record(order)
        if record is None:
            return
        log, note = open_log(order["log"])
        argv = order["spawn"]["argv"]
        environment = {**self._environment, **order["env"], **(order["spawn"].get("env") or {})}
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ]
        try:
            pid = os.posix_spawnp(
                argv[0], argv, environment, file_actions=actions, setsid=True, setsigdef=RESET_SIGNALS, setsigmask=()
            )
        except (OSError, ValueError) as error:
            self._not_started(order, record, f"The command {argv[0]} could not be started: {error}.")
            return
        finally:
            os.close(log)
        self._began(order, pid, record).log_note = note

    def fork(self, order: Message, body: Body, close: Callable[[], None]) -> None:
        """Start a forked child: `close` drops this process's own descriptors there, then `body` runs and exits."""
        record = self._record(order)
        if record is None:
            return
        try:
            pid = fork()
        except OSError as error:
            self._not_started(order, record, f"A process could not be made: {error}.")
            return
        if pid == 0:
            try:
                close()
                body(order, record)
            finally:
                os._exit(70)
        self._began(order, pid, record)

    def make_spare(self, ready: Callable[[], None], body: Body, close: Callable[[], None]) -> Spare | None:
        """A forked child that waits for `hand_over`; None when there is no means for one now."""
        try:
            record = self._records.take()
            return spares.make(record, close, ready, lambda order: body(order, record))
        except OSError:
            return None

    def hand_over(self, order: Message, spare: Spare) -> bool:
        """Have a waiting child run this order. False: it is gone, nothing was started."""
        try:
            spare.record.append({"fence": order["fence"], "boot_id": self._boot_id})
        except OSError:
            self.drop_spare(spare)
            return False
        if not spare.send(order):
            self._records.give_back(spare.record)
            return False
        self._began(order, spare.pid, spare.record)
        return True

    def drop_spare(self, spare: Spare) -> None:
        """It is not needed: it ends by itself."""
        spare.close()
        self._records.give_back(spare.record)

    def adopt(self, order: Message, pid: int, started_at: float, record: str) -> None:
        """Take over the attempt of a dag host that died: as the subreaper we are its parent now."""
        self._add(order, pid, self._records.open(record), started_at)

    def acknowledged(self, fence: int) -> bool:
        """This result is stored. False: it is not one of ours."""
        record = self._unacknowledged.pop(fence, None)
        if record is not None:
            self._records.give_back(record)
        return record is not None

    def forget(self) -> None:
        """In a forked child: let go of the records of all attempts but its own."""
        for record in [*self._unacknowledged.values(), *(attempt.record for attempt in self.by_pid.values())]:
            os.close(record.fd)
        self._records.forget()

    def close(self) -> None:
        """Before the process leaves."""
        self._records.close()

    def _record(self, order: Message) -> Record | None:
        """The exit record, before anything runs. None: it cannot be made, which is told."""
        record = None
        try:
            record = self._records.take()
            record.append({"fence": order["fence"], "boot_id": self._boot_id})
            return record
        except OSError as error:
            self._not_started(order, record, f"Its exit record could not be written: {error}.")
            return None

    def _not_started(self, order: Message, record: Record | None, why: str) -> None:
        now = time.time()
        ended: Message = {
            "type": "ended", "fence": order["fence"], "pid": None, "started_at": None, "ended_at": now,
            "exit_code": None, "signal": None, "outcome": failed("FLX-7010", "NotStarted", why), "usage": None,
        }  # fmt: skip
        write_log(order["log"], f"flux: {why}")
        if record is not None:
            self._append(record, {"end": ended})
            self._unacknowledged[order["fence"]] = record
        self._tell(ended)

    def _began(self, order: Message, pid: int, record: Record) -> Attempt:
        started_at = time.time()
        self._append(record, {"pid": pid, "start_ticks": start_ticks(pid), "started_at": started_at})
        self._tell(
            {"type": "started", "fence": order["fence"], "pid": pid, "started_at": started_at, "record": record.name}
        )
        return self._add(order, pid, record, started_at)

    def _add(self, order: Message, pid: int, record: Record, started_at: float) -> Attempt:
        attempt = Attempt(order, pid, record, started_at)
        self.by_pid[pid] = attempt
        self._by_fence[attempt.fence] = attempt
        return attempt

    def _append(self, record: Record, line: Message) -> None:
        with contextlib.suppress(OSError):  # a full disk; what we know is told all the same
            record.append(line)

    def reap(self, stranger: Callable[[int], None]) -> list[tuple[int, int]]:
        """Everything that ended: ours are told; others are returned as (pid, wait status).

        `stranger` is asked about a pid that is not ours before its zombie goes: it may adopt it.
        """
        others: list[tuple[int, int]] = []
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return others
            if found is None:
                return others
            if found.si_pid not in self.by_pid:
                stranger(found.si_pid)
            attempt = self.by_pid.get(found.si_pid)
            if attempt is not None:
                self._ended(attempt, found.si_code == os.CLD_EXITED, found.si_status)
            else:
                others.append(os.waitpid(found.si_pid, 0))

    def _ended(self, attempt: Attempt, exited: bool, status: int) -> None:
        ended_at = time.time()
        exit_code, by_signal = (status, None) if exited else (None, status)
        known: Message = {}
        if attempt.spawn is None:
            with contextlib.suppress(OSError, ValueError):  # what cannot be read was not told: a crash
                known = attempt.record.content()
        outcome = known.get("outcome")
        if outcome is None:
            outcome = self._told_by_nobody(attempt, known.get("command"), exit_code, by_signal)
            if "rendered" in known:
                outcome["rendered"] = known["rendered"]
        ended: Message = {
            "type": "ended", "fence": attempt.fence, "pid": attempt.pid, "started_at": attempt.started_at,
            "ended_at": ended_at, "exit_code": exit_code, "signal": by_signal, "outcome": outcome,
            "record": attempt.record.name,
        }  # fmt: skip
        if attempt.killed is not None:
            ended["killed"] = attempt.killed
        if note := known.get("log_note", attempt.log_note):
            ended["log_note"] = note
        # The outcome stands in the record already where the child wrote it: not twice.
        self._append(attempt.record, {"end": ended if "outcome" not in known else ended | {"outcome": None}})
        self._unacknowledged[attempt.fence] = attempt.record
        self._signal_group(attempt.pid, signal.SIGKILL)
        _, _, usage = os.wait4(attempt.pid, 0)
        del self.by_pid[attempt.pid]
        del self._by_fence[attempt.fence]
        ended["usage"] = {
            "user_s": round(usage.ru_utime, 6),
            "system_s": round(usage.ru_stime, 6),
            "max_rss_kb": usage.ru_maxrss,
        }
        self._tell(ended)

    def _told_by_nobody(
        self, attempt: Attempt, command: Message | None, exit_code: int | None, by_signal: int | None
    ) -> Message:
        """The outcome of a command (spawned, or that the child became), or of a crash."""
        command = attempt.spawn or command
        if command is not None and exit_code is not None:
            return of_command(command, attempt.log, exit_code)
        outcome = crashed(exit_code, by_signal, attempt.killed)
        if attempt.killed is None:
            write_log(attempt.log, f"flux: {outcome['error']['message']}")
        return outcome

    def kill(self, fence: int, reason: str, grace_s: float | None = None) -> bool:
        """TERM now, KILL after the grace. False: no such attempt here."""
        attempt = self._by_fence.get(fence)
        if attempt is None:
            return False
        if attempt.killed is None:
            attempt.killed = reason
            grace_s = attempt.grace_s if grace_s is None else grace_s
            attempt.kill_at = time.monotonic() + grace_s
            write_log(attempt.log, f"flux: told to stop ({reason}): SIGTERM")
            self._signal_group(attempt.pid, signal.SIGTERM)
        return True

    def kill_all(self, reason: str) -> None:
        for fence in list(self._by_fence):
            self.kill(fence, reason)

    def next_deadline(self) -> float | None:
        """When `enforce` has something to do (monotonic)."""
        return min((a.kill_at for a in self.by_pid.values() if a.kill_at is not None), default=None)

    def enforce(self) -> None:
        """KILL what did not go in its grace."""
        now = time.monotonic()
        for attempt in self.by_pid.values():
            if attempt.kill_at is not None and attempt.kill_at <= now:
                attempt.kill_at = None
                write_log(attempt.log, "flux: still running after its grace: SIGKILL")
                self._signal_group(attempt.pid, signal.SIGKILL)

    def _signal_group(self, pid: int, number: int) -> None:
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            # A child that was forked this moment has not made its session yet.
            os.kill(pid, number)
        except PermissionError:
            pass  # it changed its user; what we may not signal we cannot end
