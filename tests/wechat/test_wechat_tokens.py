"""WeChat's access tokens: kept, renewed and handed to service clients, against the simulator."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import httpx
import pytest

from tests.fakes import Clock, Secrets
from tests.problems import problem_of
from tests.sweeps import swept
from tests.world import Client, LogLines, MakeServices, Rows, add_client, until
from wxauth.errors import WeChatError
from wxauth.server.apps.registry import Apps
from wxauth.server.clients.clients import Credentials
from wxauth.server.clients.models import Scope
from wxauth.server.core.services import Services
from wxauth.server.core.settings import Settings
from wxauth.server.dev.wechat import APPS, Simulator
from wxauth.server.service.build import build_services
from wxauth.server.siblings.wechat_routes import SharedWeChatTokens
from wxauth.server.wechat.api import WeChatApi
from wxauth.server.wechat.client import WeChat
from wxauth.server.wechat.wechat_tokens import (
    LOOK_TIMEOUT_SECONDS,
    RENEWAL_LEAD,
    RENEWAL_SPREAD,
    WeChatToken,
    WeChatTokens,
)

Read = Callable[..., Awaitable[httpx.Response]]
AskRank = Callable[[Services], Awaitable[int]]
GetOwn = Callable[[], Awaitable[WeChatToken]]
Kill = Callable[[], Awaitable[None]]

FIRST, SECOND = (app["app_id"] for app in APPS)
LIFETIME = 7200
REFUSED = [40001, 40014, 42001]


def path(app_id: str = FIRST) -> str:
    return f"/v1/apps/{app_id}/access-token"


@pytest.fixture
def add_sibling(
    simulated_services: Services, secrets: Secrets, clock: Clock
) -> Callable[[str], Awaitable[Credentials]]:
    async def add(name: str) -> Credentials:
        credentials = await add_client(simulated_services.database, name, scopes=[Scope.WECHAT_TOKEN], now=clock())
        secrets.add(credentials.client_secret)
        return credentials

    return add


@pytest.fixture
async def billing(add_sibling: Callable[[str], Awaitable[Credentials]]) -> Credentials:
    """A service client."""
    return await add_sibling("billing")


@pytest.fixture
def read(simulated_client: Client, billing: Credentials) -> Read:
    """Ask for an app's access token as that service client."""

    async def ask(app_id: str = FIRST, *, auth: tuple[str, str] = billing) -> httpx.Response:
        return await simulated_client.get(path(app_id), auth=auth)

    return ask


@pytest.fixture
def get_own(simulated_services: Services) -> GetOwn:
    """The app's access token, for a call of the service's own."""

    async def get() -> WeChatToken:
        return await simulated_services[WeChatTokens].get(simulated_services[Apps].find(FIRST))

    return get


@pytest.fixture
async def openid(simulated_client: Client) -> str:
    """Of a person who has just logged in."""
    answer = await simulated_client.post("/v1/login", json={"code": "risky-2"})
    return answer.json()["user"]["openid"]


@pytest.fixture
def ask_rank(openid: str) -> AskRank:
    """A call that requires an access token."""

    async def ask(services: Services) -> int:
        app = services[Apps].find(FIRST)
        return await services[WeChatApi].risk_rank(app, openid=openid, client_ip="203.0.113.7")

    return ask


def asks(simulator: Simulator) -> list[bool]:
    """How `stable_token` was asked: by force or not."""
    return [call.json["force_refresh"] for call in simulator.calls_of("stable_token")]


# Handed out.


async def test_a_service_client_gets_the_apps_access_token(read: Read, simulator: Simulator) -> None:
    answer = await read()
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == simulator.access_tokens[FIRST].hand_out(force=False)


async def test_an_app_that_is_not_configured_is_unknown(read: Read, simulator: Simulator) -> None:
    problem_of(await read("wx0000000000000000"), "unknown_app", 400)
    assert not simulator.calls


async def test_wechat_is_asked_by_stable_token(read: Read, simulator: Simulator) -> None:
    await read()
    (call,) = simulator.calls
    app_secret = APPS[0]["app_secret"]
    assert (call.api, dict(call.query)) == ("stable_token", {})
    assert call.json == {
        "grant_type": "client_credential",
        "appid": FIRST,
        "secret": app_secret,
        "force_refresh": False,
    }


async def test_the_trail_records_once_a_day_who_was_given_a_token(
    read: Read, rows: Rows, add_sibling: Callable[[str], Awaitable[Credentials]], clock: Clock
) -> None:
    shipping = await add_sibling("shipping")
    for auth in ({}, {}, {"auth": shipping}, {"auth": shipping}):
        await read(**auth)
        clock.advance(seconds=1)
    clock.advance(seconds=LIFETIME)
    await read()
    clock.advance(days=1)
    await read()
    events = await rows.fetch(
        "SELECT actor, app_id, user_id, host(ip) AS ip, data FROM events WHERE type = 'access_token.read' ORDER BY at"
    )
    assert [event["actor"] for event in events] == ["billing", "shipping", "billing"]
    assert {tuple(event)[1:] for event in events} == {(FIRST, None, "127.0.0.1", "{}")}


async def test_simultaneous_reads_are_recorded_once(read: Read, rows: Rows) -> None:
    answers = await asyncio.gather(*(read() for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert await rows.fetchval("SELECT count(*) FROM events WHERE type = 'access_token.read'") == 1


@pytest.mark.own_database
async def test_no_token_is_handed_out_unless_the_trail_records_it(read: Read, rows: Rows) -> None:
    await rows.execute("ALTER TABLE events RENAME TO away")
    for answer in await asyncio.gather(*(read() for _ in range(3))):
        problem_of(answer, "storage_unavailable", 503)
    await rows.execute("ALTER TABLE away RENAME TO events")
    assert (await read()).status_code == 200
    assert await rows.fetchval("SELECT count(*) FROM events WHERE type = 'access_token.read'") == 1


async def test_token_reads_and_requests_to_wechat_are_counted(
    read: Read, simulated_client: Client, simulator: Simulator, clock: Clock, rows: Rows
) -> None:
    for errcode in (45009, 987654321):
        simulator.fail("stable_token", errcode=errcode)
        await read()
        clock.advance(hours=1)
    assert await rows.fetchval("SELECT count(*) FROM events WHERE type = 'access_token.read'") == 0
    await read()
    await read()
    lines = (await simulated_client.get("/metrics")).text.splitlines()
    counted = [line for line in lines if line.startswith(("wxauth_access_token_reads_t", "wxauth_wechat_calls_t"))]
    assert {line for line in counted if not line.endswith(" 0.0")} == {
        f'wxauth_access_token_reads_total{{app_id="{FIRST}",outcome="ok"}} 2.0',
        f'wxauth_access_token_reads_total{{app_id="{FIRST}",outcome="wechat_rate_limited"}} 1.0',
        f'wxauth_access_token_reads_total{{app_id="{FIRST}",outcome="wechat_bad_response"}} 1.0',
        'wxauth_wechat_calls_total{api="stable_token",errcode="",outcome="ok"} 1.0',
        'wxauth_wechat_calls_total{api="stable_token",errcode="45009",outcome="wechat_rate_limited"} 1.0',
        'wxauth_wechat_calls_total{api="stable_token",errcode="other",outcome="wechat_bad_response"} 1.0',
    }


async def test_a_login_asks_for_no_access_token(simulated_client: Client, simulator: Simulator) -> None:
    simulator.fail("stable_token", hang=True)
    assert (await simulated_client.post("/v1/login", json={"code": "alice"})).status_code == 200
    assert [call.api for call in simulator.calls] == ["code2session"]


# Kept and renewed.


@pytest.mark.no_database
async def test_a_token_is_asked_for_once_and_its_time_runs(get_own: GetOwn, simulator: Simulator, clock: Clock) -> None:
    first = await get_own()
    clock.advance(seconds=LIFETIME - RENEWAL_LEAD.total_seconds() - 1)
    later = await get_own()
    assert (later.value, later.expires_in) == (first.value, RENEWAL_LEAD.total_seconds() + 1)
    assert asks(simulator) == [False]


async def test_simultaneous_callers_share_one_request(read: Read, simulator: Simulator) -> None:
    simulator.fail("stable_token", slow=0.02)
    answers = await asyncio.gather(*(read() for _ in range(20)))
    assert len({answer.json()["access_token"] for answer in answers}) == 1
    assert len(asks(simulator)) == 1


@pytest.mark.no_database
async def test_a_token_is_renewed_before_its_end_while_the_former_still_works(
    get_own: GetOwn, simulator: Simulator, clock: Clock
) -> None:
    former = await get_own()
    clock.advance(seconds=LIFETIME - 200)
    last = await get_own()
    assert (last.value, last.expires_in) == (former.value, 200)
    renewed = last
    while renewed.value == former.value:
        renewed = await get_own()
        await asyncio.sleep(0)
    for token in (former, renewed):
        simulator.access_tokens[FIRST].check(token.value.get_secret_value())
    assert asks(simulator) == [False, False]


async def test_a_renewal_that_fails_disturbs_nobody_before_the_end(
    read: Read, simulator: Simulator, clock: Clock
) -> None:
    former = (await read()).json()["access_token"]
    clock.advance(seconds=LIFETIME - 200)
    simulator.fail("stable_token", errcode=45011, times=None)
    for _ in range(3):
        assert (await read()).json()["access_token"] == former
    await until(lambda: len(asks(simulator)) == 2)
    clock.advance(seconds=60)
    await read()
    await until(lambda: len(asks(simulator)) == 3)
    clock.advance(seconds=140)
    problem_of(await read(), "wechat_rate_limited", 429)


@pytest.mark.no_database
async def test_wechat_is_not_asked_all_the_time_where_it_renews_late(
    make_settings: Callable[..., Settings], clock: Clock
) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"access_token": "token", "expires_in": 200})

    services = build_services(make_settings(), clock=clock, wechat_transport=httpx.MockTransport(answer))
    for seconds in range(61):
        await services[WeChatTokens].get(services.settings.apps[0])
        await asyncio.sleep(0.002)  # for the one in the background
        assert len(asked) == 1 + seconds // 30
        clock.advance(seconds=1)
    await services.aclose()


# Siblings cannot report that WeChat refuses a token.


@pytest.fixture
def kill(simulator: Simulator, make_simulated_services: MakeServices) -> dict[str, Kill]:
    """The ways in which a token dies before its time."""

    async def operator() -> None:
        await (await make_simulated_services())[SharedWeChatTokens].force(FIRST)
        assert asks(simulator)[-1] is True

    async def somebody_else() -> None:
        simulator.access_tokens[FIRST].hand_out(force=True)

    async def new_secret() -> None:
        simulator.access_tokens[FIRST].kill()

    return {kill.__name__: kill for kill in (operator, somebody_else, new_secret)}


@pytest.mark.parametrize("killer", ["operator", "somebody_else", "new_secret"])
async def test_a_token_that_was_replaced_before_its_time_is_handed_out_no_longer_than_a_minute(
    read: Read, kill: dict[str, Kill], simulator: Simulator, clock: Clock, killer: str
) -> None:
    former = (await read()).json()["access_token"]
    await kill[killer]()
    clock.advance(seconds=60)
    renewed = (await read()).json()["access_token"]
    assert renewed != former
    simulator.access_tokens[FIRST].check(renewed)


@pytest.mark.slow
async def test_the_token_is_compared_with_wechats_at_most_once_a_minute_and_only_if_asked_for(
    read: Read, get_own: GetOwn, simulator: Simulator, clock: Clock
) -> None:
    for minute in range(5):
        for _ in range(4):
            await asyncio.gather(*(read() for _ in range(5)))
            clock.advance(seconds=15)
        assert asks(simulator) == [False] * (minute + 1)
    clock.advance(minutes=30)
    await get_own()
    assert len(asks(simulator)) == 5
    assert (await read()).json()["expires_in"] == LIFETIME - 35 * 60
    assert len(asks(simulator)) == 6


@pytest.mark.slow
async def test_a_wechat_that_hangs_keeps_no_sibling_waiting(read: Read, simulator: Simulator, clock: Clock) -> None:
    former = (await read()).json()["access_token"]
    simulator.access_tokens[FIRST].kill()
    clock.advance(minutes=1)
    simulator.fail("stable_token", slow=3 * LOOK_TIMEOUT_SECONDS)
    started = asyncio.get_running_loop().time()
    answers = await asyncio.gather(*(read() for _ in range(5)))
    assert asyncio.get_running_loop().time() - started < 2.8 * LOOK_TIMEOUT_SECONDS
    assert {answer.json()["access_token"] for answer in answers} == {former}

    async def is_renewed() -> bool:
        return (await read()).json()["access_token"] != former

    await until(is_renewed)
    assert asks(simulator) == [False, False]


@pytest.mark.parametrize(
    ("fault", "pause"), [({"errcode": 45009}, 3600), ({"errcode": 45011}, 60), ({"drop": True}, 60)]
)
async def test_after_a_look_that_failed_wechat_is_left_alone_and_the_token_handed_out(
    read: Read, simulator: Simulator, clock: Clock, fault: dict[str, Any], pause: int
) -> None:
    token = (await read()).json()["access_token"]
    clock.advance(minutes=1)
    simulator.fail("stable_token", **fault)
    for _ in range(10):
        assert (await read()).json()["access_token"] == token
        assert len(asks(simulator)) == 2
        clock.advance(seconds=pause / 10)
    assert (await read()).json()["access_token"] == token
    assert len(asks(simulator)) == 3


# When this machine's clock is set.


def going_back(now: datetime, **by: float) -> Callable[[], datetime]:
    """A clock that is earlier each time."""
    step = timedelta(**by)
    times = (now - number * step for number in count())
    return lambda: next(times)


@pytest.mark.no_database
async def test_a_refused_token_is_renewed_though_the_clock_went_back_meanwhile(
    simulated_services: Services, simulator: Simulator, clock: Clock
) -> None:
    tokens = WeChatTokens(wechat=simulated_services[WeChat], clock=going_back(clock.now, milliseconds=1))
    app = simulated_services[Apps].find(FIRST)
    refused = await tokens.get(app)
    simulator.access_tokens[FIRST].kill()
    renewed = await tokens.renew(app, refused=refused)
    simulator.access_tokens[FIRST].check(renewed.value.get_secret_value())


async def test_a_token_is_refused_in_vain_no_longer_because_the_clock_was_put_back(
    simulated_services: Services, simulator: Simulator, ask_rank: AskRank, clock: Clock
) -> None:
    simulator.fail("getuserriskrank", errcode=40001)
    assert await ask_rank(simulated_services) == 2
    clock.advance(hours=-1)
    simulator.access_tokens[FIRST].kill()
    assert await ask_rank(simulated_services) == 2


async def test_no_token_lasts_longer_than_wechats_do_because_the_clock_was_put_back(
    read: Read, get_own: GetOwn, simulator: Simulator, clock: Clock
) -> None:
    await read()
    clock.advance(hours=-3)
    simulator.fail("stable_token", status=503, times=None)
    assert (await read()).json()["expires_in"] == LIFETIME
    assert (await get_own()).expires_in == LIFETIME


# Refusals of WeChat.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "code", "status", "pause"),
    [
        ({"errcode": 45009}, "wechat_rate_limited", 429, 3600),
        ({"errcode": 45011}, "wechat_rate_limited", 429, 60),
        ({"errcode": 40001}, "wechat_misconfigured", 502, 5),
        ({"errcode": 40125}, "wechat_misconfigured", 502, 5),
        ({"errcode": 40164}, "wechat_misconfigured", 502, 5),
        ({"errcode": 40243}, "wechat_misconfigured", 502, 5),
        ({"errcode": 89503}, "wechat_misconfigured", 502, 5),
        ({"errcode": 42001}, "wechat_bad_response", 502, 5),
        ({"html": True}, "wechat_bad_response", 502, 5),
        ({"status": 503}, "wechat_unavailable", 503, 3),
        ({"drop": True}, "wechat_unavailable", 503, 3),
    ],
)
async def test_a_failure_answers_everybody_for_a_while(
    read: Read, simulator: Simulator, clock: Clock, fault: dict[str, Any], code: str, status: int, pause: int
) -> None:
    simulator.fail("stable_token", **fault)
    answers = await asyncio.gather(*(read() for _ in range(5)))
    clock.advance(seconds=pause - 1)
    answers.append(await read())
    for answer in answers:
        assert problem_of(answer, code, status).get("wechat_errcode") == fault.get("errcode")
    assert asks(simulator) == [False]
    if "retry-after" in answers[0].headers:
        assert [int(answer.headers["retry-after"]) for answer in answers] == [pause] * 5 + [1]
    clock.advance(seconds=1)
    assert (await read()).status_code == 200


async def test_a_spent_quota_comes_back_at_midnight_in_beijing(read: Read, simulator: Simulator, clock: Clock) -> None:
    clock.now = datetime.fromisoformat("2026-11-20T23:50:00+08:00")
    simulator.account(FIRST).daily_quota = {"stable_token": 0}
    assert (await read()).headers["retry-after"] == "600"
    clock.advance(minutes=10)
    simulator.account(FIRST).daily_quota = {"stable_token": 1}
    assert (await read()).status_code == 200


async def test_a_failure_of_one_app_does_not_affect_other_apps(read: Read, simulator: Simulator) -> None:
    simulator.fail("stable_token", app_id=FIRST, errcode=40243)
    assert [(await read(app_id)).status_code for app_id in (FIRST, SECOND)] == [502, 200]


@pytest.mark.parametrize(
    ("errcode", "words"), [(40164, "IP whitelist"), (40001, "secret is wrong"), (40125, "secret is wrong")]
)
async def test_a_refused_token_is_logged_with_the_remedy(
    read: Read, simulator: Simulator, log_lines: LogLines, errcode: int, words: str
) -> None:
    simulator.fail("stable_token", errcode=errcode)
    await read()
    (line,) = (line for line in log_lines() if line["level"] == "error")
    assert (line["event"], line["api"], line["errcode"]) == ("wechat_misconfigured", "stable_token", errcode)
    assert words in str(line["what_to_change"])
    assert errcode != 40164 or "127.0.0.1" in str(line["errmsg"])


@pytest.mark.no_database
async def test_a_caller_that_gives_up_does_not_cancel_the_shared_request(
    simulated_services: Services, simulator: Simulator
) -> None:
    simulator.fail("stable_token", slow=0.05)
    app = simulated_services[Apps].find(FIRST)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await simulated_services[WeChatTokens].get(app)
    await simulated_services[WeChatTokens].get(app)
    assert len(asks(simulator)) == 1


@swept(
    "answer",
    [
        {"expires_in": 7200},
        {"access_token": "", "expires_in": 7200},
        {"access_token": 7, "expires_in": 7200},
        {"access_token": "t" * 4097, "expires_in": 7200},
        {"access_token": "tökén", "expires_in": 7200},
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


# A token that WeChat refuses.


async def test_a_token_that_somebody_has_killed_is_replaced_and_the_call_sent_once_more(
    simulated_services: Services, simulator: Simulator, ask_rank: AskRank
) -> None:
    for _ in range(2):
        await ask_rank(simulated_services)
        simulator.access_tokens[FIRST].kill()
    simulator.calls.clear()
    assert await ask_rank(simulated_services) == 2
    assert [call.api for call in simulator.calls] == ["getuserriskrank", "stable_token", "getuserriskrank"]
    assert asks(simulator) == [False]


@pytest.mark.parametrize("errcode", REFUSED)
async def test_a_token_that_is_refused_and_yet_handed_out_again_is_logged_for_the_operator(
    simulated_services: Services, simulator: Simulator, ask_rank: AskRank, log_lines: LogLines, errcode: int
) -> None:
    simulator.fail("getuserriskrank", errcode=errcode)
    assert await ask_rank(simulated_services) == 2
    assert asks(simulator) == [False, False]
    assert len(simulator.calls_of("getuserriskrank")) == 2
    [logged] = [line for line in log_lines() if line["level"] == "error"]
    assert (logged["event"], logged["app_id"]) == ("access_token_refused_for_good", FIRST)
    assert "wxauth apps force-token" in logged["what_to_change"]


@pytest.mark.parametrize(
    ("errcode", "code"),
    [(40001, "wechat_misconfigured"), (40014, "wechat_bad_response"), (42001, "wechat_bad_response")],
)
async def test_a_call_that_is_refused_for_good_is_sent_twice_and_never_forces_a_token(
    simulated_services: Services, simulator: Simulator, ask_rank: AskRank, clock: Clock, errcode: int, code: str
) -> None:
    simulator.fail("getuserriskrank", errcode=errcode, times=None)
    for seconds in range(10):
        with pytest.raises(WeChatError) as caught:
            await ask_rank(simulated_services)
        assert (caught.value.code, caught.value.errcode) == (code, errcode)
        assert len(simulator.calls_of("getuserriskrank")) == 2 * (seconds + 1)
        clock.advance(seconds=1)
    assert asks(simulator) == [False, False]


@pytest.mark.parametrize("errcode", [40164, 48001, 45009, 61010, -2])
async def test_no_other_errcode_costs_a_token(
    simulated_services: Services, simulator: Simulator, ask_rank: AskRank, errcode: int
) -> None:
    simulator.fail("getuserriskrank", errcode=errcode)
    with pytest.raises(WeChatError):
        await ask_rank(simulated_services)
    assert len(simulator.calls_of("getuserriskrank")) == 1
    assert asks(simulator) == [False]


async def test_a_renewal_that_fails_is_the_failure_of_the_call(
    simulated_services: Services, simulator: Simulator, ask_rank: AskRank
) -> None:
    await ask_rank(simulated_services)
    simulator.access_tokens[FIRST].kill()
    simulator.account(FIRST).is_whitelisted = False
    for _ in range(3):
        with pytest.raises(WeChatError) as caught:
            await ask_rank(simulated_services)
        assert caught.value.errcode == 40164
    assert len(asks(simulator)) == 2


async def test_a_token_replaced_by_an_operator_is_recorded_in_the_trail(
    simulated_services: Services, simulator: Simulator, get_own: GetOwn, rows: Rows
) -> None:
    former = await get_own()
    await simulated_services[SharedWeChatTokens].force(FIRST)
    simulator.access_tokens[FIRST].check((await get_own()).value.get_secret_value())
    assert (await get_own()).value != former.value
    assert asks(simulator) == [False, True]
    event = await rows.fetchrow("SELECT actor, app_id FROM events WHERE type = 'access_token.forced'")
    assert event is not None
    assert tuple(event) == ("operator", FIRST)


@pytest.mark.slow
async def test_the_whole_call_ends_at_its_deadline(
    make_simulated_services: MakeServices, simulator: Simulator, ask_rank: AskRank
) -> None:
    services = await make_simulated_services(wechat_timeout=1.2)
    simulator.fail("stable_token", slow=1)
    simulator.fail("getuserriskrank", hang=True)
    started = asyncio.get_running_loop().time()
    with pytest.raises(WeChatError) as caught:
        await ask_rank(services)
    assert caught.value.code == "wechat_timeout"
    assert asyncio.get_running_loop().time() - started < 1 + 1.2


# Many processes.


@pytest.fixture
async def replicas(make_simulated_services: MakeServices) -> list[Services]:
    """Ten of them, each with tokens of its own."""
    return [await make_simulated_services() for _ in range(10)]


async def tokens_of(replicas: list[Services]) -> set[str]:
    tokens = await asyncio.gather(*(it[WeChatTokens].get(it[Apps].find(FIRST)) for it in replicas))
    return {token.value.get_secret_value() for token in tokens}


@pytest.mark.no_database
async def test_ten_replicas_renewing_at_different_times_share_one_token(
    replicas: list[Services], simulator: Simulator, clock: Clock
) -> None:
    (former,) = await tokens_of(replicas)
    clock.advance(seconds=LIFETIME - RENEWAL_LEAD.total_seconds())
    numbers = []
    for _ in range(6):
        await tokens_of(replicas)
        await asyncio.sleep(0.02)
        numbers.append(len(asks(simulator)))
        clock.advance(seconds=RENEWAL_SPREAD.total_seconds() / 5)
    assert numbers[0] < numbers[-1] == 20
    (renewed,) = await tokens_of(replicas)
    assert renewed != former
    for token in (former, renewed):
        simulator.access_tokens[FIRST].check(token)
