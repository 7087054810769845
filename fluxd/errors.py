"""Every error that Flux tells a person: one sentence that names the thing, the cause and the next step, with a code.

The class says what kind of answer it is (HTTP status, exit code of fluxctl); the code says which one (docs/errors.md).
Ranges: 1xxx writing a dag · 2xxx loading a dag file · 3xxx running a task · 4xxx asking the daemon · 5xxx the database
· 6xxx settings and start-up · 7xxx the runner · 8xxx fluxctl.

    FluxError
    ├── Invalid       what was given cannot be used          (HTTP 400, fluxctl 2)
    ├── NotFound      there is no such thing                 (HTTP 404, fluxctl 3)
    ├── Refused       it exists, but not now or not so       (HTTP 409, fluxctl 4)
    └── Unavailable   something Flux needs is away           (HTTP 503, fluxctl 5)
"""

from typing import Any


class FluxError(Exception):
    """An error for people. `code` is `FLX-nnnn`, `message` one clear sentence; `str()` gives both."""

    status = 500

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Invalid(FluxError):
    """What was given cannot be used."""

    status = 400


class NotFound(FluxError):
    """There is no such thing."""

    status = 404


class Refused(FluxError):
    """The thing exists, but what was asked cannot be done to it now."""

    status = 409


class Unavailable(FluxError):
    """Something that Flux needs is away."""

    status = 503


def leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """The errors in a group of groups."""
    return [
        leaf
        for error in group.exceptions
        for leaf in (leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]
