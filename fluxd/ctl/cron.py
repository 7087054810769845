"""`fluxctl cron …`: what a cron expression means, without a daemon."""

import json
from datetime import UTC, datetime

import click

from fluxd.core.cron import read_cron
from fluxd.core.cronwords import cron_in_words
from fluxd.core.spec import Schedule
from fluxd.core.timetable import DST_RULES, check_time, next_runs, zone_of
from fluxd.ctl import show
from fluxd.ctl.dags import upcoming_table
from fluxd.ctl.verbs import Noun, Session
from fluxd.errors import Invalid


@click.group(cls=Noun)
def cron() -> None:
    """What a cron expression means.

    Example: fluxctl cron explain "0 6 * * 1-5" --tz Europe/Paris
    """


@cron.command()
@click.argument("expression")
@click.option("--tz", default="UTC", show_default=True, metavar="ZONE", help="The time zone that it is meant in.")
@click.option("--dst", default="shift", show_default=True, type=click.Choice(DST_RULES), help="When clocks change.")
@click.option("--count", default=5, show_default=True, type=click.IntRange(1, 1000), help="How many runs.")
@click.option("--from", "start", metavar="TIME", help="Due at this time or later (default: now).")
@click.pass_obj
def explain(session: Session, expression: str, tz: str, dst: str, count: int, start: str | None) -> None:
    """What it says in words, and the next runs of a dag that had it.

    Example: fluxctl cron explain "0 6 * * 1-5" --tz Europe/Paris --count 3
    """
    words = cron_in_words(read_cron(expression), tz)
    after = datetime.now(UTC) if start is None else _time(start, tz)
    runs = next_runs(Schedule("cron", expression), tz, dst, after, count)
    if session.json:
        told = {"expression": expression, "timezone": tz, "words": words, "runs": runs}
        show.out(json.dumps(told, ensure_ascii=False))
        return
    show.out(words)
    show.out()
    upcoming_table(runs)


def _time(text: str, tz: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(
            "FLX-8015", f"--from {text!r} is not a time; write it like 2026-01-31 or 2026-01-31T06:00:00Z."
        ) from None
    check_time(at, "--from")
    return (at if at.tzinfo else at.replace(tzinfo=zone_of(tz))).astimezone(UTC)
