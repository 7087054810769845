"""Style sheet, scripts and pictures, held in memory: no path from outside ever reaches the file system.

Their address holds a hash of all of them, so that a browser keeps them for good and never mixes two versions.
"""

import hashlib
from pathlib import Path

from aiohttp import web

FOLDER = Path(__file__).parent / "static"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
}
FILES = {path.name: path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES}
VERSION = hashlib.sha256(b"\0".join(name.encode() + b"\0" + data for name, data in FILES.items())).hexdigest()[:12]


def static_url(name: str) -> str:
    """The address of one of our files."""
    assert name in FILES, name
    return f"/static/{VERSION}/{name}"


async def static_file(request: web.Request) -> web.Response:
    """GET /static/{version}/{name}. An old version's page gets the new file, but does not keep it."""
    name = request.match_info["name"]
    if name not in FILES:
        raise web.HTTPNotFound
    current = request.match_info["version"] == VERSION
    return web.Response(
        body=FILES[name],
        headers={
            "Content-Type": TYPES[Path(name).suffix],
            "Cache-Control": "public, max-age=31536000, immutable" if current else "no-store",
        },
    )
