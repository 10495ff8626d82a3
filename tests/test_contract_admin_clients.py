"""`/v1/admin/clients`: what `wxauth clients` does, for administrators."""

from typing import Any

import asyncpg
import httpx
import pytest

from tests.asking import bearer
from tests.fakes import Clock, LoginAnswer, Secrets
from tests.problems import problem_of
from tests.test_contract_admin import Admin, make_admin

ROUTES = [
    ("GET", "/clients", None),
    ("POST", "/clients", {"name": "billing"}),
    ("PATCH", "/clients/billing", {"scopes": ["events"]}),
    ("DELETE", "/clients/billing", None),
    ("POST", "/clients/billing/secret", None),
]


@pytest.fixture
async def root(client: httpx.AsyncClient, login: LoginAnswer, rows: asyncpg.Connection) -> Admin:
    return await make_admin(client, rows, await login("root"))


async def add(root: Admin, secrets: Secrets, **fields: Any) -> dict[str, Any]:
    answer = await root.ask("POST", "/clients", json={"name": "billing", **fields})
    assert answer.status_code == 200, answer.text
    secrets.add_unlogged(answer.json()["client_secret"])
    return answer.json()


async def is_let_in(client: httpx.AsyncClient, secret: str) -> bool:
    answer = await client.post("/v1/introspect", data={"token": "x"}, auth=httpx.BasicAuth("billing", secret))
    return answer.status_code == 200


async def test_a_client_that_is_added_may_ask_until_it_is_removed(
    root: Admin, client: httpx.AsyncClient, secrets: Secrets
) -> None:
    added = await add(root, secrets)
    assert added.keys() == {"name", "client_id", "client_secret", "scopes"}
    assert (added["name"], added["client_id"], added["scopes"]) == ("billing", "billing", ["introspect"])
    assert await is_let_in(client, added["client_secret"])
    [listed] = (await root.read("/clients"))["items"]
    assert listed.keys() == {"name", "scopes", "created_at", "former_secret_until"}
    assert (await root.ask("DELETE", "/clients/billing")).status_code == 204
    assert not await is_let_in(client, added["client_secret"])
    assert (await root.read("/clients")) == {"items": [], "next_cursor": None}


async def test_what_a_client_may_do_is_replaced(root: Admin, client: httpx.AsyncClient, secrets: Secrets) -> None:
    secret = (await add(root, secrets, scopes=["users", "introspect", "users"]))["client_secret"]
    assert (await root.read("/clients"))["items"][0]["scopes"] == ["introspect", "users"]
    changed = await root.ask("PATCH", "/clients/billing", json={"scopes": ["events"]})
    assert changed.json()["scopes"] == ["events"]
    assert not await is_let_in(client, secret)
    for wrong in ([], ["everything"], None):
        body = {} if wrong is None else {"scopes": wrong}
        problem_of(await root.ask("PATCH", "/clients/billing", json=body), "invalid_request", 422)


async def test_a_renewed_secret_leaves_the_former_one_a_day(
    root: Admin, client: httpx.AsyncClient, secrets: Secrets, clock: Clock, login: LoginAnswer
) -> None:
    former = (await add(root, secrets))["client_secret"]
    renewed = (await root.ask("POST", "/clients/billing/secret")).json()
    secrets.add_unlogged(renewed["client_secret"])
    assert await is_let_in(client, former)
    assert await is_let_in(client, renewed["client_secret"])
    assert (await root.read("/clients"))["items"][0]["former_secret_until"] == "2026-11-21T08:00:00Z"
    clock.advance(hours=24)
    assert not await is_let_in(client, former)
    assert await is_let_in(client, renewed["client_secret"])
    again = Admin(client, await login("root"))
    assert (await again.read("/clients"))["items"][0]["former_secret_until"] is None


async def test_a_taken_or_impossible_name_is_refused_and_one_that_is_not_there_not_found(
    root: Admin, secrets: Secrets
) -> None:
    await add(root, secrets)
    problem_of(await root.ask("POST", "/clients", json={"name": "billing"}), "name_taken", 409)
    for name in ("", "Billing", "a" * 65, "operator", "system"):
        problem = problem_of(await root.ask("POST", "/clients", json={"name": name}), "invalid_request", 422)
        assert problem["errors"][0]["field"] == "name"
    for method, path, body in ROUTES[2:]:
        options = {} if body is None else {"json": body}
        refused = await root.ask(method, path.replace("billing", "nobody"), **options)
        problem_of(refused, "not_found", 404)


async def test_the_trail_tells_which_administrator_it_was(root: Admin, secrets: Secrets) -> None:
    await add(root, secrets)
    for method, path, body in ROUTES[2:]:
        await root.ask(method, path, **({} if body is None else {"json": body}))
    told = [(event["type"], event["actor"], event["data"].get("name")) for event in await root.events()]
    assert all((actor, name) == (root.id, "billing") for _, actor, name in told)
    assert {kind for kind, _, _ in told} >= {"client.added", "client.changed", "client.removed"}


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_it_wants_an_administrator_and_changes_want_a_fresh_login(
    root: Admin,
    client: httpx.AsyncClient,
    login: LoginAnswer,
    clock: Clock,
    method: str,
    path: str,
    body: dict[str, Any] | None,
) -> None:
    options = {} if body is None else {"json": body}
    problem_of(await client.request(method, f"/v1/admin{path}", **options), "missing_token", 401)
    alice = bearer(await login("alice"))
    problem_of(await client.request(method, f"/v1/admin{path}", headers=alice, **options), "insufficient_role", 403)
    clock.advance(minutes=61)
    refreshed = await client.post("/v1/refresh", json={"refresh_token": root.answer["refresh_token"]})
    answer = await Admin(client, refreshed.json()).ask(method, path, **options)
    if method == "GET":
        assert answer.status_code == 200
    else:
        problem_of(answer, "login_too_old", 403)


async def test_a_site_is_not_made_a_service_and_wxauths_own_names_stay_its_own(root: Admin) -> None:
    site = {"name": "shop", "redirect_uris": ["https://shop.example.com/callback"], "is_public": True}
    problem_of(await root.ask("POST", "/clients", json=site), "invalid_request", 422)
    for method, path, body in (
        ("POST", "/clients", {"name": "wxauth-other"}),
        ("PATCH", "/clients/wxauth-admin", {"scopes": ["users"]}),
        ("POST", "/clients/wxauth-admin/secret", None),
        ("DELETE", "/clients/wxauth-admin", None),
    ):
        problem_of(await root.ask(method, path, json=body), "invalid_request", 422)
    assert (await root.read("/clients"))["items"] == []
