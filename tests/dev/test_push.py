"""The simulated WeChat pushes messages to the service as WeChat does."""

from typing import Any

import httpx
import pytest
from defusedxml.ElementTree import fromstring

from tests.sweeps import swept
from tests.world import BESIDE_LOGINS, Admin, Stage, body_of, recorded
from wxauth.core.services import Services
from wxauth.service.app import create_app
from wxauth_desk.wechat import ACCOUNT, APPS, MOBILE_APP, WEBSITE, Simulator, create_simulator
from wxauth_desk.wechat.people import openid_of
from wxauth_desk.wechat.push import sign_push

pytestmark = pytest.mark.usefixtures("simulated")

FIRST, SECOND = (app["app_id"] for app in APPS)
PAGE, SITE, MOBILE = (app["app_id"] for app in (ACCOUNT, WEBSITE, MOBILE_APP))
of_every_kind = pytest.mark.settings(apps=[*APPS, ACCOUNT, WEBSITE, MOBILE_APP])


class Pusher:
    """Pushes from the simulator to the service, or with a URL to another server, which sends `answers` in order."""

    def __init__(self, simulator: Simulator, services: Services) -> None:
        self.answers: list[httpx.Response] = []
        self.asked: list[httpx.Request] = []
        stage = httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(services)),
            mounts={"all://other.test": httpx.MockTransport(self._answer)},
        )
        app = create_simulator(simulator, push_transport=httpx.MockTransport(stage.send))
        self._wechat = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wechat.test")

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answers.pop(0)

    async def __call__(self, **fields: Any) -> httpx.Response:
        return await self._wechat.post("/push", json={"person": "alice", **fields})


@pytest.fixture
def push(simulator: Simulator, services: Services) -> Pusher:
    return Pusher(simulator, services)


@pytest.mark.slow
@pytest.mark.parametrize("app_id", [FIRST, SECOND])
@pytest.mark.parametrize("format", ["json", "xml"])
async def test_the_service_accepts_the_simulators_messages(stage: Stage, app_id: str, format: str) -> None:
    push = Pusher(stage.simulator, stage.services)
    alice = await stage.login(app_id=app_id, nickname="Alice")
    pushed = (await push(app_id=app_id, format=format)).json()
    assert pushed == {"is_taken": True, "attempts": [{"status": 200, "answer": "success"}]}
    assert (await stage.user(alice))["nickname"] is None
    assert (await push(app_id=app_id, event="user_authorization_cancellation")).json()["is_taken"]
    assert (await stage.me(alice)).json()["code"] == "invalid_token"


@pytest.mark.parametrize("text", ["]]>", "a]]>b]]>", "]]]>&<x>"])
def test_xml_contains_any_text_of_a_message(text: str) -> None:
    signed = sign_push(APPS[0], {"Attach": text}, mode="plain", format="xml", timestamp="1", nonce="1")
    assert fromstring(signed.body).findtext("Attach") == text


@of_every_kind
@pytest.mark.parametrize("format", ["json", "xml"])
async def test_who_withdraws_all_from_an_app_is_no_longer_known_in_it(stage: Stage, format: str) -> None:
    push = Pusher(stage.simulator, stage.services)
    in_mini_program, in_app = await stage.login(nickname="Alice"), await stage.login(app_id=MOBILE)
    assert (await push(app_id=MOBILE, format=format)).json()["is_taken"]
    assert (await stage.me(in_app)).json()["code"] == "invalid_token"
    user = await stage.user(in_mini_program)
    assert (user["nickname"], user["unionid"]) == ("Alice", in_app["user"]["unionid"])
    ended = {"reason": "erased", "session_ids": [in_app["session_id"]]}
    assert await recorded(stage.rows, "type, actor, app_id, data", BESIDE_LOGINS) == [
        ("session.ended", "wechat", None, ended),
        ("identity.removed", "wechat", MOBILE, {}),
    ]
    again = await stage.login(app_id=MOBILE)  # found by the unionid, which the mini-program's identity has
    assert (again["is_new_user"], again["user"]["id"]) == (False, user["id"])


@of_every_kind
async def test_a_unionid_goes_with_the_last_identity_that_has_it(stage: Stage, root: Admin) -> None:
    alice, bob = await stage.login(app_id=MOBILE), await stage.login("bob")
    body_of(await root.merge(alice["user"]["id"], into=bob["user"]["id"]))
    assert (await Pusher(stage.simulator, stage.services)(app_id=MOBILE)).json()["is_taken"]
    assert (await stage.user(bob))["unionid"] == bob["user"]["unionid"]
    assert (await stage.login(app_id=MOBILE))["is_new_user"]


@of_every_kind
@pytest.mark.parametrize("app_id", [SITE, MOBILE])
async def test_who_withdraws_all_from_their_only_app_is_erased(stage: Stage, app_id: str) -> None:
    user = (await stage.login(app_id=MOBILE))["user"]
    known = "UPDATE identities SET app_id = $1, openid = $2"  # a login to a website needs a browser
    await stage.rows.execute(known, app_id, openid_of("alice", app_id))
    push = Pusher(stage.simulator, stage.services)
    assert (await push(app_id=app_id)).json()["is_taken"]
    assert await stage.number("users") == 0
    assert (await recorded(stage.rows, "type, user_id"))[-1] == ("user.erased", user["id"])


@of_every_kind
async def test_a_banned_person_who_withdraws_all_stays_banned_and_is_erased_after_the_ban(
    stage: Stage, root: Admin
) -> None:
    alice = await stage.login(app_id=MOBILE)
    await root.change(alice["user"]["id"], status="disabled")
    assert (await Pusher(stage.simulator, stage.services)(app_id=MOBILE)).json()["is_taken"]
    assert (await stage.login.ask(app_id=MOBILE)).json()["code"] == "account_disabled"


CODES: dict[str, dict[str, set[str]]] = {
    FIRST: {"6": {"nickname", "avatar_url"}, "8": set(), "19": {"nickname"}, "20": {"avatar_url"}},
    PAGE: {"205": {"nickname", "avatar_url"}, "6": set(), "201": set(), "301": set()},
    SITE: {"6": set(), "205": set()},
}


@of_every_kind
@pytest.mark.parametrize("app_id", CODES)
async def test_what_a_code_withdraws_depends_on_the_kind_of_app(stage: Stage, app_id: str) -> None:
    push = Pusher(stage.simulator, stage.services)
    alice = await stage.login(app_id=MOBILE)
    await stage.rows.execute("UPDATE identities SET app_id = $1, openid = $2", app_id, openid_of("alice", app_id))
    for code, cleared in CODES[app_id].items():
        await stage.rows.execute("UPDATE users SET nickname = 'A', avatar_url = 'https://a.example/1.png'")
        assert (await push(app_id=app_id, revoke_info=code)).json()["is_taken"]
        kept = await stage.rows.fetchrow("SELECT nickname, avatar_url FROM users WHERE id = $1", alice["user"]["id"])
        assert {name for name, value in kept.items() if value is None} == cleared
        stage.clock.advance(seconds=1)


@of_every_kind
@pytest.mark.parametrize("app_id", [FIRST, PAGE, SITE, MOBILE])
async def test_every_app_is_told_of_a_risky_profile_and_of_a_closed_account(stage: Stage, app_id: str) -> None:
    push = Pusher(stage.simulator, stage.services)
    await stage.login(app_id=MOBILE)
    await stage.rows.execute("UPDATE identities SET app_id = $1, openid = $2", app_id, openid_of("alice", app_id))
    await stage.rows.execute("UPDATE users SET nickname = 'bad'")
    assert (await push(app_id=app_id, event="user_info_modified")).json()["is_taken"]
    assert (await recorded(stage.rows, "type, data"))[-1] == ("user.profile_changed", {"fields": ["nickname"]})
    assert (await push(app_id=app_id, event="user_authorization_cancellation")).json()["is_taken"]
    assert await stage.number("users") == 0


@pytest.mark.no_database
async def test_the_app_with_a_key_is_not_pushed_plain(push: Pusher) -> None:
    pushed = (await push(app_id=SECOND, mode="plain")).json()
    assert not pushed["is_taken"]
    assert [attempt["status"] for attempt in pushed["attempts"]] == [403, 403, 403]


@pytest.mark.no_database
async def test_a_message_that_is_not_accepted_is_sent_three_times_with_new_signatures(push: Pusher) -> None:
    push.answers += [httpx.Response(503), httpx.Response(200, text="Success!"), httpx.Response(200, text="success")]
    pushed = (await push(url="https://other.test/a?b=c")).json()
    assert pushed["is_taken"]
    assert [attempt["status"] for attempt in pushed["attempts"]] == [503, 200, 200]
    assert len({request.url.params["signature"] for request in push.asked}) == 3
    assert len({request.content for request in push.asked}) == 1
    assert {request.url.params["b"] for request in push.asked} == {"c"}


@swept(
    "wrong",
    [
        {"app_id": "wx1"},
        {"app_id": FIRST, "mode": "aes"},
        {"event": "]]>"},
        {"revoke_info": "six"},
        {"format": "csv"},
        {"url": "ftp://a"},
    ],
    ids=str,
)
@pytest.mark.no_database
async def test_a_wrong_push_is_refused(push: Pusher, wrong: dict[str, str]) -> None:
    refused = await push(**wrong)
    assert refused.status_code == 422
    assert next(name for name in reversed(wrong)) in refused.json()["error"]
