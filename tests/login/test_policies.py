"""`RISK_POLICY` and `NICKNAME_CHECK`: WeChat's verdicts on newcomers and names; without a verdict, logins continue."""

import asyncio

import httpx
import pytest

from tests.database_proxy import Proxy
from tests.loops import let_pass
from tests.metrics import scrape
from tests.problems import problem_of
from tests.world import BESIDE_LOGINS, Body, Stage, make_admin, recorded, until
from wxauth.server.core.background import FINISH_SECONDS, MAX_TASKS, RETRY_PAUSE_SECONDS, Background, Retries
from wxauth.server.dev.wechat import APPS, Api
from wxauth.server.dev.wechat.controls import openid_of
from wxauth.server.limits.queries import MAX_ATTEMPTS as NAMES_OF_ONE
from wxauth.server.service.build import Timeouts
from wxauth.server.users.policies import LOGGED_AGAIN_AFTER, OPINION_TIMEOUT_SECONDS

APP_ID, OTHER_APP_ID = (app["app_id"] for app in APPS)
RISK: Api = "getuserriskrank"
TEXT: Api = "msg_sec_check"
SHORT = 1.0
"""A WECHAT_TIMEOUT for calls that hang."""
SOON = OPINION_TIMEOUT_SECONDS + 3.0
HASTE = 5
HURRIED = Timeouts(
    retries=RETRY_PAUSE_SECONDS / HASTE, background_farewell=FINISH_SECONDS / HASTE, wechat_busy=(0.02, 0.06)
)
"""The waits of production, divided by `HASTE`; but not those for WeChat, whose answers most tests are about."""

pytestmark = [pytest.mark.usefixtures("simulated"), pytest.mark.settings(timeouts=HURRIED)]

flag_or_block = pytest.mark.parametrize("policy", ["flag", "block"])


@pytest.fixture
async def blocking(stage: Stage) -> Stage:
    return await stage.replica(risk_policy="block")


async def events_of(stage: Stage) -> list[tuple[str, str, Body]]:
    """Type, actor and data of each event, after the background work has ended."""
    await stage.services[Background].drain()
    return await recorded(stage.rows, "type, actor, data", BESIDE_LOGINS)


async def kinds_of(stage: Stage) -> list[str]:
    return [kind for kind, _, _ in await events_of(stage)]


async def checks_of(stage: Stage, app_id: str = APP_ID) -> dict[tuple[str, ...], float]:
    """How often each came of asking WeChat: policy, outcome, errcode."""
    await stage.services[Background].drain()
    scraped = await scrape(stage.client)
    return scraped.counted("wxauth_policy_checks_total", "policy", "outcome", "errcode", app_id=app_id)


async def asking(stage: Stage) -> asyncio.Task[httpx.Response]:
    """A login of a risky person, about whom WeChat is being asked."""
    login = asyncio.create_task(stage.login.ask("risky-4"))
    await until(lambda: bool(stage.simulator.calls_of(RISK)))
    return login


# Off.


async def test_no_policy_asks_wechat_unless_enabled(stage: Stage) -> None:
    stage = await stage.replica()
    alice = await stage.login("risky-4", nickname="risky")
    assert (await stage.change(alice, nickname="more risky")).json()["nickname"] == "more risky"
    assert {call.api for call in stage.simulator.calls} == {"code2session"}
    assert await events_of(stage) == []
    assert await checks_of(stage) == {}


@pytest.mark.parametrize(("on", "asked"), [("risk_policy", RISK), ("nickname_check", TEXT)])
async def test_each_policy_asks_its_own_question(stage: Stage, on: str, asked: str) -> None:
    stage = await stage.replica(**{on: "block"})
    await stage.login(nickname="Alice")
    assert [call.api for call in stage.simulator.calls] == ["code2session", "stable_token", asked]


# The risk of a newcomer.


@flag_or_block
async def test_wechat_is_asked_for_the_risk_only_at_the_first_login(stage: Stage, policy: str) -> None:
    stage = await stage.replica(risk_policy=policy, nickname_check=policy)
    for app_id, nickname in ((APP_ID, None), (APP_ID, "Al"), (OTHER_APP_ID, "Bo")):  # one person, by the unionid
        await stage.login("risky-2", app_id=app_id, nickname=nickname)
        await stage.services[Background].drain()
    openid = openid_of("risky-2", APP_ID)
    assert stage.asked(RISK) == [{"appid": APP_ID, "openid": openid, "scene": 0, "client_ip": "127.0.0.1"}]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "rank"), [*(("flag", rank) for rank in range(5)), *(("block", n) for n in range(4))]
)
async def test_a_risk_is_noted_and_the_person_let_in(stage: Stage, policy: str, rank: int) -> None:
    stage = await stage.replica(risk_policy=policy)
    login = await stage.login(f"risky-{rank}")
    assert login["is_new_user"]
    assert login["user"]["status"] == "active"
    assert await events_of(stage) == ([("risk.flagged", "system", {"risk_rank": rank})] if rank else [])
    assert await checks_of(stage) == {("risk", "flagged" if rank else "pass", ""): 1}
    lines = [(line["user_id"], line["risk_rank"]) for line in stage.logged("risk_flagged")]
    assert lines == ([(login["user"]["id"], rank)] if rank else [])
    assert (await stage.user(login))["id"] == login["user"]["id"]


async def test_flagging_delays_no_login(stage: Stage) -> None:
    stage = await stage.replica(risk_policy="flag", nickname_check="flag", wechat_timeout=60)
    apis: tuple[Api, ...] = ("stable_token", RISK, TEXT)
    for api in apis:
        stage.simulator.fail(api, hang=True, times=None)
    async with asyncio.timeout(SOON):
        login = await stage.login("risky-4", nickname="risky")
        assert login["user"]["nickname"] == "risky"
        await stage.change(login, nickname="more risky")
        await until(lambda: bool(stage.simulator.calls_of("stable_token")))
        await stage.services.aclose()
    assert await events_of(stage) == []
    assert [line["pieces"] for line in stage.logged("background_work_left")] == [3], "a risk and two names"


async def test_a_user_of_the_highest_risk_is_banned_and_spends_no_phone_code(stage: Stage) -> None:
    stage = await stage.replica(risk_policy="block", nickname_check="block")
    answer = await stage.login.ask("risky-4", nickname="Al", phone_code="phone-13800138000")
    problem_of(answer, "wechat_user_blocked", 403)
    assert stage.asked("getuserphonenumber") == []
    session_id = await stage.rows.fetchval("SELECT id FROM sessions")
    assert await events_of(stage) == [
        ("user.banned", "system", {"risk_rank": 4}),
        ("session.ended", "system", {"reason": "banned", "session_ids": [str(session_id)]}),
    ]
    assert await stage.rows.fetchval("SELECT status FROM users") == "disabled"
    session = await stage.rows.fetchrow("SELECT revoked_reason, session_key FROM sessions")
    assert session is not None
    assert tuple(session) == ("banned", None)
    assert (await checks_of(stage))["risk", "blocked", ""] == 1
    assert stage.logged("logged_in") == []
    assert [line["risk_rank"] for line in stage.logged("user_banned")] == [4]

    problem_of(await stage.login.ask("risky-4"), "account_disabled", 403)
    assert len(stage.asked(RISK)) == 1


async def test_an_administrator_may_unban_risky_users_and_sees_why_they_were_banned(blocking: Stage) -> None:
    root = await make_admin(blocking.client, blocking.rows, await blocking.login("root"))
    await blocking.login.ask("risky-4")
    (event,) = await root.events(type="user.banned")
    assert (event["actor"], event["app_id"], event["data"]) == ("system", APP_ID, {"risk_rank": 4})
    await root.change(event["user_id"], status="active")
    login = await blocking.login("risky-4")
    assert (login["user"]["id"], login["is_new_user"]) == (event["user_id"], False)
    assert len(blocking.asked(RISK)) == 2, "of root and of them, once each"


@pytest.mark.parametrize(
    ("policy", "person", "outcome"),
    [("block", "risky-4", "wechat_user_blocked"), ("block", "alice", None), ("flag", "risky-2", None)],
)
async def test_logins_at_once_share_one_verdict(stage: Stage, policy: str, person: str, outcome: str | None) -> None:
    stage = await stage.replica(risk_policy=policy)
    stage.simulator.fail(RISK, slow=0.3)
    answers = await asyncio.gather(*(stage.login.ask(person) for _ in range(5)))
    await stage.services[Background].drain()
    assert {answer.json().get("code") for answer in answers} == {outcome}
    assert len(stage.asked(RISK)) == 1
    assert await stage.number("events WHERE type = 'risk.flagged'") == (policy == "flag")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "status", "events"),
    [
        ("UPDATE users SET roles = '{admin}'", 200, ["risk.flagged"]),  # the only administrator is not removed
        ("UPDATE users SET status = 'disabled'", 403, []),
        ("DELETE FROM users", 403, []),
    ],
)
async def test_an_administrators_decision_in_the_meantime_takes_precedence(
    blocking: Stage, statement: str, status: int, events: list[str]
) -> None:
    blocking.simulator.fail(RISK, slow=0.5)
    login = await asking(blocking)
    await blocking.rows.execute(statement)
    assert (await login).status_code == status
    assert await kinds_of(blocking) == events


async def test_a_ban_that_the_database_does_not_take_is_tried_again(stage: Stage, proxy: Proxy) -> None:
    stage = await stage.replica(risk_policy="block", database_url=proxy.url)
    stage.simulator.fail(RISK, errcode=45009, times=1)
    unjudged = await stage.login("risky-4")  # keeps these tokens, and need not log in again
    stage.simulator.fail(RISK, slow=0.4)
    login = asyncio.create_task(stage.login.ask("risky-4"))
    await until(lambda: len(stage.simulator.calls_of(RISK)) > 1)
    await proxy.refuse()
    problem_of(await login, "storage_unavailable", 503)
    await proxy.accept()
    await stage.services[Retries].drain()
    refreshed = await stage.client.post("/v1/refresh", json={"refresh_token": unjudged["refresh_token"]})
    problem_of(refreshed, "account_disabled", 403)
    assert "user.banned" in await kinds_of(stage)
    assert [line["what"] for line in stage.logged("promise_put_off")] == ["ban"]


async def test_a_ban_put_off_when_the_service_ends_is_told_as_lost(stage: Stage, proxy: Proxy) -> None:
    stage = await stage.replica(risk_policy="block", database_url=proxy.url)
    stage.simulator.fail(RISK, slow=0.4)
    login = await asking(stage)
    await proxy.refuse()
    problem_of(await login, "storage_unavailable", 503)
    await stage.services[Retries].aclose()
    assert [line["what"] for line in stage.logged("promise_lost")] == ["ban"]


async def test_a_user_who_hangs_up_while_wechat_is_asked_is_banned_all_the_same(blocking: Stage) -> None:
    blocking.simulator.fail(RISK, slow=0.4)
    login = await asking(blocking)
    login.cancel()
    await asyncio.gather(login, return_exceptions=True)
    assert await kinds_of(blocking) == ["user.banned", "session.ended"]
    problem_of(await blocking.login.ask("risky-4"), "account_disabled", 403)


async def test_a_user_erased_before_the_flag_leaves_no_trace(stage: Stage) -> None:
    stage = await stage.replica(risk_policy="flag")
    stage.simulator.fail(RISK, slow=0.3)
    await stage.login("risky-3")
    await stage.rows.execute("DELETE FROM users")
    assert await events_of(stage) == []


# Logins at once, replicas, and a slow WeChat.


@pytest.mark.slow
async def test_a_replica_without_a_verdict_checks_for_another_replicas(stage: Stage) -> None:
    one, other = [await stage.replica(risk_policy="block", wechat_timeout=2) for _ in range(2)]
    one.simulator.fail(RISK, hang=True)  # whoever asks first
    waiting = await asking(one)
    problem_of(await other.login.ask("risky-4"), "wechat_user_blocked", 403)
    problem_of(await waiting, "account_disabled", 403)


@pytest.mark.slow
async def test_who_passed_because_wechat_was_slow_is_checked_at_the_next_login(stage: Stage) -> None:
    stage = await stage.replica(risk_policy="block", wechat_timeout=SHORT)
    stage.simulator.fail(RISK, hang=True)
    assert (await stage.login.ask("risky-4")).status_code == 200, "WeChat's silence keeps nobody out"
    off = await stage.replica(risk_policy="off")
    assert (await off.login.ask("risky-4")).status_code == 200
    assert len(stage.asked(RISK)) == 1, "while the policy is off, nobody is asked about"
    problem_of(await stage.login.ask("risky-4"), "wechat_user_blocked", 403)
    assert len(stage.asked(RISK)) == 2
    assert await stage.rows.fetchval("SELECT array_agg(DISTINCT revoked_reason) FROM sessions") == ["banned"]


@flag_or_block
async def test_wechat_is_asked_until_it_gives_a_verdict_and_never_again(stage: Stage, policy: str) -> None:
    stage = await stage.replica(risk_policy=policy)
    stage.simulator.fail(RISK, errcode=48001, times=2)
    for number in (1, 2, 3, 3, 3):
        assert (await stage.login.ask("risky-2")).status_code == 200
        await stage.services[Background].drain()
        assert len(stage.asked(RISK)) == number


@pytest.mark.parametrize(
    ("policy", "person", "event"), [("block", "risky-4", "user.banned"), ("flag", "risky-2", "risk.flagged")]
)
async def test_a_newcomer_who_is_merged_while_wechat_is_asked_is_judged_as_the_user_who_remains(
    stage: Stage, policy: str, person: str, event: str
) -> None:
    stage = await stage.replica()
    root = await make_admin(stage.client, stage.rows, await stage.login("root"))
    alice = await stage.login("alice")
    judging = await stage.replica(risk_policy=policy)
    stage.simulator.fail(RISK, slow=1.0)
    login = asyncio.create_task(judging.login.ask(person))
    await until(lambda: len(stage.asked(RISK)))
    known = [root.id, alice["user"]["id"]]
    newcomer = await stage.rows.fetchval("SELECT id::text FROM users WHERE NOT (id::text = ANY ($1))", known)
    assert (await root.merge(newcomer, into=alice["user"]["id"])).status_code == 200
    await login
    await judging.services[Background].drain()
    told = await recorded(stage.rows, "type, user_id", "type IN ('user.banned', 'risk.flagged')")
    assert told == [(event, alice["user"]["id"])]


# Names.


@pytest.mark.parametrize("method", ["PATCH", "POST"])
async def test_a_new_name_is_shown_to_wechat(stage: Stage, method: str) -> None:
    stage = await stage.replica(nickname_check="block")
    alice = await stage.login()
    assert (await stage.change(alice, method=method, nickName=" 小明 ")).json()["nickname"] == "小明"
    openid = alice["user"]["openid"]
    assert stage.asked(TEXT) == [{"version": 2, "scene": 1, "openid": openid, "content": "小明", "nickname": "小明"}]
    assert "小明".encode() in stage.simulator.calls_of(TEXT)[0].body
    assert await checks_of(stage) == {("nickname", "pass", ""): 1}


@flag_or_block
async def test_a_returning_login_costs_one_call_and_one_statement_and_a_name_that_stays_none(
    stage: Stage, policy: str
) -> None:
    stage = await stage.replica(risk_policy=policy, nickname_check=policy)
    alice = await stage.login(nickname="Alice")
    await stage.services[Background].drain()
    calls = len(stage.simulator.calls)
    for nickname in ("Alice", None):
        session_id = (await stage.login(nickname=nickname))["session_id"]
        written_last = "SELECT u.xmin = s.xmin FROM users u, sessions s WHERE s.id = $1"  # by one transaction
        assert await stage.rows.fetchval(written_last, session_id)
    await stage.change(alice, nickname="Alice")
    await stage.change(alice, avatar_url="https://example.com/a.png")
    assert (await stage.change(alice, nickname=None)).json()["nickname"] is None
    await stage.services[Background].drain()
    assert len(stage.simulator.calls) == calls + 2


@pytest.mark.parametrize(
    ("policy", "name", "suggest", "label"),
    [
        ("block", "review me", "review", 21000),
        ("block", "可疑", "review", 21000),
        ("flag", "a risky name", "risky", 20006),
    ],
)
@pytest.mark.parametrize("way", ["login", "PATCH"])
@pytest.mark.slow
async def test_a_doubtful_name_is_taken_and_noted(
    stage: Stage, policy: str, way: str, name: str, suggest: str, label: int
) -> None:
    stage = await stage.replica(nickname_check=policy)
    if way == "login":
        user = (await stage.login(nickname=name))["user"]
    else:
        user = (await stage.change(await stage.login(), nickname=name)).json()
    assert user["nickname"] == name
    assert await events_of(stage) == [("nickname.flagged", "system", {"suggest": suggest, "label": label})]
    assert await checks_of(stage) == {("nickname", "flagged", ""): 1}
    assert name not in str(stage.log_lines())


@pytest.mark.parametrize(("method", "fault"), [("PATCH", {}), ("POST", {}), ("PATCH", {"errcode": 87014})])
async def test_a_risky_name_is_refused_and_nothing_is_changed(stage: Stage, method: str, fault: Body) -> None:
    stage = await stage.replica(nickname_check="block")
    alice = await stage.login(nickname="Alice")
    if fault:
        stage.simulator.fail(TEXT, **fault)
    answer = await stage.change(alice, method=method, nickname="risky", avatar_url="https://example.com/a.png")
    problem = problem_of(answer, "invalid_request", 422)
    assert [error["field"] for error in problem["errors"]] == ["nickname"]
    assert problem["title"] == "This name cannot be used, please choose another."
    assert "risky" not in answer.text
    assert await stage.user(alice) == alice["user"]
    assert (await checks_of(stage))["nickname", "blocked", ""] == 1
    assert await events_of(stage) == []


async def test_a_login_goes_on_without_its_risky_name(stage: Stage) -> None:
    stage = await stage.replica(nickname_check="block")
    first = await stage.login(nickname="risky")
    assert (first["is_new_user"], first["user"]["nickname"]) == (True, None)
    assert first["ignored"] == {"nickname": "invalid_request"}
    await stage.login(nickname="Alice")
    again = await stage.login(nickname="risky", avatar_url="https://example.com/a.png")
    assert again["user"]["nickname"] == "Alice"
    assert again["user"]["avatar_url"] == "https://example.com/a.png"
    assert await stage.user(again) == again["user"]


async def test_a_newcomers_risk_and_name_are_asked_about_together(stage: Stage) -> None:
    stage = await stage.replica(risk_policy="block", nickname_check="block")
    await stage.login("root")
    for api in (RISK, TEXT):
        stage.simulator.fail(api, slow=0.3)
    logging_in = asyncio.create_task(stage.login("risky-1", nickname="review me"))
    await until(lambda: all(stage.simulator.calls_of(api) for api in (RISK, TEXT)))
    assert not logging_in.done()
    assert (await logging_in)["user"]["nickname"] == "review me"
    assert sorted(await kinds_of(stage)) == ["nickname.flagged", "risk.flagged"]


async def test_a_name_is_not_checked_after_two_hours_of_absence(stage: Stage) -> None:
    stage = await stage.replica(nickname_check="block", access_token_ttl=86400)
    alice = await stage.login()
    stage.clock.advance(hours=2)
    assert (await stage.change(alice, nickname="risky")).json()["nickname"] == "risky"
    assert await checks_of(stage) == {("nickname", "wechat_bad_response", "61010"): 1}
    assert stage.logged("wechat_refused") == []


async def test_a_name_in_an_app_that_is_configured_no_longer_is_taken(stage: Stage) -> None:
    stage = await stage.replica(nickname_check="block")
    alice = await stage.login(app_id=OTHER_APP_ID)
    smaller = await stage.replica(nickname_check="block", apps=APPS[:1])
    assert (await smaller.change(alice, nickname="risky")).json()["nickname"] == "risky"
    assert await checks_of(smaller, "unknown") == {("nickname", "unknown_app", ""): 1}


# WeChat's silence.


@pytest.mark.slow
@flag_or_block
@pytest.mark.parametrize(
    ("fault", "outcome", "errcode"),
    [
        ({"errcode": 48001}, "wechat_misconfigured", "48001"),
        ({"errcode": 45009}, "wechat_rate_limited", "45009"),
        ({"errcode": 40001}, "wechat_misconfigured", "40001"),
        ({"errcode": 987654321}, "wechat_bad_response", "other"),
        ({"status": 503}, "wechat_unavailable", ""),
        ({"html": True}, "wechat_bad_response", ""),
    ],
)
async def test_a_silent_wechat_stops_nobody_and_is_counted(
    stage: Stage, policy: str, fault: Body, outcome: str, errcode: str
) -> None:
    stage = await stage.replica(risk_policy=policy, nickname_check=policy)
    for api in (RISK, TEXT):
        stage.simulator.fail(api, times=None, **fault)
    login = await stage.login("risky-4", nickname="risky")
    assert (login["user"]["status"], login["user"]["nickname"]) == ("active", "risky")
    assert (await stage.change(login, nickname="more risky")).json()["nickname"] == "more risky"
    assert await checks_of(stage) == {("risk", outcome, errcode): 1, ("nickname", outcome, errcode): 2}
    assert {*await kinds_of(stage)} <= {"access_token.forced"}, "which 40001 may be a reason for"


async def test_a_login_waits_two_seconds_at_most(stage: Stage) -> None:
    stage = await stage.replica(risk_policy="block", nickname_check="block", wechat_timeout=60)
    for api in (RISK, TEXT):
        stage.simulator.fail(api, hang=True)
    login = asyncio.create_task(stage.login("risky-4", nickname="risky"))
    await until(lambda: stage.asked(RISK) and stage.asked(TEXT))
    let_pass(OPINION_TIMEOUT_SECONDS - 1)
    await asyncio.sleep(0.1)
    assert not login.done()
    let_pass(1)
    await login
    checks = {("risk", "wechat_timeout", ""): 1, ("nickname", "wechat_timeout", ""): 1}
    assert await checks_of(stage) == checks


@pytest.mark.slow
async def test_time_spent_on_a_slow_code_shortens_the_wait_for_a_policy(stage: Stage) -> None:
    stage = await stage.replica(risk_policy="block", wechat_timeout=2)
    await stage.login("root")
    stage.simulator.fail("code2session", slow=1.2)
    stage.simulator.fail(RISK, slow=1.2)
    await stage.login("risky-4")
    assert await checks_of(stage) == {("risk", "pass", ""): 1, ("risk", "wechat_timeout", ""): 1}


async def test_a_missing_permission_is_logged_once_a_minute(blocking: Stage) -> None:
    blocking.simulator.account(APP_ID).denied = frozenset({RISK})
    for person in ("anna", "berta", "carla"):
        await blocking.login(person)
    (line,) = blocking.logged("policy_without_wechat")
    assert (line["level"], line["policy"], line["app_id"], line["errcode"]) == ("error", "risk", APP_ID, 48001)
    assert "permissions" in line["what_to_change"]
    assert blocking.logged("wechat_misconfigured") == []
    blocking.clock.advance(seconds=LOGGED_AGAIN_AFTER.total_seconds())
    await blocking.login("dora")
    assert len(blocking.logged("policy_without_wechat")) == 2
    assert await checks_of(blocking) == {("risk", "wechat_misconfigured", "48001"): 4}


async def test_a_different_failure_is_logged_at_once(stage: Stage) -> None:
    stage = await stage.replica(risk_policy="block", nickname_check="block")
    for errcode in (61010, 9410009):
        stage.simulator.fail(RISK, errcode=errcode)
    stage.simulator.fail(TEXT, errcode=61010)
    for person in ("anna", "berta"):
        await stage.login(person, nickname=person)
    lines = [(line["policy"], line["errcode"]) for line in stage.logged("policy_without_wechat")]
    assert sorted(lines) == [("nickname", 61010), ("risk", 61010), ("risk", 9410009)]


# Work in the background.


@pytest.mark.slow
async def test_background_checks_are_limited(stage: Stage) -> None:
    stage = await stage.replica(nickname_check="flag", wechat_timeout=60)
    people = [await stage.login(f"person-{number}") for number in range(MAX_TASKS // NAMES_OF_ONE + 1)]
    stage.simulator.fail("stable_token", hang=True, times=None)
    for number in range(MAX_TASKS + 3):
        person = people[number // NAMES_OF_ONE]
        assert (await stage.change(person, nickname=f"name {number}")).status_code == 200
    assert len(stage.logged("policy_without_wechat")) == 1
    await stage.services[Background].aclose()
    assert await checks_of(stage) == {("nickname", "too_busy", ""): 3}
    (line,) = stage.logged("background_work_left")
    assert line["pieces"] == MAX_TASKS
