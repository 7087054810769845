"""The documentation tells the truth: its examples run, its tables name what there is."""

import re
from pathlib import Path

import pytest

from fluxd import DAG
from fluxd.authoring import macros, testing
from fluxd.authoring.environments import FILTERS
from fluxd.authoring.names import CONTEXT_NAMES
from fluxd.authoring.policy import TASK_ARGUMENTS
from fluxd.core.rules import RULES

ROOT = Path(__file__).parents[3]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
EXAMPLES = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
    for number, block in enumerate(BLOCK.findall(path.read_text(encoding="utf-8")), start=1)
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_the_docs_run(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLUX_VAR_BUCKET", "FLUX_CONN_WAREHOUSE"):
        monkeypatch.setenv(name, "")  # put back what it was after the example has set it
    file = tmp_path / "example.py"
    file.write_text(example)
    for dag in testing.load_file(file):
        assert dag.to_spec()["warnings"] == []
        if "Sensor(task_id" not in example or "BaseSensor" in example:
            assert dag.test("2026-01-05").state == "success"


@pytest.mark.parametrize("name", ["hello", "dynamic"])
def test_examples_of_the_dags_folder_run(name: str) -> None:
    dags = testing.load_file(ROOT / "etc" / "dags" / f"{name}.py")
    assert [dag.test("2026-01-05").state for dag in dags] == ["success"] * len(dags)


def test_hello_has_ten_lines() -> None:
    lines = (ROOT / "etc" / "dags" / "hello.py").read_text().splitlines()
    assert len([line for line in lines if line]) <= 10


def test_every_name_filter_and_macro_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "templates.md").read_text(encoding="utf-8")
    names = text.partition("## Names")[2].partition("## Filters")[0]
    written = {
        name for row in re.findall(r"^\| (`.*?) \|", names, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert written == CONTEXT_NAMES
    filters = text.partition("## Filters")[2].partition("## Macros")[0]
    assert {
        name for row in re.findall(r"^\| (`.*?) \|", filters, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    } == set(FILTERS)
    assert set(re.findall(r"`macros\.(\w+)", text)) == set(macros.__all__)


def test_every_argument_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "writing-dags.md").read_text(encoding="utf-8")
    written = set(re.findall(r"`(\w+)`", text))
    assert TASK_ARGUMENTS - {"dag", "task_group"} <= written
    assert set(DAG.__init__.__annotations__) - {"older", "return"} <= written
    assert set(RULES) <= set(text.split("`all_success ")[1].split("`")[0].split()) | {"all_success"}
