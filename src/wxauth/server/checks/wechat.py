"""Checks WeChat's side of each app: its secret, its IP whitelist, and which APIs it may call.

Every request uses a made-up code or person, so that WeChat refuses it. It costs and changes nothing.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import httpx
from pydantic_core import from_json

from wxauth.errors import (
    CodeUsed,
    InvalidCode,
    Title,
    WeChatBadResponse,
    WeChatError,
    WeChatMisconfigured,
    WeChatRateLimited,
    WeChatTimeout,
    WeChatUnavailable,
)
from wxauth.server.checks.result import CheckResult, ClockReading, Findings, bad, good, note
from wxauth.server.checks.rows import UserSample
from wxauth.server.core.addresses import plain_address
from wxauth.server.core.clock import Clock
from wxauth.server.core.settings import App, Settings
from wxauth.server.core.terminal import to_chinese
from wxauth.server.outbound.connection import ProxyFailed
from wxauth.server.wechat.api import WeChatApi
from wxauth.server.wechat.client import WeChat, WeChatHttp, exchange_api
from wxauth.server.wechat.errcodes import (
    CHECK_PICTURE,
    CHECK_SESSION_KEY,
    CHECK_TEXT,
    DAILY_QUOTA,
    MINI_PROGRAM_CODE,
    PHONE_NUMBER,
    RISK_RANK,
    STABLE_TOKEN,
    SYSTEM_BUSY,
    errcode_of,
)
from wxauth.server.wechat.wechat_tokens import WeChatTokens
from wxauth.texts import is_loopback

CHECK_TIMEOUT_SECONDS: Final = 10.0
"""The time limit of one request, even if `WXAUTH_WECHAT_TIMEOUT` is longer."""

_CODE: Final = "000000000000"
_OPENID: Final = "o-wxauth-check"
_SESSION_KEY: Final = b"d3hhdXRoLWNoZWNrLi4uLg=="
_CLIENT_IP: Final = "192.0.2.1"  # from the range for documentation (RFC 5737)
_TEXT: Final = "wxauth"
_NOT_WHITELISTED: Final = 40164
_MINUTE_QUOTA: Final = 45011
_WRONG_PARAMETER: Final = 47001
_SECOND: Final = timedelta(seconds=1)
_ENCRYPTED: Final = Title("security mode (安全模式)", "安全模式")
_PLAIN: Final = Title("plain mode (明文模式)", "明文模式")
_REST_UNKNOWN: Final = Title(
    "what else the app may ask is not known without one", "没有 access_token，无法得知该应用还有哪些权限"
)
_NEXT_TO_AN_ADDRESS: Final = re.compile(r"[^0-9A-Fa-f:.]+")


@dataclass(slots=True)
class Observed:
    """Details of WeChat's answers that the WeChat client does not return."""

    readings: list[ClockReading]
    addresses: list[str] = field(default_factory=list)
    """The addresses of this server, as WeChat names them when it refuses them."""
    unreachable: set[str] = field(default_factory=set)
    """Hosts to which no connection could be made."""
    at_proxy: str = ""
    """The reason for that, if the proxy has failed."""
    reason: str = ""
    """The reason for that, in any case."""


class _Witness(httpx.AsyncBaseTransport):
    """Passes on requests and answers, and records details in `observed`."""

    def __init__(self, inner: httpx.AsyncBaseTransport, clock: Clock, observed: Observed) -> None:
        self._inner = inner
        self._clock = clock
        self._observed = observed

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        asked_at = self._clock()
        try:
            response = await self._inner.handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            self._observed.unreachable.add(request.url.host)
            self._observed.reason = str(exc)
            self._observed.at_proxy = str(exc) if isinstance(exc, ProxyFailed) else ""
            raise
        answered_at = self._clock()
        if (theirs := _time_in(response)) is not None:
            reading = ClockReading.of(theirs, asked_at=asked_at, answered_at=answered_at, grain=_SECOND)
            self._observed.readings.append(reading)
        self._observed.addresses = self._observed.addresses or _refused_addresses(await response.aread())
        return response


@dataclass(frozen=True, slots=True)
class _Use:
    """A use of an API: its name in the report, a request to make, and the reason why it is not needed now, if any."""

    name: str
    api: str
    ask: Callable[[WeChatApi], Awaitable[object]]
    why_unused: Title | None = None


async def check_app(
    app: App, settings: Settings, found: Findings, *, transport: httpx.AsyncBaseTransport, clock: Clock
) -> AsyncGenerator[CheckResult, None]:
    """Check whether WeChat accepts the app and this server, which APIs it may call, and the settings at WeChat."""
    observed = Observed(found.wechat_readings)
    wechat = WeChat(
        WeChatHttp(_Witness(transport, clock, observed)),
        base_url=settings.wechat_base_url,
        fallback_url=settings.wechat_fallback_url,
        timeout=min(settings.wechat_timeout, CHECK_TIMEOUT_SECONDS),
        reports_refusals=False,
    )
    users = found.users.get(app.app_id)
    uses = _uses(app, settings, users) if app.is_mini_program else []
    async with aclosing(WeChatTokens(wechat=wechat, clock=clock)) as wechat_tokens:
        api = WeChatApi(wechat=wechat, wechat_tokens=wechat_tokens)
        login, (token, failures) = await asyncio.gather(
            _failure(wechat.exchange(app, _CODE)), _ask_with_token(app, wechat_tokens, api, uses)
        )
    yield _judge_login(app, login, settings, observed)
    if app.has_wechat_token:
        yield _judge_token(app, token, login, settings, observed)
    for use, failure in zip(uses, failures, strict=False):  # without a WeChat token, `failures` is empty
        yield _judge_api(app, use, failure, settings, observed)
    if users is not None:
        yield _judge_unionids(app, users, is_only_one=len(found.apps) == 1)
    if app.has_wechat_token:
        yield _judge_push(app, settings, found.apps)
    if app.kind in ("official_account", "website"):
        yield _judge_callback_domain(app, settings)
    default = next((it.app_id for it in found.apps if it.is_mini_program), None)
    if app.is_mini_program and app.app_id in {site.app_id or default for site in found.sites}:
        yield await _check_codes(app, settings, wechat, clock, observed)


async def _failure(question: Awaitable[object]) -> WeChatError | None:
    try:
        await question
    except WeChatError as exc:
        return exc
    return None


async def _ask_with_token(
    app: App, wechat_tokens: WeChatTokens, api: WeChatApi, uses: Sequence[_Use]
) -> tuple[WeChatError | None, list[WeChatError | None]]:
    """The failure of getting a WeChat token, if any; and otherwise the failure of each use, or None."""
    if not app.has_wechat_token:
        return None, []
    failure = await _failure(wechat_tokens.get(app))
    if failure is not None:
        return failure, []
    return None, await asyncio.gather(*(_failure(use.ask(api)) for use in uses))


def _uses(app: App, settings: Settings, users: UserSample | None) -> list[_Use]:
    openid = _OPENID if settings.phone_check_openid else None
    gives_phones = users is not None and users.give_phones
    uses = [
        _Use(
            "phone",
            PHONE_NUMBER,
            lambda api: api.phone_number(app, _CODE, openid=openid),
            None if gives_phones else Title("nobody has given a phone number lately", "近期没有人绑定手机号"),
        ),
        _Use(
            "session_keys",
            CHECK_SESSION_KEY,
            lambda api: api.check_session_key(app, openid=_OPENID, session_key=_SESSION_KEY),
        ),
        _Use(
            "risk",
            RISK_RANK,
            lambda api: api.risk_rank(app, openid=_OPENID, client_ip=_CLIENT_IP),
            _is_off("WXAUTH_RISK_POLICY") if settings.risk_policy == "off" else None,
        ),
        _Use(
            "nickname",
            CHECK_TEXT,
            lambda api: api.check_text(app, openid=_OPENID, content=_TEXT),
            _is_off("WXAUTH_NICKNAME_CHECK") if settings.nickname_check == "off" else None,
        ),
    ]
    if settings.avatar_check != "off":
        uses.append(
            _Use("avatar", CHECK_PICTURE, lambda api: api.check_picture(app, openid=_OPENID, url=settings.issuer))
        )
    return uses


def _is_off(setting: str) -> Title:
    return Title(f"{setting} is off", f"{setting} 为 off")


async def _check_codes(app: App, settings: Settings, wechat: WeChat, clock: Clock, observed: Observed) -> CheckResult:
    """Check which kind of code sites show for this app, and what is missing for it."""
    name = f"wechat {app.app_id} codes"
    prefix = f"{settings.issuer}/d/"
    if settings.scan_code == "link":
        if is_loopback(urlsplit(prefix).hostname):
            message = f"ordinary links, and no phone can open {prefix}: set WXAUTH_ISSUER"
            return note(name, message, f"普通链接二维码，但手机打不开 {prefix}：请设置 WXAUTH_ISSUER")
        entered = f"in WeChat's console, 扫普通链接二维码打开小程序: {prefix}, page {settings.scan_page}, published"
        entered_zh = f"微信后台“扫普通链接二维码打开小程序”：{prefix}，页面 {settings.scan_page}，须已发布"
        if settings.link_check_file is None:
            message = f"ordinary links; {entered}; set WXAUTH_LINK_CHECK_FILE for the file it asks for"
            return note(name, message, f"普通链接二维码；{entered_zh}；校验文件请写入 WXAUTH_LINK_CHECK_FILE")
        return good(name, f"ordinary links; {entered}", f"普通链接二维码；{entered_zh}")
    what = f"mini-program codes of {settings.scan_page} ({settings.scan_env})"
    what_zh = f"{settings.scan_page}（{settings.scan_env}）的小程序码"
    async with aclosing(WeChatTokens(wechat=wechat, clock=clock)) as wechat_tokens:
        asked = WeChatApi(wechat=wechat, wechat_tokens=wechat_tokens).mini_program_code(
            app, _CODE, page=settings.scan_page, env=settings.scan_env
        )
        failure = await _failure(asked)
    if failure is None:
        return good(name, what, what_zh)
    result = _judge_failure(name, MINI_PROGRAM_CODE, failure, settings, observed)
    if failure.errcode == DAILY_QUOTA:
        message = f"{what}: asked too often just now, 5,000 a minute: run this again in a minute"
        return note(name, message, f"{what_zh}：刚才调用太频繁（每分钟 5,000 次）：请一分钟后再运行")
    message = f"{what} are not to be had, so ordinary ones are shown: {result.message}"
    return CheckResult(name, result.level, message, f"无法获取 {what_zh}，改用普通二维码：{result.text_in('zh')}")


def _judge_login(app: App, failure: WeChatError | None, settings: Settings, observed: Observed) -> CheckResult:
    name = f"wechat {app.app_id}"
    if failure is None:
        message = "took a made-up code for a real one: is WXAUTH_WECHAT_BASE_URL WeChat?"
        return bad(name, message, "接受了编造的 code：WXAUTH_WECHAT_BASE_URL 是微信吗？")
    if not isinstance(failure, InvalidCode | CodeUsed):
        return _judge_failure(name, exchange_api(app), failure, settings, observed)
    base = urlsplit(settings.wechat_base_url).hostname
    if base in observed.unreachable:
        fallback = urlsplit(settings.wechat_fallback_url or "").hostname
        message = f"answers at {fallback} alone: {base} cannot be connected to, and each login waits for it first"
        return note(name, message, f"只有 {fallback} 响应：无法连接 {base}，每次登录都要先等它")
    return good(name, "answers, and takes the app's secret", "响应正常，AppSecret 正确")


def _judge_token(
    app: App, failure: WeChatError | None, login: WeChatError | None, settings: Settings, observed: Observed
) -> CheckResult:
    name = f"wechat {app.app_id} access_token"
    if failure is None:
        return good(name, "obtainable from this address", "可从本机获取")
    is_the_same = login is not None and (type(failure), failure.errcode) == (type(login), login.errcode)
    if is_the_same:
        return bad(name, f"not to be had, for the same reason; {_REST_UNKNOWN.en}", f"同样无法获取；{_REST_UNKNOWN.zh}")
    result = _judge_failure(name, STABLE_TOKEN, failure, settings, observed)
    message, chinese = f"{result.message}; {_REST_UNKNOWN.en}", f"{result.chinese}；{_REST_UNKNOWN.zh}"
    return CheckResult(name, result.level, message, chinese)


def _judge_api(app: App, use: _Use, failure: WeChatError | None, settings: Settings, observed: Observed) -> CheckResult:
    name = f"wechat {app.app_id} {use.name}"
    sends_openid = use.api == PHONE_NUMBER and settings.phone_check_openid
    if sends_openid and failure is not None and failure.errcode == _WRONG_PARAMETER:
        result = bad(
            name,
            "the account may not send the openid: set WXAUTH_PHONE_CHECK_OPENID=false (errcode 47001)",
            "该账号不能传 openid：请设置 WXAUTH_PHONE_CHECK_OPENID=false（错误码 47001）",
        )
    elif _is_permitted(use.api, failure):
        return good(name, "permitted", "有权限")
    else:
        assert failure is not None
        result = _judge_failure(name, use.api, failure, settings, observed)
    if use.why_unused is None:
        return result
    why = use.why_unused
    return note(name, f"{result.message}; not needed now, for {why.en}", f"{result.chinese}；目前用不到，因为{why.zh}")


def _is_permitted(api: str, failure: WeChatError | None) -> bool:
    """Whether WeChat allowed the app to call the API: if so, it has refused only the made-up request."""
    if failure is None:
        return True
    is_about_the_app = isinstance(failure, WeChatMisconfigured | WeChatRateLimited | WeChatUnavailable)
    return not (is_about_the_app or failure.errcode is None or errcode_of(failure.errcode, api=api).is_for_the_operator)


def _judge_failure(name: str, api: str, failure: WeChatError, settings: Settings, observed: Observed) -> CheckResult:
    """The result for a failure caused by the app, this server or WeChat, not by the made-up request."""
    errcode = failure.errcode
    at, at_zh = f"(errcode {errcode})", f"（错误码 {errcode}）"
    base = settings.wechat_base_url
    match failure:
        case WeChatMisconfigured() if errcode == _NOT_WHITELISTED and observed.addresses:
            addresses = " and ".join(observed.addresses)
            return bad(
                name,
                f"WeChat saw this server as {addresses}: add that to the app's IP whitelist 白名单 {at}",
                f"微信看到的本机 IP 为 {'、'.join(observed.addresses)}：请加入应用的 IP 白名单{at_zh}",
            )
        case WeChatRateLimited() if errcode == _MINUTE_QUOTA:
            message = f"asked too often just now: run this again in a minute {at}"
            return note(name, message, f"刚才调用太频繁：请一分钟后再运行{at_zh}")
        case WeChatUnavailable() if errcode == SYSTEM_BUSY:
            message = f"WeChat is busy, also when asked again: run this again in a minute {at}"
            return bad(name, message, f"微信系统繁忙，重试仍然如此：请一分钟后再运行{at_zh}")
        case WeChatUnavailable() if observed.at_proxy:
            message = f"{observed.at_proxy}: see WXAUTH_WECHAT_PROXY, and that it may connect to {base}"
            return bad(
                name, message, f"{to_chinese(observed.at_proxy)}：请检查 WXAUTH_WECHAT_PROXY，以及它能否连接 {base}"
            )
        case WeChatUnavailable() | WeChatTimeout():
            why = f"{failure.detail} ({observed.reason})" if observed.reason else failure.detail
            message = f"{why}: see that this machine reaches {base} (name, firewall, TLS)"
            return bad(name, message, f"{to_chinese(why)}：请确认本机能访问 {base}（域名解析、防火墙、TLS）")
        case WeChatBadResponse() if errcode is None:
            message = f"{failure.detail}: is WXAUTH_WECHAT_BASE_URL WeChat, or a proxy in between?"
            return bad(name, message, f"{to_chinese(failure.detail)}：WXAUTH_WECHAT_BASE_URL 是微信，还是中间的代理？")
    assert errcode is not None
    if (remedy := errcode_of(errcode, api=api).remedy) is not None:
        return bad(name, f"{remedy.en} {at}", f"{remedy.zh}{at_zh}")
    message = f"refused: look the errcode up in WeChat's table of return codes {at}"
    return bad(name, message, f"被拒绝：请在微信的返回码表中查找{at_zh}")


def _judge_unionids(app: App, users: UserSample, *, is_only_one: bool) -> CheckResult:
    name = f"wechat {app.app_id} unionid"
    if users.users == 0:
        return good(name, "not known before somebody has logged in", "有人登录之后才能得知")
    if users.with_unionid:
        message = f"bound to an Open Platform account: {users.with_unionid} of {users.users} users have one"
        return good(name, message, f"已绑定开放平台账号：{users.users} 个用户中 {users.with_unionid} 个有 unionid")
    message = f"none of {users.users} users has one: bind the app to an Open Platform account"
    chinese = f"{users.users} 个用户都没有 unionid"
    if is_only_one:
        chinese = f"{chinese}：若将来要与其他应用共用用户，请绑定开放平台账号"
        return good(name, f"{message}, should another app share its users some day", chinese)
    chinese = f"{chinese}：若各应用要共用用户，请绑定开放平台账号"
    return note(name, f"{message}, if the apps are to share users", chinese)


def _judge_callback_domain(app: App, settings: Settings) -> CheckResult:
    """Whether WeChat can redirect a browser back to the issuer after a login by this app."""
    name = f"wechat {app.app_id} callback domain"
    issuer = urlsplit(settings.issuer)
    host = issuer.hostname or ""
    if is_loopback(host):  # of which the issuer's own check makes one remark, for all apps
        message = f"WeChat takes no callback to {settings.issuer}: set WXAUTH_ISSUER"
        return good(name, message, f"微信不接受回调 {settings.issuer}：请设置 WXAUTH_ISSUER")
    if issuer.scheme != "https" or issuer.port is not None or _is_address(host):
        message = f"WXAUTH_ISSUER {settings.issuer} cannot be one: it must be https, with a name and without a port"
        return bad(name, message, f"WXAUTH_ISSUER {settings.issuer} 不能作为回调域名：须为 https、使用域名、不带端口")
    return good(
        name,
        f"in WeChat's console, enter {host}; set WXAUTH_CHECK_FILES for the file it asks for",
        f"在微信后台填写 {host}；校验文件请写入 WXAUTH_CHECK_FILES",
    )


def _is_address(host: str) -> bool:
    try:
        plain_address(host)
    except ValueError:
        return False
    return True


def _judge_push(app: App, settings: Settings, apps: Sequence[App]) -> CheckResult:
    name = f"wechat {app.app_id} push"
    url = f"{settings.issuer}/v1/wechat/push/{app.app_id}"
    if app.push_token is None:
        where = "WXAUTH_APPS, 'wxauth apps set'"
        if app.is_mini_program and settings.avatar_check != "off":
            message = f"no push_token, so WXAUTH_AVATAR_CHECK gets no verdict: set one ({where}) for {url}"
            return note(
                name, message, f"没有 push_token，WXAUTH_AVATAR_CHECK 得不到结果：请设置（{where}），地址为 {url}"
            )
        message = f"no push_token, so nobody tells what people withdraw: set one ({where}) for {url}"
        return note(name, message, f"没有 push_token，无法得知用户撤回了什么：请设置（{where}），地址为 {url}")
    others = ", ".join(it.app_id for it in apps if it.app_id != app.app_id and it.push_token == app.push_token)
    if others and app.push_aes_key is None:
        message = f"has the push_token of {others}, so whoever sees a query of that app's can sign messages of this one"
        return bad(
            name,
            f"{message}: give each its own",
            f"与 {others} 的 push_token 相同，看到其查询串的人可以伪造本应用的消息：请各用各的",
        )
    mode = _ENCRYPTED if app.push_aes_key else _PLAIN
    if is_loopback(urlsplit(url).hostname):
        message = f"configured, {mode.en}, and WeChat cannot reach {url}: set WXAUTH_ISSUER"
        return good(name, message, f"已配置，{mode.zh}，但微信无法访问 {url}：请设置 WXAUTH_ISSUER")
    where = f"in WeChat's console, 消息推送: {url}, {mode.en}"
    chinese = f"在微信后台“消息推送”中填写 {url}，{mode.zh}"
    if app.push_forward is None:
        where += "; payments, customer service and all else that is not wxauth's own are ignored without push_forward"
        chinese += "；未设置 push_forward，支付、客服等与 wxauth 无关的消息会被忽略"
    if app.push_aes_key is None:
        risk = "WeChat does not sign the message itself, so somebody between WeChat and this server can change it"
        return note(
            name,
            f"{where}; {risk}: better set push_aes_key where push_token is, and 安全模式 in the console",
            f"{chinese}；微信不对消息本身签名，途中可能被篡改：建议在设置 push_token 之处一并设置 push_aes_key，"
            "并在微信后台选择安全模式",
        )
    return good(name, where, chinese)


def _time_in(response: httpx.Response) -> datetime | None:
    try:
        time = parsedate_to_datetime(response.extensions.get("date") or "")
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _refused_addresses(body: bytes) -> list[str]:
    """The addresses in WeChat's refusal of a caller that is not whitelisted. No other text of WeChat's is used."""
    try:
        match from_json(body):
            case {"errcode": errcode, "errmsg": str(text)} if errcode == _NOT_WHITELISTED:
                words = _NEXT_TO_AN_ADDRESS.split(text)
            case _:
                return []
    except ValueError:
        return []
    found: dict[str, None] = {}
    for word in words:
        try:
            found[str(plain_address(word.rstrip(".")))] = None
        except ValueError:
            continue
    return list(found)
