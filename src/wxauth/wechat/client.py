"""The client for WeChat's server API. It exchanges login codes, and other modules call WeChat through it.

Source: https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/user-login/code2Session.html
"""

import asyncio
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx

from wxauth import errors
from wxauth.core.logs import get_logger
from wxauth.core.metrics import REFUSED, Counter
from wxauth.i18n import lazy_gettext as _
from wxauth.outbound.transport import ANSWER, HttpTransport
from wxauth.settings.apps import App
from wxauth.settings.settings import Settings
from wxauth.wechat.errcodes import FAULTS_OF_WECHAT, SYSTEM_BUSY, Api, errcode_label, errcode_of
from wxauth.wechat.received import can_name_a_person, is_id, is_placeholder, read_json

BUSY_PAUSES_SECONDS: Final = (0.1, 0.3)
# WeChat has never issued this code.
MADE_UP_CODE: Final = "000000000000"
# WeChat rejects a made-up code like this after it has accepted the app's id and secret.
REJECTIONS_OF_CODE: Final = (errors.InvalidCode, errors.CodeUsed, errors.WeChatUserBlocked)

# One attempt to connect may take this share of a call's time limit. The rest is for the fallback host.
_CONNECT_SHARE: Final = 0.4
# A mini-program code has about 100,000 bytes.
_MAX_PICTURE_BYTES: Final = 1024 * 1024
# `WeChat.call` passes a picture to `read` under this key. WeChat itself sends the picture without any JSON around it.
PICTURE: Final = "picture"

# WeChat's errcodes are far smaller.
_MAX_ERRCODE: Final = 10**9
_MAX_ERRMSG_LENGTH: Final = 200
# Bodies are uncompressed, because the transport does not decompress.
_HEADERS: Final = {"Accept": "*/*", "Accept-Encoding": "identity", "Connection": "keep-alive", "User-Agent": "wxauth"}

CALLS: Final = Counter(
    "wxauth_wechat_calls",
    "Calls of WeChat's API, by API and outcome: ok or the code of the error; errcode is WeChat's.",
    "api",
    "outcome",
    "errcode",
    first=[(Api.CODE2SESSION, outcome, "") for outcome in ("ok", *(fault.code for fault in FAULTS_OF_WECHAT))],
)

log = get_logger()

T = TypeVar("T")


def transport_for(settings: Settings, *, at_most: float = inf) -> HttpTransport:
    """Return the transport for calls to WeChat, each of which may take up to `at_most` seconds."""
    timeout = min(settings.wechat_timeout, at_most)
    return HttpTransport(connect_timeout=timeout * _CONNECT_SHARE, proxy=settings.wechat_proxy)


@dataclass(frozen=True, slots=True)
class WeChatIdentity:
    openid: str
    unionid: str | None
    # The session_key is base64 text. It is None for all kinds of apps but mini-programs.
    session_key: bytes | None = field(default=None, repr=False)
    # WeChat has shown a snapshot of the page, for which it invents the identity.
    is_snapshot: bool = False


class _Host:
    """A server of WeChat, or a relay to it."""

    def __init__(self, url: str) -> None:
        self.url = httpx.URL(url)
        self._prepared: dict[Api, httpx.Request] = {}

    def request(self, api: Api, query: str, body: bytes | None, *, deadline: float) -> httpx.Request:
        """The query contains secrets, so it is in the extension `target`, not in the URL, which errors show.

        Only the parts that vary are built for each request, because parsing a URL takes 50 µs. With `stream`, httpx
        does not prepare the header fields of a GET again, which would take as long as the rest.
        """
        prepared = self._prepared.get(api)
        if prepared is None:
            path = self.url.path.rstrip("/") + api.path  # the path is empty for WeChat's own hosts
            prepared = self._prepared[api] = httpx.Request("GET", self.url.copy_with(path=path), headers=_HEADERS)
        url, headers = prepared.url, prepared.headers
        target = url.raw_path + f"?{query}".encode() if query else url.raw_path
        extensions = {**prepared.extensions, "target": target, "deadline": deadline}
        if body is None:
            return httpx.Request("GET", url, headers=headers, stream=prepared.stream, extensions=extensions)
        if api == Api.MINI_PROGRAM_CODE:
            extensions["max_body"] = _MAX_PICTURE_BYTES
        headers = headers.copy()
        headers["Content-Type"] = "application/json"
        return httpx.Request("POST", url, headers=headers, content=body, extensions=extensions)

    def __str__(self) -> str:
        """Return the host and port, for the log."""
        default_port = 443 if self.url.scheme == "https" else 80
        host, port = self.url.host, self.url.port or default_port
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"  # an IPv6 address is in brackets


@dataclass
class WeChat:
    """The client for WeChat's server API, which all parts of a process share.

    Args:
        transport: It ends each request at its extension `deadline`. No client of httpx is around it, which would
            store WeChat's cookies for the next user, follow redirects, and log URLs. A test may replace it by one
            of respx.
        at_most: The maximum duration of each call in seconds, if that is shorter than `WECHAT_TIMEOUT`.
        hints: Texts for the developer by errcode, which are appended to the `detail` of the error.
        reports_refusals: False if the caller causes errcodes deliberately, and reports their meaning itself.
    """

    transport: httpx.AsyncBaseTransport
    settings: Settings
    at_most: float = inf
    busy_pauses: Sequence[float] = BUSY_PAUSES_SECONDS
    hints: Mapping[int, str] = field(default_factory=dict)
    reports_refusals: bool = True

    def __post_init__(self) -> None:
        self._base = _Host(self.settings.wechat_base_url)
        self._fallback = _Host(self.settings.wechat_fallback_url or self.settings.wechat_base_url)
        self.timeout = min(self.settings.wechat_timeout, self.at_most)

    async def exchange(self, app: App, code: str) -> WeChatIdentity:
        """Exchange a login code, which works once, within some minutes, for the user's identity.

        Raises: InvalidCode (errcode 40029 and, except for mini-programs, 42003), CodeUsed (errcode 40163),
            WeChatUserBlocked (errcode 40226), WeChatRateLimited (errcode 45009 or 45011), WeChatMisconfigured (if only
            the operator can end the failure), WeChatUnavailable (errcode -1 after two retries, a missing or lost
            connection, or a status of 500 or more), WeChatTimeout, WeChatBadResponse.
        """
        api, query = _login_request(app, code)
        return await self.call(api, app, query, read=partial(_identity, app, api), secrets=[code])

    async def check_secret(self, app: App) -> None:
        """Check with a made-up code whether WeChat accepts the app's id and secret.

        Raises: WeChatMisconfigured, also if WeChat rejects the address of this server; other WeChatError.
        """
        try:
            api, query = _login_request(app, MADE_UP_CODE)
            await self.call(api, app, query, read=lambda _answer: None, reports_refusals=False)
        except REJECTIONS_OF_CODE:
            return

    async def call(
        self,
        api: Api,
        app: App,
        query: str = "",
        *,
        body: bytes | None = None,
        read: Callable[[dict[str, Any]], T],
        secrets: Sequence[str] = (),
        expected: Container[int] = (),
        deadline: float | None = None,
        reports_refusals: bool = True,
    ) -> T:
        """Call an API of WeChat. A call is repeated only if WeChat is busy, or no connection could be opened.

        WeChat returns the status 200 even for failures, whose responses contain an `errcode`. `read` extracts the
        result from the response, or from `PICTURE`, and may raise WeChatBadResponse. `secrets` are parts of the
        request that must not be logged, in addition to the app's secret. The errcodes in `expected` are not logged,
        because the caller handles them. `deadline` is a time of the event loop.

        Raises: WeChatError.
        """
        now = asyncio.get_running_loop().time
        called_at = now()
        if deadline is None:
            deadline = called_at + self.timeout
        host, pauses = self._base, iter(self.busy_pauses)
        try:
            while True:
                try:
                    response = await self.transport.handle_async_request(
                        host.request(api, query, body, deadline=deadline)
                    )
                    # wxauth's own transport has already read the body, and `aread` would take 10 µs.
                    already_read = response.extensions.get(ANSWER)
                    content: bytes = await response.aread() if already_read is None else already_read.body
                except (httpx.TransportError, httpx.DecodingError) as exc:
                    is_unsent = isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout)
                    if not is_unsent or host is self._fallback:
                        raise _failure_of(exc, api, seconds=deadline - called_at) from exc
                    # WeChat has not used up a code in the request, because no part of the request was sent.
                    log.warning(
                        "wechat_not_connected",
                        reason=str(exc),
                        host=str(host),
                        **({} if str(self._fallback) == str(host) else {"next_host": str(self._fallback)}),
                        what_to_change="network or WECHAT_PROXY: see 'wxauth check'",
                    )
                    host = self._fallback
                    continue
                answer = _answer_in(response.status_code, content, api)
                errcode = answer.get("errcode", 0)
                if errcode != SYSTEM_BUSY:
                    break
                pause = next(pauses, None)
                if pause is None or now() + pause >= deadline:
                    break
                await asyncio.sleep(pause)
                host = self._base  # so that the next attempt, too, can change to the fallback host
            if type(errcode) is not int or abs(errcode) > _MAX_ERRCODE:  # `isinstance` would also accept True
                raise errors.WeChatBadResponse(_("WeChat's errcode isn't a valid number"))
            if errcode != 0:
                if self.reports_refusals and reports_refusals and errcode not in expected:
                    _log_refusal(api, app, errcode, answer.get("errmsg"), secrets)
                raise errcode_of(errcode, api=api).failure(self.hints.get(errcode, ""))
            result = read(answer)
        except errors.WeChatError as exc:
            CALLS.count(api, exc.code, errcode_label(exc))
            raise
        CALLS.count(api, "ok", "")
        return result

    def deadline(self, *, extra_seconds: float = 0.0) -> float:
        """Return the event loop's time, in seconds, at which a call that begins now must end."""
        return asyncio.get_running_loop().time() + self.timeout + extra_seconds

    async def aclose(self) -> None:
        await self.transport.aclose()


def _failure_of(exc: httpx.RequestError, api: Api, *, seconds: float) -> errors.WeChatError:
    match exc:
        case httpx.ReadTimeout():
            limit = max(0.0, round(seconds, 2))
            return errors.WeChatTimeout(_("{api} did not respond in {n:g} s", api=api, n=limit))
        case httpx.DecodingError():
            # wxauth's own transport raises this error if a response is not HTTP, and if it is too large.
            return errors.WeChatBadResponse(_("WeChat's response isn't HTTP, or is too large"))
        case httpx.PoolTimeout():
            return errors.WeChatUnavailable(
                _("wxauth didn't send the request to WeChat, because no connection became free in time")
            )
        case _:
            return errors.WeChatUnavailable(_("WeChat couldn't be reached: {error}", error=type(exc).__name__))


def _answer_in(status: int, content: bytes, api: Api) -> dict[str, Any]:
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise errors.WeChatUnavailable(_("WeChat returned status {n}", n=status))
    if status != httpx.codes.OK:
        raise errors.WeChatBadResponse(_("WeChat returned status {n}", n=status))
    if api == Api.MINI_PROGRAM_CODE and content.lstrip()[:1] != b"{":
        return {PICTURE: content}
    try:
        answer = read_json(content)  # whatever the Content-Type is, because WeChat sends JSON as text/plain
    except ValueError as exc:
        raise errors.WeChatBadResponse(_("WeChat's response isn't JSON")) from exc
    if not isinstance(answer, dict):
        raise errors.WeChatBadResponse(_("WeChat's response isn't a JSON object"))
    return answer


def report_misconfigured(event: str = "wechat_misconfigured", **fields: object) -> None:
    """Log a failure that only the operator can end, and count it for the alert, whatever the user gets."""
    REFUSED.count(errors.WeChatMisconfigured.code)
    log.error(event, **fields)


def log_not_made(event: str, app: App, failure: errors.WeChatError, *, api: str) -> None:
    """Log that WeChat has not made a picture or a link. The meaning of an errcode depends on the API."""
    fields = {"app_id": app.app_id, "errcode": failure.errcode}
    if isinstance(failure, errors.WeChatMisconfigured):  # this error always has an errcode
        report_misconfigured(event, **fields, what_to_change=errcode_of(failure.errcode or 0, api=api).remedy)
    else:
        log.warning(event, **fields, reason=failure.detail)


def exchange_api(app: App) -> Api:
    """Return the API that exchanges login codes for this kind of app."""
    return Api.CODE2SESSION if app.kind == "mini_program" else Api.OAUTH_CODE


def _login_request(app: App, code: str) -> tuple[Api, str]:
    api = exchange_api(app)
    name = "js_code" if api is Api.CODE2SESSION else "code"
    secret = quote(app.app_secret.get_secret_value(), safe="")
    return api, f"grant_type=authorization_code&appid={app.app_id}&secret={secret}&{name}={quote(code, safe='')}"


def _log_refusal(api: str, app: App, errcode: int, errmsg: object, secrets: Sequence[str]) -> None:
    text = errmsg if isinstance(errmsg, str) else ""
    # WeChat's message might quote a secret as it is, or in either form of percent-encoding.
    for secret in (app.app_secret.get_secret_value(), *secrets):
        for form in (secret, quote(secret, safe=""), quote(secret)):
            text = text.replace(form, "***")
    fields: dict[str, Any] = {"api": api, "app_id": app.app_id, "errcode": errcode, "errmsg": text[:_MAX_ERRMSG_LENGTH]}
    description = errcode_of(errcode, api=api)
    if description.remedy is not None:
        fields["what_to_change"] = description.remedy
    if description.is_for_the_operator:
        report_misconfigured(**fields)
    else:
        log.warning("wechat_refused", **fields)


def _identity(app: App, api: Api, answer: dict[str, Any]) -> WeChatIdentity:
    """A unionid that cannot identify one person is left out and logged."""
    openid, unionid = answer.get("openid"), answer.get("unionid") or None
    session_key = None
    if not is_id(openid):
        raise errors.WeChatBadResponse(_("WeChat's response has no usable {field}", field="openid"))
    if api is Api.CODE2SESSION:
        session_key = answer.get("session_key")
        if not is_id(session_key):
            raise errors.WeChatBadResponse(_("WeChat's response has no usable {field}", field="session_key"))
    if unionid is not None and not is_id(unionid):
        raise errors.WeChatBadResponse(_("WeChat's response has a malformed unionid"))
    if is_placeholder(openid):
        raise errors.WeChatBadResponse(_("WeChat's response has a placeholder instead of an openid"))
    if unionid is not None and not can_name_a_person(unionid):
        log.error("unionid_ignored", app_id=app.app_id, reason="not of WeChat's form")
        unionid = None
    return WeChatIdentity(
        openid=openid,
        unionid=unionid,
        session_key=None if session_key is None else session_key.encode(),
        is_snapshot=answer.get("is_snapshotuser") not in (None, "", 0, "0"),
    )
