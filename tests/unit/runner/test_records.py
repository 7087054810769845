from pathlib import Path

from fluxd.runner import records
from fluxd.runner.records import Records


def test_lines_of_a_record_are_merged(tmp_path: Path) -> None:
    record = Records(str(tmp_path)).take()
    record.append({"fence": 7, "boot_id": "b"})
    record.append({"pid": 12})
    record.append({"end": {"exit_code": 0}})
    assert record.content() == {"fence": 7, "boot_id": "b", "pid": 12, "end": {"exit_code": 0}}
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
    for fence in range(20):
        record = mine.take()
        record.append({"fence": fence})
        record.append({"outcome": "x" * 50_000})
        assert record.content()["fence"] == fence
        sizes.append((tmp_path / record.name).stat().st_size)
        mine.give_back(record)
    assert max(sizes) < records.SIZE_MAX + 60_000
    assert len(list(tmp_path.iterdir())) == 1
