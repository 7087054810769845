"""Log bytes as text: colours become classes of ours, everything else that is not text is gone."""

import random
import re
import shutil
import subprocess
from pathlib import Path

import orjson
import pytest

from fluxd.web.ansi import Piece, pieces
from fluxd.web.render import ENVIRONMENT
from fluxd.web.static_files import FOLDER

CUT = b"\x1b[31"  # the page's script waits for the rest of it
CASES: list[tuple[bytes, list[Piece]]] = [
    (b"plain\nlines\n", [Piece("", "plain\nlines\n")]),
    (b"\x1b[31mred\x1b[0m not", [Piece("a1", "red"), Piece("", " not")]),
    (b"\x1b[1;32mok\x1b[22m ok\x1b[39m.", [Piece("b a2", "ok"), Piece("a2", " ok"), Piece("", ".")]),
    (b"\x1b[91mbright\x1b[m", [Piece("a1", "bright")]),
    (b"\x1b[38;5;196mx\x1b[38;2;1;2;3my\x1b[48;5;31mz", [Piece("", "x"), Piece("", "y"), Piece("", "z")]),
    (b"\x1b[2J\x1b[1;1Hhome\x1b[K", [Piece("", "home")]),
    (b"\x1b]8;;https://evil.example\x07click\x1b]8;;\x07", [Piece("", "click")]),
    (b"\x1b]0;title\x1b\\after", [Piece("", "after")]),
    (b"bell\x07 back\x08 nul\x00 del\x7f", [Piece("", "bell back nul del")]),
    (b"\xff\xfe caf\xc3\xa9", [Piece("", "\ufffd\ufffd caf\u00e9")]),
    ("\u202egnp.exe".encode(), [Piece("", "\ufffdgnp.exe")]),
    (CUT, [Piece("", "[31")]),
    (b"", []),
]


@pytest.mark.parametrize(("data", "wanted"), CASES)
def test_what_is_shown_of_bytes(data: bytes, wanted: list[Piece]) -> None:
    assert pieces(data) == wanted


def test_a_line_that_is_drawn_anew_is_shown_once() -> None:
    assert pieces(b"start\r\n 10 %\r 50 %\r100 %\ndone\r") == [Piece("", "start\n100 %\ndone")]


def test_no_bytes_whatever_become_markup_or_control() -> None:
    chance = random.Random(5)
    parts = [b"\x1b", b"[", b"]8;;", b"31m", b"<script>", b"&", b'"', b"\r", b"\n", b"\xc3", b"\xff", b";", b"m", b"a"]
    template = ENVIRONMENT.from_string(
        "{% for style, text in found %}<i class='{{ style }}'>{{ text }}</i>{% endfor %}"
    )
    for _ in range(2000):
        found = pieces(b"".join(chance.choices(parts, k=40)))
        assert all(re.fullmatch(r"(b ?)?(a[1-8])?", piece.style) for piece in found)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", "".join(piece.text for piece in found))
        page = template.render(found=found)
        assert set(re.findall(r"<[^>]*>", page)) <= set(re.findall(r"<i class='[ab1-8 ]*'>|</i>", page))


def test_a_hostile_line_costs_no_more_than_its_length() -> None:
    for data in (b"\x1b]" * 500_000, b"\x1b[" + b"1;" * 500_000, b"a" * 1_000_000 + b"\r", b"\x1b[38;" * 100_000):
        pieces(data)  # quadratic work would not end within the suite


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
def test_the_script_of_the_page_shows_the_same(tmp_path: Path) -> None:
    """Whatever way the bytes are cut into chunks."""
    (tmp_path / "log.mjs").write_text((FOLDER / "log.js").read_text())
    (tmp_path / "run.mjs").write_text(
        "import { Ansi } from './log.mjs'; import { readFileSync } from 'node:fs';"
        "const out = JSON.parse(readFileSync(0)).map(([bytes, size]) => { const ansi = new Ansi();"
        " const decoder = new TextDecoder(); const found = [];"
        " for (let at = 0; at < bytes.length; at += size) found.push(...ansi.feed("
        "   decoder.decode(new Uint8Array(bytes.slice(at, at + size)), { stream: true })));"
        " return found; }); process.stdout.write(JSON.stringify(out));"
    )
    cases = [(list(data), size) for data, _ in CASES for size in (1, 3, 1000) if data != CUT]
    result = subprocess.run(
        ["node", str(tmp_path / "run.mjs")], input=orjson.dumps(cases), capture_output=True, check=True
    )
    wanted = [joined(found) for data, found in CASES for _ in range(3) if data != CUT]
    assert [joined([Piece(*piece) for piece in found]) for found in orjson.loads(result.stdout)] == wanted


def joined(found: list[Piece]) -> list[Piece]:
    """Neighbours of one style as one piece."""
    merged: list[Piece] = []
    for piece in found:
        if merged and merged[-1].style == piece.style:
            merged[-1] = Piece(piece.style, merged[-1].text + piece.text)
        else:
            merged.append(piece)
    return merged
