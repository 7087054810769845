"""What a real task can do through its door to the daemon, and in the daemon's Postgres."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fluxd_process import Daemon

DOOR = """
import os, signal
from fluxd import DAG, task

with DAG("transfer"):

    @task(retries=1, retry_delay=0)
    def copy(ti):
        done = ti.get_state().get("done", 0)
        for number in range(done, 10):
            ti.set_state({"done": number + 1})
            ti.progress(rows=(number + 1) * 100, note=f"chunk {number}")
            if number == 4:
                os.kill(os.getpid(), signal.SIGKILL)
        return done

    copy()

with DAG("stale"):

    @task
    def late(ti):
        import fluxd.authoring.daemon as door
        old = door.Door(ti.xcoms.door.socket, ti.xcoms.door.fence - 1)
        ti.progress(bytes=7)
        ti.xcoms.door = old
        return ti.xcom_pull("somebody")

    late()
"""
INTRUDER = """
import asyncio, os
import asyncpg
from fluxd import DAG, task

URL = os.environ.get("FLUX_CONN_EMBEDDED")

async def tried(statement, **other):
    try:
        conn = await asyncpg.connect(URL, **other)
        try:
            return str(await conn.fetchval(statement))
        finally:
            await conn.close()
    except asyncpg.PostgresError as error:
        return type(error).__name__

with DAG("intruder"):

    @task
    async def look():
        global URL
        URL = os.environ["FLUX_CONN_EMBEDDED"]
        return {
            "mine": await tried("SELECT current_user || '@' || current_database()"),
            "power": await tried("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"),
            "flux": await tried("SELECT count(*) FROM account", database="fluxd"),
            "as flux": await tried("SELECT count(*) FROM account", user="fluxd", database="fluxd"),
            "as flux, its way": await tried("SELECT 1", user="fluxd"),
            "in the environment": [name for name, text in os.environ.items() if "fluxd@" in text or "fluxd:" in text],
        }

    look()
"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon() as running:
        running.write("door.py", DOOR)
        running.write("intruder.py", INTRUDER)
        yield running


def task_of(daemon: Daemon, dag_id: str, task_id: str) -> dict[str, Any]:
    daemon.until_known(dag_id)
    run_id = daemon.trigger(dag_id)
    daemon.wait(dag_id, run_id)
    return dict(daemon.get(f"/dags/{dag_id}/runs/{run_id}/tasks/{task_id}"))


def test_a_transfer_goes_on_where_a_killed_try_stopped(daemon: Daemon) -> None:
    shown = task_of(daemon, "transfer", "copy")
    assert shown["state"] == "success", shown
    killed, last = shown["tries"]
    assert (killed["signal"], killed["state"]) == (9, "failed")
    assert shown["progress"] == last["progress"] == {"rows": 1000, "note": "chunk 9"}
    found = daemon.get(f"/dags/transfer/runs/{shown['run_id']}/tasks/copy/xcoms/return_value")
    assert found["value"] == 5
    # Told at its first call at least; what came after within the same second went with the process.
    assert killed["progress"] is None or killed["progress"]["rows"] in range(100, 501)


def test_a_task_whose_attempt_is_not_live_is_told_so(daemon: Daemon) -> None:
    shown = task_of(daemon, "stale", "late")
    assert (shown["state"], shown["progress"]) == ("failed", {"bytes": 7})
    assert shown["reason"].startswith("FLX-4240: The attempt with the fence")


def test_a_real_task_cannot_see_the_database_of_flux(daemon: Daemon) -> None:
    shown = task_of(daemon, "intruder", "look")
    assert shown["state"] == "success", shown
    found = daemon.get(f"/dags/intruder/runs/{shown['run_id']}/tasks/look/xcoms/return_value")["value"]
    assert found == {
        "mine": "tasks@tasks",
        "power": "False",
        "flux": "InvalidAuthorizationSpecificationError",
        "as flux": "InvalidPasswordError",
        "as flux, its way": "InvalidPasswordError",
        "in the environment": [],
    }
