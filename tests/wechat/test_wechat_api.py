"""The calls of WeChat's APIs that require an access token send the right requests and read the responses."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.conftest import NOWHERE, SETTINGS, shared_settings
from tests.fakes import APP, Secrets
from tests.sweeps import swept
from tests.world import LogLines, Stage
from wxauth.apps.registry import Apps
from wxauth.errors import WeChatError
from wxauth.service.build import build_services
from wxauth.settings.apps import App
from wxauth.wechat.api import WeChatApi, session_key_signature
from wxauth.wechat.client import WeChat
from wxauth_desk.wechat import APPS

FIRST = APPS[0]["app_id"]
NO_PHONE_INFO: list[object] = [None, [], "13800138000"]


def test_the_signature_is_that_of_wechats_example() -> None:
    signature = session_key_signature(b"o0q0otL8aEzpcZL/FT9WsQ==", b'{"foo":"bar"}')
    assert signature == "654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b"


@pytest.mark.parametrize("info", [{}, {"anything": ["at all", None]}])
async def test_a_number_that_was_paid_for_is_returned_unchecked(info: dict[str, Any]) -> None:
    assert await answered({"phone_info": info}, phone_number) == info


@pytest.mark.no_database
@pytest.mark.usefixtures("simulated")
async def test_the_session_key_of_the_last_login_is_good_and_no_other(stage: Stage) -> None:
    api, app = stage.services[WeChatApi], stage.services[Apps].find(FIRST)
    former, last = [await stage.services[WeChat].exchange(app, "alice") for _ in range(2)]
    for identity, is_good in ((former, False), (last, True)):
        assert identity.session_key is not None
        it_is = await api.check_session_key(app, openid=identity.openid, session_key=identity.session_key)
        assert it_is is is_good
    assert not [line for line in stage.log_lines() if line["event"].startswith("wechat_")]


# Failures that all these APIs have in common.

Ask = Callable[[WeChatApi, App], Awaitable[Any]]


def phone_number(api: WeChatApi, app: App) -> Awaitable[Any]:
    return api.phone_number(app, "0123456789abcdef", openid="openid-of-alice")


def check_session_key(api: WeChatApi, app: App) -> Awaitable[Any]:
    return api.check_session_key(app, openid="openid-of-alice", session_key=b"c2Vzc2lvbi1rZXktMTIzNA==")


def url_link(api: WeChatApi, app: App) -> Awaitable[Any]:
    return api.url_link(app, page="pages/scan/scan", env="release")


TOKEN = "token-of-wechat-" + "0123456789" * 50


async def answered(body: Any, ask: Ask) -> Any:
    """Call an API that responds with this body, and return the result."""

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
        (phone_number, 45009, "wechat_rate_limited"),
        (check_session_key, 45011, "wechat_rate_limited"),
        (phone_number, 40163, "code_used"),
        (phone_number, 43104, "invalid_code"),
        (url_link, 43104, "wechat_bad_response"),
        (phone_number, 40226, "wechat_user_blocked"),
        (phone_number, 48001, "wechat_misconfigured"),
        (check_session_key, 87008, "wechat_bad_response"),
        (url_link, 7, "wechat_bad_response"),
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
        *((url_link, {"errcode": 0, "url_link": value}) for value in (None, "", 5, ["https://wxaurl.cn/x"])),
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
