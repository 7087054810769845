"""Attempts start, end, wait and get lost; what that makes of their task instance.

A message names a leg of an attempt by its fence, and comes from the executor that the leg is with. One about a leg that
is not live any more, or never was, or is with somebody else, is answered with an acknowledgement and changes nothing.
"""

import signal
from datetime import datetime
from typing import Any

from fluxd.core.commands import AckAttempt, BeginWait, EndWait, KillAttempt
from fluxd.core.events import AttemptEnded, AttemptLost, AttemptStarted, WaitEnded
from fluxd.core.live import LiveRun, Node
from fluxd.core.moment import duration
from fluxd.core.progress import kept_progress
from fluxd.core.settle import REASON_MAX, unfinished
from fluxd.core.spec import WAITING_ROOM
from fluxd.core.states import AttemptState, State, StopReason
from fluxd.core.timetable import seconds_in_words
from fluxd.core.working_set import WorkingSet

# An attempt that was lost before anything of it ran does not count as a try; the next one waits longer each time, and
# after so many in a row it counts like any other failure.
FREE_RETRIES = 5
FREE_RETRY_DELAY_S = 0.25
FREE_RETRY_GROWTH = 4.0
# Back-off doubles up to this; docs/writing-dags.md says so.
BACKOFF_MAX_S = 86400.0
FIRST_LOOK_S = 1.0
FINAL: dict[StopReason, tuple[State, AttemptState]] = {
    StopReason.CANCEL: (State.CANCELLED, AttemptState.CANCELLED),
    StopReason.RESTART: (State.NONE, AttemptState.CANCELLED),
    StopReason.SUCCESS: (State.SUCCESS, AttemptState.CANCELLED),
    StopReason.FAIL: (State.FAILED, AttemptState.CANCELLED),
    StopReason.SKIP: (State.SKIPPED, AttemptState.CANCELLED),
}
ENDED = {"success": State.SUCCESS, "skipped": State.SKIPPED}


def started(working: WorkingSet, event: AttemptStarted) -> None:
    """The process of an attempt runs."""
    found = working.attempt_of(event.fence, event.executor)
    if found is None or found[1].state is not AttemptState.QUEUED:
        return
    node, attempt = found
    instance = node.instance
    attempt.state = AttemptState.RUNNING
    attempt.pid = event.pid
    attempt.started_at = instance.started_at = event.at
    working.touch_attempt(attempt)
    working.touch(node)
    if instance.state is State.QUEUED:
        working.move(node, State.RUNNING)
        node.began = working.clock.awake - working.ago(event.at)
        working.watch_process(node)


def ended(working: WorkingSet, event: AttemptEnded, now: datetime) -> None:
    """The process of an attempt is gone."""
    working.command(AckAttempt(event.fence, event.executor))
    found = working.attempt_of(event.fence, event.executor)
    if found is None or found[1].state is AttemptState.WAITING:
        return
    node, attempt = found
    instance = node.instance
    node.free_retries = 0
    outcome = event.outcome or {}
    attempt.pid = event.pid if event.pid is not None else attempt.pid
    attempt.started_at = instance.started_at = event.started_at or attempt.started_at or event.ended_at
    attempt.exit_code, attempt.signal, attempt.usage = event.exit_code, event.signal, event.usage
    attempt.rendered, attempt.progress = outcome.get("rendered"), kept_progress(outcome.get("progress"))
    state = outcome.get("state")
    if instance.stop_reason is not StopReason.RESTART:
        for name, value in outcome.get("xcoms") or ():
            working.keep_xcom(instance.key, name, value)
    if event.killed is not None and state in ENDED:
        # It went in good order when it was told to (a command that traps TERM): that is no end of its work.
        outcome, state = {"error": _stopped(event.killed)}, "failed"
    if _as_told(working, node, state, event.ended_at):
        return
    if state == "waiting":
        _begin_wait(working, node, outcome.get("wait") or {}, event.ended_at, now)
    elif state in ENDED:
        instance.reason = (outcome.get("error") or {}).get("message")  # why it skipped itself
        finish(working, node, ENDED[state], event.ended_at)
    else:
        error = outcome.get("error") or {}
        retry = error.get("retry", True) is not False
        fail(working, node, _failure(event, node, error), event.ended_at, now, retry=retry)


def lost(working: WorkingSet, event: AttemptLost, now: datetime) -> None:
    """The process of an attempt is proved gone and left no result."""
    working.command(AckAttempt(event.fence, event.executor))
    found = working.attempt_of(event.fence, event.executor)
    if found is None or found[1].state is AttemptState.WAITING:
        return
    node = found[0]
    if _as_told(working, node, None, event.at):
        return
    if event.began:
        node.free_retries = 0
        reason = f"FLX-3504: The process was lost: {event.evidence}"
        fail(working, node, reason, event.at, now, attempt_state=AttemptState.LOST)
        return
    node.free_retries += 1
    if node.free_retries > FREE_RETRIES:
        reason = f"FLX-7030: Its process was lost {node.free_retries} times in a row before it began: {event.evidence}"
        fail(working, node, reason, event.at, now, attempt_state=AttemptState.LOST)
        return
    node.instance.max_tries += 1  # nothing ran, so it does not count
    delay = FREE_RETRY_DELAY_S * FREE_RETRY_GROWTH ** (node.free_retries - 1)
    reason = f"FLX-3504: The process was lost: {event.evidence}"
    fail(working, node, reason, event.at, now, attempt_state=AttemptState.LOST, delay_s=delay)


def _stopped(why: str) -> dict[str, Any]:
    return {"message": f"FLX-7013: The task was told to stop ({why}), and went"}


def _as_told(working: WorkingSet, node: Node, state: str | None, at: datetime) -> bool:
    """The end of an attempt that had been told to stop. A true end that came first counts, except for a restart."""
    instance = node.instance
    stop_reason = instance.stop_reason
    if stop_reason is None or stop_reason is StopReason.TIMEOUT:
        return False
    if stop_reason is StopReason.CANCEL and state in ENDED:
        return False
    final, attempt_state = FINAL[stop_reason]
    reason = instance.reason
    working.end_attempt(node, attempt_state, at, reason)
    if stop_reason is StopReason.RESTART:
        reset(working, node)
        return True
    instance.stop_reason = None
    instance.ended_at = at
    working.move(node, final)
    return True


def _begin_wait(working: WorkingSet, node: Node, request: dict[str, Any], at: datetime, now: datetime) -> None:
    """The process has ended and handed its question back: the wait is the next leg, and the daemon's."""
    instance, asked = node.instance, node.attempt
    assert asked is not None
    working.end_attempt(node, AttemptState.DEFERRED, at, None)
    if instance.state is State.QUEUED:  # it began and ended unseen
        node.began = working.clock.awake - working.ago(instance.started_at)
    attempt = working.begin_leg(node, AttemptState.WAITING, now, asked.leg + 1, WAITING_ROOM)
    attempt.started_at = now
    instance.stop_reason = None
    instance.reason = None
    instance.wait = request
    timeout = request.get("timeout")
    if instance.wait_until is None and timeout is not None:
        # However short its timeout, a sensor has time for one look.
        instance.wait_until = now + duration(max(FIRST_LOOK_S, float(timeout)))
    working.move(node, State.WAITING)
    working.watch_process(node)
    working.watch_wait(node)
    working.command(BeginWait(attempt.fence, node.live.run.snapshot(), instance.snapshot(), request))


def wait_ended(working: WorkingSet, event: WaitEnded, now: datetime) -> None:
    """What a waiting instance waited for has come, or never will."""
    found = working.attempt_of(event.fence, WAITING_ROOM)
    if found is None or found[1].state is not AttemptState.WAITING:
        return
    node = found[0]
    for name, value in event.xcoms:
        working.keep_xcom(node.instance.key, name, value)
    if event.state in ENDED:
        node.instance.reason = event.error
        finish(working, node, ENDED[event.state], event.at)
    else:
        until = node.instance.wait_until
        in_time = until is None or now < until
        fail(working, node, event.error or "the sensor failed without a word", event.at, now, retry=in_time)


def wait_over(working: WorkingSet, fence: int, now: datetime) -> None:
    """The deadline of a waiting instance has passed. It is not tried again: it had its time."""
    node = working.attempts[fence]
    instance, request = node.instance, node.instance.wait or {}
    working.command(EndWait(fence))
    waited = request.get("timeout")
    limit = "its deadline" if waited is None else f"its timeout of {seconds_in_words(float(waited))}"
    reason = f"FLX-3505: {request.get('sensor', 'The sensor')} waited until {limit} and what it waits for never came"
    if request.get("soft_fail"):
        instance.reason = reason
        finish(working, node, State.SKIPPED, now)
    else:
        fail(working, node, reason, now, now, retry=False)


def time_out(working: WorkingSet, fence: int, now: datetime) -> None:
    """An attempt has run longer than its execution_timeout: a failed try, once its process has been told to stop."""
    node = working.attempts[fence]
    if node.instance.state is State.WAITING:  # it has no process
        working.command(EndWait(fence))
        fail(working, node, _ran_too_long(node), now, now)
        return
    node.instance.stop_reason = StopReason.TIMEOUT
    working.touch(node)
    assert node.attempt is not None
    working.command(KillAttempt(fence, StopReason.TIMEOUT, node.attempt.executor))


def run_time_out(working: WorkingSet, live: LiveRun, now: datetime) -> None:
    """A run has taken longer than its dagrun_timeout: what has not ended is cancelled, and so the run fails."""
    limit = seconds_in_words(live.spec.dagrun_timeout or 0)
    live.run.reason = f"FLX-3506: The run took longer than its dagrun_timeout of {limit}"
    working.touch_run(live)
    cancel_unfinished(working, live, live.run.reason, now)


def cancel_unfinished(working: WorkingSet, live: LiveRun, reason: str, now: datetime) -> None:
    """Everything of a run that has not ended is cancelled; a process is told to stop first."""
    for node in unfinished(live):
        stop(working, node, StopReason.CANCEL, reason, now)


def stop(working: WorkingSet, node: Node, stop_reason: StopReason, reason: str, now: datetime) -> None:
    """End an instance that has not ended: at once where it holds no process, else after its process is dead."""
    instance, attempt = node.instance, node.attempt
    if attempt is not None and attempt.state is not AttemptState.WAITING:
        instance.stop_reason = stop_reason
        instance.reason = reason
        if stop_reason is StopReason.RESTART and instance.state is not State.RESTARTING:
            working.move(node, State.RESTARTING)
        working.touch(node)
        working.command(KillAttempt(attempt.fence, stop_reason, attempt.executor))
        return
    final, attempt_state = FINAL[stop_reason]
    if attempt is not None:
        working.command(EndWait(attempt.fence))
        working.end_attempt(node, attempt_state, now, reason)
    if stop_reason is StopReason.RESTART:
        reset(working, node)
        return
    _forget_try(node)
    instance.reason = reason
    instance.ended_at = now
    working.move(node, final)


def reset(working: WorkingSet, node: Node) -> None:
    """Back to the start: as if it had not run, but its tries stay counted and its next ones are its full number."""
    instance = node.instance
    _forget_try(node)
    instance.wait_until = instance.reason = instance.queued_at = instance.started_at = instance.ended_at = None
    instance.max_tries = instance.try_number + 1 + node.task.retries
    node.free_retries = 0
    working.drop_xcoms(instance.key)
    working.forget_state(instance.key)
    if instance.state is State.NONE:
        working.touch(node)
        working.to_judge.append(node)
    else:
        working.move(node, State.NONE)


def _forget_try(node: Node) -> None:
    instance = node.instance
    instance.stop_reason = instance.retry_at = instance.wait = None


def finish(working: WorkingSet, node: Node, state: State, at: datetime) -> None:
    """An instance has ended well: success or skipped."""
    instance = node.instance
    _forget_try(node)
    instance.wait_until = None
    instance.ended_at = at
    if state is State.SUCCESS:
        instance.reason = None
    working.end_attempt(node, AttemptState(state.value), at, instance.reason)
    working.move(node, state)


def fail(
    working: WorkingSet,
    node: Node,
    reason: str,
    at: datetime,
    now: datetime,
    *,
    retry: bool = True,
    attempt_state: AttemptState = AttemptState.FAILED,
    delay_s: float | None = None,
) -> None:
    """A try has failed: another one follows if there are any left, after `delay_s` or else the task's retry_delay."""
    instance = node.instance
    reason = reason[:REASON_MAX]
    working.end_attempt(node, attempt_state, at, reason)
    _forget_try(node)
    instance.reason = reason
    instance.ended_at = at
    if not retry or instance.try_number >= instance.max_tries:
        instance.wait_until = None
        working.move(node, State.FAILED)
        return
    instance.retry_at = now + duration(retry_delay(node) if delay_s is None else delay_s)
    working.move(node, State.UP_FOR_RETRY)
    working.watch_pause(node)


def retry_delay(node: Node) -> float:
    """How long to wait after this try, in seconds: doubled with each one where the task backs off.

    Tries before a clear do not count. Doubling ends at a day, or at `retry_delay` where that is longer.
    """
    task, instance = node.task, node.instance
    delay = max(0.0, task.retry_delay)
    if task.retry_exponential_backoff:
        tries = max(1, instance.try_number - (instance.max_tries - 1 - task.retries))
        delay = min(delay * 2.0 ** min(tries - 1, 60), max(delay, BACKOFF_MAX_S))
    return delay if task.max_retry_delay is None else min(delay, max(0.0, task.max_retry_delay))


def retry_now(working: WorkingSet, node: Node) -> None:
    """The delay after a failed try is over."""
    node.instance.retry_at = None
    working.move(node, State.SCHEDULED)
    working.lanes.add(node)


def _ran_too_long(node: Node) -> str:
    limit = seconds_in_words(node.task.execution_timeout or 0)
    return f"FLX-3503: Task {node.task.task_id!r} ran longer than its execution_timeout of {limit} and was ended"


def _failure(event: AttemptEnded, node: Node, error: dict[str, Any]) -> str:
    """Why a try failed, in words."""
    if node.instance.stop_reason is StopReason.TIMEOUT:
        return _ran_too_long(node)
    if error:
        kind, message = error.get("type"), error.get("message")
        if message and str(message).startswith("FLX-"):
            return str(message)  # a sentence of ours needs no class name before it
        return ": ".join(str(part) for part in (kind, message) if part) or "the task failed without a word"
    if event.signal is not None:
        try:
            name = signal.Signals(event.signal).name
        except ValueError:
            name = "unknown"
        return f"FLX-3502: The process was ended by signal {event.signal} ({name}) and left no result"
    return f"FLX-3501: The process ended with exit code {event.exit_code} and left no result"
