"""Frames between daemon, runner and dag hosts: 4 bytes of length (big-endian), then a JSON object with a "type".

Both sides of the socket use this module; only the JSON library differs (the daemon has orjson, the runner and its
forks keep to the standard library so that they stay small).
"""

import json
from json.scanner import make_scanner
from typing import Any

PROTOCOL = 1
MAX_FRAME = 64 * 1024 * 1024
HEADER = 4

_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)

Message = dict[str, Any]


class BadFrame(Exception):
    """The other side does not speak this protocol."""


def frame(payload: bytes) -> bytes:
    """One frame around a payload that is already JSON."""
    if len(payload) > MAX_FRAME:
        raise BadFrame(f"a message of {len(payload)} bytes is above the limit of {MAX_FRAME}")
    return len(payload).to_bytes(HEADER, "big") + payload


def to_json(message: Message) -> bytes:
    """The payload of a message. Lone surrogates, which are no UTF-8, become question marks."""
    return _encoder.encode(message).encode("utf-8", "replace")


def encode(message: Message) -> bytes:
    """One frame, made with the standard library."""
    return frame(to_json(message))


_scan = make_scanner(json.JSONDecoder())  # type: ignore[arg-type]  # the stubs have the C class only


def from_json(payload: bytes) -> Message:
    """A message, read by the shortest way: `json.loads` looks for white space and encodings first, at the cost of two
    dozen copied pages in a process that was just forked."""
    message: Message = _scan(payload.decode(), 0)[0]
    return message


class FrameReader:
    """Cuts a stream of bytes into payloads."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._wanted = HEADER  # nothing can be cut off before this many bytes are there

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are complete now, in order. Raises BadFrame when a length is above MAX_FRAME."""
        buffer = self._buffer
        buffer += data
        size = len(buffer)
        if size < self._wanted:
            return []
        payloads = []
        at = 0
        while True:
            end = at + HEADER
            if end <= size:
                length = int.from_bytes(buffer[at:end], "big")
                if length > MAX_FRAME:
                    raise BadFrame(f"a message of {length} bytes is announced, above the limit of {MAX_FRAME}")
                end += length
            if end > size:
                break
            payloads.append(bytes(buffer[at + HEADER : end]))
            at = end
        del buffer[:at]
        self._wanted = end - at
        return payloads
