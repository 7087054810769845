"""Dag files of all kinds, good and broken, loaded by a real runner: each is named, and the others never notice."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxd.core.spec import dag_from_json
from tests.daemon.runner_rig import Rig, alive
from tests.fluxd_process import until

GOOD = """
from fluxd import DAG, task

with DAG("good", schedule=None):

    @task
    def t() -> int:
        return 1

    t()
"""


@pytest.fixture(scope="module")
def one_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = Rig(tmp_path_factory.mktemp("files"))
    made.start()
    yield made
    made.close()


@pytest.fixture
def rig(one_rig: Rig) -> Iterator[Rig]:
    """The runner of this module, with a fence of its own for each test; afterwards it must still be able to load."""
    yield one_rig
    assert one_rig.load("good.py", GOOD)["error"] is None


@pytest.fixture
def fence() -> int:
    global _fence
    _fence += 1
    return _fence


_fence = 0

BROKEN = {
    "syntax": ("x = 1\ndef broken(:\n    pass\n", "FLX-2001", "syntax.py, line 2", "syntax"),
    "tabs": ("if True:\n\tx = 1\n        y = 2\n", "FLX-2001", "tabs.py, line 3", "TabError|indent|tabs"),
    "missing": ("import no_such_library\n", "FLX-2002", "missing.py, line 1", "no_such_library"),
    "raises": ("def f():\n    return {}['x']\n\nf()\n", "FLX-2003", "raises.py, line 2", "KeyError: 'x'"),
    "exits": ("import sys\nsys.exit('bye')\n", "FLX-2008", "exits.py, line 2", "sys.exit"),
    "interrupts": ("raise KeyboardInterrupt\n", "FLX-2008", "interrupts.py, line 1", "KeyboardInterrupt"),
    "leaves": ("import os\nos._exit(3)\n", "FLX-2007", "leaves.py", "exit code 3"),
    "crashes": ("import ctypes\nctypes.string_at(0)\n", "FLX-2007", "crashes.py", "SIGSEGV"),
    "kills": ("import os\nos.kill(os.getpid(), 9)\n", "FLX-2007", "kills.py", "SIGKILL"),
    "hangs": ("import time\n\ntime.sleep(300)\n", "FLX-2004", "hangs.py, line 3", "longer than 1 s"),
    "spins": ("x = 0\nwhile True:\n    x += 1\n", "FLX-2004", "spins.py, line", "longer than 1 s"),
    "stubborn": (
        "import time\nwhile True:\n    try:\n        time.sleep(300)\n    except BaseException:\n        pass\n",
        "FLX-2004",
        "stubborn.py",
        "longer than 1 s",
    ),
    "hungry": ("x = []\nwhile True:\n    x.append(bytearray(10_000_000))\n", "FLX-2005", "hungry.py, line 3", "200 MB"),
    "chatty": ("while True:\n    print('x' * 1000)\n", "FLX-2006", "chatty.py", "more than 1 MiB"),
    "nul": ("x = 1\0\n", "FLX-2001", "nul.py", "null|NUL"),
    "cycle": (
        "from fluxd import DAG\nfrom fluxd.ops import EmptyOperator\nwith DAG('c', schedule=None):\n"
        "    a, b = EmptyOperator(task_id='a'), EmptyOperator(task_id='b')\n    a >> b >> a\n",
        "FLX-1",
        "cycle.py",
        "cycle",
    ),
    "closes": ("import os\nos.closerange(3, 1000)\n", "FLX-2007", "closes.py", "os.closerange"),
    "becomes": ("import os\nos.execvp('sleep', ['sleep', '60'])\n", "FLX-2007", "becomes.py", "os.exec"),
    "untellable": (
        "from fluxd import DAG\nwith DAG('d', schedule=None) as dag:\n    pass\ndag.description = object()\n",
        "FLX-1047",
        "untellable.py",
        "not JSON",
    ),
    "vast": (
        "from fluxd import DAG\nwith DAG('d', schedule=None, description='x' * 70_000_000):\n    pass\n",
        "FLX-1047",
        "vast.py",
        "above the limit",
    ),
    "recursion": ("def f():\n    f()\nf()\n", "FLX-2003", "recursion.py, line 2", "RecursionError"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named_with_line_and_reason(rig: Rig, kind: str) -> None:
    text, code, place, words = BROKEN[kind]
    answer = rig.load(f"{kind}.py", text, timeout_s=1.0 if "1 s" in words else 20.0, memory_mb=200)
    error = answer["error"]
    assert error["code"].startswith(code), error
    assert place in error["message"], error
    assert any(word in error["message"] for word in words.split("|")), error
    assert (answer["bundle"] is None or isinstance(answer["bundle"], str)) and answer["dags"] == []
    assert "/fluxd/" not in error["traceback"], "only the user's own frames are shown"


def test_a_file_that_is_not_there_or_not_text(rig: Rig) -> None:
    assert "No such file" in rig.load("gone.py")["error"]["message"]
    (rig.dags / "binary.py").write_bytes(b"\xff\xfe\x00\x01")
    assert rig.load("binary.py")["error"]["code"] in ("FLX-2001", "FLX-2009")
    (rig.dags / "latin.py").write_bytes("# -*- coding: latin-1 -*-\nNAME = 'café'\n".encode("latin-1") + GOOD.encode())
    answer = rig.load("latin.py")
    assert answer["error"] is None, answer["error"]
    assert "café" in answer["files"]["latin.py"]


def test_an_error_in_a_module_names_the_module(rig: Rig) -> None:
    rig.write("_parts/broken.py", "x = 1\ny = x / 0\n")
    error = rig.load("imports_broken.py", "import _parts.broken\n")["error"]
    assert (error["file"], error["line"]) == ("_parts/broken.py", 2)
    assert "ZeroDivisionError" in error["message"]
    assert "imports_broken.py" in error["traceback"]


def test_a_good_file_gives_specs_and_its_bundle(rig: Rig) -> None:
    rig.write("_shared/__init__.py", "")
    rig.write("_shared/names.py", "NAME = 'from a module'\n")
    text = GOOD.replace('"good"', "NAME.replace(' ', '_')").replace(
        "from fluxd", "from _shared.names import NAME\nfrom fluxd"
    )
    answer = rig.load("uses_module.py", text)
    assert answer["error"] is None, answer["error"]
    assert set(answer["files"]) == {"uses_module.py", "_shared/__init__.py", "_shared/names.py"}
    assert answer["files"]["uses_module.py"] == text
    assert [dag_from_json(spec).dag_id for spec in answer["dags"]] == ["from_a_module"]
    assert answer["seconds"] < 5
    again = rig.load("uses_module.py")
    assert again["bundle"] == answer["bundle"]
    rig.write("_shared/names.py", "NAME = 'other'\n")
    assert rig.load("uses_module.py")["bundle"] != answer["bundle"]


def test_dags_of_another_dag_file_are_not_those_of_the_file_that_imports_it(rig: Rig) -> None:
    rig.write("base.py", GOOD.replace('"good"', '"base"'))
    answer = rig.load("importer.py", "import base\n" + GOOD.replace('"good"', '"importer"'))
    assert [spec["dag_id"] for spec in answer["dags"]] == ["importer"]
    assert "base.py" in answer["files"]
    rig.write(
        "_factory.py", "from fluxd import DAG\ndef make(name):\n    return DAG(name, schedule=None)\nmake('f1')\n"
    )
    answer = rig.load("made.py", "from _factory import make\nmake('f2')\n")
    assert [spec["dag_id"] for spec in answer["dags"]] == ["f1", "f2"]


def test_the_name_of_a_library_is_no_trap(rig: Rig, fence: int) -> None:
    answer = rig.load("json.py", "import json\nassert json.loads('1') == 1\n" + GOOD.replace('"good"', '"json"'))
    assert answer["error"] is None, answer["error"]
    answer = rig.load("my-own.dag.py", GOOD.replace('"good"', '"odd-name"'))
    assert answer["error"] is None, answer["error"]
    assert rig.run(1000 + fence, loaded=answer)["outcome"]["state"] == "success"


def test_a_file_in_a_folder_with_relative_imports(rig: Rig) -> None:
    rig.write("team/__init__.py", "")
    rig.write("team/names.py", "NAME = 'team'\n")
    answer = rig.load("team/dag.py", "from .names import NAME\n" + GOOD.replace('"good"', "NAME"))
    assert answer["error"] is None, answer["error"]
    assert set(answer["files"]) == {"team/__init__.py", "team/names.py", "team/dag.py"}


def test_what_a_file_prints_is_kept_and_warned_of(rig: Rig) -> None:
    answer = rig.load("prints.py", "import sys\nprint('hello')\nprint('there', file=sys.stderr)\n" + GOOD)
    assert answer["error"] is None
    assert answer["printed"] == "hello\nthere\n"
    assert any("prints" in warning for warning in answer["dags"][0]["warnings"])


def test_threads_of_an_import_are_warned_of_and_attempts_get_a_process_of_their_own(rig: Rig, fence: int) -> None:
    text = """
        import os, threading
        from fluxd import DAG, task
        IMPORTED_IN = os.getpid()
        lock = threading.Lock()
        def hold():
            with lock:
                threading.Event().wait()
        threading.Thread(target=hold, daemon=True).start()
        with DAG("threads", schedule=None):
            @task
            def t():
                return [IMPORTED_IN, os.getpid(), threading.active_count()]
            t()
        """
    loaded = rig.load("threads.py", text)
    assert any("1 thread" in warning for warning in loaded["dags"][0]["warnings"])
    for number in (1, 2):
        rig.to.send(rig.order(2000 + 10 * fence + number, loaded=loaded))
        assert rig.to.expect("need_source")["bundle"] == loaded["bundle"]
        rig.to.send({"type": "source", "bundle": loaded["bundle"], "file": loaded["file"], "files": loaded["files"]})
        ended = rig.to.expect("ended", fence=2000 + 10 * fence + number)
        assert ended["outcome"]["state"] == "success", ended
        imported_in, pid, threads = ended["outcome"]["xcoms"][0][1]
        assert imported_in == pid == ended["pid"]
        assert threads == 2


def test_processes_of_an_import_end_with_it(rig: Rig) -> None:
    text = "import subprocess, pathlib\np = subprocess.Popen(['setsid', 'sleep', '300'])\n"
    text += f"pathlib.Path({str(rig.home / 'pid')!r}).write_text(str(p.pid))\nraise ValueError\n"
    assert rig.load("starts.py", text)["error"]["code"] == "FLX-2003"
    pid = int((rig.home / "pid").read_text())
    until(lambda: not alive(pid), "the end of what the import started")


def test_many_files_load_side_by_side_and_a_hanging_one_holds_up_nobody(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.start()
    try:
        rig.write("hangs.py", "import time\ntime.sleep(300)\n")
        for number in range(40):
            rig.write(f"many{number}.py", GOOD.replace('"good"', f'"many{number}"'))
        load = {"type": "load", "dags_dir": str(rig.dags), "timeout_s": 300.0, "memory_mb": 500}
        rig.to.send(load | {"id": 99, "file": "hangs.py"})
        for number in range(40):
            rig.to.send(load | {"id": number, "file": f"many{number}.py"})
        answers = [rig.to.expect("loaded") for _ in range(40)]
        assert {answer["id"] for answer in answers} == set(range(40))
        assert all(answer["error"] is None for answer in answers)
    finally:
        rig.close()


def test_a_run_uses_the_stored_source_and_not_the_file_of_today(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.start("--hosts-max", "1")
    try:
        rig.write("_version.py", "VERSION = 'old'\n")
        text = "from _version import VERSION\nfrom fluxd import DAG, task\nwith DAG('v', schedule=None):\n"
        text += "    @task\n    def t():\n        raise ValueError(VERSION)\n    t()\n"
        loaded = rig.load("v.py", text)
        host = rig.run(1, loaded=loaded)
        assert "old" in host["outcome"]["error"]["message"]
        rig.load("good.py", GOOD)
        until(lambda: len(children(rig)) == 1, "the host makes room for the newer one")
        rig.write("v.py", "this is no python any more\n")
        rig.write("_version.py", "VERSION = 'new'\n")
        rig.to.send(rig.order(2, loaded=loaded))
        assert rig.to.expect("need_source")["bundle"] == loaded["bundle"]
        rig.to.send({"type": "source", "bundle": loaded["bundle"], "file": loaded["file"], "files": loaded["files"]})
        assert "old" in rig.to.expect("ended", fence=2)["outcome"]["error"]["message"]
        assert "raise ValueError(VERSION)" in rig.logged(2), "the traceback shows the line as it ran"
    finally:
        rig.close()


def test_a_version_that_cannot_be_imported_any_more_fails_with_a_log(rig: Rig, fence: int) -> None:
    first, second = 3000 + 10 * fence, 3001 + 10 * fence
    order = rig.order(first, loaded={"file": "x.py", "bundle": "feed", "dags": [{"dag_id": "x"}]})
    rig.to.send(order)
    rig.to.expect("need_source", bundle="feed")
    rig.to.send({"type": "source", "bundle": "feed", "file": "x.py", "files": {"x.py": "import no_such_library\n"}})
    ended = rig.to.expect("ended", fence=first)
    assert ended["pid"] is None
    assert "no_such_library" in ended["outcome"]["error"]["message"]
    assert "no_such_library" in rig.logged(first)
    rig.to.send(order | {"fence": second})
    rig.to.expect("need_source", bundle="feed")
    rig.to.send({"type": "source", "bundle": "feed", "file": None, "files": {}})
    assert rig.to.expect("ended", fence=second)["outcome"]["error"]["retry"] is False


def test_hosts_are_bounded(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.start("--hosts-max", "3")
    try:
        for number in range(8):
            rig.ask_to_load(rig.write(f"d{number}.py", GOOD.replace('"good"', f'"d{number}"')))
        loaded = [rig.to.expect("loaded") for _ in range(8)]
        until(lambda: len(children(rig)) == 3, "no more hosts than allowed")
        for fence, answer in enumerate(loaded[-3:], 1):
            assert rig.run(fence, loaded=answer)["outcome"]["state"] == "success", "the newest three are kept"
        assert not any(message["type"] == "need_source" for message in rig.to.inbox)
    finally:
        rig.close()


def test_a_host_that_nobody_needs_is_dropped(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.start("--host-idle", "0.05")
    try:
        rig.load("good.py", GOOD)
        until(lambda: len(children(rig)) == 0, "no host when nobody needs one")
    finally:
        rig.close()


def test_two_files_that_import_each_other_are_two_bundles(rig: Rig, fence: int) -> None:
    text = "from fluxd import DAG, task\nimport {other}\nwith DAG('{name}', schedule=None):\n    @task\n"
    text += "    def t(): return '{name}'\n    t()\n"
    for name, other in (("ping", "pong"), ("pong", "ping")):
        rig.write(f"{name}.py", text.format(name=name, other=other))
    for number, name in enumerate(("ping", "pong")):
        loaded = rig.load(f"{name}.py")
        assert loaded["error"] is None
        assert rig.run(1000 + fence + number, loaded=loaded)["outcome"]["xcoms"] == [["return_value", name]]


FORKS = """
import os, time
if os.fork() == 0:
    time.sleep(300)
    os._exit(0)
"""


def test_an_import_that_forks_and_dies_hurts_nobody(rig: Rig) -> None:
    error = rig.load("forks.py", FORKS + "os._exit(3)\n")["error"]
    assert "exit code 3" in error["message"]


def test_a_host_whose_import_forked_may_be_killed(rig: Rig, fence: int) -> None:
    loaded = rig.load("forks.py", FORKS + GOOD.replace("return 1", "time.sleep(300)"))
    began = rig.begin(2000 + fence, loaded=loaded)
    # Before it has this name it is nothing but a child of its host, which ends with it.
    until(lambda: name_of(began["pid"]) == f"flux:{2000 + fence}", "the attempt to have entered its task")
    host = Path(f"/proc/{began['pid']}/stat").read_text().rpartition(")")[2].split()[1]
    os.kill(int(host), signal.SIGKILL)
    until(lambda: began["pid"] in children(rig), "the attempt to be the runner's own")
    rig.to.send({"type": "kill", "fence": 2000 + fence, "reason": "cancel"})
    assert rig.to.expect("ended", fence=2000 + fence)["killed"] == "cancel"


def test_a_param_without_a_default_makes_no_host_fork_for_ever(rig: Rig) -> None:
    text = GOOD.replace("schedule=None", "schedule=None, params={'p': Param(type='string')}")
    before = set(children(rig))
    rig.load("required.py", text.replace("DAG, task", "DAG, Param, task"))
    (host,) = set(children(rig)) - before
    until(lambda: children_of(host), "the child that waits for an order")
    (spare,) = children_of(host)
    rig.load("good.py", GOOD)  # the host had time to make another, did this one not live
    assert children_of(host) == [spare]


def children(rig: Rig) -> list[int]:
    return children_of(rig.pid)


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_import_sees_no_descriptor_of_the_runner(rig: Rig) -> None:
    text = "import os\nFDS = [fd for fd in os.listdir('/proc/self/fd') if os.path.lexists(f'/proc/self/fd/{fd}')]\n"
    text += "raise ValueError([os.readlink(f'/proc/self/fd/{fd}') for fd in FDS])\n"
    message = rig.load("fds.py", text)["error"]["message"]
    assert message.count("socket:") == 1, message
    assert f"{rig.home}/runner/" not in message
