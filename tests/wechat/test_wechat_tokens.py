"""wxauth stores WeChat's access tokens, renews them and gives them to service clients.

These tests use the simulated WeChat.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import httpx
import pytest

from tests.fakes import Clock
from tests.problems import problem_of
from tests.sweeps import swept
from tests.world import Rows, Stage, add_client, recorded, until
from wxauth.apps.registry import Apps
from wxauth.clients.clients import Credentials
from wxauth.clients.models import Scope
from wxauth.core.services import Services
from wxauth.errors import WeChatError, WeChatTimeout
from wxauth.service.build import build_services
from wxauth.settings.settings import Settings
from wxauth.wechat.api import WeChatApi
from wxauth.wechat.client import WeChat
from wxauth.wechat.wechat_tokens import LOOK_TIMEOUT_SECONDS, RENEWAL_LEAD, RENEWAL_SPREAD, WeChatToken, WeChatTokens
from wxauth_desk.wechat import APPS
from wxauth_desk.wechat.people import openid_of

pytestmark = pytest.mark.usefixtures("simulated")

FIRST, SECOND = (app["app_id"] for app in APPS)
LIFETIME = 7200
READS = "WHERE type = 'access_token.read'"


@dataclass(frozen=True, slots=True)
class Tokens:
    """A service client that reads the first app's token, and the service, whose own calls require this token."""

    stage: Stage
    siblings: dict[str, Credentials] = field(default_factory=dict)
    adding: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def asks(self) -> list[bool]:
        """Return for each call of `stable_token` whether it forced a new token."""
        return [call.json["force_refresh"] for call in self.stage.simulator.calls_of("stable_token")]

    async def ask(self, app_id: str = FIRST, *, name: str = "billing") -> httpx.Response:
        async with self.adding:
            if name not in self.siblings:
                database, scopes = self.stage.services.database, [Scope.WECHAT_TOKEN]
                self.siblings[name] = await add_client(database, name, scopes=scopes, now=self.stage.clock())
                self.stage.secrets.add(self.siblings[name].client_secret)
        return await self.stage.client.get(f"/v1/apps/{app_id}/access-token", auth=self.siblings[name])

    async def read(self) -> str:
        """Return the token that the service client gets."""
        return (await self.ask()).json()["access_token"]

    async def own(self) -> WeChatToken:
        """Return the token that the service uses for its own calls."""
        return await self.stage.services[WeChatTokens].get(self.stage.services[Apps].find(FIRST))

    async def check_key(self, services: Services | None = None) -> bool:
        """Make a call that requires a token, and return its result.

        The call checks a wrong session_key of a user who has just logged in.
        """
        services = services or self.stage.services
        app = services[Apps].find(FIRST)
        openid = openid_of("alice", FIRST)
        return await services[WeChatApi].check_session_key(app, openid=openid, session_key=b"bm90LXRoZWlycy4uLg==")

    async def refuse_check(self) -> WeChatError:
        with pytest.raises(WeChatError) as caught:
            await self.check_key()
        return caught.value

    def check(self, token: str | WeChatToken) -> None:
        """Check that WeChat accepts this token."""
        value = token if isinstance(token, str) else token.value.get_secret_value()
        self.stage.simulator.access_tokens[FIRST].check(value)

    def kill(self) -> None:
        self.stage.simulator.access_tokens[FIRST].end_all()


@pytest.fixture
def tokens(stage: Stage) -> Tokens:
    return Tokens(stage)


@pytest.fixture
async def known(tokens: Tokens) -> Tokens:
    """Log in the user whose session_key `check_key` checks."""
    await tokens.stage.login("alice")
    tokens.stage.simulator.calls.clear()
    return tokens


# Tokens for service clients.


async def test_a_service_client_gets_the_apps_access_token_by_stable_token(tokens: Tokens) -> None:
    answer = await tokens.ask()
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == tokens.stage.simulator.access_tokens[FIRST].hand_out_stable_token(force=False)
    (call,) = tokens.stage.simulator.calls
    app_secret = APPS[0]["app_secret"]
    body = {"grant_type": "client_credential", "appid": FIRST, "secret": app_secret, "force_refresh": False}
    assert (call.api, dict(call.query), call.json) == ("stable_token", {}, body)
    problem_of(await tokens.ask("wx0000000000000000"), "unknown_app", 400)


async def test_the_trail_records_once_a_day_who_was_given_a_token(tokens: Tokens, rows: Rows) -> None:
    for name in ("billing", "billing", "shipping", "shipping"):
        await tokens.ask(name=name)
        tokens.stage.clock.advance(seconds=1)
    tokens.stage.clock.advance(seconds=LIFETIME)
    await tokens.read()
    tokens.stage.clock.advance(days=1)
    await tokens.read()
    events = await recorded(rows, "actor, app_id, user_id, ip, data", "type = 'access_token.read'")
    names = ("billing", "shipping", "billing")
    assert events == [(name, FIRST, None, "127.0.0.1", {}) for name in names]


@pytest.mark.own_database
async def test_no_token_is_handed_out_unless_the_trail_records_it(tokens: Tokens, rows: Rows) -> None:
    await tokens.ask("another app")  # this call adds the client
    await rows.execute("ALTER TABLE events RENAME TO away")
    for answer in await asyncio.gather(*(tokens.ask() for _ in range(3))):
        problem_of(answer, "storage_unavailable", 503)
    await rows.execute("ALTER TABLE away RENAME TO events")
    assert (await tokens.ask()).status_code == 200
    assert await rows.fetchval(f"SELECT count(*) FROM events {READS}") == 1


async def test_token_reads_and_requests_to_wechat_are_counted(tokens: Tokens, rows: Rows) -> None:
    for errcode in (45009, 987654321):
        tokens.stage.simulator.fail("stable_token", errcode=errcode)
        await tokens.ask()
        tokens.stage.clock.advance(hours=1)
    assert await rows.fetchval(f"SELECT count(*) FROM events {READS}") == 0
    await tokens.ask()
    await tokens.ask()
    lines = (await tokens.stage.client.get("/metrics")).text.splitlines()
    counted = [line for line in lines if line.startswith(("wxauth_access_token_reads_t", "wxauth_wechat_calls_t"))]
    assert {line for line in counted if not line.endswith(" 0.0")} == {
        f'wxauth_access_token_reads_total{{app_id="{FIRST}",outcome="ok"}} 2.0',
        f'wxauth_access_token_reads_total{{app_id="{FIRST}",outcome="wechat_rate_limited"}} 1.0',
        f'wxauth_access_token_reads_total{{app_id="{FIRST}",outcome="wechat_bad_response"}} 1.0',
        'wxauth_wechat_calls_total{api="stable_token",errcode="",outcome="ok"} 1.0',
        'wxauth_wechat_calls_total{api="stable_token",errcode="45009",outcome="wechat_rate_limited"} 1.0',
        'wxauth_wechat_calls_total{api="stable_token",errcode="other",outcome="wechat_bad_response"} 1.0',
    }


# How tokens are stored and renewed.


async def test_simultaneous_callers_share_one_request_and_are_recorded_once(tokens: Tokens, rows: Rows) -> None:
    tokens.stage.simulator.fail("stable_token", slow=0.02)
    assert len(set(await asyncio.gather(*(tokens.read() for _ in range(20))))) == 1
    assert tokens.asks == [False]
    assert await rows.fetchval(f"SELECT count(*) FROM events {READS}") == 1


@pytest.mark.no_database
async def test_a_token_is_renewed_once_before_its_end_while_the_former_still_works(tokens: Tokens) -> None:
    former, lead = await tokens.own(), RENEWAL_LEAD.total_seconds()
    tokens.stage.clock.advance(seconds=LIFETIME - lead - 1)
    later = await tokens.own()
    assert (later.value, later.expires_in, tokens.asks) == (former.value, lead + 1, [False])
    tokens.stage.clock.advance(seconds=lead + 1 - 200)
    last = renewed = await tokens.own()
    assert (last.value, last.expires_in) == (former.value, 200)
    while renewed.value == former.value:
        renewed = await tokens.own()
        await asyncio.sleep(0)
    for token in (former, renewed):
        tokens.check(token)
    assert tokens.asks == [False, False]


async def test_a_renewal_that_fails_disturbs_nobody_before_the_end(tokens: Tokens) -> None:
    former = await tokens.read()
    tokens.stage.clock.advance(seconds=LIFETIME - 200)
    tokens.stage.simulator.fail("stable_token", errcode=45011, times=None)
    for _ in range(3):
        assert await tokens.read() == former
    await until(lambda: len(tokens.asks) == 2)
    tokens.stage.clock.advance(seconds=60)
    await tokens.read()
    await until(lambda: len(tokens.asks) == 3)
    tokens.stage.clock.advance(seconds=140)
    problem_of(await tokens.ask(), "wechat_rate_limited", 429)


@pytest.mark.no_database
async def test_a_wechat_that_renews_late_is_asked_rarely(make_settings: Callable[..., Settings], clock: Clock) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"access_token": "token", "expires_in": 200})

    services = build_services(make_settings(), clock=clock, wechat_transport=httpx.MockTransport(answer))
    for seconds in range(61):
        await services[WeChatTokens].get(services.settings.apps[0])
        await asyncio.sleep(0.002)  # time for the renewal in the background
        assert len(asked) == 1 + seconds // 30
        clock.advance(seconds=1)
    await services.aclose()


# Siblings, which can't report that WeChat rejects a token.


@pytest.mark.parametrize("killer", ["somebody else", "new secret"])
async def test_a_token_that_was_replaced_early_is_handed_out_a_minute_at_most(tokens: Tokens, killer: str) -> None:
    former = await tokens.read()
    if killer == "somebody else":
        tokens.stage.simulator.access_tokens[FIRST].hand_out_stable_token(force=True)
    else:
        tokens.kill()
    tokens.stage.clock.advance(seconds=60)
    renewed = await tokens.read()
    assert renewed != former
    tokens.check(renewed)


@pytest.mark.slow
async def test_the_token_is_compared_with_wechats_at_most_once_a_minute_and_only_if_asked_for(tokens: Tokens) -> None:
    for minute in range(5):
        for _ in range(4):
            await asyncio.gather(*(tokens.read() for _ in range(5)))
            tokens.stage.clock.advance(seconds=15)
        assert tokens.asks == [False] * (minute + 1)
    tokens.stage.clock.advance(minutes=30)
    await tokens.own()
    assert len(tokens.asks) == 5
    assert (await tokens.ask()).json()["expires_in"] == LIFETIME - 35 * 60
    assert len(tokens.asks) == 6


@pytest.mark.slow
async def test_a_wechat_that_hangs_keeps_no_sibling_waiting(tokens: Tokens) -> None:
    former = await tokens.read()
    tokens.kill()
    tokens.stage.clock.advance(minutes=1)
    tokens.stage.simulator.fail("stable_token", slow=3 * LOOK_TIMEOUT_SECONDS)
    started = asyncio.get_running_loop().time()
    assert set(await asyncio.gather(*(tokens.read() for _ in range(5)))) == {former}
    assert asyncio.get_running_loop().time() - started < 2.8 * LOOK_TIMEOUT_SECONDS

    async def is_renewed() -> bool:
        return await tokens.read() != former

    await until(is_renewed)
    assert tokens.asks == [False, False]


@pytest.mark.parametrize(("fault", "pause"), [({"errcode": 45009}, 3600), ({"drop": True}, 60)])
async def test_after_a_failed_look_the_token_is_still_given(tokens: Tokens, fault: dict[str, Any], pause: int) -> None:
    token = await tokens.read()
    tokens.stage.clock.advance(minutes=1)
    tokens.stage.simulator.fail("stable_token", **fault)
    for _ in range(10):
        assert (await tokens.read(), len(tokens.asks)) == (token, 2)
        tokens.stage.clock.advance(seconds=pause / 10)
    assert (await tokens.read(), len(tokens.asks)) == (token, 3)


# Changes of this machine's clock.


@pytest.mark.no_database
async def test_a_refused_token_is_renewed_though_the_clock_went_back_meanwhile(tokens: Tokens) -> None:
    times = (tokens.stage.clock.now - number * timedelta(milliseconds=1) for number in count())
    ours = WeChatTokens(wechat=tokens.stage.services[WeChat], clock=lambda: next(times))
    app = tokens.stage.services[Apps].find(FIRST)
    refused = await ours.get(app)
    tokens.kill()
    tokens.check(await ours.renew(app, refused=refused))


async def test_a_token_is_refused_in_vain_no_longer_because_the_clock_was_put_back(known: Tokens) -> None:
    known.stage.simulator.fail("checksession", errcode=40001)
    assert await known.check_key() is False
    known.stage.clock.advance(hours=-1)
    known.kill()
    assert await known.check_key() is False


async def test_no_token_lasts_longer_than_wechats_do_because_the_clock_was_put_back(tokens: Tokens) -> None:
    await tokens.read()
    tokens.stage.clock.advance(hours=-3)
    tokens.stage.simulator.fail("stable_token", status=503, times=None)
    assert (await tokens.ask()).json()["expires_in"] == LIFETIME
    assert (await tokens.own()).expires_in == LIFETIME


# Requests for a token that WeChat rejects.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "code", "status", "pause"),
    [
        ({"errcode": 45009}, "wechat_rate_limited", 429, 3600),
        ({"errcode": 40001}, "wechat_misconfigured", 502, 5),
        ({"html": True}, "wechat_bad_response", 502, 5),
        ({"drop": True}, "wechat_unavailable", 503, 3),
    ],
)
async def test_a_failure_answers_everybody_for_a_while(
    tokens: Tokens, fault: dict[str, Any], code: str, status: int, pause: int
) -> None:
    tokens.stage.simulator.fail("stable_token", app_id=FIRST, **fault)
    answers = await asyncio.gather(*(tokens.ask() for _ in range(5)))
    tokens.stage.clock.advance(seconds=pause - 1)
    answers.append(await tokens.ask())
    for answer in answers:
        assert problem_of(answer, code, status).get("wechat_errcode") == fault.get("errcode")
    assert tokens.asks == [False]
    assert (await tokens.ask(SECOND)).status_code == 200, "other apps are not affected"
    if "retry-after" in answers[0].headers:
        assert [int(answer.headers["retry-after"]) for answer in answers] == [pause] * 5 + [1]
    tokens.stage.clock.advance(seconds=1)
    assert (await tokens.ask()).status_code == 200


async def test_a_spent_quota_comes_back_at_midnight_in_beijing(tokens: Tokens) -> None:
    tokens.stage.clock.now = datetime.fromisoformat("2026-11-20T23:50:00+08:00")
    tokens.stage.simulator.account(FIRST).daily_quota = {"stable_token": 0}
    assert (await tokens.ask()).headers["retry-after"] == "600"
    tokens.stage.clock.advance(minutes=10)
    tokens.stage.simulator.account(FIRST).daily_quota = {"stable_token": 1}
    assert (await tokens.ask()).status_code == 200


@pytest.mark.parametrize(("errcode", "words"), [(40164, "IP whitelist"), (40001, "AppSecret is wrong")])
async def test_a_refused_token_is_logged_with_the_remedy(tokens: Tokens, errcode: int, words: str) -> None:
    tokens.stage.simulator.fail("stable_token", errcode=errcode)
    await tokens.ask()
    (line,) = (line for line in tokens.stage.log_lines() if line["level"] == "error")
    assert (line["event"], line["api"], line["errcode"]) == ("wechat_misconfigured", "stable_token", errcode)
    assert words in str(line["what_to_change"])
    assert errcode != 40164 or "127.0.0.1" in str(line["errmsg"])


@pytest.mark.no_database
async def test_a_caller_that_gives_up_does_not_cancel_the_shared_request(tokens: Tokens) -> None:
    tokens.stage.simulator.fail("stable_token", slow=0.05)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await tokens.own()
    await tokens.own()
    assert len(tokens.asks) == 1


@swept(
    "answer",
    [
        {"expires_in": 7200},
        *({"access_token": value, "expires_in": 7200} for value in ("", 7, "t" * 4097, "tökén")),
        {"access_token": "token"},
        *({"access_token": "token", "expires_in": value} for value in (0, -1, "7200", 7200.0, True, None)),
    ],
)
@pytest.mark.no_database
async def test_an_answer_without_a_usable_token_makes_no_sense(
    make_settings: Callable[..., Settings], clock: Clock, answer: dict[str, Any]
) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    services = build_services(make_settings(), clock=clock, wechat_transport=transport)
    with pytest.raises(WeChatError) as caught:
        await services[WeChatTokens].get(services.settings.apps[0])
    assert (caught.value.code, caught.value.errcode) == ("wechat_bad_response", None)
    await services.aclose()


# Tokens that WeChat rejects.


async def test_a_token_that_somebody_has_killed_is_replaced_and_the_call_sent_once_more(known: Tokens) -> None:
    for _ in range(2):
        await known.check_key()
        known.kill()
    known.stage.simulator.calls.clear()
    assert await known.check_key() is False
    assert [call.api for call in known.stage.simulator.calls] == ["checksession", "stable_token", "checksession"]
    assert known.asks == [False]


@pytest.mark.parametrize("errcode", [40001, 40014, 42001])
async def test_a_token_that_is_refused_and_handed_out_again_is_logged(known: Tokens, errcode: int) -> None:
    known.stage.simulator.fail("checksession", errcode=errcode)
    assert (await known.check_key(), known.asks) == (False, [False, False])
    assert len(known.stage.simulator.calls_of("checksession")) == 2
    [logged] = [line for line in known.stage.log_lines() if line["level"] == "error"]
    assert (logged["event"], logged["app_id"]) == ("access_token_refused_for_good", FIRST)
    assert "force_refresh" in logged["what_to_change"]


@pytest.mark.parametrize(("errcode", "code"), [(40001, "wechat_misconfigured"), (42001, "wechat_bad_response")])
async def test_a_call_refused_for_good_is_sent_twice_and_forces_none(known: Tokens, errcode: int, code: str) -> None:
    known.stage.simulator.fail("checksession", errcode=errcode, times=None)
    for seconds in range(10):
        failure = await known.refuse_check()
        assert (failure.code, failure.errcode) == (code, errcode)
        assert len(known.stage.simulator.calls_of("checksession")) == 2 * (seconds + 1)
        known.stage.clock.advance(seconds=1)
    assert known.asks == [False, False]


async def test_no_other_errcode_costs_a_token(known: Tokens) -> None:
    for number, errcode in enumerate((40164, 48001, 45009, 61010, -2), 1):
        known.stage.simulator.fail("checksession", errcode=errcode)
        assert (await known.refuse_check()).errcode == errcode
        assert len(known.stage.simulator.calls_of("checksession")) == number
        assert known.asks == [False]


async def test_a_renewal_that_fails_is_the_failure_of_the_call(known: Tokens) -> None:
    await known.check_key()
    known.kill()
    known.stage.simulator.account(FIRST).is_whitelisted = False
    for _ in range(3):
        assert (await known.refuse_check()).errcode == 40164
    assert len(known.asks) == 2


@pytest.mark.slow
async def test_the_whole_call_ends_at_its_deadline(known: Tokens) -> None:
    services = await known.stage.make_services(wechat_timeout=1.2)
    known.stage.simulator.fail("stable_token", slow=1)
    known.stage.simulator.fail("checksession", hang=True)
    started = asyncio.get_running_loop().time()
    with pytest.raises(WeChatError) as caught:
        await known.check_key(services)
    assert caught.value.code == "wechat_timeout"
    assert asyncio.get_running_loop().time() - started < 1 + 1.2


@pytest.mark.slow
async def test_a_renewal_within_a_call_ends_at_the_calls_deadline(known: Tokens) -> None:
    services = await known.stage.make_services(wechat_timeout=2)
    assert await known.check_key(services) is False
    known.kill()
    known.stage.simulator.fail("checksession", slow=1.5)
    known.stage.simulator.fail("stable_token", hang=True)
    started = asyncio.get_running_loop().time()
    with pytest.raises(WeChatTimeout, match="an access token in time"):
        await known.check_key(services)
    assert asyncio.get_running_loop().time() - started < 1.5 + 1.5


@pytest.mark.no_database
async def test_ten_replicas_renewing_at_different_times_share_one_token(tokens: Tokens) -> None:
    replicas = [await tokens.stage.make_services() for _ in range(10)]

    async def all_tokens() -> set[str]:
        found = await asyncio.gather(*(it[WeChatTokens].get(it[Apps].find(FIRST)) for it in replicas))
        return {token.value.get_secret_value() for token in found}

    (former,) = await all_tokens()
    tokens.stage.clock.advance(seconds=LIFETIME - RENEWAL_LEAD.total_seconds())
    numbers = []
    for _ in range(6):
        await all_tokens()
        await asyncio.sleep(0.02)
        numbers.append(len(tokens.asks))
        tokens.stage.clock.advance(seconds=RENEWAL_SPREAD.total_seconds() / 5)
    assert numbers[0] < numbers[-1] == 20
    (renewed,) = await all_tokens()
    assert renewed != former
    for token in (former, renewed):
        tokens.check(token)
