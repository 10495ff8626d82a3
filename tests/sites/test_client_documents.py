"""Clients that aren't registered can ask for a resource. Their ids are URLs of documents at allowed hosts."""

import asyncio
from pathlib import Path
from runpy import run_path
from typing import Any

import httpx
import httpx2
import pytest
from jose.jwt import get_unverified_claims
from mcp.shared.auth import AuthorizationCodeResult

from tests.certificates import Authority
from tests.docs import ROOT
from tests.forward_proxy import ForwardProxy
from tests.problems import problem_of
from tests.sites.agents import AGENT, ASKING, BACK, DOCUMENT, HOST, Host
from tests.sites.browsers import House, Tab, refused, sent
from tests.sites.protected import MCP, ORDERS, RESOURCES
from tests.sweeps import swept
from tests.upstream import Behaviour, Upstream, answer, endless, hang, raw
from tests.world import Body, MakeServices, Site, add_client, bearer, body_of, until
from wxauth.clients.documents import ClientDocuments
from wxauth.core.services import Services
from wxauth.housekeeping.housekeeping import replace_sessions
from wxauth.keys.keyring import KeyRing
from wxauth.outbound.receivers import ReceiverTransport
from wxauth.outbound.urls import NameResolver
from wxauth.service.app import create_app
from wxauth.settings.apps import MAX_OPEN_SESSIONS

pytestmark = pytest.mark.settings(resources=RESOURCES, client_documents=HOST, scan_link="scheme", claims={"tier": "x"})


@pytest.fixture
def host(services: Services) -> Host:
    host = Host()
    services[ClientDocuments].transport = host
    return host


@pytest.fixture
def agent(house: House, host: Host) -> Site:
    return Site(house.stage.client, AGENT, None)


async def asked(house: House, agent: Site, **parameters: Any) -> Body:
    """Return the tokens that the agent gets."""
    tab = await house.browser.show(**{**ASKING, **parameters})
    code = (await tab.approved_by(house.phone, to=BACK))["code"]
    return body_of(await house.redeem(code, agent, redirect_uri=BACK))


async def test_a_mini_program_is_told_that_the_document_of_a_client_is_wrong(house: House, host: Host) -> None:
    refusal = problem_of(await house.answer(client_id=f"https://{HOST}/no-document"), "invalid_request", 422)
    message = "must be the URL of a valid metadata document at an allowed host"
    assert refusal["errors"] == [{"field": "client_id", "message": message}]


async def test_the_person_sees_the_host_and_the_agent_gets_a_token_that_names_nobody(house: House, agent: Site) -> None:
    await house.stage.rows.execute("UPDATE users SET external_id = '10023', roles = '{editor}'")
    tab = await house.browser.show(**{**ASKING, "scope": "openid profile phone roles offline_access orders:read"})
    for shown in (
        "Allow access for claude.test?",
        "This program calls itself “Claude”.",
        "<li>查看你的订单</li>",
        "your name and picture",
    ):
        assert shown in tab.html, shown
    claimed = await tab.decided_by(house.phone)
    origin = f"https://{HOST}"
    assert claimed["client"] == {"id": AGENT, "title": "Claude", "origin": origin, "host": HOST, "local": False}
    assert claimed["resource"]["scopes"][1:] == ORDERS[:1]
    code = sent(await tab.go_on(), to=BACK)["code"]
    tokens = body_of(await house.redeem(code, agent, redirect_uri=BACK, resource=MCP))
    claims = get_unverified_claims(tokens["access_token"])
    assert claims.keys() == {"iss", "sub", "aud", "exp", "iat", "jti", "client_id", "sid", "scope", "auth_time"}
    assert (claims["client_id"], claims["aud"]) == (AGENT, MCP)
    assert claims["scope"] == "openid profile offline_access orders:read"
    assert (await house.claims(tokens, AGENT))["sub"] == house.phone.user_id

    passed = await house.stage.client.get(f"/v1/verify?resource={MCP}", headers=bearer(tokens))
    headers = [passed.headers[f"x-auth-{name}"] for name in ("user-id", "openid", "app-id", "roles", "scope")]
    assert headers == [house.phone.user_id, "", "", "", claims["scope"]]
    service = await add_client(house.stage.services.database, "mcp", resources=[MCP], now=house.stage.clock())
    told = await house.stage.client.post("/v1/introspect", data={"token": tokens["access_token"]}, auth=service)
    assert body_of(told).keys() - claims.keys() == {"active", "token_type"}
    session = body_of(await house.phone.ask("GET", "/sessions"))["items"][0]
    assert session["client"] == {"title": "Claude", "host": HOST}
    tokens = body_of(await agent.refresh(tokens))
    assert (await agent.post("/v1/revoke", token=tokens["access_token"])).status_code == 200
    refused(await agent.refresh(tokens), "invalid_grant")


async def test_an_official_client_is_known_by_its_document(house: House, host: Host) -> None:
    class Page:
        """The agent's own page, to which the browser is sent."""

        redirect_uri = BACK

        async def open(self, url: str) -> None:
            tab = Tab(house.browser, (await house.browser.client.get(url)).text)
            self.query = await tab.approved_by(house.phone, to=BACK)

        async def code(self) -> AuthorizationCodeResult:
            return AuthorizationCodeResult(**self.query)

    async def service(request: httpx2.Request) -> httpx2.Response:
        """Respond as the MCP server and as wxauth."""
        if request.url.host == "mcp.test":
            if request.url.path != "/mcp":
                return httpx2.Response(200, json={"resource": MCP, "authorization_servers": ["https://auth.test"]})
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            passed = await house.stage.client.get("/v1/verify", params={"resource": MCP}, headers=bearer(token))
            return httpx2.Response(passed.status_code)
        answered = await house.stage.client.request(
            request.method, str(request.url), content=await request.aread(), headers=dict(request.headers)
        )
        return httpx2.Response(answered.status_code, content=answered.content)

    auth = run_path(str(ROOT / "examples/mcp/client.py"))["provider"](MCP, AGENT, None, Page())
    async with httpx2.AsyncClient(auth=auth, transport=httpx2.MockTransport(service)) as agent:
        assert (await agent.post(MCP)).status_code == 200
        first = auth.context.current_tokens.access_token
        auth.context.token_expiry_time = 1.0
        assert (await agent.post(MCP)).status_code == 200
    assert auth.context.current_tokens.access_token != first
    assert get_unverified_claims(first)["client_id"] == AGENT
    assert host.asked == [AGENT]


@swept(
    ("parameters", "error"),
    [
        ({"resource": None}, "invalid_target"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"scope": "phone roles"}, "invalid_scope"),
        ({"prompt": "none"}, "consent_required"),
    ],
)
async def test_such_a_client_is_public(house: House, agent: Site, parameters: Body, error: str) -> None:
    assert sent(await house.browser.open(**{**ASKING, **parameters}), to=BACK)["error"] == error
    refused(await agent.post("/v1/device_authorization", resource=MCP), "unauthorized_client")


@swept("scope", ["offline_access", "openid", "openid profile offline_access", "profile", None])
async def test_an_agent_that_knows_no_scope_of_the_service_gets_all(house: House, agent: Site, scope: str) -> None:
    house.stage.clock.advance(minutes=1)
    house.stage.services[ClientDocuments].transport = Host()
    assert (await asked(house, agent, scope=scope))["scope"] == "orders:read orders:write"


async def test_a_program_on_loopback_is_said_to_be_local_at_any_port(house: House, agent: Site) -> None:
    for uri in ("http://localhost:5173/cb", "http://127.0.0.1:8080/cb"):
        tab = await house.browser.show(**{**ASKING, "redirect_uri": uri})
        assert "The program on this computer calls itself “Claude”." in tab.html
        assert (await tab.claimed_by(house.phone))["client"]["local"] is True
    for wrong in (
        "http://localhost:5173/other",
        "https://localhost/cb",
        "http://[::1]/cb",
        f"{BACK}/",
        "http://a.test",
    ):
        assert (await house.browser.open(**{**ASKING, "redirect_uri": wrong})).status_code == 400, wrong


async def refused_page(house: House) -> str:
    """Return the logged reason why the agent's page was refused."""
    page = await house.browser.open(**ASKING)
    assert (page.status_code, page.headers["content-type"]) == (400, "text/html; charset=utf-8")
    assert HOST in page.text
    assert "Claude" not in page.text
    assert "location" not in page.headers
    line = house.stage.logged("client_document_refused")[-1]
    assert line["host"] == HOST
    return str(line["reason"])


ONLY_KEYS = {"token_endpoint_auth_methods_supported": ["private_key_jwt"]}
GOOD = {**DOCUMENT, "client_name": "\u202eC\u200dl\u2066au\ufe0fde\u0007\n", "redirect_uris": [BACK] * 20}


@swept(
    ("change", "reason"),
    [
        ({"client_id": f"{AGENT}/"}, "client_id"),
        ({"client_name": None}, "client_name"),
        ({"client_name": "\u202e\n"}, "client_name"),
        *(({"client_name": each}, "client_name") for each in "\u115f\u2800\u3164\ufe0f\U000e0100\u0301\uf8ff\ufff0"),
        ({"client_name": "x" * 65}, "client_name"),
        ({"redirect_uris": []}, "redirect_uris"),
        ({"redirect_uris": [BACK] * 21}, "redirect_uris"),
        ({"redirect_uris": ["http://claude.test/", None, 1, f"{BACK}#a", "x" * 5000]}, "redirect_uris"),
        ({"redirect_uris": ["cursor://callback"]}, "redirect_uris"),
        ({"redirect_uris": BACK}, "redirect_uris"),
        ({"token_endpoint_auth_method": "client_secret_post"}, "token_endpoint_auth_method"),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "token_endpoint_auth_method"),
        ({"token_endpoint_auth_method": None, **ONLY_KEYS}, "token_endpoint_auth_method"),
        ({"token_endpoint_auth_method": None, "token_endpoint_auth_methods_supported": "none"}, "auth_method"),
        ({"token_endpoint_auth_method": None, "token_endpoint_auth_methods_supported": []}, "auth_method"),
        ({"grant_types": ["implicit"]}, "grant_types"),
        ({"response_types": ["token"]}, "response_types"),
        ({"client_secret": "x"}, "client_secret"),
    ],
)
@pytest.mark.requirement("document-rules")
async def test_a_document_that_breaks_a_rule_is_refused_in_words(house: House, change: Body, reason: str) -> None:
    host = house.stage.services[ClientDocuments].transport = Host()
    house.stage.clock.advance(minutes=6)  # the document of the previous case is no longer in the cache
    host.documents[AGENT] = {**DOCUMENT, **change}
    assert reason in await refused_page(house)
    assert await refused_page(house)  # wxauth keeps the refusal for a minute
    assert len(host.asked) == 1
    house.stage.clock.advance(minutes=2)
    host.documents[AGENT] = GOOD
    assert "This program calls itself “Claude”." in (await house.browser.show(**ASKING)).html


async def test_a_page_of_refusal_is_in_chinese_too(house: House, host: Host) -> None:
    host.documents[AGENT] = []
    page = await house.browser.open(**ASKING, ui_locales="zh-CN")
    assert "<h1>无法继续登录</h1>" in page.text
    assert 'wxauth_client_documents_total{outcome="refused"} 1.0' in await house.metrics()


@swept(
    "client_id",
    [
        *(
            f"https://{HOST}{path}"
            for path in ("", "/", "/a?b", "/a#b", "/a/../b", "/a/%2E%2e/b", "/./a", "/" + "a" * 600)
        ),
        *(
            f"https://{other}/a"
            for other in (f"{HOST}:443", f"u@{HOST}", "Claude.test", f"a.{HOST}", "xn--cludE-r3a.test")
        ),
    ],
)
async def test_other_urls_are_no_clients_and_nobody_is_asked(house: House, client_id: str) -> None:
    host = house.stage.services[ClientDocuments].transport = Host()
    page = await house.browser.open(**{**ASKING, "client_id": client_id})
    assert (page.status_code, host.asked) == (400, [])
    assert "WXAUTH_CLIENT_DOCUMENTS" in str(house.warnings()[-1])
    refused(await house.stage.client.post("/v1/token", data={"client_id": client_id}), "invalid_client", 401)


@pytest.mark.parametrize(
    ("behave", "outcome"),
    [
        (hang, "failed"),
        (endless(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", b" " * 4096), "refused"),
        (answer(b"", status="302 Found", headers="Location: https://127.0.0.1/\r\n"), "failed"),
        (answer(DOCUMENT, headers="Content-Type: text/html\r\n"), "refused"),
        (answer(DOCUMENT, headers="Content-Type: application/json\r\nContent-Encoding: gzip\r\n"), "refused"),
        (raw(b"SSH-2.0-OpenSSH\r\n"), "refused"),
        (None, "refused"),
    ],
    ids=["hangs", "grows", "redirects", "lies", "is packed", "is no HTTP", "leads inside"],
)
@pytest.mark.requirement("document-ssrf")
async def test_a_host_that_misbehaves_is_refused_in_time(
    house: House, tmp_path: Path, behave: Behaviour | None, outcome: str
) -> None:
    authority = Authority(tmp_path)
    async with Upstream(behave or hang, tls=authority.server("127.0.0.1")) as upstream:
        place = f"127.0.0.1:{upstream.port}" if behave else "169.254.169.254"
        services = await house.stage.make_services(client_documents=place)
        documents = services[ClientDocuments]
        documents.patience = 0.5
        documents.transport = ReceiverTransport(resolve=NameResolver().resolve, tls=authority.trusted())
        client = house.stage.make_client(services)
        page = await client.get("/v1/authorize", params={**ASKING, "client_id": f"https://{place}/a", "scope": ""})
        assert page.status_code == 400
        assert upstream.requests == (["/a"] if behave else [])
        lines = (await client.get("/metrics")).text
        assert f'wxauth_client_documents_total{{outcome="{outcome}"}} 1.0' in lines


async def test_a_real_document_is_read_over_tls(house: House, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    document = {**DOCUMENT}
    headers = "Content-Type: application/cimd+json; charset=utf-8\r\nCache-Control: max-age=1000\r\n"
    async with Upstream(
        lambda writer: answer(document, headers=headers)(writer), tls=authority.server("127.0.0.1")
    ) as it:
        place = f"127.0.0.1:{it.port}"
        document["client_id"] = f"https://{place}/a"
        services = await house.stage.make_services(client_documents=place)
        services[ClientDocuments].transport = ReceiverTransport(resolve=NameResolver().resolve, tls=authority.trusted())
        client = house.stage.make_client(services)
        asking = {**ASKING, "client_id": document["client_id"], "scope": "", "response_type": "code"}
        for _ in range(2):
            page = await client.get("/v1/authorize", params=asking)
            assert sent(page, to=BACK)["error"] == "invalid_request"  # the request lacks PKCE
        house.stage.clock.advance(seconds=1001)
        await client.get("/v1/authorize", params=asking)
        assert it.requests == ["/a", "/a"]


@pytest.mark.parametrize("by_proxy", [False, True])
@pytest.mark.requirement("document-ssrf")
async def test_a_document_is_fetched_through_the_proxy_only_if_the_settings_say_so(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, by_proxy: bool
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    headers = "Content-Type: application/json\r\n"
    async with (
        Upstream(answer(DOCUMENT, headers=headers), tls=authority.server(HOST)) as upstream,
        ForwardProxy(hosts={HOST: "127.0.0.1"}) as proxy,
    ):
        place = f"{HOST}:{upstream.port}"
        client = await house.stage.make(
            client_documents=place, receivers_proxy=proxy.url, receivers_proxy_documents=by_proxy
        )
        await client.get("/v1/authorize", params={**ASKING, "client_id": f"https://{place}/a"})
        assert [head.split()[1] for head in proxy.heads] == ([place] if by_proxy else [])
        assert upstream.requests == (["/a"] if by_proxy else [])


@swept(
    ("cache_control", "seconds"),
    [
        (None, 300),
        ("no-store", 300),
        ("no-store, max-age=7200", 300),
        ("max-age=5", 300),
        ("public, max-age=7200", 7200),
        ("s-maxage=9, max-age=999999", 86400),
    ],
)
async def test_a_document_is_kept_as_its_host_says(house: House, cache_control: str | None, seconds: int) -> None:
    host = house.stage.services[ClientDocuments].transport = Host(cache_control=cache_control)
    house.stage.clock.advance(days=3)
    await house.browser.show(**ASKING)
    house.stage.clock.advance(seconds=seconds - 1)
    await house.browser.show(**ASKING)
    assert len(host.asked) == 1
    house.stage.clock.advance(seconds=1)
    await house.browser.show(**ASKING)
    assert len(host.asked) == 2


async def test_one_that_was_good_is_used_for_a_day_while_its_host_is_away(house: House, host: Host) -> None:
    await house.browser.show(**ASKING)
    for away in (503, httpx.ConnectError("could not connect")):
        host.documents[AGENT] = away
        house.stage.clock.advance(minutes=5)
        before = len(host.asked)
        for _ in range(3):
            await house.browser.show(**ASKING)
        assert len(host.asked) == before + 1
        house.stage.clock.advance(minutes=1)
        await house.browser.show(**ASKING)
        assert len(host.asked) == before + 2
    house.stage.clock.advance(days=1)
    assert "could not connect" in await refused_page(house)


async def test_a_document_is_fetched_by_one_request_at_a_time_and_keeps_nobody_else(house: House, host: Host) -> None:
    host.may_answer = asyncio.Event()
    waiting = [asyncio.create_task(house.another_browser().show(**ASKING)) for _ in range(3)]
    await until(lambda: host.asked)
    await house.browser.show()  # the shop's login doesn't wait for the agent's document
    host.may_answer.set()
    await asyncio.gather(*waiting)
    assert host.asked == [AGENT]


async def test_junk_that_is_refused_meanwhile_keeps_no_good_client_out(house: House, host: Host) -> None:
    host.may_answer = asyncio.Event()
    asking = asyncio.create_task(house.browser.show(**ASKING))
    await until(lambda: host.asked)
    slow, host.may_answer = host.may_answer, None
    assert (await house.another_browser().open(**{**ASKING, "client_id": f"{AGENT}/junk"})).status_code == 400
    slow.set()
    assert HOST in (await asking).html


def at(services: Services, address: str) -> httpx.AsyncClient:
    """Return a browser at this address."""
    transport = httpx.ASGITransport(create_app(services), client=(address, 50000))
    return httpx.AsyncClient(transport=transport, base_url="https://auth.test")


async def statuses(client: httpx.AsyncClient, *names: object) -> list[int]:
    ids = [f"{AGENT}/{name}" for name in names]
    return [
        (await client.get("/v1/authorize", params={**ASKING, "client_id": it, "scope": ""})).status_code for it in ids
    ]


async def test_a_stranger_who_wastes_documents_shuts_nobody_out(house: House, services: Services, host: Host) -> None:
    async with at(services, "203.0.113.9") as stranger, at(services, "203.0.113.10") as other:
        assert await statuses(stranger, *range(31)) == [400] * 10 + [429] * 21
        host.documents[f"{AGENT}/good"] = {**DOCUMENT, "client_id": f"{AGENT}/good"}
        assert await statuses(other, "good") == [303]
        assert await statuses(stranger, "good") == [303], "it is known by now"
        house.stage.clock.advance(seconds=10)
        late = await stranger.get("/v1/authorize", params={**ASKING, "client_id": f"{AGENT}/late"})
        assert late.headers["retry-after"] == "50"
        assert "Too many attempts" in late.text


async def test_all_addresses_of_a_wide_network_waste_as_many_documents_as_one(
    house: House, services: Services, host: Host
) -> None:
    for subscriber in range(3):
        async with at(services, f"2001:db8:7:{subscriber}::1") as stranger:
            answered = await statuses(stranger, *(f"{subscriber}-{number}" for number in range(10)))
            assert answered == [429 if subscriber else 400] * 10
    host.documents[f"{AGENT}/good"] = {**DOCUMENT, "client_id": f"{AGENT}/good"}
    async with at(services, "2001:db8:8::1") as other:
        assert await statuses(other, "good") == [303]


async def test_junk_keeps_no_good_client_out(house: House, agent: Site, host: Host) -> None:
    await asked(house, agent)
    replica = await house.stage.make_services()  # this replica hasn't read the document yet
    replica[ClientDocuments].transport = host
    for network in range(4):
        async with at(replica, f"203.0.113.{network}") as stranger:
            answered = await statuses(stranger, *(f"{network}-{number}" for number in range(10)))
            assert answered == [400 if network < 3 else 429] * 10
    client = house.stage.make_client(replica)
    assert (await client.get("/v1/authorize", params={**ASKING, "scope": ""})).status_code == 303


@pytest.mark.parametrize(
    ("now", "reason", "outcome"),
    [(404, "404", "failed"), (410, "410", "failed"), ({**DOCUMENT, "client_secret": "x"}, "client_secret", "refused")],
)
async def test_one_that_is_gone_or_breaks_a_rule_is_gone_at_once(
    house: House, host: Host, now: Any, reason: str, outcome: str
) -> None:
    await house.browser.show(**ASKING)
    host.documents[AGENT] = now
    house.stage.clock.advance(minutes=5)
    assert reason in await refused_page(house)
    assert f'wxauth_client_documents_total{{outcome="{outcome}"}} 1.0' in await house.metrics()


async def test_times_of_a_wrong_clock_are_no_times_of_a_document(house: House, host: Host) -> None:
    house.stage.clock.advance(days=3)
    await house.browser.show(**ASKING)
    house.stage.clock.advance(days=-3)
    host.documents[AGENT] = 503
    assert "503" in await refused_page(house)
    house.stage.clock.advance(days=3, minutes=2)
    assert "503" in await refused_page(house)
    house.stage.clock.advance(days=-3, minutes=-2)
    host.documents[AGENT] = DOCUMENT
    await house.browser.show(**ASKING)


async def test_the_code_is_for_what_was_asked_whatever_the_document_says_by_then(house: House, agent: Site) -> None:
    host = house.stage.services[ClientDocuments].transport
    assert isinstance(host, Host)
    tab = await house.browser.show(**ASKING)
    host.documents[AGENT] = {**DOCUMENT, "client_name": "Another", "redirect_uris": ["https://evil.test/"]}
    house.stage.clock.advance(minutes=2)
    assert (await tab.decided_by(house.phone))["client"]["title"] == "Claude"
    code = sent(await tab.go_on(), to=BACK)["code"]
    refused(await house.redeem(code, agent, redirect_uri="https://evil.test/"), "invalid_grant")
    other = Site(house.stage.client, f"{AGENT}/other", None)
    refused(await house.redeem(code, other, redirect_uri=BACK), "invalid_grant")
    assert (await house.redeem(code, agent, redirect_uri=BACK)).status_code == 200


@pytest.mark.parametrize("now", [404, {**DOCUMENT, "client_secret": "x"}])
async def test_a_code_is_refused_if_the_document_is_gone_or_breaks_a_rule_by_then(
    house: House, agent: Site, host: Host, now: Any
) -> None:
    await house.browser.show(**ASKING)
    house.stage.clock.advance(minutes=4, seconds=30)
    code = (await (await house.browser.show(**ASKING)).approved_by(house.phone, to=BACK))["code"]
    host.documents[AGENT] = now
    house.stage.clock.advance(seconds=31)
    refused(await house.redeem(code, agent, redirect_uri=BACK), "invalid_grant")


async def test_a_host_that_leaves_the_list_has_no_clients_any_more(house: House, agent: Site) -> None:
    tokens, tab = await asked(house, agent), await house.browser.show(**ASKING)
    code = (await tab.approved_by(house.phone, to=BACK))["code"]
    for hosts in ("chatgpt.test", ()):
        at = Site(await house.stage.make(client_documents=hosts), AGENT, None)
        refused(await at.refresh(tokens), "invalid_client", 401)
        refused(await house.redeem(code, at, redirect_uri=BACK), "invalid_client", 401)
        refused(await at.post("/v1/revoke", token=tokens["access_token"]), "invalid_client", 401)
    assert (await agent.refresh(tokens)).status_code == 200


MORE = """
INSERT INTO sessions (id, user_id, app_id, openid, created_at, last_used_at, expires_at, client_id, scope, resource)
SELECT overlay(id::text PLACING lpad(to_hex(n), 12, '0') FROM 25)::uuid, user_id, app_id, openid, created_at,
       last_used_at, expires_at, client_id || '/' || n, scope, resource
  FROM sessions, generate_series(1, 1000) n WHERE client_id = $1
"""


async def test_a_thousand_agents_of_a_person_keep_a_hundred_sessions_with_the_phones(house: House, agent: Site) -> None:
    tokens = await asked(house, agent)
    await house.stage.rows.execute(MORE, AGENT)
    house.stage.clock.advance(seconds=75)
    await replace_sessions(house.stage.services)
    assert await house.stage.number("sessions WHERE revoked_at IS NULL") == MAX_OPEN_SESSIONS
    assert (await agent.refresh(tokens)).status_code == 200


ORIGIN = "https://inspector.test"
PATHS = ("/v1/token", "/v1/revoke", "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")


async def test_every_origin_may_ask_where_documents_are_allowed(house: House, host: Host) -> None:
    without = await house.stage.make(client_documents=())
    preflight = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    for path in PATHS:
        for client, is_admitted in ((house.stage.client, True), (without, False)):
            answered = await client.options(path, headers=preflight)
            assert (answered.headers.get("access-control-allow-origin") == ORIGIN) is is_admitted, path
            assert "access-control-allow-credentials" not in answered.headers
            assert not is_admitted or "MCP-Protocol-Version" in answered.headers["access-control-allow-headers"]
    for path in ("/v1/userinfo", "/v1/me"):
        answered = await house.stage.client.get(path, headers={"Origin": ORIGIN})
        assert "access-control-allow-origin" not in answered.headers
    document = body_of(await house.stage.client.get(PATHS[2], headers={"Origin": ORIGIN}))
    assert document["client_id_metadata_document_supported"] is True


@pytest.mark.no_signing_key
async def test_there_are_keys_of_id_tokens_without_any_site(make_services: MakeServices) -> None:
    services = await make_services()
    assert (await services[KeyRing].id_token_key("RS256", services.clock())).kid
