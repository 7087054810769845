"""(d): from asking for a run to the first line of the author's code."""

import time
from statistics import median

from tests.bench.figures import Figure
from tests.fluxd_process import Daemon

TRIGGERS = 20
DAG = """
import os, time
from fluxd import DAG, task

with DAG("latency", schedule=None):
    @task
    def first_line():
        now = time.time_ns()
        with open(os.path.join({folder!r}, os.environ["FLUX_RUN_ID"]), "w") as file:
            file.write(str(now))

    first_line()
"""


def measure(repeat: int) -> list[Figure]:
    p50 = Figure("d", f"trigger to the first line of user code, p50 of {TRIGGERS}", "ms", target=15, aim=6)
    p99 = Figure("d", f"trigger to the first line of user code, p99 of {TRIGGERS}", "ms")
    with Daemon() as daemon:
        moments = daemon.folder / "moments"
        moments.mkdir(mode=0o777)
        daemon.write("latency.py", DAG.format(folder=str(moments)))
        daemon.until_known("latency")

        def one() -> float:
            asked = time.time_ns()
            run_id = daemon.trigger("latency")
            assert daemon.wait("latency", run_id)["state"] == "success"
            return (int((moments / run_id).read_text()) - asked) / 1e6

        p50.notes["first one, file not warm, ms"] = one()
        for _ in range(repeat):
            samples = sorted(one() for _ in range(TRIGGERS))
            p50.samples.append(median(samples))
            p99.samples.append(samples[min(len(samples) - 1, round(0.99 * len(samples)))])
    return [p50, p99]
