"""Waiting for what runs, also over a restart of the daemon: what runs does not care about one, nor do we."""

import math
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from fluxd.ctl.client import TIMEOUT_S, Answer, Client, address
from fluxd.errors import Unavailable

T = TypeVar("T")
ROUND_S = 30.0
# How long the daemon may be away before we give up, and how often we look whether it is back.
PATIENCE_S = 60.0
LOOK_S = 0.2
# What an answer may be late by where somebody has said how long to wait.
LATE_S = 5.0


def wait_for_run(client: Client, dag_id: str, run_id: str, timeout_s: float | None = None) -> tuple[Answer, bool]:
    """The run when it has ended, or when the time is over; and whether it has ended."""
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s

    def ask() -> Answer:
        left = max(0.0, min(ROUND_S, deadline - time.monotonic()))
        where = address("dags", dag_id, "runs", run_id, "wait", timeout=f"{left:.3f}")
        return client.get(where, TIMEOUT_S if timeout_s is None else LATE_S, waits_s=left)

    while True:
        answer = patiently(ask, deadline)
        ended = answer.headers.get("x-flux-ended") == "true"
        if ended or time.monotonic() >= deadline:
            return answer, ended


def patiently(ask: Callable[[], T], deadline: float = math.inf) -> T:
    """The answer, asked for again while the daemon is away. Raises Unavailable when that, or the time, is too long."""
    give_up: float | None = None
    while True:
        try:
            return ask()
        except Unavailable:
            now = time.monotonic()
            if now >= (deadline if give_up is None else give_up):
                raise
            if give_up is None:
                sys.stderr.write("fluxd is away; what runs goes on, waiting for it to come back …\n")
                give_up = min(deadline, now + PATIENCE_S)
            time.sleep(max(0.0, min(LOOK_S, give_up - now)))
