"""What keeps the daemon honest: coroutines that are started again, and the watch on the event loop."""

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest

from fluxd.supervisor import LoopWatch, keep_running

BLOCKED_S = 0.05


class Lines(logging.Handler):
    """What was logged; `came` is set with each line."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.came = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.came.set()


@pytest.fixture
def log() -> Iterator[Lines]:
    handler = Lines()
    logger = logging.getLogger("fluxd")
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.mark.anyio
async def test_work_that_ends_is_started_again(log: Lines) -> None:
    done = asyncio.Event()
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise ExceptionGroup("group", [OSError("disk gone")])
        if begun == 3:
            done.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(keep_running("the work", work, first_delay_s=0.001))
    async with asyncio.timeout(10):
        await done.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "the coroutine the work ended with OSError: disk gone" in log.lines[0]
    assert "no error" in log.lines[1]


def stand_still(heard: threading.Event) -> None:
    """Block the calling thread for longer than the watch bears."""
    heard.wait(5 * BLOCKED_S)


@pytest.mark.anyio
async def test_the_watch_names_the_place_where_the_loop_stood_still(log: Lines) -> None:
    watch = LoopWatch(asyncio.get_running_loop(), BLOCKED_S)
    watch.start()
    stand_still(threading.Event())
    assert await asyncio.to_thread(log.came.wait, 10)
    watch.stop()
    assert "the event loop did not answer" in log.lines[0]
    assert "test_supervisor.py" in log.lines[0]


def test_the_watch_ends_when_its_loop_never_answers_again() -> None:
    loop = asyncio.new_event_loop()
    watch = LoopWatch(loop, BLOCKED_S)
    watch.start()  # the loop does not run: the question is never answered
    watch.stop()
    watch._thread.join(10)
    assert not watch._thread.is_alive()
    loop.close()
