"""The oracle's own tables: legal moves, trigger rules, retry delays. They are written from the documentation of the
states and rules, and share nothing with the core: a mistake there is not made here too.
"""

from collections.abc import Iterable
from functools import lru_cache

# from: what may follow at once. A turn may pass through several.
MOVES = {
    "none": "scheduled success failed skipped upstream_failed cancelled removed",
    "scheduled": "none queued success failed skipped cancelled removed",
    "queued": "running success failed skipped up_for_retry waiting restarting cancelled",
    "running": "success failed skipped up_for_retry waiting restarting cancelled",
    "waiting": "none success failed skipped up_for_retry queued cancelled",
    "up_for_retry": "none scheduled success failed skipped cancelled removed",
    "restarting": "none cancelled success failed skipped",
    "success": "none failed skipped",
    "failed": "none success skipped",
    "skipped": "none success failed",
    "upstream_failed": "none success failed skipped",
    "cancelled": "none success failed skipped",
    "removed": "none",
}
RUN_MOVES = {
    "queued": "running cancelled success failed",
    "running": "success failed cancelled queued",
    "success": "running queued failed",
    "failed": "running queued success",
    "cancelled": "running queued success failed",
}
# While one attempt lives its instance goes forward only.
WITHIN = {
    "queued": "running restarting waiting",
    "running": "restarting waiting",
    "waiting": "",
    "restarting": "",
}
DONE = frozenset(["success", "failed", "skipped", "upstream_failed", "cancelled", "removed"])
BAD = frozenset(["failed", "upstream_failed", "cancelled"])
PASSED_OVER = frozenset(["skipped", "removed"])
HOLDS_SLOT = frozenset(["queued", "running", "restarting"])
HAS_ATTEMPT = HOLDS_SLOT | {"waiting"}
RUN_DONE = frozenset(["success", "failed", "cancelled"])
ATTEMPT_LIVE = frozenset(["queued", "running", "waiting"])


@lru_cache(maxsize=4096)
def reachable(old: str, new: str) -> bool:
    """Whether one turn may lead from one saved state to another."""
    seen, edge = {old}, {old}
    for _ in range(6):
        edge = {after for state in edge for after in MOVES[state].split()} - seen
        seen |= edge
    return new in seen


@lru_cache(maxsize=64)
def reachable_run(old: str, new: str) -> bool:
    """The same for runs, through one state between at most: cleared and cancelled in one turn."""
    after = RUN_MOVES[old].split()
    return new in after or any(new in RUN_MOVES[between].split() for between in after)


def _met(rule: str, states: tuple[str, ...]) -> bool:
    """Whether the rule holds when all upstreams have ended like this (ok, bad or skip)."""
    ok, bad, skip = states.count("ok"), states.count("bad"), states.count("skip")
    return {
        "all_success": bad == skip == 0,
        "all_failed": ok == skip == 0,
        "all_done": True,
        "all_skipped": ok == bad == 0,
        "one_success": ok > 0,
        "one_failed": bad > 0,
        "one_done": ok + bad > 0,
        "none_failed": bad == 0,
        "none_failed_min_one_success": bad == 0 and ok > 0,
        "none_skipped": skip == 0,
        "always": True,
    }[rule]


# Rules that need not wait for the others once they hold.
EARLY = frozenset({"one_success", "one_failed", "one_done", "always"})
# Rules that are broken by a failure: who waits with them failed with its upstream. All others are skipped.
WANTS_NO_FAILURE = frozenset({"all_success", "one_success", "none_failed", "none_failed_min_one_success"})


def verdict(rule: str, states: Iterable[str]) -> str:
    """What a trigger rule says of these states of the upstreams: run, wait, skipped or upstream_failed.

    Found by trying every way in which the upstreams that have not ended could end.
    """
    kinds = tuple(sorted(_kind(state) for state in states))
    return _verdict(rule, kinds)


def _kind(state: str) -> str:
    if state in BAD:
        return "bad"
    if state in PASSED_OVER:
        return "skip"
    return "ok" if state == "success" else "open"


@lru_cache(maxsize=8192)
def _verdict(rule: str, kinds: tuple[str, ...]) -> str:
    ended = tuple(kind for kind in kinds if kind != "open")
    undone = len(kinds) - len(ended)
    if not kinds:
        return "run"
    if rule in EARLY and (rule == "always" or any(_met(rule, (kind,)) for kind in ended)):
        return "run"
    if not undone:
        if _met(rule, ended):
            return "run"
    elif any(
        _met(rule, ended + ("ok",) * oks + ("bad",) * bads + ("skip",) * (undone - oks - bads))
        for oks in range(undone + 1)
        for bads in range(undone - oks + 1)
    ):
        return "wait"
    return "upstream_failed" if rule in WANTS_NO_FAILURE and "bad" in ended else "skipped"


def retry_delay(tries: int, retry_delay: float, backoff: bool, max_retry_delay: float | None) -> float:
    """Seconds between the end of the `tries`-th try since the last clear and the next try."""
    seconds = retry_delay
    if backoff:
        for _ in range(tries - 1):
            seconds = min(seconds + seconds, max(retry_delay, 86400.0))
    if max_retry_delay is not None and seconds > max_retry_delay:
        seconds = max_retry_delay
    return seconds
