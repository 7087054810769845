"""FileSensor and TimeSensor: as the daemon polls them, and as a dag waits for them without one."""

import asyncio
import datetime as dt
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from fluxd import DAG, sensors
from fluxd.authoring import execution
from fluxd.authoring.testing import make_given
from fluxd.errors import Invalid, NotFound
from fluxd.sensors import FileSensor, TimeSensor
from fluxd.sensors.file import CHUNK, Scan, has_line


def look(sensor: Any) -> Any:
    """What the daemon gets: None while there is nothing, else the value."""
    result = asyncio.run(sensor.poke(None))
    return result.value if result else None


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    assert look(FileSensor(path=path)) is None
    path.write_text("abc")
    assert look(FileSensor(path=path)) == str(path)
    assert look(FileSensor(filepath=str(path))) == str(path)
    assert look(FileSensor(path=path, min_size=3)) == str(path)
    assert look(FileSensor(path=path, min_size=4)) is None
    assert look(FileSensor(path=path / "below")) is None
    assert look(FileSensor(path=tmp_path)) == str(tmp_path)


def test_a_file_that_is_still_being_written(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("abc")
    assert look(FileSensor(path=path, unchanged_for="1h")) is None
    an_hour_ago = path.stat().st_mtime - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))
    assert look(FileSensor(path=path, unchanged_for="1h")) == str(path)


def test_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name, text in (("b.csv", "long enough"), ("a.csv", "long enough"), ("c.csv", ""), ("a/d.csv", "long enough")):
        (tmp_path / name).write_text(text)
    found = [str(tmp_path / name) for name in ("a.csv", "b.csv")]
    assert look(FileSensor(path=tmp_path / "*.csv", min_size=1)) == found
    assert look(FileSensor(path=tmp_path / "**" / "d.csv")) == [str(tmp_path / "a" / "d.csv")]
    assert look(FileSensor(path=tmp_path / "*.txt")) is None
    (tmp_path / "[odd].csv").write_text("x")
    assert look(FileSensor(path=tmp_path / "[odd].csv")) == str(tmp_path / "[odd].csv")


def test_a_line_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("date,rain\n2014/07/04,0.0\n2014/07/05,1.0")
    assert look(FileSensor(path=path, contains="2014/07/04,")) == str(path)
    assert look(FileSensor(path=path, contains="date")) == str(path)
    assert look(FileSensor(path=path, contains="2014/07/05,1.0")) == str(path)
    assert look(FileSensor(path=path, contains="2014/07/06")) is None
    assert look(FileSensor(path=path, contains="rain")) is None


@pytest.mark.parametrize("before", [CHUNK - 6, CHUNK - 5, CHUNK - 4, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 3])
def test_a_line_over_the_end_of_a_chunk(tmp_path: Path, before: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * before + b"\nwanted\n")
    assert has_line(str(path), "wanted", Scan())
    path.write_bytes(b"x" * before + b"wanted\n")
    assert not has_line(str(path), "wanted", Scan())
    path.write_bytes(b"")
    assert not has_line(str(path), "", Scan())


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, fifo, "/dev/zero", tmp_path / "fi*"):
        with pytest.raises(Invalid, match=r"FLX-3044: FileSensor: .* is no regular file"):
            look(FileSensor(path=path, contains="x"))
    assert look(FileSensor(path=fifo)) == str(fifo), "without contains nothing is opened"


def test_reading_ends_when_nobody_wants_to_know_any_more(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole, which takes minutes to read and no disk

    async def look_for_a_moment() -> threading.Thread:
        looking = asyncio.create_task(FileSensor(path=path, contains="x").poke())
        await asyncio.sleep(0)
        reader = next(thread for thread in threading.enumerate() if thread.name == "file-sensor")
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
        return reader

    reader = asyncio.run(look_for_a_moment())
    reader.join(10)
    assert not reader.is_alive()


def test_a_large_size(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(2**31)  # a hole: no disk is used
    assert look(FileSensor(path=path, min_size=2**31)) == str(path)
    assert look(FileSensor(path=path, min_size=2**63 - 1)) is None
    with pytest.raises(
        Invalid, match="min_size of FileSensor 't' must be a whole number from 0 to 9223372036854775807"
    ):
        FileSensor(task_id="t", path=path, min_size=2**63)


@pytest.mark.parametrize("argument", ["path", "contains"])
def test_a_nul_fails_at_once(argument: str) -> None:
    with DAG("d") as dag:
        FileSensor(task_id="t", **({"path": "x"} | {argument: "{{ conf.get('none', '\\0') }}x"}))
    outcome = execution.run(dag, "t", make_given(dag, "2026-07-04"))
    assert outcome["state"] == "failed" and not outcome["error"]["retry"]
    assert outcome["error"]["message"].startswith(f"FLX-1003: {argument} of FileSensor 't' holds a NUL")


def hand_over(sensor_type: Any, when: str, **arguments: Any) -> Any:
    with DAG("d", schedule="@daily", timezone="America/New_York") as dag:
        sensor_type(task_id="t", **arguments)
    outcome = execution.run(dag, "t", make_given(dag, when))
    assert outcome["state"] == "waiting", outcome
    return outcome["wait"]


@pytest.mark.parametrize(
    ("at", "moment"),
    [
        ("06:30", "2026-07-05T10:30:00Z"),
        (dt.time(6, 30, 15), "2026-07-05T10:30:15Z"),
        (dt.time(6, 30, tzinfo=dt.UTC), "2026-07-05T06:30:00Z"),
        ("2026-07-04T12:00", "2026-07-04T16:00:00Z"),
        ("2026-07-04T12:00:00Z", "2026-07-04T12:00:00Z"),
        (dt.datetime(2026, 7, 4, 12), "2026-07-04T16:00:00Z"),
        ("{{ data_interval_end + macros.timedelta(hours=2) }}", "2026-07-05T06:00:00Z"),
    ],
)
def test_a_time_is_made_definite_before_the_daemon_waits(at: Any, moment: str) -> None:
    assert hand_over(TimeSensor, "2026-07-04", at=at)["args"] == {"at": moment}
    assert hand_over(TimeSensor, "2026-07-04", target_time=at)["args"] == {"at": moment}


def test_the_daemon_waits_for_a_time() -> None:
    assert look(TimeSensor(at="2026-01-01T00:00:00Z")) == "2026-01-01T00:00:00Z"
    assert look(TimeSensor(at="2190-01-01T00:00:00Z")) is None
    with pytest.raises(Invalid, match="FLX-3043"):
        look(TimeSensor(at="06:30"))


def test_the_request_makes_the_same_sensor_again(tmp_path: Path) -> None:
    (tmp_path / "2026-07-04.csv").write_text("2026-07-04,x")
    wait = hand_over(FileSensor, "2026-07-04", path=f"{tmp_path}/{{{{ ds }}}}.csv", contains="{{ ds }},", min_size=2)
    again = sensors.get(wait["sensor"])(**wait["args"])
    assert look(again) == str(tmp_path / "2026-07-04.csv")


def test_the_log_says_what_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hand_over(FileSensor, "2026-07-04", path="in/{{ ds }}.csv", poke_interval=5, timeout="2h")
    said = capsys.readouterr().out
    assert said.startswith("flux: FileSensor(path='") and "/in/2026-07-04.csv')" in said
    assert said.endswith("is looked at by fluxd every 5 s, 7200 s at most\n")


def test_without_a_daemon_a_dag_waits_itself(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with DAG("d") as dag:
        FileSensor(task_id="there", path=tmp_path / "x")
        FileSensor(task_id="missing", path=tmp_path / "y", poke_interval=0.001, timeout=0.003)
        TimeSensor(task_id="past", at="2020-01-01T00:00Z")
    run = dag.test()
    assert (run["there"].result, run["past"].result) == (str(tmp_path / "x"), "2020-01-01T00:00:00Z")
    assert run["missing"].reason == "FLX-3040: what it waited for did not come within 0.003 s"


def test_wrong_arguments() -> None:
    with DAG("d"):
        with pytest.raises(Invalid, match="FLX-1012: FileSensor 't' needs the argument 'path'"):
            FileSensor(task_id="t")
        with pytest.raises(Invalid, match="FLX-1012: TimeSensor 't' needs the argument 'at'"):
            TimeSensor(task_id="t")
        with pytest.raises(Invalid, match="did you mean 'poke_interval'"):
            FileSensor(task_id="t", path="x", poke_intervall=5)
        with pytest.raises(Invalid, match="FLX-1007: poke_interval of FileSensor 't' must be more than zero"):
            FileSensor(task_id="t", path="x", poke_interval=0)
        with pytest.raises(Invalid, match="FLX-1003: mode of FileSensor 't' cannot be 'push'"):
            FileSensor(task_id="t", path="x", mode="push")
    with pytest.raises(NotFound, match=r"FLX-3042: No sensor 'X' comes with Flux: it has FileSensor, .*TimeSensor"):
        sensors.get("X")
