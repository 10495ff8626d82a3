"""With `/v1/admin/clients`, administrators can do what `wxauth clients` does."""

from asyncio import gather
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.clients.samples import NO_SITE, SITE
from tests.fakes import logo_of
from tests.problems import problem_of
from tests.sweeps import Sweep
from tests.world import Admin, Body, Rows, Stage, body_of
from wxauth.clients.clients import end_sessions_left

REFUSED_OF_A_SITE: list[tuple[str, dict[str, Any]]] = [
    ("scopes", {"scopes": []}),
    ("scopes", {"scopes": None}),
    ("title", {"title": ""}),
    ("redirect_uris", {"redirect_uris": [], "device": False}),
    ("logo", {"logo": logo_of(1025)}),
    ("account_app_id", {"account_app_id": "wx0000000000000000"}),
    ("website_app_id", {"website_app_id": "wx0000000000000000"}),
    ("is_public", {"is_public": True}),
    ("device", {"device": "perhaps"}),
    *(
        ("backchannel_logout_uri", {"backchannel_logout_uri": uri})
        for uri in (
            "https://shop.example.com/logout#now",
            "http://1.1.1.1/logout",
            "https://169.254.169.254/logout",
            "ftp://127.0.0.1/logout",
            "https://me:mine@shop.example.com/logout",
            "https://me：mine@shop.example.com/logout",
            "https://https://shop.example.com/logout",
            "https://me[mine@shop.example.com/logout",
        )
    ),
]
CHANGES: list[tuple[str, str, Body]] = [
    ("PATCH", "{}", {"scopes": ["events"]}),
    ("POST", "{}/secret", {}),
    ("DELETE", "{}", {}),
]


@dataclass(frozen=True, slots=True)
class Desk:
    """An administrator who manages clients."""

    stage: Stage
    root: Admin

    async def ask(self, method: str, path: str = "", /, **body: Any) -> httpx.Response:
        """Send a request about the client with this name: `await desk.ask("PATCH", "shop", title="Shop")`."""
        has_body = body or method == "PATCH"
        return await self.root.ask(method, f"/clients/{path}".rstrip("/"), **({"json": body} if has_body else {}))

    async def add(self, name: str = "billing", /, **fields: Any) -> Body:
        answer = body_of(await self.ask("POST", "", name=name, **fields))
        if answer["client_secret"] is not None:
            self.stage.secrets.add_unlogged(answer["client_secret"])
        return answer

    async def change(self, name: str, /, **fields: Any) -> Body:
        return body_of(await self.ask("PATCH", name, **fields))

    async def renew(self, name: str = "billing", **how: bool) -> Body:
        answer = await self.ask("POST", f"{name}/secret", **how)
        self.stage.secrets.add_unlogged(answer.json()["client_secret"])
        return answer.json()

    async def listed(self) -> list[Body]:
        return (await self.root.read("/clients"))["items"]

    async def refuse(self, field: str, method: str, path: str = "", /, **body: Any) -> None:
        """Send a request, and check that it's rejected because of this field."""
        [error] = problem_of(await self.ask(method, path, **body), "invalid_request", 422)["errors"]
        assert error["field"] == field, body


@pytest.fixture
def desk(stage: Stage, root: Admin) -> Desk:
    return Desk(stage, root)


async def is_admitted(desk: Desk, secret: str) -> bool:
    auth = httpx.BasicAuth("billing", secret)
    return (await desk.root.client.post("/v1/introspect", data={"token": "x"}, auth=auth)).status_code == 200


async def test_a_client_that_is_added_may_ask_until_it_is_removed(desk: Desk) -> None:
    added = await desk.add()
    [listed] = await desk.listed()
    assert listed == {
        **{"name": "billing", "scopes": ["introspect"], **NO_SITE},
        **{"created_at": "2026-11-20T08:00:00Z", "former_secret_until": None},
    }
    assert added == {**listed, "client_id": "billing", "client_secret": added["client_secret"]}
    assert await is_admitted(desk, added["client_secret"])
    assert (await desk.ask("DELETE", "billing")).status_code == 204
    assert not await is_admitted(desk, added["client_secret"])
    assert (await desk.root.read("/clients")) == {"items": [], "next_cursor": None}


async def test_the_end_of_a_removal_without_sessions_waits_for_nobody(
    desk: Desk, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.add()
    await rows.execute("UPDATE clients SET removed_by = 'operator'")
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("wxauth.clients.clients.asyncio.sleep", sleep)
    assert [left async for left in end_sessions_left(desk.stage.services.database, "billing")] == [0]
    assert (await rows.fetch("SELECT name FROM clients"), pauses) == ([], [])


async def test_a_clients_scopes_are_replaced(desk: Desk) -> None:
    secret = (await desk.add(scopes=["users", "introspect", "users"]))["client_secret"]
    assert (await desk.listed())[0]["scopes"] == ["introspect", "users"]
    assert (await desk.change("billing", scopes=["events"]))["scopes"] == ["events"]
    assert not await is_admitted(desk, secret)
    wrong: list[Body] = [{"scopes": []}, {"scopes": ["everything"]}, {}, {"scope": ["users"]}]
    for body in wrong:
        problem_of(await desk.ask("PATCH", "billing", **body), "invalid_request", 422)


@pytest.mark.requirement("asvs-13.2.1")
async def test_of_renewed_secrets_the_last_works_a_day_if_not_refused_at_once(desk: Desk) -> None:
    first, former, renewed = [
        answer["client_secret"] for answer in (await desk.add(), await desk.renew(), await desk.renew())
    ]
    assert not await is_admitted(desk, first), "one former secret at most"
    assert (await desk.listed())[0]["former_secret_until"] == "2026-11-21T08:00:00Z"
    for seconds, is_former_good in ((0, True), (24 * 3600 - 1, True), (1, False)):
        desk.stage.clock.advance(seconds=seconds)
        assert await is_admitted(desk, former) == is_former_good
        assert await is_admitted(desk, renewed)
    desk.root.answer = await desk.stage.login("root")
    assert (await desk.listed())[0]["former_secret_until"] is None
    last = (await desk.renew(at_once=True))["client_secret"]
    assert (await desk.listed())[0]["former_secret_until"] is None
    assert [await is_admitted(desk, secret) for secret in (renewed, last)] == [False, True]


async def test_a_taken_or_impossible_name_is_refused_and_one_that_is_not_there_not_found(desk: Desk) -> None:
    await desk.add()
    problem_of(await desk.ask("POST", name="billing"), "name_taken", 409)
    for name in ("a", "0", "a" * 64, "bill-ing_2", "systems"):
        await desk.add(name)
    for name in ("", "Billing", "a" * 65, "operator", "system", "wechat", desk.root.id, "wxauth-other"):
        await desk.refuse("name", "POST", name=name)
    for method, path, body in CHANGES:
        problem_of(await desk.ask(method, path.format("nobody"), **body), "not_found", 404)
        problem_of(await desk.ask(method, path.format("wxauth-admin"), **body), "invalid_request", 422)


@pytest.mark.oldest_postgres
async def test_the_trail_names_the_administrator(desk: Desk) -> None:
    await desk.add()
    for method, path, body in CHANGES:
        await desk.ask(method, path.format("billing"), **body)
    events = [event for event in await desk.root.events() if "client" in event["type"]]
    assert {event["actor"] for event in events} == {desk.root.id}
    assert [(event["type"], event["data"]) for event in events[::-1]] == [
        ("client.added", {"name": "billing", "scopes": ["introspect"]}),
        ("client.changed", {"name": "billing", "fields": ["scopes"], "scopes": ["events"]}),
        ("client.secret_renewed", {"name": "billing"}),
        ("client.removed", {"name": "billing"}),
    ]


# Sites.


async def test_a_site_is_added_with_all_that_the_command_takes_and_logs_people_in(desk: Desk) -> None:
    added = await desk.add("shop", **SITE)
    [listed] = await desk.listed()
    assert {name: listed[name] for name in SITE} == SITE
    assert added == {**listed, "client_id": "shop", "client_secret": added["client_secret"]}
    auth = httpx.BasicAuth("shop", added["client_secret"])
    form = {"browser_ip": "198.51.100.7"}
    assert (await desk.root.client.post("/v1/device_authorization", data=form, auth=auth)).status_code == 200
    assert (await desk.root.events())[0]["data"] == {"name": "shop", "scopes": SITE["scopes"]}
    renewed = await desk.renew("shop")
    assert renewed == {**renewed, "name": "shop", "client_id": "shop", "scopes": SITE["scopes"]}


async def test_a_site_is_changed_in_what_is_named_and_the_rest_stays(desk: Desk) -> None:
    before = await desk.add("shop", **SITE)
    changes = {"title": None, "scopes": ["phone"], "redirect_uris": ["https://shop.example.com/new"], "near": False}
    changed = await desk.change("shop", **changes)
    shown = {name: before[name] for name in before if not name.startswith("client_")}
    assert changed == {**shown, **changes, "title": "shop"}
    assert await desk.listed() == [changed]
    cleared: Body = {"logout_uris": [], "app_id": None, "email_domain": None, "user_code": None, "device": False}
    cleared |= {"backchannel_logout_uri": None}
    after = await desk.change("shop", **cleared)
    assert after == {**changed, **cleared, "user_code": False}
    assert await desk.change("shop", **cleared) == after  # the request changes nothing, so no event is recorded
    events = [event["data"] for event in await desk.root.events() if event["type"] == "client.changed"]
    assert [sorted(data["fields"]) for data in events] == [
        ["app_id", "backchannel_logout_uri", "device", "email_domain", "logout_uris", "user_code"],
        ["near", "redirect_uris", "scopes", "title"],
    ]
    assert events[0]["scopes"] == ["phone"]


async def test_what_was_good_once_refuses_no_other_change(desk: Desk, rows: Rows) -> None:
    await desk.add("shop", **SITE)
    uris, logo = [f"https://shop.example.com/{n}" for n in range(101)], logo_of(1025)
    await rows.execute("UPDATE clients SET redirect_uris = $1, logo = $2", uris, logo)
    changed = await desk.change("shop", title="Shop")
    assert (changed["title"], changed["redirect_uris"], changed["logo"]) == ("Shop", uris, logo)
    await desk.refuse("redirect_uris", "PATCH", "shop", redirect_uris=uris[::-1])


async def test_a_sites_claims_are_set_and_cleared_and_a_client_for_phones_has_no_uri(desk: Desk) -> None:
    added = await desk.add("supabase", phone_id_token=True, claims={"team": "a"})
    assert (added["phone_id_token"], added["claims"], added["redirect_uris"]) == (True, {"team": "a"}, [])
    assert (await desk.change("supabase", claims=None))["claims"] is None
    for wrong in ({"sub": "x"}, {"x": "$nickname"}, {"x": "y" * 1024}):
        await desk.refuse("claims", "PATCH", "supabase", claims=wrong)


async def test_the_lifetime_of_id_tokens_is_at_most_that_of_a_session(desk: Desk) -> None:
    await desk.add("shop", redirect_uris=SITE["redirect_uris"], id_token_ttl=60)
    assert (await desk.change("shop", id_token_ttl=30 * 86400))["id_token_ttl"] == 30 * 86400
    for wrong in (30 * 86400 + 1, 59, "900", 900.0, True):
        await desk.refuse("id_token_ttl", "PATCH", "shop", id_token_ttl=wrong)
    await desk.refuse("id_token_ttl", "POST", name="club", redirect_uris=SITE["redirect_uris"], id_token_ttl=10**9)
    assert (await desk.change("shop", id_token_ttl=None))["id_token_ttl"] is None


async def test_changes_at_once_are_all_kept_and_wait_for_no_scan_that_is_just_starting(desk: Desk, rows: Rows) -> None:
    await desk.add("shop", **SITE)
    changes: Body = {"title": "Shop", "near": False, "email_domain": "example.org", "scopes": ["openid"]}
    async with rows.transaction():
        await rows.execute("SELECT FROM clients FOR KEY SHARE")  # the foreign key of a new scan takes this lock
        await gather(*(desk.change("shop", **{name: value}) for name, value in changes.items()))
    [listed] = await desk.listed()
    assert {name: listed[name] for name in SITE} == {**SITE, **changes}


async def test_an_invalid_field_of_a_site_is_refused_by_its_name_and_changes_nothing(desk: Desk) -> None:
    await desk.add("shop", **SITE)
    before = await desk.listed()
    with Sweep() as sweep:
        for field, changes in REFUSED_OF_A_SITE:
            with sweep.case(changes):
                await desk.refuse(field, "PATCH", "shop", **changes)
    await desk.refuse("name", "POST", name="wx1a2b3c4d5e6f7a8b", device=True)
    await desk.refuse("is_public", "POST", name="other", is_public=True)
    assert await desk.listed() == before


async def test_no_site_has_a_name_for_which_serve_would_not_start_again(desk: Desk) -> None:
    client = await desk.stage.make(audience="shop")
    refreshed = await client.post("/v1/refresh", json={"refresh_token": desk.root.answer["refresh_token"]})
    desk = Desk(desk.stage, Admin(client, refreshed.json()))
    await desk.refuse("name", "POST", name="shop", device=True)
    await desk.add("shop")
    await desk.refuse("name", "PATCH", "shop", device=True)


async def test_a_service_becomes_a_site_and_remains_a_site(desk: Desk) -> None:
    secret = (await desk.add(scopes=["introspect"]))["client_secret"]
    site = await desk.change("billing", device=True)
    assert (site["title"], site["scopes"]) == ("billing", ["introspect", "openid", "profile"])
    auth = httpx.BasicAuth("billing", secret)
    assert (await desk.root.client.post("/v1/device_authorization", auth=auth)).status_code == 200
    await desk.refuse("redirect_uris", "PATCH", "billing", device=False)


async def test_a_public_site_has_no_secret_and_is_given_none(desk: Desk) -> None:
    added = await desk.add("page", is_public=True, redirect_uris=["https://page.example.com/"])
    assert (added["is_public"], added["client_secret"], added["title"]) == (True, None, "page")
    before = await desk.listed()
    await desk.refuse("name", "POST", "page/secret")
    assert await desk.listed() == before
    assert [event["type"] for event in await desk.root.events()] == ["client.added"]
    await desk.refuse("is_public", "PATCH", "page", is_public=False)
    await desk.change("page", is_public=True, near=True)
