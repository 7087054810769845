"""fluxctl where there is no daemon, or a broken one; and the verbs that need none. As a real process."""

import ast
import json
import os
import pty
import re
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

from fluxd.ctl import show
from fluxd.ctl.logs import Screen
from fluxd.ctl.main import NOUNS, root
from fluxd.ctl.verbs import Noun, default_home

DAG = """
from fluxd import DAG
from fluxd.ops import BashOperator, PythonOperator

def once_broken(ti):
    print("printed")
    if ti.try_number == 1:
        raise ValueError("the first try breaks")
    return 7

with DAG("sales", schedule="@daily", start_date="2026-01-01"):
    load = BashOperator(task_id="load", bash_command="echo {{ ds }}")
    load >> PythonOperator(task_id="report", python_callable=once_broken, retries=1)
"""


def ctl(home: Path, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FLUXD_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", "from fluxd.ctl.main import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False, **more)


@pytest.fixture
def dag_file(tmp_path: Path) -> Path:
    folder = tmp_path / "dags"
    folder.mkdir()
    file = folder / "sales.py"
    file.write_text(DAG)
    return file


@pytest.mark.parametrize(
    ("own", "system", "named", "chosen"),
    [
        *((True, True, "", "own"), (True, False, "", "own"), (False, False, "", "own"), (False, True, "", "system")),
        (False, True, "named", "named"),
    ],
)
def test_the_systems_service_is_asked_where_one_has_no_home_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool, system: bool, named: str, chosen: str
) -> None:
    places = {"own": tmp_path / ".fluxd", "system": tmp_path / "system", "named": tmp_path / "named"}
    places["system"].mkdir()  # it may be there and be no home: see Embedded's `common`
    if own:
        places["own"].mkdir()
    if system:
        (places["system"] / "dags").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FLUXD_HOME", str(places[named]) if named else "")
    assert default_home(places["system"]) == places[chosen]


def test_no_daemon_is_one_sentence_with_the_next_step(tmp_path: Path) -> None:
    for arguments in (["status"], ["dags", "list", "--json"], ["runs", "wait", "a", "b", "--socket", "/none"]):
        if "wait" in arguments:
            continue  # it is patient
        got = ctl(tmp_path, *arguments)
        assert (got.returncode, got.stdout, got.stderr.count("\n")) == (5, "", 1)
        assert "FLX-8001" in got.stderr
        assert f"fluxd --home {tmp_path}" in got.stderr


def test_a_stale_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "fluxd.sock"))
    got = ctl(tmp_path, "status")
    assert (got.returncode, got.stdout) == (5, "")
    assert "FLX-8002" in got.stderr


@pytest.mark.parametrize(
    ("said", "code", "exit_code"),
    [
        (b"", "FLX-8006", 5),
        (b"nonsense\n\n", "FLX-8006", 5),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 2\r\n\r\nxx", "FLX-8007", 1),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "FLX-8006", 5),
    ],
)
def test_what_answers_is_no_daemon(tmp_path: Path, said: bytes, code: str, exit_code: int) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "fluxd.sock"))
        door.listen()

        def answer() -> None:
            peer, _ = door.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        got = ctl(tmp_path, "status")
        thread.join()
    assert (got.returncode, got.stdout) == (exit_code, "")
    assert code in got.stderr


def test_a_daemon_that_is_silent_is_said_to_be_waited_for(tmp_path: Path) -> None:
    code = "from fluxd.ctl import client; client.QUIET_S = 0.01; from fluxd.ctl.main import main; main()"
    command = [sys.executable, "-c", code, "--home", str(tmp_path), "dags", "pause", "a", "b", "--json"]
    found, paused = b'{"dag_id": "a"}', b'{"dag_id": "a", "paused": true}'
    asked = []
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "fluxd.sock"))
        door.listen()
        door.settimeout(60)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            for number, body in enumerate([found, found, paused, paused]):
                peer, _ = door.accept()
                with peer:
                    request = b""
                    while not request.endswith(b"{}" if request.startswith(b"POST") else b"\r\n\r\n"):
                        request += peer.recv(65536)  # the body comes on its own
                    asked.append(request)
                    if number == 0:
                        assert process.stderr.readline() == "fluxd does not answer yet; waiting …\n".encode()
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            assert process.stderr.read() == b""  # it is said once
    assert process.returncode == 0
    keys = [re.findall(rb"(?i)\r\nidempotency-key: (\w{32})\r\n", request) for request in asked]
    assert [len(found) for found in keys] == [0, 0, 1, 1]
    assert keys[2] != keys[3]


@pytest.mark.parametrize(("path", "words"), [("/dev/null", "is not a socket"), ("x" * 200, "cannot be used")])
def test_a_socket_that_cannot_be_one(tmp_path: Path, path: str, words: str) -> None:
    got = ctl(tmp_path, "--socket", path, "status")
    assert got.returncode == 5
    assert "FLX-8004" in got.stderr
    assert words in got.stderr
    assert got.stderr.count("\n") == 1


def test_a_narrow_terminal_shows_fewer_columns() -> None:
    columns = ["RUN", "STATE", "COVERS", "STARTED (UTC)", "TOOK", "TYPE", "REASON"]
    row = ["manual__20261123T160021.863690Z", "● success", "2014-07-04 → 2014-07-05", "2026-11-23 16:00:21"]
    rows = [[*row, "0.16 s", "manual", "task load failed: " + "x" * 200]]
    assert [len(show.fitting(columns, rows, width)) for width in (200, 110, 100, 80)] == [7, 6, 5, 4]
    kept = [columns[place] for place in show.fitting(columns, rows, 80)]
    assert kept == ["RUN", "STATE", "STARTED (UTC)", "REASON"]


def test_cron_explain(tmp_path: Path, dag_file: Path) -> None:
    arguments = ["cron", "explain", "0 6 * * 1-5", "--tz", "Europe/Paris", "--count", "2", "--from", "2026-03-27"]
    told = json.loads(ctl(tmp_path, *arguments, "--json").stdout)
    assert told["words"] == "on Monday to Friday at 06:00 Paris"
    assert [run["due_at"] for run in told["runs"]] == ["2026-03-27T05:00:00Z", "2026-03-30T04:00:00Z"]
    assert told["runs"][0]["words"].startswith("covers 2026-03-26 → 2026-03-27, starts at")
    assert "on Monday to Friday" in ctl(tmp_path, *arguments).stdout
    for time in ("0001-01-01", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00"):
        got = ctl(tmp_path, "cron", "explain", "0 0 * * *", "--tz", "Pacific/Auckland", "--from", time)
        assert (got.returncode, got.stdout, got.stderr.count("\n")) == (2, "", 1)
        assert "1900 to 2199" in got.stderr
        got = ctl(tmp_path, "dags", "test", str(dag_file), "--logical-date", time)
        assert (got.returncode, got.stdout, got.stderr.count("\n")) == (2, "", 1)
    for wrong in (["61 * * * *"], ["* * * *"], ["0 0 30 2 *"], ["0 0 * * *", "--tz", "Mars/Base"]):
        got = ctl(tmp_path, "cron", "explain", *wrong)
        assert (got.returncode, got.stdout, got.stderr.count("\n")) == (2, "", 1)


def test_a_dag_is_tested_here(tmp_path: Path, dag_file: Path) -> None:
    for what in (str(dag_file), "sales"):
        got = ctl(tmp_path, "dags", "test", what, "--json")
        told = json.loads(got.stdout)  # what tasks print is on stderr
        assert (got.returncode, told["state"]) == (0, "success")
        assert [(task["task_id"], task["try_number"]) for task in told["tasks"]] == [("load", 1), ("report", 2)]
        assert "printed" in got.stderr


def test_a_task_is_tried_out_here(tmp_path: Path, dag_file: Path) -> None:
    got = ctl(tmp_path, "tasks", "test", "sales", "report", "--json")
    assert (got.returncode, json.loads(got.stdout)["state"]) == (1, "failed")
    assert "the first try breaks" in got.stderr
    told = json.loads(ctl(tmp_path, "tasks", "run", "sales", "report", "--json").stdout)
    assert (told["state"], told["try_number"], told["xcoms"]["return_value"]) == ("success", 2, 7)
    got = ctl(tmp_path, "tasks", "render", "sales", "load", "--logical-date", "2026-01-31")
    assert "echo 2026-01-31" in got.stdout
    assert ctl(tmp_path, "tasks", "test", "sales", "laod").returncode == 3


def test_a_task_is_given_what_others_returned(tmp_path: Path) -> None:
    file = tmp_path / "up.py"
    file.write_text("""
from fluxd import DAG, task
from fluxd.ops import BashOperator

with DAG("up", schedule=None):
    @task
    def extract():
        return {"rows": 0}

    @task
    def load(table):
        return table["rows"] * 2

    load(extract()) >> BashOperator(task_id="tell", bash_command="echo {{ ti.xcom_pull('extract').rows }}")
""")
    for verb in ("test", "run"):
        got = ctl(tmp_path, "tasks", verb, str(file), "load", "--result", 'extract={"rows": 21}', "--json")
        assert json.loads(got.stdout)["xcoms"] == {"return_value": 42}, got.stderr
    got = ctl(tmp_path, "tasks", "render", str(file), "tell", "--result", 'extract={"rows": 3}', "--json")
    assert json.loads(got.stdout)["fields"]["bash_command"] == "echo 3"
    for wrong, exit_code, code in (("extract", 2, "FLX-8019"), ("extract=x", 2, "FLX-8019"), ("nope=1", 3, "FLX-3013")):
        got = ctl(tmp_path, "tasks", "test", str(file), "load", "--result", wrong)
        assert (got.returncode, got.stdout) == (exit_code, "")
        assert code in got.stderr


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("x = 1\nimport no_such_module\n", "line 2", "no_such_module"),
        ("x = (\n", "line 1", "SyntaxError"),
        ("\n\nraise SystemExit(3)\n", "line 3", "SystemExit"),
        ("from fluxd import DAG\nDAG('x', retries=1)\n", "sales.py, line 2: DAG 'x' takes", "FLX-1002"),
        ("from fluxd import dag\n@dag\ndef x(): ...\n", "sales.py: The @dag function 'x'", "FLX-1016"),
    ],
)
def test_a_broken_file_is_named_with_its_line(
    tmp_path: Path, dag_file: Path, text: str, line: str, reason: str
) -> None:
    dag_file.write_text(text)
    got = ctl(tmp_path, "dags", "test", str(dag_file))
    assert (got.returncode, got.stdout, got.stderr.count("\n")) == (2, "", 1)
    assert line in got.stderr
    assert reason in got.stderr
    assert ctl(tmp_path, "dags", "test", "none").returncode == 3


def test_database(tmp_path: Path, empty_url: str) -> None:
    assert ctl(tmp_path, "db", "check", "--database", empty_url).returncode == 4
    applied = json.loads(ctl(tmp_path, "db", "migrate", "--database", empty_url, "--json").stdout)["applied"]
    assert applied[0] == "0001_first"
    assert "is up to date" in ctl(tmp_path, "db", "migrate", "--database", empty_url).stdout
    assert ctl(tmp_path, "db", "check", "--database", empty_url).returncode == 0
    got = ctl(tmp_path, "db", "check", "--database", "postgresql://u:secret@127.0.0.1:1/x")
    assert (got.returncode, got.stderr.count("\n")) == (5, 1)
    assert "secret" not in got.stderr


def test_doctor_works_without_a_daemon(tmp_path: Path) -> None:
    got = ctl(tmp_path, "doctor", "--json")
    findings = {one["name"]: one["state"] for one in json.loads(got.stdout)["findings"]}
    assert set(findings) == {
        "python",
        "home",
        "disk",
        "clock",
        "settings",
        "fluxd",
        "dags folder",
        "database",
        "runner",
    }
    assert (findings["python"], findings["fluxd"], findings["database"]) == ("ok", "warn", "ok")
    (tmp_path / "fluxd.toml").write_text("[daemon]\nlisten_on = 1\n")
    got = ctl(tmp_path, "doctor")
    assert got.returncode == 1
    assert "did you mean 'listen'" in got.stdout


@pytest.mark.parametrize("exposed", [".", "sub", "sub/one.py", "one.py"])
def test_doctor_names_what_every_user_can_write_in_the_dags_folder(tmp_path: Path, exposed: str) -> None:
    folder = tmp_path / "dags"
    (folder / "sub").mkdir(parents=True)
    for file in (folder / "one.py", folder / "sub/one.py", folder / "data.txt"):
        file.write_text("")
    (folder / "data.txt").chmod(0o666)  # no code

    def found() -> dict[str, str]:
        findings = json.loads(ctl(tmp_path, "doctor", "--json").stdout)["findings"]
        return next(one for one in findings if one["name"] == "dags folder")

    assert found()["state"] == "ok"
    place = (folder / exposed).resolve()
    place.chmod(place.stat().st_mode | 0o002)
    assert found()["state"] == "bad" and str(place) in found()["words"]
    assert found()["next_step"] == f"chmod o-w {place}"


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    command = (
        f"{sys.executable} -c 'from fluxd.ctl.main import main; main()' cron explain '* * * * *' --count 1000 | head -1"
    )
    got = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (got.returncode, got.stderr) == (0, "")


@pytest.mark.parametrize(
    "arguments", [["cron", "explain", "@daily"], ["cron", "explain", "* * * * *", "--count", "1000"], ["--help"]]
)
def test_a_full_disk_is_one_sentence(tmp_path: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-c", "from fluxd.ctl.main import main; main()", *arguments]
    with Path("/dev/full").open("w") as full:
        got = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (got.returncode, got.stderr) == (1, "fluxctl: The output cannot be written: No space left on device.\n")


def test_an_argument_that_is_no_text(tmp_path: Path) -> None:
    got = subprocess.run(
        [sys.executable, "-c", "from fluxd.ctl.main import main; main()", "dags", "show", b"\xff\xfe"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (got.returncode, got.stdout, got.stderr.count("\n")) == (2, "", 1)
    assert "'\\xff\\xfe' is not UTF-8" in got.stderr


def test_a_terminal_gets_colours_and_no_control_characters(tmp_path: Path) -> None:
    parent, child = pty.openpty()
    code = (
        "from fluxd.ctl import show; show.table(['A', 'S'], [['x\\x1b]0;evil\\x07', show.state('failed')]], '');"
        "show.facts([('s', show.state('success')), ('t', '\\x1b[2J')])"
    )
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    subprocess.run([sys.executable, "-c", code], stdout=child, check=True, env=environment)
    os.close(child)
    seen = b""
    try:
        while data := os.read(parent, 65536):
            seen += data
    except OSError:
        pass  # how a terminal says that it is over
    os.close(parent)
    assert b"\\x1b]0;evil\\x07" in seen
    assert b"\x1b]0" not in seen
    assert b"\x1b[2J" not in seen
    assert b"\x1b[31m" in seen and b"\x1b[32m" in seen


def test_logs_on_a_terminal_are_shown_not_obeyed() -> None:
    screen = Screen()
    data = "a\tb\r\ncafé".encode() + b"\xff\x1b[31mred\rover\x9b\r"
    # Whatever the pieces: characters and line ends may be torn apart.
    text = "".join(screen.text(data[place : place + 1]) for place in range(len(data))) + screen.text(b"", final=True)
    assert text == "a\tb\ncafé\\xff\\x1b[31mred\\x0dover\\x9b\\x0d"


def walk(group: Noun, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command, str | None]]:
    """Every command below a group, with the line of help that its group shows before it is imported."""
    found: list[tuple[tuple[str, ...], click.Command, str | None]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append(((*path, name), command, group.later.get(name, (None, None))[1]))
        if isinstance(command, Noun):
            found += walk(command, (*path, name))
    return found


def test_every_command_has_help_with_an_example_and_json() -> None:
    assert isinstance(root, Noun)
    for path, command, _ in walk(root):
        assert "Example: fluxctl " in (command.help or ""), path
        if not isinstance(command, Noun):
            assert "--json" in [option for param in command.params for option in param.opts], path
            example = (command.help or "").partition("Example: fluxctl ")[2]
            assert example.startswith(" ".join(path)), path
        for param in command.params:
            if isinstance(param, click.Option) and not param.hidden:
                assert param.help, (path, param.name)


def test_every_verb_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs" / "fluxctl.md").read_text()
    for path, command, _ in walk(root):  # type: ignore[arg-type]
        if not isinstance(command, Noun):
            assert f"fluxctl {' '.join(path)}" in text, path


def test_help_is_shown_without_importing_what_it_is_about() -> None:
    code = "import sys; from fluxd.ctl.main import run; run(['--help']); print(sorted(sys.modules))"
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = ast.literal_eval(got.stdout.splitlines()[-1])
    assert not {"asyncpg", "aiohttp", "rich", "fluxd.ctl.dags", "fluxd.store"} & set(modules)
    for module, _ in NOUNS.values():
        assert import_module(module.partition(":")[0])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.04 s"), (8.25, "8.2 s"), (42, "42 s"), (200, "3 m 20 s"), (7500, "2 h 05 m"), (273600, "3 d 4 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert show.duration(seconds) == words


def test_times_name_how_long_ago() -> None:
    past = (datetime.now(UTC) - timedelta(minutes=3, seconds=20)).isoformat()
    assert "(3 m 2" in show.when_in_full(past)
    assert show.when_in_full((datetime.now(UTC) + timedelta(hours=2)).isoformat()).endswith(
        ("(in 2 h 00 m)", "(in 1 h 59 m)")
    )
