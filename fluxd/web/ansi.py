"""A log's bytes as text to look at: colours that terminals know become classes, all other control is dropped.

What comes out is text and names of classes from a fixed list; the template escapes the text. The page's script does
the same for what comes later (`static/log.js`).
"""

import re
from typing import NamedTuple

# CSI … letter | OSC … (BEL or ESC \) | other two-character sequences
ESCAPE = re.compile(
    r"\x1b(?:\[([0-?]*)[ -/]*([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[@-Z\\^_0-9=>])"
)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Characters that turn the direction of text, and so can show a line as what it is not.
BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")


class Piece(NamedTuple):
    """Text in one style: `style` is a list of classes, b (bold) and a1…a8 (colours)."""

    style: str
    text: str


def pieces(data: bytes) -> list[Piece]:
    """The text of a log, or of a part of it."""
    text = _drawn(data.decode("utf-8", "replace"))
    found: list[Piece] = []
    bold, colour, at = False, 0, 0
    for match in ESCAPE.finditer(text):
        _add(found, bold, colour, text[at : match.start()])
        at = match.end()
        if match[2] == "m":
            bold, colour = _styled(bold, colour, match[1] or "")
    _add(found, bold, colour, text[at:])
    return found


def _drawn(text: str) -> str:
    """A carriage return draws a line anew (progress bars): what stood there before is not shown."""
    if "\r" not in text:
        return text
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def _add(found: list[Piece], bold: bool, colour: int, text: str) -> None:
    text = BIDI.sub("\ufffd", CONTROL.sub("", text))
    if text:
        found.append(Piece(f"{'b ' if bold else ''}{f'a{colour}' if colour else ''}".strip(), text))


def _styled(bold: bool, colour: int, codes: str) -> tuple[bool, int]:
    """Bold and colour after these codes. 256 and true colours are left out, with their arguments."""
    numbers = [int(code) if code.isdecimal() and len(code) < 4 else 0 for code in codes.split(";")]
    while numbers:
        code = numbers.pop(0)
        if code == 0:
            bold, colour = False, 0
        elif code in (1, 22):
            bold = code == 1
        elif 31 <= code <= 37 or 91 <= code <= 97:
            colour = code % 10
        elif code in (30, 90):
            colour = 8
        elif code == 39:
            colour = 0
        elif code in (38, 48):
            del numbers[: 2 if numbers[:1] == [5] else 4]
    return bold, colour
