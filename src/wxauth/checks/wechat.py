"""Checks WeChat's side of each app: its secret, its IP whitelist, and which APIs it may call.

Every request uses a made-up code or person, so that WeChat refuses it. It costs and changes nothing.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import httpx
from pydantic_core import from_json

from wxauth.checks.queries import UserSample
from wxauth.checks.result import CheckLevel, CheckResult, ClockReading, Findings, bad, good, note
from wxauth.core.addresses import numeric_addresses_of, plain_address
from wxauth.core.apps import App
from wxauth.core.clock import Clock
from wxauth.core.settings import Settings
from wxauth.errors import (
    CodeUsed,
    InvalidCode,
    WeChatBadResponse,
    WeChatError,
    WeChatMisconfigured,
    WeChatRateLimited,
    WeChatTimeout,
    WeChatUnavailable,
)
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.outbound.connection import ProxyFailed
from wxauth.wechat.api import WeChatApi
from wxauth.wechat.client import WeChat, client_over, exchange_api
from wxauth.wechat.errcodes import DAILY_QUOTA, SYSTEM_BUSY, Api, errcode_of
from wxauth.wechat.wechat_tokens import WeChatTokens
from wxauth_guard.texts import is_loopback

CHECK_TIMEOUT_SECONDS: Final = 10.0
"""The time limit of one request, even if `WXAUTH_WECHAT_TIMEOUT` is longer."""

_CODE: Final = "000000000000"
_OPENID: Final = "o-wxauth-check"
_SESSION_KEY: Final = b"d3hhdXRoLWNoZWNrLi4uLg=="
_NOT_WHITELISTED: Final = (40164, 61004)
_MINUTE_QUOTA: Final = 45011
_WRONG_PARAMETER: Final = 47001
_SECOND: Final = timedelta(seconds=1)
_NEXT_TO_AN_ADDRESS: Final = re.compile(r"[^0-9A-Fa-f:.]+")


class _Witness(httpx.AsyncBaseTransport):
    """Passes on requests and answers, and keeps what of them the WeChat client does not return."""

    def __init__(self, inner: httpx.AsyncBaseTransport, clock: Clock, readings: list[ClockReading]) -> None:
        self._inner = inner
        self._clock = clock
        self._readings = readings
        self.addresses: list[str] = []
        """The addresses of this server, as WeChat names them when it refuses them."""
        self.unreachable: set[str] = set()
        """Hosts to which no connection could be made."""
        self.at_proxy = ""
        """The reason for that, if the proxy has failed."""
        self.reason = ""
        """The reason for that, in any case."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        asked_at = self._clock()
        try:
            response = await self._inner.handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            self.unreachable.add(request.url.host)
            self.reason = exc.args[0]
            self.at_proxy = exc.args[0] if isinstance(exc, ProxyFailed) else ""
            raise
        answered_at = self._clock()
        if (theirs := _time_in(response)) is not None:
            reading = ClockReading.of(theirs, asked_at=asked_at, answered_at=answered_at, grain=_SECOND)
            self._readings.append(reading)
        self.addresses = self.addresses or _refused_addresses(await response.aread())
        return response


@dataclass(frozen=True, slots=True)
class _Use:
    """A use of an API: its name in the report, a request to make, and the reason why it is not needed now, if any."""

    name: str
    api: str
    ask: Callable[[WeChatApi], Awaitable[object]]
    why_unused: Text | None = None


async def check_app(
    app: App, settings: Settings, found: Findings, *, transport: httpx.AsyncBaseTransport, clock: Clock
) -> AsyncGenerator[CheckResult, None]:
    """Check whether WeChat accepts the app and this server, which APIs it may call, and the settings at WeChat."""
    observed = _Witness(transport, clock, found.wechat_readings)
    wechat = WeChat(client_over(observed), settings, at_most=CHECK_TIMEOUT_SECONDS, reports_refusals=False)
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
    return [
        _Use(
            "phone",
            Api.PHONE_NUMBER,
            lambda api: api.phone_number(app, _CODE, openid=openid),
            None if gives_phones else _("nobody has given a phone number lately"),
        ),
        _Use(
            "session_keys",
            Api.CHECK_SESSION_KEY,
            lambda api: api.check_session_key(app, openid=_OPENID, session_key=_SESSION_KEY),
        ),
    ]


async def _check_codes(app: App, settings: Settings, wechat: WeChat, clock: Clock, observed: _Witness) -> CheckResult:
    """Check which kind of code sites show for this app, and what is missing for it."""
    name = f"wechat {app.app_id} codes"
    prefix = f"{settings.issuer}/d/"
    if settings.scan_code == "link":
        if is_loopback(urlsplit(prefix).hostname):
            text = _("ordinary links, and no phone can open {url}: set WXAUTH_ISSUER", url=prefix)
            return note(name, text)
        entered = _(
            "ordinary links; in WeChat's console, 扫普通链接二维码打开小程序: {url}, page {page}, published",
            url=prefix,
            page=settings.scan_page,
        )
        if settings.link_check_file is None:
            text = _("{entered}; set WXAUTH_LINK_CHECK_FILE for the file it asks for", entered=entered)
            return note(name, text)
        return good(name, entered)
    what = _("mini-program codes of {page} ({env})", page=settings.scan_page, env=settings.scan_env)
    async with aclosing(WeChatTokens(wechat=wechat, clock=clock)) as wechat_tokens:
        asked = WeChatApi(wechat=wechat, wechat_tokens=wechat_tokens).mini_program_code(
            app, _CODE, page=settings.scan_page, env=settings.scan_env
        )
        failure = await _failure(asked)
    if failure is None:
        return good(name, what)
    result = _judge_failure(name, Api.MINI_PROGRAM_CODE, failure, settings, observed)
    if failure.errcode == DAILY_QUOTA:
        text = _("{what}: asked too often just now, 5,000 a minute: run this again in a minute", what=what)
        return note(name, text)
    text = _("{what} cannot be obtained, so ordinary codes are shown: {why}", what=what, why=result.text)
    return CheckResult(name, result.level, text)


def _judge_login(app: App, failure: WeChatError | None, settings: Settings, observed: _Witness) -> CheckResult:
    name = f"wechat {app.app_id}"
    if failure is None:
        return bad(name, _("took a made-up code for a real one: is WXAUTH_WECHAT_BASE_URL WeChat?"))
    if not isinstance(failure, InvalidCode | CodeUsed):
        return _judge_failure(name, exchange_api(app), failure, settings, observed)
    base = urlsplit(settings.wechat_base_url).hostname
    if base in observed.unreachable:
        fallback = urlsplit(settings.wechat_fallback_url or "").hostname
        text = _(
            "answers at {fallback} alone: {base} cannot be connected to, and each login waits for it first",
            fallback=fallback,
            base=base,
        )
        return note(name, text)
    return good(name, _("answers, and accepts the app's secret"))


def _judge_token(
    app: App, failure: WeChatError | None, login: WeChatError | None, settings: Settings, observed: _Witness
) -> CheckResult:
    name = f"wechat {app.app_id} access_token"
    if failure is None:
        return good(name, _("obtainable from this address"))
    result = _judge_failure(name, Api.STABLE_TOKEN, failure, settings, observed)
    is_the_same = login is not None and (type(failure), failure.errcode) == (type(login), login.errcode)
    why = _("cannot be obtained, for the same reason") if is_the_same else result.text
    text = _("{why}; what else the app may ask is not known without one", why=why)
    return CheckResult(name, CheckLevel.BAD if is_the_same else result.level, text)


def _judge_api(app: App, use: _Use, failure: WeChatError | None, settings: Settings, observed: _Witness) -> CheckResult:
    name = f"wechat {app.app_id} {use.name}"
    sends_openid = use.api == Api.PHONE_NUMBER and settings.phone_check_openid
    if sends_openid and failure is not None and failure.errcode == _WRONG_PARAMETER:
        text = _(
            "the account may not send the openid: set WXAUTH_PHONE_CHECK_OPENID=false (errcode {errcode})",
            errcode=_WRONG_PARAMETER,
        )
        result = bad(name, text)
    elif _is_permitted(use.api, failure):
        return good(name, _("permitted"))
    else:
        assert failure is not None
        result = _judge_failure(name, use.api, failure, settings, observed)
    if use.why_unused is None:
        return result
    text = _("{refused}; not needed now, for {why}", refused=result.text, why=use.why_unused)
    return note(name, text)


def _is_permitted(api: str, failure: WeChatError | None) -> bool:
    """Whether WeChat allowed the app to call the API: if so, it has refused only the made-up request."""
    if failure is None:
        return True
    is_about_the_app = isinstance(failure, WeChatMisconfigured | WeChatRateLimited | WeChatUnavailable)
    return not (is_about_the_app or failure.errcode is None or errcode_of(failure.errcode, api=api).is_for_the_operator)


def _judge_failure(name: str, api: str, failure: WeChatError, settings: Settings, observed: _Witness) -> CheckResult:
    """The result for a failure caused by the app, this server or WeChat, not by the made-up request."""
    errcode, base = failure.errcode, settings.wechat_base_url
    match failure:
        case WeChatMisconfigured() if errcode in _NOT_WHITELISTED and observed.addresses:
            seen = observed.addresses
            return bad(
                name,
                _(
                    "WeChat saw this server as {addresses}: add that to the app's IP whitelist 白名单 "
                    "(errcode {errcode})",
                    addresses=_(" and ").join(seen),
                    errcode=errcode,
                ),
            )
        case WeChatRateLimited() if errcode == _MINUTE_QUOTA:
            text = _("asked too often just now: run this again in a minute (errcode {errcode})", errcode=errcode)
            return note(name, text)
        case WeChatUnavailable() if errcode == SYSTEM_BUSY:
            text = _(
                "WeChat is busy, also when asked again: run this again in a minute (errcode {errcode})", errcode=errcode
            )
            return bad(name, text)
        case WeChatUnavailable() if observed.at_proxy:
            text = _(
                "{why}: see WXAUTH_WECHAT_PROXY, and that it may connect to {base}", why=observed.at_proxy, base=base
            )
            return bad(name, text)
        case WeChatUnavailable() | WeChatTimeout():
            why = failure.detail
            if observed.reason:
                why = _("{failure} ({reason})", failure=why, reason=observed.reason)
            text = _("{why}: see that this machine reaches {base} (name, firewall, TLS)", why=why, base=base)
            return bad(name, text)
        case WeChatBadResponse() if errcode is None:
            text = _("{why}: is WXAUTH_WECHAT_BASE_URL WeChat, or a proxy in between?", why=failure.detail)
            return bad(name, text)
    assert errcode is not None
    if (remedy := errcode_of(errcode, api=api).remedy) is not None:
        return bad(name, _("{remedy} (errcode {errcode})", remedy=remedy, errcode=errcode))
    text = _("refused: look the errcode up in WeChat's table of return codes (errcode {errcode})", errcode=errcode)
    return bad(name, text)


def _judge_unionids(app: App, users: UserSample, *, is_only_one: bool) -> CheckResult:
    name = f"wechat {app.app_id} unionid"
    if users.users == 0:
        return good(name, _("not known before somebody has logged in"))
    if users.with_unionid:
        text = _(
            "bound to an Open Platform account: {n} of {total} users have one", n=users.with_unionid, total=users.users
        )
        return good(name, text)
    if is_only_one:
        text = _(
            "none of {n} users has one: bind the app to an Open Platform account, should another app share its users "
            "some day",
            n=users.users,
        )
        return good(name, text)
    text = _(
        "none of {n} users has one: bind the app to an Open Platform account, if the apps are to share users",
        n=users.users,
    )
    return note(name, text)


def _judge_callback_domain(app: App, settings: Settings) -> CheckResult:
    """Whether WeChat can redirect a browser back to the issuer after a login by this app."""
    name = f"wechat {app.app_id} callback domain"
    issuer = urlsplit(settings.issuer)
    host = issuer.hostname or ""
    if is_loopback(host):  # of which the issuer's own check makes one remark, for all apps
        text = _("WeChat takes no callback to {issuer}: set WXAUTH_ISSUER", issuer=settings.issuer)
        return good(name, text)
    if issuer.scheme != "https" or issuer.port is not None or numeric_addresses_of(host):
        text = _(
            "WXAUTH_ISSUER {issuer} cannot be one: it must be https, with a name and without a port",
            issuer=settings.issuer,
        )
        return bad(name, text)
    text = _("in WeChat's console, enter {host}; set WXAUTH_CHECK_FILES for the file it asks for", host=host)
    return good(name, text)


def _judge_push(app: App, settings: Settings, apps: Sequence[App]) -> CheckResult:
    name = f"wechat {app.app_id} push"
    url = f"{settings.issuer}/v1/wechat/push/{app.app_id}"
    if app.push_token is None:
        text = _("no push_token, so withdrawals are not reported: set one (WXAUTH_APPS, 'wxauth apps set') for {url}")
        return note(name, Text(text, url=url))
    others = ", ".join(it.app_id for it in apps if it.app_id != app.app_id and it.push_token == app.push_token)
    if others and app.push_aes_key is None:
        text = _(
            "has the push_token of {others}, so whoever sees a query of that app's can sign messages of this one: "
            "give each its own",
            others=others,
        )
        return bad(name, text)
    mode = _("security mode (安全模式)") if app.push_aes_key else _("plain mode (明文模式)")
    if is_loopback(urlsplit(url).hostname):
        text = _("configured, {mode}, and WeChat cannot reach {url}: set WXAUTH_ISSUER", mode=mode, url=url)
        return good(name, text)
    said = _("in WeChat's console, 消息推送: {url}, {mode}", url=url, mode=mode)
    if app.push_forward is None:
        said = _(
            "{said}; payments, customer service and all else that is not wxauth's own are ignored without push_forward",
            said=said,
        )
    if app.push_aes_key is None:
        text = _(
            "{said}; WeChat does not sign the message itself, so somebody between WeChat and this server can change "
            "it: better set push_aes_key where push_token is, and 安全模式 in the console",
            said=said,
        )
        return note(name, text)
    return good(name, said)


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
            case {"errcode": errcode, "errmsg": str(text)} if errcode in _NOT_WHITELISTED:
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
