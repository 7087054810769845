"""What a run does while nothing but its tasks speak: starts, ends, retries, timeouts, waits."""

from datetime import timedelta

import pytest

from fluxd.core.attempts import FREE_RETRIES, FREE_RETRY_DELAY_S, FREE_RETRY_GROWTH
from fluxd.core.commands import XCom
from fluxd.core.events import AttemptEnded, AttemptLost, AttemptStarted, CancelRun, WaitEnded
from tests.unit.core.dialogue import FAILED, FOR_GOOD, NOON, SKIPPED, SUCCESS, Dialogue, dag, ran_through, task


def test_the_end_of_a_task_starts_the_next_in_the_same_turn() -> None:
    flux = Dialogue(dag(task("a"), task("b", "a")))
    flux.trigger()
    assert flux.starts() == ["a"]
    flux.started(1)
    assert flux.state("a") == "running"
    flux.ended(1)
    assert (flux.state("a"), flux.starts(), flux.acks()) == ("success", ["b"], [1])
    flux.ended(2)
    assert flux.runs[1].state == "success"
    assert flux.runs[1].ended_at == NOON


def test_rows_are_copies_and_stand_once_in_a_turn() -> None:
    flux = Dialogue(dag(task("a"), task("b", "a")))
    flux.trigger()
    row = flux.instances[(1, "a", -1)]
    turn = flux.say(AttemptStarted(1, 7, NOON), AttemptEnded(1, 7, NOON, NOON, outcome=SUCCESS))
    assert row.state == "queued"
    assert [saved.key for saved in turn.saves.instances] == [(1, "a", -1), (1, "b", -1)]
    assert [attempt.fence for attempt in turn.saves.attempts] == [1, 2]


def test_an_end_without_a_start_message_counts() -> None:
    flux = Dialogue(dag(task("a")))
    flux.trigger()
    flux.ended(1)
    assert flux.attempts[1].pid == 1001
    assert flux.runs[1].state == "success"


def test_messages_of_another_fence_change_nothing_and_are_acknowledged() -> None:
    flux = Dialogue(dag(task("a", retries=1, retry_delay=0.0)))
    flux.trigger()
    flux.ended(1, FAILED)
    assert flux.fence("a") == 2
    for fence in (1, 99):
        turn = flux.ended(fence, SUCCESS)
        assert not turn.saves
        assert flux.acks() == [fence]
    turn = flux.say(AttemptLost(1, NOON, "gone"), AttemptStarted(1, 5, NOON), WaitEnded(1, "success", NOON))
    assert not turn.saves


def test_a_start_message_that_comes_after_the_end_changes_nothing() -> None:
    flux = Dialogue(dag(task("a"), task("b", "a")))
    flux.trigger()
    flux.ended(1)
    assert not flux.started(1).saves


def test_empty_tasks_need_no_process() -> None:
    flux = Dialogue(dag(task("a", kind="empty"), task("b", "a", kind="empty"), task("c", "b")))
    flux.trigger()
    assert flux.states() == {"a": "success", "b": "success", "c": "queued"}
    assert (flux.instances[(1, "a", -1)].try_number, flux.starts(), len(flux.attempts)) == (0, ["c"], 1)


def test_a_run_without_tasks_ends_at_once() -> None:
    flux = Dialogue(dag())
    flux.trigger()
    assert flux.runs[1].state == "success"


def test_a_long_chain_of_empty_tasks_does_not_recurse() -> None:
    chain = [task("t0", kind="empty"), *(task(f"t{n}", f"t{n - 1}", kind="empty") for n in range(1, 5000))]
    flux = Dialogue(dag(*chain))
    flux.trigger()
    assert flux.runs[1].state == "success"


def test_a_failure_is_named_in_the_run() -> None:
    flux = Dialogue(dag(task("a"), task("b", "a")))
    flux.trigger()
    flux.ended(1, FAILED)
    assert flux.states() == {"a": "failed", "b": "upstream_failed"}
    assert flux.runs[1].state == "failed"
    assert flux.runs[1].reason == "task a failed: ValueError: no"
    assert flux.instances[(1, "b", -1)].reason == "its trigger rule all_success cannot be met: a failed"


def test_leaves_decide_how_a_run_ended() -> None:
    flux = Dialogue(dag(task("a"), task("tidy", "a", trigger_rule="all_done")))
    flux.trigger()
    ran_through(flux, {"a": FAILED})
    assert flux.runs[1].state == "success"


def test_skips_spread() -> None:
    flux = Dialogue(dag(task("a"), task("b", "a"), task("c", "b"), task("join", "c", trigger_rule="none_failed")))
    flux.trigger()
    ran_through(flux, {"a": SKIPPED})
    assert flux.states() == {"a": "skipped", "b": "skipped", "c": "skipped", "join": "success"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"exit_code": 3}, "FLX-3501: The process ended with exit code 3 and left no result"),
        ({"signal": 9}, "FLX-3502: The process was ended by signal 9 (SIGKILL) and left no result"),
    ],
)
def test_a_process_that_leaves_no_result_says_how_it_ended(fields: dict[str, int], words: str) -> None:
    flux = Dialogue(dag(task("a")))
    flux.trigger()
    flux.ended(1, None, **fields)
    assert flux.instances[(1, "a", -1)].reason == words


def test_retries_wait_their_delay() -> None:
    flux = Dialogue(dag(task("a", retries=1, retry_delay=60.0)))
    flux.trigger()
    flux.ended(1, FAILED)
    assert flux.state("a") == "up_for_retry"
    assert flux.wake_at() == NOON + timedelta(seconds=60)
    assert not flux.wait(59).saves
    flux.wait(1)
    assert (flux.starts(), flux.fence("a")) == (["a"], 2)
    flux.ended(2, FAILED)
    assert (flux.state("a"), flux.runs[1].state) == ("failed", "failed")


def test_retry_delays_double_up_to_their_limit() -> None:
    flux = Dialogue(dag(task("a", retries=4, retry_delay=10.0, retry_exponential_backoff=True, max_retry_delay=35.0)))
    flux.trigger()
    waited = []
    for fence in range(1, 5):
        flux.ended(fence, FAILED)
        wake = flux.wake_at()
        assert wake is not None
        waited.append((wake - flux.now).total_seconds())
        flux.wait(waited[-1])
    assert waited == [10, 20, 35, 35]


def test_some_errors_are_not_tried_again() -> None:
    flux = Dialogue(dag(task("a", retries=3)))
    flux.trigger()
    flux.ended(1, FOR_GOOD)
    assert flux.state("a") == "failed"


def test_a_lost_attempt_is_a_failed_try_with_the_evidence_as_reason() -> None:
    flux = Dialogue(dag(task("a", retries=1, retry_delay=0.0)))
    flux.trigger()
    flux.say(AttemptLost(1, NOON, "the host was rebooted"))
    assert flux.attempts[1].state == "lost"
    assert flux.attempts[1].reason == "FLX-3504: The process was lost: the host was rebooted"
    assert (flux.acks(), flux.starts()) == ([1], ["a"])


def test_execution_timeout_stops_the_process_first() -> None:
    flux = Dialogue(dag(task("a", execution_timeout=30.0, retries=1, retry_delay=0.0)))
    flux.trigger()
    flux.started(1)
    flux.wait(30)
    assert flux.kills() == [(1, "timeout")]
    assert (flux.state("a"), flux.instances[(1, "a", -1)].stop_reason) == ("running", "timeout")
    assert flux.wait(100).commands == []  # told once
    flux.ended(1, None, signal=15)
    assert flux.attempts[1].reason == "FLX-3503: Task 'a' ran longer than its execution_timeout of 30 s and was ended"
    assert flux.starts() == ["a"]


def test_a_success_that_came_before_the_timeout_could_stop_it_counts() -> None:
    flux = Dialogue(dag(task("a", execution_timeout=30.0)))
    flux.trigger()
    flux.started(1)
    flux.wait(30)
    flux.ended(1, SUCCESS)
    assert flux.state("a") == "success"


def test_one_that_goes_in_good_order_when_told_to_has_not_succeeded() -> None:
    flux = Dialogue(dag(task("a", execution_timeout=30.0), task("b", "a"), task("c")))
    flux.trigger()
    flux.started(1, 2)
    flux.wait(30)
    assert flux.kills() == [(1, "timeout")]
    flux.ended(1, SUCCESS, killed="timeout", exit_code=0)
    assert (flux.state("a"), flux.state("b"), flux.starts()) == ("failed", "upstream_failed", [])
    assert (flux.instances[(1, "a", -1)].reason or "").startswith("FLX-3503")
    flux.ended(2, SUCCESS, killed="stop", exit_code=0)  # the runner was told to stop, nobody meant this task
    assert flux.instances[(1, "c", -1)].reason == "FLX-7013: The task was told to stop (stop), and went"


def test_a_cancelled_command_that_exits_with_0_is_cancelled() -> None:
    flux = Dialogue(dag(task("a"), task("b", "a")))
    flux.trigger()
    flux.started(1)
    flux.say(CancelRun(1, 1))
    flux.ended(1, SUCCESS, killed="cancel", exit_code=0)
    assert (flux.state("a"), flux.state("b"), flux.runs[1].state) == ("cancelled", "cancelled", "cancelled")


def test_a_lost_attempt_that_never_began_does_not_count_and_is_tried_again_later_each_time() -> None:
    flux = Dialogue(dag(task("a", retry_delay=300.0)))
    flux.trigger()
    waited = []
    for fence in range(1, FREE_RETRIES + 1):
        flux.say(AttemptLost(fence, flux.now, "its host hangs", began=False))
        assert (flux.state("a"), flux.attempts[fence].state) == ("up_for_retry", "lost")
        waited.append(until_retry(flux))
    assert waited == [FREE_RETRY_DELAY_S * FREE_RETRY_GROWTH**number for number in range(FREE_RETRIES)]
    flux.say(AttemptLost(FREE_RETRIES + 1, flux.now, "its host hangs", began=False))
    assert flux.state("a") == "failed"
    assert flux.instances[(1, "a", -1)].reason == (
        f"FLX-7030: Its process was lost {FREE_RETRIES + 1} times in a row before it began: its host hangs"
    )


def until_retry(flux: Dialogue) -> float:
    """Let the delay of task `a` pass; its seconds."""
    retry_at = flux.instances[(1, "a", -1)].retry_at
    assert retry_at is not None
    seconds = (retry_at - flux.now).total_seconds()
    flux.wait(seconds)
    return seconds


@pytest.mark.parametrize("between", ["an end", "a loss after it began"])
def test_the_count_of_free_retries_begins_anew_after(between: str) -> None:
    flux = Dialogue(dag(task("a", retries=1)))
    flux.trigger()
    for fence in range(1, FREE_RETRIES + 1):
        flux.say(AttemptLost(fence, flux.now, "its host hangs", began=False))
        until_retry(flux)
    last = FREE_RETRIES + 1
    if between == "an end":
        flux.ended(last, FAILED)
    else:
        flux.say(AttemptLost(last, flux.now, "gone"))
    until_retry(flux)
    flux.say(AttemptLost(last + 1, flux.now, "its host hangs", began=False))
    assert flux.state("a") == "up_for_retry"


def test_dagrun_timeout_cancels_what_has_not_ended_and_fails_the_run() -> None:
    flux = Dialogue(dag(task("a"), task("b", "a"), dagrun_timeout=3600.0))
    flux.trigger()
    flux.started(1)
    flux.wait(3600)
    assert (flux.kills(), flux.state("b"), flux.runs[1].state) == ([(1, "cancel")], "cancelled", "running")
    flux.ended(1, None, signal=15)
    assert (flux.state("a"), flux.runs[1].state) == ("cancelled", "failed")
    assert flux.runs[1].reason == "FLX-3506: The run took longer than its dagrun_timeout of 1 h"


WAIT = {"state": "waiting", "wait": {"sensor": "FileSensor", "timeout": 100.0}}


@pytest.mark.parametrize(
    ("sensor", "args", "words"),
    [
        ("FileSensor", {"path": "/in/a b.csv", "min_size": 1}, "it waits for FileSensor /in/a b.csv, until "),
        ("TimeSensor", {"at": "2026-01-01T00:00:00Z"}, "it waits for TimeSensor 2026-01-01T00:00:00Z, until "),
        ("FileSensor", None, "it waits for FileSensor, until "),
    ],
)
def test_the_reason_of_a_waiting_task_names_what_it_waits_for(sensor: str, args: object, words: str) -> None:
    flux = Dialogue(dag(task("a", kind="sensor")))
    flux.trigger()
    flux.ended(1, {"state": "waiting", "wait": {"sensor": sensor, "args": args, "timeout": 100.0}})
    (why,) = flux.scheduler.explain(1)
    assert why.words.startswith(words) and why.words.endswith("Z at most")


def test_a_waiting_task_holds_no_process_and_no_slot() -> None:
    flux = Dialogue(dag(task("a", kind="sensor"), task("b")), parallelism=1)
    flux.trigger()
    flux.ended(1, WAIT)
    assert (flux.state("a"), flux.starts()) == ("waiting", ["b"])
    assert [(wait.fence, wait.instance.wait_until) for wait in flux.waits()] == [(2, NOON + timedelta(seconds=100))]
    assert not flux.ended(1, WAIT).saves  # said twice
    flux.say(WaitEnded(2, "success", NOON, (("return_value", "/in/x"),)))
    assert flux.turn.saves.xcoms == [XCom(1, "a", -1, "return_value", "/in/x")]
    assert flux.state("a") == "success"


@pytest.mark.parametrize(("soft", "state"), [(False, "failed"), (True, "skipped")])
def test_a_wait_ends_at_its_deadline_and_is_not_tried_again(soft: bool, state: str) -> None:
    flux = Dialogue(dag(task("a", kind="sensor", retries=3)))
    flux.trigger()
    flux.ended(1, {"state": "waiting", "wait": {"sensor": "FileSensor", "timeout": 100.0, "soft_fail": soft}})
    flux.wait(100)
    assert flux.state("a") == state
    assert flux.instances[(1, "a", -1)].reason == (
        "FLX-3505: FileSensor waited until its timeout of 1 m 40 s and what it waits for never came"
    )


def test_the_deadline_of_a_wait_counts_from_the_first_try() -> None:
    flux = Dialogue(dag(task("a", kind="sensor", retries=1, retry_delay=50.0)))
    flux.trigger()
    flux.ended(1, WAIT)
    flux.say(WaitEnded(2, "failed", NOON, error="PermissionError"))
    assert flux.state("a") == "up_for_retry"
    flux.wait(50)
    flux.ended(3, WAIT)
    assert flux.waits()[0].instance.wait_until == NOON + timedelta(seconds=100)


def test_results_are_kept_and_a_new_try_begins_without_them() -> None:
    flux = Dialogue(dag(task("a", retries=1, retry_delay=10.0)))
    flux.trigger()
    flux.ended(1, FAILED | {"xcoms": [["rows", 3]]})
    assert flux.turn.saves.xcoms == [XCom(1, "a", -1, "rows", 3)]
    flux.wait(10)
    assert flux.turn.saves.xcoms_dropped == [(1, "a", -1)]


def test_five_hundred_upstreams_are_joined_once() -> None:
    names = [f"t{number}" for number in range(500)]
    flux = Dialogue(dag(*(task(name) for name in names), task("join", *names), max_active_tasks=1000), parallelism=1000)
    flux.trigger()
    for fence in range(1, 500):
        flux.ended(fence)
        assert "join" not in flux.starts()
    flux.ended(500)
    assert flux.starts() == ["join"]


@pytest.mark.parametrize(
    ("execution_timeout", "timeout", "code", "after"),
    [
        (1.0, 100.0, "FLX-3503", 1),
        (99.0, 100.0, "FLX-3503", 99),
        (100.0, 100.0, "FLX-3505", 100),
        (101.0, 100.0, "FLX-3505", 100),
        (None, 100.0, "FLX-3505", 100),
        (50.0, None, "FLX-3503", 50),
        (None, 0.0, "FLX-3505", 1),
        (1.0, 0.0, "FLX-3505", 1),
    ],
)
def test_a_waiting_task_has_its_execution_timeout_and_its_timeout(
    execution_timeout: float | None, timeout: float | None, code: str, after: int
) -> None:
    flux = Dialogue(dag(task("a", execution_timeout=execution_timeout, retries=1, retry_delay=10.0)))
    flux.trigger()
    flux.started(1)
    flux.ended(1, {"state": "waiting", "wait": {"sensor": "FileSensor", "timeout": timeout}})
    assert not flux.wait(after - 1 if after > 1 else 0.5).saves
    turn = flux.wait(1 if after > 1 else 0.5)
    assert [type(command).__name__ for command in turn.commands] == ["EndWait"]
    assert (flux.instances[(1, "a", -1)].reason or "").startswith(code)
    # A try that took too long is tried again; a sensor that had its whole time is not.
    assert flux.state("a") == ("up_for_retry" if code == "FLX-3503" else "failed")


def pauses(flux: Dialogue, tries: int) -> list[float]:
    """The pause after each of these failed tries but the last."""
    waited = []
    for _ in range(tries - 1):
        flux.ended(flux.fence("a"), FAILED)
        wake = flux.wake_at()
        assert wake is not None
        waited.append((wake - flux.now).total_seconds())
        flux.wait(waited[-1])
    flux.ended(flux.fence("a"), FAILED)
    return waited


def test_pauses_begin_anew_after_a_clear() -> None:
    flux = Dialogue(dag(task("a", retries=2, retry_delay=1.0, retry_exponential_backoff=True)))
    flux.trigger()
    assert pauses(flux, 3) == [1, 2]
    for _ in range(2):
        flux.clear("a")
        assert pauses(flux, 3) == [1, 2]


def test_a_process_that_never_began_lengthens_no_pause() -> None:
    flux = Dialogue(dag(task("a", retries=2, retry_delay=1.0, retry_exponential_backoff=True)))
    flux.trigger()
    flux.say(AttemptLost(1, flux.now, "its runner died before its process began", began=False))
    flux.wait(1)
    assert pauses(flux, 3) == [1, 2]


def test_doubling_ends_at_a_day_or_at_the_delay_asked_for() -> None:
    for delay, expected in ((172800.0, [172800.0] * 3), (40000.0, [40000.0, 80000.0, 86400.0])):
        flux = Dialogue(dag(task("a", retries=3, retry_delay=delay, retry_exponential_backoff=True)))
        flux.trigger()
        assert pauses(flux, 4) == expected
