"""One meaning of each argument: in the daemon, in a try of `fluxctl tasks test|run`, and in `dag.test()`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxd.authoring import testing
from tests.fluxd_process import Daemon

# A task, its state, and its result or the code that its reason begins with. `THERE` is a file that is there.
SHORT = "poke_interval=0.05"
CASES: list[tuple[str, str, Any]] = [
    # Sensors: timeout and execution_timeout, zero, equal, one above the other, none.
    (f"FileSensor(path='/no', execution_timeout=0.3, timeout=60, {SHORT})", "failed", "FLX-3503"),
    (f"FileSensor(path='/no', execution_timeout=1.2, timeout=1.2, {SHORT})", "failed", "timeout"),
    (f"FileSensor(path='/no', execution_timeout=60, timeout=1.2, {SHORT})", "failed", "timeout"),
    (f"FileSensor(path='/no', timeout=0, {SHORT})", "failed", "timeout"),
    (f"FileSensor(path='/no', timeout=0, {SHORT}, soft_fail=True)", "skipped", None),
    (f"FileSensor(path='/no', timeout=60, execution_timeout=0.3, {SHORT}, soft_fail=True)", "failed", "FLX-3503"),
    ("FileSensor(path='THERE', timeout=0)", "success", "THERE"),
    ("FileSensor(path='THERE', poke_interval='1w', timeout='1d', execution_timeout=1)", "success", "THERE"),
    ("FileSensor(filepath='THERE', min_size=0, unchanged_for=0, exponential_backoff=True)", "success", "THERE"),
    ("FileSensor(path='THERE', min_size=2, unchanged_for=0, contains='a', mode='poke')", "success", "THERE"),
    (f"FileSensor(path='THERE', min_size=2**62, timeout=0, {SHORT})", "failed", "timeout"),
    (f"FileSensor(path='THERE', unchanged_for='1000w', timeout=0, {SHORT})", "failed", "timeout"),
    (f"FileSensor(path='THERE', contains='b', timeout=0, {SHORT})", "failed", "timeout"),
    ("FileSensor(path='{{ \"\" }}')", "failed", "FLX-3051"),
    ("FileSensor(path='{{ none }}')", "failed", "FLX-3052"),
    ("FileSensor(path='/no/{{ ti.xcom_pull(\"nobody\") }}.csv')", "failed", "FLX-3052"),
    ("FileSensor(path='THERE', contains='{{ \" \" }}')", "failed", "FLX-3051"),
    ("TimeSensor(at='00:00')", "success", "2026-01-05T00:00:00Z"),
    ("TimeSensor(target_time='2026-01-01')", "success", "2026-01-01T00:00:00Z"),
    ("TimeSensor(at=dt.datetime(2026, 1, 1, 6))", "success", "2026-01-01T06:00:00Z"),
    (f"TimeSensor(at='2199-01-01', timeout=0, {SHORT})", "failed", "timeout"),
    ("TimeSensor(at='{{ none }}')", "failed", "FLX-3052"),
    ("TimeSensor(at='{{ \"never\" }}')", "failed", "FLX-1006"),
    # A sensor of the file's own.
    (f"Mine(finds=False, timeout=0, {SHORT})", "failed", "timeout"),
    (f"Mine(finds=False, timeout=0.2, {SHORT}, soft_fail=True)", "skipped", None),
    (f"Mine(finds=False, execution_timeout=0.3, timeout=60, {SHORT})", "failed", "FLX-3503"),
    ("Mine(finds=True, timeout=0, poke_interval='1h')", "success", "found"),
    # Commands.
    ("BashOperator(bash_command='exit 99')", "skipped", None),
    ("BashOperator(bash_command='exit 99', skip_on_exit_code=None)", "failed", "FLX-3014"),
    ("BashOperator(bash_command='exit 99', skip_on_exit_code=[])", "failed", "FLX-3014"),
    ("BashOperator(bash_command='exit 255', skip_on_exit_code=(1, 255))", "skipped", None),
    ("BashOperator(bash_command='exit {{ 7 }}', skip_on_exit_code=[5, 7])", "skipped", None),
    ("BashOperator(bash_command='echo $A-$B', env={'A': '', 'B': '{{ ds }}'})", "success", "-2026-01-05"),
    ("BashOperator(bash_command='echo $A', env={'A': 0})", "success", "0"),
    ("BashOperator(bash_command='echo a$HOME', append_env=False)", "success", "a"),
    ("BashOperator(bash_command='echo a$HOME', append_env=False, env={})", "success", "a"),
    ("BashOperator(bash_command='pwd', cwd='/')", "success", "/"),
    ("BashOperator(bash_command='true', cwd='/no')", "failed", "FLX-3023"),
    ("BashOperator(bash_command='true')", "success", None),
    ("BashOperator(bash_command='echo {{ params.x }}')", "failed", "FLX-3050"),
    ("BashOperator(bash_command='echo {{ params.x | q }}')", "success", "a b"),
    ("BashOperator(bash_command='exit 1', retries=0)", "failed", "FLX-3014"),
    ("BashOperator(bash_command='test $FLUX_TRY_NUMBER = 2', retries=1, retry_delay=0)", "success", None),
    ("BashOperator(bash_command='{{ \"\" }}', retries=3, retry_delay=0)", "failed", "FLX-3051"),
    # Functions.
    ("PythonOperator(python_callable=lambda: None)", "success", None),
    ("PythonOperator(python_callable=lambda *a, **k: len(a), op_args=[], op_kwargs={})", "success", 0),
    ("PythonOperator(python_callable=lambda a, ds: [a, ds], op_args=['{{ ds }}'])", "success", ["2026-01-05"] * 2),
    ("PythonOperator(python_callable=lambda templates_dict: templates_dict, templates_dict={})", "success", {}),
    ("PythonOperator(python_callable=lambda ti: ti.max_tries, retries=2)", "success", 3),
    ("PythonOperator(python_callable=broken)", "failed", "Broken"),
    ("PythonOperator(python_callable=skipping)", "skipped", None),
    ("EmptyOperator()", "success", None),
]
HEAD = """
import datetime as dt
from fluxd import DAG, BaseSensor, PokeResult, SkipTask
from fluxd.ops import BashOperator, EmptyOperator, PythonOperator
from fluxd.sensors import FileSensor, TimeSensor

class Mine(BaseSensor):
    def __init__(self, *, finds, **more):
        super().__init__(**more)
        self.finds = finds

    async def poke(self, context):
        return PokeResult(self.finds, "found")

class Broken(Exception):
    def __str__(self):
        raise RuntimeError("no str")

class BrokenSkip(SkipTask):
    __str__ = Broken.__str__

def broken():
    raise Broken

def skipping():
    raise BrokenSkip

SETTINGS = dict(params={"x": "a b"}, start_date="2026-01-01")
"""
WORDS = {"timeout": ("FLX-3505", "FLX-3040")}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("there")
    folder.chmod(0o755)
    (folder / "file").write_text("abc\n")
    return folder / "file"


@pytest.fixture(scope="module")
def daemon(there: Path) -> Iterator[Daemon]:
    with Daemon() as one:
        text = [HEAD]
        for number, (call, _, _) in enumerate(CASES):
            written = call.replace("(", "(task_id='t', ", 1).replace("THERE", str(there)).replace(", )", ")")
            text.append(f"with DAG('d{number}', **SETTINGS):\n    {written}\n")
        one.write("all.py", "\n".join(text))
        one.until_known(f"d{len(CASES) - 1}")
        for number in range(len(CASES)):
            one.trigger(f"d{number}", run_id="r", logical_date="2026-01-05T00:00:00Z")
        yield one


def check(number: int, there: Path, state: str, reason: str | None, xcoms: dict[str, Any]) -> None:
    call, wanted, detail = CASES[number]
    assert state == wanted, (call, reason)
    if wanted == "failed":
        assert (reason or "").startswith(WORDS.get(detail, detail)), (call, reason)
    else:
        assert xcoms.get("return_value") == (str(there) if detail == "THERE" else detail), call


@pytest.mark.parametrize("number", range(len(CASES)))
def test_in_the_daemon(daemon: Daemon, there: Path, number: int) -> None:
    run = daemon.wait(f"d{number}", "r")
    (task,) = run["tasks"]
    found = daemon.get(f"/dags/d{number}/runs/r/tasks/t/xcoms")["xcoms"] if task["state"] == "success" else []
    check(number, there, task["state"], task["reason"], {xcom["key"]: xcom["value"] for xcom in found})


@pytest.mark.parametrize("number", range(len(CASES)))
def test_in_dag_test(daemon: Daemon, there: Path, number: int) -> None:
    dag = next(dag for dag in testing.load_file(daemon.dags / "all.py") if dag.dag_id == f"d{number}")
    done = dag.test("2026-01-05", run_id="r")["t"]
    check(number, there, done.state, done.reason, done.xcoms)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_by_fluxctl(daemon: Daemon, there: Path, number: int) -> None:
    verb = "run" if "retries" in CASES[number][0] else "test"
    done = daemon.ctl("tasks", verb, f"d{number}", "t", "--logical-date", "2026-01-05", "--json", check=False)
    told = json.loads(done.stdout)
    check(number, there, told["state"], told["reason"], told["xcoms"])
