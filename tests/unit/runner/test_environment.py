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
    for name in ("TZ", "LC_ALL", "PYTHONPATH", "FLUX_VAR_X", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "wanted")
    kept = clean_environment(tmp_path)
    assert "secret" not in kept.values()
    assert {"TZ", "LC_ALL", "PYTHONPATH", "FLUX_VAR_X", "VIRTUAL_ENV", "PATH"} <= kept.keys()
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


def test_whose_a_process_is() -> None:
    def of(**env: str) -> int | None:
        child = subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], **env})
        try:
            until(lambda: any(processes.environ(child.pid)), "the program is executed")
            return processes.fence_of(child.pid)
        finally:
            child.kill()
            child.wait()

    assert of() is None
    assert of(FLUX_RUNNER="/x") == processes.IMPORT
    assert of(FLUX_RUNNER="/x", FLUX_FENCE="12") == 12
    assert processes.fence_of(2**22 + 1) is None


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
