"""Users log in on WeChat's own page, with a service account in WeChat's browser or a website app on a computer."""

import re
from asyncio import create_task, gather, sleep
from dataclasses import replace
from datetime import timedelta
from functools import partial
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from jose import jwt

from tests.fakes import Secrets
from tests.metrics import misconfigured
from tests.sites.browsers import found_in, refused, sent
from tests.sites.street import APP_OF, COMPUTER, IN_WECHAT, MINI, PAGE, Street, Visitor
from tests.sweeps import Sweep
from tests.world import EDGE, HOLD_USERS, Admin, behind, recorded, until
from wxauth.console.sessions import ConsoleSessions
from wxauth_desk.wechat import ACCOUNT, APPS, MOBILE_APP
from wxauth_desk.wechat.controls import CodeRequest, Visitor as Visit

ON_A_COMPUTER_IN_WECHAT = EDGE + " MicroMessenger/7.0.20.1781(0x6700143B) NetType/WIFI WindowsWechat Language/zh_CN"
SAFARI = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) Version/18.5 Mobile/15E148 Safari/604.1"
DOORS = pytest.mark.parametrize("door", ["account", "website"])
OVER = "https://auth.test/v1/authorize/wechat"


# Tests of the flow.


@pytest.mark.slow
@DOORS
async def test_a_person_logs_in_to_a_site_by_wechats_page(street: Street, door: str) -> None:
    app_id, me, visitor = APP_OF[door], street.phone.user_id, street.visitor(door)
    url, pressed_at = await visitor.press(), street.stage.clock()
    street.stage.clock.advance(seconds=50)
    location = await visitor.come_back(await visitor.allow(url))
    reported = sent(location)
    assert (reported["state"], reported["iss"], set(reported)) == ("s-1", "https://auth.test", {"code", "state", "iss"})
    tokens = await street.tokens_for(location)
    claims = await street.claims(tokens)
    assert (claims["sub"], claims["nonce"], claims["amr"]) == (me, "n-1", [f"wechat_{door}"])
    assert claims["auth_time"] == int(pressed_at.timestamp())
    listed = (await street.phone.ask("GET", "/sessions")).json()["items"]
    sessions = {(session["app_id"], session["client_id"]) for session in listed}
    assert (sessions, len(listed)) == ({(MINI, None), (app_id, "shop")}, 2)
    [event] = await recorded(street.stage.rows, "app_id, user_id, ip, data", "type = 'site.authorized'")
    assert event == (app_id, me, "127.0.0.1", {"door": door, "client_id": "shop"})
    assert f'wxauth_doors_total{{door="{door}",outcome="logged_in"}} 1.0' in await street.metrics()
    assert (await street.shop.refresh(tokens)).status_code == 200


async def test_wechats_page_is_asked_with_its_parameters_in_its_order(street: Street) -> None:
    back = "https%3A%2F%2Fauth.test%2Fv1%2Fauthorize%2Fwechat"
    for door, path, scope, end in (
        ("account", "oauth2/authorize", "snsapi_userinfo", "&connect_redirect=1#wechat_redirect"),
        ("website", "qrconnect", "snsapi_login", "#wechat_redirect"),
    ):
        url = await street.visitor(door).press()
        state = url.partition("&state=")[2][:32]
        assert re.fullmatch("[0-9a-f]{32}", state)
        assert url == (
            f"https://open.weixin.qq.com/connect/{path}?appid={APP_OF[door]}&redirect_uri={back}&response_type=code"
            f"&scope={scope}&state={state}{end}"
        )
    optional = [*APPS, {**ACCOUNT, "unionid": "optional"}]
    elsewhere = await street.stage.make_services(apps=optional, wechat_open_url="http://127.0.0.1:8001")
    url = await street.visitor(at=elsewhere).press()
    assert url.startswith("http://127.0.0.1:8001/connect/oauth2/authorize?appid=")
    assert "&scope=snsapi_base&" in url


async def test_an_account_asked_for_less_has_users_of_its_own_and_takes_no_unionid_away(street: Street) -> None:
    async def log_in(person: str) -> str:
        tokens = await street.tokens_for(await street.visitor("account", person).log_in())
        return jwt.get_unverified_claims(tokens["access_token"])["sub"]

    alice = await street.stage.login()
    assert await log_in("alice") == alice["user"]["id"]
    optional = [*APPS, {**ACCOUNT, "unionid": "optional"}]
    street = replace(street, stage=await street.stage.replica(apps=optional))
    assert await log_in("alice") == alice["user"]["id"]
    assert (await street.stage.user(alice))["unionid"] == alice["user"]["unionid"]
    assert await street.stage.number("identities WHERE unionid IS NULL") == 0
    bobs = [await log_in("bob"), await log_in("bob"), (await street.stage.login("bob"))["user"]["id"]]
    assert bobs[0] == bobs[1] != bobs[2]


async def test_each_kind_of_browser_gets_its_own_page(street: Street) -> None:
    await street.add_site("plain")
    await street.add_site("near", website_app_id=COMPUTER, near=True)
    await street.add_site("desktop", website_app_id=COMPUTER)
    await street.stage.services[ConsoleSessions].add_as_site()
    wecom, web_view = f"{IN_WECHAT} wxwork/4.1.36", f"{IN_WECHAT} miniProgram/{MINI}"
    with Sweep() as sweep:
        for user_agent, name, has_button, has_link, has_code in (
            (IN_WECHAT, "shop", True, False, False),
            (ON_A_COMPUTER_IN_WECHAT, "shop", True, False, False),
            (IN_WECHAT, "plain", False, False, True),
            (IN_WECHAT, "desktop", False, False, True),
            (ON_A_COMPUTER_IN_WECHAT, "desktop", False, True, True),
            (EDGE, "shop", False, True, True),
            (EDGE, "plain", False, False, True),
            (EDGE, "near", False, False, True),
            (SAFARI, "shop", False, False, True),
            (wecom, "shop", False, False, True),
            (web_view, "shop", False, False, False),
        ):
            with sweep.case(f"{name} in {user_agent[-40:]}"):
                text = (await street.visitor(user_agent).show(client_id=name, ui_locales="en")).text
                button = re.search(r'class="button" href="/v1/authorize/[\w-]{22}/wechat"', text)
                assert ("Log in to Example Shop" in text, button is not None) == (True, has_button)
                assert ("Log in with WeChat on this computer" in text) == has_link
                assert ("/v1/scans/" in text) == has_code
    console = await street.visitor(EDGE).show(client_id="wxauth-admin", redirect_uri="https://auth.test/admin/")
    assert "/wechat" not in console.text
    assert await street.stage.number("site_logins WHERE scene_hash IS NULL") == 2


# Tests of the button.


async def test_a_button_works_only_for_its_own_browser_and_site(street: Street) -> None:
    visitor, computer = street.visitor(), street.visitor("website")
    button = await visitor.open()
    for other, title in (
        (street.visitor(), "本次登录不是从这里发起的"),
        (computer, "This login wasn&#39;t started here"),
    ):
        page = await other.get(button)
        assert (page.status_code, title in page.text) == (404, True)
    assert (await visitor.get(button.replace("authorize/", "authorize/x"))).status_code == 404
    await street.add_site("plain")
    plain = found_in(await computer.show(client_id="plain"), r"(/v1/authorize/[\w-]{22}/)next")
    assert (await computer.get(f"{plain}wechat")).status_code == 404
    street.stage.clock.advance(seconds=601)
    assert (await visitor.get(button)).status_code == 404


@pytest.mark.slow
@DOORS
async def test_a_request_is_good_for_ten_presses_and_ten_minutes_after_each(street: Street, door: str) -> None:
    visitor = street.visitor(door)
    button, urls = await visitor.open(), []
    for _ in range(10):
        urls.append(await visitor.press(button))
        await street.sweep(after=170)
    eleventh = await visitor.get(button)
    assert eleventh.status_code == 429
    assert re.search("to the site and start again|回到网站重新开始", eleventh.text), "waiting does not help"
    assert "retry-after" not in eleventh.headers
    assert len(set(urls)) == 10
    # The first press was 1700 seconds ago.
    assert (await visitor.come_back(await visitor.allow(urls[0]))).endswith("/wechat/over")
    # Before the second login, the user has gone back from the site.
    sessions = [await street.tokens_for(await visitor.come_back(await visitor.allow(url))) for url in urls[-2:]]
    assert [(await street.shop.refresh(tokens)).status_code for tokens in sessions] == [200, 200]
    street.stage.clock.advance(seconds=431)
    assert (await visitor.get(button)).status_code == 404


async def test_of_presses_at_once_ten_pass_and_they_count_against_the_limit_of_the_address(street: Street) -> None:
    visitor = street.visitor()
    button = await visitor.open()
    answers = await gather(*(visitor.get(button) for _ in range(15)))
    assert sorted(answer.status_code for answer in answers) == [303] * 10 + [429] * 5
    visitor = street.visitor(at=await street.stage.make_services(scan_rate_limit="2/minute"))
    button = await visitor.open()
    answers = [await visitor.get(button) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [303, 303, 429]
    assert "retry-after" in answers[-1].headers


async def test_links_and_visits_of_one_page_have_ten_presses_each(street: Street) -> None:
    await street.change(link=True)
    visitor = street.visitor("website", at=await street.stage.make_services(scan_link="scheme"))
    button = await visitor.open()
    await visitor.press(button)
    links = await gather(*(visitor.client.post(button.replace("/wechat", "/link")) for _ in range(14)))
    assert sorted(answer.status_code for answer in links) == [303] * 10 + [429] * 4
    visits = [await visitor.get(button) for _ in range(10)]
    assert [answer.status_code for answer in visits] == [303] * 9 + [429]


async def test_the_pages_of_neighbours_leave_a_browser_with_a_login_its_own(street: Street) -> None:
    await street.change(sso=True)
    strict = await street.stage.replica(scan_rate_limit="3/minute")
    street.browser, neighbour = replace(street.browser, client=strict.client), street.visitor(at=strict.services)
    await street.tokens()
    assert [(await neighbour.show()).status_code for _ in range(4)] == [200, 200, 200, 429]
    pages = [await street.browser.open() for _ in range(4)]
    assert [page.status_code for page in pages] == [200, 200, 200, 429], "its own are limited, too"
    assert "/continue" in pages[0].text


async def test_pages_that_nobody_used_are_swept_away(street: Street) -> None:
    visitor = street.visitor()
    await visitor.press()
    await visitor.open()
    await street.sweep(after=599)
    assert await street.stage.rows.fetchrow("SELECT count(page_hash), count(state_hash) FROM site_logins") == (2, 1)
    await street.sweep(after=2)
    assert await street.stage.number("site_logins") == 0


# Tests of the callback, and of the browsers that can return through it.


@DOORS
async def test_a_callback_that_was_sent_to_somebody_logs_nobody_in(street: Street, door: str) -> None:
    attacker, victim, people = street.visitor(door, "mallory"), street.visitor(door), await street.people()
    url = await attacker.callback()
    assert await victim.come_back(url) == OVER
    await victim.press()  # the victim's browser now has a cookie of its own
    assert await victim.come_back(url) == OVER
    assert (street.asked(), await street.people()) == (0, people)
    page = await victim.get(OVER)
    assert (page.status_code, "go back to the site" in page.text or "回到网站" in page.text) == (404, True)
    assert "code" in sent(await attacker.come_back(url)), "another browser's try has not spent the state"


async def test_a_state_that_is_unknown_old_or_spent_asks_wechat_nothing(street: Street) -> None:
    visitor = street.visitor()
    pressed = await visitor.press()
    old = await visitor.allow(pressed)
    for state in ("0" * 32, "x", "", "%00", "0" * 5000):
        assert await visitor.come_back(f"{OVER}?code=abcdefghij&state={state}") == OVER
    assert await visitor.come_back(f"{old}&state={'0' * 32}") == OVER
    assert await visitor.come_back(f"{OVER}?code=abcdefghij") == OVER
    street.stage.clock.advance(seconds=600)
    assert (await visitor.come_back(old)).endswith("/wechat/over")
    assert street.asked() == 0
    url = await visitor.callback()
    assert "code" in sent(await visitor.come_back(url))
    another = await visitor.allow(pressed.partition("state=")[0] + f"state={dict(parse_qsl(url))['state']}")
    assert (await visitor.come_back(another)).endswith("/wechat/over")
    assert street.asked() == 1


@pytest.mark.requirement("asvs-6.8.2")
async def test_a_code_of_one_app_is_of_no_use_in_anothers_flow(street: Street) -> None:
    visitor, people = street.visitor("account"), await street.people()
    for app_id in (COMPUTER, MOBILE_APP["app_id"], MINI):
        code = street.stage.simulator.make_code(CodeRequest(person="mallory", app_id=app_id))
        state = (await visitor.press()).partition("state=")[2][:32]
        where = await visitor.come_back(f"{OVER}?code={code}&state={state}&appid={app_id}")
        assert where.endswith("/wechat/again")
        assert street.stage.simulator.calls_of("access_token")[-1].query["appid"] == PAGE
    assert await street.people() == people


@DOORS
async def test_the_same_callback_again_goes_the_same_way(street: Street, door: str) -> None:
    visitor = street.visitor(door)
    url = await visitor.callback()
    first, second = await visitor.come_back(url), await visitor.come_back(url)
    assert first == second
    tokens = await street.tokens_for(first)
    assert (await visitor.come_back(url)).endswith("/wechat/done")
    street.stage.clock.advance(seconds=14)
    refused(await street.redeem(sent(first)["code"]), "invalid_grant")
    tokens = (await street.shop.refresh(tokens)).json()
    assert "access_token" in tokens, "the session has not ended"
    street.stage.clock.advance(seconds=1)
    refused(await street.redeem(sent(first)["code"]), "invalid_grant")
    # After this time, the second request could come from a thief of the code.
    refused(await street.shop.refresh(tokens), "invalid_grant")
    assert street.asked() == 1


@pytest.mark.slow
@pytest.mark.parametrize("later", [0.0, 0.3])
async def test_the_same_callback_at_two_replicas_asks_wechat_once(street: Street, later: float) -> None:
    visitor, other = street.visitor(), await street.stage.make()
    url = await visitor.callback()
    other.cookies = visitor.client.cookies
    street.stage.simulator.fail("access_token", slow=0.6)
    first = create_task(visitor.come_back(url))
    await sleep(later)
    second = await visitor.come_back(url, other)
    assert second == await first
    assert street.asked() == 1
    answers = await gather(*(street.redeem(sent(second)["code"]) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 400]
    [tokens] = [answer.json() for answer in answers if answer.status_code == 200]
    assert (await street.shop.refresh(tokens)).status_code == 200


@pytest.mark.own_database
async def test_of_two_callbacks_in_one_moment_the_first_alone_asks_wechat(street: Street) -> None:
    visitor = street.visitor()
    come_back = partial(visitor.come_back, await visitor.callback())
    done = await street.at_once("site_logins", one=come_back, other=come_back)
    assert done["one"] == done["other"]
    assert street.asked() == 1


async def test_a_callback_whose_connection_was_closed_is_carried_out(street: Street) -> None:
    visitor = street.visitor()
    url = await visitor.callback()
    street.stage.simulator.fail("access_token", slow=0.3)
    first = create_task(visitor.get(url))
    await until(lambda: street.asked() == 1)
    first.cancel()
    assert "code" in sent(await visitor.come_back(url))
    assert street.asked() == 1


@DOORS
async def test_a_stored_login_has_not_failed_because_the_previous_users_login_could_not_end(
    street: Street, door: str
) -> None:
    await street.change(sso=True)
    alice = street.visitor()
    await alice.log_in()
    bob = replace(alice, person="bob", user_agent=street.visitor(door).user_agent)
    button = found_in(await bob.show(prompt="login"), r'href="(/v1/authorize/[\w-]{22}/wechat)"')
    url = await bob.callback(button)
    hold = "SELECT FROM users WHERE id = $1::text::uuid FOR UPDATE"
    cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted"
    assert await behind(street.stage.rows, bob.come_back(url), hold, street.phone.user_id, then=cut) == f"{OVER}/away"
    assert f'wxauth_doors_total{{door="{door}",outcome="failed"}} 0.0' in await street.metrics()
    logins = "browser_logins JOIN identities USING (app_id, openid) WHERE user_id = $1::text::uuid"
    assert await street.stage.number(logins, street.phone.user_id) == 1
    assert "code" in sent(await bob.come_back(url))
    assert await street.stage.number(logins, street.phone.user_id) == 0


@pytest.mark.slow
async def test_a_callback_that_waits_in_vain_for_the_first_one_is_answered_with_try_later(street: Street) -> None:
    visitor = street.visitor(at=await street.stage.make_services(wechat_timeout=0.1))
    url = await visitor.callback()
    code = dict(parse_qsl(urlsplit(url).query))["code"]
    # A replica that loses its power after this step leaves this row.
    await street.stage.rows.execute("UPDATE site_logins SET wechat_code_hash = sha256(convert_to($1, 'UTF8'))", code)
    assert sent(await visitor.come_back(url))["error"] == "temporarily_unavailable"
    assert street.asked() == 0


# Tests of users who can't log in.


@DOORS
async def test_made_up_people_of_a_snapshot_are_not_logged_in_and_may_try_again(street: Street, door: str) -> None:
    app_id, visitor, people = APP_OF[door], street.visitor(door), await street.people()
    for kind in ("on", "false_alarm"):
        street.stage.simulator.visitors["alice", app_id] = Visit(person="alice", app_id=app_id, snapshot=kind)
        where = await visitor.log_in()
        assert where.endswith("/wechat/snapshot")
        page = await visitor.get(where)
        assert "使用完整服务" in page.text
    assert await street.people() == people
    street.stage.simulator.visitors.clear()
    again = found_in(page, r'class="button" href="([^"]+)"')
    assert "code" in sent(await visitor.come_back(await visitor.callback(again)))
    assert f'door="{door}",outcome="snapshot"}} 2.0' in await street.metrics()


async def test_a_snapshot_without_its_mark_is_known_by_its_unionid(street: Street) -> None:
    for person in ("carol", "bob"):
        street.stage.simulator.visitors[person, PAGE] = Visit(person=person, app_id=PAGE, snapshot="hidden_once")
    # Nothing distinguishes this snapshot from a real user.
    assert "code" in sent(await street.visitor(person="carol").log_in())
    people = await street.people()
    for person in ("bob", "carol"):
        assert (await street.visitor(person=person).log_in()).endswith("/wechat/snapshot")
    assert await street.people() == people


@DOORS
async def test_a_door_without_unionids_makes_no_second_user(street: Street, door: str) -> None:
    account, people = street.stage.simulator.account(APP_OF[door]), await street.people()
    account.has_unionids = False
    assert sent(await street.visitor(door).log_in())["error"] == "access_denied"
    assert await street.people() == people
    [line] = street.stage.logged("wechat_misconfigured")
    assert "bind the app" in line["what_to_change"]
    for account.has_unionids in (True, False):
        tokens = await street.tokens_for(await street.visitor(door).log_in())
        assert (await street.claims(tokens))["sub"] == street.phone.user_id


@pytest.mark.slow
async def test_the_site_gets_an_error_when_nobody_logs_in(street: Street) -> None:
    people, closed = await street.people(), await street.stage.make_services(sign_up="closed")
    assert sent(await street.visitor(person="newcomer", at=closed).log_in())["error"] == "access_denied"
    visitor = street.visitor(person="newcomer")
    callback = await visitor.callback()
    assert sent(await visitor.come_back(re.sub("code=[^&]+&", "", callback)))["error"] == "access_denied"
    # Older versions of WeChat send this code.
    denied = re.sub("code=[^&]+", "code=authdeny", await visitor.callback())
    assert sent((await visitor.get(denied)).headers["location"])["error"] == "access_denied"
    with Sweep() as cases:
        for fault, error in (
            ({"errcode": 40226}, "access_denied"),
            ({"errcode": 45009}, "temporarily_unavailable"),
            ({"errcode": 45011}, "temporarily_unavailable"),
            ({"errcode": -1, "times": 3}, "temporarily_unavailable"),
            ({"drop": True}, "temporarily_unavailable"),
            ({"status": 503}, "temporarily_unavailable"),
            ({"errcode": 40013}, "server_error"),
            ({"errcode": 40125}, "server_error"),
            ({"errcode": 48001}, "server_error"),
            ({"errcode": 40001}, "server_error"),
            ({"errcode": 40235}, "server_error"),
            ({"errcode": 89506}, "server_error"),
            ({"errcode": 99999}, "server_error"),
            ({"garbage": True}, "server_error"),
        ):
            with cases.case(str(fault)):
                street.stage.simulator.fail("access_token", **fault)
                callback = await visitor.callback()
                reported = sent(await visitor.come_back(callback))
                assert (reported["error"], reported["state"], "code" in reported) == (error, "s-1", False)
                before = street.asked()
                assert sent(await visitor.come_back(callback)) == reported
                assert street.asked() == before
        for errcode in (40029, 40163, 42003):
            with cases.case(str(errcode)):
                street.stage.simulator.fail("access_token", errcode=errcode)
                where = await visitor.log_in()
                assert where.endswith("/wechat/again")
                assert (await visitor.get(where)).status_code == 200
    assert await street.people() == people
    assert len(street.stage.logged("wechat_misconfigured")) == 6
    assert await misconfigured(street.stage.client) == 6, "what the alert sees"


@pytest.mark.slow
@DOORS
async def test_who_is_banned_or_leaving_is_refused_at_the_door_and_before_the_token(street: Street, door: str) -> None:
    leaves = street.stage.clock() + timedelta(days=7)
    for status, erase_at in (("disabled", None), ("active", leaves)):
        location = await street.visitor(door).log_in()
        await street.stage.rows.execute("UPDATE users SET status = $1, erase_at = $2", status, erase_at)
        refused(await street.redeem(sent(location)["code"]), "invalid_grant")
        assert sent(await street.visitor(door).log_in())["error"] == "access_denied"
        assert await street.stage.number("users WHERE (erase_at IS NULL) = $1", erase_at is None) == 1
        await street.stage.rows.execute("UPDATE users SET status = 'active', erase_at = NULL")
    await street.tokens_for(await street.visitor(door).log_in())


async def test_a_website_app_is_closed_to_near_sites_because_its_qr_code_can_be_relayed(street: Street) -> None:
    await street.change(near=True)
    visitor, people = street.visitor("website"), await street.people()
    page = found_in(await visitor.show(), r"(/v1/authorize/[\w-]{22}/)next")
    answer = await visitor.get(f"{page}wechat")
    assert sent(answer)["error"] == "access_denied"
    assert (street.asked(), await street.people()) == (0, people)
    await street.tokens_for(await street.visitor("account").log_in())


@pytest.mark.oldest_postgres
async def test_a_relayed_qr_code_of_a_website_app_is_closed_to_administrators(street: Street, root: Admin) -> None:
    async def stored() -> tuple[list[object], list[object]]:
        rows = street.stage.rows
        return await rows.fetch("SELECT * FROM users"), await rows.fetch("SELECT * FROM identities")

    before = await stored()
    assert sent(await street.visitor("website", "root").log_in())["error"] == "access_denied"
    assert await stored() == before
    await street.tokens_for(await street.visitor("account", "root").log_in())
    anywhere = await street.stage.make_services(scan_admin_anywhere=True)
    await street.tokens_for(await street.visitor("website", "root", at=anywhere).log_in())


async def test_who_becomes_staff_during_a_visit_by_a_website_app_is_refused(street: Street) -> None:
    await street.visitor("website").log_in()
    promote = "UPDATE users SET roles = '{support}'"
    visited = await behind(street.stage.rows, street.visitor("website").log_in(), HOLD_USERS, then=promote)
    assert sent(visited)["error"] == "access_denied"


@pytest.mark.requirement("asvs-14.2.1")
async def test_no_log_line_has_a_state_or_a_code(street: Street, secrets: Secrets) -> None:
    visitor = street.visitor()
    for errcode in (None, 40029, 40125, 45009):
        callback = await visitor.callback()
        if errcode is not None:
            street.stage.simulator.fail("access_token", errcode=errcode)
        await visitor.come_back(callback)
        await street.visitor().come_back(callback)
        for _, text in parse_qsl(urlsplit(callback).query):
            # The end of the test run searches the log for this text.
            secrets.add_unlogged(text)


# Tests of the simulator's pages.


async def test_the_simulators_pages_refuse_as_wechats_do(street: Street) -> None:
    visitor, computer = street.visitor(), street.visitor("website")
    query = dict(parse_qsl(urlsplit((await visitor.press()).partition("#")[0]).query))

    async def page(asked: dict[str, str], holder: Visitor = visitor) -> str:
        return (await holder.get(f"/connect/oauth2/authorize?{urlencode(asked)}", holder.wechat)).text

    with Sweep() as cases:
        for number, changed in (
            ("10003", {**query, "redirect_uri": "https://elsewhere.example/"}),
            ("10005", {**query, "scope": "snsapi_login"}),
            ("10010", {**query, "scope": "snsapi"}),
            ("10010", {"state": query["state"], **query}),
            ("10011", {**query, "redirect_uri": "auth.test"}),
            ("10012", {**query, "appid": "wx0"}),
            ("10013", {**query, "state": "a-b"}),
            ("10013", {**query, "state": "a" * 129}),
            ("10016", {**query, "appid": COMPUTER}),
        ):
            with cases.case(number):
                assert number in await page(changed)
    assert "允许" in await page(query)
    assert "请在微信客户端打开链接" in await page(query, computer)
    answer = await visitor.get(f"/connect/oauth2/authorize/answer?{urlencode(query)}&answer=refuse", visitor.wechat)
    assert answer.status_code == 200  # WeChat doesn't redirect the browser


async def test_a_person_who_refuses_on_wechats_page_refuses_at_the_site(street: Street) -> None:
    street.stage.simulator.visitors["alice", PAGE] = Visit(person="alice", app_id=PAGE, refusal="returns")
    visitor = street.visitor()
    url = (await visitor.press()).partition("#")[0]
    answer = url.replace("/authorize?", "/authorize/answer?") + "&person=alice&answer=refuse"
    back = (await visitor.get(answer, visitor.wechat)).headers["location"]
    assert dict(parse_qsl(urlsplit(back).query)).keys() == {"state"}
    assert sent(await visitor.come_back(back))["error"] == "access_denied"
