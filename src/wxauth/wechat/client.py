"""The client for WeChat's server API. It exchanges login codes, and other modules call WeChat through it.

Source: https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/user-login/code2Session.html
"""

import asyncio
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote

import httpx

from wxauth import errors
from wxauth.core.logs import get_logger
from wxauth.core.metrics import Counter
from wxauth.i18n import lazy_gettext as _
from wxauth.outbound.transport import ANSWER, HttpTransport
from wxauth.settings.apps import App
from wxauth.settings.settings import Settings
from wxauth.web.edge import REFUSED
from wxauth.wechat.errcodes import FAULTS_OF_WECHAT, SYSTEM_BUSY, Api, errcode_label, errcode_of
from wxauth.wechat.received import can_name_a_person, is_id, is_placeholder, read_json

BUSY_PAUSES_SECONDS: Final = (0.1, 0.3)
"""The pauses, in seconds, before the first and the second retry after errcode -1."""
MADE_UP_CODE: Final = "000000000000"
"""A login code that WeChat has never issued."""
REJECTIONS_OF_CODE: Final = (errors.InvalidCode, errors.CodeUsed, errors.WeChatUserBlocked)
"""The errors with which WeChat rejects a made-up code after it has accepted the app's id and secret."""

_CONNECT_SHARE: Final = 0.4
"""The largest share of an exchange's time limit that one connection attempt may take.

If the attempt fails, the remaining time is for the fallback host.
"""
_MAX_PICTURE_BYTES: Final = 1024 * 1024
"""The size limit, in bytes, of a picture. A mini-program code has about 100,000 bytes."""
PICTURE: Final = "picture"
"""The key of the picture in the dictionary that `WeChat.call` passes to `read`.

WeChat itself sends a picture without any JSON around it.
"""

_MAX_ERRCODE: Final = 10**9
"""The largest absolute value of a number that wxauth accepts as an errcode. WeChat's errcodes are far smaller."""
_MAX_ERRMSG_LENGTH: Final = 200
"""The largest number of characters of WeChat's message in the log."""
_HEADERS: Final = {"Accept": "*/*", "Accept-Encoding": "identity", "Connection": "keep-alive", "User-Agent": "wxauth"}
"""The header fields of each request.

`Accept-Encoding` asks for uncompressed bodies, because the transport does not decompress.
"""

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


class _Client(httpx.AsyncClient):
    """A client that sends requests without steps of httpx that wxauth does not need, such as storing cookies."""

    async def send(self, request: httpx.Request, **_options: Any) -> httpx.Response:
        """Send the request.

        Unlike httpx, store no cookie for the next user's request, follow no redirect, and log no URL.
        """
        # httpx has no public method that only selects the transport for a URL.
        return await self._transport_for_url(request.url).handle_async_request(request)


def client_over(transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    """Return the client for WeChat over a transport.

    The client sets no timeout, because the transport must end each request at the request's extension `deadline`.
    """
    return _Client(transport=transport, timeout=None, trust_env=False)


def transport_for(settings: Settings, *, at_most: float = inf) -> HttpTransport:
    """Return the transport for calls to WeChat, each of which may take up to `at_most` seconds.

    If the setting `WECHAT_TIMEOUT` is shorter, that time counts. One attempt to connect may take only a part of it.
    """
    timeout = min(settings.wechat_timeout, at_most)
    return HttpTransport(connect_timeout=timeout * _CONNECT_SHARE, proxy=settings.wechat_proxy)


@dataclass(frozen=True, slots=True)
class WeChatIdentity:
    """The identity that WeChat returned for a login code."""

    openid: str
    unionid: str | None
    session_key: bytes | None = field(default=None, repr=False)
    """The session_key of a mini-program's user as base64 text; None for all other kinds of apps."""
    is_snapshot: bool = False
    """Whether the page was shown in WeChat's snapshot mode, in which WeChat invents the identity."""


class _Call(NamedTuple):
    """A request, without the host to which it is sent."""

    api: Api
    query: str
    body: bytes | None
    deadline: float
    """The time at which the call fails, in the event loop's time."""
    time_limit: float
    """The number of seconds from the beginning of the call to its deadline."""


class _Host:
    """A server of WeChat, or a relay to it."""

    def __init__(self, url: str) -> None:
        self.url = httpx.URL(url)
        self._prepared: dict[Api, httpx.Request] = {}

    def request(self, call: _Call) -> httpx.Request:
        """Build the request to this host.

        The query contains secrets, so it is in the extension `target` instead of the URL, which errors and logs show.
        Only the parts that vary are built for each request, because parsing a URL takes 50 µs. With `stream`, httpx
        does not prepare the header fields of a GET again. Without it, building the request would take twice as long.
        """
        prepared = self._prepared.get(call.api)
        if prepared is None:
            path = self.url.path.rstrip("/") + call.api.path  # the path is empty for WeChat's own hosts
            prepared = self._prepared[call.api] = httpx.Request("GET", self.url.copy_with(path=path), headers=_HEADERS)
        url, headers = prepared.url, prepared.headers
        target = url.raw_path + f"?{call.query}".encode() if call.query else url.raw_path
        extensions = {**prepared.extensions, "target": target, "deadline": call.deadline}
        if call.body is None:
            return httpx.Request("GET", url, headers=headers, stream=prepared.stream, extensions=extensions)
        if call.api == Api.MINI_PROGRAM_CODE:
            extensions["max_body"] = _MAX_PICTURE_BYTES
        headers = headers.copy()
        headers["Content-Type"] = "application/json"
        return httpx.Request("POST", url, headers=headers, content=call.body, extensions=extensions)

    def __str__(self) -> str:
        """Return the host and port for the log. If the settings name a relay, return the host and port of the relay."""
        default_port = 443 if self.url.scheme == "https" else 80
        host, port = self.url.host, self.url.port or default_port
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"  # an IPv6 address is in brackets


@dataclass
class WeChat:
    """The client for WeChat's server API.

    All parts of a process share one client. Only the checks (`checks/wechat.py`) create their own.

    Args:
        client: The client that sends the requests. A test may replace it, or mock its requests with respx. See
            `client_over`.
        settings: WeChat's URLs, and the time limit of a whole exchange, including retries.
        at_most: A time limit, in seconds, which applies if it is shorter than the time limit in the settings.
        busy_pauses: The pauses, in seconds, before each retry while WeChat is busy.
        hints: Texts for the developer by errcode, which are appended to the `detail` of the error.
        reports_refusals: Whether errcodes are logged. False if the caller causes errcodes deliberately, and reports
            their meaning itself.
    """

    client: httpx.AsyncClient
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
        """Exchange a login code for the user's identity.

        The code comes from `wx.login` in a mini-program, and from OAuth in any other app. A code works once, within
        some minutes. This method ignores the access and refresh tokens in an OAuth response.

        Raises: InvalidCode (errcode 40029 and, except for mini-programs, 42003), CodeUsed (errcode 40163),
            WeChatUserBlocked (errcode 40226), WeChatRateLimited (errcode 45009 or 45011), WeChatMisconfigured (if only
            the operator can end the failure), WeChatUnavailable (errcode -1 after two retries, a missing or lost
            connection, or a status of 500 or more), WeChatTimeout, WeChatBadResponse.
        """
        query = _login_query(app, code)
        return await self.call(exchange_api(app), app, query, read=partial(_identity, app), secrets=[code])

    async def check_secret(self, app: App) -> None:
        """Check with a made-up code whether WeChat accepts the app's id and secret.

        Raises: WeChatMisconfigured, if WeChat rejects them or, for example, the address of this server;
            WeChatRateLimited, WeChatUnavailable, WeChatTimeout, WeChatBadResponse.
        """
        try:
            query = _login_query(app, MADE_UP_CODE)
            await self.call(exchange_api(app), app, query, read=lambda _answer: None, reports_refusals=False)
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
        """Call an API of WeChat. A call is retried only if WeChat is busy, or no connection could be opened.

        WeChat returns the status 200 even for failures, whose responses contain an `errcode`.

        Args:
            api: The API.
            app: The app on whose behalf WeChat is called.
            query: The query of the request, which may contain secrets.
            body: The JSON to send with POST; None for a GET.
            read: The function that extracts the result from the response. If the response is a picture, the function
                gets a dict with the picture under the key `PICTURE`. The function may raise WeChatBadResponse.
            secrets: Parts of the request that must not be logged, in addition to the app's secret.
            expected: The errcodes that are raised but not logged, because the caller handles them.
            deadline: The time at which the call fails, in the event loop's time. By default, the call fails after the
                client's timeout.
            reports_refusals: Whether errcodes are logged here. If not, the caller logs them.

        Raises: WeChatError.
        """
        if deadline is None:
            deadline = self.deadline()
        time_limit = deadline - asyncio.get_running_loop().time()
        try:
            answer = await self._ask_until_not_busy(_Call(api, query, body, deadline, time_limit))
            errcode = answer.get("errcode", 0)
            if type(errcode) is not int or abs(errcode) > _MAX_ERRCODE:  # `isinstance` would also accept True
                raise errors.WeChatBadResponse("WeChat's errcode isn't a valid number")
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

    def deadline(self, *, extra_time: float = 0.0) -> float:
        """Return the time, in the event loop's time, at which an exchange that begins now must end.

        `extra_time` is a number of seconds, which is added to the client's timeout.
        """
        return asyncio.get_running_loop().time() + self.timeout + extra_time

    async def aclose(self) -> None:
        """Close the connections to WeChat."""
        await self.client.aclose()

    async def _ask_until_not_busy(self, call: _Call) -> dict[str, Any]:
        """Send the call. While WeChat is busy, and the deadline allows it, send the call again after each pause.

        Raises: WeChatError.
        """
        answer = await self._ask(call)
        for pause in self.busy_pauses:
            has_time = asyncio.get_running_loop().time() + pause < call.deadline
            if answer.get("errcode") != SYSTEM_BUSY or not has_time:
                break
            await asyncio.sleep(pause)
            answer = await self._ask(call)
        return answer

    async def _ask(self, call: _Call) -> dict[str, Any]:
        """Send the call, and return the JSON object or the picture in the response. Raises: WeChatError."""
        try:
            response = await self._send(call)
            # wxauth's own transport has already read the body, and `aread` would take 10 µs.
            already_read = response.extensions.get(ANSWER)
            body: bytes = await response.aread() if already_read is None else already_read.body
        except httpx.ReadTimeout as exc:
            seconds = max(0.0, round(call.time_limit, 2))
            raise errors.WeChatTimeout(_("{api} did not respond in {n:g} s", api=call.api, n=seconds)) from exc
        except httpx.DecodingError as exc:
            # wxauth's own transport raises this error if a response is not HTTP, and if it is too large.
            raise errors.WeChatBadResponse(_("WeChat's response isn't HTTP, or is too large")) from exc
        except httpx.PoolTimeout as exc:
            raise errors.WeChatUnavailable(
                _("wxauth didn't send the request to WeChat, because no connection became free in time")
            ) from exc
        except httpx.TransportError as exc:
            raise errors.WeChatUnavailable(_("WeChat couldn't be reached: {error}", error=type(exc).__name__)) from exc
        if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise errors.WeChatUnavailable(_("WeChat returned status {n}", n=response.status_code))
        if response.status_code != httpx.codes.OK:
            raise errors.WeChatBadResponse(_("WeChat returned status {n}", n=response.status_code))
        if call.api == Api.MINI_PROGRAM_CODE and body.lstrip()[:1] != b"{":
            return {PICTURE: body}
        try:
            answer = read_json(body)  # whatever the Content-Type is, because WeChat sends JSON as text/plain
        except ValueError as exc:
            raise errors.WeChatBadResponse(_("WeChat's response isn't JSON")) from exc
        if not isinstance(answer, dict):
            raise errors.WeChatBadResponse(_("WeChat's response isn't a JSON object"))
        return answer

    async def _send(self, call: _Call) -> httpx.Response:
        """Send the call to the first host or, if wxauth cannot connect to it, to the fallback host."""
        try:
            return await self.client.send(self._base.request(call))
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            # No part of the request was sent, so WeChat has not used up a code in it. The request can be sent again, to
            # the fallback host or, without one, to the same host.
            fields = {"reason": str(exc), "host": str(self._base), "next_host": str(self._fallback)}
            log.warning("wechat_not_connected", **fields, what_to_change="network or WECHAT_PROXY: see 'wxauth check'")
        return await self.client.send(self._fallback.request(call))


def report_misconfigured(event: str = "wechat_misconfigured", **fields: object) -> None:
    """Log a failure that only the operator can end, and count it for the alert, whatever response the user gets."""
    REFUSED.count(errors.WeChatMisconfigured.code)
    log.error(event, **fields)


def log_not_made(event: str, app: App, failure: errors.WeChatError, *, api: str) -> None:
    """Log that WeChat has not made a picture or a link for an app, and why.

    `event` is the name of the log event. `api` is the name of the WeChat API that failed. It is needed because the
    meaning of an errcode depends on the API.
    """
    fields = {"app_id": app.app_id, "errcode": failure.errcode}
    if isinstance(failure, errors.WeChatMisconfigured):  # this error always has an errcode
        report_misconfigured(event, **fields, what_to_change=errcode_of(failure.errcode or 0, api=api).remedy)
    else:
        log.warning(event, **fields, reason=failure.detail)


def exchange_api(app: App) -> Api:
    """Return the API that exchanges login codes for this kind of app."""
    return Api.CODE2SESSION if app.is_mini_program else Api.OAUTH_CODE


def _login_query(app: App, code: str) -> str:
    """Return the query of the request that exchanges a login code."""
    name = "js_code" if app.is_mini_program else "code"
    secret = quote(app.app_secret.get_secret_value(), safe="")
    return f"grant_type=authorization_code&appid={app.app_id}&secret={secret}&{name}={quote(code, safe='')}"


def _log_refusal(api: str, app: App, errcode: int, errmsg: object, secrets: Sequence[str]) -> None:
    """Log WeChat's errcode and message without secrets, and say what to change."""
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


def _identity(app: App, answer: dict[str, Any]) -> WeChatIdentity:
    """Return the identity in WeChat's response. Leave out a unionid that cannot identify one person, and log an error.

    Raises: WeChatBadResponse, if the openid or a mini-program's session_key is missing, if an id is malformed, or if
        the openid is a placeholder.
    """
    openid, unionid = answer.get("openid"), answer.get("unionid") or None
    session_key = None
    if not is_id(openid):
        raise errors.WeChatBadResponse("WeChat's response has no usable openid")
    if app.is_mini_program:
        session_key = answer.get("session_key")
        if not is_id(session_key):
            raise errors.WeChatBadResponse("WeChat's response has no usable session_key")
    if unionid is not None and not is_id(unionid):
        raise errors.WeChatBadResponse("WeChat's response has a malformed unionid")
    if is_placeholder(openid):
        raise errors.WeChatBadResponse("WeChat's response has a placeholder instead of an openid")
    if unionid is not None and not can_name_a_person(unionid):
        log.error("unionid_ignored", app_id=app.app_id, reason="not of WeChat's form")
        unionid = None
    return WeChatIdentity(
        openid=openid,
        unionid=unionid,
        session_key=None if session_key is None else session_key.encode(),
        is_snapshot=answer.get("is_snapshotuser") not in (None, "", 0, "0"),
    )
