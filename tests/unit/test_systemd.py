"""What systemd hears of fluxd, over a real socket."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxd.systemd import Systemd

pytestmark = pytest.mark.anyio

PATIENCE_S = 10.0


class Ear:
    """The end of the socket that systemd has."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self._socket.setblocking(False)

    async def hear(self) -> list[str]:
        """The lines of the next message."""
        async with asyncio.timeout(PATIENCE_S):
            return (await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode().splitlines()

    async def until(self, line: str) -> list[list[str]]:
        """What comes before a message with this line."""
        heard = []
        while line not in (message := await self.hear()):
            heard.append(message)
        return heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def ear(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ear]:
    made = Ear(str(tmp_path / "notify") if request.param == "path" else f"@fluxd-test-{os.getpid()}")
    yield made
    made.close()


def taken(ear: Ear, **more: str) -> Systemd:
    return Systemd.take({"NOTIFY_SOCKET": ear.address, "WATCHDOG_USEC": "40000"} | more)


async def test_a_start_asks_for_time_then_is_ready_then_alive_then_stops(ear: Ear) -> None:
    told = taken(ear)
    async with told.signs_of_life(list):
        assert await ear.hear() == ["EXTEND_TIMEOUT_USEC=30000000", "STATUS=starting"]
        told.ready("http://here\nREADY=0")
        assert all(message[0].startswith("EXTEND_") for message in await ear.until("READY=1"))
        assert await ear.hear() == ["WATCHDOG=1"]
        assert await ear.hear() == ["WATCHDOG=1"]
        told.stopping()
        assert await ear.until("STOPPING=1") in ([], [["WATCHDOG=1"]])


async def test_while_something_is_hung_no_sign_of_life_comes(ear: Ear) -> None:
    told = taken(ear)
    reasons: list[str] = []
    looks = 0
    looked = asyncio.Event()

    def hung() -> list[str]:
        nonlocal looks
        looks += 1
        if looks >= 5:
            looked.set()
        return reasons

    async with told.signs_of_life(hung):
        told.ready("well")
        await ear.until("WATCHDOG=1")
        reasons.append("the last turn was 40 s ago")
        await ear.until("STATUS=hung: the last turn was 40 s ago")
        looks = 0
        looked.clear()
        await asyncio.wait_for(looked.wait(), PATIENCE_S)
        reasons.clear()
        assert await ear.hear() == ["WATCHDOG=1", "STATUS=well"]  # and none before it


async def test_what_is_started_by_us_finds_nothing_of_it() -> None:
    environment = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1", "WATCHDOG_PID": str(os.getpid()), "PATH": "/bin"}
    Systemd.take(environment)
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("environment", "started_us"), [({}, False), ({"NOTIFY_SOCKET": "/n"}, True), ({"INVOCATION_ID": "1"}, True)]
)
async def test_whether_there_is_somebody_to_speak_to(environment: dict[str, str], started_us: bool) -> None:
    assert Systemd.take(environment).started_us is started_us


@pytest.mark.parametrize("more", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "soon"}])
async def test_a_watchdog_of_somebody_else_sets_no_pace(ear: Ear, more: dict[str, str]) -> None:
    assert taken(ear, **more).interval_s == 5.0
    assert taken(ear).interval_s == 0.01


async def test_without_systemd_nothing_is_asked_and_nothing_said() -> None:
    told = Systemd.take({})
    async with told.signs_of_life(lambda: pytest.fail("nobody asked")):
        told.ready("http://here")
        told.stopping()
        await asyncio.sleep(0)


async def test_a_systemd_that_is_gone_is_no_reason_to_fail(ear: Ear) -> None:
    told = taken(ear)
    ear.close()
    async with told.signs_of_life(list):
        told.ready("well")
