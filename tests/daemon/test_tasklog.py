"""Python's logging in a task: from INFO on, once, with time, level and logger; or as the author configures it."""

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.runner_rig import Rig

LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "
LATE, EARLY = "import logging\n", ""
CONFIG = (
    "{'version': 1, 'handlers': {'h': {'class': 'logging.StreamHandler'}}, 'root': {'handlers': ['h'], 'level': 20}}"
)
OWN = "h = logging.StreamHandler(); l = logging.getLogger('own'); l.addHandler(h); l.info('one'); logging.info('i')"
NULL = "l = logging.getLogger('lib'); l.addHandler(logging.NullHandler()); l.info('one')"
# (before the dag, in the task, what is said: a pattern for each line that logging writes)
CASES = [
    (EARLY, "import logging; logging.getLogger('sales').info('one')", [LINE + "INFO sales: one"]),
    (LATE, "logging.getLogger('sales').info('one')", [LINE + "INFO sales: one"]),
    (LATE, "logging.info('one'); logging.debug('no')", [LINE + "INFO root: one"]),
    (LATE, "logging.getLogger('a.b').warning('two'); logging.error('x')",
     [LINE + "WARNING a.b: two", LINE + "ERROR root: x"]),
    (LATE, "logging.basicConfig(format='mine %(message)s', level=10); logging.debug('d')", ["mine d"]),
    (EARLY, "import logging; logging.basicConfig(format='mine %(message)s'); logging.warning('w')", ["mine w"]),
    (LATE + "logging.basicConfig(format='mine %(message)s')\n", "logging.warning('w'); logging.info('i')", ["mine w"]),
    (LATE + "logging.basicConfig(format='mine %(message)s', level=20)\n", "logging.info('i')", ["mine i"]),
    (LATE, OWN, ["one", LINE + "INFO root: i"]),
    (LATE, NULL, [LINE + "INFO lib: one"]),
    (LATE, "logging.getLogger().setLevel(30); logging.info('no'); logging.warning('w')", [LINE + "WARNING root: w"]),
    (LATE + "logging.getLogger().setLevel(10)\n", "logging.debug('d')", [LINE + "DEBUG root: d"]),
    (LATE + "import logging.config\n", f"logging.config.dictConfig({CONFIG}); logging.info('i')", ["i"]),
    (LATE + "import warnings\n", "warnings.warn('old')", [LINE + r"WARNING py\.warnings: .*UserWarning: old"]),
    (LATE, "try: 1 / 0\n    except ZeroDivisionError: logging.exception('e')", [LINE + "ERROR root: e"]),
    (LATE, "import sys, io; logging.info('i')", [LINE + "INFO root: i"]),
]  # fmt: skip
FILE = """
{before}
from fluxd import DAG, task

with DAG("d") as dag:

    @task
    def t():
        {body}

    t()
"""
SAID = re.compile(rf"^(?:{LINE}|mine |one$|i$)")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("rig"))
    rig.start()
    yield rig
    rig.close()


def check(said: str, wanted: list[str]) -> None:
    lines = [line for line in said.splitlines() if SAID.match(line)]
    assert len(lines) == len(wanted), said
    for line, pattern in zip(lines, wanted, strict=True):
        assert re.fullmatch(pattern, line), said


@pytest.mark.parametrize("number", range(len(CASES)))
def test_in_the_process_of_a_task(rig: Rig, number: int) -> None:
    before, body, wanted = CASES[number]
    loaded = rig.load(f"f{number}.py", FILE.format(before=before, body=body.replace("\n    ", "\n        ")))
    assert loaded["error"] is None, loaded["error"]
    for fence in (2 * number + 1, 2 * number + 2):  # the second is forked from a host that has run one
        assert rig.run(fence, loaded=loaded)["outcome"]["state"] == "success", rig.logged(fence)
        check(rig.logged(fence), wanted)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_in_dag_test(tmp_path: Path, number: int) -> None:
    before, body, wanted = CASES[number]
    text = FILE.format(before=before, body=body.replace("\n    ", "\n        "))
    (tmp_path / "d.py").write_text(f"{text}\nassert dag.test().state == 'success'\n")
    done = subprocess.run([sys.executable, tmp_path / "d.py"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    check(done.stderr, wanted)


def test_a_process_is_left_as_it_was() -> None:
    code = """
    import sys
    from fluxd import DAG, task
    with DAG("d") as dag:
        @task
        def t():
            import logging
            logging.info("said")
        t()
    dag.test()
    import logging, warnings
    assert logging.root.handlers == [] and logging.root.level == logging.WARNING
    assert logging.basicConfig.__module__ == "logging" and logging._warnings_showwarning is None
    assert not any("fluxd" in type(finder).__module__ for finder in sys.meta_path)
    logging.getLogger("x").info("not said")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "INFO root: said" in done.stderr and "not said" not in done.stderr


def test_a_task_without_logging_does_not_import_it(rig: Rig) -> None:
    ended = rig.python(99, "import sys\nreturn 'logging' in sys.modules")
    assert ended["outcome"]["xcoms"] == [["return_value", False]]
