"""How things look for people: tables, states by shape and colour, times in the local zone, durations.

rich is imported only when a terminal looks at us; a pipe gets plain columns that nothing wraps or cuts.
"""

import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from datetime import time as clock_time
from typing import Any

from fluxd.core import causes

# State -> (shape, colour): the shape says it too, for eyes and terminals without colour.
STATES: dict[str, tuple[str, str]] = {
    "success": ("●", "green"),
    "failed": ("✗", "red"),
    "upstream_failed": ("⊘", "yellow"),
    "running": ("▶", "cyan"),
    "queued": ("◌", "blue"),
    "scheduled": ("◌", "blue"),
    "waiting": ("◷", "magenta"),
    "up_for_retry": ("↻", "yellow"),
    "restarting": ("↻", "cyan"),
    "skipped": ("○", "bright_black"),
    "cancelled": ("■", "bright_black"),
    "removed": ("·", "bright_black"),
    "none": ("·", "bright_black"),
    "paused": ("‖", "bright_black"),
    "lost": ("✗", "red"),
    "ok": ("●", "green"),
    "warn": ("▲", "yellow"),
    "bad": ("✗", "red"),
}


@dataclass(frozen=True, slots=True)
class Styled:
    """Text in a colour."""

    text: str
    style: str


Cell = str | Styled | int | None


def state(name: str | None) -> Styled:
    """A state with its shape and colour."""
    if name is None:
        return Styled("·", "bright_black")
    shape, colour = STATES.get(name, ("?", "red"))
    return Styled(f"{shape} {name}", colour)


def clean(text: str) -> str:
    """Without control characters: what tasks and files say must not steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def instant(text: str | None) -> datetime | None:
    """A time of the API."""
    return None if text is None else datetime.fromisoformat(text)


def zone() -> str:
    """The names of the local time zone, for the head of a column: CET/CEST."""
    return "/".join(dict.fromkeys(time.tzname)) if time.daylight else time.tzname[0]


def when(text: str | None) -> str:
    """A time of the API in the local zone: 2026-01-02 07:00:00; minutes only where there are no seconds."""
    at = instant(text)
    return "" if at is None else f"{at.astimezone():%Y-%m-%d %H:%M:%S}".removesuffix(":00")


def when_in_full(text: str | None) -> str:
    """A time with its zone and how long ago it was: 2026-01-02 07:00:05 CET (3 m 20 s ago)."""
    at = instant(text)
    if at is None:
        return ""
    seconds = (datetime.now(UTC) - at).total_seconds()
    away = f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S %Z} ({away})"


def duration(seconds: float | None) -> str:
    """0.04 s · 8.3 s · 42 s · 3 m 20 s · 2 h 05 m · 3 d 4 h."""
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole // 60 % 60:02d} m"
    return f"{whole // 86400} d {whole // 3600 % 24} h"


def took(started: str | None, ended: str | None) -> str:
    """How long it ran, until now where it still does."""
    begin, end = instant(started), instant(ended)
    return "" if begin is None else duration(((end or datetime.now(UTC)) - begin).total_seconds())


def covers(run: dict[str, Any]) -> str:
    """What a run covers, with both clock times and one zone, the local one: 2026-01-01 06:00 → 2026-01-02 06:00 CET."""
    start, end = instant(run["data_interval_start"]), instant(run["data_interval_end"])
    if start is None or end is None:
        return ""
    start, end = start.astimezone(), end.astimezone()
    zones = "/".join(dict.fromkeys((f"{start:%Z}", f"{end:%Z}")))
    if start == end:
        return f"{when(run['data_interval_start'])} {zones}"
    if start.time() == end.time() == clock_time():
        return f"{start:%Y-%m-%d} → {end:%Y-%m-%d} {zones}"
    right = f"{end:%H:%M}" if start.date() == end.date() else f"{end:%Y-%m-%d %H:%M}"
    return f"{start:%Y-%m-%d %H:%M} → {right} {zones}"


def cause(reason: str | None) -> str | None:
    """Why something failed: what happened, then the task, then the code."""
    return None if reason is None else str(causes.cause(reason))


def counted(count: int, one: str) -> str:
    """1 run · 3 runs."""
    return f"{count} {one}{'' if count == 1 else 's'}"


def _plain(cell: Cell) -> str:
    text = cell.text if isinstance(cell, Styled) else "" if cell is None else str(cell)
    return clean(text)


def out(text: str = "") -> None:
    """A line on stdout."""
    sys.stdout.write(text + "\n")


# Columns that may be broken over lines, and how narrow they may become.
SENTENCES = {"REASON", "NOTE", "SCHEDULE", "COVERS", "WORDS", "HOW IT IS", "NEXT STEP", "WHY", "DESCRIPTION"}
SENTENCE_MIN = 16
# Columns that a narrow terminal does without, the first to go first.
SPARED = ("TYPE", "OPERATOR", "LIVE", "MEMORY", "TOOK", "COVERS", "LAST RUN", "SCHEDULE")


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], empty: str) -> None:
    """Rows under their columns; the sentence `empty` where there are none."""
    if not rows:
        out(empty)
    elif sys.stdout.isatty():
        _rich_table(columns, rows)
    else:
        texts = [[_plain(cell).replace("\n", " ") for cell in row] for row in rows]
        widths = [max(len(column), *(len(row[place]) for row in texts)) for place, column in enumerate(columns)]
        for line in [list(columns), *texts]:
            out("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    texts = [[_plain(cell) for cell in row] for row in rows]
    kept = fitting(columns, texts, console.width)
    if room(columns, texts, kept) > console.width:
        _stacked(columns, rows, console.width)
        return
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for place in kept:
        # What is copied, or read at a glance, is never broken over lines.
        grid.add_column(columns[place], no_wrap=columns[place] not in SENTENCES, overflow="fold")
    for row in rows:
        cells = [row[place] for place in kept]
        grid.add_row(*(Text(_plain(cell), style=cell.style if isinstance(cell, Styled) else "") for cell in cells))
    console.print(grid, crop=False)


def fitting(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The columns that a terminal of this width has room for: on a narrow one the less important ones go."""
    kept = list(range(len(columns)))

    for name in SPARED:
        if room(columns, rows, kept) <= width:
            break
        kept = [place for place in kept if columns[place] != name]
    return kept


def room(columns: Sequence[str], rows: Sequence[Sequence[str]], kept: Sequence[int]) -> int:
    """The least width in which these columns stand beside one another with nothing cut off."""

    def taken(place: int) -> int:
        longest = max(len(columns[place]), *(len(row[place]) for row in rows))
        return 2 + (min(longest, SENTENCE_MIN) if columns[place] in SENTENCES else longest)

    return sum(map(taken, kept)) - 2


def _stacked(columns: Sequence[str], rows: Sequence[Sequence[Cell]], width: int) -> None:
    """Where columns have no room: each row as lines of its own. Its state and its name come first."""
    order = sorted(range(len(columns)), key=lambda place: columns[place] != "STATE")
    head = [place for place in order if columns[place] == "STATE" or place == 0]
    label = max(len(columns[place]) for place in order)
    for number, row in enumerate(rows):
        if number:
            out()
        for place in head:
            for line in folded(_plain(row[place]), width):
                out(_coloured(line, row[place]))
        for place in order:
            if place in head or not (text := _plain(row[place])):
                continue
            beside = width - label - 4 >= SENTENCE_MIN
            lines = folded(text, width - label - 4 if beside else width - 2)
            if not beside:
                out(f"  {columns[place]}"[:width])
            for index, line in enumerate(lines):
                before = "  " + (columns[place] if not index else "").ljust(label) + "  " if beside else "  "
                out(before + _coloured(line, row[place]))


def _coloured(text: str, cell: Cell) -> str:
    return paint(text, cell.style) if isinstance(cell, Styled) else text


def folded(text: str, width: int) -> list[str]:
    """The text in lines of this width at most; words stay whole where they can, and nothing is left out."""
    return [
        line
        for part in text.split("\n")
        for line in textwrap.wrap(part, max(1, width), break_on_hyphens=False, drop_whitespace=True) or [""]
    ]


def facts(pairs: Sequence[tuple[str, Cell]]) -> None:
    """Names and values below one another; what is empty is left out."""
    shown = [(name, value) for name, value in pairs if value not in (None, "")]
    width = max((len(name) for name, _ in shown), default=0)
    colours = sys.stdout.isatty()
    for name, value in shown:
        text = _plain(value).replace("\n", "\n" + " " * (width + 2))
        if colours:
            text = paint(text, value.style) if isinstance(value, Styled) else text
        out(f"{name.ljust(width)}  {text}")


ANSI = {"green": 32, "red": 31, "yellow": 33, "cyan": 36, "blue": 34, "magenta": 35, "bright_black": 90, "bold": 1}


def paint(text: str, style: str) -> str:
    """Text in a colour of the terminal."""
    return f"\x1b[{ANSI.get(style, 0)}m{text}\x1b[0m"
