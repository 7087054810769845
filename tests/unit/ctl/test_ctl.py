"""fluxctl against the real API: what it prints for people and machines, and its exit codes."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fluxd.ctl import main, waiting
from tests.web.api_world import World, open_world
from tests.web.test_api import SALES, finish, run_of

pytestmark = pytest.mark.anyio

FROM = ("--from", "2027-01-01")
PAUSED = {"over": "over is paused: nothing of this happens before 'fluxctl dags unpause over'.\n"}
Ctl = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
async def world(db_url: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(db_url, tmp_path) as world:
        await world.load(SALES, source="# the sales\n")
        yield world


@pytest.fixture
def ctl(world: World, capsysbinary: pytest.CaptureFixture[bytes]) -> Ctl:
    """fluxctl with these arguments: (exit code, stdout, stderr). The daemon goes on meanwhile."""

    async def call(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main.run, ["--home", str(world.settings.home), *arguments])
        out, err = capsysbinary.readouterr()
        return code, out.decode("utf-8", "surrogateescape"), err.decode()

    return call


async def machine(ctl: Ctl, *arguments: str, code: int = 0) -> Any:
    """The JSON on stdout; nothing else may be there."""
    got, out, err = await ctl(*arguments, "--json")
    assert got == code, err
    assert out.count("\n") == 1
    return json.loads(out)


async def test_every_verb_that_shows_has_both_forms(world: World, ctl: Ctl) -> None:
    await run_of(world, "one", conf={"region": "us"})
    world.ended(await world.started(), xcoms=[["return_value", 3]], progress={"rows": 1200, "bytes": 9, "note": "all"})
    await world.started()
    await world.persistence.broken(
        "bad.py", {"code": "FLX-2001", "message": "It is broken.", "line": 3, "traceback": "…"}
    )
    assert "1,200 rows, 9 bytes: all" in (await ctl("tasks", "show", "sales", "one", "load"))[1]
    for verb, words in {
        ("status",): "1 running",
        ("dags", "list"): "every day at 06:00 Paris",
        ("dags", "show", "sales"): "PythonOperator",
        ("dags", "next", "sales"): "covers",
        ("dags", "errors"): "It is broken.",
        ("dags", "source", "sales"): "# the sales",
        ("runs", "list", "sales"): "▶ running",
        ("runs", "list"): "sales",
        ("runs", "show", "sales", "one"): "● success",
        ("tasks", "list", "sales", "one"): "▶ running",
        ("tasks", "show", "sales", "one", "load"): "● success",
        ("pools", "list"): "default_pool",
        ("pools", "set", "small", "3"): "small has 3 slots.",
        ("users", "login-link"): "http://127.0.0.1:1/login/",
        ("api", "openapi"): '"openapi": "3.1.0"',
        ("dags", "pause", "sales"): "sales is paused.",
        ("dags", "unpause", "sales"): "sales is active.",
    }.items():
        code, out, err = await ctl(*verb)
        assert (code, err if verb[1:2] != ("next",) else "") == (0, ""), verb
        assert words in out, (verb, out)
        assert isinstance(await machine(ctl, *verb), dict)


async def test_a_file_error_without_line_and_code(world: World, ctl: Ctl) -> None:
    await world.persistence.broken("twin.py", {"code": "FLX-5040", "message": "It is taken."})
    await world.persistence.broken("worse.py", {})
    code, out, err = await ctl("dags", "errors")
    assert (code, err) == (0, "")
    assert "FLX-5040: It is taken." in out and "it cannot be loaded" in out
    assert "None" not in out


async def test_json_is_that_of_the_api_byte_for_byte(world: World, ctl: Ctl) -> None:
    await run_of(world, "one")
    async with world.http.get("http://flux/api/v1/dags/sales/runs/one") as response:
        _, out, _ = await ctl("runs", "show", "sales", "one", "--json")
        assert out == await response.text() + "\n"


async def test_trigger_and_wait(world: World, ctl: Ctl) -> None:
    run = await machine(ctl, "dags", "trigger", "sales", "--run-id", "a", "--conf", '{"region": "us"}')
    assert (run["run_id"], run["conf"], run["state"]) == ("a", {"region": "us"}, "running")
    for state, code in (("success", 0), ("failed", 1)):
        waiting_ctl = asyncio.ensure_future(
            ctl("dags", "trigger", "sales", "--run-id", state, "--logical-date", "2026-07-04", "--wait", "--json")
        )
        async with asyncio.timeout(10):
            while "running" not in [
                run["state"] for run in (await world.get("/runs"))["runs"] if run["run_id"] == state
            ]:
                await asyncio.sleep(0.01)
        await finish(world, state, state)
        got, out, err = await waiting_ctl
        shown = json.loads(out)
        assert (got, shown["state"], shown["logical_date"]) == (code, state, "2026-07-03T22:00:00Z")
        assert (code == 0) == (err == "")
    assert "load" in err and "failed" in err
    assert (await machine(ctl, "runs", "wait", "sales", "success"))["state"] == "success"
    assert (await machine(ctl, "runs", "wait", "sales", "failed", code=1))["state"] == "failed"


async def test_wait_gives_up_in_time(world: World, ctl: Ctl) -> None:
    await run_of(world, "one")
    code, out, err = await ctl("runs", "wait", "sales", "one", "--timeout", "0.1")
    assert code == 1
    assert "▶ running" in out
    assert "after 0.1 s" in err


async def test_wait_survives_a_restart_of_the_daemon(
    db_url: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with open_world(db_url, tmp_path) as world:
        await world.load(SALES)
        await run_of(world, "one")
        message = await world.started()
        asked = asyncio.ensure_future(
            asyncio.to_thread(main.run, ["--home", str(tmp_path), "runs", "wait", "sales", "one", "--json"])
        )
        async with asyncio.timeout(5):
            while not world.live.readers:
                await asyncio.sleep(0.01)
    async with open_world(db_url, tmp_path) as world:
        world.ended(message)
        await finish(world, "one")
        assert await asked == 0
    out, err = capsysbinary.readouterr()
    assert json.loads(out)["state"] == "success"
    assert b"fluxd is away" in err


async def test_cancel_clear_mark_delete(world: World, ctl: Ctl) -> None:
    await run_of(world, "one")
    message = await world.started()
    assert await ctl("tasks", "mark", "sales", "one", "skipped", "report") == (
        0,
        "1 task marked skipped: report.\n",
        "",
    )
    code, out, _ = await ctl("runs", "cancel", "sales", "one")
    assert (code, out) == (0, "one is being cancelled: its processes are ended.\n")
    world.ended(message, "failed")
    assert (await machine(ctl, "runs", "wait", "sales", "one", code=1))["state"] == "cancelled"
    cleared = await machine(ctl, "tasks", "clear", "sales", "one", "load", "--no-downstream")
    assert cleared == {"cleared": [{"task_id": "load", "map_index": -1}], "note": None}
    assert (await ctl("dags", "delete", "sales"))[0] == 4  # nobody can be asked
    assert (await ctl("dags", "delete", "sales", "--yes"))[0] == 4  # it has a live run
    await finish(world, "one")
    assert await machine(ctl, "runs", "clear", "sales", "one", "--failed") == {"cleared": [], "note": None}
    assert (await ctl("runs", "mark", "sales", "one", "success"))[0] == 4
    file = world.settings.dags / "sales.py"
    file.write_text("# sales")
    code, out, err = await ctl("dags", "delete", "sales", "--yes")
    assert (code, out, "its file sales.py is there" in err, "FLX-4212" in err) == (4, "", True, True)
    assert (await machine(ctl, "dags", "show", "sales"))["dag_id"] == "sales"
    file.unlink()
    world.log(message, b"of the first\n")
    assert await ctl("dags", "delete", "sales", "--yes") == (0, "sales is deleted.\n", "")
    assert not (world.settings.logs / "sales").exists()
    assert (await ctl("dags", "delete", "sales", "--yes"))[0] == 3


async def test_logs_come_as_they_are(world: World, ctl: Ctl) -> None:
    await run_of(world, "one")
    code, _, err = await ctl("logs", "sales", "one", "report")
    assert (code, "not tried yet" in err) == (3, True)
    message = await world.started()
    world.log(message, b"caf\xe9 \x1b[31mred\n")
    assert (await ctl("logs", "sales", "one", "load"))[1].encode("utf-8", "surrogateescape") == b"caf\xe9 \x1b[31mred\n"
    told = await machine(ctl, "logs", "sales", "one", "load", "--try", "1")
    assert (told["log"], told["ended"], told["try_number"]) == ("caf\\xe9 \x1b[31mred\n", False, 1)
    assert (await ctl("logs", "sales", "one", "load", "--try", "9"))[0] == 3
    assert (await ctl("logs", "sales", "one", "load", "-f", "--json"))[0] == 2


async def test_logs_are_followed_over_all_tries(world: World, ctl: Ctl) -> None:
    await run_of(world, "one")
    message = await world.started()
    following = asyncio.ensure_future(ctl("logs", "sales", "one", "load", "-f"))
    async with asyncio.timeout(5):
        while not world.live.readers:
            await asyncio.sleep(0.01)
    world.log(message, b"first\n")
    world.ended(message, "failed", error={"type": "E", "message": "broke"})
    second = await world.started()
    world.log(second, b"second\n")
    world.ended(second)
    async with asyncio.timeout(20):
        assert await following == (0, "first\nsecond\n", "--- try 2 ---\n")


async def test_a_log_is_followed_over_a_restart_of_the_daemon(
    db_url: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with open_world(db_url, tmp_path) as world:
        await world.load(SALES)
        await run_of(world, "one")
        message = await world.started()
        world.log(message, b"first\n")
        following = asyncio.ensure_future(
            asyncio.to_thread(main.run, ["--home", str(tmp_path), "logs", "sales", "one", "load", "-f"])
        )
        async with asyncio.timeout(5):
            while not world.live.readers:
                await asyncio.sleep(0.01)
    world.log(message, b"while it was away\n")
    async with open_world(db_url, tmp_path) as world:
        world.log(message, b"last\n")
        world.ended(message)
        async with asyncio.timeout(20):
            assert await following == 0
    assert capsysbinary.readouterr()[0] == b"first\nwhile it was away\nlast\n"


async def test_several_dags_are_paused_or_none(world: World, ctl: Ctl) -> None:
    await world.load({**SALES, "dag_id": "other", "is_paused_upon_creation": False}, file="other.py")
    assert (await ctl("dags", "unpause", "sales", "othr", "--json"))[:2] == (3, "")
    assert (await machine(ctl, "dags", "show", "sales"))["paused"] is True
    told = await machine(ctl, "dags", "pause", "sales", "other")
    one = await machine(ctl, "dags", "pause", "sales")
    assert [dag["dag_id"] for dag in told["dags"]] == ["sales", "other"]
    assert told["dags"][0] == one


async def test_what_is_wrong_has_its_exit_code(world: World, ctl: Ctl) -> None:
    await run_of(world, "one")
    for arguments, code, words in [
        (["dags", "show", "sale"], 3, "did you mean 'sales'?"),
        (["runs", "show", "sales", "on"], 3, "did you mean 'one'?"),
        (["tasks", "show", "sales", "one", "laod"], 3, "did you mean 'load'?"),
        (["dags", "trigger", "sales", "--run-id", "one"], 4, "already"),
        (["dags", "trigger", "sales", "--run-id", "../x"], 2, "cannot be used"),
        (["dags", "trigger", "sales", "--conf", "{x"], 2, "--conf is not JSON"),
        (["dags", "trigger", "sales", "--conf", "[1]"], 2, "JSON object"),
        (
            ["dags", "trigger", "sales", "--conf", '{"a": 12345678901234567890123}'],
            2,
            "--conf cannot be kept: the whole ",
        ),
        (["dags", "trigger", "sales", "--conf", '{"a": [9223372036854775808]}'], 2, "give it as text"),
        (["dags", "trigger", "sales", "--conf", '{"a": ' + "9" * 5000 + "}"], 2, "give it as text"),
        (["dags", "trigger", "sales", "--conf", '{"a": NaN}'], 2, "--conf has NaN in it"),
        (["dags", "trigger", "sales", "--conf", '{"a": [-Infinity]}'], 2, "--conf has -Infinity in it"),
        (["dags", "trigger", "sales", "--conf", '{"a": 1e999}'], 2, "--conf has 1e999 in it"),
        (["dags", "trigger", "sales", "--conf", '{"b": {"a": 1, "a": 2}}'], 2, "--conf has the key 'a' twice"),
        (["dags", "trigger", "sales", "--conf", '{"a": "\\ud800"}'], 2, "--conf has half of a character"),
        (["pools", "set", "huge", "99999999999999999999999"], 2, "the most is 1000000"),
        (["pools", "set", ".", "3"], 2, "begins with a letter"),
        (["pools", "set", "..", "3"], 2, "begins with a letter"),
        (["pools", "set", ".hidden", "3"], 2, "neither . nor -"),
        (["dags", "show", ".."], 2, "begins with a letter"),
        (["dags", "trigger", "sales", "--logical-date", "soon"], 2, "not a time"),
        (["dags", "trigger", "sales", "--conf", '{"a":' + "[" * 3000 + "]" * 3000 + "}"], 2, "nested too deep"),
        (["dags", "trigger", "sales", "--conf", '{"a":' + "[" * 64 + "]" * 64 + "}"], 2, "nested too deep"),
        (["dags", "trigger", "sales", "--logical-date", "0001-01-01"], 2, "1900 to 2199"),
        (["dags", "next", "sales", "--from", "9999-12-31T23:59:59Z"], 2, "1900 to 2199"),
        (["runs", "list", "sales", "--since", "0001-01-01"], 2, "1900 to 2199"),
        (["dags", "trigger", ""], 2, "DAG_ID is empty"),
        (["dags", "trigger", "sales", "--run-id", ""], 2, "--run-id is empty"),
        (["dags", "trigger", "sales", "--conf", ""], 2, "--conf is empty"),
        (["runs", "list", "--limit", "0"], 2, "x>=1"),
        (["runs", "list", "--limit", "-5"], 2, "x>=1"),
        (["runs", "list", "--state", ""], 2, "--state is empty"),
        (["runs", "list", "--state", ","], 2, "at least one"),
        (["dags", "list", "--paused", "--active"], 2, "do not go together"),
        (["--socket", "", "status"], 2, "--socket is empty"),
        (["--home", "", "status"], 2, "--home is empty"),
        (["status", "--socket", ""], 2, "--socket is empty"),
        (["status", "--home", ""], 2, "--home is empty"),
        (["dags", "show", "\udcff\udcfe"], 2, "'\\xff\\xfe' is not UTF-8"),
        (["dags", "trigger", "sales", "--run-id", "caf\udce9"], 2, "'caf\\xe9' is not UTF-8"),
        (["runs", "list", "--state", "\udcff"], 2, "not UTF-8"),
        (["runs", "list", ""], 2, "DAG_ID is empty"),
        (["tasks", "clear", "sales", "one", "load", ""], 2, "is empty"),
        (["runs", "wait", "sales", "one", "--timeout", "-1"], 2, "0 or more"),
        (["runs", "wait", "sales", "one", "--timeout", "nan"], 2, "0 or more"),
        (["pools", "set", "a b", "1"], 2, "cannot be used"),
        (["dags", "next", "sales", "--count", "0"], 2, "least is 1"),
        (["runs", "list", "sales", "--state", "runing"], 2, "did you mean 'running'?"),
        (["dgs"], 2, "did you mean 'dags'?"),
        (["dags", "lst"], 2, "did you mean 'list'?"),
        (["dags", "show"], 2, "Missing argument"),
        (["dags", "list", "--tga", "x"], 2, "--tag"),
    ]:
        got, out, err = await ctl(*arguments)
        assert (got, out) == (code, ""), (arguments, err)
        assert words in err, (arguments, err)


async def test_whole_numbers_of_64_bits_arrive_as_they_are(world: World, ctl: Ctl) -> None:
    conf = {"region": {"least": -(2**63), "most": 2**63 - 1, "far": 1e300}}
    run = await machine(ctl, "dags", "trigger", "sales", "--run-id", "a", "--conf", json.dumps(conf))
    assert run["conf"] == conf


async def test_conf_is_shown_as_json(world: World, ctl: Ctl) -> None:
    code, out, _ = await ctl(
        "dags", "trigger", "sales", "--run-id", "a", "--conf", '{"region": {"café": [true, null]}}'
    )
    assert (code, '{"region": {"café": [true, null]}}' in out) == (0, True)
    assert '{"region": {"café": [true, null]}}' in (await ctl("runs", "show", "sales", "a"))[1]


async def test_where_nothing_comes_the_reason_is_said(world: World, ctl: Ctl) -> None:
    task = {"task_id": "a", "operator": "EmptyOperator", "kind": "empty"}
    with contextlib.closing(world.live.subscribe()) as messages:
        await world.load({"dag_id": "once", "schedule": {"kind": "once"}, "tasks": [task]}, file="once.py")
        async with asyncio.timeout(10):
            async for message in messages:
                if any(run[0] == "once" for run in message.data.get("runs", ())):
                    break
    await world.load({"dag_id": "by_hand", "schedule": {"kind": "none"}, "tasks": [task]}, file="by_hand.py")
    await world.load({**SALES, "dag_id": "over", "end_date": "2026-01-02T05:00:00Z"}, file="over.py")
    for dag_id, words in {
        "once": "it runs once, and that run was made already.",
        "by_hand": "it has no schedule, so it runs only when triggered.",
        "over": "no run is due up to its end date, 2026-01-02T05:00:00Z.",
    }.items():
        assert await ctl("dags", "next", dag_id, *FROM) == (0, f"Nothing comes: {words}\n", PAUSED.get(dag_id, ""))
        assert words in (await machine(ctl, "dags", "next", dag_id, *FROM))["reason"]
    assert (await machine(ctl, "dags", "next", "sales"))["reason"] is None


async def test_the_dags_are_listed_by_whether_they_are_paused(world: World, ctl: Ctl) -> None:
    await world.load({**SALES, "dag_id": "awake", "is_paused_upon_creation": False}, file="awake.py")
    for flags, found in ([], ["awake", "sales"]), (["--paused"], ["sales"]), (["--active"], ["awake"]):
        assert [dag["dag_id"] for dag in (await machine(ctl, "dags", "list", *flags))["dags"]] == found


async def test_patience_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PATIENCE_S", 0.0)
    assert main.run(["--home", str(tmp_path), "runs", "wait", "a", "b"]) == 5


def test_waiting_ends_in_time_without_a_daemon(tmp_path: Path) -> None:
    assert main.run(["--home", str(tmp_path), "runs", "wait", "a", "b", "--timeout", "0.3"]) == 5
