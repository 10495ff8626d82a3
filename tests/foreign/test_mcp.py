"""`examples/mcp`: servers and agents with the official SDKs of MCP, each with each, and an authority that approves."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.docs import ROOT
from tests.processes import Running, free_port, until
from tests.programs import needs_node
from tests.serving import serving
from wxauth.testing import TestIssuer

pytestmark = [pytest.mark.process, pytest.mark.node, pytest.mark.slow]

EXAMPLE = ROOT / "examples/mcp"
DOCUMENT = "https://agent.test/client.json"


class Authority:
    """Approves at once what it is asked for, or less. Its first tokens can be used, but should be renewed already."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        """The queries of its pages, and the forms for tokens."""
        self.withheld: set[str] = set()
        """Scopes that the person does not grant."""
        routes = [
            Route("/.well-known/oauth-authorization-server", self._metadata),
            Route("/.well-known/jwks.json", self._jwks),
            Route("/authorize", self._authorize),
            Route("/token", self._token, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)

    def at(self, url: str, resource: str) -> None:
        self.issuer = TestIssuer(url, resource)

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


class Town:
    """An authority, a server of MCP, and agents that call its tools."""

    def __init__(self, authority: Authority, resource: str, folder: Path) -> None:
        self.authority, self.resource, self.folder = authority, resource, folder

    def call(self, agent: tuple[str, ...], *call: str, client_id: str = DOCUMENT, **env: str) -> str:
        """What an agent prints of a tool, once the browser has followed the authority to it."""
        self.authority.asked.clear()
        port = str(free_port())
        env |= {"RESOURCE": self.resource, "CLIENT_ID": client_id, "CALLBACK_PORT": port, "BROWSER": "true"}
        with Running(*agent, *call, cwd=self.folder, env=env) as process:
            said = process.wait_for("on your phone: ").split("on your phone: ")[1].split()[0]
            httpx.get(said, follow_redirects=True, trust_env=False, verify=False).raise_for_status()
            until(lambda: process.process.poll() is not None)
            return process.output.partition(said)[2].strip()


SERVERS = {"python": (sys.executable, str(EXAMPLE / "server.py")), "node": ("node", str(EXAMPLE / "node/server.js"))}
AGENTS = {"python": (sys.executable, str(EXAMPLE / "client.py")), "node": ("node", str(EXAMPLE / "node/client.js"))}


@pytest.fixture(scope="module", params=SERVERS)
def town(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    needs_node(EXAMPLE / "node")
    authority, port, folder = Authority(), str(free_port()), tmp_path_factory.mktemp("mcp")
    resource = f"http://127.0.0.1:{port}/mcp"
    with serving(authority.app) as url:
        authority.at(url, resource)
        env = {"RESOURCE": resource, "WXAUTH_ISSUER": url, "PORT": port}
        with Running(*SERVERS[request.param], cwd=folder, env=env) as server:
            until(lambda: "MCP: " in server.output or "running on" in server.output)
            yield Town(authority, resource, folder)


@pytest.fixture(params=AGENTS)
def agent(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return AGENTS[request.param]


def test_an_agent_is_approved_and_uses_tools_for_its_person(town: Town, agent: tuple[str, ...]) -> None:
    assert town.call(agent, "place_order", '{"item": "oolong tea"}') == "ordered: oolong tea"
    page, *forms = town.authority.asked
    assert (page["client_id"], page["scope"]) == (DOCUMENT, "orders:read orders:write")
    assert {asked["resource"] for asked in town.authority.asked} == {town.resource}
    assert forms[0]["grant_type"] == "authorization_code"
    assert all(form["grant_type"] == "refresh_token" for form in forms[1:])
    assert len(forms) > 1 or agent != AGENTS["python"]  # Node's renews what was refused, and no earlier
    assert "oolong tea" in town.call(agent, "list_orders", client_id="registered", CLIENT_SECRET="secret")


def test_an_agent_reads_which_scope_it_lacks(town: Town) -> None:
    town.authority.withheld = {"orders:write"}
    said = town.call(AGENTS["python"], "place_order", '{"item": "tea"}')
    town.authority.withheld = set()
    assert "this needs the scope orders:write" in said


def test_a_server_refuses_another_audience_and_says_whom_to_ask(town: Town) -> None:
    other = TestIssuer(town.authority.issuer.issuer, "https://other.test/mcp").token(scope="orders:read")
    metadata = f"{town.resource.removesuffix('/mcp')}/.well-known/oauth-protected-resource/mcp"
    for headers, error in (({}, ""), ({"Authorization": f"Bearer {other}"}, 'error="invalid_token", ')):
        refused = httpx.post(town.resource, headers=headers, trust_env=False, verify=False)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == f'Bearer {error}resource_metadata="{metadata}"'
    preflight = httpx.options(metadata, headers={"Origin": "https://a.test"}, trust_env=False, verify=False)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, "*")
