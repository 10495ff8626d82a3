"""Sites learn at once from logout tokens that a session has ended.

The tests show when logout tokens are sent and when they aren't. Another test,
`test_what_ends_the_login_of_a_browser_and_the_sessions_of_its_sites`, shows which ends a site learns of. A logout token
is delivered like any other message, so `tests/events/test_webhooks.py` tests leases, killed processes and hanging
receivers.
"""

import asyncio
from dataclasses import dataclass
from urllib.parse import parse_qs

import pytest
from jose import jwt

from tests.conftest import made_of_fixtures
from tests.receiver import Receiver
from tests.sites.browsers import House
from tests.world import AddSite, Admin, Body, Phone, Site, bearer, until, until_locked
from wxauth.clients.clients import remove_client
from wxauth.core.services import Services
from wxauth.core.trail import SYSTEM
from wxauth.events.logout_tokens import FINAL_STATUSES, LOGOUT_EVENT, LOGOUT_RETRY_SCHEDULE
from wxauth.events.webhook_deliveries import CHECK_PAUSE_SECONDS, Deliveries
from wxauth.merging.splitting_queries import erase_wechat_account
from wxauth.service.build import Timeouts
from wxauth.users.status_queries import lock_status_and_roles

pytestmark = pytest.mark.settings(timeouts=Timeouts(backchannel_logouts=1))


@pytest.fixture
async def shop(add_site: AddSite, receiver: Receiver) -> Site:
    return await add_site(device=True, backchannel_logout_uri=receiver.url)


def ids_in(tokens: Body) -> tuple[str, str]:
    claims = jwt.get_unverified_claims(tokens["id_token"])
    return claims["sub"], claims["sid"]


@dataclass(slots=True, kw_only=True)
class Informed(House):
    """A house whose shop receives logout tokens. Alice has logged in to the shop."""

    receiver: Receiver
    """The shop's server."""
    root: Admin
    tokens_of_alice: Body

    @property
    def alice(self) -> tuple[str, str]:
        """Return the id of Alice, and the id of her session at the shop."""
        return ids_in(self.tokens_of_alice)

    async def be_banned(self, phone: Phone | None = None) -> None:
        await self.root.change((phone or self.phone).user_id, status="disabled")

    async def deliver(self, replica: Services | None = None, *, after: float = 0) -> None:
        self.stage.clock.advance(seconds=after)
        deliveries = (replica or self.stage.services)[Deliveries]
        await deliveries.start_due()
        await deliveries.drain()

    async def waiting(self) -> int:
        """Return how many logout tokens are waiting to be sent."""
        return await self.stage.number("deliveries WHERE type = 'logout'")

    def logout_tokens(self) -> list[str]:
        """Return the logout tokens that the shop has received, in order."""
        tokens = []
        for headers, body in self.receiver.got:
            assert headers["Content-Type"] == "application/x-www-form-urlencoded"
            form = parse_qs(body.decode(), strict_parsing=True)
            assert form.keys() == {"logout_token"}
            tokens += form["logout_token"]
        return tokens

    def told(self) -> list[tuple[str, str]]:
        """Return the user and the session in each logout token that the shop has received."""
        claims = [jwt.get_unverified_claims(token) for token in self.logout_tokens()]
        return [(each["sub"], each["sid"]) for each in claims]


@pytest.fixture
async def tokens_of_alice(house: House) -> Body:
    return await house.device_tokens(scope="openid")


@pytest.fixture
def informed(request: pytest.FixtureRequest) -> Informed:
    return made_of_fixtures(Informed, request)


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
@pytest.mark.requirement("backchannel-2.4")
async def test_a_logout_token_says_whose_session_has_ended(informed: Informed, alg: str) -> None:
    await informed.change(id_token_alg=alg)
    id_token = (await informed.shop.refresh(informed.tokens_of_alice)).json()["id_token"]
    await informed.be_banned()
    await informed.deliver()
    (token,) = informed.logout_tokens()
    header, claims = jwt.get_unverified_header(token), jwt.get_unverified_claims(token)
    sub, sid = informed.alice
    now = int(informed.stage.clock().timestamp())
    assert len(claims.pop("jti")) >= 22
    assert claims == {
        "iss": "https://auth.test",
        "sub": sub,
        "aud": "shop",
        "iat": now,
        "exp": now + 120,
        "sid": sid,
        "events": {LOGOUT_EVENT: {}},
    }
    assert header == {"typ": "logout+jwt", "alg": alg, "kid": jwt.get_unverified_header(id_token)["kid"]}
    await informed.claims({"id_token": token})  # it is checked with the published key
    assert (await informed.log_out(id_token_hint=token)).status_code == 400
    assert (await informed.stage.client.get("/v1/me", headers=bearer(token))).status_code == 401


# Tests of ends that a site learns of.


async def test_an_erased_account_of_a_merged_user_ends_its_sites_sessions(informed: Informed) -> None:
    bob, services = await informed.get_phone("bob"), informed.stage.services
    assert (await informed.root.merge(bob.user_id, into=informed.phone.user_id)).status_code == 200
    bob.tokens = (await bob.client.post("/v1/refresh", json={"refresh_token": bob.tokens["refresh_token"]})).json()
    bobs = ids_in(await informed.device_tokens(bob, scope="openid"))
    row = await informed.stage.rows.fetchrow(
        "SELECT app_id, openid, user_id FROM sessions WHERE id::text = $1", bobs[1]
    )
    async with services.database.begin() as transaction:
        await lock_status_and_roles(transaction, row["user_id"])
        account = {"app_id": row["app_id"], "openid": row["openid"]}
        assert await erase_wechat_account(transaction, row["user_id"], **account, by=SYSTEM, now=informed.stage.clock())
    await informed.deliver()
    assert informed.told() == [bobs]


async def test_an_erased_persons_id_stays_in_no_table(informed: Informed) -> None:
    user_id, _ = informed.alice
    informed.receiver.answers = [500]
    await informed.erase()
    await informed.deliver()
    assert await informed.stage.rows.fetchval("SELECT user_id::text FROM deliveries") == user_id
    await informed.deliver(after=5)
    assert informed.told() == [informed.alice] * 2
    assert await informed.waiting() == 0


# Tests of attempts to deliver a logout token.


@pytest.mark.slow
@pytest.mark.parametrize("status", [200, 201, 299, *sorted(FINAL_STATUSES)])
async def test_any_2xx_is_taken_and_some_answers_are_final(informed: Informed, status: int) -> None:
    informed.receiver.usual = status
    await informed.be_banned()
    for _ in range(2):
        await informed.deliver()
    assert (await informed.waiting(), informed.told()) == (0, [informed.alice])
    lines = informed.stage.logged("backchannel_logout_not_sent")
    assert [(line["client_id"], line["status"]) for line in lines] == [("shop", status)] * (status >= 300)
    assert informed.phone.user_id not in str(lines)
    failed = f'wxauth_backchannel_logouts_total{{outcome="failed"}} {float(status >= 300)}'
    assert failed in await informed.metrics()


@pytest.mark.slow
@pytest.mark.parametrize("answer", [500, 503, 302, 307, 429, 402, "hang"])
async def test_others_are_tried_again_by_new_tokens_on_schedule(informed: Informed, answer: int | str) -> None:
    informed.receiver.usual = answer
    await informed.be_banned()
    await informed.deliver()
    for tries, pause in enumerate(LOGOUT_RETRY_SCHEDULE, 1):
        await informed.deliver(after=pause.total_seconds() - 1)
        assert len(informed.receiver.got) == tries
        await informed.deliver(after=1)
        assert len(informed.receiver.got) == tries + 1
    assert await informed.waiting() == 0
    claims = [jwt.get_unverified_claims(token) for token in informed.logout_tokens()]
    assert len({each["jti"] for each in claims}) == 5
    assert [each["iat"] - claims[0]["iat"] for each in claims] == [0, 5, 35, 155, 755]
    assert set(informed.told()) == {informed.alice}


@pytest.mark.slow
async def test_at_a_slow_site_one_persons_sign_outs_and_sessions_delay_no_ban_of_another(informed: Informed) -> None:
    replicas = [await informed.stage.make_services(timeouts=Timeouts(backchannel_logouts=5)) for _ in range(3)]
    bob, carol, dan, erin = [await informed.get_phone(name) for name in ("bob", "carol", "dan", "erin")]
    banned, receiver = ids_in(await informed.device_tokens(bob)), informed.receiver
    own = 8
    for phone in [erin, carol, dan] * own:
        await informed.device_tokens(phone)
    for phone in (erin, carol):
        await phone.ask("DELETE", "/sessions")
    receiver.usual = "hang"

    async def begin_all() -> None:
        for replica in replicas:
            await replica[Deliveries].start_due()

    await begin_all()
    await until(lambda: receiver.under_way == 4)  # each person has two deliveries under way
    await informed.be_banned(dan)
    await begin_all()
    await until(lambda: receiver.under_way == 6)
    await informed.be_banned(bob)
    async with asyncio.timeout(0.9):
        await begin_all()
        await until(lambda: banned in informed.told())
    receiver.usual = 204
    receiver.released.set()
    for replica in replicas:
        await informed.deliver(replica)
    assert len(informed.told()) == 1 + 3 * own


@pytest.mark.own_database
async def test_a_logout_is_in_the_transaction_that_ends_the_session(informed: Informed) -> None:
    async with informed.stage.rows.transaction():
        await informed.stage.rows.execute("LOCK TABLE deliveries IN EXCLUSIVE MODE")
        ban = asyncio.create_task(informed.be_banned())
        await until_locked(informed.stage.rows)
        assert await informed.stage.number("users WHERE status = 'disabled'") == 0
    await ban
    assert await informed.waiting() == 1


@pytest.mark.parametrize("is_removed", [True, False], ids=["removed", "changed"])
async def test_a_site_that_is_removed_or_gives_up_its_uri_gets_no_token(informed: Informed, is_removed: bool) -> None:
    await informed.be_banned()
    if is_removed:
        await remove_client(informed.stage.services.database, "shop", now=informed.stage.clock())
    else:
        await informed.change(backchannel_logout_uri=None)
    await informed.deliver()
    assert (informed.receiver.got, await informed.waiting()) == ([], 0)


async def test_a_site_learns_of_a_ban_within_two_seconds(informed: Informed) -> None:
    assert CHECK_PAUSE_SECONDS < 2
    keeping = asyncio.create_task(informed.stage.services[Deliveries].keep_delivering())
    await informed.be_banned()
    await until(lambda: informed.receiver.got)
    keeping.cancel()
    await informed.stage.services[Deliveries].drain()
    assert informed.told() == [informed.alice]
