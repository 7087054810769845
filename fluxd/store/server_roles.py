"""Who may log in to the embedded Postgres: `fluxd`, the superuser, for Flux alone; and `tasks`, for what runs in tasks.

Both show a password, and the two lie beside the data in a file that only the server's user (and root) can read. The
role `tasks` may make databases, and owns those; it has no other rights, and Flux's own database does not let it in.
"""

import asyncio
import json
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg

from fluxd.errors import Unavailable
from fluxd.store.postmaster import Postmaster
from fluxd.store.server_user import give, name_of

DATABASE = "fluxd"
SUPERUSER = "fluxd"
TASKS = "tasks"  # the role, and the database that it finds
# Passwords are sent in clear: the way is a socket in a folder of the server's user, and scram costs a login 15 ms.
RULES = f"""\
local {DATABASE} {TASKS} reject
local all {TASKS} password
local all {SUPERUSER} password
"""
# While the roles have no passwords yet: who you are is what the kernel says.
FIRST_RULES = f"local all {SUPERUSER} peer map=flux\nlocal all {TASKS} password\n"
LOGIN_S = 10.0


class Passwords:
    """The passwords of the server whose data lies in `place`."""

    def __init__(self, place: Path) -> None:
        self._path = place / "passwords.json"

    def exist(self) -> bool:
        return self._path.exists()

    def of(self, role: str) -> str:
        """Raises Unavailable FLX-5054 when they cannot be read."""
        try:
            return str(json.loads(self._path.read_bytes())[role])
        except (OSError, ValueError, KeyError) as error:
            cause = error.strerror if isinstance(error, OSError) else "it is not as Flux wrote it"
            raise Unavailable(
                "FLX-5054",
                f"The passwords of the embedded Postgres in {self._path} cannot be read by user "
                f"{name_of(os.geteuid())} ({cause}): ask as the user of fluxd; if they are lost, remove the file and "
                "start fluxd, which makes new ones.",
            ) from error

    def keep(self, passwords: dict[str, str], owner: int) -> None:
        """Whole or not at all, and readable for that user alone."""
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(passwords, file)
            file.flush()
            os.fsync(file.fileno())
        give(new, owner)
        new.replace(self._path)


def url(found: Postmaster, database: str, role: str, password: str = "") -> str:
    where = quote(str(found.socket_dir), safe="/")
    who = f"{role}:{password}@" if password else f"{role}@"
    return f"postgresql://{who}/{quote(database, safe='')}?host={where}&port={found.port}"


def secure(found: Postmaster, rules: Path) -> dict[str, str] | None:
    """Give the roles new passwords and have the server ask for them; `rules` is its pg_hba.conf.

    A server that was made before there was the role `tasks` gets it, with all databases that tasks have made. Returns
    the passwords, or None where the server does not let us in without one.
    """
    return asyncio.run(_secure(found, rules))


async def _secure(found: Postmaster, rules: Path) -> dict[str, str] | None:
    passwords = {role: secrets.token_hex(32) for role in (SUPERUSER, TASKS)}
    try:
        conn = await asyncpg.connect(url(found, DATABASE, SUPERUSER), timeout=LOGIN_S)
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidPasswordError):
        return None
    try:
        await _make_roles(conn, passwords)
        handed_over = await conn.fetch(
            "SELECT datname FROM pg_database WHERE datdba = 10 AND NOT datistemplate AND datname <> $1", DATABASE
        )
        for row in handed_over:
            await _hand_over(conn, url(found, row["datname"], SUPERUSER), row["datname"])
        new = rules.with_suffix(".new")
        new.write_text(RULES)
        new.chmod(0o644)
        new.replace(rules)
        await conn.execute("SELECT pg_reload_conf()")
    finally:
        await conn.close(timeout=LOGIN_S)
    async with asyncio.timeout(LOGIN_S):
        # The server tells nobody when it has read its rules.
        while await _lets_in(url(found, DATABASE, SUPERUSER)):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return passwords


async def _make_roles(conn: Any, passwords: dict[str, str]) -> None:
    if not await conn.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", TASKS):
        await conn.execute(f"CREATE ROLE {TASKS}")
    await conn.execute(f"ALTER ROLE {TASKS} LOGIN CREATEDB NOSUPERUSER NOCREATEROLE NOREPLICATION NOBYPASSRLS")
    for role, password in passwords.items():
        await conn.execute(f"ALTER ROLE {role} PASSWORD '{password}'")
    await conn.execute(f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC")
    if not await conn.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", TASKS):
        await conn.execute(f"CREATE DATABASE {TASKS} OWNER {TASKS}")


# What a superuser made for tasks is theirs: relations (their own sequences follow them), routines, types and schemas.
THINGS = """
SELECT format('ALTER TABLE %s OWNER TO tasks', c.oid::regclass) AS change FROM pg_class c
WHERE c.relowner = 10 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.oid >= 16384 AND NOT EXISTS (
    SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i', 'e'))
UNION ALL
SELECT format('ALTER ROUTINE %s OWNER TO tasks', p.oid::regprocedure) FROM pg_proc p
WHERE p.proowner = 10 AND p.oid >= 16384 AND NOT EXISTS (
    SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
UNION ALL
SELECT format('ALTER TYPE %s OWNER TO tasks', t.oid::regtype) FROM pg_type t
WHERE t.typowner = 10 AND t.oid >= 16384 AND t.typtype IN ('e', 'd') AND NOT EXISTS (
    SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
UNION ALL
SELECT format('ALTER SCHEMA %I OWNER TO tasks', nspname) FROM pg_namespace WHERE nspowner = 10 AND oid >= 16384
"""


async def _hand_over(conn: Any, address: str, database: str) -> None:
    """A database that tasks made while they were let in as the superuser becomes that of their role."""
    there = await asyncpg.connect(address, timeout=LOGIN_S)
    try:
        async with there.transaction():
            for row in await there.fetch(THINGS):
                await there.execute(row["change"])
    finally:
        await there.close(timeout=LOGIN_S)
    quoted = database.replace('"', '""')
    await conn.execute(f'ALTER DATABASE "{quoted}" OWNER TO {TASKS}')  # last: then all of it is done


async def _lets_in(address: str) -> bool:
    try:
        conn = await asyncpg.connect(address, timeout=LOGIN_S)
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidPasswordError):
        return False
    conn.terminate()
    return True
