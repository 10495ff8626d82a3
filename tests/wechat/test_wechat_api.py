"""WeChat's APIs that require an access token: requests, and the results of their answers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.conftest import NOWHERE, SETTINGS, shared_settings
from tests.fakes import APP, Secrets
from tests.sweeps import swept
from tests.world import LogLines, Stage
from wxauth.errors import WeChatError
from wxauth.server.apps.registry import Apps
from wxauth.server.core.services import Services
from wxauth.server.core.settings import App
from wxauth.server.dev.wechat import APPS, Api, Call, PhoneCodeRequest, phone_number_of
from wxauth.server.service.build import build_services
from wxauth.server.wechat.api import TextVerdict, WeChatApi, session_key_signature
from wxauth.server.wechat.client import WeChat

pytestmark = pytest.mark.usefixtures("simulated")

FIRST = APPS[0]["app_id"]
NO_PHONE_INFO: list[object] = [None, [], "13800138000"]
PHONE_API: Api = "getuserphonenumber"


@dataclass(frozen=True, slots=True)
class Alice:
    """A person who has just logged in to the first app, and the service, which asks WeChat about her."""

    stage: Stage
    openid: str
    key: bytes

    @property
    def api(self) -> WeChatApi:
        return self.stage.services[WeChatApi]

    @property
    def app(self) -> App:
        return self.stage.services[Apps].find(FIRST)

    async def has(self, key: bytes) -> bool:
        """Whether this is her session key."""
        return await self.api.check_session_key(self.app, openid=self.openid, session_key=key)

    def asked(self, api: Api) -> Call:
        """The only call of this API."""
        (call,) = self.stage.simulator.calls_of(api)
        return call


@pytest.fixture
async def alice(stage: Stage) -> Alice:
    return Alice(stage, *await log_in(stage.services, "alice"))


async def log_in(services: Services, person: str) -> tuple[str, bytes]:
    """Their openid and session key."""
    identity = await services[WeChat].exchange(services[Apps].find(FIRST), person)
    assert identity.session_key is not None
    return identity.openid, identity.session_key


def test_the_signature_is_that_of_wechats_example() -> None:
    signature = session_key_signature(b"o0q0otL8aEzpcZL/FT9WsQ==", b'{"foo":"bar"}')
    assert signature == "654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b"


# Phone numbers.


@pytest.mark.no_database
async def test_a_phone_code_returns_wechats_data_about_the_number(alice: Alice) -> None:
    code = alice.stage.simulator.make_phone_code(PhoneCodeRequest(person="alice"))
    number = phone_number_of("alice")
    assert await alice.api.phone_number(alice.app, code, openid=alice.openid) == {
        "phoneNumber": number,
        "purePhoneNumber": number,
        "countryCode": "86",
        "watermark": {"timestamp": int(alice.stage.clock().timestamp()), "appid": FIRST},
    }
    assert alice.asked(PHONE_API).json == {"code": code, "openid": alice.openid}
    assert alice.asked(PHONE_API).query.keys() == {"access_token"}


@pytest.mark.parametrize("info", [{}, {"anything": ["at all", None]}])
async def test_a_number_that_was_paid_for_is_returned_unchecked(info: dict[str, Any]) -> None:
    assert await answered({"phone_info": info}, phone_number) == info


# Session keys.


@pytest.mark.no_database
async def test_the_session_key_of_the_last_login_is_good_and_no_other(alice: Alice) -> None:
    assert await alice.has(alice.key)
    _, later = await log_in(alice.stage.services, "alice")
    assert not await alice.has(alice.key)
    assert await alice.has(later)
    query = alice.stage.simulator.calls_of("checksession")[-1].query
    assert (query["openid"], query["sig_method"]) == (alice.openid, "hmac_sha256")
    assert query["signature"] == session_key_signature(later)
    assert not [line for line in alice.stage.log_lines() if line["event"].startswith("wechat_")]


# Risk and texts.


@pytest.mark.no_database
async def test_the_risk_of_a_person_is_returned(alice: Alice) -> None:
    openid, _ = await log_in(alice.stage.services, "risky-4")
    assert await alice.api.risk_rank(alice.app, openid=openid, client_ip="203.0.113.7") == 4
    asked = {"appid": FIRST, "openid": openid, "scene": 0, "client_ip": "203.0.113.7"}
    assert alice.asked("getuserriskrank").json == asked


@pytest.mark.parametrize(
    ("content", "nickname", "verdict"),
    [
        ("隔壁老王", None, TextVerdict("pass", 100)),
        ("违规", None, TextVerdict("risky", 20006)),
        ("fine", "可疑", TextVerdict("review", 21000)),
    ],
)
@pytest.mark.no_database
async def test_a_text_is_judged(alice: Alice, content: str, nickname: str | None, verdict: TextVerdict) -> None:
    assert await alice.api.check_text(alice.app, openid=alice.openid, content=content, nickname=nickname) == verdict
    call = alice.asked("msg_sec_check")
    expected = {"version": 2, "scene": 1, "openid": alice.openid, "content": content}
    assert call.json == (expected if nickname is None else {**expected, "nickname": nickname})
    assert content.encode() in call.body  # as it is, not \uXXXX


@pytest.mark.no_database
async def test_wechat_gives_no_verdict_about_a_person_absent_for_two_hours(alice: Alice) -> None:
    alice.stage.clock.advance(hours=2)
    for ask in (
        alice.api.risk_rank(alice.app, openid=alice.openid, client_ip="203.0.113.7"),
        alice.api.check_text(alice.app, openid=alice.openid, content="alice"),
    ):
        with pytest.raises(WeChatError) as caught:
            await ask
        assert caught.value.errcode == 61010
    assert not [line for line in alice.stage.log_lines() if line["event"] == "wechat_refused"]


# Failures of all of them.

Ask = Callable[[WeChatApi, App], Awaitable[Any]]


def phone_number(api: WeChatApi, app: App) -> Awaitable[Any]:
    return api.phone_number(app, "0123456789abcdef", openid="openid-of-alice")


def check_session_key(api: WeChatApi, app: App) -> Awaitable[Any]:
    return api.check_session_key(app, openid="openid-of-alice", session_key=b"c2Vzc2lvbi1rZXktMTIzNA==")


def risk_rank(api: WeChatApi, app: App) -> Awaitable[Any]:
    return api.risk_rank(app, openid="openid-of-alice", client_ip="203.0.113.7")


def check_text(api: WeChatApi, app: App) -> Awaitable[Any]:
    return api.check_text(app, openid="openid-of-alice", content="alice")


TOKEN = "token-of-wechat-" + "0123456789" * 50


async def answered(body: Any, ask: Ask) -> Any:
    """The result of this answer."""

    def handle(request: httpx.Request) -> httpx.Response:
        if request.extensions["target"] == b"/cgi-bin/stable_token":
            return httpx.Response(200, json={"access_token": TOKEN, "expires_in": 7200})
        assert request.method == "GET" or request.headers["content-type"] == "application/json"
        return httpx.Response(200, json=body)

    settings = shared_settings(**SETTINGS, database_url=NOWHERE)
    services = build_services(settings, wechat_transport=httpx.MockTransport(handle))
    try:
        return await ask(services[WeChatApi], services.settings.apps[0])
    finally:
        await services.aclose()


@swept(
    ("ask", "errcode", "code"),
    [
        (check_text, 45009, "wechat_rate_limited"),
        (check_session_key, 45011, "wechat_rate_limited"),
        (risk_rank, 9410009, "wechat_rate_limited"),
        (phone_number, 40163, "code_used"),
        (phone_number, 43104, "invalid_code"),
        (risk_rank, 43104, "wechat_bad_response"),
        (phone_number, 40226, "wechat_user_blocked"),
        (phone_number, 48001, "wechat_misconfigured"),
        (check_session_key, 87008, "wechat_bad_response"),
        (risk_rank, 7, "wechat_bad_response"),
    ],
)
async def test_an_errcode_is_a_failure_of_its_own(ask: Ask, errcode: int, code: str) -> None:
    with pytest.raises(WeChatError) as caught:
        await answered({"errcode": errcode, "errmsg": "no"}, ask)
    assert (caught.value.code, caught.value.errcode) == (code, errcode)


@swept(
    ("ask", "body"),
    [
        *((phone_number, {"errcode": 0, "phone_info": value}) for value in NO_PHONE_INFO),
        *((risk_rank, {"errcode": 0, "risk_rank": value}) for value in (None, -1, 5, "4", True, 1.0)),
        *(
            (check_text, {"errcode": 0, "result": value})
            for value in (None, {}, {"suggest": "pass"}, {"suggest": "maybe", "label": 100}, ["pass"])
        ),
        *((ask, []) for ask in (phone_number, check_session_key)),
        (check_session_key, {"errcode": "0"}),
    ],
)
async def test_an_answer_that_lacks_what_was_asked_for_makes_no_sense(ask: Ask, body: Any) -> None:
    with pytest.raises(WeChatError) as caught:
        await answered(body, ask)
    assert (caught.value.code, caught.value.errcode) == ("wechat_bad_response", None)


@pytest.mark.parametrize("ask", [phone_number, check_session_key])
async def test_an_errmsg_that_echoes_the_request_is_logged_without_its_secrets(
    secrets: Secrets, log_lines: LogLines, ask: Ask
) -> None:
    signature = session_key_signature(b"c2Vzc2lvbi1rZXktMTIzNA==")
    for secret in (TOKEN, signature, APP["app_secret"]):
        secrets.add(secret)
    secrets_of: dict[Ask, str] = {phone_number: "0123456789abcdef", check_session_key: signature}
    errmsg = f"no {TOKEN} {APP['app_secret']} {secrets_of[ask]}"
    with pytest.raises(WeChatError):
        await answered({"errcode": -2, "errmsg": errmsg}, ask)
    (line,) = (line for line in log_lines() if line["event"] == "wechat_refused")
    assert set(str(line["errmsg"]).split()) == {"no", "***"}
