"""Whatever is wrong is said in one clear sentence, with its code, and nothing else is harmed."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.fluxd_process import BIN, Daemon

GOOD = """
from fluxd import DAG
from fluxd.ops import BashOperator

with DAG("{dag_id}", schedule=None):
    BashOperator(task_id="say", bash_command="echo fine")
"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    one = Daemon(settings={"FLUXD__DAGFILES__IMPORT_TIMEOUT_S": "2"})
    one.write("good.py", GOOD.format(dag_id="good"))
    with one:
        one.until_known("good")
        yield one


def errors(daemon: Daemon) -> dict[str, dict[str, object]]:
    found = json.loads(daemon.ctl("dags", "errors", "--json").stdout)
    return {error["file"]: error for error in found["errors"]}


def still_works(daemon: Daemon, dag_id: str = "good") -> None:
    done = daemon.ctl("dags", "trigger", dag_id, "--wait", "--json")
    assert json.loads(done.stdout)["state"] == "success"


BROKEN = {
    "syntax": ("with DAG('x') as:\n", "FLX-2", "line 1"),
    "no_module": ("import os\nimport nowhere_to_be_found\n", "FLX-2", "nowhere_to_be_found"),
    "cycle": (
        "from fluxd import DAG\nfrom fluxd.ops import EmptyOperator\n"
        "with DAG('round'):\n    a = EmptyOperator(task_id='a')\n    b = EmptyOperator(task_id='b')\n    a >> b >> a\n",
        "FLX-1",
        "a → b → a",
    ),
    "unknown_argument": (
        "from fluxd import DAG\nfrom fluxd.ops import BashOperator\n"
        "with DAG('x'):\n    BashOperator(task_id='a', bash_command='true', retry_dela=3)\n",
        "FLX-1",
        "retry_delay",
    ),
    "bad_cron": ("from fluxd import DAG\nDAG('x', schedule='61 * * * *')\n", "FLX-1", "61"),
    "hang": ("import time\nwhile True:\n    time.sleep(0.1)\n", "FLX-2", "2 s"),
    "exits": ("import os\nos._exit(3)\n", "FLX-2", "3"),
    "system_exit": ("raise SystemExit('no')\n", "FLX-2", "sys.exit('no')"),
    "eats_memory": ("x = bytearray(3 * 1024**3)\n", "FLX-2", "memory"),
    "prints": ("while True:\n    print('x' * 1000)\n", "FLX-2", "print"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_dag_file_is_named_with_its_reason(daemon: Daemon, kind: str) -> None:
    text, code, words = BROKEN[kind]
    daemon.write(f"{kind}.py", text)
    daemon.until(lambda: f"{kind}.py" in errors(daemon), f"{kind}.py is known as broken")
    error = errors(daemon)[f"{kind}.py"]
    assert str(error["code"]).startswith(code), error
    assert words in str(error["reason"]) or words.removeprefix("line ") == str(error["line"]), error
    still_works(daemon)
    (daemon.dags / f"{kind}.py").unlink()
    daemon.until(lambda: f"{kind}.py" not in errors(daemon), f"{kind}.py is forgotten")


def test_a_file_name_that_is_no_utf8_is_refused(daemon: Daemon) -> None:
    (daemon.dags / "caf\udce9.py").write_text(GOOD.format(dag_id="coffee"))
    daemon.until(lambda: "caf\\xe9.py" in errors(daemon), "the file is refused")
    assert errors(daemon)["caf\\xe9.py"]["code"] == "FLX-2012"
    still_works(daemon)
    (daemon.dags / "caf\udce9.py").unlink()
    daemon.until(lambda: "caf\\xe9.py" not in errors(daemon), "the file is forgotten")


def test_a_file_that_breaks_keeps_its_last_good_version(daemon: Daemon) -> None:
    daemon.write("breaks.py", GOOD.format(dag_id="breaks"))
    daemon.until_known("breaks")
    daemon.write("breaks.py", "import nowhere_to_be_found\n")
    daemon.until(lambda: "breaks.py" in errors(daemon), "breaks.py is known as broken")
    still_works(daemon, "breaks")
    daemon.write("breaks.py", GOOD.format(dag_id="breaks"))
    daemon.until(lambda: "breaks.py" not in errors(daemon), "breaks.py is well again")


def test_a_dag_id_in_two_files_names_both(daemon: Daemon) -> None:
    daemon.write("twice.py", GOOD.format(dag_id="good"))
    daemon.until(lambda: "twice.py" in errors(daemon), "twice.py is refused")
    reason = str(errors(daemon)["twice.py"]["reason"])
    assert "'good'" in reason and "twice.py" in reason and "good.py" in reason
    still_works(daemon)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("dags", "show", "nosuch"), 3, "nosuch"),
        (("dags", "trigger", "goood"), 3, "good"),
        (("runs", "show", "good", "nosuch"), 3, "nosuch"),
        (("runs", "show", "nosuch", "nosuch"), 3, "nosuch"),
        (("tasks", "show", "good", "nosuch", "say"), 3, "nosuch"),
        (("logs", "good", "nosuch", "say"), 3, "nosuch"),
        (("dags", "trigger", "good", "--conf", "{not json"), 2, "JSON"),
        (("dags", "trigger", "good", "--conf", "[1]"), 2, "object"),
        (("dags", "trigger", "good", "--logical-date", "yesterdayish"), 2, "yesterdayish"),
        (("dags", "triger", "good"), 2, "trigger"),
        (("dagz", "list"), 2, "dags"),
        (("cron", "explain", "61 * * * *"), 2, "61"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_fluxctl_says_what_is_wrong(daemon: Daemon, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = daemon.ctl(*arguments, check=False)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_unknown_task_of_a_run(daemon: Daemon) -> None:
    run_id = daemon.trigger("good")
    daemon.wait("good", run_id)
    done = daemon.ctl("logs", "good", run_id, "nosuch", check=False)
    assert done.returncode == 3 and "nosuch" in done.stderr


def test_strange_output_harms_nobody(daemon: Daemon) -> None:
    """Bytes that are no UTF-8, NULs, and 200 MB without a line end: the log holds exactly what was written."""
    daemon.write(
        "strange.py",
        "from fluxd import DAG\nfrom fluxd.ops import BashOperator\n"
        "with DAG('strange', schedule=None):\n"
        "    BashOperator(task_id='bytes', bash_command=r\"printf '\\377\\376\\000\\033[31m \\303'\")\n"
        "    BashOperator(task_id='flood', bash_command='head -c 200000000 /dev/zero | tr \"\\\\0\" x')\n",
    )
    daemon.until_known("strange")
    run_id = daemon.trigger("strange")
    assert daemon.wait("strange", run_id)["state"] == "success"
    folder = daemon.home / "logs" / "strange" / run_id
    assert (folder / "bytes" / "1.log").read_bytes() == b"\xff\xfe\x00\x1b[31m \xc3"
    with (folder / "flood" / "1.log").open("rb") as log:
        log.seek(200_000_000 - 1)
        assert log.read(1) == b"x"
        assert b"FLX-3054" in log.read(1000), "a line too long to be a result is said"
    shutil.rmtree(folder)
    still_works(daemon)


def test_a_full_log_disk_is_named_and_nothing_else_is_harmed(daemon: Daemon) -> None:
    """The log of one dag lies on a file system of 64 KiB."""
    daemon.write("wordy.py", GOOD.format(dag_id="wordy").replace("echo fine", "head -c 1000000 /dev/zero"))
    daemon.until_known("wordy")
    folder = daemon.home / "logs" / "wordy"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("mounting a small file system needs root")
    try:
        run = daemon.wait("wordy", daemon.trigger("wordy"))
        assert run["state"] == "failed"
        task = run["tasks"][0]
        assert "FLX-3" in task["reason"] and "space" in task["reason"], task
        still_works(daemon)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# ------------------------------------------------------------------------------------------------- start-up


def refused(*flags: str, environment: dict[str, str] | None = None) -> str:
    """What fluxd says when it does not start."""
    done = subprocess.run(
        [str(BIN / "fluxd"), *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("fluxd: FLX-"), done.stderr
    assert "Traceback" not in done.stderr
    return last


def test_unknown_setting_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "fluxd.toml").write_text("[executor]\nparalelism = 3\n")
    said = refused("--home", str(tmp_path))
    assert "FLX-6001" in said and "line 2" in said and "parallelism" in said


def test_unreachable_database(tmp_path: Path) -> None:
    said = refused("--home", str(tmp_path / "home"), "--database", "postgresql://me:secret@127.0.0.1:1/none")
    assert "FLX-5001" in said and "secret" not in said


def test_a_newer_schema_is_refused_in_words(tmp_path: Path, db_url: str) -> None:
    async def newer() -> None:
        conn = await asyncpg.connect(db_url)
        await conn.execute("UPDATE schema_step SET number = number + 900, name = '0901_later' WHERE number = 1")
        await conn.close()

    asyncio.run(newer())
    said = refused("--home", str(tmp_path / "home"), "--database", db_url, "--listen", "127.0.0.1:0")
    assert "FLX-50" in said and "newer" in said


def test_port_in_use(tmp_path: Path, db_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = refused("--home", str(tmp_path / "home"), "--database", db_url, "--listen", address)
    assert "FLX-6015" in said and address in said


def test_a_file_in_place_of_the_socket_is_not_overwritten(tmp_path: Path, db_url: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "fluxd.sock").write_text("precious")
    said = refused("--home", str(home), "--database", db_url, "--listen", "127.0.0.1:0")
    assert "FLX-6014" in said
    assert (home / "fluxd.sock").read_text() == "precious"


def test_home_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    said = refused("--home", str(file / "home"))
    assert "FLX-6010" in said and str(file) in said


def test_second_daemon_says_who_holds_the_database(daemon: Daemon) -> None:
    said = refused("--home", str(daemon.home), "--dags", str(daemon.dags), "--listen", "127.0.0.1:0")
    assert "FLX-5020" in said and str(daemon.pid) in said and "since" in said
    still_works(daemon)


def test_stale_socket_is_replaced_and_no_daemon_is_said() -> None:
    one = Daemon()
    one.write("good.py", GOOD.format(dag_id="good"))
    with one:
        one.until_known("good")
        one.kill()
        done = one.ctl("status", check=False)
        assert done.returncode == 5 and "FLX-8" in done.stderr
        one.start()
        still_works(one)


def test_wrong_flags_are_named() -> None:
    done = subprocess.run([str(BIN / "fluxd"), "--hme", "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--hme" in done.stderr
