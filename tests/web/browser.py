"""A real browser for tests: Chromium without a window, driven over its DevTools protocol. As much as we need of it."""

import asyncio
import base64
import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
]
PATIENCE_S = 30.0


def find_chromium() -> str | None:
    """Where Chromium is; installed first where we may (a throw-away machine, as root)."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "chromium"]):
            subprocess.run(command, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, capture_output=True)
        found = next(filter(None, map(shutil.which, names)), None)
    return found


class Page:
    """One tab. Answers come by number, events are kept by name."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session_id: str, pump: "Pump") -> None:
        self._socket = socket
        self._session_id = session_id
        self._pump = pump

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol; raises RuntimeError with the browser's words."""
        return await self._pump.ask(self._socket, method, params, self._session_id)

    async def run(self, script: str) -> Any:
        """The value of an expression on the page (a promise is waited for)."""
        answer = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", "the script failed"))
        return answer["result"].get("value")

    async def go(self, url: str) -> None:
        """Open an address and wait until it is loaded."""
        await self.run("window.__old = true")
        await self.send("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && !window.__old")

    async def until(self, condition: str, seconds: float = PATIENCE_S) -> None:
        """Wait until an expression is true. Looks at it again and again: a page tells no one what we wait for."""
        async with asyncio.timeout(seconds):
            while True:
                with contextlib.suppress(RuntimeError):  # the page may just be changing
                    if await self.run(f"Boolean({condition})"):
                        return
                await asyncio.sleep(0.02)

    async def view(self, width: int, height: int, *, dark: bool = False, mobile: bool = False) -> None:
        """The size of the window, and light or dark."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.send("Emulation.setEmulatedMedia", features=scheme)

    async def shoot(self, path: Path) -> None:
        """A picture of the window as a PNG file."""
        answer = await self.send("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(answer["data"]))

    @property
    def complaints(self) -> list[str]:
        """What the page's scripts and its content security policy complained about so far."""
        return self._pump.complaints


class Pump:
    """Reads the browser's socket and hands answers to whoever asked."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.complaints: list[str] = []

    async def read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            data = message.json()
            if "id" in data:
                future = self._waiting.pop(data["id"])
                if future.done():
                    continue
                if "error" in data:
                    future.set_exception(RuntimeError(data["error"]["message"]))
                else:
                    future.set_result(data["result"])
            elif data["method"] == "Runtime.exceptionThrown":
                self.complaints.append(str(data["params"]["exceptionDetails"]))
            elif data["method"] == "Log.entryAdded" and data["params"]["entry"]["level"] == "error":
                entry = data["params"]["entry"]
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")

    async def ask(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        method: str,
        params: dict[str, Any],
        session_id: str | None = None,
    ) -> dict[str, Any]:
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params}
        await socket.send_json(message | ({"sessionId": session_id} if session_id else {}))
        async with asyncio.timeout(PATIENCE_S):
            return await self._waiting[number]


@contextlib.asynccontextmanager
async def open_page(chromium: str) -> AsyncIterator[Page]:
    """A new browser with an empty profile and one tab."""
    with tempfile.TemporaryDirectory(prefix="fluxd-browser-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            chromium,
            *FLAGS,
            f"--user-data-dir={profile}",
            "about:blank",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port = await _port(Path(profile) / "DevToolsActivePort")
            async with (
                aiohttp.ClientSession() as http,
                http.ws_connect(f"ws://127.0.0.1{port}", max_msg_size=0) as socket,
            ):
                pump = Pump()
                reading = asyncio.create_task(pump.read(socket))
                target = await pump.ask(socket, "Target.createTarget", {"url": "about:blank"})
                attached = await pump.ask(
                    socket, "Target.attachToTarget", {"targetId": target["targetId"], "flatten": True}
                )
                page = Page(socket, attached["sessionId"], pump)
                for domain in ("Page", "Runtime", "Log"):
                    await page.send(f"{domain}.enable")
                yield page
                reading.cancel()
        finally:
            process.terminate()
            await process.wait()


async def _port(path: Path) -> str:
    """ ":port/path" of the debugging socket; the browser writes it when it is up."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            lines = path.read_text().splitlines() if path.exists() else []
            if len(lines) == 2:
                return f":{lines[0]}{lines[1]}"
            await asyncio.sleep(0.02)
