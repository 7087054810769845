"""The Postgres that Flux brings along when no URL is given: made at the first start, found again at the next.

The server is no child of the daemon: it lives on when the daemon is killed, and the next daemon finds it by its
postmaster.pid. Everything here is synchronous (files, processes): the daemon calls it in a thread.

In the home:  pg/            or a symlink to a folder that the server's user can reach (see `_place`)
                data/        the data directory (0700, owned by the server's user)
                settings/    what Postgres reads, written anew at every start; and local.conf, which is yours
                socket/      the Unix socket (0700); in /tmp where the path would be too long for one
                passwords.json  of the server's two roles (0600, see server_roles.py)
                server.log
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import asyncpg

from fluxd.errors import Refused, Unavailable
from fluxd.store import binaries, postmaster, server_roles
from fluxd.store.binaries import Binaries
from fluxd.store.server_roles import DATABASE, SUPERUSER, TASKS, Passwords
from fluxd.store.server_user import give, may, name_of, owner_of, run

# sockaddr_un holds 107 bytes, of which the name of the socket file takes 15.
SOCKET_DIR_MAX = 107 - len("/.s.PGSQL.5432")
LOG_KEPT = 1 << 20


class Embedded:
    """The embedded server of one home.

    common: where data and programs go that the server's user could not reach in the home; programs: the folders that
    may hold `initdb` and `postgres`, best first.
    """

    def __init__(
        self, home: Path | str, *, common: Path = Path("/var/lib/fluxd"), programs: Sequence[Path] | None = None
    ) -> None:
        self.home = Path(home).absolute()
        self._common = common
        self._programs = programs
        self.started = False  # by this process: one that was found running may be another fluxd's

    @property
    def place(self) -> Path:
        """The real folder behind home/pg."""
        return (self.home / "pg").resolve()

    @property
    def data(self) -> Path:
        return self.place / "data"

    def running(self) -> bool:
        """Whether a server of this home's data lives and answers."""
        found = postmaster.alive(self.data)
        return found is not None and found.status == "ready"

    def start(self, patience: float = 300.0) -> str:
        """Have the server run and return its URL. One that runs already is taken as it is.

        patience: seconds for the server to be ready (it may have to repair what a crash left).
        Raises FluxError FLX-503x: what is wrong and what to do.
        """
        try:
            owner_of(self.data)  # whose data it is comes first: else a mere "permission denied" would be told
            with self._alone(patience):
                return self._start(patience)
        except OSError as error:
            raise Unavailable(
                "FLX-5032",
                f"The embedded Postgres cannot use {error.filename or self.place} ({error.strerror}): make it writable "
                f"for user {name_of(os.geteuid())}, free some space, or name another folder with --home.",
            ) from error

    def stop(self) -> bool:
        """End the server: open transactions are rolled back. Returns whether one ran."""
        return postmaster.stop(self.data)

    def create_database(self, name: str) -> str:
        """Make a database unless it is there, and return its URL. The server must run."""
        asyncio.run(_create_database(self.url(), name))
        return self.url(name)

    def url(self, database: str = DATABASE, role: str = SUPERUSER) -> str:
        """The URL of a database of the running server. Raises Unavailable FLX-5034 when none runs, FLX-5054."""
        found = postmaster.alive(self.data)
        if found is None:
            raise Unavailable("FLX-5034", f"The embedded Postgres of {self.home} does not run: start fluxd.")
        return server_roles.url(found, database, role, Passwords(self.place).of(role))

    def tasks_url(self) -> str:
        """What tasks are given: a database and a role of their own."""
        return self.url(TASKS, TASKS)

    @contextlib.contextmanager
    def _alone(self, patience: float) -> Iterator[None]:
        """One starter per home at a time; the kernel frees the lock of a starter that dies."""
        self.home.mkdir(parents=True, exist_ok=True)
        file = os.open(self.home / "pg.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _locked(file, patience):
                raise Refused(
                    "FLX-5038",
                    f"Another fluxd has been starting the embedded Postgres of {self.home} for {patience:.0f} s: see "
                    f"what it waits for in {self.home}/pg/server.log.",
                )
            yield
        finally:
            os.close(file)

    def _start(self, patience: float) -> str:
        owner = owner_of(self.data)
        found = postmaster.alive(self.data)
        if found and found.status != "stopping" and (found.socket_dir / f".s.PGSQL.{found.port}").exists():
            found = self._ready(found.pid, 0, patience)
            if self._secured(owner, found):
                return self.url()
        if found:  # it is going, lets nobody in, or something cleaned its socket away, and it never makes another
            postmaster.stop(self.data)
        server = binaries.for_data(binaries.installed(self._programs), self.data)
        server = self._place(owner, server)
        with self._none_lives() as guard:
            if not self.data.exists():
                self._make_data(owner, server)
            socket_dir = self._socket_dir(owner)
            postmaster.forget_dead(self.data, socket_dir)
            self._write_settings(owner, server, socket_dir)
            pid, log_from = self._spawn(owner, server, guard)
        ready = self._ready(pid, log_from, patience)
        self.started = True
        if not self._secured(owner, ready):
            raise Unavailable(
                "FLX-5054",
                f"The embedded Postgres of {self.home} does not let its own user in: see what {self.place}/settings/"
                "local.conf changes.",
            )
        return self.url()

    def _secured(self, owner: int, found: postmaster.Postmaster) -> bool:
        """Whether the roles have the passwords that we know; given to them where there are none yet."""
        if Passwords(self.place).exist():
            return True
        passwords = server_roles.secure(found, self.place / "settings" / "pg_hba.conf")
        if passwords is not None:
            Passwords(self.place).keep(passwords, owner)
        return passwords is not None

    @contextlib.contextmanager
    def _none_lives(self) -> Iterator[int]:
        """The proof that no process of an earlier server lives: each of them holds a lock that it inherited.

        A postmaster.pid cannot prove it: its number means nothing in another container that shares the folder, and a
        killed postmaster may leave children that still write.
        """
        guard = os.open(self.place / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if not _locked(guard, 10.0):
                raise Refused(
                    "FLX-5041",
                    f"A Postgres that cannot be seen from here (in another container?) works on {self.data}: stop it, "
                    "or name another folder with --home.",
                )
            yield guard
        finally:
            os.close(guard)

    def _place(self, owner: int, server: Binaries) -> Binaries:
        """Make the folder, at a place that the server's user can reach, and see that it can run the programs too."""
        link = self.home / "pg"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not self.place.exists():
            self.place.mkdir(parents=True)
            self.place.chmod(0o711)
        if owner == os.geteuid():
            return server
        if not may(owner, 'cd "$0"', self.place):
            self._move_out(link)
        if not may(owner, 'test -x "$0"', server.folder / "postgres"):
            server = binaries.copy(server, self._reachable_by_all())
        for script, path in (('cd "$0"', self.place), ('test -x "$0"', server.folder / "postgres")):
            if not may(owner, script, path):
                raise Unavailable(
                    "FLX-5036",
                    f"The embedded Postgres may not run as root and user {name_of(owner)} cannot reach {path}: "
                    "open the folders above it for that user, start Flux as an ordinary user, or name a server with "
                    "--database URL.",
                )
        return server

    def _reachable_by_all(self) -> Path:
        if not self._common.exists():
            self._common.mkdir(parents=True)
            self._common.chmod(0o755)
        return self._common

    def _move_out(self, link: Path) -> None:
        """home/pg becomes a symlink to a new folder that does not lie below the home."""
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        common = self._reachable_by_all()
        # A folder of that name belonged to a home that was deleted since: whoever did it wanted to begin anew.
        names = (common / f"pg-{digest}{f'-{n}' if n else ''}" for n in range(1_000_000))
        target = next(path for path in names if not os.path.lexists(path))
        target.mkdir()
        target.chmod(0o711)
        if link.is_symlink():
            link.unlink()
        else:
            if (link / "data").exists():
                target.rmdir()
                raise Unavailable(
                    "FLX-5036",
                    f"The user that owns {link}/data can no longer reach it: open the folders above it again.",
                )
            shutil.rmtree(link)
        link.symlink_to(target)

    def _make_data(self, owner: int, server: Binaries) -> None:
        """initdb, beside the place and then renamed: a half-made directory is never taken for a whole one."""
        making = self.place / "data.new"
        if making.exists():
            shutil.rmtree(making)
        making.mkdir(mode=0o700)
        give(making, owner)
        # A collation that never changes with a library of the system, so that no index ever turns wrong.
        locale = ["--locale=C"]
        if server.major >= 17:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        initdb: list[str | Path] = [
            server.folder / "initdb",
            "-D",
            making,
            "-U",
            SUPERUSER,
            "-E",
            "UTF8",
            "-A",
            "peer",
            "-k",
            *locale,
        ]
        rename = f"ALTER DATABASE postgres RENAME TO {DATABASE}\n"
        single: list[str | Path] = [server.folder / "postgres", "--single", "-D", making, "template1"]
        what = f"The embedded Postgres could not be made in {self.place}"
        try:
            run(owner, initdb, "FLX-5033", what)
            run(owner, single, "FLX-5033", what, stdin=rename)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)  # a full disk is not to stay full because of us
            raise
        making.rename(self.data)

    def _socket_dir(self, owner: int) -> Path:
        """A folder for the socket that belongs to the server's user alone, with a path short enough for a socket."""
        path = self.place / "socket"
        # A comma would make two hosts of it in the URL.
        if len(os.fsencode(path)) > SOCKET_DIR_MAX or "," in str(path):
            digest = hashlib.sha256(os.fsencode(self.place)).hexdigest()[:12]
            path = Path("/tmp") / f"fluxd-{digest}"
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            give(path, owner)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or stat.S_IMODE(found.st_mode) & 0o077:
            raise Refused(
                "FLX-5037",
                f"The folder {path} for the socket of the embedded Postgres must belong to user {name_of(owner)} "
                "alone, and does not: remove it and start again.",
            )
        return path

    def _write_settings(self, owner: int, server: Binaries, socket_dir: Path) -> None:
        folder = self.place / "settings"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        since_18 = "# Reads happen in the process that wants them, not in three more.\nio_method = sync"
        template = Path(__file__).with_name("embedded.conf").read_text()
        files = {
            "postgresql.conf": template.format(
                # A list of folders, each in double quotes, within a text in single ones.
                socket=_quoted('"' + str(socket_dir).replace('"', '""') + '"'),
                hba=_quoted(str(folder / "pg_hba.conf")),
                ident=_quoted(str(folder / "pg_ident.conf")),
                since_18=since_18 if server.major >= 18 else "",
            ),
            "pg_hba.conf": server_roles.RULES if Passwords(self.place).exist() else server_roles.FIRST_RULES,
            "pg_ident.conf": "".join(f"flux {user} {SUPERUSER}\n" for user in sorted({"root", name_of(owner)})),
        }
        with contextlib.suppress(FileExistsError):
            _write_new(folder / "local.conf", "# Your own settings; they win over postgresql.conf beside this.\n")
        for name, text in files.items():
            new = folder / f"{name}.new"
            new.unlink(missing_ok=True)
            _write_new(new, text)
            new.replace(folder / name)

    def _spawn(self, owner: int, server: Binaries, guard: int) -> tuple[int, int]:
        """Start the server in a session of its own, as nobody's child. Returns its pid and where its log begins."""
        log = self.place / "server.log"
        if log.exists() and log.stat().st_size > LOG_KEPT:
            log.replace(log.with_name("server.log.1"))
        if not log.exists():
            os.close(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            give(log, owner)
        log_from = log.stat().st_size
        settings = self.place / "settings" / "postgresql.conf"
        command: list[str | Path] = [server.folder / "postgres", "-D", self.data, "-c", f"config_file={settings}"]
        # The shell ends at once, so that init (or whoever reaps orphans here) buries the server one day and not we.
        script = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'
        start = ["/bin/sh", "-c", script, "sh", log, *command]
        done = run(owner, start, "FLX-5034", "The embedded Postgres could not start", pass_fds=[guard])
        return int(done), log_from

    def _ready(self, pid: int, log_from: int, patience: float) -> postmaster.Postmaster:
        """Wait until the server takes connections. It tells so nowhere but in its postmaster.pid."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            lives = _lives(pid)
            found = postmaster.read(self.data)
            if found and found.pid == pid and found.status == "ready":
                return found
            if not lives:
                raise Unavailable("FLX-5034", self._why_not(log_from))
            time.sleep(0.005)
        raise Unavailable(
            "FLX-5034",
            f"The embedded Postgres is not ready after {patience:.0f} s: see {self.place}/server.log.",
        )

    def _why_not(self, log_from: int) -> str:
        log = self.place / "server.log"
        with log.open("rb") as file:
            file.seek(log_from)
            lines = file.read(65536).decode(errors="replace").splitlines()
        fatal = [line.partition("FATAL:")[2].strip() for line in lines if "FATAL:" in line]
        cause = (fatal or lines[-1:] or ["it wrote no reason"])[-1]
        return f"The embedded Postgres did not start: {cause.rstrip('.')}; the whole story is in {log}."


def _locked(file: int, patience: float) -> bool:
    """Lock an open file; whether it could be had in that time. The kernel frees it when its holder dies."""
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        else:
            return True


def _lives(pid: int) -> bool:
    """Whether there is such a process, and it is not just waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def _quoted(value: str) -> str:
    """A value of postgresql.conf."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet: as root we never write through a link that somebody laid."""
    with path.open("x") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(text)


async def _create_database(url: str, name: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        if await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name, timeout=10):
            return
        quoted = name.replace('"', '""')
        # Somebody else may make it at the same moment.
        with contextlib.suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
            await connection.execute(f'CREATE DATABASE "{quoted}"', timeout=60)
    finally:
        await connection.close(timeout=5)
