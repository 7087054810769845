"""(c): 500 tasks that do not wait for one another: how many Flux starts and ends in a second."""

import time

from tests.bench.figures import Figure
from tests.fluxd_process import Daemon

TASKS = 500
DAG = """
from fluxd import DAG, task
from fluxd.ops import BashOperator

with DAG("python", schedule=None, max_active_tasks={tasks}):
    @task
    def nothing():
        pass

    for i in range({tasks}):
        nothing.override(task_id=f"t{{i:03d}}")()

with DAG("bash", schedule=None, max_active_tasks={tasks}):
    for i in range({tasks}):
        BashOperator(task_id=f"t{{i:03d}}", bash_command="true")
"""


def measure(repeat: int) -> list[Figure]:
    figures = {
        "python": Figure("c", f"{TASKS} no-op Python tasks", "tasks/s", target=400, aim=700, more=True),
        "bash": Figure("c", f"{TASKS} bash tasks `true`", "tasks/s", target=700, aim=1500, more=True),
    }
    with Daemon() as daemon:
        daemon.write("crowd.py", DAG.format(tasks=TASKS))
        daemon.until_known("bash")
        for dag_id in figures:
            _tasks_per_second(daemon, dag_id)  # makes the file warm
        for _ in range(repeat):
            for dag_id, figure in figures.items():
                figure.samples.append(_tasks_per_second(daemon, dag_id))
    return list(figures.values())


def _tasks_per_second(daemon: Daemon, dag_id: str) -> float:
    begun = time.perf_counter()
    run = daemon.wait(dag_id, daemon.trigger(dag_id))
    took = time.perf_counter() - begun
    assert run["state"] == "success", run
    return TASKS / took
