"""Descriptions as Markdown: what becomes an element, and that nothing else does."""

import html.parser
import time

import pytest

from fluxd.web.markdown import blocks
from fluxd.web.render import ENVIRONMENT

TEXT = """
    # What it does

    Loads *orders* and __not__ `x < y`, **each day**
    after [the export](https://example.net/a?b=1&c=2).

    - first, see http://example.net/x.
    - second
      goes on
    1. one

        SELECT 1
          FROM orders

    ```
    raw *stars*

    after a gap
    ```
    last_name_here stays
"""


def page(text: str) -> str:
    return str(ENVIRONMENT.from_string('{% from "parts.html" import doc %}{{ doc(text) }}').render(text=text))


def test_what_is_written_is_shown() -> None:
    kinds = [(block.kind, len(block.lines)) for block in blocks(TEXT)]
    assert kinds == [("h3", 1), ("p", 1), ("ul", 2), ("ol", 1), ("pre", 1), ("pre", 1), ("p", 1)]
    shown = page(TEXT)
    assert "<h3>What it does</h3>" in shown
    assert "<em>orders</em> and __not__ <code>x &lt; y</code>, <strong>each day</strong>" in shown
    assert '<a href="https://example.net/a?b=1&amp;c=2" rel="noopener noreferrer">the export</a>.' in shown
    assert '<a href="http://example.net/x" rel="noopener noreferrer">http://example.net/x</a>.' in shown
    assert "<li>second\ngoes on</li>" in shown
    assert "<pre>SELECT 1\n  FROM orders</pre>" in shown
    assert "<pre>raw *stars*\n\nafter a gap</pre>" in shown
    assert "last_name_here stays" in shown


class Elements(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        for name, value in attrs:
            assert (name, value) in (("class", "doc"), ("rel", "noopener noreferrer")) or (
                name == "href" and (value or "").startswith(("http://", "https://"))
            ), (name, value)


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "`<img src=x onerror=alert(1)>`",
        "**<b>** *<i>* _<u>_",
        "[click](javascript:alert(1))",
        '[click](https://a.example/"onmouseover="alert(1))',
        "[<img src=x>](https://a.example/)",
        "https://a.example/'><script>alert(1)</script>",
        "[a](data:text/html,<script>)",
        "[a](//a.example)",
        "```\n</pre><script>\n```",
        "    </pre><script>",
        "# <h1 onclick=x>",
        "- <li onclick=x>\n1. <p>",
        "<http://a.example> &lt; &amp;",
    ],
)
def test_nothing_of_the_text_becomes_markup(text: str) -> None:
    elements = Elements()
    elements.feed(page(text))
    assert elements.seen <= {"div", "h3", "p", "ul", "ol", "li", "pre", "code", "strong", "em", "a"}


@pytest.mark.parametrize("piece", ["[", "*a ", "_a ", "`", "[a](", "https://", "**", "- ", "\n", "# "])
def test_a_long_text_takes_no_long_time(piece: str) -> None:
    begun = time.process_time()
    page(piece * 30_000)
    assert time.process_time() - begun < 5
