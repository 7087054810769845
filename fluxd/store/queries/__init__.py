"""All SQL of the running daemon, by name: `QUERIES["save_runs"]`. One .sql file per aggregate, one name per query.

A file is a row of blocks: `-- name: save_runs`, comments that say why, then one statement without a semicolon. A test
prepares every one against the real schema.
"""

import re
from pathlib import Path

_HEADER = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def read(text: str, source: str = "text") -> dict[str, str]:
    """The named queries of one file. Raises ValueError: a name comes twice, SQL before the first."""
    before, *rest = _HEADER.split(text)
    if any(line.strip() and not line.startswith("--") for line in before.splitlines()):
        raise ValueError(f"{source}: there is SQL before the first `-- name:` line")
    found: dict[str, str] = {}
    for name, body in zip(rest[::2], rest[1::2], strict=True):
        if name in found:
            raise ValueError(f"{source}: the query {name} is there twice")
        found[name] = body.strip().removesuffix(";")
    return found


def _all() -> dict[str, str]:
    queries: dict[str, str] = {}
    for path in sorted(Path(__file__).parent.glob("*.sql")):
        found = read(path.read_text(), path.name)
        if twice := queries.keys() & found.keys():
            raise ValueError(f"{path.name}: {sorted(twice)} are in another file too")
        queries |= found
    return queries


QUERIES = _all()
