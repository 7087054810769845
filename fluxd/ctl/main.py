"""The root of fluxctl: the nouns, and how every end of it becomes an exit code.

0 done · 1 the thing asked for failed · 2 usage · 3 not found · 4 refused · 5 no daemon.
"""

import errno
import os
import sys
from typing import Any

import click

from fluxd.ctl.verbs import HOME, SOCKET, Noun, Session, default_home, note_place
from fluxd.errors import FluxError, Invalid, NotFound, Refused, Unavailable

FAILED, USAGE = 1, 2
# What writing fails with where the disk is full or broken, or a limit is reached.
UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
CODES: list[tuple[type[FluxError], int]] = [(Invalid, USAGE), (NotFound, 3), (Refused, 4), (Unavailable, 5)]

NOUNS: dict[str, tuple[str, str]] = {
    "status": ("fluxd.ctl.status:status", "How the daemon is and what lives."),
    "dags": ("fluxd.ctl.dags:dags", "What there is to run: list, show, trigger, pause, try out."),
    "runs": ("fluxd.ctl.runs:runs", "What ran and runs: list, show, wait, cancel, run again."),
    "tasks": ("fluxd.ctl.tasks:tasks", "The tasks of a run, and one task tried out on its own."),
    "logs": ("fluxd.ctl.logs:logs", "What a task wrote, also while it runs (-f)."),
    "pools": ("fluxd.ctl.pools:pools", "Named limits with slots."),
    "users": ("fluxd.ctl.users:users", "Who may use the web pages."),
    "cron": ("fluxd.ctl.cron:cron", "What a cron expression means."),
    "api": ("fluxd.ctl.api:api", "The HTTP API itself."),
    "db": ("fluxd.ctl.db:db", "The database's tables."),
    "doctor": ("fluxd.ctl.doctor:doctor", "Look for what is wrong on this machine."),
}


class Root(Noun):
    """The nouns. Here, below click's own handling of it, ends what nobody reads any more."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            _drop_output()  # whoever read us has enough (`fluxctl … | head`)
            return 0


def _drop_output() -> None:
    """What is still buffered goes nowhere, so that Python does not complain about it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.command(
    cls=Root, later=NOUNS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="fluxd", prog_name="fluxctl")
@click.option("--json", "as_json", is_flag=True, help="Exact machine output on stdout.")
@click.pass_context
def root(ctx: click.Context, home: str | None, socket: str | None, as_json: bool) -> None:
    """Talk to fluxd, the scheduler of data pipelines.

    \b
    Examples:
      fluxctl dags list
      fluxctl dags trigger sales --wait
      fluxctl logs sales RUN load -f

    Exit codes: 0 done, 1 the thing asked for failed, 2 usage, 3 not found, 4 refused, 5 no daemon.
    """
    ctx.obj = Session(default_home(), json=as_json)
    note_place(ctx.obj, home, socket)


root.params[:0] = [HOME, SOCKET]


def say(line: str) -> None:
    """A message for people: stderr, so that stdout stays what was asked for."""
    sys.stderr.write(line + "\n")


def _check_text(arguments: list[str]) -> None:
    """Refuse bytes that are not UTF-8: Python makes halves of characters of them, which neither HTTP nor JSON takes."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(argument).decode("utf-8", "backslashreplace")
            raise click.UsageError(f"The argument '{shown[:80]}' is not UTF-8; write it in UTF-8.") from None


def run(arguments: list[str] | None = None) -> int:
    """Carry out one command line; its exit code."""
    try:
        _check_text(sys.argv[1:] if arguments is None else arguments)
        result: Any = root.main(arguments, prog_name="fluxctl", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.UsageError as error:
        say(f"fluxctl: {error.format_message()}")
        if error.ctx is not None:
            say(f"Help: {error.ctx.command_path} --help")
        return USAGE
    except click.ClickException as error:
        say(f"fluxctl: {error.format_message()}")
        return error.exit_code
    except FluxError as error:
        say(f"fluxctl: {error}")
        return next((code for kind, code in CODES if isinstance(error, kind)), FAILED)
    except OSError as error:
        # An error about a file names it; stdout has no name.
        if error.errno not in UNWRITABLE or error.filename is not None:
            raise
        _drop_output()
        say(f"fluxctl: The output cannot be written: {error.strerror}.")
        return FAILED
    except (KeyboardInterrupt, click.Abort):
        say("")
        return 130


def main() -> None:
    """The console script `fluxctl`."""
    sys.exit(run())
