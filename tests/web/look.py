"""Pictures of all pages, for people to look at: `python -m tests.web.look FOLDER`."""

import asyncio
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from fluxd.store import accounts
from fluxd.store.database import Database, connect
from fluxd.store.embedded import Embedded
from fluxd.store.schema import migrate
from tests.web.browser import find_chromium, open_page
from tests.web.example_data import fill
from tests.web.serving import Served, serve

SIZES = {"wide": (1440, 900), "narrow": (390, 844)}


async def addresses(served: Served) -> dict[str, str]:
    failed = await served.state.db.read.fetchval(
        "SELECT run_id FROM run WHERE dag_id = 'sales' AND state = 'failed' ORDER BY number DESC LIMIT 1"
    )
    running = await served.state.db.read.fetchval(
        "SELECT run_id FROM run WHERE dag_id = 'clickstream_hourly' AND state = 'running'"
    )
    return {
        "dags": "/dags",
        "failing": "/dags?show=failing",
        "dag": "/dags/sales",
        "dag_fan": "/dags/dim_stores",
        "dag_running": "/dags/clickstream_hourly",
        "run": f"/dags/sales/runs/{failed}",
        "run_running": f"/dags/clickstream_hourly/runs/{running}",
        "task": f"/dags/sales/runs/{failed}/tasks/load",
        "source": "/dags/sales/source",
        "missing": "/dags/nothing",
    }


async def look(folder: Path, only: set[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="fluxd-look-"))
    home.chmod(0o711)
    server = Embedded(home)
    await asyncio.to_thread(server.start)
    try:
        await asyncio.to_thread(server.create_database, "look")
        conn = await connect(server.url("look"))
        await migrate(conn)
        await conn.close()
        db = await Database.open(server.url("look"))
        await fill(db, home / "logs", datetime.now(UTC))
        chromium = find_chromium()
        assert chromium
        async with serve(db, home) as served, open_page(chromium) as page:
            for size, (width, height) in SIZES.items():
                for dark in (False, True):
                    await page.view(width, height, dark=dark, mobile=size == "narrow")
                    name = f"{size}-{'dark' if dark else 'light'}"
                    if not only:
                        await page.go(served.url + "/login")
                        await page.shoot(folder / f"login-{name}.png")
                    link = await accounts.make_login_link(db.read, 15)
                    await page.go(served.url + link)
                    if not only:
                        await page.shoot(folder / f"link-{name}.png")
                    await page.run("document.querySelector('button.main').click()")
                    await page.until("location.pathname === '/dags' && document.readyState === 'complete'")
                    for what, path in (await addresses(served)).items():
                        if only and what not in only:
                            continue
                        await page.go(served.url + path)
                        if what not in ("missing", "source"):
                            await page.until("document.querySelector('[data-link-state=on]')")
                        await page.shoot(folder / f"{what}-{name}.png")
                    await page.send("Network.clearBrowserCookies")
            for complaint in page.complaints:
                print(complaint)
        await db.close()
    finally:
        await asyncio.to_thread(server.stop)


if __name__ == "__main__":
    asyncio.run(look(Path(sys.argv[1]), set(sys.argv[2:])))
