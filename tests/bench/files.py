"""(g): from a new dag file to a dag that can be triggered: one, and a thousand at once."""

import time

from tests.bench.figures import Figure
from tests.fluxd_process import Daemon

MANY = 1000
DAG = """
from fluxd import DAG, chain, task

with DAG("{dag_id}", schedule=None):
    @task
    def step():
        pass

    chain(*[step.override(task_id=f"t{{i}}")() for i in range(5)])
"""


def measure(repeat: int) -> list[Figure]:
    one = Figure("g", "a new file to its dag triggered", "s", target=0.5, aim=0.1)
    many = Figure("g", f"{MANY:,} files of 5 tasks until all are known", "s", target=20, aim=5)
    with Daemon() as daemon:
        for number in range(repeat):
            begun = time.perf_counter()
            daemon.write(f"new_{number}.py", DAG.format(dag_id=f"new_{number}"))
            daemon.until_known(f"new_{number}")
            run_id = daemon.trigger(f"new_{number}")
            one.samples.append(time.perf_counter() - begun)
            daemon.wait(f"new_{number}", run_id)
    for _ in range(repeat):
        many.samples.append(_many())
    return [one, many]


def _many() -> float:
    with Daemon() as daemon, daemon.events() as messages:
        begun = time.perf_counter()
        for number in range(MANY):
            daemon.write(f"many_{number:04d}.py", DAG.format(dag_id=f"many_{number:04d}"))
        loaded: set[str] = set()
        while len(loaded) < MANY:
            message = next(messages)
            loaded |= set(message.get("files", ()))
            if message["kind"] == "reset":
                loaded |= {dag["dag_id"] + ".py" for dag in daemon.all("/dags")}
        took = time.perf_counter() - begun
        assert len(daemon.all("/dags")) == MANY
        return took
