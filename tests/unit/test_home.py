"""The home's doors: what is replaced, what is refused, and how wide they open."""

import grp
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxd import config, home
from fluxd.errors import Refused, Unavailable


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: a socket's path is short."""
    with tempfile.TemporaryDirectory(prefix="fluxd-") as path:
        yield Path(path)


def test_a_socket_that_a_dead_daemon_left_is_replaced(folder: Path) -> None:
    path = folder / "fluxd.sock"
    home.unix_socket(path).close()
    assert path.is_socket()
    with home.unix_socket(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(path))


def test_a_living_daemon_is_left_alone(folder: Path) -> None:
    path = folder / "fluxd.sock"
    with home.unix_socket(path) as door:
        with pytest.raises(Refused, match="FLX-6012"):
            home.unix_socket(path)
        door.setblocking(False)
        door.accept()[0].close()  # the question itself
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.fspath(path))


def test_the_socket_opens_for_owner_and_group_alone(folder: Path) -> None:
    before = os.umask(0)
    try:
        with home.unix_socket(folder / "fluxd.sock"):
            assert stat.S_IMODE((folder / "fluxd.sock").stat().st_mode) == 0o660
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to a group that it is no member of")
def test_the_socket_is_given_to_the_group_that_is_named(folder: Path) -> None:
    path = folder / "fluxd.sock"
    group = next(one for one in grp.getgrall() if one.gr_gid != os.getegid())
    with home.unix_socket(path, group.gr_name):
        assert (path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (group.gr_gid, 0o660)


def test_a_group_that_is_not_there_is_said_and_no_socket_stays(folder: Path) -> None:
    path = folder / "fluxd.sock"
    with pytest.raises(Unavailable, match=r"FLX-6041.*no such group"):
        home.unix_socket(path, "no-such-group")
    assert not path.exists()


def test_a_path_too_long_for_a_socket_is_refused(folder: Path) -> None:
    with pytest.raises(Refused, match="FLX-6013"):
        home.unix_socket(folder / ("x" * 100) / "fluxd.sock")


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_socket_is_never_removed(folder: Path, kind: str) -> None:
    path = folder / "fluxd.sock"
    if kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to(folder / "elsewhere")
    with pytest.raises(Refused, match="FLX-6014"):
        home.unix_socket(path)
    assert os.path.lexists(path)


@pytest.mark.parametrize("host", ["127.0.0.1", "a..b"])
def test_an_address_that_cannot_be_had_is_said_in_words(folder: Path, host: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        listen = f"{host}:{holder.getsockname()[1]}"
        settings = config.load(folder, environment={}, flags={("daemon", "listen"): listen})
        with pytest.raises(Unavailable, match=f"FLX-6015: The address {listen} cannot be used"):
            home.tcp_socket(settings)
