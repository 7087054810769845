"""`fluxctl api …`: the HTTP API itself."""

import json

import click

from fluxd.ctl import show
from fluxd.ctl.client import address
from fluxd.ctl.printing import machine
from fluxd.ctl.verbs import Noun, Session


@click.group(cls=Noun)
def api() -> None:
    """The HTTP API itself.

    Example: fluxctl api openapi --json > openapi.json
    """


@api.command()
@click.pass_obj
def openapi(session: Session) -> None:
    """The description of the API (OpenAPI 3.1), as JSON in any case.

    Example: fluxctl api openapi
    """
    answer = session.client.get(address("openapi.json"))
    machine(answer) if session.json else show.out(json.dumps(answer.body, indent=2, ensure_ascii=False))
