"""Random dags: small, and full of corners: every trigger rule, retries, pools, timeouts, sensors, schedules."""

from dataclasses import replace
from datetime import datetime, timedelta
from random import Random

from fluxd.core.rules import RULES
from fluxd.core.spec import DagSpec, Schedule, TaskSpec

POOLS = ("default_pool", "narrow", "wide")
RULE_NAMES = tuple(RULES)
SCHEDULES = (
    Schedule(),
    Schedule("once"),
    Schedule("cron", "*/10 * * * *"),
    Schedule("cron", "0 * * * *"),
    Schedule("cron", "*/7 1-4 * * *"),
    Schedule("cron", "30 2 * * *"),
    Schedule("cron", "15,45 2,3 * * 6,0"),
    Schedule("cron", "0 */2 * * *"),
    Schedule("interval", None, 900.0),
    Schedule("interval", None, 3600.0),
)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe")
CATCHUPS = (False, False, True, "latest", 5400.0)


def random_task(rng: Random, number: int, before: list[str], eager: bool) -> TaskSpec:
    """One task behind some of those before it. Most are plain: the corners must not hide the middle."""
    kind = rng.choices(("operator", "sensor", "empty"), (7, 2, 2))[0]
    upstream = tuple(sorted(rng.sample(before, min(len(before), rng.choice((0, 1, 1, 2, 3))))))
    return TaskSpec(
        task_id=f"t{number}",
        operator=kind.title(),
        kind=kind,
        upstream=upstream,
        trigger_rule=rng.choice(RULE_NAMES) if rng.random() < 0.5 else "all_success",
        retries=rng.choice((0, 0, 1, 2)),
        retry_delay=rng.choice((0.0, 30.0, 300.0)),
        retry_exponential_backoff=rng.random() < 0.3,
        max_retry_delay=rng.choice((None, None, 400.0)),
        execution_timeout=rng.choice((None, None, 60.0, 400.0)),
        pool=rng.choice(POOLS),
        pool_slots=rng.choice((1, 1, 2)),
        priority_weight=rng.randrange(3),
        depends_on_past=eager and rng.random() < 0.3,
    )


def random_dag(rng: Random, dag_id: str, start: datetime) -> DagSpec:
    """A dag of one to seven tasks."""
    tasks: list[TaskSpec] = []
    looks_back = rng.random() < 0.25
    for number in range(rng.choice((1, 2, 3, 3, 4, 5, 7))):
        tasks.append(random_task(rng, number, [task.task_id for task in tasks], looks_back))
    return DagSpec(
        dag_id=dag_id,
        tasks=tuple(tasks),
        schedule=rng.choice(SCHEDULES),
        timezone=rng.choice(ZONES),
        dst=rng.choice(("shift", "skip", "both")),
        start_date=rng.choice(
            (None, start - timedelta(hours=6), start - timedelta(hours=1), start + timedelta(hours=1))
        ),
        end_date=rng.choice((None, None, None, start + timedelta(hours=3))),
        catchup=rng.choice(CATCHUPS),
        max_active_runs=rng.choice((1, 2, 3)),
        max_active_tasks=rng.choice((1, 2, 16)),
        dagrun_timeout=rng.choice((None, None, None, 1800.0)),
    )


def edited(rng: Random, spec: DagSpec, start: datetime) -> DagSpec:
    """The same dag after its author has worked on it: other tasks, another schedule, or only other limits."""
    other = random_dag(rng, spec.dag_id, start)
    tasks = tuple(task for task in spec.tasks if task.task_id != "t90") or spec.tasks
    match rng.randrange(8):
        case 4:
            return replace(spec, catchup=rng.choice(CATCHUPS))
        case 5:
            return replace(spec, tasks=(*tasks, random_task(rng, 90, [task.task_id for task in tasks], False)))
        case 6:
            leaf = tasks[-1].task_id  # nobody waits for the last one
            return replace(spec, tasks=tuple(task for task in tasks if task.task_id != leaf) or tasks)
        case 7:
            one = rng.randrange(len(tasks))
            changed = replace(
                tasks[one],
                retries=rng.choice((0, 1, 3)),
                pool=rng.choice(POOLS),
                retry_delay=rng.choice((0.0, 30.0, 300.0)),
                execution_timeout=rng.choice((None, 60.0, 400.0)),
            )
            return replace(spec, tasks=(*tasks[:one], changed, *tasks[one + 1 :]))
        case 0:
            return replace(spec, tasks=other.tasks)
        case 1:
            return replace(spec, schedule=other.schedule, timezone=other.timezone)
        case 2:
            return replace(spec, max_active_runs=other.max_active_runs, catchup=other.catchup, end_date=other.end_date)
        case _:
            return other
