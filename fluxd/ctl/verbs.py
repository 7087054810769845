"""How the commands hang together: nouns and verbs that are imported when called, the flags that every verb has, and
what is said about a verb that does not exist."""

import difflib
import importlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click

from fluxd import config
from fluxd.ctl.client import Client


@dataclass
class Session:
    """What the flags said: which daemon, and for whom the output is."""

    home: Path
    socket: Path | None = None
    json: bool = False

    @cached_property
    def client(self) -> Client:
        return Client(self.socket or self.home / "fluxd.sock")


def default_home(system: Path = Path(config.SYSTEM_HOME)) -> Path:
    """$FLUXD_HOME, else ~/.fluxd as the daemon does; but the system's service where you have no home of your own."""
    home = config.default_home()
    if os.environ.get("FLUXD_HOME") or home.exists() or not os.path.lexists(system / "dags"):
        return home
    return system


HOME = click.Option(
    ["--home"], metavar="DIR", help="Flux's folder (default: $FLUXD_HOME, else ~/.fluxd, else /var/lib/fluxd)."
)
SOCKET = click.Option(["--socket"], metavar="PATH", help="fluxd's socket (default: fluxd.sock in the home).")


def note_place(session: Session, home: str | None, socket: str | None) -> None:
    """Take over --home and --socket, wherever they were given. Given empty, they do not mean the default."""
    for name, path in (("--home", home), ("--socket", socket)):
        if path == "":
            raise click.UsageError(f"{name} is empty; give it a value.")
    if home is not None:
        session.home = Path(home).expanduser().absolute()
    if socket is not None:
        session.socket = Path(socket).expanduser().absolute()


# Texts for people: an empty one takes away what was there.
MAY_BE_EMPTY = frozenset({"description"})


class Verb(click.Command):
    """A command with --json, and with --home and --socket for those who write them last."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [
            click.Option(["--json", "as_json"], is_flag=True, help="Exact machine output on stdout."),
            click.Option(["--home"], hidden=True),
            click.Option(["--socket"], hidden=True),
        ]

    def invoke(self, ctx: click.Context) -> Any:
        for param in self.params:
            # A shell gives '' for a variable that is not set: an address would name something else, a filter nothing.
            value = ctx.params.get(param.name or "")
            if param.name not in MAY_BE_EMPTY and (value == "" or (isinstance(value, tuple) and "" in value)):
                name = param.human_readable_name if isinstance(param, click.Argument) else param.opts[0]
                raise click.UsageError(f"{name} is empty; give it a value.", ctx)
        session = ctx.ensure_object(Session)
        session.json = ctx.params.pop("as_json") or session.json
        note_place(session, ctx.params.pop("home"), ctx.params.pop("socket"))
        return super().invoke(ctx)


class Noun(click.Group):
    """A group of verbs. `later` are those whose modules are imported when they are called: name -> (module:attribute,
    one line of help)."""

    command_class = Verb

    def __init__(self, *args: Any, later: dict[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.later = later or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, *self.later]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.later and cmd_name not in self.commands:
            module, _, attribute = self.later[cmd_name][0].partition(":")
            self.add_command(getattr(importlib.import_module(module), attribute), cmd_name)
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [
            (name, self.later[name][1] if name in self.later else self.commands[name].get_short_help_str(100))
            for name in self.list_commands(ctx)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            close = difflib.get_close_matches(name, self.list_commands(ctx), 1, 0.5)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(self.list_commands(ctx))}."
            raise click.UsageError(f"There is no command '{ctx.command_path} {name}'; {hint}", ctx)
        return super().resolve_command(ctx, args)
