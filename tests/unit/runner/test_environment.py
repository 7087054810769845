import os
import subprocess
import sys
from pathlib import Path

import pytest

from fluxd.runner import processes
from fluxd.runner.environment import clean_environment
from tests.fluxd_process import until


def test_only_what_is_no_secret_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("FLUXD__DATABASE__URL", "FLUXD_DATABASE_URL", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "secret")
    for name in ("FLUX_CONN_X", "FLUX_VAR_X", "LC_ALL", "PYTHONINSPECT", "NOTIFY_SOCKET", "LISTEN_FDS"):
        monkeypatch.setenv(name, "secret")
    for name in ("TZ", "PYTHONPATH", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "wanted")
    kept = clean_environment(tmp_path)
    assert "secret" not in kept.values()
    assert {"TZ", "PYTHONPATH", "VIRTUAL_ENV", "PATH"} <= kept.keys()
    assert kept["LANG"] == "C.UTF-8"
    assert kept["FLUX_RUNNER"] == str(tmp_path)


def test_a_process_is_known_by_its_start() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        seen = processes.since_boot()
        assert processes.alive(child.pid, seen)
        assert not processes.alive(child.pid, seen - 60)
        assert child.pid in processes.children()
    finally:
        child.kill()
        child.wait()
    assert not processes.alive(child.pid, seen)


def test_whose_a_process_is_whatever_it_makes_of_itself(tmp_path: Path) -> None:
    code = (
        "import sys, subprocess; from fluxd.runner import processes as p; n = p.mark_home(sys.argv[1])\n"
        "for fence in (0, 12):\n    p.mark_attempt(fence)\n"
        "    c = subprocess.Popen(['setsid', 'env', '-i', '/bin/sleep', '60'], stdout=-3, stderr=-3)\n"
        "    print(n, c.pid)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    (number, of_none), (_, of_attempt) = (tuple(map(int, line.split())) for line in told.splitlines())
    try:
        assert processes.fence_of(of_none, number) == processes.IMPORT
        assert processes.fence_of(of_attempt, number) == 12
        assert processes.marked(number) == {of_none: processes.IMPORT, of_attempt: 12}
        assert processes.fence_of(of_attempt, number - 1) is None, "it is of another home"
        assert processes.fence_of(2**22 + 1, number) is None
    finally:
        processes.end_attempt(number, 12)
        os.kill(of_none, 9)
    until(lambda: not processes.marked(number), "the end of both")


def test_the_runner_is_light() -> None:
    heavy = {
        "asyncio",
        "aiohttp",
        "asyncpg",
        "anyio",
        "uvloop",
        "orjson",
        "jinja2",
        "click",
        "rich",
        "logging",
        "random",
    }
    code = f"import sys, fluxd.runner.server; print(sorted(set(sys.modules) & {heavy!r}))"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"
