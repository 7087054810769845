"""The small part of Markdown that descriptions of dags and tasks use, as plain data: a template makes the elements.

Headings, paragraphs, lists, blocks of code; in their lines code, emphasis and links to http and https. What is anything
else stays the text that it is: no markup of the text ever becomes markup of the page.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from textwrap import dedent

# Each part has a greatest length, so that no text takes more time than its length is worth.
INLINE = re.compile(
    r"`(?P<code>[^`\n]{1,500})`"
    r"|\*\*(?P<strong>[^*\n]{1,500})\*\*"
    r"|\*(?P<em>[^*\s][^*\n]{0,500})\*"
    r"|(?<!\w)_(?P<em_too>[^_\s][^_\n]{0,500})_(?!\w)"
    r"|\[(?P<words>[^\[\]\n]{1,300})\]\((?P<there>https?://[^\s()<>\"']{1,2000})\)"
    r"|(?P<bare>https?://[^\s()<>\"'`*]{1,2000}[^\s()<>\"'`*.,;:!?])"
)
HEADING = re.compile(r"#{1,6} +(.*)")
ITEM = re.compile(r" {0,3}(?:(?P<bullet>[-*+])|\d{1,4}[.)]) +(?P<text>.*)")


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a line: text | code | strong | em | link; `href` is of http or https."""

    kind: str
    text: str
    href: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """h3 | p | ul | ol | pre, with its lines: the items of a list, one for all others."""

    kind: str
    lines: tuple[tuple[Span, ...], ...]


def _spans(text: str) -> tuple[Span, ...]:
    found: list[Span] = []
    at = 0
    for match in INLINE.finditer(text):
        if match.start() > at:
            found.append(Span("text", text[at : match.start()]))
        at = match.end()
        kind = str(match.lastgroup)
        if kind == "bare":
            found.append(Span("link", match[kind], match[kind]))
        elif kind == "there":
            found.append(Span("link", match["words"], match[kind]))
        else:
            found.append(Span(kind.removesuffix("_too"), match[kind]))
    if at < len(text):
        found.append(Span("text", text[at:]))
    return tuple(found)


def _paragraphs(text: str) -> Iterator[tuple[bool, str]]:
    """(is code, lines) of what stands between empty lines, fences taken as one."""
    inside: list[str] = []
    fenced = False
    for line in [*text.splitlines(), ""]:
        fence = line.lstrip().startswith("```")
        if fence or (not fenced and not line.strip()):
            if inside:
                code = fenced or all(one.startswith("    ") for one in inside)
                yield code, "\n".join(inside)
            inside = []
            fenced = fenced != fence
        else:
            inside.append(line)
    if inside:
        yield True, "\n".join(inside)  # a fence without an end


@lru_cache(maxsize=64)
def blocks(text: str) -> tuple[Block, ...]:
    """The blocks of a text, in its order."""
    found: list[Block] = []
    for is_code, part in _paragraphs(dedent(text.expandtabs(4))):
        if is_code:
            found.append(Block("pre", ((Span("text", dedent(part)),),)))
        else:
            found += _lines(part)
    return tuple(found)


def _lines(part: str) -> Iterator[Block]:
    """Headings, lists and paragraphs that stand together without an empty line."""
    kind, gathered = "p", list[str]()

    def block() -> Iterator[Block]:
        if gathered:
            yield Block(kind, tuple(map(_spans, gathered)))

    for line in part.split("\n"):
        heading, item = HEADING.fullmatch(line), ITEM.fullmatch(line)
        if heading:
            yield from block()
            kind, gathered = "p", []
            yield Block("h3", (_spans(heading[1]),))
        elif item:
            wanted = "ul" if item["bullet"] else "ol"
            if kind != wanted:
                yield from block()
                kind, gathered = wanted, []
            gathered.append(item["text"])
        elif gathered:
            gathered[-1] += "\n" + line.strip()
        else:
            gathered.append(line.strip())
    yield from block()
