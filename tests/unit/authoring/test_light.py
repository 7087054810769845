"""Writing a dag stays light: what `import fluxd` may not pull in. Time is measured elsewhere, never asserted."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fluxd

HEAVY = {"asyncio", "aiohttp", "asyncpg", "croniter", "jinja2", "orjson", "uvloop", "anyio", "http", "ssl", "logging"}


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_import_fluxd_pulls_in_nothing_heavy() -> None:
    assert not [name for name in modules_after("import fluxd") if name.startswith("fluxd.")]
    loaded = modules_after("from fluxd import *; import fluxd.ops, fluxd.sensors")
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
    waiting = """
from fluxd import DAG
from fluxd.authoring import preload
from fluxd.sensors import FileSensor
with DAG("d") as dag:
    FileSensor(task_id="t", path="/x")
preload([dag])
"""
    assert "asyncio" not in modules_after(waiting), "the daemon waits in its place"


def test_the_public_names_are_there() -> None:
    assert all(getattr(fluxd, name).__module__.startswith("fluxd.authoring") for name in fluxd.__all__)
    assert set(fluxd.__all__) <= set(dir(fluxd))
    with pytest.raises(AttributeError, match="'fluxd' has no attribute 'Dag'"):
        fluxd.Dag  # type: ignore[attr-defined]


def test_what_type_checkers_read_is_what_is_there() -> None:
    tree = ast.parse(Path(fluxd.__file__).read_text(encoding="utf-8"))
    read = {
        (alias.name, node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fluxd.")
        for alias in node.names
    }
    assert read == {(name, f"fluxd.authoring.{module}") for name, module in fluxd._HOMES.items()}
    assert {name for name, _ in read} == set(fluxd.__all__)
