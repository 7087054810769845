"""`fluxctl db …`: the database's tables, without a daemon. fluxd does the same when it starts."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import click

from fluxd import config
from fluxd.ctl import show
from fluxd.ctl.verbs import Noun, Session
from fluxd.store import schema
from fluxd.store.database import close, connect, hide_password
from fluxd.store.embedded import Embedded

URL = click.option("--database", metavar="URL", help="A Postgres (default: that of the home's settings).")


@click.group(cls=Noun)
def db() -> None:
    """The database's tables.

    Example: fluxctl db check --database postgresql://flux@db.example/flux
    """


@contextlib.contextmanager
def database_url(session: Session, given: str | None) -> Iterator[str]:
    """The URL that was given, or that of the home's settings; the embedded server is started for as long as needed."""
    url = given or config.load(session.home).database_url
    if url:
        yield url
        return
    embedded = Embedded(session.home)
    was_running = embedded.running()
    url = embedded.start()
    try:
        yield url
    finally:
        if not was_running:
            embedded.stop()


async def _with_connection(url: str, work: Callable[[Any], Awaitable[Any]]) -> Any:
    conn = await connect(url)
    try:
        return await work(conn)
    finally:
        await close(conn)


@db.command()
@URL
@click.pass_obj
def migrate(session: Session, database: str | None) -> None:
    """Bring the tables up to date. Each step is one transaction: it is there as a whole or not at all.

    Example: fluxctl db migrate
    """
    with database_url(session, database) as url:
        steps: list[str] = asyncio.run(_with_connection(url, schema.migrate))
    if session.json:
        show.out(json.dumps({"applied": steps}))
    elif steps:
        show.out(f"{hide_password(url)} was brought up to date: {', '.join(steps)}.")
    else:
        show.out(f"{hide_password(url)} is up to date.")


@db.command()
@URL
@click.pass_obj
def check(session: Session, database: str | None) -> None:
    """Whether the tables are those that this fluxd needs; exit code 4 where they are not.

    Example: fluxctl db check
    """
    with database_url(session, database) as url:
        asyncio.run(_with_connection(url, schema.check))
    show.out(json.dumps({"ok": True}) if session.json else f"{hide_password(url)} is up to date.")
