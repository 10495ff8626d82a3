"""The simulator's server, which is behind the page with the phone on the desk."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode, urljoin

import httpx
import pytest
from aiohttp import web
from starlette.applications import Starlette
from starlette.routing import Route

from tests.dev.running import Dev, running_dev
from tests.processes import run, serving, until
from tests.receiver import receiving
from tests.sweeps import swept
from tests.upstream import Upstream, answer
from tests.world import Stage, bearer
from wxauth.service.build import Timeouts
from wxauth_desk.failures import failure_on_the_phone
from wxauth_desk.wechat import ACCOUNT, APPS, Api, create_simulator
from wxauth_desk.wechat.desk import phone_network
from wxauth_desk.wechat.offered_faults import offered_faults

RESOURCES = '[{"resource": "http://127.0.0.1:8005/mcp", "title": "Mine", "scopes": {"read": "read"}}]'
HURRIED = Timeouts(phones_farewell=0, phones_of_others=(0,), wechat_busy=(0, 0))


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("desk")
    with running_dev(folder, WXAUTH_RESOURCES=RESOURCES, WXAUTH_ADMIN_PAGE="false") as dev:
        yield dev


# Access to the pages.


@pytest.mark.process
def test_the_service_lets_in_no_page(dev: Dev) -> None:
    for origin in (dev.wechat_url, "https://evil.test", "http://127.0.0.1:1", "null"):
        assert allowed_origin(dev, origin) is None


def allowed_origin(dev: Dev, origin: str) -> str | None:
    answer = httpx.get(f"{dev.url}/livez", headers={"Origin": origin}, verify=False)
    return answer.headers.get("access-control-allow-origin")


@pytest.mark.process
def test_the_page_sends_the_requests_of_a_real_phone_to_the_service_alone(dev: Dev) -> None:
    phone = {"X-Phone-Url": f"{dev.url}/v1/me", "X-Phone-User-Agent": "MicroMessenger/8.0.44 Language/zh_CN"}
    browser = {"Accept-Language": "en-GB", "User-Agent": "Mozilla/5.0 Chrome/156", "X-Request-ID": "order-7"}
    answer = httpx.get(f"{dev.wechat_url}/desk/request", headers=browser | phone)
    assert (answer.status_code, answer.json()["title"]) == (401, "请先登录。")
    assert answer.headers["x-request-id"] == "order-7"
    for beside in (".evil.test/", "@evil.test/", "1/", ""):
        answer = httpx.get(f"{dev.wechat_url}/desk/request", headers={"X-Phone-Url": dev.url + beside})
        assert answer.status_code == 422, beside


async def test_a_url_that_cannot_be_requested_is_a_failure_of_the_phones_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clients: list[httpx.AsyncClient] = []

    class Client(httpx.AsyncClient):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            clients.append(self)

    desk = Starlette(routes=[Route("/", phone_network("https://auth.test"))])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(desk), base_url="http://desk.test") as page:
        monkeypatch.setattr(httpx, "AsyncClient", Client)
        answer = await page.get("/", headers={"X-Phone-Url": "https://auth.test/\x7f"})
    assert (answer.status_code, answer.text, answer.headers["x-phone-error"]) == (502, "InvalidURL", "1")
    assert [client.is_closed for client in clients] == [True]


@pytest.mark.process
def test_with_resources_of_ones_own_the_desk_has_no_agent(dev: Dev) -> None:
    assert httpx.get(f"{dev.wechat_url}/desk/setup").json()["agent"] is None


@pytest.mark.process
def test_the_desk_links_only_to_what_runs(dev: Dev) -> None:
    links = httpx.get(f"{dev.wechat_url}/desk/setup").json()["links"]
    assert links == {"shop": f"{dev.site_url}/", "console": None, "docs": f"{dev.url}/docs"}
    assert httpx.get(f"{dev.url}/admin/").status_code == 404
    for url in (links["shop"], links["docs"]):
        assert httpx.get(url).status_code == 200


@pytest.mark.process
def test_another_web_page_cannot_drive_the_simulator_and_programs_can(dev: Dev) -> None:
    with httpx.Client(base_url=dev.wechat_url, verify=False) as wechat:
        for headers in (
            *({"Origin": "https://evil.test"}, {"Origin": "null"}),
            *({"Host": "evil.test"}, {"Host": "127.0.0.1.evil.test:8001"}),
        ):
            for path, body in (("/codes", {"person": "alice"}), ("/faults", {"api": "code2session", "hang": True})):
                assert wechat.post(path, json=body, headers=headers).status_code == 403, headers
            assert wechat.get("/desk/wires/0", headers=headers).status_code == 403, headers
        for headers in ({}, {"Origin": dev.wechat_url}, {"Host": "localhost"}):
            assert wechat.post("/codes", json={"person": "alice"}, headers=headers).status_code == 200, headers


def requests_shown(dev: Dev) -> list[dict[str, Any]]:
    calls = httpx.get(f"{dev.wechat_url}/desk/wires/0").json()["calls"]
    return [call for call in calls if call["direction"] == "clientToService"]


@pytest.mark.process
def test_the_desk_has_the_requests_of_every_client_without_their_secrets(dev: Dev) -> None:
    with httpx.Client(base_url=dev.url) as client:
        login = client.post("/v1/login", json={"code": "watched"}).json()
        client.get("/v1/me", headers=bearer(login))
        client.post("/v1/refresh", json={"refresh_token": login["refresh_token"]})
        client.post("/v1/login", content=b'{"code": "not JSON, and private')
        form = {"grant_type": "authorization_code", "code": "an-authorization-code", "code_verifier": "v" * 43}
        client.post("/v1/token", data=form, auth=("shop", "a-client-secret"))
        client.get("/v1/end_session", params={"id_token_hint": "an-id-token", "state": "s-1"})
        client.post("/v1/login", json={"code": "x" * 20_000})
        client.post("/v1/login", json={"code": "x", "to": ["https://a.example/?code=an-authorization-code&state=s-1"]})
        client.get("/.well-known/jwks.json")
    first, me, refresh, broken, token, ended, large, linked, keys = requests_shown(dev)[-9:]
    assert me["path"] == "/v1/me"
    assert (first["body"], first["answer"]["access_token"]) == ({"code": "watched"}, "•••")
    assert first["answer"]["user"] == login["user"]
    assert first["ms"] > 0
    assert me["header"]["authorization"] == "Bearer •••"
    assert refresh["body"] == {"refresh_token": "•••"}
    assert broken["body"] == "(31 bytes, ?)"
    assert token["body"] == {"grant_type": "authorization_code", "code": "•••", "code_verifier": "•••"}
    assert token["header"]["authorization"] == "Basic •••"
    assert ended["query"] == {"id_token_hint": "•••", "state": "s-1"}
    assert large["body"] == "(20011 bytes, application/json)"
    assert linked["body"] == {"code": "x", "to": ["https://a.example/?code=***&state=s-1"]}
    assert keys["answer"]["keys"][0]["kty"]
    whole = json.dumps(requests_shown(dev))
    private = (login["access_token"][-20:], login["refresh_token"][-20:], "private", "an-", "a-client-secret", "vvv")
    assert not [text for text in private if text in whole]


@pytest.mark.process
def test_probes_and_files_of_pages_do_not_hide_the_requests_on_the_desk(dev: Dev) -> None:
    state = f"/v1/authorize/{'A' * 22}/state"
    with httpx.Client(base_url=dev.url, verify=False) as client:
        for path in (
            "/livez",
            "/readyz",
            "/metrics",
            "/docs",
            "/openapi.json",
            "/v1/pages/page.css",
            "/favicon.ico",
            state,
        ):
            client.get(path)
        for number in range(120):
            client.get("/v1/none", params={"number": number})
    shown = requests_shown(dev)
    assert [call["query"]["number"] for call in shown] == [f"{number}" for number in range(20, 120)]


@pytest.mark.process
def test_the_service_never_sees_which_page_of_the_desk_sends_a_request(dev: Dev) -> None:
    phone = {"X-Phone-Url": f"{dev.url}/v1/of-a-page", "X-Phone-User-Agent": "a phone", "X-Desk-Page": "page-1"}
    assert httpx.get(f"{dev.wechat_url}/desk/request", headers=phone).status_code == 404
    last = requests_shown(dev)[-1]
    assert (last["path"], last["page"], last["header"]["user-agent"]) == ("/v1/of-a-page", "page-1", "a phone")


def status_by_name(url: str, path: str, name: str) -> int:
    port = url.rpartition(":")[2]
    return httpx.get(url + path, headers={"Host": f"{name}:{port}"}, verify=False).status_code


@pytest.mark.process
def test_a_page_of_a_rebound_name_is_answered_by_no_server(dev: Dev) -> None:
    servers = ((dev.url, "/livez"), (dev.wechat_url, "/desk/setup"), (dev.site_url, "/"))
    for url, path in servers:
        for name in ("127.0.0.1", "[::1]", "localhost", "LOCALHOST", "wxauth.localhost"):
            assert status_by_name(url, path, name) == 200, (url, name)
        strangers = (
            "evil.test",
            "127.0.0.1.evil.test",
            "localhost.evil.test",
            "evillocalhost",
            "192.168.1.7",
            "",
            "[::1",
        )
        for name in strangers:
            assert status_by_name(url, path, name) == 403, (url, name)
    page = {"Host": "evil.test:8000", "Origin": "http://evil.test:8000"}
    answer = httpx.post(f"{dev.url}/v1/login", json={"code": "alice"}, headers=page, verify=False)
    assert (answer.status_code, "--allow-host evil.test" in answer.text) == (403, True)


@pytest.mark.no_signing_key
@pytest.mark.process
async def test_one_may_have_a_shop_names_and_origins_of_ones_own(tmp_path: Path, database_url: str) -> None:
    async def take(request: web.Request) -> web.Response:
        return web.Response(text="success" if request.path == "/wechat" else "an order")

    env = {"WXAUTH_ISSUER": "https://laptop.test", "WXAUTH_HOST": "0.0.0.0", "WXAUTH_DATABASE_URL": database_url}
    env["WXAUTH_CORS_ORIGINS"] = "https://mine.test"
    async with receiving() as shop:
        shop.usual, own = take, shop.url.removesuffix("/hook")
        with running_dev(tmp_path, "--shop", f"{own}/", "--allow-host", "WXAUTH:8000", **env) as dev:
            for url, path in ((dev.url, "/livez"), (dev.wechat_url, "/desk/setup"), (dev.site_url, "/")):
                for name in ("wxauth", "laptop.test", "192.168.1.7"):  # dev listens on every address
                    assert status_by_name(url, path, name) == 200, (url, name)
                assert status_by_name(url, path, "evil.test") == 403
            assert allowed_origin(dev, "https://mine.test") == "https://mine.test"
            async with httpx.AsyncClient(base_url=dev.wechat_url, trust_env=False, verify=False) as desk:
                assert (await desk.get("/desk/setup")).json()["shop_url"] == own
                ordered = await desk.post("/desk/request", headers={"X-Phone-Url": f"{own}/orders"})
                pushed = await desk.post("/push", json={"person": "alice", "event": "subscribe_msg_popup_event"})
    assert (ordered.text, pushed.json()["is_taken"]) == ("an order", True)


@pytest.mark.process
def test_a_host_that_can_be_no_name_is_refused_at_the_start(tmp_path: Path) -> None:
    done = run("dev", "--allow-host", "http://laptop.test/", cwd=tmp_path)
    assert (done.returncode, "--allow-host must be a host name" in done.stderr) == (2, True)


@pytest.mark.process
def test_a_browser_is_led_to_the_page(dev: Dev) -> None:
    browser = httpx.get(dev.wechat_url, headers={"Accept": "text/html,*/*;q=0.8"}, verify=False)
    assert browser.headers["location"] == "/desk/"
    assert httpx.get(f"{dev.wechat_url}/desk", verify=False).headers["location"] == "/desk/"
    other_name = dev.wechat_url.replace("127.0.0.1", "localhost")
    assert httpx.get(f"{other_name}/desk/", verify=False).headers["location"] == f"{dev.wechat_url}/desk/"


@pytest.mark.process
def test_the_page_takes_nothing_from_elsewhere_and_only_its_own_files(dev: Dev) -> None:
    page = httpx.get(f"{dev.wechat_url}/desk/", verify=False)
    policy = dict(directive.split(" ", 1) for directive in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["connect-src"] == "'self' blob:"
    assert policy["img-src"] == f"'self' blob: data: {dev.url}"
    assert not re.search(r"<script(?! type=\"module\" src=)|<style|\son\w+=|style=", page.text)
    for name in ("none.js", "..%2fdesk.py", "%2e%2e/desk.py"):
        assert httpx.get(f"{dev.wechat_url}/desk/{name}", verify=False).status_code == 404, name


# Failures that the page describes.


@pytest.mark.slow
@pytest.mark.parametrize("api", offered_faults())
@pytest.mark.usefixtures("simulated")
async def test_each_failure_is_the_one_that_the_page_announces(stage: Stage, api: Api) -> None:
    said, got = {}, {}
    for known in offered_faults(failure_on_the_phone)[api]:
        stage = await stage.replica(wechat_timeout=1, timeouts=HURRIED)  # this replica has no access token yet
        stage.clock.advance(days=1)  # WeChat limits how often a new access token can be forced
        login = await stage.login()
        fault = {**known["fault"], "slow": 0.05} if "slow" in known["fault"] else known["fault"]
        stage.simulator.fail(api, times=1 if known["failure"] is None else None, **fault)
        if api == "code2session":
            answer = await stage.login.ask()
        else:
            answer = await stage.bind(login, stage.phone_code())
        stage.simulator.faults.clear()
        failure, name = known["failure"], str(known["fault"])
        said[name] = failure and (failure["status"], failure["code"], failure["title"]["en"])
        body = answer.json()
        got[name] = None if answer.status_code == 200 else (answer.status_code, body["code"], body["title"])
    assert got == said


def test_no_fault_of_a_phone_number_names_the_code_of_a_login() -> None:
    meanings = [fault["meaning"] for fault in offered_faults()["getuserphonenumber"]]
    assert [text for texts in meanings for text in texts.values() if "wx.login" in text] == []


# The recorded requests.


async def test_the_wires_show_requests_without_their_secrets() -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_simulator()), base_url="http://wechat.test"
    ) as wechat:
        right = {"appid": APPS[0]["app_id"], "secret": APPS[0]["app_secret"]}
        login = {**right, "js_code": "alice", "grant_type": "authorization_code"}
        session = (await wechat.get("/sns/jscode2session", params=login)).json()
        stable = {**right, "grant_type": "client_credential"}
        token = (await wechat.post("/cgi-bin/stable_token", json=stable)).json()["access_token"]
        answer = await wechat.get("/desk/wires/0")
        first, second = answer.json()["calls"]
        assert (first["method"], first["path"], first["status"]) == ("GET", "/sns/jscode2session", 200)
        assert first["query"] == {**login, "secret": "•••"}
        assert first["answer"] == {**session, "session_key": "•••"}
        assert second["body"] == {**stable, "secret": "•••"}
        for secret in (APPS[0]["app_secret"], session["session_key"], token):
            assert secret not in answer.text
        assert (await wechat.get(f"/desk/wires/{answer.json()['revision']}")).json()["calls"] == []


@pytest.mark.parametrize("code", ["drop", "hang"])
def test_a_missing_answer_is_not_shown_as_an_answer(code: str) -> None:
    with serving(create_simulator()) as url, httpx.Client(base_url=url, verify=False) as wechat:
        with pytest.raises(httpx.TransportError):
            wechat.get("/sns/jscode2session", params={"appid": APPS[0]["app_id"], "js_code": code}, timeout=0.2)
        until(lambda: wechat.get("/desk/wires/0").json()["calls"][0]["ms"] is not None)
        [call] = wechat.get("/desk/wires/0").json()["calls"]
        assert (call["status"], call["answer"]) == (None, None)


@pytest.mark.parametrize("seconds", [0, 0.3])
@pytest.mark.process
async def test_a_browser_on_the_desk_sends_a_callback_twice_if_configured(seconds: float) -> None:
    async with Upstream(answer(b"ok", headers="Connection: close\r\n")) as site:
        back = f"{site.url}/v1/authorize/wechat"
        with serving(create_simulator()) as url:
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                app_id = ACCOUNT["app_id"]
                visitor = {"person": "张三", "app_id": app_id, "follows": True, "comes_twice": seconds}
                assert (await client.post("/visitors", json=visitor)).status_code == 200
                asked = {"appid": app_id, "redirect_uri": back, "response_type": "code", "scope": "snsapi_userinfo"}
                page = f"{url}/connect/oauth2/authorize?{urlencode({**asked, 'state': 'a1'})}"
                wanted = {"person": "张三", "url": page, "user_agent": "MicroMessenger", "browser": "wechat"}
                shown = (await client.post("/desk/web-view", json=wanted)).json()
    assert (shown["status"], shown["html"]) == (200, "ok")
    first, second = site.requests
    assert first == second
    assert first.startswith("/v1/authorize/wechat?code=")


async def test_a_browser_on_the_desk_follows_ten_redirects_and_no_eleventh() -> None:
    shown = {}
    for redirects in (10, 11):
        steps = [answer(b"", status="302 Found", headers="Location: /\r\n")] * redirects
        transport = httpx.ASGITransport(create_simulator())
        async with (
            Upstream(*steps, answer(b"the page")) as site,
            httpx.AsyncClient(transport=transport, base_url="http://wechat.test") as client,
        ):
            wanted = {"person": "alice", "url": f"{site.url}/", "user_agent": "MicroMessenger"}
            page = (await client.post("/desk/web-view", json=wanted)).json()
        assert len(site.requests) == 11
        shown[redirects] = page.get("html") or page["error"]
    assert shown == {10: "the page", 11: "url: TooManyRedirects"}


@swept("url", ["http://example.com/", "https://127.0.0.1/", "file:///etc/hostname", "no URL", ""])
async def test_the_web_view_opens_pages_of_this_machine_alone(url: str) -> None:
    transport = httpx.ASGITransport(create_simulator())
    async with httpx.AsyncClient(transport=transport, base_url="http://wechat.test") as client:
        wanted = {"person": "alice", "url": url, "user_agent": "MicroMessenger"}
        answer = await client.post("/desk/web-view", json=wanted)
    assert answer.status_code == 422
    assert "is not this machine" in answer.json()["error"] or url in ("no URL", "")


# The guides of the clone.


@asynccontextmanager
async def desk() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_simulator())
    async with httpx.AsyncClient(transport=transport, base_url="http://wechat.test") as client:
        yield client


async def test_the_links_of_each_guide_on_the_desk_lead_to_a_heading_or_a_page() -> None:
    async with desk() as client:
        indexes = (await client.get("/desk/setup")).json()["guides"]
        assert [*indexes] == ["en", "zh-CN"]
        pages: dict[str, str] = {}
        links = {(index, "") for index in indexes.values()}
        while new := {path for path, _ in links} - pages.keys():
            for path in new:
                answer = await client.get(path)
                assert answer.status_code == 200, path
                pages[path] = answer.text if path.endswith(".md") else ""
                for link in re.findall(r'(?:href|src)="([^"]+)"', pages[path]):
                    url = urljoin(path, link)
                    if not url.startswith(("https:", "/desk/base.css", "/desk/guides.css", "/desk/icon.svg", "http:")):
                        links.add(tuple(url.partition("#")[::2]))
    assert [link for link in links if link[1] and f'id="{unquote(link[1])}"' not in pages[link[0]]] == []
    assert len([path for path in pages if path.startswith("/desk/guides/docs/zh/")]) > 50
    english, chinese = (pages[index] for index in indexes.values())
    assert ('<html lang="en">' in english, '<html lang="zh-CN">' in chinese) == (True, True)


@swept(
    "path",
    ["pyproject.toml", ".git/HEAD.md", ".github/x.md", "docs", "docs/none.md", "docs/%2e%2e/%2e%2e/x.md", "%00.md"],
)
async def test_the_desk_sends_no_other_file_of_the_clone(path: str) -> None:
    async with desk() as client:
        answer = await client.get(f"/desk/guides/{path}")
    assert answer.status_code == 404
