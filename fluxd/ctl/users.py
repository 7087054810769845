"""`fluxctl users …`: who may use the web pages."""

import click

from fluxd.ctl import show
from fluxd.ctl.client import address
from fluxd.ctl.printing import machine
from fluxd.ctl.verbs import Noun, Session


@click.group(cls=Noun)
def users() -> None:
    """Who may use the web pages.

    Example: fluxctl users login-link
    """


@users.command("login-link")
@click.pass_obj
def login_link(session: Session) -> None:
    """A link that lets one browser in, once, within minutes.

    Example: fluxctl users login-link
    """
    answer = session.client.post(address("users", "login-link"))
    machine(answer) if session.json else show.out(answer.body["url"])
