"""The grammar of cron expressions: what each of the five fields may say, and the numbers that it stands for.

Written from crontab(5), with the extensions that docs/writing-dags.md names:

    field    = "?" | item {"," item}           "?" only as a day or a weekday; it means "*"
    item     = "*" ["/" step] | value ["-" value] ["/" step] | last | nth
    value    = number | name of a month | name of a weekday          0 and 7 are Sunday
    last     = "L" (the last day of the month) | "L" weekday (the last such weekday of the month)
    nth      = weekday "#" n                   the n-th such weekday of the month, n is 1 to 5

"5/15" means from 5 on. A range never runs backwards. As in crontab(5), a day or weekday field that begins with `*`
does not limit: only where neither does, a day counts if one of the two fits; else both must.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_VALUE = "[0-9]+|[a-z]+"
_ITEM = re.compile(rf"(?:(?P<star>\*)|(?P<first>{_VALUE})(?:-(?P<last>{_VALUE}))?)(?:/(?P<step>[0-9]+))?")
_LAST_WEEKDAY = re.compile(r"l([0-6])")
_NTH = re.compile(r"([0-9]+|[a-z]+)#([1-5])")


class Unreadable(ValueError):
    """What is wrong with a field, as the rest of a sentence."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the five fields: the numbers from `low` to `high`, and what else it may hold."""

    name: str
    low: int
    high: int
    characters: re.Pattern[str]
    names: tuple[str, ...] = ()

    @property
    def greatest(self) -> int:
        """The greatest number that may be written: Sunday has two."""
        return 7 if self.name == "weekday" else self.high


KINDS = (
    Kind("minute", 0, 59, re.compile(r"[0-9*,/-]+")),
    Kind("hour", 0, 23, re.compile(r"[0-9*,/-]+")),
    Kind("day", 1, 31, re.compile(r"[0-9*?,/l-]+")),
    Kind("month", 1, 12, re.compile(r"[0-9a-z*,/-]+"), MONTHS),
    Kind("weekday", 0, 6, re.compile(r"[0-9a-z*?,/#-]+"), WEEKDAYS),
)


@dataclass(frozen=True, slots=True)
class Field:
    """What a field says: its numbers, whether it limits at all, and its extensions in their normal form."""

    numbers: frozenset[int]
    limits: bool
    extensions: tuple[str, ...] = ()  # "l", "l5", "5#2"


def read_field(kind: Kind, text: str) -> Field:
    """Read one field. Raises Unreadable."""
    lower = text.lower()
    if not kind.characters.fullmatch(lower):
        raise Unreadable(f"its {kind.name} {text!r} has a character that does not belong there")
    if lower == "?":
        lower = "*"
    numbers: set[int] = set()
    extensions: dict[str, None] = {}
    for item in lower.split(","):
        extension = _extension(kind, item)
        if extension is None:
            numbers.update(number % 7 if kind.name == "weekday" else number for number in _numbers(kind, item))
        else:
            extensions[extension] = None
    return Field(frozenset(numbers), not lower.startswith("*"), tuple(extensions))


def _extension(kind: Kind, item: str) -> str | None:
    if kind.name == "day":
        return item if item == "l" else None
    if kind.name != "weekday":
        return None
    if _LAST_WEEKDAY.fullmatch(item):
        return item
    found = _NTH.fullmatch(item)
    return f"{_value(kind, found[1], item) % 7}#{found[2]}" if found else None


def _numbers(kind: Kind, item: str) -> Iterator[int]:
    found = _ITEM.fullmatch(item)
    if found is None:
        raise Unreadable(f"its {kind.name} {item!r} cannot be read")
    step = 1 if found["step"] is None else int(found["step"])
    if step < 1:
        raise Unreadable(f"its {kind.name} step /{found['step']} cannot be read as a step")
    if step > kind.high - kind.low + 1:
        raise Unreadable(f"its {kind.name} step /{found['step']} is longer than all of {kind.low} to {kind.high}")
    if found["star"]:
        return iter(range(kind.low, kind.high + 1, step))
    first = _value(kind, found["first"], item)
    if found["last"] is None:
        last = first if found["step"] is None else max(first, kind.high)
    else:
        last = _value(kind, found["last"], item)
        if kind.name == "weekday" and last == 0 and first > 0:
            last = 7  # sat-sun
        if first > last:
            raise Unreadable(f"its {kind.name} range {found['first']}-{found['last']} runs backwards")
    return iter(range(first, last + 1, step))


def _value(kind: Kind, text: str, item: str) -> int:
    if text.isdecimal():
        number = int(text) if len(text) <= 4 else 10**4
        if not kind.low <= number <= kind.greatest:
            raise Unreadable(f"its {kind.name} {text} is not one of {kind.low} to {kind.greatest}")
        return number
    if text not in kind.names:
        raise Unreadable(f"its {kind.name} {item!r} cannot be read")
    return kind.names.index(text) + kind.low
