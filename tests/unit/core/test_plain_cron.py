"""Plain expressions are read without croniter, and exactly as it reads them."""

import subprocess
import sys

from croniter import CroniterError, croniter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fluxd.core.cron import _plain

numbers = st.integers(0, 65).map(str)
items = st.one_of(
    st.just("*"),
    numbers,
    st.builds("{}-{}".format, numbers, numbers),
    st.builds("*/{}".format, numbers),
    st.builds("{}-{}/{}".format, numbers, numbers, numbers),
    st.builds("{}/{}".format, numbers, numbers),
    st.sampled_from(["?", "L", "mon", "1#2", "00", "07", "-", ""]),
)
parts = st.lists(items, min_size=1, max_size=3).map(",".join)


@settings(max_examples=1500, deadline=None)
@given(st.tuples(parts, parts, parts, parts, parts))
@example(("*/1", "0-23", "1-31", "1-12", "0-6"))
@example(("*/7", "*/7", "*/7", "*/7", "*/2"))
@example(("0", "0", "*", "*", "0-7"))
def test_what_is_read_without_croniter_is_read_as_croniter_does(fields: tuple[str, ...]) -> None:
    found = _plain(list(fields))
    if found is None:
        return
    try:
        assert found == croniter.expand(" ".join(fields))
    except CroniterError as error:
        raise AssertionError(f"croniter refuses {fields}, and we read {found}") from error


def test_usual_expressions_are_plain() -> None:
    usual = ["0 6 * * *", "*/5 * * * *", "0 0 1 */3 *", "30 8-18/2 * * 1-5", "0,15,30,45 * * * *", "0 0 * * 0"]
    code = f"import sys\nfrom fluxd.core.cron import read_cron\n[read_cron(e) for e in {usual}]\n"
    code += "assert 'croniter' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
