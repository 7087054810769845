"""Bugs that are put in on purpose: each a small change that a tired person could make."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """`old` occurs exactly once in `file` (below fluxd/); it is replaced by `new`."""

    name: str
    file: str
    old: str
    new: str


BUGS = (
    Bug(
        "one try too few",
        "core/attempts.py",
        "instance.try_number >= instance.max_tries:",
        "instance.try_number >= instance.max_tries - 1:",
    ),
    Bug(
        "one try too many",
        "core/attempts.py",
        "instance.try_number >= instance.max_tries:",
        "instance.try_number > instance.max_tries:",
    ),
    Bug(
        "a failure that is final is tried again",
        "core/attempts.py",
        'retry = error.get("retry", True) is not False',
        "retry = True",
    ),
    Bug(
        "backoff counts one try too many",
        "core/attempts.py",
        "min(tries - 1, 60)",
        "min(tries, 60)",
    ),
    Bug(
        "max_retry_delay is forgotten",
        "core/attempts.py",
        "return delay if task.max_retry_delay is None else min(delay, max(0.0, task.max_retry_delay))",
        "return delay",
    ),
    Bug(
        "a clear leaves the deadline of a sensor",
        "core/attempts.py",
        "instance.wait_until = instance.reason = instance.queued_at",
        "instance.reason = instance.queued_at",
    ),
    Bug(
        "a clear leaves the XComs",
        "core/attempts.py",
        "    working.drop_xcoms(instance.key)\n    working.forget_state",
        "    working.forget_state",
    ),
    Bug(
        "a retry leaves the XComs",
        "core/working_set.py",
        "        if instance.try_number:\n            self.drop_xcoms",
        "        if instance.try_number > 1:\n            self.drop_xcoms",
    ),
    Bug(
        "a cleared task does not get its tries again",
        "core/attempts.py",
        "instance.max_tries = instance.try_number + 1 + node.task.retries",
        "instance.max_tries = 1 + node.task.retries",
    ),
    Bug(
        "a cancelled task that succeeded is cancelled",
        "core/attempts.py",
        "if stop_reason is StopReason.CANCEL and state in ENDED:",
        "if stop_reason is StopReason.RESTART and state is None:",
    ),
    Bug(
        "a timed out wait is a retry",
        "core/attempts.py",
        "fail(working, node, reason, now, now, retry=False)",
        "fail(working, node, reason, now, now, retry=True)",
    ),
    Bug("soft_fail is forgotten", "core/attempts.py", 'if request.get("soft_fail"):', 'if request.get("softfail"):'),
    Bug(
        "an end is not acknowledged when it comes twice",
        "core/attempts.py",
        '''    """The process of an attempt is gone."""
    working.command(AckAttempt(event.fence, event.executor))
    found = working.attempt_of(event.fence, event.executor)
''',
        '''    """The process of an attempt is gone."""
    found = working.attempt_of(event.fence, event.executor)
    if found is not None:
        working.command(AckAttempt(event.fence, event.executor))
''',
    ),
    Bug(
        "a lost attempt that never began counts",
        "core/attempts.py",
        "    node.instance.max_tries += 1  # nothing ran, so it does not count\n",
        "",
    ),
    Bug(
        "a paused dag goes on",
        "core/live.py",
        "return not self.paused and not self.removed and",
        "return not self.removed and",
    ),
    Bug(
        "a wait is the same leg as its process",
        "core/attempts.py",
        "asked.leg + 1, WAITING_ROOM)",
        "asked.leg, WAITING_ROOM)",
    ),
    Bug(
        "an execution_timeout starts with the queue",
        "core/attempts.py",
        "node.began = working.clock.awake - working.ago(event.at)",
        "node.began = working.clock.awake - working.ago(instance.queued_at)",
    ),
    Bug(
        "a timeout is not watched again after a restart",
        "core/recovery.py",
        "    working.watch_process(node)\n",
        "",
    ),
    Bug(
        "a retry is not watched again after a restart",
        "core/recovery.py",
        "            working.watch_pause(node)\n",
        "            pass\n",
    ),
    Bug(
        "a dagrun_timeout is not watched again after a restart",
        "core/recovery.py",
        "        working.watch_run(live)\n",
        "",
    ),
    Bug(
        "a ready task is forgotten after a restart",
        "core/recovery.py",
        "            working.lanes.add(node)\n",
        "            pass\n",
    ),
    Bug("a slot is free again after a restart", "core/recovery.py", "        working.restore_slot(node)\n", ""),
    Bug(
        "a kill is not repeated after a restart",
        "core/recovery.py",
        "commands.append(KillAttempt(fence, instance.stop_reason, executor))",
        "pass",
    ),
    Bug(
        "a start is repeated though the runner has it",
        "core/recovery.py",
        "elif attempt.state is AttemptState.QUEUED and fence not in known_fences:",
        "elif attempt.state is not AttemptState.WAITING:",
    ),
    Bug(
        "a vanished attempt is not noticed",
        "core/recovery.py",
        "        if fence not in known_fences\n",
        "        if fence in known_fences\n",
    ),
    Bug(
        "none_failed waits for a success",
        "core/rules.py",
        "    return WAIT if undone else RUN\n\n\ndef _none_failed_min",
        "    return WAIT if undone else RUN if success else SKIP\n\n\ndef _none_failed_min",
    ),
    Bug(
        "one_success is skipped where all failed",
        "core/rules.py",
        "    return FAIL if failed else SKIP\n",
        "    return SKIP\n",
    ),
    Bug(
        "a cancelled task counts as skipped",
        "core/rules.py",
        "    State.CANCELLED: FAILED,\n",
        "    State.CANCELLED: SKIPPED,\n",
    ),
    Bug("a cancelled task does not spoil its run", "core/settle.py", "elif cancelled or any(COLUMN", "elif any(COLUMN"),
    Bug(
        "every task decides about the run, not the leaves",
        "core/settle.py",
        "for leaf in live.leaves())",
        "for leaf in live.nodes)",
    ),
    Bug(
        "depends_on_past is content with a failure",
        "core/settle.py",
        "NOT_PAST = frozenset({State.SUCCESS, State.SKIPPED})",
        "NOT_PAST = frozenset({State.SUCCESS, State.SKIPPED, State.FAILED})",
    ),
    Bug(
        "pool slots are counted as one",
        "core/limits.py",
        "self.pools.get(pool, 0) + node.task.pool_slots",
        "self.pools.get(pool, 0) + 1",
    ),
    Bug("max_active_tasks lets one more in", "core/limits.py", "if active >= limit:", "if active > limit:"),
    Bug(
        "a low priority goes first",
        "core/limits.py",
        "entry = (-task.priority_weight,",
        "entry = (task.priority_weight,",
    ),
    Bug(
        "max_active_runs lets one more in",
        "core/run_starts.py",
        "return len(dag.running) >= max(1, dag.spec.max_active_runs)",
        "return len(dag.running) > max(1, dag.spec.max_active_runs)",
    ),
    Bug(
        "catch-up loses the last tick",
        "core/catchup.py",
        "    last = dag.timetable.latest_due(now) if keep is None else dag.timetable.due_before(keep)\n",
        "    last, keep = keep or dag.timetable.latest_due(now), keep and dag.timetable.due_after(keep)\n",
    ),
    Bug(
        "a time in an overlap runs twice",
        "core/ticks.py",
        'if overlap and (self._cron.every_hour or self._dst == "both"):',
        'if overlap and self._dst != "skip":',
    ),
    Bug(
        "an unpaused dag runs all it missed",
        "core/dags.py",
        '            skip_missed(working, dag, now, "the dag was paused")\n',
        "",
    ),
    Bug(
        "an edit drops the ticks that are owed",
        "core/dags.py",
        "    if owed is not None and owed <= now:\n        record_skip(",
        "    if owed is not None and owed > now:\n        record_skip(",
    ),
    Bug(
        "acts before it is saved",
        "engine.py",
        "            await self._save(turn.saves)\n",
        "            await self._carry_out(turn.commands)\n            await self._save(turn.saves)\n",
    ),
    Bug(
        "acknowledgements are not sent",
        "engine.py",
        "                executor.ack(fences)\n",
        "                pass\n",
    ),
    Bug(
        "what was lost is not repeated after a reconnect",
        "engine.py",
        "            await self._carry_out(self.scheduler.unsettled(executor, known))\n",
        "",
    ),
    Bug(
        "a wait is ended for all who wait for the same",
        "sensing.py",
        "            probe.waiters.pop(fence, None)\n",
        "            probe.waiters.clear()\n",
    ),
    Bug(
        "a wait is never ended",
        "sensing.py",
        "        key = self._probe_of.pop(fence, None)\n        if key is not None and",
        "        key = self._probe_of.get(fence)\n        if key is None and",
    ),
    Bug(
        "the pauses between looks grow fourfold",
        "sensing.py",
        "min(INTERVAL_MAX_S, interval_s * 2)",
        "min(INTERVAL_MAX_S, interval_s * 4)",
    ),
    Bug(
        "a retry outlives its run's dagrun_timeout",
        "core/attempts.py",
        "    for node in unfinished(live):\n",
        "    for node in [one for one in unfinished(live) if one.instance.retry_at is None]:\n",
    ),
    Bug(
        "a clock set back leaves the dates of pauses",
        "core/scheduler.py",
        "if abs(step) >= STEP:",
        "if step >= STEP:",
    ),
    Bug(
        "the dates of pauses move against the clock",
        "core/working_set.py",
        "return None if at is None else at + step",
        "return None if at is None else at - step",
    ),
    Bug(
        "time asleep is time lived",
        "core/scheduler.py",
        "missed = (now.wall - last.wall) - (now.awake - last.awake)",
        "missed = (now.wall - last.wall) - (now.elapsed - last.elapsed)",
    ),
    Bug(
        "a late turn has missed its ticks",
        "core/scheduler.py",
        "missed = (now.wall - last.wall) - (now.awake - last.awake)",
        "missed = now.wall - last.wall",
    ),
    Bug(
        "a pause goes by the time awake",
        "core/working_set.py",
        "self.clock.elapsed + node.instance.retry_at - self.clock.wall\n            self.timers.push_elapsed(",
        "self.clock.awake + node.instance.retry_at - self.clock.wall\n            self.timers.push_awake(",
    ),
    Bug(
        "only the first upstream hands on its XComs",
        "launch.py",
        "for name in task.upstream if (key := (run.number, name, NOT_MAPPED)) in xcoms}",
        "for name in task.upstream[:1] if (key := (run.number, name, NOT_MAPPED)) in xcoms}",
    ),
    Bug(
        "a turn that was refused is taken for saved",
        "persistence.py",
        "                away_since = away_since or time.monotonic()\n",
        "                break\n",
    ),
    Bug("instances are saved without their deadline", "store/turns.py", "        one.wait_until,\n", "        None,\n"),
)
