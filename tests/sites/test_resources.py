"""A site asks for a token for one service, and no other service accepts this token (RFC 8707)."""

from typing import Any

import httpx
import pytest
from jose.jwt import get_unverified_claims

from tests.problems import problem_of
from tests.sites.browsers import House, refused, sent
from tests.sites.protected import FILES, MCP, RESOURCES
from tests.sweeps import swept
from tests.world import Body, Site, add_client, bearer, body_of, make_admin, set_roles
from wxauth.clients.models import SITE_SCOPE_NAMES, Scope
from wxauth.settings.resources import OWN_SCOPES
from wxauth.settings.settings import InvalidSettings
from wxauth.users.callers import ADMIN_SCOPE

ENTRY: dict[str, Any] = RESOURCES[0]


pytestmark = [
    pytest.mark.settings(resources=RESOURCES, refresh_token_ttl=600, web_session_ttl=300),
    pytest.mark.shop(device=True, resources=[MCP], scopes=["openid", "profile", "roles", "introspect"]),
]


async def asked(house: House, **parameters: Any) -> Body:
    """Return the tokens that the shop gets for a resource, which is the first resource by default."""
    return await house.tokens(**{"resource": MCP, "scope": None, **parameters})


async def test_a_token_is_for_the_service_that_it_was_asked_for(house: House) -> None:
    await set_roles(house.stage.rows, "editor")
    tokens = await asked(house, scope="openid roles orders:write nonsense", resource="HTTPS://MCP.Test:443/mcp")
    claims = get_unverified_claims(tokens["access_token"])
    assert (claims["aud"], claims["scope"], claims["client_id"]) == (MCP, "openid roles orders:write", "shop")
    assert (claims["roles"], claims["openid"]) == (["editor"], house.phone.tokens["user"]["openid"])
    assert claims["auth_time"] == int(house.stage.clock().timestamp())
    assert (claims["sub"], claims.keys() >= {"sid", "app_id"}) == (house.phone.user_id, True)
    assert "id_token" in tokens
    assert "auth_time" not in get_unverified_claims((await house.tokens())["access_token"])


async def test_without_scope_it_has_the_services_scopes_by_every_grant(house: House) -> None:
    tokens = await asked(house)
    assert (tokens["scope"], "id_token" in tokens) == ("orders:read orders:write", False)
    assert body_of(await house.shop.refresh(tokens, resource=MCP))["scope"] == "orders:read orders:write"
    started = await house.approved(resource=MCP, scope="orders:read")
    refused(await house.shop.poll(started, resource=FILES), "invalid_target")
    tokens = body_of(await house.shop.poll(started))
    assert get_unverified_claims(tokens["access_token"])["aud"] == MCP


@swept(
    ("parameters", "error"),
    [
        ({"resource": [MCP, MCP], "state": ["a", "b"]}, "invalid_target"),
        ({"resource": f"{MCP}/"}, "invalid_target"),
        ({"resource": MCP[:-1]}, "invalid_target"),
        ({"resource": MCP.replace("https", "http")}, "invalid_target"),
        ({"resource": f"{MCP}?a=1"}, "invalid_target"),
        ({"resource": MCP.replace("/mcp", "/MCP")}, "invalid_target"),
        ({"resource": FILES}, "invalid_target"),
        ({"resource": "https://other.test"}, "invalid_target"),
        ({"resource": "wxauth"}, "invalid_target"),
        ({"resource": MCP, "scope": "files"}, "invalid_scope"),
        ({"resource": MCP, "prompt": "none"}, "consent_required"),
    ],
)
@pytest.mark.requirement("rfc8707-2")
async def test_what_cannot_be_asked_for_is_sent_back(house: House, parameters: Body, error: str) -> None:
    answer = sent(await house.browser.open(**parameters))
    assert (answer["error"], "only openid" in answer["error_description"]) == (error, error == "invalid_scope")
    device = {name: value for name, value in parameters.items() if name in ("resource", "scope")}
    if error != "consent_required":
        refused(await house.shop.post("/v1/device_authorization", **device), error)


async def test_an_empty_path_is_a_slash(house: House) -> None:
    await house.change(resources=[FILES])
    assert get_unverified_claims((await asked(house, resource=f"{FILES}/"))["access_token"])["aud"] == FILES


@pytest.mark.requirement("rfc8707-2.2")
async def test_the_token_endpoint_takes_the_resource_that_was_granted_or_none(house: House) -> None:
    code = await house.code(resource=MCP)
    for wrong in (FILES, "https://other.test", f"{MCP}/"):
        refused(await house.redeem(code, resource=wrong), "invalid_target")
    tokens = body_of(await house.redeem(code, resource="https://MCP.test/mcp"))
    refused(await house.shop.refresh(tokens, resource=FILES), "invalid_target")
    tokens = body_of(await house.shop.refresh(body_of(await house.shop.refresh(tokens)), resource=MCP))
    ordinary = await house.tokens()
    refused(await house.shop.refresh(ordinary, resource=MCP), "invalid_target")
    form: Body = {"resource": [MCP, MCP], "a": ["1", "2"], "refresh_token": "x"}
    refused(await house.shop.post("/v1/token", **form), "invalid_target")
    for still in (tokens, ordinary):
        assert (await house.shop.refresh(still)).status_code == 200


async def test_below_v1_verify_only_tokens_of_wxauths_own_audience_pass(house: House) -> None:
    token, client = bearer(await asked(house)), house.stage.client
    assert (await client.get(f"/v1/verify?resource={MCP}", headers=token)).status_code == 200
    for path in ("/v1/verify", "/v1/verify/orders", f"/v1/verify/orders?resource={MCP}", f"/v1/verify/{MCP}"):
        problem_of(await client.get(path, headers=token), "invalid_token", 401)
    assert (await client.get("/v1/verify/orders", headers=bearer(house.phone.tokens))).status_code == 200


@swept(
    ("scope", "granted"),
    [
        ("offline_access", "orders:read orders:write"),
        ("openid", "orders:read orders:write"),
        ("openid profile offline_access", "orders:read orders:write"),
        ("profile  offline_access", "orders:read orders:write"),
        ("offline_access orders:read", "orders:read"),
        ("openid orders:write offline_access", "openid orders:write"),
        ("openid nonsense", "openid"),
        ("openid roles", "openid roles"),
    ],
)
async def test_a_scope_that_names_nothing_of_the_service_is_as_none(house: House, scope: str, granted: str) -> None:
    house.stage.clock.advance(minutes=1)
    tokens = await asked(house, scope=scope)
    assert tokens["scope"] == granted
    started = await house.approved(resource=MCP, scope=scope)
    assert body_of(await house.shop.poll(started))["scope"] == granted


@swept(
    ("resource", "granted", "scope", "refreshed"),
    [
        (MCP, "orders:read", "openid", "orders:read"),
        (MCP, "orders:read", "openid profile offline_access", "orders:read"),
        (MCP, "orders:read", "profile", "orders:read"),
        (MCP, "orders:read", "", "orders:read"),
        (MCP, "openid orders:read", "openid", "openid orders:read"),
        (MCP, "openid orders:read orders:write", "orders:read offline_access", "orders:read"),
        (MCP, "openid orders:read orders:write", "openid orders:read", "openid orders:read"),
        (MCP, "orders:read", "openid orders:read", None),
        (MCP, "orders:read", "offline_access orders:write", None),
        (None, "openid profile roles", "openid", "openid"),
        (None, "openid profile roles", "profile openid offline_access", "openid profile"),
        (None, "openid profile roles", "offline_access", "openid profile roles"),
        (None, "profile roles", "openid", None),
    ],
)
async def test_a_refresh_that_names_nothing_of_the_service_gets_what_was_granted(
    house: House, resource: str | None, granted: str, scope: str, refreshed: str | None
) -> None:
    house.stage.clock.advance(seconds=30)
    tokens = await house.tokens(scope=granted, resource=resource)
    for named in ({}, {"resource": resource} if resource else {}):
        answer = await house.shop.refresh(tokens, scope=scope, **named)
        if refreshed is None:
            refused(answer, "invalid_scope")
        else:
            tokens = body_of(answer)
            assert tokens["scope"] == refreshed


@swept(
    ("scope", "granted"),
    [
        ("openid", "openid"),
        ("profile", "profile"),
        ("openid profile offline_access", "openid profile"),
        ("openid roles", "openid roles"),
        ("offline_access", "openid profile roles"),
        ("", "openid profile roles"),
        (None, "openid profile roles"),
    ],
)
async def test_without_a_service_a_site_gets_no_more_than_it_asks_for(
    house: House, scope: str | None, granted: str
) -> None:
    house.stage.clock.advance(minutes=1)
    assert (await house.tokens(scope=scope, resource=None))["scope"] == granted
    asked_for: dict[str, Any] = {} if scope is None else {"scope": scope}
    assert body_of(await house.shop.poll(await house.approved(**asked_for)))["scope"] == granted


async def test_offline_access_refuses_nothing(house: House) -> None:
    tokens = await house.tokens(scope="offline_access", resource=None)
    assert tokens["scope"] == "openid profile roles"
    tokens = await house.tokens(scope="openid offline_access", resource=None)
    assert tokens["scope"] == "openid"
    for scope in ("offline_access", "openid offline_access", "offline_access openid"):
        tokens = body_of(await house.shop.refresh(tokens, scope=scope))
        assert tokens["scope"] == "openid"
    tokens = await asked(house)
    for scope in ("offline_access", "offline_access orders:read orders:write"):
        tokens = body_of(await house.shop.refresh(tokens, scope=scope))
        assert tokens["scope"] == "orders:read orders:write"
    assert body_of(await house.shop.refresh(tokens, scope="orders:read offline_access"))["scope"] == "orders:read"
    refused(await house.shop.refresh(tokens, scope="offline_access files"), "invalid_scope")


async def test_scopes_are_not_widened_at_a_refresh_and_end_with_the_setting(house: House) -> None:
    tokens = await asked(house, scope="orders:read")
    for wider in ("orders:read orders:write", "openid orders:read", "files"):
        refused(await house.shop.refresh(tokens, scope=wider), "invalid_scope")
    both = await asked(house)
    narrow = body_of(await house.shop.refresh(both, scope="orders:write"))
    assert narrow["scope"] == "orders:write"
    assert body_of(await house.shop.refresh(narrow))["scope"] == "orders:read orders:write"
    writing = {**ENTRY, "scopes": {"orders:write": "替你下单、退单"}}
    for resources, left in (([writing, RESOURCES[1]], "orders:write"), (RESOURCES[1:], None), ([], None)):
        at = Site(await house.stage.make(resources=resources), "shop", house.shop.secret)
        answer = await at.refresh(narrow)
        if left is None:
            refused(answer, "invalid_target")
            refused(await at.refresh(narrow, resource=MCP), "invalid_target")
        else:
            assert body_of(answer)["scope"] == left
            refused(await at.refresh(tokens), "invalid_grant")
    code = await house.code(resource=MCP)
    await house.change(resources=[])
    refused(await house.redeem(code), "invalid_target")
    refused(await house.shop.refresh(tokens), "invalid_target")


async def test_a_session_lives_as_long_as_the_phones(house: House) -> None:
    tokens = await asked(house)
    house.stage.clock.advance(seconds=599)
    tokens = body_of(await house.shop.refresh(tokens))
    house.stage.clock.advance(seconds=601)
    refused(await house.shop.refresh(tokens), "invalid_grant")


@pytest.mark.requirement("rfc8707-3")
async def test_our_own_routes_accept_none_of_these_tokens(house: House) -> None:
    await set_roles(house.stage.rows, "admin")
    tokens = await asked(house, scope="openid roles orders:read")
    for path in ("/v1/me", "/v1/me/sessions", "/v1/userinfo", "/v1/admin/users", "/v1/verify"):
        problem_of(await house.stage.client.get(path, headers=bearer(tokens)), "invalid_token", 401)
    assert (await house.stage.client.post("/v1/logout", headers=bearer(tokens))).status_code == 401
    assert (await house.shop.refresh(tokens)).status_code == 200
    assert (await house.shop.post("/v1/revoke", token=tokens["access_token"])).status_code == 200
    refused(await house.shop.refresh(tokens), "invalid_grant")


async def test_a_proxy_admits_the_tokens_of_its_resource_alone(house: House) -> None:
    tokens, ordinary = await asked(house), await house.tokens()

    async def verify(query: str, with_tokens: Body) -> httpx.Response:
        return await house.stage.client.get(f"/v1/verify?{query}", headers=bearer(with_tokens))

    admitted = await verify(f"resource={MCP}", tokens)
    assert (admitted.status_code, admitted.headers["x-auth-user-id"]) == (200, house.phone.user_id)
    assert (await verify("resource=https://MCP.test:443/mcp", tokens)).status_code == 200
    for query, sender in (("", tokens), (f"resource={FILES}", tokens), (f"resource={MCP}", ordinary)):
        assert (await verify(query, sender)).status_code == 401, query
    for wrong in ("resource=https://other.test", f"resource={MCP}/", f"resource={MCP}&resource={MCP}", "resource="):
        problem_of(await verify(wrong, tokens), "invalid_request", 422)


@pytest.mark.requirement("rfc7662-4")
async def test_a_service_sees_the_tokens_of_its_own_resources_alone(house: House) -> None:
    tokens, ordinary, now = await asked(house), await house.tokens(), house.stage.clock()
    for name, resources in (("mcp", [MCP]), ("files", [FILES]), ("billing", [])):
        service = await add_client(
            house.stage.services.database, name, scopes=["introspect"], resources=resources, now=now
        )
        shown = [
            body_of(await house.stage.client.post("/v1/introspect", data={"token": each["access_token"]}, auth=service))
            for each in (tokens, ordinary, house.phone.tokens)
        ]
        assert [each["active"] for each in shown] == [name == "mcp", name == "billing", name == "billing"]
        for each in shown:
            assert each["active"] or each == {"active": False}
        if name == "mcp":
            assert (shown[0]["aud"], shown[0]["scope"]) == (MCP, "orders:read orders:write")


async def test_discovery_names_each_scope_once(house: House) -> None:
    document = body_of(await house.stage.client.get("/.well-known/oauth-authorization-server"))
    assert document["scopes_supported"] == [*SITE_SCOPE_NAMES, "orders:read", "orders:write", "files"]
    assert "client_id_metadata_document_supported" not in document


async def test_a_client_is_added_with_resources_that_there_are(house: House) -> None:
    desk = await make_admin(house.stage.client, house.stage.rows, house.phone.tokens)
    added = await desk.ask("POST", "/clients", json={"name": "mcp", "resources": ["https://MCP.test:443/mcp", MCP]})
    assert body_of(added)["resources"] == [MCP]
    for wrong in ("https://other.test", MCP[:-1]):
        answer = await desk.ask("PATCH", "/clients/mcp", json={"resources": [wrong]})
        assert [error["field"] for error in problem_of(answer, "invalid_request", 422)["errors"]] == ["resources"]
    assert body_of(await desk.ask("PATCH", "/clients/mcp", json={"resources": None}))["resources"] == []


@swept(
    ("resources", "named"),
    [
        ([{**ENTRY, "resource": url}], "[0].resource")
        for url in (
            *("http://mcp.test/mcp", "https://MCP.test/mcp", "https://a@mcp.test/", "https://mcp.test/?a", "mcp.test"),
            *("https://mcp.test/#a", "https://", f"https://mcp.test/{'a' * 500}", "https://mcp.test:0/", "wxauth"),
        )
    ]
    + [
        ([ENTRY, {**ENTRY, "resource": f"{MCP[:16]}:443/mcp"}], "[1].resource"),
        ([{**ENTRY, "title": ""}], "[0].title"),
        *(([{**ENTRY, "title": f"一{it}二"}], "[0].title") for it in "\n\t\x85\u2028\x00\u202e"),
        ([{**ENTRY, "title": "\u2800 "}], "[0].title"),
        ([{**ENTRY, "title": "x" * 65}], "[0].title"),
        ([{**ENTRY, "scopes": {}}], "[0].scopes"),
        ([{**ENTRY, "scopes": {f"s{n}": "x" for n in range(51)}}], "[0].scopes"),
        ([{**ENTRY, "scopes": {"a b": "x"}}], "[0].scopes"),
        ([{**ENTRY, "scopes": {"a": "x" * 65}}], "[0].scopes"),
        ([{**ENTRY, "colour": "red"}], "[0]"),
        ([{"resource": MCP, "title": "x"}], "[0].scopes"),
        ("[{]", ""),
        *(([{**ENTRY, "scopes": {own: "x"}}], "[0].scopes") for own in sorted(OWN_SCOPES)),
    ],
)
def test_a_wrong_entry_is_named(make_settings: Any, resources: Any, named: str) -> None:
    with pytest.raises(InvalidSettings) as refusal:
        make_settings(resources=resources)
    (problem,) = refusal.value.problems
    assert problem.startswith(f"WXAUTH_RESOURCES{named}"), problem


def test_scopes_of_ours_are_those_that_there_are(make_settings: Any) -> None:
    assert {*SITE_SCOPE_NAMES, *Scope, ADMIN_SCOPE} == OWN_SCOPES
    allowed = [{"resource": "http://127.0.0.1:9/", "title": "小店\u3000助手 ", "scopes": {"!#[]~": "x" * 64}}]
    assert make_settings(resources=allowed).resources[0].resource == "http://127.0.0.1:9/"
