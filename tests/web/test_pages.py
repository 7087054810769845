"""What the pages say, with lifelike data; what their forms post; and that nothing from outside becomes markup."""

import html.parser
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from fluxd.core.commands import XCom
from fluxd.core.events import CancelRun, ClearTasks, MarkTasks, PauseDag, TriggerRun
from fluxd.core.spec import dag_from_json
from fluxd.core.states import State
from fluxd.errors import Refused
from fluxd.store.dags import store_error, store_load
from fluxd.store.turns import save
from fluxd.web.render import ENVIRONMENT
from tests.web.example_data import SAMPLES, SHAPES, Filler, fill, spec_of
from tests.web.serving import Served

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)
FEW = [sample for sample in SAMPLES if sample.dag_id in ("sales", "dim_stores", "ledger_close", "email_campaigns")]


@pytest.fixture
async def token(served: Served, http: aiohttp.ClientSession, tmp_path: Path) -> str:
    """Logged in, with a few dags and their histories."""
    await fill(served.state.db, tmp_path / "logs", NOW, FEW)
    return await served.login(http)


async def get(served: Served, http: aiohttp.ClientSession, path: str, status: int = 200) -> str:
    async with http.get(served.url + path) as response:
        text = await response.text()
        assert response.status == status, text
        assert response.content_type == "text/html"
        return text


async def failed_run(served: Served) -> str:
    found = await served.state.db.read.fetchval(
        "SELECT run_id FROM run WHERE dag_id = 'sales' AND state = 'failed' ORDER BY number DESC LIMIT 1"
    )
    return str(found)


def words_of(page: str) -> str:
    """The text of a page, as a person reads it."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


async def test_the_list_says_what_ran_what_failed_and_what_is_next(
    served: Served, http: aiohttp.ClientSession, token: str
) -> None:
    page = await get(served, http, "/dags")
    text = words_of(page)
    assert "every day at 06:00 Paris" in text
    assert "exit code 3, psql:load.sql:14" in text and "· load" in text
    assert "All 4" in text and "Failing 1" in text and "Paused 1" in text
    assert "2 files cannot be loaded" in text and "has a cycle: load → check_rows" in text
    assert page.count('class="bars"') == 4
    assert page.count('<path class="bar"') == 14 * 3 + 6
    assert "on trigger" in text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?q=SALE", {"sales"}),
        ("?q=core", {"sales"}),
        ("?q=finance", {"ledger_close"}),
        ("?show=paused", {"email_campaigns"}),
        ("?show=failing", {"sales"}),
        ("?show=running", {"sales"}),
        ("?show=nonsense&page=0&page=-3", {"sales", "dim_stores", "ledger_close", "email_campaigns"}),
        ("?q=%25'\"", set()),
        ("?page=99", set()),
    ],
)
async def test_the_list_is_searched(
    served: Served, http: aiohttp.ClientSession, token: str, query: str, found: set[str]
) -> None:
    page = await get(served, http, "/dags" + query)
    assert set(re.findall(r'<tr data-id="(\w+)"', page)) == found


@pytest.mark.parametrize("missing", ["code", "message", "line", "traceback", "at", "all", "all but code and message"])
async def test_a_file_error_may_lack_any_of_its_parts(
    served: Served, http: aiohttp.ClientSession, token: str, missing: str
) -> None:
    whole = {"code": "FLX-2001", "message": "It is broken.", "line": 3, "traceback": "Trace …", "at": "2026-01-01"}
    parts: dict[str, set[str]] = {"all": set(), "all but code and message": {"code", "message"}}
    kept = parts.get(missing, set(whole) - {missing})
    file = await served.state.db.read.fetchval("SELECT file FROM dag WHERE dag_id = 'sales'")
    async with served.state.db.read.acquire() as conn:
        await store_error(conn, file, {name: value for name, value in whole.items() if name in kept})
    reason = "It is broken." if "message" in kept else "it cannot be loaded"
    for path in ("/dags", "/dags/sales", "/dags/sales/source"):
        assert reason in words_of(await get(served, http, path)), path
    assert ("Trace …" in await get(served, http, "/dags")) == ("traceback" in kept)
    for path in ("/dag-errors", "/dags", "/dags/sales"):
        async with http.get(f"{served.url}/api/v1{path}") as response:
            assert response.status == 200, await response.text()
            assert reason in await response.text()


async def test_the_first_screen_of_a_dag_answers(served: Served, http: aiohttp.ClientSession, token: str) -> None:
    text = words_of(await get(served, http, "/dags/sales"))
    for part in ("Last run", "Last failure", "Now", "Next run"):
        assert part in text
    assert re.search(r"covers [-\d]+ 06:00 → [-\d]+ 06:00 Paris, took", text)
    assert "1 run running" in text
    assert re.search(r"covers [-\d]+ → [-\d]+, starts at [-\d]+ 06:00 Paris", text)
    assert "3 ticks without a run" in text
    assert "leaves 1 thread behind" in text


async def test_a_graph_shows_each_task_and_edge(served: Served, http: aiohttp.ClientSession, token: str) -> None:
    page = await get(served, http, "/dags/sales")
    assert page.count('<g class="node ') == 13
    assert page.count('<path class="edge"') == sum(len(upstream) for _, _, upstream, _ in SHAPES["sales"])
    assert page.count('class="box"') == 2


async def test_older_runs_are_a_link_away(served: Served, http: aiohttp.ClientSession, token: str) -> None:
    page = await get(served, http, "/dags/sales")
    older = re.search(r'href="\?before=(\d+)"', page)
    assert older
    before = await get(served, http, f"/dags/sales?before={older[1]}")
    assert "newest →" in words_of(before)
    newest_cells, older_cells = (set(re.findall(r"/runs/([^/\"]+)/tasks/join\"", text)) for text in (page, before))
    assert len(newest_cells) == 28 and len(older_cells) == 12
    assert not newest_cells & older_cells


async def test_a_run_says_what_it_covers_and_why_it_failed(
    served: Served, http: aiohttp.ClientSession, token: str
) -> None:
    text = words_of(await get(served, http, f"/dags/sales/runs/{await failed_run(served)}"))
    assert re.search(r"covers [-\d]+ → [-\d]+, starts at [-\d]+ 06:00 Paris", text)
    assert "psql:load.sql:14: ERROR: duplicate key value" in text
    assert (
        text.count("upstream failed load failed") == 6 and "did not succeed" not in text
    )  # each that could not run says why
    assert "Run failed tasks again" in text
    assert "Cancel run" not in text
    took = re.search(r"took ((?:[\d.]+ [smhd] ?)+)", text)
    assert took and f"In the run 0 – {took[1]}" in text, "the scale of the bars is the run's time"


async def test_a_live_run_can_be_cancelled_and_is_explained(
    served: Served, http: aiohttp.ClientSession, token: str
) -> None:
    class Explained:
        task_id, map_index, state = "mail_finance", -1, State.NONE
        words = "it waits for report_eu since 2020-01-02T03:04:05.678901Z"

    served.state.commands["explain"] = lambda number: [Explained]
    run = await served.state.db.read.fetchval("SELECT run_id FROM run WHERE dag_id = 'sales' AND state = 'running'")
    text = words_of(await get(served, http, f"/dags/sales/runs/{run}"))
    assert "Cancel run" in text
    assert "it waits for report_eu since 2020-01-02 04:04:05" in text  # as people in Paris write it


async def test_a_task_shows_its_tries_fields_and_log(served: Served, http: aiohttp.ClientSession, token: str) -> None:
    path = f"/dags/sales/runs/{await failed_run(served)}/tasks/load"
    page = await get(served, http, path)
    text = words_of(page)
    assert "try 1" in text and "try 3" in text and "exit code 3" in text
    assert "load.sh 'eu'" in text
    assert "48 211 rows, 3.0 MiB: chunk 9 of 12" in text
    assert '<span class="a1">ERROR</span>' in page
    assert "\x1b" not in page
    assert "try 1: failed" in words_of(await get(served, http, path + "?try=1"))
    join = words_of(await get(served, http, path.replace("/load", "/join")))
    assert "return_value" in join and '"rows": 48211' in join


async def test_a_big_log_shows_its_end_and_leads_to_the_rest(
    served: Served, http: aiohttp.ClientSession, token: str, tmp_path: Path
) -> None:
    run = await failed_run(served)
    log = tmp_path / "logs" / "sales" / run / "load" / "3.log"
    log.write_bytes(b"".join(b"line %06d\n" % n for n in range(30_000)))
    page = await get(served, http, f"/dags/sales/runs/{run}/tasks/load")
    assert "line 029999" in page and "line 000001\n" not in page
    assert len(page) < 120_000
    seen = set(re.findall(r"line \d{6}", page))
    while earlier := re.search(r'href="([^"]+until=\d+)"', page):
        page = await get(served, http, html.unescape(earlier[1]))
        seen |= set(re.findall(r"line \d{6}", page))
    assert len(seen) == 30_000  # pages meet at whole lines


async def test_a_log_that_is_a_link_elsewhere_is_not_shown(
    served: Served, http: aiohttp.ClientSession, token: str, tmp_path: Path
) -> None:
    run = await failed_run(served)
    secret = tmp_path / "secret"
    secret.write_text("canary")
    log = tmp_path / "logs" / "sales" / run / "load" / "3.log"
    log.unlink()
    log.symlink_to(secret)
    page = await get(served, http, f"/dags/sales/runs/{run}/tasks/load")
    assert "canary" not in page and "FLX-4141" in page
    log.unlink()
    assert "Nothing was written." in await get(served, http, f"/dags/sales/runs/{run}/tasks/load")


async def test_source_of_each_version(served: Served, http: aiohttp.ClientSession, token: str) -> None:
    spec = spec_of(FEW[-1], NOW) | {"description": "another"}
    await store_load(
        served.state.db.writer, "sales/sales.py", "b2", {"sales/sales.py": "x = 2  # newer\n"}, [spec], 0.1
    )
    newest = await get(served, http, "/dags/sales/source")
    assert '<span class="co"># newer</span>' in newest and "version <b>2</b>, the newest" in newest
    assert "Orders and prices" in await get(served, http, "/dags/sales/source?version=1")
    await get(served, http, "/dags/sales/source?version=9", 404)


@pytest.mark.parametrize(
    "path",
    ["/dags/no", "/dags/no/source", "/dags/sales/runs/no", "/dags/sales/runs/no/tasks/load", "/nowhere", "/dags/a%2Fb"],
)
async def test_what_is_not_there_is_said_in_the_same_look(
    served: Served, http: aiohttp.ClientSession, token: str, path: str
) -> None:
    page = await get(served, http, path, 404)
    assert "flux.css" in page and "FLX-4" in page


async def test_forms_post_events(served: Served, http: aiohttp.ClientSession, token: str) -> None:
    run = await failed_run(served)
    number = await served.state.db.read.fetchval("SELECT number FROM run WHERE dag_id = 'sales' AND run_id = $1", run)
    served.answers[TriggerRun] = lambda event: {"run_id": "manual__1", "state": "queued"}
    served.answers[ClearTasks] = lambda event: {"cleared": [["load", -1], ["mail_finance", -1]]}
    served.answers[MarkTasks] = lambda event: {"marked": [["load", -1]]}

    async def post(path: str, said: str, leads: str | None = None, **fields: Any) -> Any:
        async with http.post(served.url + path, data={"csrf": token} | fields, allow_redirects=False) as response:
            assert response.status == 303
            if leads:
                assert response.headers["Location"] == leads
        assert said in words_of(await get(served, http, "/dags"))
        assert said not in words_of(await get(served, http, "/dags"))
        return served.posted[-1]

    here = f"/dags/sales/runs/{run}"
    assert await post("/dags/sales/pause", "sales is paused", "/dags/sales", paused="yes") == PauseDag(
        1, "sales", True, "admin"
    )
    assert not (
        await post("/dags/sales/pause", "sales is active again", "/dags?q=s", paused="no", back="/dags?q=s")
    ).paused
    event = await post(
        "/dags/sales/trigger",
        "run manual__1 is queued",
        "/dags/sales/runs/manual__1",
        then="run",
        zone="Europe/Paris",
        logical_date="2026-07-04",
        conf='{"a": 1}',
    )
    assert (event.logical_date, event.conf) == (datetime(2026, 7, 3, 22, tzinfo=UTC), {"a": 1})
    assert await post(f"{here}/cancel", "being cancelled", here) == CancelRun(4, number, "admin")
    event = await post(f"{here}/clear", "2 tasks will run again", here, task="load:-1", downstream="on")
    assert (event.keys, event.downstream, event.only_failed) == (((number, "load", -1),), True, False)
    event = await post(f"{here}/clear", "2 tasks will run again", here, which="failed")
    assert (event.keys, event.only_failed) == ((), True)
    event = await post(f"{here}/mark", "1 task marked success", here, task="load:-1", state="success")
    assert (event.keys, event.state) == (((number, "load", -1),), State.SUCCESS)


async def test_what_is_refused_is_said_on_the_page(served: Served, http: aiohttp.ClientSession, token: str) -> None:
    def refuse(event: object) -> None:
        raise Refused("FLX-4001", "The dag 'sales' has 4 live runs: wait for one to end.")

    served.answers[TriggerRun] = refuse
    run = await failed_run(served)
    for path, fields, said in (
        ("/dags/sales/trigger", {}, "FLX-4001: The dag 'sales' has 4 live runs"),
        ("/dags/sales/pause", {}, "FLX-4098"),
        ("/dags/sales/trigger", {"conf": "{"}, "FLX-4092"),
        ("/dags/sales/trigger", {"conf": "[1]"}, "FLX-4092"),
        ("/dags/sales/trigger", {"conf": '{"a": 12345678901234567890123}'}, "FLX-4092"),
        ("/dags/sales/trigger", {"logical_date": "<b>soon"}, "FLX-4091: The logical date '<b>soon' is not a date"),
        (f"/dags/sales/runs/{run}/clear", {}, "FLX-4094"),
        (f"/dags/sales/runs/{run}/clear", {"task": "load"}, "FLX-4093"),
        (f"/dags/sales/runs/{run}/mark", {"task": "load:-1", "state": "removed"}, "FLX-4094"),
        ("/dags/sales/runs/no/cancel", {}, "FLX-4120"),
    ):
        async with http.post(served.url + path, data={"csrf": token} | fields, allow_redirects=False) as response:
            assert response.status == 303, path
        assert said in words_of(await get(served, http, "/dags")), path


async def test_light_or_dark_is_kept(served: Served, http: aiohttp.ClientSession, token: str) -> None:
    assert 'data-theme="auto"' in await get(served, http, "/dags")
    async with http.post(
        served.url + "/theme", data={"csrf": token, "theme": "dark", "back": "/dags/sales"}
    ) as response:
        assert response.url.path == "/dags/sales"
        assert 'data-theme="dark"' in await response.text()


# ---- nothing from outside becomes markup -----------------------------------------------------------------------------

PAYLOADS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title><svg onload=alert(1)>",
    "</pre></textarea><iframe src=javascript:alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "&lt;b&gt;<b>",
    "<!--",
    "]]><a xlink:href='javascript:alert(1)'>",
]
TAGS = frozenset(
    re.findall(
        r"\w+",
        "html head meta title link script body svg symbol circle rect path header a span nav div form input "
        "button main h1 h2 p b details summary ul li code pre table thead tbody tfoot tr th td time kbd "
        "section label textarea defs marker g text use colgroup col h3 em strong ",
    )
)


class Reader(html.parser.HTMLParser):
    """Reads a page as a browser would and notes whatever should not be there."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in TAGS:
            self.wrong.append(f"<{tag}>")
        if tag == "script" and (not values.get("src", "").startswith("/static/") or values.get("type") != "module"):
            self.wrong.append(f"script {attrs}")
        for name, value in attrs:
            if name.startswith("on") or name in ("style", "srcdoc", "xlink:href"):
                self.wrong.append(f"{tag} {name}={value}")
            if name in ("href", "src", "action", "formaction") and not re.match(r"[/?#]", value or ""):
                self.wrong.append(f"{tag} {name}={value}")


def assert_only_ours(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    assert not reader.wrong, reader.wrong
    assert "{{ 49 }}" not in page


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_payloads_stay_text(served: Served, http: aiohttp.ClientSession, payload: str, tmp_path: Path) -> None:
    """In ids too: they are checked where they are written, but a page does not rely on that."""
    db, evil = served.state.db, re.sub(r"[/{}]", "", payload)  # what no path can hold
    sample = replace(
        FEW[-1],
        dag_id=evil,
        tags=(payload,),
        owner=payload,
        description=payload,
        warnings=(payload,),
        params={payload: payload},
        reason=f"task load failed: {payload}",
    )
    spec = spec_of(sample, datetime(2026, 1, 1, tzinfo=UTC))
    spec["doc_md"] = payload
    for task in spec["tasks"]:
        task.update(doc_md=payload, operator=payload, owner=payload, pool=payload, fields={payload: payload})
    spec["tasks"].append({"task_id": f"{evil}.{evil}", "operator": payload, "group": evil, "upstream": ["load"]})
    loaded = await store_load(
        db.writer, f"{evil}.py", payload, {f"{evil}.py": payload, payload: f'"""{payload}'}, [spec], 0
    )
    filler = Filler(NOW, tmp_path / "logs")
    saves = filler.fill(replace(sample, history="f"), dag_from_json(spec), loaded.dags[0][1])
    for run in saves.runs:
        run.run_id += evil
        run.reason, run.conf = payload, {payload: payload}
    for one in [*saves.instances, *saves.attempts]:
        one.reason = payload
    for attempt in saves.attempts:
        attempt.rendered = {payload: payload}
    saves.xcoms = [XCom(xcom.run_number, xcom.task_id, -1, payload, payload) for xcom in saves.xcoms]
    await save(db.writer, saves)
    await store_error(db.writer, "other.py", {"code": payload, "line": 3, "message": payload, "traceback": payload})
    for log in (tmp_path / "logs").rglob("*.log"):
        log.write_text(payload)
    await served.login(http)
    dag = f"/dags/{quote(evil, safe='')}"
    run = f"{dag}/runs/{quote(saves.runs[-1].run_id, safe='')}"
    for path in ("/dags", dag, f"{dag}/source", run, f"{run}/tasks/load", f"{run}/tasks/join?try=1"):
        async with http.get(URL(served.url + path, encoded=True)) as response:
            page = await response.text()
            assert response.status == 200, page
            assert_only_ours(page)
            assert html.escape(payload, quote=False).replace("'", "&#39;") in page.replace("&#34;", '"')
    for path in (f"/dags?q={payload}&show={payload}", f"/dags/{payload}", f"/{payload}", f"/login/{evil}"):
        async with http.get(served.url + path) as response:
            assert_only_ours(await response.text())


async def test_what_an_action_says_stays_text(served: Served, http: aiohttp.ClientSession, token: str) -> None:
    for payload in PAYLOADS:
        cookies = {"flux_notice": f"refused.{quote(payload, safe='')}", "flux_theme": quote(payload, safe="")}
        http.cookie_jar.update_cookies(cookies, URL(served.url))
        page = await get(served, http, "/dags")
        assert_only_ours(page)
        assert payload in html.unescape(page)


def test_templates_escape_everything() -> None:
    assert ENVIRONMENT.autoescape is True
    for name in ENVIRONMENT.list_templates():
        text = (Path(__file__).parent.parent.parent / "fluxd/web/templates" / name).read_text()
        assert not re.search(r"\|\s*safe|autoescape|Markup", text), name
        assert not re.search(r"\s(style|on\w+)=|<style|javascript:", text), name
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text)), name


async def test_nothing_is_changed_by_looking(served: Served, http: aiohttp.ClientSession, token: str) -> None:
    """Every page is made by a role that may only read."""
    db = served.state.db
    await db.read.execute("UPDATE session SET seen_at = now()")
    run = await failed_run(served)
    await db.read.execute(
        f"ALTER DATABASE {await db.read.fetchval('SELECT current_database()')} SET default_transaction_read_only = on"
    )
    await db.read.expire_connections()
    for path in (
        "/dags",
        "/dags/sales",
        "/dags/sales/source",
        f"/dags/sales/runs/{run}",
        f"/dags/sales/runs/{run}/tasks/load",
    ):
        await get(served, http, path)


async def test_the_front_leads_to_the_dags(served: Served, http: aiohttp.ClientSession) -> None:
    async with http.get(served.url + "/") as response:
        assert response.url.path == "/login"
    await served.login(http)
    for path in ("/", "/login"):
        async with http.get(served.url + path) as response:
            assert response.url.path == "/dags"
            assert "No dags yet." in await response.text()


async def test_a_trigger_that_is_refused_shows_what_was_typed(
    served: Served, http: aiohttp.ClientSession, token: str
) -> None:
    await served.state.db.read.execute(
        "UPDATE dag_version SET spec = spec || $1 WHERE dag_id = 'sales'",
        {"param_schemas": {"region": {"type": "string", "enum": ["eu", "us"], "description": "Where <b>to</b> look"}}},
    )
    form = {
        "csrf": token,
        "ask": "again",
        "then": "run",
        "zone": "UTC",
        "logical_date": "2026-01-02",
        "conf": '{"a": 1',
    }
    async with http.post(served.url + "/dags/sales/trigger", data=form) as response:
        page = await response.text()
        assert response.status == 400 and response.url.path == "/dags/sales/trigger"
    assert '<details class="pop" open>' in page and "{&#34;a&#34;: 1</textarea>" in page
    assert 'value="2026-01-02"' in page and "FLX-4092" in page
    assert 'string, one of "eu", "us"' in words_of(page) and "Where <b>to</b> look" in words_of(page)
    assert not served.posted
    assert '<details class="pop" open>' in await get(served, http, "/dags/sales/trigger")  # also to be linked to
    assert '<details class="pop" open>' not in await get(served, http, "/dags/sales")


@pytest.mark.parametrize(
    ("state", "button"),
    [
        ("failed", '<button class="main" title="This task and what depends on it">Run again'),
        ("upstream_failed", '<button class="main" title="This task and what depends on it">Run again'),
        ("success", '<button class="" title="This task and what depends on it">Run again'),
        ("running", "Stop and run again …</summary>"),
        ("waiting", "Stop and run again …</summary>"),
        ("none", None),
    ],
)
async def test_a_task_is_run_again_with_the_right_weight(
    served: Served, http: aiohttp.ClientSession, token: str, state: str, button: str | None
) -> None:
    run = await failed_run(served)
    await served.state.db.read.execute("UPDATE task_instance SET state = $1 WHERE task_id = 'join'", state)
    page = await get(served, http, f"/dags/sales/runs/{run}/tasks/join")
    assert button in page if button else "again" not in words_of(page)


async def test_a_dag_without_its_file_is_not_triggered(served: Served, http: aiohttp.ClientSession, token: str) -> None:
    await served.state.db.read.execute("UPDATE dag SET removed = true, next_due_at = NULL WHERE dag_id = 'sales'")
    page = await get(served, http, "/dags/sales")
    assert 'class="main" disabled' in page and "Trigger with parameters" not in page
    assert "no longer defines this dag. It comes back with its file" in words_of(page)
    assert "can be triggered at any time" not in words_of(page)
