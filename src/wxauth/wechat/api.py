"""The calls to WeChat's APIs that require an access token of the app."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from hmac import digest
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote, urlencode

from pydantic_core import to_json

from wxauth.core.services import part
from wxauth.errors import SessionKeyExpired, WeChatBadResponse, WeChatError, WeChatTimeout
from wxauth.i18n import lazy_gettext as _
from wxauth.settings.apps import App
from wxauth.wechat.client import PICTURE, WeChat
from wxauth.wechat.errcodes import SESSION_KEY_GONE, WECHAT_TOKEN_REFUSED, Api
from wxauth.wechat.wechat_tokens import WeChatToken, WeChatTokens, secret_in

URL_LINK_LASTS: Final = timedelta(days=30)  # the longest time that WeChat allows
CODE_PIXELS: Final = 450  # The login page shows a code at half this width, at which its modules are sharp.
# The callers log the errcodes of these APIs, so that the log says which picture or link is missing.
_REPORTED_BY_CALLERS: Final = frozenset({Api.MINI_PROGRAM_CODE, Api.URL_LINK})
_URL_LINK: Final = re.compile(r"https://[A-Za-z0-9.-]+(:[0-9]+)?/[A-Za-z0-9._~/-]{1,256}")
# Every PNG or JPEG begins, and every JPEG ends, with these bytes.
_PNG_START: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_START: Final = b"\xff\xd8\xff"
_JPEG_END: Final = b"\xff\xd9"

T = TypeVar("T")
MiniProgramVersion = Literal["release", "trial", "develop"]


@dataclass(frozen=True, slots=True)
class CodePicture:
    """The picture of a mini-program code or of a QR code."""

    content: bytes
    content_type: Literal["image/jpeg", "image/png"]


@part
class WeChatApi:
    """If WeChat refuses the access token, the call is sent once more with a new one: WeChat has not executed it."""

    wechat: WeChat  # not the one of logins, whose connections a slow API must not use up
    wechat_tokens: WeChatTokens

    async def aclose(self) -> None:
        await self.wechat.aclose()

    async def phone_number(
        self, app: App, code: str, *, openid: str | None, extra_seconds: float = 0.0
    ) -> dict[str, Any]:
        """Exchange the code of a phone button for WeChat's `phone_info`, whose content is not checked.

        A code works only once, within five minutes, and each success costs money. So the caller waits `extra_seconds`
        longer than for other calls, and stores the content before any further step can fail. If `openid` is given,
        WeChat checks that the code belongs to this user.

        Raises: InvalidCode (errcode 40029; 40003: the openid belongs to another app; 43104: the code belongs to
            another user), CodeUsed (errcode 40163), other WeChatError.
        """
        body = {"code": code} if openid is None else {"code": code, "openid": openid}
        return await self._call(
            Api.PHONE_NUMBER, app, body, read=_phone_info, secrets=[code], extra_seconds=extra_seconds
        )

    async def check_session_key(self, app: App, *, openid: str, session_key: bytes) -> bool:
        """Return whether WeChat still accepts this session_key, given as base64 text, for this user."""
        signature = session_key_signature(session_key)
        query = urlencode({"openid": openid, "signature": signature, "sig_method": "hmac_sha256"})
        try:
            await self._call(
                Api.CHECK_SESSION_KEY,
                app,
                body=None,
                query=f"&{query}",
                read=lambda _answer: None,
                secrets=[signature],
                expected=SESSION_KEY_GONE,
            )
        except SessionKeyExpired:
            return False
        return True

    async def mini_program_code(self, app: App, scene: str, *, page: str, env: MiniProgramVersion) -> CodePicture:
        """Return a picture of a mini-program code that opens this page with this scene, which is a secret.

        For the published version, WeChat checks whether the page exists.

        Raises: WeChatMisconfigured (errcode 40097 or 85402: no such version; errcode 40066 or 41030: no such page),
            WeChatRateLimited (errcode 45009: too many pictures in this minute), other WeChatError.
        """
        is_checked = env == "release"
        body = {"scene": scene, "page": page, "env_version": env, "check_path": is_checked, "width": CODE_PIXELS}
        return await self._call(Api.MINI_PROGRAM_CODE, app, body, read=_picture, secrets=[scene])

    async def url_link(self, app: App, *, page: str, env: MiniProgramVersion) -> str:
        """Return a URL Link that opens this page, for `URL_LINK_LASTS`.

        Raises: WeChatMisconfigured (for example errcode 40002: the account is personal; errcode 85079: the
            mini-program is not released), other WeChatError.
        """
        # With this `expire_type`, `expire_interval` is a number of days.
        body = {"path": page, "expire_type": 1, "expire_interval": URL_LINK_LASTS.days, "env_version": env}
        return await self._call(Api.URL_LINK, app, body, read=_url_link)

    async def js_ticket(self, app: App) -> tuple[str, int]:
        """Return the ticket of the JS-SDK, and the number of seconds until it expires."""
        return await self._call(
            Api.JS_TICKET, app, body=None, query="&type=jsapi", read=lambda answer: secret_in(answer, "ticket")
        )

    async def _call(
        self,
        api: Api,
        app: App,
        body: dict[str, Any] | None,
        query: str = "",
        *,
        read: Callable[[dict[str, Any]], T],
        secrets: Sequence[str] = (),
        expected: frozenset[int] = frozenset(),
        extra_seconds: float = 0.0,
    ) -> T:
        """`query` begins with `&`, because it follows the access token."""
        # pydantic does not write Chinese characters as \uXXXX escapes, which not every API of WeChat decodes.
        content = None if body is None else to_json(body)
        # The time limit covers all requests, including those for a token.
        deadline = self.wechat.deadline(extra_seconds=extra_seconds)

        async def call_with(token: WeChatToken, *, handled: frozenset[int]) -> T:
            value = token.value.get_secret_value()
            return await self.wechat.call(
                api,
                app,
                f"access_token={quote(value, safe='')}{query}",
                body=content,
                read=read,
                secrets=[*secrets, value],
                expected=handled,
                deadline=deadline,
                reports_refusals=api not in _REPORTED_BY_CALLERS,
            )

        token = await _in_time(self.wechat_tokens.get(app), deadline)
        try:
            return await call_with(token, handled=expected | WECHAT_TOKEN_REFUSED)
        except WeChatError as exc:
            if exc.errcode not in WECHAT_TOKEN_REFUSED:
                raise
        token = await _in_time(self.wechat_tokens.renew(app, refused=token), deadline)
        return await call_with(token, handled=expected)


async def _in_time(request: Coroutine[Any, Any, WeChatToken], deadline: float) -> WeChatToken:
    try:
        async with asyncio.timeout_at(deadline):
            return await request
    except TimeoutError as exc:
        raise WeChatTimeout("WeChat didn't return an access token in time") from exc


def session_key_signature(session_key: bytes, message: bytes = b"") -> str:
    """Return the HMAC-SHA256 of a message, as WeChat computes it with a session_key (checkSessionKey).

    The key of the HMAC is the base64 text itself, not the decoded bytes. For checkSessionKey, the message is
    empty.
    """
    return digest(session_key, message, sha256).hex()


def _phone_info(answer: dict[str, Any]) -> dict[str, Any]:
    phone_info = answer.get("phone_info")
    if not isinstance(phone_info, dict):
        raise WeChatBadResponse(_("WeChat's response has no usable {field}", field="phone_info"))
    return phone_info


def _url_link(answer: dict[str, Any]) -> str:
    url = answer.get("url_link")
    if not isinstance(url, str) or not _URL_LINK.fullmatch(url):
        raise WeChatBadResponse(_("WeChat's response has no usable {field}", field="url_link"))
    return url


def _picture(answer: dict[str, Any]) -> CodePicture:
    """The type is read from the bytes, because WeChat has sent pictures with the Content-Type of JSON."""
    content = answer.get(PICTURE, b"")
    if content.startswith(_PNG_START):
        return CodePicture(content, "image/png")
    # Zero bytes may follow the end of a JPEG.
    if content.startswith(_JPEG_START) and content.rstrip(b"\0").endswith(_JPEG_END):
        return CodePicture(content, "image/jpeg")
    raise WeChatBadResponse(_("WeChat's response isn't a picture"))
