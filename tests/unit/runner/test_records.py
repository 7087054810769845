from pathlib import Path

import pytest

from fluxd.runner import records
from fluxd.runner.records import Records


def test_lines_of_a_record_are_merged(tmp_path: Path) -> None:
    record = Records(str(tmp_path)).take()
    record.append({"fence": 7, "boot_id": "b"})
    record.append({"pid": 12})
    record.append({"seen": 0.5})
    assert record.content() == {"fence": 7, "boot_id": "b", "pid": 12, "seen": 0.5}
    assert records.stored(str(tmp_path)) == {7: (record.name, record.content())}


def test_a_torn_or_damaged_line_ends_the_record(tmp_path: Path) -> None:
    record = Records(str(tmp_path)).take()
    record.append({"fence": 7})
    record.append({"outcome": {"state": "success"}})
    whole = (tmp_path / record.name).read_bytes()
    assert records.merge(whole[:-1]) == {"fence": 7, "outcome": {"state": "success"}}
    assert records.merge(whole[:-12]) == {"fence": 7}
    assert records.merge(whole[:-12] + whole) == {"fence": 7, "outcome": {"state": "success"}}
    assert records.merge(whole[:-12] + whole[whole.index(b'\n{"out') :]) == {"fence": 7}
    assert records.merge(whole.replace(b"success", b"sucXess")) == {"fence": 7}
    assert records.merge(b"\x00\xff") == {}


def test_records_are_used_again_and_go_at_the_end(tmp_path: Path) -> None:
    mine = Records(str(tmp_path))
    first, second = mine.take(), mine.take()
    first.append({"fence": 1})
    mine.give_back(first)
    assert records.stored(str(tmp_path)) == {}
    assert mine.take() is first
    assert first.content() == {}
    first.append({"fence": 3})
    assert first.content() == {"fence": 3}
    mine.give_back(first)
    second.append({"fence": 2})
    mine.close()
    assert [path.name for path in tmp_path.iterdir()] == [second.name]


def test_a_record_that_somebody_left_under_our_name_is_not_touched(tmp_path: Path) -> None:
    left = Records(str(tmp_path)).take()
    left.append({"fence": 3})
    mine = Records(str(tmp_path)).take()
    assert mine.name != left.name
    assert left.content() == {"fence": 3}
    records.sweep(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [left.name]


def test_a_record_does_not_grow_for_ever(tmp_path: Path) -> None:
    mine = Records(str(tmp_path))
    sizes = []
    for fence in range(1, 21):
        record = mine.take()
        record.append({"fence": fence})
        record.append({"outcome": {"state": "x" * 50_000}})
        assert record.content()["fence"] == fence
        sizes.append((tmp_path / record.name).stat().st_size)
        mine.give_back(record)
    assert max(sizes) < records.SIZE_MAX + 60_000
    assert len(list(tmp_path.iterdir())) == 1


ABSURD = [
    b"[1]", b"1", b"null", b"{", b"[" * 100_000,
    *(b'{"pid":%s}' % pid for pid in (b"-1", b"0", b"1", b"true", b'"7"', b"1e3", b"99999999999999")),
    *(b'{"entered":%s}' % pid for pid in (b"-1", b"1", b"null", b'"7"')),
    *(b'{"seen":%s}' % moment for moment in (b"NaN", b"-1", b"1e400", b'"x"', b"null")),
    *(b'{"started_at":%s}' % moment for moment in (b"1e300", b"[]")),
    *(b'{"outcome":%s}' % outcome for outcome in (b"[]", b"{}", b'{"state":1}', b'{"state":"failed","error":"x"}')),
    b'{"outcome":{"state":"success","xcoms":[["a"]]}}', b'{"outcome":{"state":"success","xcoms":7}}',
    b'{"end":{}}', b'{"end":{"type":"ended","fence":7}}', b'{"command":[]}', b'{"log":7}', b'{"grace_s":-1}',
]  # fmt: skip


@pytest.mark.parametrize("line", ABSURD, ids=lambda line: line[:40].decode())
def test_a_line_that_tells_what_cannot_be_does_not_count(tmp_path: Path, line: bytes) -> None:
    record = Records(str(tmp_path)).take()
    record.append({"fence": 7, "boot_id": "b"})
    record.append_payload(line)
    assert records.stored(str(tmp_path)) == {7: (record.name, {"fence": 7, "boot_id": "b"})}


@pytest.mark.parametrize("fence", [b"0", b"-3", b'"7"', b"1.5", b"null", b"true", b"99999999999999999999"])
def test_a_record_of_no_attempt_is_nobodys(tmp_path: Path, fence: bytes) -> None:
    Records(str(tmp_path)).take().append_payload(b'{"fence":%b,"boot_id":"b"}' % fence)
    (tmp_path / "1.1.rec").mkdir()
    (tmp_path / "2.1.rec").symlink_to("/etc/passwd")
    assert records.stored(str(tmp_path)) == {}
    records.sweep(str(tmp_path))
