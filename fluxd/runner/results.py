"""What the runner has told, or has to tell, and the daemon has not acknowledged."""

from fluxd.runner.records import Record, Records


class Result:
    """An `ended` or `lost` message, and the record that keeps it over the runner's death."""

    __slots__ = ("kind", "payload", "record")

    def __init__(self, kind: str, payload: bytes, record: Record | None) -> None:
        self.kind = kind
        self.payload = payload
        self.record = record


class Results:
    """By fence, until acknowledged."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._by_fence: dict[int, Result] = {}

    def __bool__(self) -> bool:
        return bool(self._by_fence)

    def get(self, fence: int) -> Result | None:
        return self._by_fence.get(fence)

    def payloads(self) -> list[bytes]:
        """All messages, in the order in which they came."""
        return [result.payload for result in self._by_fence.values()]

    def keep(self, kind: str, fence: int, payload: bytes, record: Record | None) -> None:
        """Keep an `ended` or `lost` message."""
        self._by_fence[fence] = Result(kind, payload, record)

    def acknowledged(self, fences: list[int]) -> None:
        """Forget these; their records may be used again."""
        for fence in fences:
            result = self._by_fence.pop(fence, None)
            if result is not None and result.record is not None:
                self._records.give_back(result.record)
