"""Waiting for the end of a run, also over a restart of the daemon: what runs does not care about one, nor do we."""

import sys
import time

from fluxd.ctl.client import Answer, Client, address
from fluxd.errors import Unavailable

ROUND_S = 30.0
# How long the daemon may be away before we give up, and how often we look whether it is back.
PATIENCE_S = 60.0
LOOK_S = 0.2


def wait_for_run(client: Client, dag_id: str, run_id: str, timeout_s: float | None = None) -> tuple[Answer, bool]:
    """The run when it has ended, or when the time is over; and whether it has ended."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    away_since: float | None = None
    while True:
        left = ROUND_S if deadline is None else max(0.0, min(ROUND_S, deadline - time.monotonic()))
        where = address("dags", dag_id, "runs", run_id, "wait", timeout=f"{left:.3f}")
        try:
            answer = client.get(where, timeout_s=left)
        except Unavailable:
            away_since = _away(away_since)
            continue
        away_since = None
        ended = answer.headers.get("x-flux-ended") == "true"
        if ended or (deadline is not None and time.monotonic() >= deadline):
            return answer, ended


def _away(since: float | None) -> float:
    """The daemon does not answer: wait a moment, or raise the error that is being handled when it took too long."""
    now = time.monotonic()
    if since is None:
        sys.stderr.write("fluxd is away; what runs goes on, waiting for it to come back …\n")
        since = now
    elif now - since > PATIENCE_S:
        raise
    time.sleep(LOOK_S)
    return since
