"""The signs of states can be told from every ground they stand on, in light and in dark (WCAG 1.4.11: 3 to 1)."""

import re

import pytest

from fluxd.core.states import State
from fluxd.web.static_files import FOLDER

CSS = (FOLDER / "flux.css").read_text()
TOKENS = {
    name: (light.strip(), dark.strip())
    for name, light, dark in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", CSS)
}
GROUNDS = ("ground", "surface", "raised", "accent-ground")  # the page, a panel, a row pointed at, a row with focus
TEXTS = ("text", "soft", "faint", "failed", "accent", "warn")


def light_of(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((light_of(one), light_of(other)))
    return (lighter + 0.05) / (darker + 0.05)


def worst(name: str) -> float:
    return min(contrast(TOKENS[name][mode], TOKENS[ground][mode]) for ground in GROUNDS for mode in (0, 1))


@pytest.mark.parametrize("state", [*State, "lost"])
def test_each_state_is_seen_on_each_ground(state: str) -> None:
    [rule] = re.findall(rf"[^\n]*\.s-{state}\b[^\n]*--state: var\(--([\w-]+)\)", CSS)
    assert worst(rule) >= 3


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_read_on_each_ground(name: str) -> None:
    assert worst(name) >= 4.3
