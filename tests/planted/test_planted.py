"""The bugs of the planted table still fit the code: each has a place, and changes it."""

from pathlib import Path

import pytest

from tests.planted.bugs import BUGS, Bug

FLUXD = Path(__file__).parent.parent.parent / "fluxd"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_has_one_place(bug: Bug) -> None:
    text = (FLUXD / bug.file).read_text(encoding="utf-8")
    assert text.count(bug.old) == 1
    assert bug.old != bug.new
    compile(text.replace(bug.old, bug.new), bug.file, "exec")


def test_there_are_forty_different_ones() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 40
    assert len({(bug.file, bug.old, bug.new) for bug in BUGS}) == len(BUGS)
