"""Commands at their limits, alike in the daemon's processes (spawned or become) and in `dag.test()`."""

import io
import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxd import DAG
from fluxd.authoring import testing
from fluxd.authoring.requests import ARGUMENT_MAX, LINE_MAX
from fluxd.ops import BashOperator
from tests.daemon.runner_rig import PATIENCE_S, Rig

FILE = """
from fluxd import DAG
from fluxd.ops import BashOperator

with DAG("d", params={{"x": 1}}):
    BashOperator(task_id="t", {arguments})
"""
HUGE = "bash_command='true {}', env=dict(A='x' * 131072)"
# name, arguments of the operator, state, result (or the beginning of the reason)
CASES: list[tuple[str, str, str, Any]] = [
    ("4097", "bash_command=\"printf 'x%.0s' {1..4097}; echo\"", "success", "x" * 4097),
    ("longest line", f"bash_command='echo ' + 'x' * {LINE_MAX}", "success", "x" * LINE_MAX),
    ("longer line", f"bash_command='echo x' + 'x' * {LINE_MAX}", "success", None),
    ("longest argument", f"bash_command='# '.ljust({ARGUMENT_MAX - 8}, 'x') + '\\necho ok'", "success", "ok"),
    ("longer", f"bash_command='# '.ljust({ARGUMENT_MAX}, 'x') + '\\necho ok'", "success", "ok"),
    ("megabytes", "bash_command='# {{ ds }}'.ljust(3_000_000, 'x') + '\\necho $0'", "success", "/bin/bash"),
    ("long file", "bash_command='big.sh'", "success", "2026-01-01 big.sh"),
    ("file", "bash_command='small.sh'", "success", "2026-01-01 small.sh {dags}"),
    ("absolute", "bash_command='{dags}/abs.sh'", "success", "{{ ds }} {dags}/abs.sh 2"),
    ("env names no file", "bash_command='echo run $S', env={'S': 'small.sh'}", "success", "run small.sh"),
    ("dated env names no file", "bash_command='echo $S {{ ds }}', env={'S': 's.sh'}", "success", "s.sh 2026-01-01"),
    ("folder like a file", "bash_command='basename $PWD', cwd='dir.sh'", "success", "dir.sh"),
    ("folder and a date", "bash_command='basename $PWD {{ ds }}', cwd='dir.sh'", "success", "dir.sh"),
    ("huge env", HUGE.format(""), "failed", "FLX-3053: The"),
    ("huge dated env", HUGE.format("{{ ds }}"), "failed", "FLX-3053"),
    ("NUL", "bash_command='echo {{ \"\\\\0\" }}'", "failed", "FLX-1003"),
    ("NUL in env", "bash_command='true', env={'A': 'a\\0b'}", "failed", "FLX-3022"),
    ("background", "bash_command='(sleep 600; echo late) & echo $! last'", "success", "last"),
    ("dated background", "bash_command='(sleep 600; echo late {{ ds }}) & echo $! last'", "success", "last"),
    ("background of a failure", "bash_command='sleep 600 & echo $! x; exit 3'", "failed", "FLX-3014"),
    ("empty", "bash_command='{{ \"\" }}'", "failed", "FLX-3051: The bash_command of task 't' is empty"),
    ("blank", "bash_command=' {{ \" \" }}\\n'", "failed", "FLX-3051"),
    ("None", "bash_command='{{ none }}'", "failed", "FLX-3052"),
    ("an empty folder", "bash_command='true', cwd='{{ \"\" }}'", "failed", "FLX-3051"),
    ("no folder", "bash_command='true', cwd='/{{ none }}'", "failed", "FLX-3052"),
    ("undefined", "bash_command='echo {{ nothing }}'", "failed", "FLX-3001"),
    ("numbers in env", "bash_command='echo $A $B', env={'A': 1, 'B': 1.5}", "success", "1 1.5"),
    ("unquoted", "bash_command='echo {{ params.x }}'", "success", "1"),
]  # fmt: skip


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("rig"))
    rig.write("small.sh", "echo {{ ds }} $(basename $0) $(cd $(dirname $0); pwd)\n")
    rig.write("big.sh", f"# {'x' * ARGUMENT_MAX}\necho {{{{ ds }}}} $(basename $0)\n")
    rig.write("abs.sh", "#!/bin/bash\na=(1 2)\necho '{{ ds }}' $0 ${#a[@]}\n")
    (rig.dags / "abs.sh").chmod(0o755)
    (rig.dags / "dir.sh").mkdir()
    rig.start()
    yield rig
    rig.close()


def ends(pid: int) -> bool:
    """Whether a process that was killed is gone, or goes."""
    try:
        end = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([end], [], [], PATIENCE_S)[0])
    finally:
        os.close(end)


def check(outcome: dict[str, Any], said: str, state: str, wanted: Any, dags: Path) -> None:
    assert outcome["state"] == state, (outcome, said[-2000:])
    result = dict(outcome.get("xcoms", ())).get("return_value")
    if state == "failed":
        assert outcome["error"]["message"].startswith(wanted), outcome
        # What can never work is not tried again.
        assert outcome["error"]["retry"] is wanted.startswith("FLX-3014")
    elif wanted == "last":
        pid, word = result.split()
        assert word == "last" and ends(int(pid)) and "late" not in said
    else:
        assert result == (wanted and wanted.replace("{dags}", str(dags)))
    assert ("FLX-3054" in said) is (state == "success" and wanted is None)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case[0] for case in CASES])
def test_in_both_worlds(rig: Rig, number: int, capfd: pytest.CaptureFixture[str]) -> None:
    _, arguments, state, wanted = CASES[number]
    file = f"f{number}.py"
    loaded = rig.load(file, FILE.format(arguments=arguments.replace("{dags}", str(rig.dags))))
    assert loaded["error"] is None, loaded["error"]
    spawn = loaded["dags"][0]["tasks"][0]["spawn"]
    order = rig.order(number, loaded=loaded)
    rig.to.send({**order, "spawn": spawn, "context": {**order["context"], "params": {"x": 1}}})
    ended = rig.to.expect("ended", fence=number)
    check(ended["outcome"], rig.logged(number), state, wanted, rig.dags)
    (dag,) = testing.load_file(rig.dags / file)
    outcome = testing.test_task(dag, "t", "2026-01-01")
    said = capfd.readouterr()
    check(outcome, said.out + said.err, state, wanted, rig.dags)


class Interrupting(io.StringIO):
    """A stdout at whose first word somebody presses Ctrl-C."""

    def write(self, text: str) -> int:
        if "ready" in text:
            raise KeyboardInterrupt
        return len(text)


def test_an_interrupted_command_is_told_to_stop_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / "note"
    stop = f"trap 'echo stopped > {note}; exit' TERM"
    with DAG("d") as dag:
        BashOperator(
            task_id="t", bash_command=f"{stop}; (trap '' TERM; sleep 600) & echo $! > {note}.pid; echo ready; wait"
        )
    monkeypatch.setattr("sys.stdout", Interrupting())
    with pytest.raises(KeyboardInterrupt):
        dag.test()
    assert note.read_text() == "stopped\n"
    assert ends(int(Path(f"{note}.pid").read_text()))
