"""`fluxctl pools …`: named limits with slots."""

import click

from fluxd.ctl import show
from fluxd.ctl.client import address
from fluxd.ctl.printing import machine
from fluxd.ctl.verbs import Noun, Session


@click.group(cls=Noun)
def pools() -> None:
    """Named limits with slots: tasks of a pool together take no more than it has.

    Example: fluxctl pools set warehouse 4
    """


@pools.command("list")
@click.pass_obj
def list_pools(session: Session) -> None:
    """The pools and what is used of them.

    Example: fluxctl pools list
    """
    answer = session.client.get(address("pools"))
    if session.json:
        machine(answer)
        return
    show.table(
        ["POOL", "SLOTS", "USED", "TASKS", "ABOUT"],
        [
            [pool["name"], pool["slots"], pool["used_slots"], pool["tasks"], pool["description"]]
            for pool in answer.body["pools"]
        ],
        "There are no pools.",
    )


@pools.command("set")
@click.argument("name")
@click.argument("slots", type=click.IntRange(0))
@click.option("--description", help="What it is for.")
@click.pass_obj
def set_pool(session: Session, name: str, slots: int, description: str | None) -> None:
    """Make a pool, or change how many slots it has; what runs goes on.

    Example: fluxctl pools set warehouse 4 --description "connections of the warehouse"
    """
    answer = session.client.put(address("pools", name), {"slots": slots, "description": description})
    machine(answer) if session.json else show.out(f"{name} has {show.counted(slots, 'slot')}.")
