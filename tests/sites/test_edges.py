"""Sites work with guards, with an issuer below a path, with an unreachable database, and with other keys."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import pytest
from jose import jwt

from tests.problems import problem_of
from tests.sites.browsers import ASKED, BYE, FORM, Browser, House, keys_at, refused
from tests.sweeps import swept
from tests.web.misbehaving import behind_edge
from tests.world import Admin, Body, Client, Stage, bearer, until_locked
from wxauth.clients.clients import remove_client
from wxauth.core.sealing import Sealer
from wxauth.housekeeping.housekeeping import sweep
from wxauth.keys.keyring import KeyRing
from wxauth.service.app import create_api
from wxauth.service.resealing import reseal


@pytest.mark.no_database
async def test_an_outage_is_reported_in_the_form_of_oauth_and_to_browsers_as_a_page(offline_client: Client) -> None:
    form = {"client_id": "shop", "client_secret": "x", "grant_type": "refresh_token", "token": "x"}
    for path in ("/v1/token", "/v1/revoke", "/v1/device_authorization"):
        answer = await offline_client.post(path, data=form)
        assert refused(answer, "temporarily_unavailable", 503).headers["retry-after"]
    cookie = {"Cookie": "__Host-wxauth-browser=" + "c" * 43}
    shown = await offline_client.get("/v1/authorize", params=ASKED)
    decided = await offline_client.get(f"/v1/authorize/{'r' * 22}/next", headers=cookie)
    for answer in (shown, decided, await offline_client.get("/d")):
        assert (answer.status_code, answer.headers["content-type"]) == (503, "text/html; charset=utf-8")
        assert answer.headers["retry-after"]


@pytest.mark.parametrize("prefix", ["", "/auth"], ids=["cut off", "kept"])
async def test_an_issuer_may_have_a_path(house: House, prefix: str) -> None:
    client = await house.stage.make(issuer="https://auth.test/auth", scan_code="link")
    client.base_url = httpx.URL(f"https://auth.test{prefix}")
    tab = await Browser(client).show()
    loaded = re.findall(r'(?:src|href)="([^"]+)"', tab.html)
    assert all(url.startswith("/auth/") for url in loaded), loaded
    for url in [*loaded[:3], f"/auth/v1/authorize/{tab.request_id}/state"]:
        assert (await client.get("https://auth.test" + url.replace("&amp;", "&"))).status_code == 200, url
    started = await replace(house.shop, client=client).start()
    assert started["code_image"].startswith("https://auth.test/auth/v1/scans/")
    metadata = (await client.get("/.well-known/openid-configuration")).json()
    assert metadata["authorization_endpoint"] == "https://auth.test/auth/v1/authorize"
    # A token of another issuer is invalid here.
    login = replace(house.phone, client=client)
    problem_of(await tab.scanned_by(login), "invalid_token", 401)


@pytest.mark.oldest_postgres
async def test_reseal_covers_the_keys_of_id_tokens(house: House) -> None:
    assert len(await keys_at(house.stage.client)) == 2
    new, old = bytes(range(32, 64)), house.stage.services.settings.secret_keys[0]
    done = await reseal(house.stage.services.database, Sealer([new, old]), now=house.stage.clock())
    assert (done.signing_keys, done.not_opened) == (2, 0)
    prefix = Sealer([new]).prefix
    sealed = [row["private_key"] for row in await house.stage.rows.fetch("SELECT private_key FROM signing_keys")]
    assert [key[: len(prefix)] for key in sealed] == [prefix] * 2


async def test_a_site_that_is_removed_is_gone_while_a_browser_waits(house: House) -> None:
    tab = await house.browser.show()
    await tab.decided_by(house.phone)
    await remove_client(house.stage.services.database, "shop", now=house.stage.clock())
    assert (await tab.ask()).status_code == (await tab.go_on()).status_code == 404
    assert (await house.browser.open()).status_code == 400


@pytest.mark.slow
@swept(
    "path", ["/v1/token", "/v1/revoke", "/v1/device_authorization", "/v1/userinfo", "/v1/authorize", "/v1/end_session"]
)
@swept("text", ["%", "%4", "x=%e4%b8%ad"])
async def test_a_form_that_takes_long_to_decode_is_refused_unread(client: Client, path: str, text: str) -> None:
    attack = (text * 65_536)[:65_536]
    answer = await client.post(path, content=attack.encode(), headers=FORM)
    assert answer.status_code == 400, answer.text
    if answer.headers["content-type"] == "application/json":
        assert "percent-encoded" in answer.json()["error_description"]


async def unfinished() -> AsyncIterator[bytes]:
    """Yield the beginning of a body whose rest never arrives."""
    yield b"client_id="
    await asyncio.Future()


@pytest.mark.parametrize("path", ["/v1/token", "/v1/revoke", "/v1/device_authorization"])
async def test_after_a_late_form_the_connection_is_closed(stage: Stage, path: str) -> None:
    impatient = behind_edge(create_api(stage.services), seconds=0.01)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(impatient), base_url="https://auth.test") as client:
        answer = await client.post(path, content=unfinished(), headers=FORM)
    assert refused(answer, "invalid_request", 408).headers["connection"] == "close"


# A site can ask for id_tokens signed with ES256. No verifier accepts them as access tokens.


def algorithm_of(tokens: Body) -> str:
    return jwt.get_unverified_header(tokens["id_token"])["alg"]


async def test_each_sites_id_tokens_are_signed_as_it_wants(house: House) -> None:
    tokens, refresh = await house.tokens(), house.shop.refresh
    for alg in ("RS256", "ES256"):
        await house.change(id_token_alg=alg)
        assert algorithm_of(tokens := (await refresh(tokens)).json()) == alg
    tokens = await house.tokens()
    of_access_token = jwt.get_unverified_header(tokens["access_token"])
    header = {"alg": "ES256", "kid": of_access_token["kid"], "typ": "JWT"}
    assert jwt.get_unverified_header(tokens["id_token"]) == header
    claims = await house.claims(tokens)
    assert (claims["sub"], claims["nonce"]) == (house.phone.user_id, "n-1")
    await house.change(id_token_alg=None)
    assert algorithm_of((await refresh(tokens)).json()) == "RS256"


@pytest.mark.requirement("asvs-9.2.2")
async def test_an_es256_sites_id_token_is_no_access_token(house: House) -> None:
    await house.change(id_token_alg="ES256")
    tokens = await house.tokens()
    for path in ("/v1/me", "/v1/userinfo", "/v1/verify", "/v1/admin/users"):
        problem_of(await house.stage.client.get(path, headers=bearer(tokens["id_token"])), "invalid_token", 401)
    assert (await house.shop.post("/v1/revoke", token=tokens["id_token"])).status_code == 200
    forged = tokens["id_token"][:-6] + "AAAAAA"
    for wrong in (tokens["access_token"], house.phone.tokens["access_token"], forged):
        assert (await house.log_out(id_token_hint=wrong, post_logout_redirect_uri=BYE)).status_code == 400
    assert await house.is_in(tokens)
    await house.stage.services[KeyRing].rotate()
    answer = await house.log_out(id_token_hint=tokens["id_token"], post_logout_redirect_uri=BYE)
    assert (answer.status_code, answer.headers["location"]) == (303, BYE)
    problem_of(await house.userinfo(tokens), "invalid_token", 401)


# The tests below remove a site at the moment when a user logs in to it.


def removal_from(house: House) -> Callable[[], Coroutine[Any, Any, object]]:
    return lambda: remove_client(house.stage.services.database, "shop", now=house.stage.clock())


@pytest.mark.own_database
@pytest.mark.parametrize("first", ["removal", "approval"])
async def test_a_removal_leaves_no_grant_of_an_approval_in_its_moment(house: House, first: str) -> None:
    _, scan_id = await house.claimed()
    acts = {"removal": removal_from(house), "approval": lambda: house.phone.decide(scan_id)}
    approved = (await house.at_once("clients", first, **acts))["approval"]
    if first == "removal":
        problem_of(approved, "scan_over", 404)
    else:
        assert approved.status_code == 204
    assert await house.stage.number("site_logins") == 0


@pytest.mark.own_database
@pytest.mark.parametrize("first", ["removal", "poll"])
async def test_a_removal_leaves_no_session_open_that_is_opened_in_its_moment(house: House, first: str) -> None:
    started = await house.approved()
    acts = {"removal": removal_from(house), "poll": lambda: house.shop.poll(started)}
    answer = (await house.at_once("clients", first, **acts))["poll"]
    if first == "removal":
        refused(answer, "invalid_grant")
    else:
        assert answer.status_code == 200
    ended = "SELECT array_agg(revoked_reason) FROM sessions WHERE client_id IS NOT NULL"
    assert await house.stage.rows.fetchval(ended) == (None if first == "removal" else ["administrator"])


@pytest.mark.own_database
async def test_a_request_that_was_checked_before_the_removal_is_refused_as_that_of_a_stranger(house: House) -> None:
    start = partial(house.shop.post, "/v1/device_authorization")
    acts: dict[str, Any] = {"page": house.browser.open, "device": start, "in_mini_program": house.answer}
    answers = await house.at_once("clients", removal=removal_from(house), **acts)
    assert (answers["page"].status_code, "location" in answers["page"].headers) == (400, False)
    refused(answers["device"], "invalid_client", 401)
    problem_of(answers["in_mini_program"], "invalid_request", 422)


@pytest.mark.own_database
async def test_a_removal_waits_for_no_ban_and_takes_what_it_locked_later(house: House, root: Admin) -> None:
    one, other = [await house.browser.show(), await house.browser.show()]
    for tab in (other, one):
        assert "code" in await tab.approved_by(house.phone)
    async with house.stage.rows.transaction():
        await house.stage.rows.execute("SELECT FROM site_logins ORDER BY id DESC LIMIT 1 FOR UPDATE")
        banning = asyncio.create_task(root.change(house.phone.user_id, status="disabled"))
        await until_locked(house.stage.rows)
        await removal_from(house)()
    await banning
    assert await house.stage.number("site_logins") > 0
    await sweep(house.stage.services, pause=0)
    assert await house.stage.number("site_logins") == await house.stage.number("clients WHERE name = 'shop'") == 0
    assert await house.stage.number("users WHERE status = 'disabled' AND id = $1::text::uuid", house.phone.user_id) == 1


# A site can have its own claims in its access tokens, in its id_tokens and at `/v1/userinfo`.


async def test_a_site_gets_its_own_claims_and_not_those_of_logins(house: House) -> None:
    house.browser = Browser(await house.stage.make(claims={"of": "logins"}))
    house.shop = replace(house.shop, client=house.browser.client)

    async def told(scope: str) -> list[Body]:
        tokens = await house.tokens(scope=scope)
        userinfo = (await house.userinfo(tokens)).json()
        everything = (jwt.get_unverified_claims(tokens["access_token"]), await house.claims(tokens), userinfo)
        return [{name: claims[name] for name in ("of", "tier", "team") if name in claims} for claims in everything]

    assert await told("openid") == [{}] * 3
    claims = {"tier": "$attributes.tier", "team": {"name": "shop", "roles": "$user.roles"}}
    await house.change(claims=claims, scopes=["openid", "roles"])
    await house.stage.rows.execute("""UPDATE users SET attributes = '{"tier": "gold"}', roles = '{editor}'""")
    added = {"tier": "gold", "team": {"name": "shop"}}
    assert await told("openid") == [added] * 3
    assert await told("openid roles") == [{**added, "team": {"name": "shop", "roles": ["editor"]}}] * 3
