"""What runs attempts: here (local), or an engine of other machines. The scheduler's side knows only this protocol."""

from typing import Any, Protocol


class Executor(Protocol):
    """Takes start messages; posts AttemptStarted, AttemptEnded and AttemptLost, which carry the engine's name for it.

    Everything may be said twice: an executor ignores what it knows already, and repeats what nobody acknowledged.
    """

    async def open(self) -> set[int]:
        """Connect; return the fences it has (running, ended or lost ones, which it posts as events)."""

    def start(self, messages: list[dict[str, Any]]) -> None:
        """Start these attempts. A message holds all that the child needs."""

    def kill(self, fence: int, reason: str) -> None:
        """End the process of this attempt: TERM, then KILL. The end is told by AttemptEnded."""

    def ack(self, fences: list[int]) -> None:
        """The results of these are stored: forget them."""

    async def stop(self) -> None:
        """End all attempts and wait until they are told."""

    async def close(self) -> None:
        """Leave; what runs lives on where the executor can do that."""
