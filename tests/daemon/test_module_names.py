"""Files of the dags folder whose names are taken: they harm neither other files nor Flux's own imports."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.runner_rig import Rig

DAG = """
from fluxd import DAG
from fluxd.ops import EmptyOperator

with DAG("{name}"):
    EmptyOperator(task_id="a")
"""
GOOD = """
from fluxd import DAG, task
from fluxd.ops import BashOperator

with DAG("good"):

    @task
    def t():
        import smtplib, xml.dom, concurrent.futures, jinja2, jinja2.nativetypes, logging, email.utils
        from fluxd.sensors import TimeSensor
        return [smtplib.__file__, jinja2.__file__, email.utils.__file__]

    t() >> BashOperator(task_id="b", bash_command="echo {{ ds }} {% include 'part.txt' %}")
"""
# A file, a package, a folder without __init__; of the standard library, an installed package, Flux, what Flux imports
# late, a package that another one is made of.
TAKEN = [
    *(
        "email.py",
        "jinja2.py",
        "jinja2/__init__.py",
        "email/__init__.py",
        "email/utils.py",
        "markupsafe.py",
        "fluxd.py",
    ),
    *("logging.py", "asyncio.py", "smtplib.py", "croniter.py", "concurrent/futures.py", "xml/dom/__init__.py"),
    *("tzdata/__init__.py", "fluxd/ops.py", "encodings.py", "string.py", "traceback.py", "difflib.py"),
]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    rig.write("part.txt", "part")
    rig.start()
    yield rig
    rig.close()


@pytest.mark.parametrize("file", TAKEN)
def test_a_taken_name_harms_nobody(rig: Rig, file: str) -> None:
    name = file.replace("/", "_").removesuffix(".py")
    own = rig.load(file, DAG.format(name=name))
    assert own["error"] is None, own["error"]
    good = rig.load("good.py", GOOD)
    assert good["error"] is None, good["error"]
    ended = rig.run(1, loaded=good, task="t")
    assert ended["outcome"]["state"] == "success", rig.logged(1)
    assert not any(path.startswith(str(rig.dags)) for path in ended["outcome"]["xcoms"][0][1])
    ended = rig.run(2, loaded=good, task="b")
    assert ended["outcome"]["xcoms"] == [["return_value", "2026-01-01 part"]], rig.logged(2)
    (warning,) = own["dags"][0]["warnings"]
    assert warning.startswith(f"{file} has a name that is taken: `import {file.split('/')[0].removesuffix('.py')}`")


def test_a_helper_whose_name_is_taken_is_named(rig: Rig) -> None:
    rig.write("statistics.py", "ours = 1\n")
    broken = rig.load("a.py", "from statistics import ours\n" + DAG.format(name="a"))["error"]
    assert broken["code"] == "FLX-2002" and "statistics.py in the dags folder is not what" in broken["message"]
    loaded = rig.load("b.py", "import statistics, json as j\n" + DAG.format(name="b"))
    assert loaded["error"] is None
    assert loaded["dags"][0]["warnings"] == [
        "statistics.py in the dags folder is not what `import statistics` gets: the standard library or an installed "
        "package has that name. Rename the file."
    ]


def test_helpers_with_names_of_their_own_are_found(rig: Rig) -> None:
    rig.write("helpers.py", "x = 1\n")
    rig.write("team/__init__.py", "")
    rig.write("team/parts.py", "y = 2\n")
    rig.write("loose/part.py", "z = 3\n")
    text = "import helpers, loose.part\nfrom . import parts\nassert (helpers.x, parts.y, loose.part.z) == (1, 2, 3)\n"
    loaded = rig.load("team/sales.py", text + DAG.format(name="sales"))
    assert loaded["error"] is None, loaded["error"]
    assert sorted(loaded["files"]) == [
        "helpers.py",
        "loose/part.py",
        "team/__init__.py",
        "team/parts.py",
        "team/sales.py",
    ]
    assert loaded["dags"][0]["warnings"] == []


@pytest.mark.parametrize("how", ["fluxctl", "script"])
def test_the_same_without_a_daemon(tmp_path: Path, how: str) -> None:
    for file in ("email.py", "jinja2.py", "logging.py"):
        (tmp_path / file).write_text("raise RuntimeError('the wrong module')\n")
    (tmp_path / "helpers.py").write_text("x = 1\n")
    (tmp_path / "part.txt").write_text("part")
    text = GOOD.replace("def t():", "def t():\n        import helpers")
    (tmp_path / "good.py").write_text(
        f"{text}\nif __name__ == '__main__':\n    dag.cli()\n".replace('DAG("good")', 'DAG("good") as dag')
    )
    command = [str(tmp_path / "good.py")]
    if how == "fluxctl":
        command = ["-c", "from fluxd.ctl.main import main; main()", "dags", "test", *command]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
