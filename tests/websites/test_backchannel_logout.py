"""Sites learn at once that a session has ended: logout tokens, when they are sent, and when they are not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from jose import jwt

from tests.clock import PATIENCE
from tests.fakes import Clock, Secrets
from tests.problems import problem_of
from tests.receiver import Receiver, receiving
from tests.websites.browsers import refused
from tests.world import (
    AddSite,
    Admin,
    Body,
    Client,
    GetPhone,
    LogIn,
    LogLines,
    MakeServices,
    Phone,
    Rows,
    Site,
    bearer,
    make_admin,
    until,
    until_locked,
)
from wxauth.server.clients.clients import change_client, remove_client
from wxauth.server.core.services import Services
from wxauth.server.core.trail import SYSTEM
from wxauth.server.events.sending import (
    FINAL_STATUSES,
    LEASE,
    LOGOUT_EVENT,
    LOGOUT_RETRIES,
    MAX_CONCURRENT_FOR_ONE_USER,
)
from wxauth.server.events.webhook_deliveries import MAX_CONCURRENT_FOR_ONE, Deliveries, place_events
from wxauth.server.events.webhook_rows import Priority, due_receivers
from wxauth.server.service.build import Waits
from wxauth.server.users.erasure_rows import erase_identities
from wxauth.server.users.standing_rows import lock_standing


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """The server of the shop."""
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def services(make_services: MakeServices) -> Services:
    return await make_services(waits=Waits(backchannel_logouts=1))


@pytest.fixture
async def shop(add_site: AddSite, receiver: Receiver) -> Site:
    return await add_site(device=True, backchannel_logout_uri=receiver.url)


@pytest.fixture
async def root(client: Client, login: LogIn, rows: Rows) -> Admin:
    return await make_admin(client, rows, await login("root"))


async def logged_in(site: Site, phone: Phone) -> Body:
    """Log in to the site, and return its tokens."""
    started = await site.start(scope="openid")
    await phone.approve(started)
    answer = await site.poll(started)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def deliver(services: Services) -> None:
    await services[Deliveries].begin_due()
    await services[Deliveries].drain()


@dataclass(frozen=True)
class LogoutToken:
    header: Body
    claims: Body


def tokens_at(receiver: Receiver) -> list[LogoutToken]:
    """The logout tokens that a site got, in order."""
    tokens = []
    for headers, body in receiver.got:
        assert headers["Content-Type"] == "application/x-www-form-urlencoded"
        form = parse_qs(body.decode(), strict_parsing=True)
        assert form.keys() == {"logout_token"}
        (token,) = form["logout_token"]
        tokens.append(LogoutToken(jwt.get_unverified_header(token), jwt.get_unverified_claims(token)))
    return tokens


def of_id_token(tokens: Body) -> tuple[str, str]:
    claims = jwt.get_unverified_claims(tokens["id_token"])
    return claims["sub"], claims["sid"]


def told_at(receiver: Receiver) -> list[tuple[str, str]]:
    return [(token.claims["sub"], token.claims["sid"]) for token in tokens_at(receiver)]


async def waiting(rows: Rows) -> int:
    return await rows.fetchval("SELECT count(*) FROM backchannel_logouts")


# The token.


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
async def test_a_logout_token_says_whose_session_has_ended(
    alg: str,
    add_site: AddSite,
    phone: Phone,
    root: Admin,
    services: Services,
    receiver: Receiver,
    client: Client,
    clock: Clock,
) -> None:
    shop = await add_site(device=True, backchannel_logout_uri=receiver.url, id_token_alg=alg)
    tokens = await logged_in(shop, phone)
    await root.change(phone.user_id, status="disabled")
    await deliver(services)
    (token,) = tokens_at(receiver)
    sub, sid = of_id_token(tokens)
    now = int(clock().timestamp())
    assert len(token.claims.pop("jti")) >= 22
    assert token.claims == {
        "iss": "https://auth.test",
        "sub": sub,
        "aud": "shop",
        "iat": now,
        "exp": now + 120,
        "sid": sid,
        "events": {LOGOUT_EVENT: {}},
    }
    id_token = jwt.get_unverified_header(tokens["id_token"])
    assert token.header == {"typ": "logout+jwt", "alg": alg, "kid": id_token["kid"]}
    keys = (await client.get("/.well-known/jwks.json")).json()["keys"]
    (key,) = [key for key in keys if key["kid"] == token.header["kid"]]
    raw = parse_qs(receiver.got[0][1].decode())["logout_token"][0]
    jwt.decode(raw, key, algorithms=[alg], audience="shop", options={"verify_exp": False, "verify_iat": False})
    hint = await client.get("/v1/end_session", params={"id_token_hint": raw})
    assert hint.status_code == 400
    assert (await client.get("/v1/me", headers={"authorization": f"Bearer {raw}"})).status_code == 401


# What ends a session.

End = Callable[["Ending"], Awaitable[Any]]


@dataclass
class Ending:
    shop: Site
    tokens: Body
    phone: Phone
    root: Admin
    get_phone: GetPhone
    services: Services
    clock: Clock

    @property
    def sid(self) -> str:
        return of_id_token(self.tokens)[1]

    async def ban(self) -> None:
        await self.root.change(self.phone.user_id, status="disabled")

    async def erase(self) -> None:
        assert (await self.phone.ask("DELETE", "", json={"login_code": self.phone.wx_login()})).status_code == 204

    async def erase_by_staff(self) -> None:
        assert (await self.root.ask("DELETE", f"/users/{self.phone.user_id}")).status_code == 204

    async def merge(self) -> None:
        bob = await self.get_phone("bob")
        assert (await self.root.merge(self.phone.user_id, into=bob.user_id)).status_code == 200

    async def sign_out_everywhere(self) -> None:
        assert (await self.root.ask("DELETE", f"/users/{self.phone.user_id}/sessions")).status_code == 204

    async def sign_out_elsewhere(self) -> None:
        assert (await self.phone.ask("DELETE", "/sessions")).status_code == 204

    async def end_one_by_staff(self) -> None:
        assert (await self.root.ask("DELETE", f"/users/{self.phone.user_id}/sessions/{self.sid}")).status_code == 204

    async def end_one_from_the_phone(self) -> None:
        assert (await self.phone.ask("DELETE", f"/sessions/{self.sid}")).status_code == 204

    async def sign_out_at_the_provider(self) -> None:
        answer = await self.shop.client.get("/v1/end_session", params={"id_token_hint": self.tokens["id_token"]})
        assert answer.status_code == 200

    async def reuse(self) -> None:
        assert (await self.shop.refresh(self.tokens)).status_code == 200
        self.clock.advance(minutes=10)
        refused(await self.shop.refresh(self.tokens), "invalid_grant")

    async def revoke(self) -> None:
        assert (await self.shop.post("/v1/revoke", token=self.tokens["refresh_token"])).status_code == 200

    async def log_out(self) -> None:
        answer = await self.shop.client.post("/v1/logout", headers=bearer(self.tokens))
        assert answer.status_code == 204

    async def remove(self) -> None:
        await remove_client(self.services.database, "shop", now=self.clock())


@pytest.fixture
async def ending(
    shop: Site, phone: Phone, root: Admin, get_phone: GetPhone, services: Services, clock: Clock
) -> Ending:
    return Ending(shop, await logged_in(shop, phone), phone, root, get_phone, services, clock)


@pytest.mark.slow
@pytest.mark.parametrize(
    "end",
    [
        Ending.ban,
        Ending.erase,
        Ending.erase_by_staff,
        Ending.merge,
        Ending.sign_out_everywhere,
        Ending.sign_out_elsewhere,
        Ending.end_one_by_staff,
        Ending.end_one_from_the_phone,
        Ending.sign_out_at_the_provider,
        Ending.reuse,
    ],
    ids=lambda end: end.__name__,
)
async def test_a_site_learns_of_every_other_end_once(
    end: End, ending: Ending, services: Services, receiver: Receiver, rows: Rows
) -> None:
    named = of_id_token(ending.tokens)
    await end(ending)
    await deliver(services)
    assert told_at(receiver) == [named]
    await deliver(services)
    assert len(receiver.got) == 1
    assert await waiting(rows) == 0


@pytest.mark.parametrize("end", [Ending.revoke, Ending.log_out, Ending.remove], ids=lambda end: end.__name__)
@pytest.mark.slow
async def test_a_site_is_not_told_of_what_it_did_itself_or_of_its_removal(
    end: End, ending: Ending, services: Services, receiver: Receiver, rows: Rows
) -> None:
    await end(ending)
    assert await waiting(rows) == 0
    await deliver(services)
    assert receiver.got == []


async def test_a_session_over_by_time_is_not_reported_by_a_later_ban(
    ending: Ending, services: Services, rows: Rows, login: LogIn, clock: Clock
) -> None:
    clock.advance(days=400)
    ending.root.answer = await login("root")
    await ending.ban()
    assert await waiting(rows) == 0


async def test_an_erased_account_of_a_merged_user_ends_its_sites_sessions(
    shop: Site,
    phone: Phone,
    get_phone: GetPhone,
    root: Admin,
    services: Services,
    receiver: Receiver,
    rows: Rows,
    clock: Clock,
) -> None:
    bob = await get_phone("bob")
    assert (await root.merge(bob.user_id, into=phone.user_id)).status_code == 200
    bob.tokens = (await bob.client.post("/v1/refresh", json={"refresh_token": bob.tokens["refresh_token"]})).json()
    tokens = await logged_in(shop, bob)
    row = await rows.fetchrow(
        "SELECT user_id, app_id, openid FROM sessions WHERE id::text = $1", of_id_token(tokens)[1]
    )
    async with services.database.begin() as transaction:
        await lock_standing(transaction, row["user_id"])
        assert await erase_identities(
            transaction, row["user_id"], app_id=row["app_id"], openid=row["openid"], by=SYSTEM, now=clock()
        )
    await deliver(services)
    assert told_at(receiver) == [of_id_token(tokens)]


async def test_sites_without_a_uri_and_phones_cost_no_row(
    add_site: AddSite, phone: Phone, root: Admin, rows: Rows
) -> None:
    await logged_in(await add_site(device=True), phone)
    await root.change(phone.user_id, status="disabled")
    assert await waiting(rows) == 0


async def test_an_erased_persons_id_stays_in_no_table(
    ending: Ending, services: Services, receiver: Receiver, rows: Rows
) -> None:
    user_id = ending.phone.user_id
    receiver.answers = [500]
    await ending.erase()
    await deliver(services)
    assert await rows.fetchval("SELECT user_id::text FROM backchannel_logouts") == user_id
    ending.clock.advance(seconds=5)
    await deliver(services)
    assert [sub for sub, _ in told_at(receiver)] == [user_id, user_id]
    assert await waiting(rows) == 0


# Attempts.


@pytest.mark.slow
@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_is_taken(
    status: int, ending: Ending, services: Services, receiver: Receiver, rows: Rows
) -> None:
    receiver.usual = status
    await ending.ban()
    await deliver(services)
    assert await waiting(rows) == 0


@pytest.mark.slow
@pytest.mark.parametrize("status", sorted(FINAL_STATUSES))
async def test_some_answers_are_final(
    status: int, ending: Ending, services: Services, receiver: Receiver, rows: Rows, client: Client, log_lines: LogLines
) -> None:
    receiver.usual = status
    await ending.ban()
    await deliver(services)
    assert await waiting(rows) == 0
    (line,) = [line for line in log_lines() if line["event"] == "backchannel_logout_not_sent"]
    assert (line["client_id"], line["status"]) == ("shop", status)
    assert ending.phone.user_id not in str(line)
    metrics = (await client.get("/metrics")).text
    assert 'wxauth_backchannel_logouts_total{outcome="failed"} 1.0' in metrics


@pytest.mark.slow
@pytest.mark.parametrize("answer", [500, 503, 302, 307, 429, 402, "hang"])
async def test_others_are_tried_again_by_new_tokens_on_schedule(
    answer: int | str, ending: Ending, services: Services, receiver: Receiver, rows: Rows
) -> None:
    receiver.usual = answer
    await ending.ban()
    await deliver(services)
    for tries, pause in enumerate(LOGOUT_RETRIES, 1):
        ending.clock.advance(seconds=pause.total_seconds() - 1)
        await deliver(services)
        assert len(receiver.got) == tries
        ending.clock.advance(seconds=1)
        await deliver(services)
        assert len(receiver.got) == tries + 1
    assert await waiting(rows) == 0
    tokens = tokens_at(receiver)
    assert len({token.claims["jti"] for token in tokens}) == 5
    assert [token.claims["iat"] - tokens[0].claims["iat"] for token in tokens] == [0, 5, 35, 155, 755]
    assert {(token.claims["sub"], token.claims["sid"]) for token in tokens} == {of_id_token(ending.tokens)}
    assert [pause.total_seconds() for pause in LOGOUT_RETRIES] == [5, 30, 120, 600]


async def test_a_slow_site_delays_no_other(
    add_site: AddSite, shop: Site, phone: Phone, root: Admin, make_services: MakeServices, receiver: Receiver
) -> None:
    patient = await make_services(waits=Waits(backchannel_logouts=2 * PATIENCE))
    async with receiving() as quick:
        library = await add_site("library", device=True, backchannel_logout_uri=quick.url)
        for _ in range(6):
            await logged_in(shop, phone)
        await logged_in(library, phone)
        receiver.usual = "hang"
        await root.change(phone.user_id, status="disabled")
        await patient[Deliveries].begin_due()
        await until(lambda: quick.got)
        receiver.released.set()
        await patient[Deliveries].drain()


@pytest.mark.slow
async def test_at_a_slow_site_one_persons_sign_outs_and_sessions_delay_no_ban_of_another(
    shop: Site,
    get_phone: GetPhone,
    root: Admin,
    make_services: MakeServices,
    receiver: Receiver,
) -> None:
    replicas = [await make_services(waits=Waits(backchannel_logouts=2 * PATIENCE)) for _ in range(3)]
    alice, bob, carol, dan = [await get_phone(name) for name in ("alice", "bob", "carol", "dan")]
    banned = of_id_token(await logged_in(shop, bob))
    own = 4 * MAX_CONCURRENT_FOR_ONE_USER
    for phone in [alice, carol, dan] * own:
        await logged_in(shop, phone)
    for phone in (alice, carol):
        await phone.ask("DELETE", "/sessions")
    receiver.usual = "hang"

    async def begin_all() -> None:
        for replica in replicas:
            await replica[Deliveries].begin_due()

    await begin_all()
    await until(lambda: receiver.under_way == 3 * MAX_CONCURRENT_FOR_ONE)
    await root.change(dan.user_id, status="disabled")
    await begin_all()
    await until(lambda: receiver.under_way == 3 * (MAX_CONCURRENT_FOR_ONE + MAX_CONCURRENT_FOR_ONE_USER))
    await root.change(bob.user_id, status="disabled")
    await begin_all()
    await until(lambda: banned in told_at(receiver))
    receiver.usual = 204
    receiver.released.set()
    for replica in replicas:
        await deliver(replica)
    assert len(told_at(receiver)) == 1 + 3 * own


async def test_webhooks_that_hang_delay_no_logout_token(
    ending: Ending, services: Services, receiver: Receiver, secrets: Secrets
) -> None:
    async with receiving() as hanging:
        hanging.usual = "hang"
        for name in ("orders", "mails", "points"):
            added = await ending.root.ask("POST", "/webhooks", json={"name": name, "url": hanging.url, "types": []})
            secrets.add_unlogged(added.json()["secret"])
        await ending.ban()
        await place_events(services)
        begun = [priority for _, priority in await due_receivers(services.database, now=ending.clock())]
        assert begun[0] is Priority.BAN_LOGOUT
        await services[Deliveries].begin_due()
        await until(lambda: receiver.got)
        hanging.released.set()
        await services[Deliveries].drain()


async def test_a_logout_survives_the_process_that_was_sending_it(
    ending: Ending, services: Services, make_services: MakeServices, receiver: Receiver, rows: Rows
) -> None:
    receiver.answers = ["hang"]
    await ending.ban()
    await services[Deliveries].begin_due()
    await until(lambda: receiver.got)
    for task in list(services[Deliveries]._tasks):  # as when its process is killed: nothing is stored
        task.cancel()
    await services[Deliveries].drain()
    replica = await make_services()
    await deliver(replica)
    assert len(receiver.got) == 1  # the lease
    ending.clock.advance(seconds=LEASE.total_seconds())
    receiver.answers = [500] * len(LOGOUT_RETRIES)
    for pause in (timedelta(), *LOGOUT_RETRIES):  # the try whose outcome is lost does not count
        ending.clock.advance(seconds=pause.total_seconds())
        await deliver(replica)
    assert told_at(receiver) == [of_id_token(ending.tokens)] * (2 + len(LOGOUT_RETRIES))
    assert await waiting(rows) == 0


async def test_two_replicas_send_a_token_once(
    ending: Ending, services: Services, make_services: MakeServices, receiver: Receiver
) -> None:
    replica = await make_services()
    await ending.ban()
    await asyncio.gather(deliver(services), deliver(replica))
    assert len(receiver.got) == 1


@pytest.mark.own_database
async def test_a_logout_is_in_the_transaction_that_ends_the_session(ending: Ending, rows: Rows) -> None:
    async with rows.transaction():
        await rows.execute("LOCK TABLE backchannel_logouts IN EXCLUSIVE MODE")
        ban = asyncio.create_task(ending.ban())
        await until_locked(rows)
        assert await rows.fetchval("SELECT status FROM users WHERE id = $1", ending.phone.user_id) == "active"
    await ban
    assert await waiting(rows) == 1


async def test_a_removed_site_gets_no_token_that_was_waiting(
    ending: Ending, services: Services, receiver: Receiver, rows: Rows
) -> None:
    await ending.ban()
    await ending.remove()
    assert await waiting(rows) == 0
    await deliver(services)
    assert receiver.got == []


async def test_a_site_that_has_given_up_its_uri_gets_no_token(
    ending: Ending, services: Services, receiver: Receiver, rows: Rows
) -> None:
    await ending.ban()
    await change_client(services.database, "shop", {"backchannel_logout_uri": None}, now=ending.clock())
    await deliver(services)
    assert receiver.got == []
    assert await waiting(rows) == 0


@pytest.mark.slow
@pytest.mark.parametrize("url", ["https://169.254.169.254/", "http://100.100.100.200/", "https://localhost.invalid/"])
async def test_an_address_that_is_not_allowed_is_never_asked(
    url: str, ending: Ending, services: Services, rows: Rows, log_lines: LogLines
) -> None:
    await rows.execute("UPDATE clients SET backchannel_logout_uri = $1", url)
    await ending.ban()
    await deliver(services)
    (line,) = [line for line in log_lines() if line["event"] == "backchannel_logout_not_sent"]
    assert (line["status"], line["reason"]) in [(None, "address refused"), (None, "host not found")]
    assert await waiting(rows) == 1


# The URI.


@pytest.mark.parametrize(
    ("uri", "rule"),
    [
        ("https://shop.example.com/logout#now", "fragment"),
        ("http://1.1.1.1/logout", "private"),
        ("https://169.254.169.254/logout", "public or private"),
        ("ftp://127.0.0.1/logout", "https://"),
        ("https://me:mine@shop.example.com/logout", "password"),
    ],
)
async def test_a_uri_that_may_not_be_asked_is_refused_when_it_is_given(
    uri: str, rule: str, shop: Site, root: Admin
) -> None:
    added = {"name": "library", "redirect_uris": ["https://library.example.com/"], "backchannel_logout_uri": uri}
    for answer in (
        await root.ask("POST", "/clients", json=added),
        await root.ask("PATCH", "/clients/shop", json={"backchannel_logout_uri": uri}),
    ):
        problem = problem_of(answer, "invalid_request", 422)
        (error,) = problem["errors"]
        assert error["field"] == "backchannel_logout_uri"
        assert rule in error["message"]


async def test_administrators_set_and_clear_the_uri(shop: Site, root: Admin, receiver: Receiver) -> None:
    for uri in (None, receiver.url):
        answer = await root.ask("PATCH", "/clients/shop", json={"backchannel_logout_uri": uri})
        assert answer.status_code == 200, answer.text
        assert answer.json()["backchannel_logout_uri"] == uri


async def test_a_service_has_no_such_uri(root: Admin, receiver: Receiver) -> None:
    body = {"name": "ledger", "backchannel_logout_uri": receiver.url}
    problem_of(await root.ask("POST", "/clients", json=body), "invalid_request", 422)


@pytest.mark.slow
async def test_twenty_sites_learn_of_a_ban_at_once(
    add_site: AddSite, phone: Phone, root: Admin, services: Services, receiver: Receiver, rows: Rows
) -> None:
    named = []
    for number in range(20):
        site = await add_site(f"site{number}", device=True, backchannel_logout_uri=f"{receiver.url}/{number}")
        named.append(of_id_token(await logged_in(site, phone)))
    await root.change(phone.user_id, status="disabled")
    await services[Deliveries].begin_due()
    await services[Deliveries].drain()
    assert sorted(told_at(receiver)) == sorted(named)
    assert await waiting(rows) == 0
