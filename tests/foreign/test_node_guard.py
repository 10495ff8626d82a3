"""`clients/node`, the guard for services in Node, decides and responds like the Python guard.

It also passes its own tests.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.datastructures import Headers
from starlette.requests import Request

from tests.guard.hostile import EXPIRED, FOR_GUARDS, GOOD, HOSTILE, Forger
from tests.processes import Running
from tests.programs import needs_node, output_of
from tests.sweeps import Sweep
from wxauth_guard import BearerGuard, Principal
from wxauth_guard.errors import (
    InsufficientRole,
    InsufficientScope,
    InvalidRequest,
    InvalidToken,
    KeysUnavailable,
    MissingToken,
    SessionRevoked,
    TokenExpired,
    VerificationUnavailable,
    WxAuthError,
)
from wxauth_guard.problems import problem_document
from wxauth_guard.testing import USER_ID, TestIssuer, TestKey

pytestmark = pytest.mark.node

PACKAGE = Path(__file__).parents[2] / "clients/node"
NOW = 1795161600


@pytest.fixture(scope="module")
def node() -> str:
    return needs_node(PACKAGE)


@pytest.fixture(scope="module")
def issuer() -> TestIssuer:
    return TestIssuer(clock=lambda: NOW)


@pytest.fixture(scope="module")
def tokens(issuer: TestIssuer) -> dict[str, str]:
    """The tokens of the corpus, by name."""
    token = issuer.token(user_id=UUID("0192f0c1-2b3c-7d4e-8f50-123456789abc"), roles=["clerk"])
    forgeries = HOSTILE | EXPIRED | GOOD | FOR_GUARDS
    return {name: forge(Forger(token, key_of(issuer))) for name, forge in forgeries.items()}


def key_of(issuer: TestIssuer) -> TestKey:
    return issuer.key


@pytest.mark.parametrize("file", sorted(path.name for path in PACKAGE.glob("test/*.test.js")))
def test_the_package_passes_its_own_tests(node: str, file: str) -> None:
    command = [node, "--test", "--test-reporter=spec", str(PACKAGE / "test" / file)]
    printed = output_of(*command)
    assert re.search(r"^ℹ pass [1-9]", printed, re.MULTILINE), printed


@pytest.mark.parametrize("websites", [False, True])
async def test_the_node_guard_decides_every_token_as_our_own_guard_does(
    node: str, issuer: TestIssuer, tokens: dict[str, str], websites: bool
) -> None:
    given = {"jwks": issuer.jwks, "issuer": issuer.issuer, "now": NOW, "tokens": [*tokens.values()]}
    decided = json.loads(output_of(node, PACKAGE / "test/decide.js", input=json.dumps({**given, "websites": websites})))
    guard = issuer.guard(websites=websites)
    with Sweep() as sweep:
        for (name, token), outcome in zip(tokens.items(), decided, strict=True):
            with sweep.case(name):
                assert outcome == await outcome_of(guard, token)


async def outcome_of(guard: BearerGuard, token: str) -> dict[str, Any]:
    """Return the verdict of the Python guard on a token, with the Node guard's names."""
    try:
        user = await guard.verify(token)
    except WxAuthError as refusal:
        return {"code": refusal.code, "detail": refusal.detail}
    described = {
        "id": str(user.id),
        "appId": user.app_id,
        "openid": user.openid,
        "sessionId": str(user.session_id),
        "roles": user.claims.get("roles", []),
        "externalId": user.external_id,
        "scope": user.claims.get("scope", "").split(),
        "isCurrent": user.is_current,
    }
    return {"user": described, "claims": dict(user.claims)}


def result_of_script(node: str, script: str, **values: Any) -> Any:
    """Run a module with these constants, and return its output as JSON."""
    constants = "".join(f"const {name} = {json.dumps(value)}\n" for name, value in values.items())
    source = f"{constants}{script}\nconsole.log(JSON.stringify(answer()))"
    return json.loads(output_of(node, "--input-type=module", "-e", source, cwd=PACKAGE))


def test_the_node_guards_refusals_read_as_our_own(node: str) -> None:
    kinds = (
        InvalidRequest,
        MissingToken,
        InvalidToken,
        TokenExpired,
        InsufficientRole,
        InsufficientScope,
        KeysUnavailable,
        SessionRevoked,
        VerificationUnavailable,
    )
    script = """
        import { AuthError, problem } from 'wxauth-guard'
        const request = { headers: { 'x-request-id': '7' } }
        const answer = () => codes.map((code) => {
            const refusal = new AuthError(code, 'so')
            return { title: refusal.title, ...problem(refusal, request) }
        })"""
    for kind, answer in zip(kinds, result_of_script(node, script, codes=[kind.code for kind in kinds]), strict=True):
        refusal = kind("so")
        assert answer["title"] == {"en": refusal.title, "zh": refusal.title.translated("zh-CN")}
        assert answer["status"] == refusal.status
        assert json.loads(answer["body"]) == problem_document(refusal, language="en", request_id="7")
        assert refusal.headers().items() <= answer["headers"].items()


@pytest.mark.parametrize(
    "audience",
    [
        "https://mcp.example.com/mcp",
        "https://mcp.example.com",
        "https://mcp.example.com/",
        "https://mcp.example.com:8443/%E5%BA%97/",
        "http://127.0.0.1:8003/mcp",
        "http://[::1]:8003/mcp",
        "http://mcp.example.com/mcp",
        "https://mcp.example.com/mcp?x=1",
        "https://alice@mcp.example.com/mcp",
        'https://mcp.example.com/"',
        "https://[",
        "wxauth",
    ],
)
async def test_the_node_guard_names_scopes_and_metadata_as_our_own_does(node: str, audience: str) -> None:
    script = """
        import { BearerGuard, problem } from 'wxauth-guard'
        import { TestIssuer } from 'wxauth-guard/testing'
        const issuer = new TestIssuer({ audience })
        const guard = issuer.guard({ scopes: ['b'] })
        const refusals = []
        for (const headers of [{}, { authorization: 'Bearer x' }, issuer.headers({ scope: 'a' })]) {
            const refusal = await guard.requires('c', 'a').user({ headers }).catch((refusal) => refusal)
            refusals.push([refusal.message, problem(refusal, { headers }).headers['WWW-Authenticate']])
        }
        const tried = (give) => { try { return give() } catch ({ message }) { return message } }
        const told = { scopesSupported: ['b', 'a'], resourceName: '小店助手' }
        const gives = [() => guard.resourceMetadataPath, () => guard.resourceMetadata(told)]
        const answer = () => [refusals, ...gives.map(tried)]
        """
    issuer = TestIssuer(audience=audience)
    guard = issuer.guard(scopes=["b"])
    refusals = []
    for headers in ({}, {"Authorization": "Bearer x"}, issuer.headers(scope="a")):
        with pytest.raises(WxAuthError) as refusal:
            await guard.requires("c", "a")(Request({"type": "http", "headers": Headers(headers).raw}))
        refusals.append([refusal.value.detail, refusal.value.headers()["WWW-Authenticate"]])
    told: list[Any] = []
    for give in (
        lambda: guard.resource_metadata_path,
        lambda: guard.resource_metadata(scopes_supported=["b", "a"], resource_name="小店助手"),
    ):
        try:
            told.append(give())
        except ValueError as mistake:
            told.append(str(mistake))
    assert result_of_script(node, script, audience=audience) == [refusals, *told]


@pytest.fixture(scope="module")
def urls(node: str, issuer: TestIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The URLs of the services that the package's README shows, by framework. They accept the issuer's tokens."""
    given = json.dumps({"jwks": issuer.jwks, "issuer": issuer.issuer, "now": NOW})
    command = (node, str(PACKAGE / "test/serve.js"), given)
    with Running(*command, cwd=tmp_path_factory.mktemp("node-guard")) as process:
        yield json.loads(process.wait_for("listening on ").partition("listening on ")[2])


@pytest.fixture(scope="module")
async def ours(issuer: TestIssuer) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the same service with the Python guard."""
    app, guard = FastAPI(), issuer.guard()

    @app.get("/orders")
    async def orders(user: Annotated[Principal, Depends(guard)]) -> dict[str, str]:
        return {"user": str(user.id), "openid": user.openid}

    @app.delete("/orders/{number}", status_code=204, dependencies=[Depends(guard.require_role("clerk"))])
    async def erase(number: int) -> None: ...

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://orders.test") as client:
        yield client


def requests(issuer: TestIssuer, tokens: dict[str, str]) -> dict[str, tuple[str, str, list[tuple[str, str]]]]:
    """Return method, path and headers of each request, by name."""
    bearer = f"Bearer {issuer.token()}"
    languages = [
        "zh_CN",
        "zh-CN,zh;q=0.9,en;q=0.8",
        "fr, zh-Hant-TW;q=0.5",
        "en-GB,en;q=0.9,zh;q=0.8",
        "en;q=0.5, ZH;q=0.6",
    ]
    languages += ["zh;q=0", "fr", "*", ";;q=,=", "zh,en", "en,zh", "zh;q=0.5,en;q=0.8,zh;q=0.8"]
    chosen = [
        "as issued",
        "alg none",
        "kid unknown",
        "exp long ago",
        "aud another",
        "roles a string",
        "a word",
        "app_id null",
    ]
    return {
        "no token": ("GET", "/orders", []),
        "two tokens": ("GET", "/orders", [("Authorization", bearer)] * 2),
        "no role": ("DELETE", "/orders/7", [("Authorization", bearer)]),
        "no token where a role is demanded": ("DELETE", "/orders/7", []),
        **{
            f"a token after {scheme!r}": ("GET", "/orders", [("Authorization", f"{scheme}{issuer.token()}")])
            for scheme in ("Basic ", "DPoP ", "BearerBearer ", "", "bearer ", "BEARER   ", "Bearer,", "Bearer\t")
        },
        "nothing after Bearer": ("GET", "/orders", [("Authorization", "Bearer")]),
        **{f"in the language {range_}": ("GET", "/orders", [("Accept-Language", range_)]) for range_ in languages},
        **{
            f"from {user_agent} in the language {range_!r}": (
                *("GET", "/orders"),
                [("User-Agent", user_agent), *([] if range_ is None else [("Accept-Language", range_)])],
            )
            for user_agent in ("MicroMessenger/8.0.44 Language/zh_CN", "MicroMessenger/8.0.44", "Language/zh_CN")
            for range_ in (None, "", "en")
        },
        **{name: ("GET", "/orders", [("Authorization", f"Bearer {tokens[name]}")]) for name in chosen},
    }


async def test_every_framework_answers_as_our_own_guard_does(
    urls: dict[str, str], ours: httpx.AsyncClient, issuer: TestIssuer, tokens: dict[str, str]
) -> None:
    assert len(urls) == 8
    with Sweep() as sweep:
        for framework, url in urls.items():
            async with httpx.AsyncClient(base_url=url, trust_env=False, verify=False) as theirs:
                for name, (method, path, headers) in requests(issuer, tokens).items():
                    with sweep.case(framework, name):
                        sent = [("X-Request-ID", "order-7"), *headers]
                        answers = [await client.request(method, path, headers=sent) for client in (ours, theirs)]
                        assert [described(answer) for answer in answers][1] == described(answers[0])


def described(answer: httpx.Response) -> dict[str, Any]:
    names = ("www-authenticate", "cache-control", "content-language", "x-request-id", "retry-after")
    headers = {name: answer.headers.get(name) for name in names}
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    refusal = {**answer.json(), "media_type": media_type, **headers} if answer.is_error else None
    return {"status": answer.status_code, "refusal": refusal, "success": answer.is_success and answer.json()}


def test_a_refusal_has_an_id_of_its_own_if_the_callers_is_malformed(urls: dict[str, str]) -> None:
    for url in urls.values():
        for request_id in (b"", b"a b", b"a" * 129, b"\xe9"):
            answer = httpx.get(f"{url}/orders", headers={b"X-Request-ID": request_id}, trust_env=False, verify=False)
            assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
            assert answer.json()["request_id"] == answer.headers["x-request-id"]


IN_APP = {"app_id": "小店", "roles": ["clerk"]}


@pytest.mark.parametrize(
    "fields",
    [
        IN_APP,
        {**IN_APP, "scope": "a b", "client_id": "shop"},
        {"scope": ["a"], "client_id": "https://agent.test/a.json"},
        {**IN_APP, "scope": "a"},
    ],
)
def test_the_node_test_issuer_makes_the_same_user_as_ours(node: str, fields: dict[str, Any]) -> None:
    ids = ["01900000-0000-7000-8000-000000000001", "0192f0c1-2b3c-7d4e-8f50-123456789abc"]
    script = """
        import { TestIssuer, USER_ID } from 'wxauth-guard/testing'
        function answer() {
            const issuer = new TestIssuer({ now: () => now * 1000 })
            const tokens = ids.map((userId) => issuer.token({ userId, ...fields, appId: fields.app_id }))
            return { tokens, user: USER_ID, metadata: issuer.metadata, jwk: issuer.jwks.keys[0] }
        }"""
    answer = result_of_script(node, script, ids=ids, now=NOW, fields=fields)
    ours = TestIssuer(clock=lambda: NOW)
    assert (answer["user"], answer["metadata"]) == (str(USER_ID), ours.metadata)
    assert {**answer["jwk"], "x": "", "y": "", "kid": ""} == {**ours.jwks["keys"][0], "x": "", "y": "", "kid": ""}
    for user_id, token in zip(ids, answer["tokens"], strict=True):
        expected = Forger(ours.token(user_id=UUID(user_id), **fields), key_of(ours))
        theirs = Forger(token, key_of(ours))
        assert theirs.claims == expected.claims | {"jti": theirs.claims["jti"]}
        assert {**theirs.header, "kid": ""} == {**expected.header, "kid": ""}
