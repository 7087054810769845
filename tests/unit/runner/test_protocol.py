import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxd.runner.protocol import MAX_FRAME, BadFrame, FrameReader, encode, frame, to_json


@given(st.lists(st.binary(max_size=200), max_size=8), st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_frames_come_out_whole_however_the_stream_is_cut(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frame(payload) for payload in payloads)
    reader, found, at, turn = FrameReader(), [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        found += reader.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert found == payloads


def test_a_large_frame_in_small_pieces() -> None:
    payload = b"x" * (8 * 1024 * 1024)
    stream, reader, found = frame(payload), FrameReader(), []
    for at in range(0, len(stream), 4096):
        found += reader.feed(stream[at : at + 4096])
    assert found == [payload]


def test_a_length_above_the_limit_is_refused() -> None:
    with pytest.raises(BadFrame):
        FrameReader().feed((MAX_FRAME + 1).to_bytes(4, "big"))
    with pytest.raises(BadFrame):
        frame(bytearray(MAX_FRAME + 1))


def test_messages_are_utf8_json_without_surrogates() -> None:
    assert json.loads(encode({"type": "x", "text": "é"})[4:]) == {"type": "x", "text": "é"}
    assert to_json({"text": "a\udcff"}) == b'{"text":"a?"}'
