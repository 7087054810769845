"""What the runner has told, or has to tell, and the daemon has not acknowledged."""

from typing import Any

from fluxd.runner import records
from fluxd.runner.attempts import Attempts
from fluxd.runner.hosts import Host
from fluxd.runner.protocol import Message, encode, to_json


class Result:
    """An `ended` or `lost` message. `record` is its record's name, `host` the process that has it open (None: we)."""

    __slots__ = ("host", "kind", "payload", "record")

    def __init__(self, kind: str, payload: bytes, record: str | None, host: Host | None) -> None:
        self.kind = kind
        self.payload = payload
        self.record = record
        self.host = host


class Results:
    """By fence, until acknowledged."""

    def __init__(self, folder: str, own: Attempts) -> None:
        self._folder = folder
        self._own = own
        self._by_fence: dict[int, Result] = {}

    def __bool__(self) -> bool:
        return bool(self._by_fence)

    def get(self, fence: int) -> Result | None:
        return self._by_fence.get(fence)

    def payloads(self, kind: str) -> bytes:
        """All messages of one kind as a JSON list."""
        return b"[" + b",".join(result.payload for result in self._by_fence.values() if result.kind == kind) + b"]"

    def ended(self, message: Message, payload: bytes, host: Host | None) -> None:
        self._by_fence[message["fence"]] = Result("ended", payload, message.get("record"), host)

    def lost(self, fence: int, evidence: str, record: str | None) -> bytes:
        payload = to_json({"type": "lost", "fence": fence, "evidence": evidence})
        self._by_fence[fence] = Result("lost", payload, record, None)
        return payload

    def recall(self, ended: dict[int, tuple[bytes, str]], lost: dict[int, tuple[str, str]]) -> None:
        """What an earlier runner left."""
        for fence, (payload, record) in ended.items():
            self._by_fence[fence] = Result("ended", payload, record, None)
        for fence, (evidence, record) in lost.items():
            self.lost(fence, evidence, record)

    def acknowledged(self, fences: list[int]) -> None:
        """Forget these; whoever has their records uses them again."""
        by_host: dict[Any, list[int]] = {}
        for fence in fences:
            result = self._by_fence.pop(fence, None)
            if result is None:
                continue
            if result.host is not None and not result.host.channel.closed:
                by_host.setdefault(result.host, []).append(fence)
            elif not self._own.acknowledged(fence) and result.record is not None:
                records.remove(self._folder, result.record)
        for host, its_fences in by_host.items():
            host.channel.send(encode({"type": "ack", "fences": its_fences}))
