"""Who is let in, who is not, and what every answer says to the browser. Every route is walked, whatever it is."""

import asyncio
import grp
import os
import pwd
import re
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from fluxd.config import WebSettings
from fluxd.core.events import PauseDag
from fluxd.store import accounts
from fluxd.store.database import Database
from fluxd.web.auth import PUBLIC, host_name, local_path
from fluxd.web.security_headers import CONTENT_SECURITY_POLICY
from tests.web.serving import Served, serve

pytestmark = pytest.mark.anyio

STREAMS = {"/api/v1/events"}


def addresses(app: web.Application) -> list[tuple[str, str, str]]:
    """(method, pattern, an address that fits) for every route there is."""
    found = []
    for route in app.router.routes():
        assert route.resource is not None
        pattern = route.resource.canonical
        methods = ["GET", "POST", "PUT", "DELETE", "PATCH"] if route.method == "*" else [route.method]
        found += [(method, pattern, re.sub(r"\{[^}]+\}", "x", pattern)) for method in methods]
    return found


async def test_without_login_only_the_named_routes_answer(served: Served, http: aiohttp.ClientSession) -> None:
    walked = addresses(served.app)
    assert {"/dags", "/api/v1/events", "/api/v1/dags", "/healthz"} <= {pattern for _, pattern, _ in walked}
    assert {pattern for _, pattern, _ in walked} >= PUBLIC
    for method, pattern, address in walked:
        if method == "HEAD":
            continue
        async with http.request(method, served.url + address, allow_redirects=False) as response:
            if pattern in PUBLIC:
                assert response.status in (200, 404, 410), (method, pattern)
            elif pattern.startswith("/api/"):
                assert response.status == 401, (method, pattern)
                assert response.content_type == "application/problem+json"
            else:
                assert response.status == 303, (method, pattern)
                assert response.headers["Location"].partition("?")[0] == "/login", (method, pattern)
    assert served.posted == []


async def test_what_does_not_exist_is_not_told_to_strangers(served: Served, http: aiohttp.ClientSession) -> None:
    async with http.get(served.url + "/wp-admin", allow_redirects=False) as response:
        assert response.status == 303


async def test_every_answer_carries_the_headers(served: Served, http: aiohttp.ClientSession) -> None:
    token = await served.login(http)
    for method, pattern, address in addresses(served.app):
        if pattern in STREAMS or pattern == "/logout" or method == "HEAD":
            continue
        async with http.request(
            method, served.url + address, headers={"X-CSRF-Token": token}, allow_redirects=False
        ) as response:
            assert response.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY, (method, pattern)
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Referrer-Policy"] == "same-origin"
            assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "Server" not in response.headers
            assert not [name for name in response.headers if name.lower().startswith("access-control-")]
    async with http.get(served.url + "/api/v1/events") as response:
        assert response.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY


async def test_an_error_nobody_foresaw_shows_its_code_alone(served: Served, http: aiohttp.ClientSession) -> None:
    token = await served.login(http)

    def fails(event: object) -> None:
        raise RuntimeError("a secret of the inside")

    served.answers[PauseDag] = fails
    async with http.post(
        served.url + "/dags/x/pause", data={"csrf": token, "paused": "yes"}, allow_redirects=False
    ) as response:
        text = await response.text()
        assert response.status == 500
        assert "FLX-4088" in text
        assert "secret" not in text and "Traceback" not in text
        assert response.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY


async def test_a_login_link_works_once_and_looking_does_not_use_it(
    served: Served, http: aiohttp.ClientSession, db: Database
) -> None:
    link = served.url + await accounts.make_login_link(db.read, 15)
    for _ in range(3):
        async with http.get(link) as response:
            assert response.status == 200
            assert "Log in to Flux" in await response.text()
    async with http.post(link, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (303, "/dags")
        cookie = response.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Path=/" in cookie and "Domain" not in cookie
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as other:
        async with other.post(link, allow_redirects=False) as response:
            assert response.status == 410
            assert "Set-Cookie" not in response.headers
        async with other.get(link) as response:
            assert response.status == 410
            assert "fluxctl users login-link" in await response.text()


@pytest.mark.parametrize(
    ("asked", "there"),
    [
        ("/dags/sales?before=7&x=%2F", "/dags/sales?before=7&x=%2F"),
        ("/dags/a%2Fb/runs/x%20y", "/dags/a%2Fb/runs/x%20y"),
        ("/", "/dags"),
        ("/login?next=//evil.example/", "/dags"),
        ("/login?next=https://evil.example/", "/dags"),
        ("/login?next=/%5Cevil.example", "/dags"),
        ("/login?next=%0d%0aX:1", "/dags"),
        ("/login?next=javascript:1", "/dags"),
    ],
)
async def test_login_returns_to_the_page_that_was_asked_for(
    served: Served, http: aiohttp.ClientSession, db: Database, asked: str, there: str
) -> None:
    async with http.get(URL(served.url + asked, encoded=True)) as response:
        assert response.url.path == "/login" and response.status == 200
    link = served.url + await accounts.make_login_link(db.read, 15)
    async with http.post(link, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (303, there)
    async with http.post(served.url + await accounts.make_login_link(db.read, 15), allow_redirects=False) as response:
        assert response.status == 403  # somebody is logged in: that form has no token


async def test_two_at_once_with_one_link_are_one_login(served: Served, db: Database) -> None:
    link = served.url + await accounts.make_login_link(db.read, 15)

    async def use() -> int:
        async with aiohttp.ClientSession() as client, client.post(link, allow_redirects=False) as response:
            return response.status

    assert sorted(await asyncio.gather(*(use() for _ in range(6)))) == [303] + [410] * 5


async def test_an_old_link_is_refused(served: Served, http: aiohttp.ClientSession, db: Database) -> None:
    link = await accounts.make_login_link(db.read, 0)
    async with http.post(served.url + link, allow_redirects=False) as response:
        assert response.status == 410


async def test_the_database_holds_no_secret_that_opens_anything(
    served: Served, http: aiohttp.ClientSession, db: Database
) -> None:
    unused = await accounts.make_login_link(db.read, 15)
    await served.login(http)
    [cookie] = [morsel.value for morsel in http.cookie_jar if morsel.key.startswith("flux_session")]
    dump = str(await db.read.fetch("SELECT session.*, login_link.* FROM session, login_link"))
    assert cookie not in dump
    assert unused.rpartition("/")[2] not in dump


async def test_a_planted_cookie_is_no_session(served: Served, http: aiohttp.ClientSession) -> None:
    await served.login(http)
    [first] = [morsel for morsel in http.cookie_jar if morsel.key.startswith("flux_session")]
    async with aiohttp.ClientSession(cookies={first.key: "planted"}) as other:
        async with other.get(served.url + "/dags", allow_redirects=False) as response:
            assert response.status == 303
        link = await accounts.make_login_link(served.state.db.read, 15)
        async with other.post(served.url + link, allow_redirects=False) as response:
            assert response.cookies[first.key].value not in ("planted", first.value)


async def test_after_logout_a_copy_of_the_cookie_is_worth_nothing(served: Served, http: aiohttp.ClientSession) -> None:
    token = await served.login(http)
    copy = {morsel.key: morsel.value for morsel in http.cookie_jar}
    async with http.post(served.url + "/logout", data={"csrf": token}, allow_redirects=False) as response:
        assert response.headers["Location"] == "/login"
    async with (
        aiohttp.ClientSession(cookies=copy) as thief,
        thief.get(served.url + "/api/v1/dags", allow_redirects=False) as response,
    ):
        assert response.status == 401


async def test_a_session_ends_by_its_time_and_by_idleness(
    served: Served, http: aiohttp.ClientSession, db: Database
) -> None:
    await served.login(http)
    for change in ("seen_at = now() - interval '8 hours 1 second'", "seen_at = now(), expires_at = now()"):
        async with http.get(served.url + "/dags", allow_redirects=False) as response:
            assert response.status == 200
        await db.read.execute(f"UPDATE session SET {change}")
        async with http.get(served.url + "/dags", allow_redirects=False) as response:
            assert response.status == 303
        await db.read.execute("UPDATE session SET seen_at = now(), expires_at = now() + interval '1 hour'")


async def test_use_keeps_a_session_from_going_idle(served: Served, http: aiohttp.ClientSession, db: Database) -> None:
    await served.login(http)
    await db.read.execute("UPDATE session SET seen_at = now() - interval '1 hour'")
    async with http.get(served.url + "/dags"):
        assert await db.read.fetchval("SELECT seen_at > now() - interval '1 minute' FROM session")


FORGED = [
    ({}, {}, "no token"),
    ({"csrf": "wrong"}, {}, "a wrong token"),
    ({"csrf": "…"}, {}, "a token that is not ASCII"),
    ({"csrf": "TOKEN"}, {"Origin": "http://evil.example"}, "a foreign origin"),
    ({"csrf": "TOKEN"}, {"Origin": "null"}, "an origin that hides"),
    ({"csrf": "TOKEN"}, {"Sec-Fetch-Site": "cross-site"}, "a foreign site"),
    ({"csrf": "TOKEN"}, {"Sec-Fetch-Site": "same-site"}, "a neighbour's site"),
]


@pytest.mark.parametrize(("fields", "headers", "what"), FORGED, ids=[what for *_, what in FORGED])
async def test_a_change_that_our_page_did_not_ask_for_is_refused(
    served: Served, http: aiohttp.ClientSession, fields: dict[str, str], headers: dict[str, str], what: str
) -> None:
    token = await served.login(http)
    data = {name: token if value == "TOKEN" else value for name, value in fields.items()}
    for address in ("/dags/x/pause", "/dags/x/trigger", "/dags/x/runs/y/clear", "/logout", "/theme"):
        async with http.post(served.url + address, data=data, headers=headers, allow_redirects=False) as response:
            assert response.status == 403, what
    async with http.post(
        served.url + "/api/v1/dags/x/pause", data="{}", headers={"Content-Type": "text/plain"} | headers
    ) as response:
        assert response.status == 403
    assert served.posted == []


async def test_our_own_page_may_change_things_by_form_or_header(served: Served, http: aiohttp.ClientSession) -> None:
    token = await served.login(http)
    mine = {"Origin": served.url, "Sec-Fetch-Site": "same-origin"}
    for data, headers in (
        ({"csrf": token, "paused": "yes"}, mine),
        ({"paused": "yes"}, mine | {"X-CSRF-Token": token}),
    ):
        async with http.post(
            served.url + "/dags/x/pause", data=data, headers=headers, allow_redirects=False
        ) as response:
            assert response.status == 303
    assert [type(event) for event in served.posted] == [PauseDag, PauseDag]
    assert served.posted[0].by == "admin"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8090", "127.0.0.1.evil.example", "", "[::2]", "10.0.0.1"]
)
async def test_a_foreign_host_name_is_refused(served: Served, http: aiohttp.ClientSession, host: str) -> None:
    for address in ("/login", "/healthz", "/dags", "/static/x/flux.css"):
        async with http.get(served.url + address, headers={"Host": host}, allow_redirects=False) as response:
            assert response.status == 421, (host, address)


@pytest.mark.parametrize("host", ["localhost:1", "LOCALHOST", "127.0.0.1", "[::1]:8090", "localhost."])
async def test_names_of_loopback_are_ours(served: Served, http: aiohttp.ClientSession, host: str) -> None:
    async with http.get(served.url + "/healthz", headers={"Host": host}) as response:
        assert response.status == 200


async def test_names_in_the_settings_are_ours(db: Database, tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with (
        serve(db, tmp_path, web=WebSettings(hosts=("Flux.Example",))) as served,
        http.get(served.url + "/healthz", headers={"Host": "flux.example:443"}) as response,
    ):
        assert response.status == 200


def test_names_in_host_headers() -> None:
    given = ["a.b:1", "[::1]:80", "[::1]", "A.B.", "a.b:x"]
    assert [host_name(text) for text in given] == ["a.b", "::1", "::1", "a.b", "a.b:x"]


ELSEWHERE = [
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "https://evil.example",
    "javascript:alert(1)",
    "evil.example",
    "/a\\..\\b",
    "/ok\r\nSet-Cookie: a=b",
    "/\t/evil.example",
    "",
]


@pytest.mark.parametrize("back", ELSEWHERE)
async def test_nobody_is_sent_to_another_site(served: Served, http: aiohttp.ClientSession, back: str) -> None:
    assert local_path(back, "/dags") == "/dags"
    token = await served.login(http)
    for address in ("/theme", "/dags/x/pause"):
        async with http.post(
            served.url + address, data={"csrf": token, "back": back}, allow_redirects=False
        ) as response:
            assert response.status == 303
            assert response.headers["Location"] in ("/dags", "/dags/x")


async def test_static_files_are_only_ours(served: Served, http: aiohttp.ClientSession) -> None:
    for name in ("../app.py", "%2e%2e%2fapp.py", "..%2f..%2fconfig.py", "flux.css%00.js", ".", "", "/etc/passwd"):
        async with http.get(f"{served.url}/static/x/{name}", allow_redirects=False) as response:
            assert response.status in (303, 400, 404), name
            assert "import" not in await response.text()


@pytest.fixture
async def unix(served: Served, tmp_path: Path) -> Path:
    """The same application on a Unix socket too, open to all users by its mode."""
    path = tmp_path / "fluxd.sock"
    await web.UnixSite(served.runner, str(path)).start()
    path.chmod(0o777)
    return path


async def test_the_socket_knows_root_and_the_daemons_own_user(unix: Path) -> None:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(unix))) as client,
        client.get("http://fluxd/api/v1/dags") as response,
    ):
        assert response.status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_the_socket_refuses_everybody_else(unix: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    assert await status_for(nobody, unix) == 403


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(("group", "status"), [("its own", 200), ("root", 403), ("no-such-group", 403), ("", 403)])
async def test_the_socket_lets_members_of_its_group_in(db: Database, tmp_path: Path, group: str, status: int) -> None:
    nobody = pwd.getpwnam("nobody")
    name = grp.getgrgid(nobody.pw_gid).gr_name if group == "its own" else group
    async with serve(db, tmp_path, web=WebSettings(socket_group=name)) as served:
        path = tmp_path / "grouped.sock"
        await web.UnixSite(served.runner, str(path)).start()
        path.chmod(0o777)
        assert await status_for(nobody, path) == status


async def status_for(user: pwd.struct_passwd, path: Path) -> int:
    """What the socket answers to another user of this machine."""
    for folder in path.parents:
        if folder.stat().st_mode & 0o001 == 0:
            folder.chmod(folder.stat().st_mode | 0o011)
    script = (
        f"import os, socket, sys; os.setgroups([]); os.setgid({user.pw_gid}); os.setuid({user.pw_uid});"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(b'GET /api/v1/dags HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n');"
        "print(s.recv(12).decode())"
    )
    result = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-I", "-c", script, str(path)], capture_output=True, text=True
    )
    assert result.returncode == 0, result
    return int(result.stdout.split()[1])


async def test_an_address_of_the_machine_is_ours_where_we_listen_on_all(
    db: Database, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with serve(db, tmp_path, listen="0.0.0.0:0") as served:
        port = served.url.rpartition(":")[2]
        async with http.get(f"http://127.0.0.1:{port}/healthz") as response:
            assert response.status == 200
        async with http.get(
            f"http://127.0.0.1:{port}/healthz", headers={"Host": f"{socket.gethostname()}.example"}
        ) as response:
            assert response.status == 421


async def test_health_says_no_more_than_it_must(served: Served, http: aiohttp.ClientSession) -> None:
    async with http.get(served.url + "/healthz") as response:
        assert await response.json() == {"status": "ok"}
    await served.state.db.work.close()
    async with http.get(served.url + "/healthz") as response:
        assert response.status == 503
