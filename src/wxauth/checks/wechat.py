"""The checks of each app with WeChat: of its secret, its IP whitelist, its message push, and its callback domain.

The checks send a made-up login code, which WeChat refuses. This request costs nothing, and changes nothing in WeChat.
For a mini-program or a service account, the checks also request the app's access token. No check can read what the
operator has entered in WeChat's console. Therefore, the results say what to enter there.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import httpx
from pydantic_core import from_json

from wxauth.checks.result import CheckResult, ClockReading, Findings, bad, good, note
from wxauth.core.clock import Clock
from wxauth.errors import WeChatError, WeChatMisconfigured, WeChatRateLimited, WeChatTimeout, WeChatUnavailable
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.outbound.connecting import ProxyFailed
from wxauth.settings.addresses import numeric_addresses_of, plain_address
from wxauth.settings.apps import PUSH_PATH, App
from wxauth.settings.settings import Settings
from wxauth.wechat.client import MADE_UP_CODE, REJECTIONS_OF_CODE, WeChat, exchange_api
from wxauth.wechat.errcodes import SYSTEM_BUSY, Api, errcode_of
from wxauth.wechat.wechat_tokens import WeChatTokens
from wxauth_guard.urls import is_loopback

# A shorter `WXAUTH_WECHAT_TIMEOUT` takes precedence.
CHECK_TIMEOUT_SECONDS: Final = 10.0

_NOT_WHITELISTED: Final = (40164, 61004)  # the errcodes for an IP address that is not in the app's whitelist
_MINUTE_QUOTA: Final = 45011  # the errcode for too many calls in a minute
_SECOND: Final = timedelta(seconds=1)  # the precision of the HTTP header `Date`
_BETWEEN_ADDRESSES: Final = re.compile(r"[^0-9A-Fa-f:.]+")  # in WeChat's message


class _Recorder(httpx.AsyncBaseTransport):
    """A transport that passes on requests and responses, and records what the WeChat client does not return."""

    def __init__(self, inner: httpx.AsyncBaseTransport, clock: Clock, readings: list[ClockReading]) -> None:
        self._inner = inner
        self._clock = clock
        self._readings = readings
        self.refused_addresses: list[str] = []  # this server's, for which WeChat has refused a call
        self.unreachable_hosts: set[str] = set()
        self.proxy_failure = ""  # the reason for the last failure to connect, if the proxy caused it
        self.connect_failure = ""  # the reason for the last failure to connect, whether or not the proxy caused it

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass on a request, and record facts about the response or the failure to connect."""
        asked_at = self._clock()
        try:
            response = await self._inner.handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            self.unreachable_hosts.add(request.url.host)
            self.connect_failure = exc.args[0]
            self.proxy_failure = exc.args[0] if isinstance(exc, ProxyFailed) else ""
            raise
        answered_at = self._clock()
        wechat_time = _time_in(response)
        if wechat_time is not None:
            reading = ClockReading.of(wechat_time, asked_at=asked_at, answered_at=answered_at, grain=_SECOND)
            self._readings.append(reading)
        body = await response.aread()
        if not self.refused_addresses:
            self.refused_addresses = _refused_addresses(body)
        return response


async def check_app(
    app: App, settings: Settings, findings: Findings, *, transport: httpx.AsyncBaseTransport, clock: Clock
) -> AsyncGenerator[CheckResult, None]:
    """Check whether WeChat accepts the app and this server, and say what to enter in WeChat's console for the app."""
    recorder = _Recorder(transport, clock, findings.wechat_readings)
    wechat = WeChat(recorder, settings, at_most=CHECK_TIMEOUT_SECONDS, reports_refusals=False)
    async with aclosing(WeChatTokens(wechat=wechat, clock=clock)) as wechat_tokens:
        login_failure, token_failure = await asyncio.gather(
            _failure_of(wechat.exchange(app, MADE_UP_CODE)),
            _token_failure(app, wechat_tokens),
        )
    yield _judge_login(app, login_failure, settings, recorder)
    if app.has_wechat_token:
        yield _judge_token(app, token_failure, login_failure, settings, recorder)
    yield _judge_push(app, settings, findings.apps)
    if app.kind in ("official_account", "website"):
        yield _judge_callback_domain(app, settings)


async def _failure_of(request: Awaitable[object]) -> WeChatError | None:
    try:
        await request
    except WeChatError as exc:
        return exc
    return None


async def _token_failure(app: App, wechat_tokens: WeChatTokens) -> WeChatError | None:
    return await _failure_of(wechat_tokens.get(app)) if app.has_wechat_token else None


def _judge_login(app: App, failure: WeChatError | None, settings: Settings, recorder: _Recorder) -> CheckResult:
    name = f"wechat {app.app_id}"
    # WeChat must refuse a login with a made-up code, but only because of the code or its user.
    if failure is None:
        return bad(
            name, _("accepted a made-up wx.login code. Check that WXAUTH_WECHAT_BASE_URL is really WeChat's address")
        )
    if not isinstance(failure, REJECTIONS_OF_CODE):
        return _judge_failure(name, exchange_api(app), failure, settings, recorder)
    base_host = urlsplit(settings.wechat_base_url).hostname
    if base_host in recorder.unreachable_hosts:
        fallback_host = urlsplit(settings.wechat_fallback_url or "").hostname
        text = _(
            "only {fallback} responds. wxauth can't connect to {base}, so each login first waits until this "
            "address times out",
            fallback=fallback_host,
            base=base_host,
        )
        return note(name, text)
    return good(name, _("responds, and accepts the app's secret"))


def _judge_token(
    app: App,
    failure: WeChatError | None,
    login_failure: WeChatError | None,
    settings: Settings,
    recorder: _Recorder,
) -> CheckResult:
    name = f"wechat {app.app_id} access_token"
    if failure is None:
        return good(name, _("can be obtained from this machine"))
    has_same_cause = (
        login_failure is not None and type(failure) is type(login_failure) and failure.errcode == login_failure.errcode
    )
    if has_same_cause:
        return bad(name, _("can't be obtained either, for the same reason"))
    return _judge_failure(name, Api.STABLE_TOKEN, failure, settings, recorder)


def _judge_failure(name: str, api: Api, failure: WeChatError, settings: Settings, recorder: _Recorder) -> CheckResult:
    """`api` is the API that failed, because the meaning of an errcode depends on the API."""
    errcode = failure.errcode
    match failure:
        case WeChatMisconfigured() if errcode in _NOT_WHITELISTED and recorder.refused_addresses:
            text = _(
                "WeChat receives this server's requests from {addresses}. Add this address to the app's IP "
                "whitelist 白名单 (errcode {errcode})",
                addresses=_(" and ").join(recorder.refused_addresses),
                errcode=errcode,
            )
            return bad(name, text)
        case WeChatRateLimited() if errcode == _MINUTE_QUOTA:
            text = _("too many calls. Run this check again in a minute (errcode {errcode})", errcode=errcode)
            return note(name, text)
        case WeChatUnavailable() if errcode == SYSTEM_BUSY:
            text = _(
                "WeChat is busy, even after retries. Run this check again in a minute (errcode {errcode})",
                errcode=errcode,
            )
            return bad(name, text)
        case WeChatUnavailable() | WeChatTimeout():
            return bad(name, _text_on_connection(failure, settings.wechat_base_url, recorder))
    if errcode is None:  # the failure is a WeChatBadResponse
        text = _(
            "{why}: check that WXAUTH_WECHAT_BASE_URL is WeChat's own address and not the address of a proxy",
            why=failure.detail,
        )
        return bad(name, text)
    remedy = errcode_of(errcode, api=api).remedy
    if remedy is not None:
        return bad(name, _("{remedy} (errcode {errcode})", remedy=remedy, errcode=errcode))
    text = _(
        "WeChat rejected the call. Look up the errcode in WeChat's table of return codes (errcode {errcode})",
        errcode=errcode,
    )
    return bad(name, text)


def _text_on_connection(failure: WeChatUnavailable | WeChatTimeout, base: str, recorder: _Recorder) -> Text:
    if isinstance(failure, WeChatUnavailable) and recorder.proxy_failure:
        return _(
            "{why}: check WXAUTH_WECHAT_PROXY, and whether the proxy can connect to {base}",
            why=recorder.proxy_failure,
            base=base,
        )
    why = failure.detail
    if recorder.connect_failure:
        why = _("{failure} ({reason})", failure=why, reason=recorder.connect_failure)
    return _("{why}: check that this machine can reach {base} (DNS, firewall, TLS)", why=why, base=base)


def _judge_push(app: App, settings: Settings, apps: Sequence[App]) -> CheckResult:
    """`apps` contains the apps whose push_tokens are compared with the push_token of this app."""
    name = f"wechat {app.app_id} push"
    url = f"{settings.issuer}{PUSH_PATH.format(app_id=app.app_id)}"
    if app.push_token is None:
        text = _(
            "has no push_token, so wxauth isn't notified when users withdraw authorization. {to_do}. The "
            "push URL is {url}",
            to_do=_how_to_set_push_token(app, settings),
            url=url,
        )
        return note(name, text)
    others = ", ".join(
        other.app_id for other in apps if other.app_id != app.app_id and other.push_token == app.push_token
    )
    if others and app.push_aes_key is None:  # with a key, a message must also be encrypted with it
        text = _(
            "has the same push_token as {others}, so anyone who sees the query string of a message for one "
            "app can sign messages for the other. Give each app its own token",
            others=others,
        )
        return bad(name, text)
    mode = _("security mode (安全模式)") if app.push_aes_key else _("plain mode (明文模式)")
    if is_loopback(urlsplit(url).hostname):
        # The result is not `bad`, because a check of all apps also checks the issuer, and reports this problem once.
        text = _("configured ({mode}), but WeChat can't reach {url}. Set WXAUTH_ISSUER", mode=mode, url=url)
        return good(name, text)
    instructions = _push_instructions(app, url, mode)
    if app.push_aes_key is None:
        text = _(
            "{said}. WeChat doesn't sign the content of messages in this mode, so anyone between WeChat and "
            "this server can change it. Set push_aes_key next to push_token, and select 安全模式 in WeChat's "
            "console",
            said=instructions,
        )
        return note(name, text)
    return good(name, instructions)


def _how_to_set_push_token(app: App, settings: Settings) -> Text:
    if app.app_id not in {each.app_id for each in settings.apps}:
        return _("Set a push_token with 'wxauth apps set'")
    if settings.app_id:
        return _("Replace WXAUTH_APP_ID and WXAUTH_APP_SECRET with WXAUTH_APPS, and set a push_token there")
    return _("Set a push_token in WXAUTH_APPS")


def _push_instructions(app: App, url: str, mode: Text) -> Text:
    instructions = _("in WeChat's console, under 消息推送, enter {url} and select {mode}", url=url, mode=mode)
    if app.push_forward is not None:
        return instructions
    return _(
        "{said}. Without push_forward, wxauth ignores messages about payments, customer service and "
        "other topics that don't concern it",
        said=instructions,
    )


def _judge_callback_domain(app: App, settings: Settings) -> CheckResult:
    name = f"wechat {app.app_id} callback domain"
    # Only the form of the issuer is judged, because no check can read WeChat's console.
    issuer = urlsplit(settings.issuer)
    host = issuer.hostname or ""
    if is_loopback(host):
        # The result is not `bad`, because a check of all apps also checks the issuer, and reports this problem once.
        text = _("WeChat doesn't accept a callback to {issuer}. Set WXAUTH_ISSUER", issuer=settings.issuer)
        return good(name, text)
    if issuer.scheme != "https" or issuer.port is not None or numeric_addresses_of(host):
        text = _(
            "WXAUTH_ISSUER {issuer} can't be a callback domain. WXAUTH_ISSUER must use https and a domain "
            "name, without a port",
            issuer=settings.issuer,
        )
        return bad(name, text)
    text = _(
        "enter {host} in WeChat's console, and set WXAUTH_CHECK_FILES to the verification file that WeChat requires",
        host=host,
    )
    return good(name, text)


def _time_in(response: httpx.Response) -> datetime | None:
    try:
        # The transport to WeChat passes the header on as an extension of the response.
        time = parsedate_to_datetime(response.extensions.get("date") or "")
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _refused_addresses(body: bytes) -> list[str]:
    try:
        document = from_json(body)
    except ValueError:
        return []
    match document:
        case {"errcode": errcode, "errmsg": str(text)} if errcode in _NOT_WHITELISTED:
            words = _BETWEEN_ADDRESSES.split(text)
        case _:
            return []
    addresses: list[str] = []
    for word in words:  # only the valid addresses are shown, and no other part of WeChat's text
        try:
            address = str(plain_address(word.rstrip(".")))  # a full stop at the end is not part of the address
        except ValueError:
            continue
        if address not in addresses:
            addresses.append(address)
    return addresses
