"""docs/promises.md names tests that are there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROWS = [
    line
    for line in (TESTS.parent / "docs" / "promises.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| promise", "| ---"))
]


@pytest.mark.parametrize("row", ROWS)
def test_each_promise_has_its_tests(row: str) -> None:
    _, promise, tests, _ = re.split(r"(?<!\\)\|", row)
    named = re.findall(r"([\w/]+\.py)(?:::(\w+))?", tests)
    assert promise.strip()
    assert named, "no test is named"
    for file, name in named:
        assert (TESTS / file).is_file(), file
        assert not name or re.search(rf"def {name}\(", (TESTS / file).read_text()), f"{file} has no {name}"


def test_there_are_promises() -> None:
    assert len(ROWS) > 50
