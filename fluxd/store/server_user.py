"""Who the embedded Postgres runs as, and programs run as that user: Postgres refuses to run as root."""

import contextlib
import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fluxd.errors import Refused, Unavailable

# Only what the programs need: a PGPORT or PGOPTIONS of the caller would change what they do.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C", "LC_ALL": "C", "TZ": "UTC"}


def name_of(uid: int) -> str:
    """The name of a user, or the number of one that has no name here."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def owner_of(data: Path) -> int:
    """The user that the server runs as: the owner of its data; for new data we ourselves, or for root somebody else."""
    me = os.geteuid()
    with contextlib.suppress(FileNotFoundError):
        uid = data.stat().st_uid
        if uid not in (0, me) and me != 0:
            raise Refused(
                "FLX-5035",
                f"The data in {data} belongs to user {name_of(uid)}, and this is user {name_of(me)}: start Flux as "
                f"{name_of(uid)} or as root, or name another folder with --home.",
            )
        if uid != 0:
            return _known(uid)
    if me != 0:
        return _known(me)
    for name in ("postgres", "fluxd", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    raise Unavailable(
        "FLX-5039",
        "The embedded Postgres may not run as root, and there is no user postgres, fluxd or nobody to run it: "
        "make one (`useradd --system fluxd`), or name a server with --database URL.",
    )


def _known(uid: int) -> int:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise Unavailable(
            "FLX-5039",
            f"The embedded Postgres would run as user number {uid}, which has no name in /etc/passwd: give it one, "
            "or name a server with --database URL.",
        ) from None
    return uid


def give(path: Path, owner: int) -> None:
    """The path belongs to that user from now on."""
    if owner != os.geteuid():
        os.chown(path, owner, pwd.getpwuid(owner).pw_gid, follow_symlinks=False)


def _as(owner: int) -> dict[str, Any]:
    """The arguments of subprocess that make a child of root another user's process."""
    if owner == os.geteuid():
        return {}
    return {"user": owner, "group": pwd.getpwuid(owner).pw_gid, "extra_groups": []}


def may(owner: int, script: str, path: Path) -> bool:
    """Whether that user can do this with that path: tried, since modes alone do not know of ACLs and mounts."""
    done = subprocess.run(
        ["/bin/sh", "-c", script, path],
        env=ENVIRONMENT,
        cwd="/",
        capture_output=True,
        check=False,
        **_as(owner),
    )
    return done.returncode == 0


def run(
    owner: int, command: Sequence[str | Path], code: str, what: str, *, stdin: str = "", pass_fds: Sequence[int] = ()
) -> str:
    """Run a program as that user, in a session of its own; returns its output.

    Raises Unavailable with this code, `what` and the cause that the program named.
    """
    done = subprocess.run(
        command,
        input=stdin,
        env=ENVIRONMENT,
        cwd="/",  # ours may be a folder that the user cannot enter
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        start_new_session=True,
        pass_fds=pass_fds,
        umask=0o077,
        **_as(owner),
    )
    if done.returncode:
        raise Unavailable(code, f"{what}: {_cause(done.stderr)}.")
    return str(done.stdout)


def _cause(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    telling = [line for line in lines if "error:" in line.lower() or "FATAL:" in line]
    return (telling or lines or ["no reason was given"])[-1].rstrip(".")
