"""Flux's home on disk and its two doors: the folders, the Unix socket, the TCP port. What is wrong is said in words."""

import contextlib
import grp
import os
import resource
import socket
from pathlib import Path

from fluxd.config import Settings, listen_address
from fluxd.errors import FluxError, Invalid, Refused, Unavailable

DESCRIPTORS_MOST = 65_536
# For the database, the runner, the dags folder and what is opened for a moment.
DESCRIPTORS_KEPT = 64
# Connections of the Unix socket: a reserve that the web UI cannot take.
UNIX_PLACES = 100


def prepare(settings: Settings) -> None:
    """Make the home's folders (0750) and see that they can be written. Raises FluxError FLX-601x."""
    for folder in (settings.home, settings.dags):
        _refuse_odd_bytes(folder)
    folder = settings.home
    try:
        for folder in folders(settings):
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        if not settings.dags.exists():
            folder = settings.dags
            folder.mkdir(mode=0o750, parents=True)
        probe = folder = settings.home / f".write-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise Unavailable(
            "FLX-6010",
            f"Flux's home cannot be used: {folder}: {error.strerror}; make it writable for this user, "
            "or name another folder with --home.",
        ) from None
    if not settings.dags.is_dir():
        raise Unavailable("FLX-6011", f"The dags folder {settings.dags} is not a folder; name another with --dags.")


def folders(settings: Settings) -> tuple[Path, ...]:
    """What Flux needs in its home, besides what the database keeps there."""
    home = settings.home
    return (home, settings.logs, home / "runner", home / "reports")


def make_again(settings: Settings) -> list[Path]:
    """Make the folders that somebody removed; returns them. Raises OSError."""
    made = []
    for folder in folders(settings):
        if not folder.is_dir():
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            made.append(folder)
    return made


def _refuse_odd_bytes(folder: Path) -> None:
    """Paths stand in the database, in messages and in URLs, all of which are UTF-8."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(folder).decode(errors="backslashreplace")
        raise Invalid(
            "FLX-6016", f"The path {shown} is not UTF-8, and Flux keeps no other: choose another --home or --dags."
        ) from None


def raise_descriptor_limit() -> int:
    """As many open files as this process may have (no more than DESCRIPTORS_MOST); how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    wanted = DESCRIPTORS_MOST if hard == infinite else min(hard, DESCRIPTORS_MOST)
    if soft != infinite and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return DESCRIPTORS_MOST if soft == infinite else soft


def tcp_places(settings: Settings) -> int:
    """How many connections the TCP address takes: each may need a second descriptor, for the log that it follows."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    room = DESCRIPTORS_MOST if soft == resource.RLIM_INFINITY else soft
    return max(8, min(settings.web.connections_max, (room - DESCRIPTORS_KEPT) // 2 - UNIX_PLACES))


def unix_socket(path: Path, group: str = "") -> socket.socket:
    """The bound Unix socket, 0660, with its file given to `group` if one is named (FLX-6041).

    A socket left by a dead daemon is replaced; a living one is refused (FLX-6012).
    """
    if len(os.fsencode(path)) > 107:
        raise Refused(
            "FLX-6013",
            f"The path {path} is too long for a Unix socket (107 bytes at most); choose a shorter --home.",
        )
    if path.is_symlink() or (path.exists() and not path.is_socket()):
        raise Refused("FLX-6014", f"{path} exists and is not a socket of Flux; move it away and start again.")
    if path.exists():
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(2)
            try:
                probe.connect(os.fspath(path))
            except (ConnectionRefusedError, FileNotFoundError):
                path.unlink(missing_ok=True)
                alive = False
            except OSError:  # it does not answer in time, or not to us: but something lives there
                alive = True
            else:
                alive = True
            if alive:
                raise Refused(
                    "FLX-6012",
                    f"Another fluxd already answers at {path}; stop it first, or start this one with another --home.",
                )
    door = socket.socket(socket.AF_UNIX)
    before = os.umask(0o117)  # never open wider than 0660, not even for a moment
    try:
        door.bind(os.fspath(path))
    except OSError:
        door.close()
        raise
    finally:
        os.umask(before)
    try:
        _give_to(path, group)
    except FluxError:
        door.close()
        path.unlink(missing_ok=True)
        raise
    door.listen(128)
    return door


def _give_to(path: Path, group: str) -> None:
    try:
        if group and path.stat().st_gid != (wanted := grp.getgrnam(group).gr_gid):
            os.chown(path, -1, wanted)
    except (KeyError, OSError) as error:
        why = "there is no such group" if isinstance(error, KeyError) else error.strerror
        raise Unavailable(
            "FLX-6041",
            f"The socket {path} cannot be given to the group {group!r} ({why}): make the group and fluxd's user a "
            "member of it, or correct web.socket_group.",
        ) from None


def tcp_socket(settings: Settings) -> socket.socket:
    """The bound TCP socket of `daemon.listen`. Raises Unavailable FLX-6015 when it cannot be had."""
    host, port = listen_address(settings)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        door = socket.socket(family, socket.SOCK_STREAM)
        try:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind(address)
        except OSError:
            door.close()
            raise
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that no host can have
        why = error.strerror if isinstance(error, OSError) else error
        raise Unavailable(
            "FLX-6015",
            f"The address {settings.listen} cannot be used ({why}); stop what holds it, or choose another "
            "with --listen (port 0 takes a free one).",
        ) from None
    door.listen(128)
    return door
