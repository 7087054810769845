"""(a) and (b): tasks in a row, each a process of its own. What is measured is what lies between them."""

import itertools
import json
import subprocess
import sys
import time
from datetime import datetime
from statistics import median
from typing import Any

from tests.bench.figures import Figure
from tests.fluxd_process import Daemon

FIBO = """
def fibo(n):
    return n if n < 2 else fibo(n - 1) + fibo(n - 2)
"""
DAG = """
from fluxd import DAG, chain, task
{fibo}
with DAG("chain", schedule=None) as dag:
    @task
    def compute(n):
        return fibo(n)

    chain(*[compute.override(task_id=f"link_{{i:03d}}")({n}) for i in range({length})])
"""
PURE = """
import json, time
{fibo}
begun = time.perf_counter()
for _ in range({length}):
    fibo({n})
print(json.dumps(time.perf_counter() - begun))
"""


def fast_links(repeat: int) -> list[Figure]:
    """40 × fibo(10): next to no work, so that the time is Flux's own."""
    total = Figure("a", "40 × fibo(10) in a row, trigger to success", "s", target=0.20, aim=0.12)
    gap = Figure("a", "gap between a task's end and the next one's start, median", "ms")
    _measure(total, gap, 40, 10, repeat)
    return [total, gap]


def slow_links(repeat: int) -> list[Figure]:
    """10 × fibo(33): the work is the time, and Flux must not add to it."""
    ratio = Figure("b", "10 × fibo(33) in a row ÷ its pure compute", "×", target=1.05)
    gap = Figure("b", "gap between a task's end and the next one's start, median", "ms")
    _measure(ratio, gap, 10, 33, repeat, against_pure=True)
    return [ratio, gap]


def _measure(figure: Figure, gap: Figure, length: int, n: int, repeat: int, *, against_pure: bool = False) -> None:
    seconds, pure = [], []
    with Daemon() as daemon:
        daemon.write("chain.py", DAG.format(fibo=FIBO, length=length, n=n))
        daemon.until_known("chain")
        figure.notes["first run, file not warm, s"] = _one_run(daemon)[0]
        for _ in range(repeat):
            if against_pure:
                pure.append(_pure(length, n))
            took, run = _one_run(daemon)
            seconds.append(took)
            gap.samples.append(_gap_ms(run))
    if against_pure:
        figure.samples = [took / alone for took, alone in zip(seconds, pure, strict=True)]
        figure.notes |= {"seconds, median": median(seconds), "pure compute, s, median": median(pure)}
    else:
        figure.samples = seconds


def _one_run(daemon: Daemon) -> tuple[float, Any]:
    begun = time.perf_counter()
    run_id = daemon.trigger("chain")
    run = daemon.wait("chain", run_id)
    took = time.perf_counter() - begun
    assert run["state"] == "success", run
    return took, daemon.run("chain", run_id)


def _pure(length: int, n: int) -> float:
    """The same calls in one Python, without anything round them."""
    code = PURE.format(fibo=FIBO, length=length, n=n)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def _gap_ms(run: Any) -> float:
    tasks = sorted(run["tasks"], key=lambda task: task["task_id"])
    times = [(datetime.fromisoformat(task["started_at"]), datetime.fromisoformat(task["ended_at"])) for task in tasks]
    gaps = [(start - end).total_seconds() for (_, end), (start, _) in itertools.pairwise(times)]
    return median(gaps) * 1000
