"""Guards can require scopes, and publish metadata of the service that they guard (RFC 6750 and RFC 9728)."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Optional, Union

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.clock import PATIENCE
from tests.guard.fakes import USER_ID, client_of
from tests.guard.guarded_apps import fastapi_app, plain_app
from tests.guard.hostile import decode
from tests.guard.wsgi_apps import who
from tests.headers import bearer
from tests.problems import problem_of
from tests.serving import serving
from tests.sweeps import Sweep
from wxauth_guard import BearerGuard, BearerMiddleware, BearerWSGIMiddleware, InsufficientScope, Principal
from wxauth_guard.testing import TestIssuer

ISSUER = "https://auth.example.com"
AUDIENCE = "https://mcp.example.com/mcp"
METADATA_PATH = "/.well-known/oauth-protected-resource/mcp"
METADATA = f'resource_metadata="https://mcp.example.com{METADATA_PATH}"'
AGENT = "https://agent.test/client.json"
NULL = "null"
"""A value that means that the claim is null."""


@pytest.fixture
def issuer() -> TestIssuer:
    return TestIssuer(ISSUER, AUDIENCE)


@pytest.fixture
def guard(issuer: TestIssuer) -> BearerGuard:
    return issuer.guard(scopes=["orders:read"])


Ask = Callable[[httpx.Headers], Awaitable[httpx.Response]]


def by_fastapi(guard: BearerGuard) -> Ask:
    return lambda headers: client_of(fastapi_app(guard)).get("/orders", headers=headers)


def by_asgi(guard: BearerGuard) -> Ask:
    return lambda headers: client_of(plain_app(guard)).get("/orders", headers=headers)


def by_wsgi(guard: BearerGuard) -> Ask:
    client = httpx.Client(transport=httpx.WSGITransport(BearerWSGIMiddleware(who, guard)))
    return lambda headers: asyncio.to_thread(client.get, "https://orders.test", headers=headers)


@pytest.mark.parametrize("served", [by_fastapi, by_asgi, by_wsgi])
@pytest.mark.requirement("rfc6750-3.1")
async def test_a_guard_needs_every_scope_wherever_it_is_used(
    served: Callable[[BearerGuard], Ask], guard: BearerGuard, issuer: TestIssuer
) -> None:
    both = served(guard.requires("orders:write"))
    needs_both = f'Bearer error="insufficient_scope", scope="orders:read orders:write", {METADATA}'
    with Sweep() as sweep:
        for scope, status in {
            "orders:read orders:write": 200,
            "orders:write orders:read profile": 200,
            "orders:read": 403,
            "orders:write": 403,
            "orders:readorders:write": 403,
            "ORDERS:READ orders:write": 403,
            "": 403,
        }.items():
            with sweep.case(scope):
                answer = await both(httpx.Headers(issuer.headers(scope=scope, client_id=AGENT)))
                assert answer.status_code == status
                if status == 403:
                    problem = problem_of(answer, "insufficient_scope", 403)
                    assert answer.headers["www-authenticate"] == needs_both
                    assert problem["detail"] == "this request requires the scope orders:read orders:write"
    read = await served(guard)(httpx.Headers(issuer.headers(scope="orders:read", client_id=AGENT)))
    assert read.status_code == 200


@pytest.mark.parametrize("served", [by_fastapi, by_asgi, by_wsgi])
@pytest.mark.requirement("rfc9728-5.1")
async def test_a_401_names_the_metadata_and_the_scopes_that_a_token_needs(
    served: Callable[[BearerGuard], Ask], guard: BearerGuard, issuer: TestIssuer
) -> None:
    banned = issuer.headers(scope="orders:read orders:write", user_id=USER_ID)
    issuer.ban(USER_ID)
    with Sweep() as sweep:
        for guards, scope in (
            (issuer.guard(), ""),
            (guard, 'scope="orders:read", '),
            (guard.requires("orders:write", "a"), 'scope="a orders:read orders:write", '),
            (issuer.guard(websites=True, scopes="orders:read"), 'scope="orders:read", '),
        ):
            for headers, error in (
                ({}, ""),
                (bearer("nonsense"), 'error="invalid_token", '),
                (issuer.headers(expires_in=-31), 'error="invalid_token", '),
            ):
                with sweep.case(scope, headers):
                    answer = await served(guards)(httpx.Headers(headers))
                    challenge = f"Bearer {error}{scope}{METADATA}"
                    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, challenge)
    answer = await served(guard.requires("orders:write").current)(httpx.Headers(banned))
    challenge = f'Bearer error="invalid_token", scope="orders:read orders:write", {METADATA}'
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, challenge)


@pytest.mark.parametrize(
    ("audience", "path"),
    [
        ("https://mcp.example.com", "/.well-known/oauth-protected-resource"),
        ("https://mcp.example.com/", "/.well-known/oauth-protected-resource"),
        ("https://mcp.example.com:8443/a/b/", "/.well-known/oauth-protected-resource/a/b/"),
        ("http://127.0.0.1:8003/mcp", METADATA_PATH),
        ("http://mcp.example.com/mcp", None),
        ("https://mcp.example.com/mcp?x=1", None),
        ("https://alice@mcp.example.com/mcp", None),
        ('https://mcp.example.com/"', None),
        ("https://mcp.example.com/店", None),
        ("https://[", None),
        ("wxauth", None),
    ],
)
@pytest.mark.requirement("rfc9728-3.1")
def test_metadata_is_between_the_host_and_the_path_of_an_audience(audience: str, path: Optional[str]) -> None:
    guard = BearerGuard(ISSUER, audience)
    with pytest.raises(InsufficientScope) as refusal:
        guard.check_scopes(principal_of(scope=""), "a")
    challenge = refusal.value.headers()["WWW-Authenticate"]
    if path is None:
        assert challenge == 'Bearer error="insufficient_scope", scope="a"'
        with pytest.raises(ValueError, match="https"):
            guard.resource_metadata()
        with pytest.raises(ValueError, match="https"):
            _ = guard.resource_metadata_path
    else:
        assert guard.resource_metadata_path == path
        assert challenge.endswith(f'resource_metadata="{"/".join(audience.split("/")[:3])}{path}"')


@pytest.mark.process
def test_an_audience_without_metadata_is_a_mistake_even_without_assertions() -> None:
    code = "from wxauth_guard import BearerGuard; BearerGuard('https://auth.test').resource_metadata()"
    python = subprocess.run([sys.executable, "-O", "-c", code], stderr=subprocess.PIPE, text=True, check=False)
    assert "ValueError: a resource's metadata needs an audience" in python.stderr


def principal_of(**fields: Any) -> Principal:
    issuer = TestIssuer()
    return issuer.guard(websites=True).verify_sync(issuer.token(**fields))


def test_a_tool_checks_the_scopes_of_its_caller(guard: BearerGuard, issuer: TestIssuer) -> None:
    user = guard.verify_sync(issuer.token(scope="orders:read", client_id=AGENT))
    guard.check_scopes(user)
    guard.check_scopes(user, "orders:read")
    with pytest.raises(InsufficientScope) as refusal:
        guard.check_scopes(user, "orders:write")
    assert (refusal.value.status, refusal.value.scope) == (403, "orders:read orders:write")
    with pytest.raises(InsufficientScope):
        guard.check_scopes(principal_of())


@pytest.mark.parametrize("scope", ["", "orders:read orders:write", 'a"', "a\\", "订单", "a\n", None, 7])
def test_what_is_no_scope_is_a_mistake_at_once(guard: BearerGuard, scope: Any) -> None:
    for use in (
        lambda: BearerGuard(ISSUER, scopes=[scope]),
        lambda: guard.requires(scope),
        lambda: guard.check_scopes(principal_of(), scope),
        lambda: guard.resource_metadata(scopes_supported=[scope]),
    ):
        with pytest.raises(ValueError, match="scope must be"):
            use()
    with pytest.raises(TypeError):
        guard.requires()  # type: ignore[call-arg]


def test_one_scope_may_be_given_by_itself(issuer: TestIssuer) -> None:
    guard = issuer.guard(scopes="orders:read")
    assert guard.verify_sync(issuer.token(scope="orders:read")).openid
    assert guard.resource_metadata(scopes_supported="orders:read")["scopes_supported"] == ["orders:read"]


# Tokens of the operator's own apps, and of websites and agents.

SCOPED: dict[str, dict[str, Any]] = {
    "a website's": {"scope": "openid profile", "client_id": "shop"},
    "of another scope": {"scope": "orders:read"},
    "of no scope": {"scope": ""},
    "of a space": {"scope": " "},
    "of a role": {"scope": "roles", "roles": ["clerk"]},
    "an agent's": {"scope": "orders:read", "client_id": AGENT},
    "null": {"claims": {"scope": NULL}},
    "a list": {"claims": {"scope": ["orders:read"]}},
    "an empty list": {"claims": {"scope": []}},
    "a number": {"claims": {"scope": 0}},
    "false": {"claims": {"scope": False}},
    "an object": {"claims": {"scope": {}}},
}
"""Tokens with the claim `scope`, whatever its value is."""
READABLE = [name for name, fields in SCOPED.items() if "claims" not in fields]


def signed(issuer: TestIssuer, **fields: Any) -> str:
    """Sign a token. `TestIssuer.token` leaves out claims that are None."""
    claims = json.loads(decode(issuer.token(**fields).split(".")[1]))
    return issuer.key.sign({name: None if value == NULL else value for name, value in claims.items()})


@pytest.mark.parametrize("served", [by_fastapi, by_asgi, by_wsgi])
async def test_a_guard_accepts_only_the_operators_own_apps(served: Callable[[BearerGuard], Ask]) -> None:
    for audience in ("wxauth", "orders", "urn:orders", "mcp.example.com"):
        issuer = TestIssuer(ISSUER, audience)
        ask = served(issuer.guard())
        with Sweep() as sweep:
            for name, fields in SCOPED.items():
                with sweep.case(audience, name):
                    answer = await ask(httpx.Headers(bearer(signed(issuer, **fields))))
                    problem = problem_of(answer, "insufficient_scope", 403)
                    assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
                    assert problem["detail"] == "this service doesn't accept the tokens of websites and agents"
            with sweep.case("its own"):
                assert (await ask(httpx.Headers(issuer.headers()))).status_code == 200
            with sweep.case("expired"):
                expired = await ask(httpx.Headers(issuer.headers(scope="openid", expires_in=-31)))
                problem_of(expired, "token_expired", 401)


@pytest.mark.parametrize("served", [by_fastapi, by_asgi, by_wsgi])
async def test_a_guard_for_websites_accepts_both_and_its_scopes_bind_websites(
    served: Callable[[BearerGuard], Ask],
) -> None:
    issuer = TestIssuer(ISSUER)
    with Sweep() as sweep:
        for scopes, allowed in (((), READABLE), (["orders:read"], ["of another scope", "an agent's"])):
            ask = served(issuer.guard(websites=True, scopes=scopes))
            for name, fields in SCOPED.items():
                with sweep.case(scopes, name):
                    answer = await ask(httpx.Headers(bearer(signed(issuer, **fields))))
                    if name in allowed:
                        assert answer.status_code == 200
                    elif name in READABLE:
                        problem_of(answer, "insufficient_scope", 403)
                        assert answer.headers["www-authenticate"].endswith('scope="orders:read"')
                    else:
                        problem_of(answer, "invalid_token", 401)
            with sweep.case(scopes, "its own"):
                assert (await ask(httpx.Headers(issuer.headers()))).status_code == 200


def test_a_guard_with_scopes_accepts_no_token_without_a_scope() -> None:
    issuer = TestIssuer(ISSUER)
    for guard in (issuer.guard(scopes=["orders:read"]), issuer.guard().requires("orders:read")):
        assert guard.verify_sync(issuer.token(scope="orders:read")).scope
        for scope in (None, "", "orders:write"):
            with pytest.raises(InsufficientScope, match="this request requires the scope orders:read"):
                guard.verify_sync(issuer.token(scope=scope))


@pytest.mark.parametrize("audience", [AUDIENCE, "http://mcp.example.com", "HTTPS://MCP.example.com/mcp?a=b"])
def test_a_guard_of_a_resource_accepts_agents(audience: str) -> None:
    issuer = TestIssuer(ISSUER, audience)
    guard = issuer.guard()
    assert guard.verify_sync(issuer.token(scope="orders:read", client_id=AGENT)).scope == {"orders:read"}
    with pytest.raises(InsufficientScope):
        guard.requires("orders:write").verify_sync(issuer.token(scope="orders:read", client_id=AGENT))


def test_required_and_checked_scopes_bind_only_tokens_that_have_one() -> None:
    issuer = TestIssuer(ISSUER)
    guard = issuer.guard(websites=True)
    own, website = guard.verify_sync(issuer.token()), guard.verify_sync(issuer.token(scope="openid"))
    guard.check_scopes(own, "orders:write")
    guard.check_scopes(website)
    with pytest.raises(InsufficientScope):
        guard.check_scopes(website, "orders:write")
    writing = guard.requires("orders:write")
    assert writing.verify_sync(issuer.token()) != website
    with pytest.raises(InsufficientScope):
        writing.verify_sync(issuer.token(scope="openid"))
    with pytest.raises(InsufficientScope):
        issuer.guard().check_scopes(own, "orders:write")


async def test_an_open_page_takes_a_websites_token_for_no_guest() -> None:
    issuer = TestIssuer(ISSUER)
    guard = issuer.guard()
    assert await guard.find_user(None) is None
    for find in (guard.find_user, lambda header: asyncio.to_thread(guard.find_user_sync, header)):
        with pytest.raises(InsufficientScope):
            await find(issuer.headers(scope="openid")["Authorization"])


# The metadata document.


@pytest.mark.parametrize("app", [FastAPI(), Starlette()])
async def test_every_origin_may_read_the_metadata(app: Union[FastAPI, Starlette], guard: BearerGuard) -> None:
    document = {
        "resource": AUDIENCE,
        "authorization_servers": [ISSUER],
        "scopes_supported": ["orders:write", "orders:read"],
        "bearer_methods_supported": ["header"],
        "resource_name": "小店助手",
    }
    told = {"scopes_supported": ["orders:write", "orders:read"], "resource_name": "小店助手"}
    assert guard.resource_metadata(**told) == document  # type: ignore[arg-type]
    assert guard.resource_metadata() == {
        name: document[name] for name in ("resource", "authorization_servers", "bearer_methods_supported")
    }
    app.routes.append(guard.metadata_route(**told))  # type: ignore[arg-type]
    async with client_of(BearerMiddleware(app, guard)) as client:
        answer = await client.get(METADATA_PATH, headers={"Origin": "https://inspector.test"})
        assert (answer.json(), answer.headers["content-type"]) == (document, "application/json")
        preflight = await client.options(
            METADATA_PATH,
            headers={
                "Origin": "https://inspector.test",
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "mcp-protocol-version",
            },
        )
        assert preflight.is_success
        for each in (answer, preflight):
            assert each.headers["access-control-allow-origin"] == "*"
            assert each.headers["access-control-allow-headers"] == "*"
        assert (await client.get(f"{METADATA_PATH}/")).status_code == 401


async def test_a_path_that_needs_escapes_is_served_and_public() -> None:
    guard = BearerGuard(ISSUER, "https://mcp.example.com/%E5%BA%97")
    app = Starlette(routes=[guard.metadata_route()])
    async with client_of(BearerMiddleware(app, guard)) as client:
        assert (await client.get(guard.resource_metadata_path)).json()[
            "resource"
        ] == "https://mcp.example.com/%E5%BA%97"


# Guards with scopes in a sibling's own tests.


async def test_guards_by_requires_follow_the_one_that_they_were_made_from(issuer: TestIssuer) -> None:
    guard = BearerGuard(ISSUER, AUDIENCE, scopes=["orders:read"])
    writing = guard.requires("orders:write").requires("orders:delete")
    router = APIRouter()

    @router.get("/orders")
    async def orders(user: Annotated[Principal, Depends(writing)]) -> str:
        return user.openid

    app = FastAPI()
    app.include_router(router)
    all_three = issuer.headers(scope=["orders:read", "orders:write", "orders:delete"], openid="o-1")
    async with client_of(app) as client:
        with issuer.trusted_by(writing):
            assert (await client.get("/orders", headers=all_three)).json() == "o-1"
            assert (await guard.verify(issuer.token(scope="orders:read"))).scope == frozenset({"orders:read"})
        app.dependency_overrides[guard] = issuer.guard()
        assert (await client.get("/orders", headers=all_three)).json() == "o-1"
        refused = await client.get("/orders", headers=issuer.headers(scope="orders:write"))
        problem_of(refused, "insufficient_scope", 403)
        assert 'scope="orders:delete orders:read orders:write"' in refused.headers["www-authenticate"]
        security = (await client.get("/openapi.json")).json()["paths"]["/orders"]["get"]["security"]
        assert security == [{"wxauth": []}]


async def test_a_role_may_be_required_beside_a_scope(guard: BearerGuard, issuer: TestIssuer) -> None:
    app = FastAPI()

    @app.get("/", dependencies=[Depends(guard.requires("orders:write").require_role("clerk"))])
    async def orders() -> None: ...

    async with client_of(app) as client:
        for scope, roles, code in (
            ("orders:read", ["clerk"], "insufficient_scope"),
            ("orders:read orders:write", [], "insufficient_role"),
        ):
            problem_of(await client.get("/", headers=issuer.headers(scope=scope, roles=roles)), code, 403)


def test_the_issuers_tokens_are_a_websites_or_a_documents_clients(issuer: TestIssuer) -> None:
    guard = issuer.guard()
    by_document = guard.verify_sync(issuer.token(scope="orders:read", client_id=AGENT))
    assert (by_document.openid, by_document.app_id, by_document.scope) == ("", "", frozenset({"orders:read"}))
    assert by_document.claims["client_id"] == AGENT
    assert by_document.claims["auth_time"] == by_document.claims["iat"]
    website = guard.verify_sync(issuer.token(scope=["openid", "profile"], client_id="shop", app_id="wxother"))
    assert (website.app_id, website.claims["client_id"]) == ("wxother", "shop")
    assert website.openid
    assert website.scope == frozenset({"openid", "profile"})
    assert "auth_time" not in website.claims
    assert "scope" not in guard.verify_sync(issuer.token()).claims


BESIDE_HTTPX2_ALONE = """
import sys
sys.modules["httpx"] = None  # as where it is not installed
from wxauth_guard import BearerGuard
from wxauth_guard.jwks import RemoteKeys
url, token, patience = sys.argv[1:]
BearerGuard(url, keys=RemoteKeys(url, timeout=float(patience))).verify_sync(token)
assert "httpx2" in sys.modules
"""


@pytest.mark.process
@pytest.mark.skipif(sys.version_info < (3, 10), reason="httpx2 needs Python 3.10")
def test_keys_are_read_by_httpx2_where_httpx_is_missing() -> None:
    documents: dict[str, Any] = {}

    async def published(request: Request) -> Response:
        return JSONResponse(documents[request.url.path])

    with serving(Starlette(routes=[Route("/{path:path}", published)])) as url:
        issuer = TestIssuer(url)
        documents |= {"/.well-known/oauth-authorization-server": issuer.metadata, "/.well-known/jwks.json": issuer.jwks}
        command = [sys.executable, "-c", BESIDE_HTTPX2_ALONE, url, issuer.token(), str(PATIENCE)]
        subprocess.run(command, check=True)
