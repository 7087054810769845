"""The doors of a real fluxd: when they open, what strangers get, and who is told how to get in."""

import asyncio
import os
import pty
import resource
import signal
import socket
import subprocess
import threading
from pathlib import Path

import asyncpg
import pytest

from tests.fluxd_process import BIN, Daemon

pytestmark = pytest.mark.anyio


def test_a_login_link_is_written_to_a_terminal_only(daemon: Daemon) -> None:
    assert not [line for line in daemon.lines if "/login/" in line]
    assert [line for line in daemon.lines if line.startswith("log in: ") and "users login-link" in line]
    daemon.stop()
    parent, child = pty.openpty()
    command = [str(BIN / "fluxd"), "--home", str(daemon.home), "--dags", str(daemon.dags), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=child, stderr=subprocess.DEVNULL)
    os.close(child)
    try:
        seen = b""
        while b"ready: " not in seen:
            seen += os.read(parent, 65536)
        assert b"log in: http://127.0.0.1:" in seen and b"/login/" in seen
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        os.close(parent)


async def test_the_doors_open_when_there_is_an_admin(db_url: str) -> None:
    conn = await asyncpg.connect(db_url)
    daemon = Daemon(settings={"FLUXD__DATABASE__URL": db_url})
    started = threading.Thread(target=daemon.start)
    try:
        async with conn.transaction():
            await conn.execute("LOCK TABLE account IN ACCESS EXCLUSIVE MODE")
            started.start()
            async with asyncio.timeout(60):
                waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'account'::regclass"
                while not await conn.fetchval(waits):
                    await asyncio.sleep(0.01)
            assert not (daemon.home / "fluxd.sock").exists()
        await asyncio.to_thread(started.join)
        assert await conn.fetchval("SELECT name FROM account") == "admin"
        assert daemon.get("/dags") == {"dags": [], "next_cursor": None}
    finally:
        await asyncio.to_thread(started.join)
        await asyncio.to_thread(daemon.remove)
        await conn.close()


def test_strangers_leave_no_line_in_the_log(daemon: Daemon) -> None:
    port = int(daemon.address.rpartition(":")[2])
    said = len(daemon.lines)
    for hello in (
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * 9000,
        b"a b c d\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), 20) as stranger:
            stranger.sendall(hello + b"\r\n\r\n")
            assert stranger.recv(65536)[8:12] == b" 400"
    daemon.stop()
    assert [line for line in daemon.lines[said:] if "Error" in line or "Traceback" in line] == []


def test_as_many_files_as_allowed_can_be_open(daemon: Daemon) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = min(hard if hard >= 0 else 65_536, 65_536)
    lines = Path(f"/proc/{daemon.pid}/limits").read_text().splitlines()
    soft = next(line.split()[3] for line in lines if line.startswith("Max open files"))
    assert soft == "unlimited" or int(soft) >= wanted
