"""`/v1/admin/clients`: what `wxauth clients` does, for administrators."""

from asyncio import gather
from typing import Any

import httpx
import pytest

from tests.fakes import Clock, Secrets
from tests.problems import problem_of
from tests.world import Admin, Body, Client, LogIn, MakeClient, MakeServices, Rows

NO_SITE: Body = {
    **{"title": None, "is_public": False, "device": False, "redirect_uris": [], "logout_uris": [], "app_id": None},
    **{"account_app_id": None, "website_app_id": None, "link": False, "phone_id_token": False},
    **{"near": False, "user_code": False, "email_domain": None, "sso": False, "pkce": "required", "id_token_alg": None},
    "claims": None,
    "backchannel_logout_uri": None,
}
SITE: Body = {
    "title": "小店",
    "scopes": ["users", "openid", "roles"],
    "is_public": False,
    "device": True,
    "redirect_uris": ["https://shop.example.com/callback", "http://127.0.0.1/callback"],
    "logout_uris": ["https://shop.example.com/"],
    "app_id": "wx1a2b3c4d5e6f7a8b",
    "account_app_id": None,
    "website_app_id": None,
    "near": True,
    "user_code": True,
    "email_domain": "example.com",
    "sso": False,
    "id_token_alg": "ES256",
}
REFUSED_OF_A_SITE: list[tuple[str, dict[str, Any]]] = [
    ("redirect_uris", {"redirect_uris": ["https://shop.example.com/callback", "http://shop.example.com/"]}),
    ("redirect_uris", {"redirect_uris": [], "device": False}),
    ("logout_uris", {"logout_uris": ["https://*.example.com/"]}),
    ("logout_uris", {"redirect_uris": []}),
    ("sso", {"sso": True}),
    ("sso", {"sso": True, "near": False, "redirect_uris": [], "logout_uris": []}),
    ("phone_id_token", {"phone_id_token": True}),
    ("phone_id_token", {"phone_id_token": True, "near": False, "scopes": ["users", "phone"]}),
    ("scopes", {"scopes": ["openid", "everything"]}),
    ("scopes", {"scopes": ["wxauth:admin"]}),
    ("scopes", {"scopes": []}),
    ("scopes", {"scopes": None}),
    ("title", {"title": ""}),
    ("title", {"title": "a\nb"}),
    ("title", {"title": "\u3000 "}),
    ("title", {"title": "\u202epohS"}),
    ("app_id", {"app_id": "wx 1"}),
    ("account_app_id", {"account_app_id": "wx0000000000000000"}),
    ("website_app_id", {"website_app_id": "wx0000000000000000"}),
    ("title", {"title": "a" * 65}),
    ("email_domain", {"email_domain": "a@example.com"}),
    ("email_domain", {"email_domain": "example"}),
    ("id_token_alg", {"id_token_alg": "HS256"}),
    ("id_token_alg", {"id_token_alg": "none"}),
    ("is_public", {"is_public": True}),
    ("device", {"device": "perhaps"}),
]
BAD_URIS = [
    "http://shop.example.com/callback",
    "https://shop.example.com/callback#part",
    "https://user@shop.example.com/",
    "https://*.example.com/callback",
    "https://shop.example.com/*",
    "https://shop.example.com\\@evil.example/",
    "https://",
    "shop.example.com/callback",
    "javascript:alert(1)",
    "com.example.shop:/callback",
    "https://shop.example.com/call back",
    "https://shop.example.com:0/",
    "https://shop.example.com:99999/",
    "https://商店.example.com/",
    "http://127.0.0.1.example.com/",
    "",
]
REFUSED_OF_A_SITE += [(name, {name: [uri]}) for name in ("redirect_uris", "logout_uris") for uri in BAD_URIS]
ROUTES = [
    ("GET", "/clients", None),
    ("POST", "/clients", {"name": "billing"}),
    ("PATCH", "/clients/billing", {"scopes": ["events"]}),
    ("DELETE", "/clients/billing", None),
    ("POST", "/clients/billing/secret", None),
]


async def add(root: Admin, secrets: Secrets, **fields: Any) -> dict[str, Any]:
    answer = await root.ask("POST", "/clients", json={"name": "billing", **fields})
    assert answer.status_code == 200, answer.text
    secrets.add_unlogged(answer.json()["client_secret"])
    return answer.json()


async def is_admitted(client: Client, secret: str) -> bool:
    answer = await client.post("/v1/introspect", data={"token": "x"}, auth=httpx.BasicAuth("billing", secret))
    return answer.status_code == 200


async def test_a_client_that_is_added_may_ask_until_it_is_removed(
    root: Admin, client: Client, secrets: Secrets
) -> None:
    added = await add(root, secrets)
    [listed] = (await root.read("/clients"))["items"]
    assert listed == {
        **{"name": "billing", "scopes": ["introspect"], **NO_SITE},
        **{"created_at": "2026-11-20T08:00:00Z", "former_secret_until": None},
    }
    assert added == {**listed, "client_id": "billing", "client_secret": added["client_secret"]}
    assert await is_admitted(client, added["client_secret"])
    assert (await root.ask("DELETE", "/clients/billing")).status_code == 204
    assert not await is_admitted(client, added["client_secret"])
    assert (await root.read("/clients")) == {"items": [], "next_cursor": None}


async def test_a_clients_scopes_are_replaced(root: Admin, client: Client, secrets: Secrets) -> None:
    secret = (await add(root, secrets, scopes=["users", "introspect", "users"]))["client_secret"]
    assert (await root.read("/clients"))["items"][0]["scopes"] == ["introspect", "users"]
    changed = await root.ask("PATCH", "/clients/billing", json={"scopes": ["events"]})
    assert changed.json()["scopes"] == ["events"]
    assert not await is_admitted(client, secret)
    for wrong in ([], ["everything"], None):
        body = {} if wrong is None else {"scopes": wrong}
        problem_of(await root.ask("PATCH", "/clients/billing", json=body), "invalid_request", 422)


async def test_a_renewed_secret_leaves_the_former_one_a_day(
    root: Admin, client: Client, secrets: Secrets, clock: Clock, login: LogIn
) -> None:
    former = (await add(root, secrets))["client_secret"]
    renewed = (await root.ask("POST", "/clients/billing/secret")).json()
    secrets.add_unlogged(renewed["client_secret"])
    assert await is_admitted(client, former)
    assert await is_admitted(client, renewed["client_secret"])
    assert (await root.read("/clients"))["items"][0]["former_secret_until"] == "2026-11-21T08:00:00Z"
    clock.advance(hours=24, seconds=-1)
    assert await is_admitted(client, former)
    clock.advance(seconds=1)
    assert not await is_admitted(client, former)
    assert await is_admitted(client, renewed["client_secret"])
    again = Admin(client, await login("root"))
    assert (await again.read("/clients"))["items"][0]["former_secret_until"] is None


async def test_a_taken_or_impossible_name_is_refused_and_one_that_is_not_there_not_found(
    root: Admin, secrets: Secrets
) -> None:
    await add(root, secrets)
    problem_of(await root.ask("POST", "/clients", json={"name": "billing"}), "name_taken", 409)
    for name in ("a", "0", "a" * 64, "bill-ing_2", "systems"):
        await add(root, secrets, name=name)
    for name in ("", "Billing", "a" * 65, "operator", "system", "wechat", root.id):
        problem = problem_of(await root.ask("POST", "/clients", json={"name": name}), "invalid_request", 422)
        assert problem["errors"][0]["field"] == "name"
    for method, path, body in ROUTES[2:]:
        refused = await root.ask(method, path.replace("billing", "nobody"), json=body)
        problem_of(refused, "not_found", 404)


@pytest.mark.oldest_postgres
async def test_the_trail_names_the_administrator(root: Admin, secrets: Secrets) -> None:
    await add(root, secrets)
    for method, path, body in ROUTES[2:]:
        await root.ask(method, path, json=body)
    events = [(event["type"], event["actor"], event["data"].get("name")) for event in await root.events()]
    assert all((actor, name) == (root.id, "billing") for _, actor, name in events)
    assert {kind for kind, _, _ in events} >= {"client.added", "client.changed", "client.removed"}


async def test_wxauths_own_names_stay_its_own(root: Admin) -> None:
    for method, path, body in (
        ("POST", "/clients", {"name": "wxauth-other"}),
        ("PATCH", "/clients/wxauth-admin", {"scopes": ["users"]}),
        ("POST", "/clients/wxauth-admin/secret", None),
        ("DELETE", "/clients/wxauth-admin", None),
    ):
        problem_of(await root.ask(method, path, json=body), "invalid_request", 422)
    assert (await root.read("/clients"))["items"] == []


# Sites.


def field_of(refused: httpx.Response) -> str:
    [error] = problem_of(refused, "invalid_request", 422)["errors"]
    return error["field"]


async def test_a_site_is_added_with_all_that_the_command_takes_and_logs_people_in(
    root: Admin, client: Client, secrets: Secrets
) -> None:
    added = await add(root, secrets, name="shop", **SITE)
    [listed] = (await root.read("/clients"))["items"]
    assert {name: listed[name] for name in SITE} == SITE
    assert added == {**listed, "client_id": "shop", "client_secret": added["client_secret"]}
    auth = httpx.BasicAuth("shop", added["client_secret"])
    started = await client.post("/v1/device_authorization", data={"browser_ip": "198.51.100.7"}, auth=auth)
    assert started.status_code == 200
    assert (await root.events())[0]["data"] == {"name": "shop", "scopes": SITE["scopes"]}


async def test_a_site_is_changed_in_what_is_named_and_the_rest_stays(root: Admin, secrets: Secrets) -> None:
    before = await add(root, secrets, name="shop", **SITE)
    changes = {"title": None, "scopes": ["phone"], "redirect_uris": ["https://shop.example.com/new"], "near": False}
    answer = await root.ask("PATCH", "/clients/shop", json=changes)
    assert answer.status_code == 200, answer.text
    shown = {name: before[name] for name in before if not name.startswith("client_")}
    assert answer.json() == {**shown, **changes, "title": "shop"}
    assert (await root.read("/clients"))["items"] == [answer.json()]
    cleared: Body = {"logout_uris": [], "app_id": None, "email_domain": None, "user_code": None, "device": False}
    after = (await root.ask("PATCH", "/clients/shop", json=cleared)).json()
    assert after == {**answer.json(), **cleared, "user_code": False}
    assert (await root.ask("PATCH", "/clients/shop", json=cleared)).json() == after  # nothing is changed, nor told
    events = [event["data"] for event in await root.events() if event["type"] == "client.changed"]
    assert [sorted(data["fields"]) for data in events] == [
        ["app_id", "device", "email_domain", "logout_uris", "user_code"],
        ["near", "redirect_uris", "scopes", "title"],
    ]
    assert events[0]["scopes"] == ["phone"]


async def test_a_sites_claims_are_set_and_cleared_and_a_client_for_phones_has_no_uri(
    root: Admin, secrets: Secrets
) -> None:
    added = await add(root, secrets, name="supabase", phone_id_token=True, claims={"team": "a"})
    assert (added["phone_id_token"], added["claims"], added["redirect_uris"]) == (True, {"team": "a"}, [])
    assert (await root.ask("PATCH", "/clients/supabase", json={"claims": None})).json()["claims"] is None
    for wrong in ({"sub": "x"}, {"x": "$nickname"}, {"x": "y" * 1024}):
        assert field_of(await root.ask("PATCH", "/clients/supabase", json={"claims": wrong})) == "claims"


async def test_of_two_changes_at_once_neither_is_lost(root: Admin, secrets: Secrets) -> None:
    await add(root, secrets, name="shop", **SITE)
    changes: list[Body] = [{"title": "Shop"}, {"near": False}, {"email_domain": "example.org"}, {"scopes": ["openid"]}]
    answers = await gather(*(root.ask("PATCH", "/clients/shop", json=change) for change in changes))
    assert [answer.status_code for answer in answers] == [200] * len(changes)
    [listed] = (await root.read("/clients"))["items"]
    assert {name: listed[name] for name in SITE} == {**SITE, **changes[0], **changes[1], **changes[2], **changes[3]}


async def test_a_change_of_a_site_does_not_wait_for_scans_that_are_just_starting(
    root: Admin, secrets: Secrets, rows: Rows
) -> None:
    await add(root, secrets, name="shop", **SITE)
    async with rows.transaction():
        await rows.execute("SELECT FROM clients FOR KEY SHARE")  # as a new scan's foreign key does
        assert (await root.ask("PATCH", "/clients/shop", json={"title": "Shop"})).json()["title"] == "Shop"


async def test_an_invalid_field_of_a_site_is_refused_by_its_name_and_changes_nothing(
    root: Admin, secrets: Secrets
) -> None:
    await add(root, secrets, name="shop", **SITE)
    before = await root.read("/clients")
    wrong = [await root.ask("PATCH", "/clients/shop", json=changes) for _, changes in REFUSED_OF_A_SITE]
    assert [field_of(refused) for refused in wrong] == [field for field, _ in REFUSED_OF_A_SITE]
    assert await root.read("/clients") == before
    for field, fields in (
        ("is_public", {"redirect_uris": SITE["redirect_uris"], "is_public": True, "device": True}),
        ("scopes", {"redirect_uris": SITE["redirect_uris"], "is_public": True, "scopes": ["users"]}),
        ("is_public", {"is_public": True}),
        ("title", {"title": "小店"}),
        ("scopes", {"scopes": ["openid"]}),
        ("claims", {"claims": {"team": "a"}}),
        ("name", {"name": "wx1a2b3c4d5e6f7a8b", "device": True}),
    ):
        refused = await root.ask("POST", "/clients", json={"name": "other", **fields})
        assert field_of(refused) == field, fields
    assert await root.read("/clients") == before


async def test_no_site_has_a_name_for_which_serve_would_not_start_again(
    make_services: MakeServices, make_client: MakeClient, root: Admin
) -> None:
    client = make_client(await make_services(audience="shop"))
    refreshed = await client.post("/v1/refresh", json={"refresh_token": root.answer["refresh_token"]})
    root = Admin(client, refreshed.json())
    assert field_of(await root.ask("POST", "/clients", json={"name": "shop", "device": True})) == "name"
    await root.ask("POST", "/clients", json={"name": "shop"})
    assert field_of(await root.ask("PATCH", "/clients/shop", json={"device": True})) == "name"


async def test_a_service_becomes_a_site_and_remains_a_site(root: Admin, client: Client, secrets: Secrets) -> None:
    secret = (await add(root, secrets, scopes=["introspect"]))["client_secret"]
    site = (await root.ask("PATCH", "/clients/billing", json={"device": True})).json()
    assert (site["title"], site["scopes"]) == ("billing", ["introspect", "openid", "profile"])
    auth = httpx.BasicAuth("billing", secret)
    assert (await client.post("/v1/device_authorization", auth=auth)).status_code == 200
    assert field_of(await root.ask("PATCH", "/clients/billing", json={"device": False})) == "redirect_uris"


async def test_a_public_site_has_no_secret_and_is_given_none(root: Admin, rows: Rows) -> None:
    page = {"name": "page", "is_public": True, "redirect_uris": ["https://page.example.com/"]}
    added = (await root.ask("POST", "/clients", json=page)).json()
    assert (added["is_public"], added["client_secret"], added["title"]) == (True, None, "page")
    before = await rows.fetch("SELECT * FROM clients")
    assert field_of(await root.ask("POST", "/clients/page/secret")) == "name"
    assert await rows.fetch("SELECT * FROM clients") == before
    assert [event["type"] for event in await root.events()] == ["client.added"]
    assert field_of(await root.ask("PATCH", "/clients/page", json={"is_public": False})) == "is_public"
    assert (await root.ask("PATCH", "/clients/page", json={"is_public": True, "near": True})).status_code == 200


async def test_a_sites_renewed_secret_is_shown_with_all_its_scopes(root: Admin, secrets: Secrets) -> None:
    await add(root, secrets, name="shop", **SITE)
    renewed = (await root.ask("POST", "/clients/shop/secret")).json()
    secrets.add_unlogged(renewed.pop("client_secret"))
    assert renewed == {"name": "shop", "client_id": "shop", "scopes": SITE["scopes"]}
