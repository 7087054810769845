"""`python -m tests.bench [--only a,c] [--repeat 5] [--json FILE]`: measure, print one table, keep it as JSON."""

import argparse
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fluxd.store import binaries
from tests.bench import catchup, chains, crowd, files, idle, latency, limits, starting, turns
from tests.bench.figures import Figure, short

CASES: dict[str, Callable[[int], list[Figure]]] = {
    "a": chains.fast_links,
    "b": chains.slow_links,
    "c": crowd.measure,
    "d": latency.measure,
    "e": idle.measure,
    "f": starting.measure,
    "g": files.measure,
    "h": catchup.measure,
    "i": limits.measure,
    "j": turns.measure,
}
COLOURS = {"aim": "green", "target": "cyan", "missed": "bold red", "": "default"}


def machine() -> dict[str, Any]:
    """What it was measured on."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    postgres = ".".join(map(str, binaries.installed()[0].version))
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu[1].strip() if cpu else platform.machine(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "postgres": postgres,
        "fluxd": version("fluxd"),
        "load_before": os.getloadavg()[0],
        "at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def table(figures: list[Figure], about: dict[str, Any]) -> Table:
    caption = (
        f"{about['cores']} cores, Python {about['python']}, Postgres {about['postgres']} (embedded, fsync on), "
        f"load before {about['load_before']:.2f}"
    )
    shown = Table(title=f"Flux {about['fluxd']}", caption=caption, title_justify="left", caption_justify="left")
    shown.add_column("")
    shown.add_column("what", max_width=60)
    for name in ("target", "aim", "median", "min", "max"):
        shown.add_column(name, justify="right")
    shown.add_column("unit")
    shown.add_column("reached")
    case = None
    for figure in figures:
        if case not in (None, figure.case):
            shown.add_section()
        bound = "≥ " if figure.more else "≤ "
        shown.add_row(
            figure.case if figure.case != case else "",
            figure.what,
            bound + short(figure.target) if figure.target is not None else "",
            bound + short(figure.aim) if figure.aim is not None else "",
            f"[bold]{short(figure.median)}[/]",
            short(min(figure.samples)),
            short(max(figure.samples)),
            figure.unit,
            f"[{COLOURS[figure.reached]}]{figure.reached}[/]",
        )
        case = figure.case
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", default=",".join(CASES), metavar="a,c", help="which cases (default: all)")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="samples of each (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go (default: bench-<time>.json)")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := [case for case in chosen if case not in CASES]:
        parser.error(f"there is no case {', '.join(unknown)}; known are {', '.join(CASES)}")
    progress, about = Console(stderr=True), machine()
    figures: list[Figure] = []
    for case in chosen:
        begun = time.monotonic()
        progress.print(f"({case}) …", highlight=False)
        found = CASES[case](options.repeat)
        figures += found
        for figure in found:
            progress.print(f"    {figure.what}: {short(figure.median)} {figure.unit}", highlight=False)
        progress.print(f"    [dim]{time.monotonic() - begun:.0f} s[/]", highlight=False)
    Console(width=None if sys.stdout.isatty() else 150).print(table(figures, about))
    path = options.json or Path(f"bench-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json")
    path.write_text(
        json.dumps({"machine": about, "figures": [figure.as_json() for figure in figures]}, indent=2) + "\n"
    )
    progress.print(f"figures: {path}", highlight=False)


if __name__ == "__main__":
    main()
