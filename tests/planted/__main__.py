"""`python -m tests.planted [--seeds N] [--only TEXT] [--table FILE]`: who catches each bug that is put in on purpose?

Each bug is put into a copy of the tree; the simulation and the unit tests of the room are run there.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.planted.bugs import BUGS, Bug

ROOT = Path(__file__).parent.parent.parent
UNITS = (
    "tests/unit/core",
    "tests/unit/test_engine.py",
    "tests/unit/test_launch.py",
    "tests/unit/test_sensing.py",
    "tests/unit/store/test_turns.py",
)
SIM_SECONDS, UNIT_SECONDS = 240, 240
# The first of these starts is where most bugs show.
FIRST_SEED = 1


def plant(bug: Bug, tree: Path) -> None:
    path = tree / "fluxd" / bug.file
    text = path.read_text(encoding="utf-8")
    assert text.count(bug.old) == 1, f"{bug.name}: its text is {text.count(bug.old)} times in {bug.file}"
    path.write_text(text.replace(bug.old, bug.new), encoding="utf-8")


def by_simulation(tree: Path, seeds: int) -> str:
    """How the simulation catches it, in words; empty: it does not."""
    command = [sys.executable, "-m", "tests.sim", "--seeds", str(seeds), "--start", str(FIRST_SEED), "--first"]
    try:
        done = _run(command, tree, SIM_SECONDS)
    except subprocess.TimeoutExpired:
        return "does not end"
    if done.returncode == 0:
        return ""
    found = re.findall(r"^(?:tests\.sim\.\w+\.)?(\w+: .{0,60}|Stuck\b.{0,60})", done.stderr, re.M)
    seed = re.search(r"--replay (\d+)", done.stderr)
    return f"seed {seed[1] if seed else '?'}: {found[-1] if found else done.stderr[-60:]}"


def by_units(tree: Path) -> str:
    units = [path for path in UNITS if (tree / path).exists()]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *units]
    try:
        done = _run(command, tree, UNIT_SECONDS)
    except subprocess.TimeoutExpired:
        return "does not end"
    if done.returncode == 0:
        return ""
    found = re.search(r"^(?:FAILED|ERROR) (?:\S+::)?(\w+)", done.stdout, re.M)
    return found[1] if found else "fails"


def _run(command: list[str], tree: Path, seconds: float) -> "subprocess.CompletedProcess[str]":
    # Not the installed package: the copy.
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=seconds)


def copied(source: Path, tree: Path) -> None:
    for name in ("fluxd", "tests", "etc"):
        shutil.copytree(source / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(source / "pyproject.toml", tree)


def judge(bug: Bug, source: Path, seeds: int, units: bool) -> tuple[str, str]:
    with tempfile.TemporaryDirectory(prefix="fluxd-planted-") as folder:
        tree = Path(folder)
        copied(source, tree)
        plant(bug, tree)
        return by_simulation(tree, seeds), by_units(tree) if units else ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1500, help="how many lives the simulation gets")
    parser.add_argument("--only", default="", help="only bugs with this in their name")
    parser.add_argument("--no-units", action="store_true", help="the simulation alone")
    parser.add_argument("--table", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    lines = ["| bug | in | the simulation | unit tests |", "| --- | --- | --- | --- |"]
    seen = caught = simulated = 0
    # The tree as it is now: somebody may go on working in it.
    still = tempfile.TemporaryDirectory(prefix="fluxd-still-")
    source = Path(still.name)
    copied(ROOT, source)
    if found := by_simulation(source, arguments.seeds):
        print(f"Nothing is planted, and yet: {found}")
        return 1
    for bug in BUGS:
        if arguments.only not in bug.name:
            continue
        sim, units = judge(bug, source, arguments.seeds, not arguments.no_units)
        seen, simulated, caught = seen + 1, simulated + bool(sim), caught + bool(sim or units)
        lines.append(f"| {bug.name} | `{bug.file}` | {_cell(sim)} | {_cell(units)} |")
        print(lines[-1], flush=True)
    summary = f"{caught} of {seen} caught, {simulated} by the simulation alone."
    print(summary)
    still.cleanup()
    if arguments.table:
        arguments.table.write_text("\n".join([*lines, "", summary, ""]), encoding="utf-8")
    return 0 if caught == seen else 1


def _cell(text: str) -> str:
    shown = re.sub(r"\s*(of |and is )?\[?(Instance|Run|Attempt|SkipRow)\(.*", "", text)
    return " ".join(shown.replace("|", "/").split()) or "**no**"


if __name__ == "__main__":
    sys.exit(main())
