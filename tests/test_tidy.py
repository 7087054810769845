"""The house rules, kept by a test: sizes, purity of the core, imports, docstrings, names, settings in the docs."""

import ast
import re
import subprocess
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from fluxd import config

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "fluxd").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
# A file or a function above the limit wants a reason, written here.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}

IMPURE_MODULES = {
    "asyncio",
    "time",
    "random",
    "os",
    "socket",
    "subprocess",
    "threading",
    "uuid",
    "secrets",
    "io",
    "pathlib",
}
IMPURE_CALLS = {"now", "utcnow", "today", "open", "print", "input", "getenv"}


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", SOURCES, ids=names)
def test_file_is_small_or_has_a_reason(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert (lines > FILE_LINES_MAX) == (names(path) in LONG_FILES), f"{lines} lines"


@pytest.mark.parametrize("path", SOURCES, ids=names)
def test_functions_are_small_or_have_a_reason(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            name = f"{names(path)}:{node.name}"
            assert (lines > FUNCTION_LINES_MAX) == (name in LONG_FUNCTIONS), f"{name} has {lines} lines"


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parent.name == "core"], ids=names)
def test_core_is_pure(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & IMPURE_MODULES
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in IMPURE_MODULES
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert called not in IMPURE_CALLS, f"line {node.lineno} calls {called}"
        assert not isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.Global)


@pytest.mark.parametrize("path", SOURCES, ids=names)
def test_no_import_of_our_own_inside_a_function(path: Path) -> None:
    for function in ast.walk(tree(path)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0 and (node.module or "").split(".")[0] != "fluxd", f"line {node.lineno}"
            elif isinstance(node, ast.Import):
                assert all(alias.name.split(".")[0] != "fluxd" for alias in node.names), f"line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=names)
def test_every_module_says_why_it_exists(path: Path) -> None:
    assert len(ast.get_docstring(tree(path)) or "") > 20


def test_no_rooms_without_a_subject() -> None:
    assert not [names(p) for p in SOURCES + TESTS if re.search(r"util|helper|misc|common", p.stem)]


def test_every_setting_is_in_the_sample_with_its_default_and_a_sentence() -> None:
    path = ROOT / "etc" / "fluxd.toml"
    text = path.read_text(encoding="utf-8")
    written = {
        (section, key): value for section, entries in tomllib.loads(text).items() for key, value in entries.items()
    }
    known = {
        (section, f.name): list(f.default) if isinstance(f.default, tuple) else f.default
        for section, cls in config.SECTIONS.items()
        for f in fields(cls)
    }
    assert written == known
    assert len(known) <= 40
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if re.match(r"[a-z_]+ = ", line):
            assert re.match(r"# .{15,}[.)]$", lines[number - 1]), f"{line!r} has no sentence above it"


def test_every_error_code_has_one_place_in_the_list() -> None:
    """docs/errors.md lists exactly the codes that the program can say."""
    used = {code for path in SOURCES for code in re.findall(r"FLX-\d{4}", path.read_text(encoding="utf-8"))}
    used -= {"FLX-0000"}
    listed = re.findall(r"^\| (FLX-\d{4}) ", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), re.M)
    assert sorted(set(listed)) == listed
    assert sorted(used) == listed


def test_no_package_registry_and_no_foreign_path_is_named() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in tracked.stdout.split():
        path = ROOT / name
        if (
            path.suffix in {".py", ".toml", ".txt", ".md", ".cfg", ".yml", ""}
            and path.is_file()
            and path != Path(__file__)
        ):
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not re.search(r"index-url|pypi\.org|pythonhosted|registry\.npm|deb\.debian", text), name
