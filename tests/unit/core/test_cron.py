"""Every cron expression of the grammar against a matcher that shares nothing with it, written from crontab(5)."""

import subprocess
import sys
from calendar import monthrange
from datetime import date, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fluxd.core.cron import read_cron
from fluxd.core.cronwords import cron_in_words
from fluxd.errors import Invalid

DAYS = [date(2024, 1, 1) + timedelta(days=number) for number in range(366 + 365)]
NAMES = {
    "month": ["", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    "weekday": ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
RANGES = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 7)}


def number_of(name: str, text: str) -> int:
    return int(text) if text.isdigit() else NAMES[name].index(text.lower())


def item_holds(name: str, item: str, value: int, day: date) -> bool:
    """Whether one item of a field holds a value."""
    item = item.lower()
    low, high = RANGES[name]
    last_of_month = monthrange(day.year, day.month)[1]
    if name == "day" and item == "l":
        return value == last_of_month
    if name == "weekday" and item[0] == "l":
        return value % 7 == int(item[1]) and day.day > last_of_month - 7
    if "#" in item:
        weekday, nth = item.split("#")
        return value % 7 == number_of(name, weekday) % 7 and (day.day + 6) // 7 == int(nth)
    body, _, step = item.partition("/")
    if body in ("*", "?"):
        first, last = low, high
    elif "-" in body:
        first, last = (number_of(name, end) for end in body.split("-"))
        last = 7 if name == "weekday" and last == 0 < first else last
    else:
        first = number_of(name, body)
        last = max(first, 6 if name == "weekday" else high) if step else first
    while first <= last:
        if first == value or (name == "weekday" and first % 7 == value % 7):
            return True
        first += int(step or 1)
    return False


def holds(name: str, field: str, value: int, day: date = DAYS[0]) -> bool:
    return any(item_holds(name, item, value, day) for item in field.split(","))


def on_day(expression: str, day: date) -> bool:
    """crontab(5): if both fields are restricted (do not begin with *), either is enough."""
    _, _, number, month, weekday = expression.split()
    by_number = holds("day", number, day.day, day)
    by_weekday = holds("weekday", weekday, day.isoweekday() % 7, day)
    restricted = number[0] not in "*?" and weekday[0] not in "*?"
    fits = (by_number or by_weekday) if restricted else (by_number and by_weekday)
    return holds("month", month, day.month) and fits


def field(name: str, *more: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    low, high = RANGES[name]
    values = st.integers(low, high).map(str)
    if name in NAMES:
        values |= st.sampled_from([word for word in NAMES[name] if word]).flatmap(
            lambda word: st.sampled_from([word, word.upper()])
        )
    steps = st.integers(1, 7 if name == "weekday" else high - low + 1).map(str)
    ranges = st.tuples(values, values).filter(lambda ends: rises(name, *ends)).map("-".join)
    item = st.one_of(
        values,
        ranges,
        st.just("*"),
        st.builds("*/{}".format, steps),
        st.builds("{}/{}".format, values, steps),
        st.builds("{}/{}".format, ranges, steps),
        *more,
    )
    whole = st.lists(item, min_size=1, max_size=3).map(",".join)
    return whole | st.just("?") if name in ("day", "weekday") else whole


def rises(name: str, first: str, last: str) -> bool:
    low, high = number_of(name, first), number_of(name, last)
    return low <= (7 if name == "weekday" and high == 0 < low else high)


EXPRESSIONS = st.tuples(
    field("minute"),
    field("hour"),
    field("day", st.sampled_from("Ll")),
    field("month"),
    field("weekday", st.builds("{}#{}".format, st.integers(0, 7), st.integers(1, 5)), st.sampled_from(["fri#2", "L0"])),
).map(" ".join)


@settings(max_examples=600, deadline=None)
@given(EXPRESSIONS)
@example("0 5-5 * * *")
@example("7-7 * * * *")
@example("* * 3-3 * *")
@example("30-30/5 * * * *")
@example("0 9-9 * * 1-5")
@example("0 0 * mar-mar *")
@example("0 0 * * 0-0")
@example("0 0 * * 7-7")
@example("0 0 * * sun-sun")
@example("0 0 * * sat-sun")
@example("0 0 * * 5-7")
@example("0 0 * * 0-7")
@example("0 0 * * */7")
@example("0 0 */2 * 1")
@example("0 0 1-31 * 1")
@example("0 0 1 * 0-6")
@example("0 0 1 * *,5")
@example("0 0 ? * 1")
@example("0 0 13 * ?")
@example("0 0 L * 1")
@example("0 0 15 * 1#2,L5")
@example("0-59 0-23 1-31 1-12 0-6")
def test_a_cron_expression_means_what_its_manual_says(expression: str) -> None:
    try:
        cron = read_cron(expression)
    except Invalid as error:
        assert error.code == "FLX-1041"
        assert not any(on_day(expression, day) for day in DAYS)
        return
    minute, hour, *_ = expression.split()
    hours = [number for number in range(24) if holds("hour", hour, number)]
    minutes = [number for number in range(60) if holds("minute", minute, number)]
    assert cron.times == tuple(h * 3600 + m * 60 for h in hours for m in minutes)
    assert cron.every_hour == (len(hours) == 24)
    assert [day for day in DAYS if cron.fits(day)] == [day for day in DAYS if on_day(expression, day)]
    assert cron_in_words(cron)


@pytest.mark.parametrize(
    "expression",
    ["0 22-2 * * *", "0 0 * * 5-1", "0 0 * nov-feb *", "0 0 ?,1 * *", "0 0 ?/2 * *", "? * * * *", "0 0 L-3 * *",
     "0 0 * * L", "0 0 * * L7", "0 0 * * 1#0", "0 0 * * 1#6", "0 0 * * 1-5#2", "0 0 * * mo", "0 0 * monday *",
     "0 0 1--3 * *", "0 0 1, * *", "0 0 /2 * *", "0 0 1/ * *", "0 0 1/2/3 * *", "0 0 LW * *", "0 0 * * mon#L",
     "0 0 * jan#1 *", "0 0 * * *#2", "-1 * * * *", "*-5 * * * *", "1-* * * * *", "0 0 * 0x1 *", "\u0661 * * * *",
     "0 0 99999999999999999999 * *", "0 0 1 * 1/8", "5/61 * * * *"],
)  # fmt: skip
def test_what_the_grammar_does_not_have_is_refused(expression: str) -> None:
    with pytest.raises(Invalid, match="FLX-1040"):
        read_cron(expression)


def test_usual_expressions_need_no_croniter() -> None:
    usual = ["0 6 * * *", "*/5 * * * *", "0 0 1 */3 *", "30 8-18/2 * * mon-fri", "0,15,30,45 * * * *", "0 0 l * 7"]
    code = f"import sys\nfrom fluxd.core.cron import read_cron\n[read_cron(e) for e in {usual}]\n"
    code += "assert 'croniter' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
