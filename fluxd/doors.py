"""The two doors of the web side: the TCP address and the Unix socket. A socket file that is gone is made again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from fluxd import home
from fluxd.config import Settings
from fluxd.errors import FluxError
from fluxd.observations import Seen, observe
from fluxd.web.doors import Door, make_runner

LOOK_S = 2.0


class Doors:
    """Open doors. Make them with `opened`."""

    def __init__(self, settings: Settings, runner: web.AppRunner, address: str, unix: Door, file: int) -> None:
        self.address = address
        self._settings = settings
        self._runner = runner
        self._unix = unix
        self._file = file  # the inode of our socket's file

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, settings: Settings, app: web.Application) -> AsyncIterator["Doors"]:
        """Open both. Raises FluxError FLX-601x."""
        tcp = home.tcp_socket(settings)
        unix = home.unix_socket(settings.socket, settings.web.socket_group)
        host, port = tcp.getsockname()[:2]
        runner = make_runner(app)
        await runner.setup()
        site = Door(runner, unix, home.UNIX_PLACES)
        doors = cls(settings, runner, f"http://{f'[{host}]' if ':' in host else host}:{port}", site, 0)
        doors._file = _inode(settings.socket)
        try:
            await site.start()
            await Door(runner, tcp, home.tcp_places(settings)).start()
            yield doors
        finally:
            await runner.cleanup()
            if _inode(settings.socket) == doors._file:
                settings.socket.unlink(missing_ok=True)

    async def watch(self) -> None:
        """For ever: what of the home somebody removed is made again."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Make again what is gone: the folders, and the socket's file. One of another daemon is left alone."""
        for folder in home.make_again(self._settings):
            observe(Seen.FILE_MADE_AGAIN, path=folder)
        path = self._settings.socket
        if _inode(path):
            return
        try:
            unix = home.unix_socket(path, self._settings.web.socket_group)
        except FluxError:
            return  # somebody put something else there between our two looks
        site = Door(self._runner, unix, home.UNIX_PLACES)
        file = _inode(path)
        await site.start()
        old, self._unix, self._file = self._unix, site, file
        observe(Seen.FILE_MADE_AGAIN, path=path)
        await old.stop()  # who is connected stays so


def _inode(path: Path) -> int:
    """The number of the file; 0 where there is none."""
    try:
        return path.stat().st_ino
    except OSError:
        return 0
