"""(e): what Flux costs while it has nothing to do."""

import time

from tests.bench.figures import Figure
from tests.bench.footprint import cpu_seconds, pss
from tests.fluxd_process import Daemon

DAGS = 50
WINDOW_S = 60.0
# A dag file that nobody needs is dropped after a minute: before that Flux is not yet idle.
SETTLE_S = 70.0
DAG = """
from fluxd import DAG, chain
from fluxd.ops import BashOperator

with DAG("idle_{number:02d}", schedule="@daily", start_date="2026-01-01"):
    chain(*[BashOperator(task_id=f"t{{i}}", bash_command="true") for i in range(5)])
"""


def measure(repeat: int) -> list[Figure]:
    working = Figure("e", f"memory when idle, {DAGS} dags, Postgres too (PSS)", "MiB", target=150, aim=100)
    cpu = Figure("e", f"processor when idle, {DAGS} dags, over {WINDOW_S:.0f} s", "% of a core", target=1.0)
    with Daemon() as daemon:
        for number in range(DAGS):
            daemon.write(f"idle_{number:02d}.py", DAG.format(number=number))
        daemon.until(lambda: len(daemon.all("/dags")) == DAGS, "all dags are known")
        working.notes["right after loading, MiB"] = pss(daemon)
        time.sleep(SETTLE_S)
        for _ in range(repeat):
            before = cpu_seconds(daemon)
            begun = time.monotonic()
            time.sleep(WINDOW_S)
            after, took = cpu_seconds(daemon), time.monotonic() - begun
            cpu.samples.append((after["all"] - before["all"]) / took * 100)
            cpu.notes = {part: (used - before.get(part, 0.0)) / took * 100 for part, used in after.items()}
            found = pss(daemon)
            working.samples.append(found["all"])
            working.notes |= found
    return [working, cpu]
