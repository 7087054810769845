"""Writing a dag stays light: what `import fluxd` may not pull in. Time is measured elsewhere, never asserted."""

import subprocess
import sys
from pathlib import Path

HEAVY = {"asyncio", "aiohttp", "asyncpg", "croniter", "jinja2", "orjson", "uvloop", "anyio", "http", "ssl", "logging"}


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_import_fluxd_pulls_in_nothing_heavy() -> None:
    loaded = modules_after("import fluxd, fluxd.ops, fluxd.sensors")
    assert "fluxd.authoring.dag" in loaded
    assert not loaded & HEAVY
    assert not loaded & {"fluxd.authoring.execution", "fluxd.store", "fluxd.engine", "fluxd.web"}


def test_a_dag_without_cron_pulls_in_nothing_heavy_either() -> None:
    code = """
from fluxd import DAG, task
from fluxd.ops import BashOperator
with DAG("d", start_date="2026-01-01", timezone="Europe/Paris") as dag:
    BashOperator(task_id="t", bash_command="echo {{ ds }}")
dag.to_spec()
"""
    assert not modules_after(code) & HEAVY


def test_preload_has_at_hand_what_attempts_need() -> None:
    assert {"jinja2", "fluxd.authoring.execution"} <= modules_after("from fluxd.authoring import preload; preload()")
    asynchronous = """
from fluxd import DAG, task
from fluxd.authoring import preload
@task
async def work(): ...
with DAG("d") as dag:
    work()
preload([dag])
"""
    assert "asyncio" in modules_after(asynchronous)


def test_the_public_names_are_there() -> None:
    import fluxd

    assert all(hasattr(fluxd, name) for name in fluxd.__all__)
    assert Path(fluxd.__file__).parent.name == "fluxd"
