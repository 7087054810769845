"""(h): the weather pipeline works through all its 1,461 days."""

import time

from tests.bench.figures import Figure
from tests.fluxd_process import ROOT, Daemon

DAYS = 1461
TASKS = 5


def measure(repeat: int) -> list[Figure]:
    seconds = Figure("h", f"the whole weather catch-up, {DAYS:,} days", "s")
    rate = Figure("h", "the whole weather catch-up", "task instances/s", more=True)
    for _ in range(repeat):
        with Daemon(dags=ROOT / "etc" / "dags") as daemon:
            daemon.until_known("weather")
            begun = time.perf_counter()
            daemon.post("/dags/weather/unpause")
            ended = daemon.finished_runs("weather", DAYS, timeout=900)
            took = time.perf_counter() - begun
            assert set(ended.values()) == {"success"}, ended
        seconds.samples.append(took)
        rate.samples.append(DAYS * TASKS / took)
    return [seconds, rate]
