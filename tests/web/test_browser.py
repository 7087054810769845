"""A person at a real browser: in by the link, a dag triggered, the change seen without a reload, a log that grows."""

import asyncio
import contextlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fluxd.core.commands import Saves
from fluxd.core.events import PauseDag, TriggerRun
from fluxd.core.model import Attempt, Instance, Run
from fluxd.core.states import AttemptState, RunState, State
from fluxd.store.dags import store_load
from fluxd.store.turns import save
from tests.web.browser import PATIENCE_S, Page
from tests.web.serving import Served, serve_again

pytestmark = pytest.mark.anyio


class World:
    """What the daemon would do: a run of `ledger_close` that is triggered, saved and told of."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.run: Run | None = None

    async def trigger(self, event: TriggerRun) -> dict[str, str]:
        now = datetime.now(UTC)
        db = self.served.state.db
        version = await db.read.fetchval("SELECT version_id FROM dag WHERE dag_id = $1", event.dag_id)
        number = await db.read.fetchval("SELECT max(number) + 1 FROM run")
        self.run = Run(
            number, event.dag_id, "manual__now", "manual", RunState.RUNNING, version, now, now, now, None, now, now
        )
        await self.tell(Saves(runs=[self.run], instances=[Instance(number, f"step_{n:02d}") for n in range(8)]))
        return {"run_id": "manual__now", "state": "running"}

    async def start(self, log: Path) -> None:
        assert self.run
        now, number = datetime.now(UTC), self.run.number
        fence = await self.served.state.db.read.fetchval("SELECT max(fence) + 1 FROM attempt")
        log.parent.mkdir(parents=True)
        log.write_bytes(b"")
        self.instance = Instance(number, "step_00", -1, State.RUNNING, 1, 1, fence, None, now, now)
        self.attempt = Attempt(fence, number, "step_00", -1, 1, AttemptState.RUNNING, now, now, None, 4711)
        await self.tell(Saves(instances=[self.instance], attempts=[self.attempt]))

    async def fail(self, reason: str) -> None:
        now = datetime.now(UTC)
        self.instance.state, self.instance.ended_at, self.instance.reason = State.FAILED, now, reason
        self.attempt.state, self.attempt.ended_at, self.attempt.reason = AttemptState.FAILED, now, reason
        await self.tell(Saves(instances=[self.instance], attempts=[self.attempt]))

    async def tell(self, saves: Saves) -> None:
        """As the engine: save, then tell."""
        await save(self.served.state.db.writer, saves)
        assert self.run
        dag_id, run_id = self.run.dag_id, self.run.run_id
        self.served.state.live.publish(
            "changed",
            {
                "runs": [[dag_id, run_id, run.state] for run in saves.runs],
                "tasks": [[dag_id, run_id, i.task_id, i.map_index, i.state, i.try_number] for i in saves.instances],
                "dags": [],
            },
        )


async def test_trigger_watch_and_read_the_log(page: Page, served: Served, tmp_path: Path) -> None:
    world = World(served)
    served.answers[TriggerRun] = world.trigger
    await page.run("window.__same = true")
    row = "document.querySelector('tr[data-id=ledger_close]')"
    await page.run(f"{row}.querySelector('.c-do button').click()")
    await page.until("document.querySelector('.said.done')?.textContent.includes('run manual__now is running')")
    await page.until(f"{row}.querySelector('.c-live').textContent.trim() === '1'")
    assert await page.run("window.__same")  # never left

    await page.go(f"{served.url}/dags/ledger_close/runs/manual__now")
    await page.until("document.querySelector('[data-link-state=on]')")
    await page.run("window.__same = true; document.querySelectorAll('tbody input')[3].click()")
    await world.start(log := tmp_path / "logs/ledger_close/manual__now/step_00/1.log")
    await page.until("document.querySelector('tbody tr .c-state').textContent === 'running'")
    assert await page.run("window.__same && document.querySelectorAll('tbody input')[3].checked")  # the tick stays

    await page.run("window.__same = false; document.querySelector('a.primary').click()")
    await page.until("document.querySelector('pre.log') && !window.__same")
    with log.open("ab", buffering=0) as file:
        file.write(b"first \x1b[32mgreen\x1b[0m <b>line</b>\n")
        await page.until("document.querySelector('pre.log').textContent === 'first green <b>line</b>\\n'")
        assert await page.run("document.querySelector('pre.log .a2').textContent") == "green"
        file.write("caf\u00e9 \x1b[3".encode())
        await page.until("document.querySelector('pre.log').textContent.includes('caf\u00e9')")
        file.write(b"1mred\x1b[0m\n")
        await page.until("document.querySelector('pre.log .a1')?.textContent === 'red'")
    await world.fail("exit code 3")
    await page.until("document.querySelector('.reason')?.textContent === 'exit code 3'")
    assert await page.run("document.querySelector('.title .chip').textContent") == "failed"


async def test_keys_search_and_switch(page: Page, served: Served) -> None:
    async def press(key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            await page.send("Input.dispatchKeyEvent", type=kind, key=key, text=key if kind == "keyDown" else "")

    await press("j")
    await press("j")
    await press("j")
    await press("k")
    assert await page.run("document.activeElement.textContent") == "ledger_close"
    await press("/")
    assert await page.run("document.activeElement.name") == "q"
    await page.send("Input.insertText", text="stor")
    await page.until("document.querySelectorAll('tbody tr').length === 1 && location.search === '?q=stor'")
    await page.run("document.activeElement.blur()")
    await press("?")
    await page.until("document.querySelector('dialog.keys').open")
    await page.run("document.querySelector('dialog.keys').close()")

    served.answers[PauseDag] = lambda event: served.state.db.read.execute(
        "UPDATE dag SET paused = $2 WHERE dag_id = $1", event.dag_id, event.paused
    )
    await page.run("document.querySelector('tr[data-id=dim_stores] .switch').click()")
    await page.until("document.querySelector('tr[data-id=dim_stores].paused')")
    await page.run("document.querySelector('tr[data-id=dim_stores] .switch').click()")
    await page.until("!document.querySelector('tr[data-id=dim_stores].paused')")

    await page.run("document.querySelector('[data-theme-form] button').click()")
    assert await page.run("document.documentElement.dataset.theme") == "dark"
    assert await page.run("getComputedStyle(document.body).backgroundColor") == "rgb(19, 20, 22)"
    await page.go(served.url + "/dags/sales")
    assert await page.run("document.documentElement.dataset.theme") == "dark"
    await press("g")
    await press("d")
    await page.until("location.pathname === '/dags'")


async def test_pages_fit_a_phone(page: Page, served: Served) -> None:
    await page.view(390, 844, mobile=True)
    run = await served.state.db.read.fetchval("SELECT max(run_id) FROM run WHERE dag_id = 'sales' AND state = 'failed'")
    for path in (
        "/dags",
        "/dags/sales",
        "/dags/sales/source",
        f"/dags/sales/runs/{run}",
        f"/dags/sales/runs/{run}/tasks/load",
    ):
        await page.go(served.url + path)
        assert await page.run("document.documentElement.scrollWidth <= innerWidth"), path


async def test_a_graph_is_moved_and_made_bigger(page: Page, served: Served) -> None:
    await page.view(390, 844)
    await page.go(served.url + "/dags/sales")
    await page.until("document.querySelector('.graph-room.live')")
    box = "document.querySelector('svg.graph').getAttribute('viewBox')"
    before = await page.run(box)
    width = await page.run("document.querySelector('svg.graph').dataset.width")
    room = await page.run("document.querySelector('.graph-room').clientWidth")
    assert room / float(str(before).split()[2]) >= 0.59  # it can be read
    await page.run("document.querySelector('[data-zoom] [value=bigger]').click()")
    assert await page.run(box) != before
    served.state.live.publish("changed", {"dags": ["sales"]})
    await page.until("true")
    await page.run("scrollTo(0, 9999); document.querySelector('.graph-room').scrollIntoView({block: 'center'})")
    y = await page.run("document.querySelector('.graph-room').getBoundingClientRect().top + 9")
    for _ in range(4):
        for kind, at in (("mousePressed", 350), ("mouseMoved", 30), ("mouseReleased", 30)):
            await page.send("Input.dispatchMouseEvent", type=kind, x=at, y=y, button="left", buttons=1, clickCount=1)
    left, _, wide, _ = map(float, str(await page.run(box)).split())
    assert left > 0 and abs(left + wide - float(width)) < 1  # its end, and nothing beyond
    await page.run("document.querySelector('[data-zoom] [value=all]').click()")
    left, _, wide, _ = map(float, str(await page.run(box)).split())
    assert left <= 0 and left + wide >= float(width) - 1


async def test_a_graph_that_fits_stands_still(page: Page, served: Served) -> None:
    await page.view(1800, 900)
    await page.go(served.url + "/dags/dim_stores")
    await page.until("document.querySelector('.graph-room.live.fits')")
    assert not await page.run("document.querySelector('[data-zoom]').getClientRects().length")
    left, _, wide, _ = map(
        float, str(await page.run("document.querySelector('svg.graph').getAttribute('viewBox')")).split()
    )
    assert abs(left + wide / 2 - float(await page.run("document.querySelector('svg.graph').dataset.width")) / 2) < 1


# The words of a page, but for those that change each second.
WORDS = """(page) => {
  const main = page.querySelector("main").cloneNode(true);
  for (const one of main.querySelectorAll("title, time, [data-since]")) one.remove();
  return main.textContent.replace(/\\s+/g, " ");
}"""
TEXT = f"({WORDS})(document)"
PARSED = "new DOMParser().parseFromString(text, 'text/html')"
FRESH = f"fetch(location.href).then((answer) => answer.text()).then((text) => ({WORDS})({PARSED}))"


async def test_no_part_of_a_page_stays_behind(page: Page, served: Served) -> None:
    """Everything about a dag changes while its pages are open: what they show is what a fresh one shows."""
    db = served.state.db
    run = await db.read.fetchval("SELECT max(run_id) FROM run WHERE dag_id = 'sales' AND state = 'failed'")
    spec = await db.read.fetchval(
        "SELECT spec FROM dag JOIN dag_version v ON v.id = version_id WHERE dag.dag_id = 'sales'"
    )
    changes: list[dict[str, object]] = [
        {"description": "one", "tags": ["new"], "owner": "somebody", "doc_md": "A new text."},
        {"schedule": {"kind": "none"}, "warnings": ["Mind this."], "max_active_runs": 3, "doc_md": None},
    ]
    for number, path in enumerate(("", "/source", f"/runs/{run}", f"/runs/{run}/tasks/load", "/trigger")):
        await page.go(f"{served.url}/dags/sales{path}")
        await page.until("document.querySelector('[data-link-state=on]')")
        await page.run("window.__same = true")
        for step, change in enumerate(changes):
            mark = f"b{number}{step}"
            file = await db.read.fetchval("SELECT file FROM dag WHERE dag_id = 'sales'")
            await store_load(db.writer, file, mark, {file: f"# {mark}\n"}, [spec | change | {"description": mark}], 0.1)
            await db.read.execute("UPDATE task_instance SET reason = $1 WHERE task_id = 'load'", f"reason {mark}")
            await db.read.execute(
                "UPDATE attempt SET reason = $1, rendered = $2 WHERE task_id = 'load'", mark, {"x": mark}
            )
            served.state.live.publish("changed", {"dags": ["sales"], "files": [file]})
            shown, fresh = "", mark
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    while mark not in shown or shown != fresh:
                        shown, fresh = await page.run(TEXT), await page.run(FRESH)
            behind = next((at for at, (a, b) in enumerate(zip(shown, fresh, strict=False)) if a != b), 0)
            assert mark in shown and shown == fresh, (path, shown[behind - 60 :][:200], fresh[behind - 60 :][:200])
        assert await page.run("window.__same")


async def stop_serving(served: Served) -> int:
    """As fluxd stops: the streams end. Gives the port."""
    await served.runner.cleanup()
    return int(served.url.rpartition(":")[2])


async def test_over_a_restart_a_log_goes_on_and_no_action_is_lost_in_silence(
    page: Page, served: Served, tmp_path: Path
) -> None:
    world = World(served)
    await world.trigger(TriggerRun(1, "ledger_close"))
    await world.start(log := tmp_path / "logs/ledger_close/manual__now/step_00/1.log")
    log.write_bytes("first caf\u00e9\n".encode())
    await page.go(f"{served.url}/dags/ledger_close/runs/manual__now/tasks/step_00")
    await page.until("document.querySelector('[data-link-state=on]')")
    shown = "document.querySelector('pre.log').textContent"
    await page.until(f"{shown} === 'first caf\u00e9\\n'")
    await page.run("window.__same = true")

    port = await stop_serving(served)
    await page.until("document.querySelector('[data-link-state=lost]')")
    with log.open("ab") as file:
        file.write(b"second\n")
    await page.run("document.querySelector('form[action$=mark] button').click()")
    said = "document.querySelector('.said.refused')?.textContent"
    await page.until(f"{said}?.includes('Mark success') && {said}.includes('connection')")

    async with serve_again(served, port):
        await page.until(f"{shown} === 'first caf\u00e9\\nsecond\\n'")
        with log.open("ab") as file:
            file.write(b"third\n")
        await page.until(f"{shown} === 'first caf\u00e9\\nsecond\\nthird\\n'")
        await page.until("document.querySelector('[data-link-state=on]')")
        assert await page.run("window.__same")
        assert not served.posted

        await page.go(f"{served.url}/dags/ledger_close/trigger")
        await page.until("document.querySelector('[data-link-state=on]')")
        await page.run("document.querySelector('textarea').value = '{\"typed\": 1}'; window.__same = true")
    await page.until("document.querySelector('[data-link-state=lost]')")
    await page.run("document.querySelector('.pop button.main').click()")
    await page.until(f"{said}?.includes('was not carried out')")
    assert await page.run("window.__same && document.querySelector('textarea').value") == '{"typed": 1}'
    page.complaints[:] = [one for one in page.complaints if "net::" not in one]
