"""`fluxctl logs`: what a task wrote, as it wrote it; with -f as it writes it, try after try, until it has ended."""

import codecs
import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import click

from fluxd.core.states import FINISHED
from fluxd.ctl.client import Client, address
from fluxd.ctl.verbs import Session, Verb
from fluxd.ctl.waiting import patiently
from fluxd.errors import Invalid, NotFound, Unavailable

LOOK_S = 0.25
# Everything that could steer a terminal; a line may still be broken and indented.
STEERING = re.compile(r"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Screen:
    """Bytes for a terminal: control characters are shown instead of obeyed, bytes that are no UTF-8 as \\xNN."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""

    def text(self, data: bytes, final: bool = False) -> str:
        text = self._held + self._decoder.decode(data, final)
        # Whether a \r belongs to a line's end is known only with the next character.
        self._held = "\r" if text.endswith("\r") and not final else ""
        text = text[: len(text) - len(self._held)]
        return STEERING.sub(lambda match: f"\\x{ord(match[0]):02x}", text).replace("\r\n", "\n")


@click.command(cls=Verb)
@click.argument("dag_id")
@click.argument("run_id")
@click.argument("task_id")
@click.option("--try", "number", type=click.IntRange(1), metavar="N", help="Which try (default: the last).")
@click.option("--map-index", type=int, default=-1, help="Which one of a mapped task.")
@click.option("-f", "--follow", is_flag=True, help="Go on as it is written, until the task has ended.")
@click.option("--raw", is_flag=True, help="Let control characters and colours through to the terminal.")
@click.pass_obj
def logs(
    session: Session,
    dag_id: str,
    run_id: str,
    task_id: str,
    number: int | None,
    map_index: int,
    follow: bool,
    raw: bool,
) -> None:
    """What a task wrote, byte for byte where it goes into a pipe or a file.

    Example: fluxctl logs sales RUN load -f
    """
    if session.json and follow:
        raise Invalid("FLX-8013", "--json and --follow do not go together; leave one of them out.")
    client, task = session.client, ("dags", dag_id, "runs", run_id, "tasks", task_id)
    where = address(*task, map_index=map_index)
    if number is None:
        number = _last_try(client, where, task_id, follow)
        tries: Iterator[int] = _tries(client, where, number) if follow else iter((number,))
    else:
        client.get(where)  # what is wrong is said at once; only later is a daemon that is away waited for
        tries = iter((number,))
    for number in tries:
        path = (*task, "tries", number, "log")
        if follow:
            pieces = _followed(client, path, map_index)
        else:
            headers, pieces = client.stream(address(*path, map_index=map_index))
        if session.json:
            _as_json(headers, pieces, number)
        else:
            _write(pieces, escaped=sys.stdout.isatty() and not raw)


def _last_try(client: Client, where: str, task_id: str, follow: bool) -> int:
    """The number of the newest try; whoever follows waits for the first one."""
    said = False
    shown = client.get(where).body
    while True:
        if shown["try_number"]:
            return int(shown["try_number"])
        if not follow or shown["state"] in FINISHED:
            reason = f" ({shown['reason']})" if shown["reason"] else ""
            raise NotFound("FLX-8014", f"The task {task_id!r} was not tried yet: it is {shown['state']}{reason}.")
        if not said:
            sys.stderr.write(f"{task_id} has not begun yet; waiting for it …\n")
            said = True
        time.sleep(LOOK_S)
        shown = patiently(lambda: client.get(where)).body


def _tries(client: Client, where: str, number: int) -> Iterator[int]:
    """This try and those that come after it, until the task has ended."""
    yield number
    while True:
        shown: dict[str, Any] = patiently(lambda: client.get(where)).body
        if shown["try_number"] > number:
            number += 1
            sys.stderr.write(f"--- try {number} ---\n")
            yield number
        elif shown["state"] in FINISHED:
            return
        else:
            time.sleep(LOOK_S)


def _followed(client: Client, path: tuple[str | int, ...], map_index: int) -> Iterator[bytes]:
    """The log of a try as it grows, until the try has ended; a daemon that goes away is asked again where it stopped.

    A stopping daemon ends the answer like the end of a try, so only one that began after that end is the last.
    """
    offset, over = 0, False
    while not over:
        where = address(*path, map_index=map_index, follow=True, offset=offset)
        headers, pieces = patiently(partial(client.stream, where))
        before = offset
        with contextlib.suppress(Unavailable):  # it broke off in the middle
            for data in pieces:
                offset += len(data)
                yield data
            over = headers.get("x-flux-ended") == "true"
        if not over and offset == before:
            time.sleep(LOOK_S)


def _write(pieces: Iterator[bytes], *, escaped: bool) -> None:
    out = sys.stdout.buffer
    screen = Screen()
    for data in pieces:
        out.write(screen.text(data).encode() if escaped else data)
        out.flush()
    if escaped:
        out.write(screen.text(b"", final=True).encode())
        out.flush()


def _as_json(headers: dict[str, str], pieces: Iterator[bytes], number: int) -> None:
    data = b"".join(pieces)
    told = {
        "try_number": number,
        "size": len(data),
        "ended": headers.get("x-flux-ended") == "true",
        "log": data.decode("utf-8", "backslashreplace"),
    }
    sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
