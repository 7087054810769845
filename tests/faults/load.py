"""Somebody who asks for runs all the time, whatever happens to the daemon, and remembers which were acknowledged."""

import contextlib
import http.client
import itertools
import random
import threading
import time
from pathlib import Path

from tests.faults.workload import EXPECTED, TASKS
from tests.fluxd_process import ApiError, Daemon, UnixConnection

PATIENCE_S = 5.0
# How often each dag is asked for: the long ones seldom.
WEIGHTS = {"chain": 5, "fan": 4, "slow": 1, "waits": 2, "stubborn": 2}


class Load:
    """Asks for `tasks_per_s` tasks' worth of runs a second, in a thread, until `stop`."""

    def __init__(self, daemon: Daemon, folder: Path, tasks_per_s: float, seed: int) -> None:
        self._daemon, self._folder, self._rate = daemon, folder, tasks_per_s
        self._random = random.Random(seed)
        self._numbers = itertools.count(1)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self.acknowledged: dict[tuple[str, str], float] = {}
        self.refused: list[str] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            dag_id = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            run_id = f"r{next(self._numbers):05d}"
            if dag_id == "waits":
                (self._folder / "in" / run_id).touch()
            self._ask(dag_id, run_id)
            # Asked for at a steady pace; after a time away it is not made up for.
            due = max(due + TASKS[dag_id] / self._rate, time.monotonic() - 1.0)
            self._over.wait(max(0.0, due - time.monotonic()))

    def _ask(self, dag_id: str, run_id: str) -> None:
        """Until it is answered: made, or made before by an asking whose answer was lost."""
        while not self._over.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                status, text = self._once(dag_id, run_id)
                if status in (201, 409):
                    self.acknowledged[dag_id, run_id] = time.clock_gettime(time.CLOCK_BOOTTIME)
                    return
                if status not in (500, 503):
                    self.refused.append(f"{dag_id} {run_id}: {status} {text}")
                    return
            self._over.wait(0.1)

    def _once(self, dag_id: str, run_id: str) -> tuple[int, str]:
        connection = UnixConnection(self._daemon.home / "fluxd.sock", PATIENCE_S)
        try:
            body = f'{{"run_id": "{run_id}"}}'
            connection.request("POST", f"/api/v1/dags/{dag_id}/trigger", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


def unfinished(daemon: Daemon) -> list[str]:
    """Runs that have not ended."""
    found = []
    for dag_id in EXPECTED:
        for state in ("queued", "running"):
            with contextlib.suppress(ApiError):
                found += [f"{dag_id} {run['run_id']}" for run in daemon.all(f"/dags/{dag_id}/runs", state=state)]
    return found
