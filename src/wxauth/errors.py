"""All failures that a caller can get, as one tree.

`code` and the titles are public and stable. `detail` is for the developer who reads the answer: it is
sent unchanged, so it must never contain a secret, an upstream URL or the caller's input.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final, NamedTuple, Self
from uuid import UUID


class Title(str):
    """A text for people: a string in English, which has its Chinese."""

    _zh: str

    def __new__(cls, en: str, zh: str) -> Self:
        """Make a text of both."""
        title = super().__new__(cls, en)
        title._zh = zh
        return title

    def __deepcopy__(self, _: object) -> Self:
        """Itself, which never changes."""
        return self

    @property
    def en(self) -> str:
        """The English."""
        return str(self)

    @property
    def zh(self) -> str:
        """The Chinese."""
        return self._zh


class FieldError(NamedTuple):
    """An error in one field of a request, without the field's value."""

    field: str
    message: str


class WxAuthError(Exception):
    """Base class of all failures. Sent as `application/problem+json` (RFC 9457)."""

    code: ClassVar[str]
    status: int
    title: ClassVar[Title]
    detail: str = ""
    retry_after: int | None = None
    """Seconds, sent as `Retry-After`."""
    user_id: UUID | None = None
    """The user concerned, if known. For staff only: it is never part of an answer."""
    app_id: str | None = None
    """The app of the login that failed, as the login named it, or the default. For staff only, as `user_id`."""
    is_answered_by_guard: bool = False
    """Whether a guard raised this error. The guard then sends the answer itself."""

    def __init_subclass__(cls, *, code: str | None = None, status: int | None = None) -> None:
        super().__init_subclass__()
        if code is not None:
            cls.code = code
        if status is not None:
            cls.status = status

    def __init__(
        self, detail: str | None = None, *, title: Title | None = None, retry_after: int | None = None
    ) -> None:
        self.detail = self.detail if detail is None else detail
        super().__init__(self.detail)
        if title is not None:
            self.title = title  # type: ignore[misc]  # this error's own, in place of the class's
        if retry_after is not None:
            self.retry_after = retry_after

    def headers(self) -> dict[str, str]:
        """The header fields of the answer."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    def members(self) -> Mapping[str, Any]:
        """Extension members of the problem document (RFC 9457, section 3.2)."""
        return {}


# The request.


class RequestRefused(WxAuthError):
    """The request is invalid, whoever sends it."""


class InvalidRequest(RequestRefused, code="invalid_request", status=422):
    """The body or a parameter is invalid. `errors` names the fields, never their values."""

    title = Title("The request is not valid.", "请求内容有误。")

    def __init__(
        self, detail: str, *, errors: Sequence[FieldError] = (), status: int = 422, title: Title | None = None
    ) -> None:
        super().__init__(detail, title=title)
        self.errors = tuple(errors)
        self.status = status

    @classmethod
    def of(cls, field: str, message: str, *, title: Title | None = None) -> Self:
        """For one invalid field. The title says what the person can change."""
        return cls(f"{field}: {message}", errors=[FieldError(field, message)], title=title)

    def members(self) -> Mapping[str, Any]:
        """`errors`, a list of `{"field", "message"}`."""
        return {"errors": [error._asdict() for error in self.errors]}


NICKNAME_REFUSED: Final = Title("This name cannot be used, please choose another.", "此昵称不可用，请换一个。")
PICTURE_OF_ANOTHER_KIND: Final = Title("A picture must be a JPEG, PNG or WebP.", "图片须为 JPEG、PNG 或 WebP。")
PICTURE_TOO_LARGE: Final = Title("A picture may have at most 2 MB.", "图片不能超过 2 MB。")
"""Titles of `invalid_request` and `payload_too_large` for what the person can change."""


class AppRefused(InvalidRequest):
    """WeChat rejects the id or the secret given for an app."""

    def __init__(self, detail: str, *, errcode: int | None, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail, errors=errors)
        self.errcode = errcode

    def members(self) -> Mapping[str, Any]:
        """`errors`, and `wechat_errcode`."""
        return {**super().members(), "wechat_errcode": self.errcode}


class PayloadTooLarge(RequestRefused, code="payload_too_large", status=413):
    """The body is larger than this path accepts."""

    title = Title("The request is too large.", "请求内容过大。")


class NotFound(RequestRefused, code="not_found", status=404):
    """No such path."""

    title = Title("Not found.", "没有找到。")


class MethodNotAllowed(RequestRefused, code="method_not_allowed", status=405):
    """The path exists, but not with this method."""

    title = Title("This method is not allowed here.", "不支持此请求方法。")

    def __init__(self, detail: str, *, allow: Sequence[str]) -> None:
        super().__init__(detail)
        self.allow = tuple(allow)

    def headers(self) -> dict[str, str]:
        """`Allow`: every method of the path (RFC 9110, section 10.2.1)."""
        return {"Allow": ", ".join(self.allow)}


class UnknownApp(RequestRefused, code="unknown_app", status=400):
    """The request names an app that is not configured."""

    title = Title("This app is not known here.", "未知的应用。")


class WrongAppKind(RequestRefused, code="wrong_app_kind", status=422):
    """This kind of app does not have this feature."""

    title = Title("This kind of app cannot do that.", "该类型的应用不支持此操作。")


# WeChat.


class WeChatError(WxAuthError):
    """An error from WeChat, or no usable answer."""

    def __init__(self, detail: str, *, errcode: int | None = None, retry_after: int | None = None) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.errcode = errcode

    def members(self) -> Mapping[str, Any]:
        """`wechat_errcode`, if WeChat gave one."""
        return {} if self.errcode is None else {"wechat_errcode": self.errcode}


class InvalidCode(WeChatError, code="invalid_code", status=400):
    """The code is invalid, has expired, or belongs to another app."""

    title = Title("That did not work, please try again.", "操作失败，请重试。")


class CodeUsed(WeChatError, code="code_used", status=400):
    """The code has been exchanged before."""

    title = Title("This was already used, please try again.", "该凭证已被使用，请重试。")


class WeChatUserBlocked(WeChatError, code="wechat_user_blocked", status=403):
    """WeChat rates this person as a high risk."""

    title = Title("WeChat does not allow this account to log in.", "微信已限制该账号登录。")


class SessionKeyExpired(WeChatError, code="session_key_expired", status=409):
    """The session_key is not the one that WeChat now uses for this person."""

    title = Title("Please log in again, then tap once more.", "请重新登录，然后再点一次。")


class WeChatRateLimited(WeChatError, code="wechat_rate_limited", status=429):
    """WeChat's own limit: per user and minute, or the app's daily quota."""

    title = Title("Too many attempts, please try again later.", "操作过于频繁，请稍后再试。")
    retry_after = 60


class WeChatUnavailable(WeChatError, code="wechat_unavailable", status=503):
    """WeChat is busy, failing or unreachable."""

    title = Title("WeChat is busy, please try again.", "微信服务繁忙，请稍后再试。")
    retry_after = 3


class WeChatTimeout(WeChatError, code="wechat_timeout", status=504):
    """WeChat did not answer in time."""

    title = Title("WeChat did not answer in time, please try again.", "微信响应超时，请重试。")


class WeChatBadResponse(WeChatError, code="wechat_bad_response", status=502):
    """WeChat's answer is not what its documentation describes."""

    title = Title("WeChat gave an unexpected answer, please try again.", "微信返回异常，请重试。")


class WeChatMisconfigured(WeChatError, code="wechat_misconfigured", status=502):
    """WeChat rejects the app itself: its id, secret, IP address or permission."""

    title = Title("This is not available right now.", "该功能暂不可用。")


# Access tokens.


class BearerError(WxAuthError):
    """The access token is missing, invalid or insufficient (RFC 6750, section 3)."""

    challenge: ClassVar[str]
    scope: str = ""
    """The scopes that are needed, separated by spaces."""
    resource_metadata: str | None = None
    """Where the guard's resource has its metadata (RFC 9728, section 5.1)."""

    def headers(self) -> dict[str, str]:
        """`WWW-Authenticate` (RFC 6750, section 3)."""
        parameters = {"scope": self.scope, "resource_metadata": self.resource_metadata}
        scheme, _, error = self.challenge.partition(" ")
        given = [error, *(f'{name}="{value}"' for name, value in parameters.items() if value)]
        return {"WWW-Authenticate": f"{scheme} {', '.join(filter(None, given))}".rstrip()}


class MissingToken(BearerError, code="missing_token", status=401):
    """No `Authorization` header, another scheme, or no token after `Bearer`."""

    title = Title("Please log in.", "请先登录。")
    challenge = "Bearer"


class InvalidToken(BearerError, code="invalid_token", status=401):
    """The token is not one of ours, or is no longer valid."""

    title = Title("Your login is no longer valid, please log in again.", "登录已失效，请重新登录。")
    challenge = 'Bearer error="invalid_token"'

    def __init__(self, detail: str = "", *, for_log: str = "") -> None:
        super().__init__(detail)
        self.for_log = for_log
        """What the token has and what was expected, for the guard's log only. Empty for a malformed token."""


class TokenExpired(InvalidToken, code="token_expired"):
    """The token was valid and has expired."""

    title = Title("Your login has expired, please log in again.", "登录已过期，请重新登录。")


class InsufficientRole(BearerError, code="insufficient_role", status=403):
    """The user does not have the required role."""

    title = Title("You are not allowed to do this.", "没有权限进行此操作。")
    challenge = 'Bearer error="insufficient_scope"'


class InsufficientScope(BearerError, code="insufficient_scope", status=403):
    """The token is valid, but does not allow this."""

    title = Title("These credentials do not allow that.", "当前凭据无权进行此操作。")
    challenge = 'Bearer error="insufficient_scope"'

    def __init__(self, detail: str = "", *, scope: str = "") -> None:
        super().__init__(detail)
        self.scope = scope


# Refresh tokens that cannot be exchanged: the person must log in again.


class InvalidRefreshToken(WxAuthError, code="invalid_refresh_token", status=400):
    """The refresh token is not one of ours, or its user has been erased."""

    title = Title("Your login is no longer valid, please log in again.", "登录已失效，请重新登录。")


class RefreshTokenExpired(WxAuthError, code="refresh_token_expired", status=400):
    """The session was idle for too long, or has reached its maximum age."""

    title = Title("Your login has expired, please log in again.", "登录已过期，请重新登录。")


class RefreshTokenReused(WxAuthError, code="refresh_token_reused", status=400):
    """The refresh token has been rotated already, so somebody else may have it. The session has been ended."""

    title = Title("You have been logged out to keep your account safe.", "为保护账号安全，已退出登录，请重新登录。")


class SessionRevoked(WxAuthError, code="session_revoked", status=400):
    """The session has been ended."""

    title = Title("You have been logged out, please log in again.", "您已退出登录，请重新登录。")


class SessionReplaced(WxAuthError, code="session_replaced", status=400):
    """A newer login replaced the session, because the app limits the sessions of a person."""

    title = Title("You have logged in on another device.", "您的账号已在其他设备登录。")


# Scanned codes with which this person cannot log in.


class ScanOver(WxAuthError, code="scan_over", status=404):
    """The code is unknown, expired or already decided, or another scan has taken it over."""

    title = Title("This code is no longer good, please get a new one.", "二维码已失效，请在网页上刷新。")


class ScanForwarded(WxAuthError, code="scan_forwarded", status=403):
    """The code was not scanned with the camera: it was read from a picture or a chat, or typed."""

    title = Title("Scan with the camera, never a code sent to you.", "请用相机直接扫码，勿扫他人发来的码。")


class ScanTooFar(WxAuthError, code="scan_too_far", status=403):
    """Phone and browser must be in the same network, and it is not certain that they are."""

    title = Title("Join the network of the computer, then scan again.", "请连接电脑所在的网络后再扫码。")


class ScanTaken(WxAuthError, code="scan_taken", status=409):
    """Somebody else has scanned the code first."""

    title = Title("Somebody else has scanned this code.", "该二维码已被他人扫描。")


# Service clients.


class InvalidClient(WxAuthError, code="invalid_client", status=401):
    """The client's name or secret is missing or wrong."""

    title = Title("The credentials of the service are not valid.", "服务的凭据无效。")

    def headers(self) -> dict[str, str]:
        """`WWW-Authenticate` (RFC 6749, section 5.2)."""
        return {"WWW-Authenticate": "Basic"}


class ClientLacksScope(InsufficientScope):
    """The client does not have the required scope."""

    def headers(self) -> dict[str, str]:
        """None: the request has no bearer token."""
        return {}


class NameTaken(WxAuthError, code="name_taken", status=409):
    """A client or webhook of this name exists already."""

    title = Title("This name is taken.", "该名称已被使用。")


# Message push.


class CursorExpired(WxAuthError, code="cursor_expired", status=410):
    """Events after the cursor have been deleted, or the database was restored from before the cursor."""

    title = Title("The service has missed events and must begin anew.", "该服务错过了事件，需重新开始读取。")


class InvalidSignature(WxAuthError, code="invalid_signature", status=403):
    """The message push is not from WeChat, or not for this app."""

    title = Title("This message is not from WeChat.", "该消息并非来自微信。")


class PushNotForwarded(WxAuthError, code="push_not_forwarded", status=503):
    """The app's `push_forward` did not take the message, so WeChat must send it again."""

    title = Title("The message could not be handed on.", "消息未能转发。")


# The service.


class RateLimited(WxAuthError, code="rate_limited", status=429):
    """Too many requests of one kind from one address, client or user."""

    title = Title("Too many attempts, please try again later.", "操作过于频繁，请稍后再试。")
    retry_after = 60


class AccountDisabled(WxAuthError, code="account_disabled", status=403):
    """The user is banned."""

    title = Title("This account has been disabled.", "该账号已被封禁。")

    def __init__(
        self,
        detail: str = "this user has been banned",
        *,
        until: datetime | None = None,
        user_id: UUID | None = None,
    ) -> None:
        super().__init__(detail)
        self.until = until
        self.user_id = user_id

    def members(self) -> Mapping[str, Any]:
        """`until`, if the ban ends by itself."""
        return {} if self.until is None else {"until": self.until}


class AccountLeaving(WxAuthError, code="account_leaving", status=403):
    """The person has asked to be erased, and may still change their mind."""

    title = Title("This account is about to be deleted.", "该账号正在注销中。")

    def __init__(self, erase_at: datetime, *, user_id: UUID | None = None) -> None:
        super().__init__("the person has asked to be erased: a login with stay cancels that")
        self.erase_at = erase_at
        self.user_id = user_id

    def members(self) -> Mapping[str, Any]:
        """`erase_at`, when the user is erased."""
        return {"erase_at": self.erase_at}


class LoginTooOld(WxAuthError, code="login_too_old", status=403):
    """The change has lasting effect and requires a session that was opened recently."""

    title = Title("Please log in again to do this.", "请重新登录后再进行此操作。")
    detail = "the session must have been opened within the last ADMIN_FRESH_LOGIN seconds: log in again"


class WrongPerson(WxAuthError, code="wrong_person", status=403):
    """The new `wx.login` code belongs to another person than the session."""

    title = Title("This WeChat account is not the one that is logged in.", "当前微信与已登录的账号不是同一人。")


class SnapshotUser(WxAuthError, code="snapshot_user", status=403):
    """WeChat showed a snapshot of the page, whose user is made up."""

    title = Title("WeChat shows a preview of this page.", "微信展示的是预览页，请点击使用完整服务。")


class SignUpClosed(WxAuthError, code="sign_up_closed", status=403):
    """The app is closed to new users."""

    title = Title("This app is not open to new users.", "暂不开放新用户注册。")


class SignUpRefused(WxAuthError, code="sign_up_refused", status=403):
    """The operator's own service has refused a new user, with a text of its own or without one."""

    title = Title("This service does not accept your registration.", "暂时无法为你注册。")

    def __init__(self, detail: str = "the operator's service has refused this person", *, title: str | None = None):
        super().__init__(detail, title=None if title is None else Title(title, title))


class SignUpUnavailable(WxAuthError, code="sign_up_unavailable", status=503):
    """The operator's own service gives no decision about a new user's sign-up."""

    title = Title("Registration is not possible now, please try again.", "暂时无法注册，请稍后再试。")
    retry_after = 3


class LastAdmin(WxAuthError, code="last_admin", status=409):
    """The last administrator must remain."""

    title = Title("The last administrator cannot be removed.", "不能移除最后一位管理员。")


class AppTaken(WxAuthError, code="app_taken", status=409):
    """An app with this id exists already."""

    title = Title("This app is there already.", "该应用已存在。")


class AppInSettings(WxAuthError, code="app_in_settings", status=409):
    """The app is defined in the settings and must be changed there."""

    title = Title("This app is in the settings and is changed there.", "该应用由配置文件指定，请在配置中修改。")


class PhoneTaken(WxAuthError, code="phone_taken", status=409):
    """The phone number belongs to another user, and PHONE_POLICY refuses it."""

    title = Title("This phone number belongs to another account.", "该手机号已绑定其他账号。")


class ExternalIdTaken(WxAuthError, code="external_id_taken", status=409):
    """Another user has this external id, or a user who was merged into another one had it."""

    title = Title("This id belongs to another account.", "该编号属于另一个账号。")


class MergeRefused(WxAuthError, code="merge_refused", status=409):
    """These two users cannot be merged."""

    title = Title("These two accounts cannot be merged.", "这两个账号无法合并。")


class SplitRefused(WxAuthError, code="split_refused", status=409):
    """This part cannot be split from the user."""

    title = Title("This account cannot be split.", "该账号无法拆分。")


class KeysUnavailable(WxAuthError, code="keys_unavailable", status=503):
    """The guard has no verification keys and cannot fetch them."""

    title = Title("The login service is not reachable, please try again.", "暂时无法验证登录，请稍后再试。")
    retry_after = 5


class StorageUnavailable(WxAuthError, code="storage_unavailable", status=503):
    """The database does not answer."""

    title = Title("The service is busy, please try again.", "服务繁忙，请稍后再试。")
    retry_after = 3


class InternalError(WxAuthError, code="internal_error", status=500):
    """A fault of ours. The log has the details under the same `request_id`."""

    title = Title("Something went wrong, please try again.", "服务出错，请稍后再试。")
