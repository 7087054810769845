"""What a task's end becomes: outcomes, reasons, XComs, and questions to a daemon that comes and goes."""

import asyncio
import contextlib
import http.server
import json
import os
import signal
import socket
import socketserver
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxd import (
    DAG,
    BaseOperator,
    BaseSensor,
    FailTask,
    PokeResult,
    SkipTask,
    TaskTerminated,
    XComArg,
    get_current_context,
    task,
)
from fluxd.authoring import daemon, execution, testing
from fluxd.authoring.requests import ExecCommand
from fluxd.errors import NotFound, Unavailable
from fluxd.ops import BashOperator
from fluxd.sensors import FileSensor

GIVEN = {
    "run_id": "r1",
    "fence": 41,
    "run_type": "scheduled",
    "logical_date": "2026-01-05T00:00:00Z",
    "data_interval_start": "2026-01-05T00:00:00Z",
    "data_interval_end": "2026-01-06T00:00:00Z",
    "params": {},
}


def run(operator_or_result: Any, **given: Any) -> dict[str, Any]:
    made = operator_or_result
    operator = made.operator if isinstance(made, XComArg) else made
    assert operator.dag is not None
    return execution.run(operator.dag, operator.task_id, {**GIVEN, **given})


def outcome_of(function: Any, **given: Any) -> dict[str, Any]:
    with DAG("d"):
        made = task(task_id="t")(function)()
    return run(made, **given)


def test_success_with_result_and_pushed_values() -> None:
    def work(ti: Any) -> dict[str, int]:
        ti.xcom_push("k", (1, 2))
        ti.xcom_push(key="k2", value=None)
        assert ti.xcom_pull("t", key="k") == [1, 2]
        return {"n": 1}

    assert outcome_of(work) == {
        "state": "success",
        "xcoms": [["k", [1, 2]], ["k2", None], ["return_value", {"n": 1}]],
        "rendered": {"op_args": "[]", "op_kwargs": "{}", "templates_dict": None},
    }


def test_none_is_no_xcom() -> None:
    assert outcome_of(lambda: None)["xcoms"] == []


def test_an_error_is_one_sentence_with_the_authors_line(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        json.loads("nonsense")

    line = work.__code__.co_firstlineno + 1
    outcome = outcome_of(work)
    assert outcome["state"] == "failed"
    assert outcome["error"] == {
        "type": "JSONDecodeError",
        "message": f"Expecting value: line 1 column 1 (char 0) (test_execution.py:{line})",
        "retry": True,
    }
    log = capfd.readouterr().err
    assert f'test_execution.py", line {line}, in work' in log
    assert "fluxd/authoring" not in log


def test_an_async_error_has_the_authors_line_too() -> None:
    async def work() -> None:
        raise ValueError("first\nsecond")

    line = work.__code__.co_firstlineno + 1
    assert outcome_of(work)["error"]["message"] == f"first (test_execution.py:{line})"


def test_in_a_notebook_a_loop_runs_already() -> None:
    async def work(ds: str) -> str:
        await asyncio.sleep(0)
        return ds + get_current_context()["run_id"]

    async def cell() -> Any:
        return outcome_of(work)

    assert asyncio.run(cell())["xcoms"] == [["return_value", "2026-01-05r1"]]


def test_skip_keeps_what_was_pushed() -> None:
    def work(ti: Any) -> None:
        ti.xcom_push("seen", 1)
        raise SkipTask("nothing new")

    outcome = outcome_of(work)
    assert (outcome["state"], outcome["error"]["message"]) == ("skipped", "nothing new")
    assert outcome["xcoms"] == [["seen", 1]]


def test_fail_task_is_not_retried() -> None:
    def work() -> None:
        raise FailTask("wrong account")

    error = outcome_of(work)["error"]
    assert error["retry"] is False
    assert error["message"].startswith("wrong account (test_execution.py:")


@pytest.mark.parametrize(("code", "state"), [(0, "success"), (None, "success"), (3, "failed"), ("bad", "failed")])
def test_sys_exit(code: Any, state: str) -> None:
    outcome = outcome_of(lambda: sys.exit(code))
    assert outcome["state"] == state
    if state == "failed":
        assert outcome["error"]["message"] == f"the task called sys.exit({code!r})"


def test_a_result_without_json_form_fails_for_good() -> None:
    error = outcome_of(lambda: {1, 2})["error"]
    assert error["message"].startswith("FLX-3004: What task 't' returned holds a builtins.set")
    assert error["retry"] is False


def test_a_wrong_template_fails_for_good(capfd: pytest.CaptureFixture[str]) -> None:
    with DAG("d"):
        bash = BashOperator(task_id="t", bash_command="echo {{ nope }}")
    outcome = run(bash)
    sentence = "FLX-3001: Template bash_command of task 't' of dag 'd', line 1: 'nope' is undefined."
    assert outcome["error"] == {"type": "Invalid", "message": sentence, "retry": False}
    assert capfd.readouterr().err == f"{sentence}\n"


def test_told_to_stop_runs_finally_and_on_kill() -> None:
    seen = []

    class Remote(BaseOperator):
        def execute(self, context: dict[str, Any]) -> None:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                with contextlib.suppress(Exception):
                    signal.pause()
            finally:
                seen.append("finally")

        def on_kill(self) -> None:
            seen.append("on_kill")

    def stop(number: int, frame: Any) -> None:
        raise TaskTerminated

    with DAG("d"):
        remote = Remote(task_id="t")
    before = signal.signal(signal.SIGTERM, stop)
    try:
        outcome = run(remote)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == ["finally", "on_kill"]
    assert outcome["error"] == {
        "type": "TaskTerminated",
        "message": "FLX-3010: The task was told to stop and did.",
        "retry": True,
    }


def test_a_task_that_is_not_there() -> None:
    outcome = execution.run(DAG("d"), "t", GIVEN)
    assert outcome["error"]["message"] == "FLX-3013: Dag 'd' has no task 't'."


def test_xcoms_of_upstreams() -> None:
    with DAG("d"):
        up = BashOperator(task_id="up", bash_command="true")

        @task
        def work(whole: Any, item: Any, first: Any, ti: Any) -> list[Any]:
            return [
                whole,
                item,
                first,
                ti.xcom_pull(),
                ti.xcom_pull(["up", "up"], key="k"),
                ti.xcom_pull("up", "no", 5),
            ]

        made = work(up.output, up.output["k"], up.output["rows"][0])
        wrong = work.override(task_id="wrong")(up.output["nothing"], 1, 2)
    xcoms = {"up": {"return_value": {"rows": [7, 8]}, "k": "v"}}
    outcome = run(made, upstream_xcoms=xcoms)
    assert dict(outcome["xcoms"])["return_value"] == [{"rows": [7, 8]}, "v", 7, {"rows": [7, 8]}, ["v", "v"], 5]
    outcome = run(wrong, upstream_xcoms=xcoms)
    assert outcome["error"]["type"] == NotFound.__name__
    assert outcome["error"]["message"].startswith("FLX-3011: Task 'up' gave nothing under 'nothing'")


def test_a_command_takes_the_place_of_the_process() -> None:
    seen: list[Any] = []

    class Replaced(Exception):
        pass

    def replace(command: ExecCommand, rendered: dict[str, Any]) -> Any:
        seen.append((command, rendered))
        raise Replaced

    with DAG("d"):
        BashOperator(task_id="t", bash_command="echo {{ ds }}", env={"A": "{{ ds }}"}, append_env=False, cwd="/")
    outcome = execution.run(testing.registry.collect()[0], "t", GIVEN, replace=replace)
    assert outcome["error"]["type"] == "Replaced"
    command, rendered = seen[0]
    assert command == ExecCommand(["/bin/bash", "-c", "echo 2026-01-05"], {"A": "2026-01-05"}, "/", (99,))
    assert rendered["bash_command"] == "echo 2026-01-05"


def test_a_sensor_that_comes_with_flux_is_handed_over() -> None:
    with DAG("d", timezone="Europe/Paris"):
        sensor = FileSensor(
            task_id="t", path="in/{{ ds }}.csv", poke_interval="10s", timeout="2h", soft_fail=True, mode="reschedule"
        )
    assert run(sensor)["wait"] == {
        "sensor": "FileSensor",
        "args": {
            "path": str(Path(__file__).parent / "in/2026-01-05.csv"),
            "min_size": 0,
            "unchanged_for": 0.0,
            "contains": None,
        },
        "poke_interval": 10.0,
        "timeout": 7200.0,
        "soft_fail": True,
        "exponential_backoff": False,
    }


class Countdown(BaseSensor):
    """Done at the third look."""

    looks = 0

    async def poke(self, context: dict[str, Any] | None = None) -> PokeResult:
        Countdown.looks += 1
        return PokeResult(Countdown.looks >= 3, Countdown.looks)


class Never(BaseSensor):
    def poke(self, context: dict[str, Any] | None = None) -> bool:  # type: ignore[override]
        return False


class OwnFileSensor(FileSensor):
    pass


def test_a_sensor_of_the_authors_own_waits_in_its_process(tmp_path: Path) -> None:
    Countdown.looks = 0
    (tmp_path / "x").write_text("x")
    with DAG("d"):
        count = Countdown(task_id="count", poke_interval=0.001, exponential_backoff=True)
        late = Never(task_id="late", poke_interval=0.001, timeout=0.005)
        soft = Never(task_id="soft", poke_interval=0.001, timeout=0.005, soft_fail=True)
        own = OwnFileSensor(task_id="own", path=str(tmp_path / "x"))
    assert run(count)["xcoms"] == [["return_value", 3]]
    assert run(late)["error"]["message"] == "FLX-3040: what it waited for did not come within 0.005 s"
    assert run(soft)["state"] == "skipped"
    assert run(own)["xcoms"] == [["return_value", str(tmp_path / "x")]]


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    answers: dict[str, list[tuple[int, Any]]]
    asked: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))  # else whoever sent it meets a broken pipe
        self.server.asked.append(self.path)
        answers = self.server.answers.get(self.path, [(404, {})])
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_PUT = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def address_string(self) -> str:
        return "unix"


@pytest.fixture
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder, Server(f"{folder}/s", Handler) as server:
        server.answers, server.asked = {}, []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_values_of_other_tasks_are_asked_for(server: Server) -> None:
    path = "/api/v1/worker/attempts/41/xcom?task_id=far%2Faway&key=return_value"
    server.answers[path] = [(503, {}), (200, {"value": [1]})]
    outcome = outcome_of(lambda ti: [ti.xcom_pull("far/away"), ti.xcom_pull("none")], socket=server.server_address)
    assert dict(outcome["xcoms"])["return_value"] == [[1], None]
    assert server.asked == [path, path, path.replace("far%2Faway", "none")]


def test_the_run_before_this_is_asked_for(server: Server) -> None:
    before = {"data_interval_start": "2026-01-04T00:00:00Z", "ended_at": "2026-01-05T00:00:09Z"}
    server.answers["/api/v1/worker/attempts/41/previous-success"] = [(200, {"run": before})]

    with DAG("d"):
        bash = BashOperator(
            task_id="t",
            bash_command="echo {{ prev_data_interval_start_success | ds }} {{ prev_end_date_success | ts }}",
        )
    outcome = run(bash, socket=server.server_address)
    assert outcome["rendered"]["bash_command"] == "echo 2026-01-04 2026-01-05T00:00:09+00:00"


def counts(ti: Any) -> None:
    for number in range(100):
        ti.progress(rows=number, note="counting")
    ti.progress(bytes=7)


def test_progress_is_told_once_in_a_while_and_its_last_goes_with_the_outcome(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fluxd.authoring.progress.INTERVAL_S", 3600.0)
    path = "/api/v1/worker/attempts/41/progress"
    server.answers[path] = [(200, {})]
    last = {"rows": 99, "bytes": 7, "note": "counting"}
    assert outcome_of(counts, socket=server.server_address)["progress"] == last
    assert server.asked == [path]
    monkeypatch.setattr("fluxd.authoring.progress.INTERVAL_S", 0.0)
    outcome_of(counts, socket=server.server_address)
    assert server.asked == [path] * 102


def test_a_daemon_that_does_not_hear_holds_nobody_up(server: Server) -> None:
    server.answers["/api/v1/worker/attempts/41/progress"] = [(503, {})]
    for socket_path in ("/nowhere/s", server.server_address):
        outcome = outcome_of(counts, socket=socket_path)
        assert (outcome["state"], outcome["progress"]["rows"]) == ("success", 99)
    assert len(server.asked) == 1, "it is not asked again at once"
    assert outcome_of(counts)["progress"]["bytes"] == 7, "nor does it need one"


@pytest.mark.parametrize(
    "ask",
    [
        lambda ti: ti.progress(rows=1),
        lambda ti: ti.get_state(),
        lambda ti: ti.set_state({}),
        lambda ti: ti.xcom_pull("other"),
    ],
)
def test_a_process_whose_attempt_is_over_fails_with_the_sentence_of_the_daemon(server: Server, ask: Any) -> None:
    problem = (409, {"code": "FLX-4240", "detail": "It is over."})
    names = ("progress", "state", "xcom?task_id=other&key=return_value")
    server.answers = {f"/api/v1/worker/attempts/41/{name}": [problem] for name in names}
    error = outcome_of(ask, socket=server.server_address)["error"]
    assert error["message"] == "FLX-4240: It is over."


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"rows": -1}, "FLX-1003"),
        ({"rows": "3"}, "FLX-1003"),
        ({"bytes": 2**63}, "FLX-1003"),
        ({"bytes": True}, "FLX-1003"),
        ({"note": 3}, "FLX-1003"),
        ({"note": "a\0"}, "FLX-1003"),
    ],
)
def test_progress_that_is_none_is_named(given: dict[str, Any], code: str) -> None:
    assert code in outcome_of(lambda ti: ti.progress(**given))["error"]["message"]


@pytest.mark.parametrize(
    ("state", "code"),
    [([1], "FLX-1003"), ({"a": object()}, "FLX-3004"), ({"a": "x" * 70_000}, "FLX-3005"), ({1: 2}, "FLX-1003")],
)
def test_state_that_cannot_be_kept_is_named(state: Any, code: str) -> None:
    assert code in outcome_of(lambda ti: ti.set_state(state))["error"]["message"]


def test_state_works_without_a_daemon() -> None:
    def work(ti: Any) -> list[Any]:
        before = ti.get_state()
        ti.set_state({"n": 1})
        return [before, ti.get_state()]

    assert dict(outcome_of(work)["xcoms"])["return_value"] == [{}, {"n": 1}]


def test_a_daemon_that_stays_away() -> None:
    with pytest.raises(Unavailable, match=r"FLX-3008: The daemon at /nowhere/s did not answer for 0.01 s \("):
        daemon.get("/nowhere/s", "/status", patience_s=0.01)
    with pytest.raises(Unavailable, match="FLX-3008: The daemon is not there to be asked"):
        daemon.get(None, "/status")


def test_a_daemon_that_comes_back(server: Server) -> None:
    server.answers["/api/v1/status"] = [(200, {"ok": 1})]
    # The old daemon's socket is still there when the new one has not bound its own yet: refused, then answered.
    address = str(server.server_address)
    stale = f"{address}-stale"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(stale)
    turn = threading.Timer(0.1, lambda: Path(address).replace(stale))
    turn.start()
    assert daemon.get(stale, "/status", patience_s=30) == {"ok": 1}
    turn.join()
