"""Reverse proxies can use `/v1/verify`, and services that cannot use the guard can use `/v1/introspect`."""

import json
from base64 import b64encode
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any
from urllib.parse import unquote, urlencode

import httpx
import pytest

from tests.database_proxy import Proxy
from tests.guard.hostile import EXPIRED, GOOD, HOSTILE, Forger, decode
from tests.problems import problem_of
from tests.sweeps import Sweep, swept
from tests.world import AddSibling, Body, Client, Rows, Stage, bearer, set_roles, unread
from wxauth.clients.clients import Credentials
from wxauth.keys.keyring import KeyRing
from wxauth.web.edge import MAX_HEAD

FORM = "application/x-www-form-urlencoded"
VERIFY = "/v1/verify"
INTROSPECT = "/v1/introspect"
MAX_BODY = 64 * 1024
# SQL statements that end a token before it expires.
ENDINGS = {
    "revoked": "UPDATE sessions SET revoked_at = now(), revoked_reason = 'signed_out', session_key = NULL",
    "expired": "UPDATE sessions SET expires_at = created_at",
    "banned": "UPDATE users SET status = 'disabled'",
    "erased": "DELETE FROM users",
}


def basic(name: str, secret: str, *, scheme: str = "Basic") -> dict[str, str]:
    return {"Authorization": f"{scheme} {b64encode(f'{name}:{secret}'.encode()).decode()}"}


def claims_of(token: str) -> dict[str, Any]:
    return json.loads(decode(token.split(".")[1]))


@dataclass(frozen=True, slots=True)
class Asker:
    """The callers who verify Alice's token, which are a proxy with `/v1/verify` and `billing` with `/v1/introspect`."""

    stage: Stage
    billing: Credentials
    tokens: Body

    @property
    def token(self) -> str:
        return self.tokens["access_token"]

    @property
    def forger(self) -> Forger:
        return Forger(self.token, self.stage.services[KeyRing].signing_key(self.stage.clock()))

    async def verify(self, query: str = "") -> httpx.Response:
        return await self.stage.client.get(VERIFY + query, headers=bearer(self.token))

    async def post(self, headers: Any = None) -> httpx.Response:
        """Call `/v1/introspect`, as `billing` or with these headers."""
        headers = basic(*self.billing) if headers is None else headers
        return await self.stage.client.post(INTROSPECT, data={"token": self.token}, headers=headers)

    async def introspect(self, token: str | None = None) -> Body:
        """Return the response that `billing` gets about a token."""
        data = {"token": self.token if token is None else token}
        answer = await self.stage.client.post(INTROSPECT, data=data, headers=basic(*self.billing))
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        return answer.json()

    async def passes(self) -> bool:
        """Check that both endpoints agree about Alice's token, and tell whether it is valid."""
        verified, told = await self.verify(), await self.introspect()
        if not told["active"]:
            problem_of(verified, "invalid_token", 401)
            assert told == {"active": False}
        return verified.status_code == 200


@pytest.fixture
async def asker(stage: Stage, add_sibling: AddSibling) -> Asker:
    return Asker(stage, await add_sibling("billing"), await stage.login("alice"))


# Both endpoints.


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
async def test_a_token_ends_at_once_with_its_session_or_user(asker: Asker, rows: Rows, ending: str) -> None:
    assert await asker.passes()
    await rows.execute(ending)
    assert not await asker.passes()


async def test_an_ending_counts_when_it_is_committed_and_is_not_waited_for(asker: Asker, rows: Rows) -> None:
    async with rows.transaction():
        await rows.execute(ENDINGS["revoked"])
        await rows.execute(ENDINGS["banned"])
        assert await asker.passes()
    assert not await asker.passes()


@pytest.mark.slow
@swept("name", HOSTILE | EXPIRED | GOOD)
@pytest.mark.requirement("asvs-9.2.1")
async def test_the_tokens_that_the_guard_takes_and_refuses_are_taken_and_refused(asker: Asker, name: str) -> None:
    forged, is_good = (HOSTILE | EXPIRED | GOOD)[name](asker.forger), name in GOOD
    verified = await asker.stage.client.get(f"{VERIFY}?websites=true", headers=bearer(forged))
    if len(forged) > MAX_HEAD:
        assert verified.status_code == 431
        return
    assert verified.status_code == (200 if is_good else 401)
    assert verified.headers.get("www-authenticate") == (None if is_good else 'Bearer error="invalid_token"')
    if len(forged) < MAX_BODY:
        answer = await asker.introspect(forged)
        assert answer["active"] if is_good else answer == {"active": False}


HOSTILE_AUTHORIZATIONS = [
    *(b"", b" ", b":", b"Basic", b"Basic ", b"Basic ====", b"Basic \xff\xfe", b"Basic !!!!", b"Negotiate YII="),
    *(b"Bearer", b"Bearer ", b"Bearer \xff", b"Bearer \0", b"Bearer a b", b"Bearer " + b"." * 60_000, b"wxr_x"),
    *(
        b"Basic " + b64encode(text)
        for text in (b"", b":", b"billing", b"billing:", b":secret", b"billing\0:secret", b"billing%0a:secret")
    ),
    *(
        b"Basic " + b64encode(text)
        for text in (b"\xff\xfe:\xff", "账单:密钥".encode(), b"%ED%A0%80:%ED%A0%80", b"billing' OR 1=1 --:x")
    ),
    b"Basic " + b64encode(b"billing:" + b"x" * 40_000),
    b"Basic " + b64encode(b"billing:x").rstrip(b"="),
    b"Basic Basic " + b64encode(b"billing:x"),
    b"Basic\t" + b64encode(b"billing:x"),
]


@swept("authorization", HOSTILE_AUTHORIZATIONS)
async def test_a_hostile_authorization_header_is_refused(asker: Asker, authorization: bytes) -> None:
    headers = {b"Authorization": authorization}
    answer = await asker.stage.client.get(VERIFY, headers=headers)
    problem_of(answer, answer.json()["code"], 401)
    assert answer.headers["www-authenticate"] in ("Bearer", 'Bearer error="invalid_token"')
    answer = await asker.post(headers)
    problem_of(answer, "invalid_client", 401)
    assert answer.headers["www-authenticate"] == "Basic"


async def test_two_authorization_headers_are_a_bad_request(asker: Asker) -> None:
    bearers, basics = [*bearer(asker.token).items()], [*basic(*asker.billing).items()]
    by_proxy = {"Authorization": f"{basics[0][1]}, {basics[0][1]}"}  # the proxy joins two headers
    with Sweep() as sweep:
        for name, verifying, introspecting in (("two", bearers * 2, basics * 2), ("joined", by_proxy, by_proxy)):
            with sweep.case(name):
                problem_of(await asker.stage.client.get(VERIFY, headers=verifying), "invalid_request", 400)
                problem_of(await asker.post(introspecting), "invalid_request", 400)


async def test_without_a_database_a_bad_token_is_refused_and_a_valid_one_is_503(asker: Asker, proxy: Proxy) -> None:
    asker = replace(asker, stage=await asker.stage.replica(database_url=proxy.url))
    client = asker.stage.client
    await proxy.refuse()
    problem_of(await client.get(VERIFY, headers=bearer("not.a.token")), "invalid_token", 401)
    problem_of(await client.get(VERIFY), "missing_token", 401)
    problem_of(await asker.verify("?role=admin"), "storage_unavailable", 503)
    problem_of(await asker.post(headers={}), "invalid_client", 401)
    answer = await asker.post()
    problem_of(answer, "storage_unavailable", 503)
    assert int(answer.headers["retry-after"]) > 0
    await proxy.accept()
    assert (await asker.verify()).status_code == 200


# `/v1/verify`.


async def test_verify_says_in_the_header_whose_request_it_is(asker: Asker) -> None:
    for method in ("GET", "HEAD"):
        answer = await asker.stage.client.request(method, VERIFY, headers=bearer(asker.tokens["access_token"]))
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["cache-control"] == "no-store"
        assert {name: value for name, value in answer.headers.items() if name.startswith("x-auth-")} == {
            "x-auth-user-id": asker.tokens["user"]["id"],
            "x-auth-app-id": asker.tokens["user"]["app_id"],
            "x-auth-openid": asker.tokens["user"]["openid"],
            "x-auth-session-id": asker.tokens["session_id"],
            "x-auth-roles": "",
            "x-auth-scope": "",
        }


@swept(
    ("roles", "query", "status"),
    [
        ("{}", "", 200),
        ("{}", "?role=admin", 403),
        ("{}", "?role=", 403),
        ("{admin}", "?role=admin", 200),
        ("{admin}", "?role=admin&role=admin", 200),
        ("{admin}", "?role=admin&role=clerk", 403),
        ("{clerk}", "?role=admin&role=clerk", 403),
        ("{clerk,admin}", "?role=admin&role=clerk", 200),
        ("{clerk,admin}", "?role=admin,clerk", 403),
        ("{admin}", "?role=Admin", 403),
        ("{admin}", "?role=admin%20", 403),
        ("{admin}", "?role=%00", 403),
        ("{admin}", "?role=%FF", 403),
        ("{admin}", "?role", 403),
    ],
)
async def test_verify_demands_every_role_that_is_asked_for(asker: Asker, roles: str, query: str, status: int) -> None:
    await asker.stage.rows.execute(f"UPDATE users SET roles = '{roles}'")
    answer = await asker.verify(query)
    if status == 200:
        assert (answer.status_code, answer.headers["x-auth-roles"]) == (200, roles.strip("{}"))
    else:
        problem_of(answer, "insufficient_role", status)
        assert "www-authenticate" not in answer.headers
        assert not [name for name in answer.headers if name.startswith("x-auth-")]


async def test_a_role_that_is_given_or_taken_counts_at_once_whatever_the_token_says(asker: Asker) -> None:
    for roles, status in ((["admin"], 200), ([], 403)):
        await set_roles(asker.stage.rows, *roles)
        assert (await asker.verify("?role=admin")).status_code == status
        assert (await asker.introspect()).get("roles", []) == (["admin"] if status == 200 else [])


@swept(
    "query",
    [
        "roles=admin",
        "Role=admin",
        "role%20=admin",
        "role=admin&scope=a",
        "rôle=admin",
        "role[]=admin",
        "admin",
        "a=&b=",
    ],
)
async def test_any_other_parameter_is_refused_with_a_token_and_without(asker: Asker, query: str) -> None:
    for headers in (bearer(asker.token), {}):
        answer = await asker.stage.client.get(f"/v1/verify?{query}", headers=headers)
        problem = problem_of(answer, "invalid_request", 422)
        assert problem["errors"] == [
            {
                "field": "query",
                "message": "Accepts only the parameters 'role', which can be repeated, 'resource' and 'websites'",
            }
        ]
        assert "'uri /v1/verify?'" in problem["detail"]  # the line to write into a Caddyfile
        assert not [name for name in answer.headers if name.startswith("x-auth-")]


@swept("openid", ["小明", "a b", " a ", "a\r\nX-Auth-Roles: admin", "a\nb", "a%41", "\x7f", "é", "o'\"<>,;=\\"])
async def test_verify_sends_any_openid_in_ascii(asker: Asker, openid: str) -> None:
    await asker.stage.rows.execute("UPDATE identities SET openid = $1", openid)
    answer = await asker.verify()
    (value,) = [value for name, value in answer.headers.raw if name.lower() == b"x-auth-openid"]
    assert all(0x21 <= byte <= 0x7E for byte in value)
    assert unquote(value.decode()) == openid
    assert answer.headers["x-auth-roles"] == ""


async def test_verify_does_not_wait_for_a_body_that_the_proxy_kept(asker: Asker) -> None:
    headers = {**bearer(asker.token), "Content-Length": str(10**9), "Content-Type": "application/json"}
    assert (await asker.stage.client.request("GET", VERIFY, content=unread(), headers=headers)).status_code == 200


async def test_verify_refuses_a_websites_token_unless_the_proxy_accepts_websites(asker: Asker) -> None:
    client, forger = asker.stage.client, asker.forger
    with Sweep() as sweep:
        for scope in ("openid profile", "orders:read", "roles", ""):
            website = bearer(forger.with_claims(client_id="shop", app_id="wxother", scope=scope))
            for target in (
                VERIFY,
                f"{VERIFY}?role=admin",
                f"{VERIFY}/",
                f"{VERIFY}/orders",
                f"{VERIFY}/a?websites=true",
            ):
                with sweep.case(scope, target):
                    answer = await client.get(target, headers=website)
                    problem = problem_of(answer, "insufficient_scope", 403)
                    assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
                    assert problem["detail"] == "this service doesn't accept the tokens of websites and agents"
                    assert not identity(answer)
            with sweep.case(scope, "accepted"):
                passed = await client.get(f"{VERIFY}?websites=true", headers=website)
                assert (passed.status_code, passed.headers["x-auth-scope"]) == (200, scope)
    own = await asker.verify("?websites=true")
    assert (own.status_code, own.headers["x-auth-scope"]) == (200, "")


async def test_a_role_is_demanded_of_a_website_too(asker: Asker) -> None:
    await set_roles(asker.stage.rows, "clerk")
    for scope, status in (("openid", 403), ("openid roles", 200)):
        website = asker.forger.with_claims(client_id="shop", app_id="wxother", scope=scope)
        answer = await asker.stage.client.get(f"{VERIFY}?websites=true&role=clerk", headers=bearer(website))
        assert answer.status_code == status


@swept(
    "query",
    [
        *(
            "websites=",
            "websites",
            "websites=false",
            "websites=True",
            "websites=TRUE",
            "websites=1",
            "websites=true%20",
        ),
        *("websites=true&websites=true", "websites=true&websites=false", "websites=true&role=a&websites=true"),
        *("websites=true&resource=https://mcp.test", "resource=https://mcp.test&websites=true"),
        *("resource=https://mcp.test&websites=false", "websites=true&resource="),
    ],
)
async def test_any_other_value_of_websites_is_refused_with_a_token_and_without(asker: Asker, query: str) -> None:
    for headers in (bearer(asker.token), {}):
        answer = await asker.stage.client.get(f"{VERIFY}?{query}", headers=headers)
        problem_of(answer, "invalid_request", 422)


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "BREW", "get")
BELOW = [
    *(
        "/orders",
        "/",
        "//",
        "/a/b/c",
        "/%2e%2e/livez",
        "/..",
        "/../../livez",
        "/./a",
        "/..%2f..%2flivez",
        "/a%0a",
        "/%00",
    ),
    *("/%E8%8C%B6", "/%ff", "/%zz", "/a;b", "/v1/verify", "/orders/", "/metrics", "/admin/audit?role=admin"),
    *("/orders?role=admin&resource=https://other.test", "/orders?role=a&role=b&x=1", "/?a=b", "/?", "/orders?nonsense"),
    *(
        f"/orders?{'&'.join('a=b' for _ in range(300))}",
        "/orders?%zz",
        "/orders?resource=",
        "/?roles=admin",
        "/?Role=a",
    ),
]
"""The clients' paths and queries that gateways append to the URL."""


async def at(client: Client, target: str, *, method: str = "GET", **options: Any) -> httpx.Response:
    """Send a request with exactly this target. It is set in a private field, because httpx would normalize it."""
    url, (path, _, query) = httpx.URL("https://auth.test"), target.partition("?")
    url._uri_reference = url._uri_reference._replace(path=path, query=query if "?" in target else None)
    return await client.send(client.build_request(method, url, **options))


def identity(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("x-auth-")}


async def test_every_method_is_answered_alike(asker: Asker) -> None:
    client, passed = asker.stage.client, await asker.verify()
    with Sweep() as sweep:
        for method in METHODS:
            for path in (VERIFY, f"{VERIFY}/orders"):
                with sweep.case(method, path):
                    body = None if method in ("GET", "HEAD") else b"{" * 70_000
                    headers = {**bearer(asker.token), "Origin": "https://shop.test"}
                    headers |= {"Access-Control-Request-Method": "GET", "Content-Type": "x" * 300}
                    answer = await client.request(method, path, headers=headers, content=body)
                    assert (answer.status_code, answer.content) == (200, b"")
                    assert identity(answer) == identity(passed)
                    assert (await client.request(method, path)).status_code == 401
            with sweep.case(method, "role"):
                answer = await client.request(method, f"{VERIFY}?role=clerk", headers=bearer(asker.token))
                assert answer.status_code == 403
                answer = await client.request(method, f"{VERIFY}?rol=clerk", headers=bearer(asker.token))
                assert answer.status_code == 422


@pytest.mark.settings(cors_origins="https://shop.test")
async def test_a_preflight_passes_nobody(asker: Asker) -> None:
    asking = {"Origin": "https://shop.test", "Access-Control-Request-Method": "GET"}
    for path in (VERIFY, f"{VERIFY}/orders"):
        problem_of(await asker.stage.client.options(path, headers=asking), "missing_token", 401)


UNDER_A_PATH = pytest.param("/auth", marks=pytest.mark.settings(issuer="https://auth.test/auth"))


@pytest.mark.parametrize("root", ["", UNDER_A_PATH])
async def test_every_path_below_is_answered_as_the_path_itself(asker: Asker, root: str) -> None:
    client, passed, token = asker.stage.client, await asker.verify(), bearer(asker.token)
    with Sweep() as sweep:
        for below in BELOW:
            for prefix in {root, ""}:
                with sweep.case(prefix, below[:60]):
                    target = f"{prefix}{VERIFY}{below}"
                    answer = await at(client, target, headers=token)
                    assert answer.status_code == 200, answer.text
                    assert identity(answer) == identity(passed)
                    problem_of(await at(client, target), "missing_token", 401)
        named = ("role=admin", "resource=https://mcp.test", "a=b&role=", "role", "%72ole=a", "resource=&role=a")
        for query in (*named, "websites=true", "websites=false", "websites", "a=b&websites=", "%77ebsites=true"):
            with sweep.case(query):
                answer = await at(client, f"{root}{VERIFY}/?{query}", headers=token)
                problem_of(answer, "invalid_request", 422)
                problem_of(await at(client, f"{root}{VERIFY}/?{query}"), "invalid_request", 422)
        for other in ("/v1/verif", "/v1/verifyx", "/v1/verify%0a", "/v1//verify", "/x/v1/verify/"):
            with sweep.case(other):
                assert (await at(client, root + other, headers=token)).status_code in (400, 404)


# `/v1/introspect`.


@pytest.mark.parametrize("roles", [[], ["admin", "clerk"]])
async def test_a_valid_token_is_active_and_its_claims_are_returned(asker: Asker, roles: list[str]) -> None:
    await asker.stage.login("alice")
    await set_roles(asker.stage.rows, *roles)
    token = (await asker.stage.login("alice"))["access_token"]
    answer = await asker.introspect(token)
    assert answer == {"active": True, "token_type": "Bearer", **claims_of(token)}
    assert ("roles" in answer) is bool(roles)


async def test_an_added_claim_is_returned_and_pretends_nothing(asker: Asker) -> None:
    forged = asker.forger.with_claims(active=False, tier="gold")
    claims = claims_of(asker.token) | {"tier": "gold"}
    assert await asker.introspect(forged) == {"active": True, "token_type": "Bearer", **claims}


@swept("text", ["{refresh_token}", "{session_id}", "null", " ", "\0", "é", "eyJ" * 1000])
@pytest.mark.requirement("rfc7662-2.2")
async def test_any_other_token_is_not_active(asker: Asker, text: str) -> None:
    assert await asker.introspect(text.format(**asker.tokens)) == {"active": False}


@swept(
    "form",
    [
        "token={token}",
        "token={token}&token_type_hint=access_token",
        "token_type_hint=nonsense&token={token}&client_id=x",
        "&&token={token}&",
        "token={escaped}",
    ],
)
async def test_a_form_may_say_more_than_the_token(asker: Asker, form: str) -> None:
    content = form.format(token=asker.token, escaped="".join(f"%{byte:02x}" for byte in asker.token.encode()))
    for kind in ("application/x-www-form-urlencoded; charset=UTF-8", "text/plain"):
        headers = {**basic(*asker.billing), "Content-Type": kind}
        assert (await asker.stage.client.post(INTROSPECT, content=content, headers=headers)).json()["active"] is True


@swept(
    ("form", "field"),
    [
        ("", "token"),
        ("token", "token"),
        ("token=", "token"),
        ("token_type_hint=access_token", "token"),
        ("Token={token}", "token"),
        ("token={token}&token={token}", "token"),
        ('{{"token": "{token}"}}', "token"),
        ("{token}", "token"),
        ("&=&", "token"),
        ("token=\udcff{token}", "body"),
    ],
)
async def test_a_form_without_the_one_token_is_refused_and_not_echoed(asker: Asker, form: str, field: str) -> None:
    content = form.format(token=asker.token).encode(errors="surrogateescape")
    answer = await asker.stage.client.post(INTROSPECT, content=content, headers=basic(*asker.billing))
    assert [error["field"] for error in problem_of(answer, "invalid_request", 422)["errors"]] == [field]
    assert asker.token[:12] not in answer.text


@pytest.mark.no_database
async def test_the_body_of_a_stranger_is_not_read(client: Client) -> None:
    problem_of(await client.post(INTROSPECT, content=unread()), "invalid_client", 401)


# The credentials of service clients.


def altered(text: str) -> str:
    return ("A" if text[0] != "A" else "B") + text[1:]


@pytest.mark.requirement("rfc7662-2.1")
async def test_credentials_that_are_not_right_are_refused(asker: Asker, add_sibling: AddSibling) -> None:
    await add_sibling("ledger")
    name, secret = asker.billing
    wrong = [(name, altered(secret)), (name, sha256(secret.encode()).hexdigest()), (name, "")]
    wrong += [("ledger", secret), ("Billing", secret), (secret, name)]
    right = basic(*asker.billing)["Authorization"].removeprefix("Basic ")
    headers = [basic(*each)["Authorization"] for each in wrong]
    headers += [f"Basic {around.format(right, right)}" for around in ("!{}", "{}!", "{} {}")]
    with Sweep() as sweep:
        for header in headers:
            with sweep.case(header):
                answer = await asker.post({"Authorization": header})
                problem_of(answer, "invalid_client", 401)
                assert answer.headers.get_list("www-authenticate") == ["Basic"]
        for wrong_name, wrong_secret in wrong:
            with sweep.case(wrong_name, "in the form"):
                form = {"token": asker.token, "client_id": wrong_name, "client_secret": wrong_secret}
                answer = await asker.stage.client.post(INTROSPECT, data=form)
                problem_of(answer, "invalid_client", 401)


async def test_the_credentials_may_be_in_the_form(asker: Asker) -> None:
    client, form = asker.stage.client, {"token": asker.token, **asker.billing._asdict()}
    told = await client.post(INTROSPECT, data=form)
    assert (told.status_code, told.json()) == (200, await asker.introspect())
    told = await client.post(INTROSPECT, data={**form, "token": "x"})
    assert told.json() == {"active": False}
    both = await client.post(INTROSPECT, data=form, headers=basic(*asker.billing))
    problem_of(both, "invalid_request", 400)
    twice = [*form.items(), ("client_id", "billing")]
    answer = await client.post(INTROSPECT, content=urlencode(twice), headers={"Content-Type": FORM})
    problem_of(answer, "invalid_request", 400)
    as_json = await client.post(INTROSPECT, json=form)
    problem_of(as_json, "invalid_client", 401)
    told = (await client.get("/.well-known/openid-configuration")).json()
    expected = ["client_secret_basic", "client_secret_post"]
    assert told["introspection_endpoint_auth_methods_supported"] == expected


@swept("scheme", ["Basic", "basic", "BASIC", "Basic  "])
async def test_the_scheme_takes_any_case_and_the_credentials_may_be_escaped(asker: Asker, scheme: str) -> None:
    for given in (asker.billing, ["".join(f"%{byte:02X}" for byte in text.encode()) for text in asker.billing]):
        headers = basic(*given, scheme=scheme)
        assert (await asker.post(headers)).json()["active"] is True
