"""Each server in `examples/mcp` works with each agent.

They use the official MCP SDKs and an authority that approves at once.
"""

import asyncio
import json
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from runpy import run_path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from mcp.shared.auth import AuthorizationCodeResult
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.docs import ROOT
from tests.fakes import service_env
from tests.foreign.conftest import Issuer
from tests.processes import Running, free_port, run, until
from tests.programs import needs_node
from tests.serving import serving
from tests.world import bearer
from wxauth_guard import BearerGuard, BearerMiddleware
from wxauth_guard.testing import TestIssuer

pytestmark = [pytest.mark.process, pytest.mark.node, pytest.mark.slow]

EXAMPLE = ROOT / "examples/mcp"
DOCUMENT = "https://agent.test/client.json"


class Authority:
    """An authorization server that approves agents' requests at once, for all scopes or for fewer.

    An agent can use its first tokens, but should renew them.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        """The queries of its authorization page, and the forms of token requests."""
        self.withheld: set[str] = set()
        """Scopes that the user doesn't grant."""
        routes = [
            Route("/.well-known/oauth-authorization-server", self._metadata),
            Route("/.well-known/jwks.json", self._jwks),
            Route("/authorize", self._authorize),
            Route("/token", self._token, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)

    def at(self, url: str, resource: str, folder: Path) -> None:
        self.issuer, self.resource, self.folder = TestIssuer(url, resource), resource, folder

    def call(self, agent: tuple[str, ...], *call: str, client_id: str = DOCUMENT, **env: str) -> str:
        """Let this agent call a tool, and return the agent's output."""
        self.asked.clear()
        env |= {"RESOURCE": self.resource, "CLIENT_ID": client_id}
        return said_by(agent, *call, cwd=self.folder, approve=follow, **env)

    async def _metadata(self, _: Request) -> Response:
        url = self.issuer.issuer
        document = {
            **self.issuer.metadata,
            "authorization_endpoint": f"{url}/authorize",
            "token_endpoint": f"{url}/token",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            "client_id_metadata_document_supported": True,
        }
        return JSONResponse(document)

    async def _jwks(self, _: Request) -> Response:
        return JSONResponse(self.issuer.jwks)

    async def _authorize(self, request: Request) -> Response:
        query = dict(request.query_params)
        self.asked.append(query)
        answer = {"code": "c", "state": query["state"], "iss": self.issuer.issuer}
        return RedirectResponse(f"{query['redirect_uri']}?{urlencode(answer)}")

    async def _token(self, request: Request) -> Response:
        self.asked.append({name: str(value) for name, value in (await request.form()).items()})
        granted = [scope for scope in self.asked[0]["scope"].split() if scope not in self.withheld]
        token = self.issuer.token(scope=granted, client_id=self.asked[0]["client_id"])
        answer: dict[str, Any] = {"access_token": token, "token_type": "Bearer", "refresh_token": "r"}
        expires_in = 900 if self.asked[-1]["grant_type"] == "refresh_token" else 0
        return JSONResponse({**answer, "expires_in": expires_in, "scope": " ".join(granted)})


def follow(url: str) -> None:
    """Follow the redirect to the agent's own page, as a browser does."""
    httpx.get(url, follow_redirects=True, trust_env=False, verify=False).raise_for_status()


def said_by(agent: tuple[str, ...], *call: str, cwd: Path, approve: Callable[[str], None], **env: str) -> str:
    """Run an agent that calls a tool, approve the page that it opens, and return its output."""
    env |= {"CALLBACK_PORT": str(free_port()), "BROWSER": "true"}
    with Running(*agent, *call, cwd=cwd, env=env) as process:
        url = process.wait_for("on your phone: ").split("on your phone: ")[1].split()[0]
        approve(url)
        until(lambda: process.process.poll() is not None)
        return process.output.partition(url)[2].strip()


SERVERS = {"python": (sys.executable, str(EXAMPLE / "server.py")), "node": ("node", str(EXAMPLE / "node/server.js"))}
AGENTS = {"python": (sys.executable, str(EXAMPLE / "client.py")), "node": ("node", str(EXAMPLE / "node/client.js"))}


@pytest.fixture(scope="module", params=SERVERS)
def authority(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    needs_node(EXAMPLE / "node")
    authority, port, folder = Authority(), str(free_port()), tmp_path_factory.mktemp("mcp")
    resource = f"http://127.0.0.1:{port}/mcp"
    with serving(authority.app) as url:
        authority.at(url, resource, folder)
        env = {"RESOURCE": resource, "WXAUTH_ISSUER": url, "PORT": port}
        with Running(*SERVERS[request.param], cwd=folder, env=env) as server:
            until(lambda: "MCP: " in server.output or "running on" in server.output)
            yield authority


@pytest.fixture(params=AGENTS)
def agent(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return AGENTS[request.param]


def test_an_agent_is_approved_and_uses_tools_for_its_person(authority: Authority, agent: tuple[str, ...]) -> None:
    assert authority.call(agent, "place_order", '{"item": "oolong tea"}') == "ordered: oolong tea"
    page, *forms = authority.asked
    assert (page["client_id"], page["scope"]) == (DOCUMENT, "orders:read orders:write")
    assert {asked["resource"] for asked in authority.asked} == {authority.resource}
    assert forms[0]["grant_type"] == "authorization_code"
    assert all(form["grant_type"] == "refresh_token" for form in forms[1:])
    # Node's agent renews a token only after a request with it has failed
    assert len(forms) > 1 or agent != AGENTS["python"]
    assert "oolong tea" in authority.call(agent, "list_orders", client_id="registered", CLIENT_SECRET="secret")


def test_an_agent_reads_which_scope_it_lacks(authority: Authority) -> None:
    authority.withheld = {"orders:write"}
    said = authority.call(AGENTS["python"], "place_order", '{"item": "tea"}')
    authority.withheld = set()
    assert "this request requires the scope orders:write" in said


def test_a_server_refuses_another_audience_and_says_whom_to_ask(authority: Authority) -> None:
    other = TestIssuer(authority.issuer.issuer, "https://other.test/mcp").token(scope="orders:read")
    metadata = f"{authority.resource.removesuffix('/mcp')}/.well-known/oauth-protected-resource/mcp"
    for headers, error in (({}, ""), ({"Authorization": f"Bearer {other}"}, 'error="invalid_token", ')):
        refused = httpx.post(authority.resource, headers=headers, trust_env=False, verify=False)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == f'Bearer {error}resource_metadata="{metadata}"'
    preflight = httpx.options(metadata, headers={"Origin": "https://a.test"}, trust_env=False, verify=False)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, "*")


@pytest.mark.parametrize("header", [{"Host": "evil.test"}, {"Origin": "https://evil.test"}], ids=["Host", "Origin"])
def test_a_server_refuses_pages_of_other_sites(authority: Authority, header: dict[str, str]) -> None:
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}
    call = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    token = authority.issuer.token(scope="orders:read")
    accepted = {"Accept": "application/json, text/event-stream", **bearer(token)}

    def status(**headers: str) -> int:
        return httpx.post(
            authority.resource, json=call, headers=accepted | headers, trust_env=False, verify=False
        ).status_code

    assert status() == 200
    assert status(**header) in (403, 421)


# A role that a user lacks, and scopes that one service of several needs.


class Page:
    """The agent's own page, for a user who approves everything at once."""

    redirect_uri = "http://127.0.0.1:1/callback"

    async def open(self, url: str) -> None:
        async with httpx.AsyncClient(trust_env=False) as browser:
            self.at = (await browser.get(url)).headers["location"]

    async def code(self) -> AuthorizationCodeResult:
        return AuthorizationCodeResult(**dict(parse_qsl(urlsplit(self.at).query)))


@pytest.mark.parametrize(
    ("roles", "needed", "asked", "calls"),
    [
        (["clerk"], ["orders:read"], "orders:read", 0),
        (["clerk"], [], "orders:read orders:write", 0),
        ([], ["orders:write"], "orders:write", 3),
    ],
)
async def test_a_user_is_asked_once_for_the_needed_scopes_and_never_for_a_role(
    tmp_path: Path, roles: list[str], needed: list[str], asked: str, calls: int
) -> None:
    authority, mcp = Authority(), MCPServer("orders")

    @mcp.tool()
    def refund() -> str:
        return "refunded"

    with serving(authority.app) as url, socket.create_server(("127.0.0.1", 0)) as listener:
        resource = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        authority.at(url, resource, tmp_path)
        guard = BearerGuard(url, resource, scopes=needed)
        app = mcp.streamable_http_app(stateless_http=True, streamable_http_path="/mcp")
        app.routes.append(guard.metadata_route(scopes_supported=["orders:read", "orders:write"]))
        auth = run_path(str(EXAMPLE / "client.py"))["provider"](resource, DOCUMENT, None, Page())

        async def use() -> None:
            async with (
                httpx2.AsyncClient(auth=auth, trust_env=False) as http,
                Client(streamable_http_client(resource, http_client=http)) as client,
            ):
                for _ in range(calls):
                    assert "refunded" in str((await client.call_tool("refund", {})).content)

        with serving(BearerMiddleware(app, guard, roles=roles), at=listener):
            for _ in range(3):
                with nullcontext() if calls else pytest.RaisesGroup(MCPError, flatten_subgroups=True):
                    await use()
    approvals = [each["scope"] for each in authority.asked if "response_type" in each]
    assert approvals == [asked]


# Agents with a real wxauth.


class Phone:
    """Alice's phone, together with the browser whose QR code it scans."""

    def __init__(self, issuer: Issuer) -> None:
        options: dict[str, Any] = {"trust_env": False, "verify": False, "headers": bearer(issuer.token)}
        self.client = httpx.Client(base_url=issuer.url, **options)
        self.shown: dict[str, Any] = {}

    def approve(self, url: str) -> str:
        """Scan the QR code of this page, approve, and return the URL that the browser opens next."""
        page = self.client.get(url).text
        [scene] = set(re.findall(r"/v1/scans/([\w-]{22})/code", page))
        self.shown = self.client.post("/v1/me/scans", json={"scene": scene, "entry_scene": 1047}).json()
        self.client.post(f"/v1/me/scans/{self.shown['id']}/approve", json={"login_code": "alice"}).raise_for_status()
        [link] = set(re.findall(r'href="(/v1/authorize/[\w-]{22}/next)"', page))
        return self.client.get(link).headers["location"]

    @property
    def agents(self) -> list[dict[str, Any]]:
        """The sessions of agents in the phone's list of sessions."""
        return [each for each in self.client.get("/v1/me/sessions").json()["items"] if each["resource"]]


@pytest.fixture
def phone(issuer: Issuer) -> Iterator[Phone]:
    phone = Phone(issuer)
    yield phone
    phone.client.close()


@pytest.fixture(scope="module")
def registered(
    issuer: Issuer, database_of_issuer: str, resources: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The variables that an agent needs, while a server runs at the resource's address."""
    [resource] = [each["resource"] for each in resources]
    folder = tmp_path_factory.mktemp("registered")
    settings = service_env(database_of_issuer, issuer=issuer.url, resources=json.dumps(resources))
    added = ("clients", "add", "agent", "--redirect-uri", "http://127.0.0.1/callback", "--resource", resource, "--json")
    client = json.loads(run(*added, cwd=folder, env=settings).stdout)
    env = {"RESOURCE": resource, "WXAUTH_ISSUER": issuer.url, "PORT": str(urlsplit(resource).port)}
    with Running(*SERVERS["python"], cwd=folder, env=env) as server:
        server.wait_for("running on")
        yield {"CLIENT_ID": "agent", "CLIENT_SECRET": client["client_secret"], "RESOURCE": resource}


def test_an_agent_is_approved_on_the_phone(
    registered: dict[str, str], phone: Phone, agent: tuple[str, ...], tmp_path: Path
) -> None:
    needs_node(EXAMPLE / "node")
    call = ("place_order", '{"item": "tea"}')
    said = said_by(agent, *call, cwd=tmp_path, approve=lambda url: follow(phone.approve(url)), **registered)
    assert said == "ordered: tea"
    assert [scope["title"] for scope in phone.shown["resource"]["scopes"]] == ["查看你的订单", "替你下单、退单"]
    assert phone.shown["client"]["local"] is True


async def test_an_agent_renews_its_token_until_the_phone_ends_it(registered: dict[str, str], phone: Phone) -> None:
    class Page:
        """A page that can be approved once. No server serves the agent's own page."""

        redirect_uri = "http://127.0.0.1:1/callback"
        urls: ClassVar[list[str]] = []

        async def open(self, url: str) -> None:
            self.urls.append(url)
            if len(self.urls) > 1:
                raise ConnectionRefusedError("asked again")  # the user isn't there to approve a second time
            self.at = await asyncio.to_thread(phone.approve, url)

        async def code(self) -> AuthorizationCodeResult:
            return AuthorizationCodeResult(**dict(parse_qsl(urlsplit(self.at).query)))

    before = {each["id"] for each in phone.agents}
    resource, make = registered["RESOURCE"], run_path(str(EXAMPLE / "client.py"))["provider"]
    auth = make(resource, registered["CLIENT_ID"], registered["CLIENT_SECRET"], Page())

    async def use() -> None:
        async with (
            httpx2.AsyncClient(auth=auth, trust_env=False, verify=False) as http,
            Client(streamable_http_client(resource, http_client=http)) as client,
        ):
            await client.call_tool("place_order", {"item": "oolong"})
            first = auth.context.current_tokens.access_token
            auth.context.token_expiry_time = 1.0
            assert "oolong" in str((await client.call_tool("list_orders", {})).content)
            assert auth.context.current_tokens.access_token != first
            [session] = [each for each in phone.agents if each["id"] not in before]
            assert session["resource"] == {"resource": resource, "title": "小店助手"}
            assert session["scopes"] == ["orders:read", "orders:write"]
            phone.client.delete(f"/v1/me/sessions/{session['id']}").raise_for_status()
            auth.context.token_expiry_time = 1.0
            await client.call_tool("list_orders", {})

    with pytest.raises(ExceptionGroup) as refused:
        await use()
    assert refused.group_contains(ConnectionRefusedError, match="asked again")
