"""All failures that a caller can get, as one tree.

WxAuthError
├── RequestRefused        the request is invalid
│   ├── InvalidRequest          422 (or 400)
│   │   └── AppRefused          422  WeChat rejects the app's id or secret
│   ├── PayloadTooLarge         413
│   ├── NotFound                404
│   ├── MethodNotAllowed        405
│   └── UnknownApp              400
├── WeChatError           an error from WeChat, or no answer
│   ├── InvalidCode             400  errcode 40029
│   ├── CodeUsed                400  errcode 40163
│   ├── WeChatUserBlocked       403  errcode 40226
│   ├── SessionKeyExpired       409  errcodes 87007, 87009; data that cannot be decrypted
│   ├── WeChatRateLimited       429  errcodes 45009, 45011
│   ├── WeChatUnavailable       503  errcode -1 after retries, no connection, upstream 5xx
│   ├── WeChatTimeout           504
│   ├── WeChatBadResponse       502
│   └── WeChatMisconfigured     502  the operator must fix it
├── BearerError           the access token (RFC 6750)
│   ├── MissingToken            401
│   ├── InvalidToken            401
│   │   └── TokenExpired        401
│   ├── InsufficientRole        403
│   └── InsufficientScope       403  a website's token where a phone's is required
│       └── ClientLacksScope    403  a service client's
├── SessionError          the refresh token (RFC 6749's invalid_grant)
│   ├── InvalidRefreshToken     400
│   ├── RefreshTokenExpired     400
│   ├── RefreshTokenReused      400
│   ├── SessionReplaced         400
│   └── SessionRevoked          400
├── ScanRefused           a scanned code, as the phone sees it
│   ├── ScanOver                404
│   ├── ScanForwarded           403
│   ├── ScanTooFar              403
│   └── ScanTaken               409
├── InvalidClient               401  a service, not a user
├── InvalidSignature            403  a message push that WeChat did not sign
├── RateLimited                 429  wxauth's own limit
├── AccountDisabled             403
├── AccountLeaving              403
├── LoginTooOld                 403  an administrator's change that requires a fresh login
├── WrongPerson                 403  the new wx.login code belongs to another person than the session
├── CursorExpired               410
├── NameTaken                   409  the name of a client or a webhook
├── SignUpClosed                403
├── SignUpRefused               403  the operator's own service refuses a newcomer
├── SignUpUnavailable           503  that service does not answer
├── LastAdmin                   409
├── AppTaken, AppInSettings     409  the app exists already, or is defined in the settings
├── PhoneTaken                  409
├── MergeRefused                409
├── KeysUnavailable             503
├── StorageUnavailable          503
└── InternalError               500

`code` and the titles are public and stable. `detail` is for the developer who reads the answer: it is
sent unchanged, so it must never contain a secret, an upstream URL or the caller's input.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, NamedTuple, Self
from uuid import UUID


class Title(NamedTuple):
    """A short text for people, in English and Chinese: the title of an error, a description, a hint."""

    en: str
    zh: str


class FieldError(NamedTuple):
    """An error in one field of a request, without the field's value."""

    field: str
    message: str


class WxAuthError(Exception):
    """Base class of all failures. Sent as `application/problem+json` (RFC 9457)."""

    code: ClassVar[str]
    status: int
    title: ClassVar[Title]
    retry_after: int | None = None
    """Seconds, sent as `Retry-After`."""
    user_id: UUID | None = None
    """The user concerned, if known. For staff only: it is never part of an answer."""
    app_id: str | None = None
    """The app of the login that failed, as the login named it, or the default. For staff only, as `user_id`."""
    is_answered_by_guard: bool = False
    """Whether a guard raised this error. The guard then sends the answer itself."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail

    def headers(self) -> dict[str, str]:
        """The header fields of the answer."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    def members(self) -> Mapping[str, Any]:
        """Extension members of the problem document (RFC 9457, section 3.2)."""
        return {}


# The request.


class RequestRefused(WxAuthError):
    """The request is invalid, whoever sends it."""


class InvalidRequest(RequestRefused):
    """The body or a parameter is invalid. `errors` names the fields, never their values."""

    code = "invalid_request"
    status = 422
    title = Title("The request is not valid.", "请求内容有误。")

    def __init__(self, detail: str, *, errors: Sequence[FieldError] = (), status: int = 422) -> None:
        super().__init__(detail)
        self.errors = tuple(errors)
        self.status = status

    @classmethod
    def of(cls, field: str, message: str) -> Self:
        """For one invalid field."""
        return cls(f"{field}: {message}", errors=[FieldError(field, message)])

    def members(self) -> Mapping[str, Any]:
        """`errors`, a list of `{"field", "message"}`."""
        return {"errors": [error._asdict() for error in self.errors]}


class AppRefused(InvalidRequest):
    """WeChat rejects the id or the secret given for an app."""

    def __init__(self, detail: str, *, errcode: int | None, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail, errors=errors)
        self.errcode = errcode

    def members(self) -> Mapping[str, Any]:
        """`errors`, and `wechat_errcode`."""
        return {**super().members(), "wechat_errcode": self.errcode}


class PayloadTooLarge(RequestRefused):
    """The body is larger than this path accepts."""

    code = "payload_too_large"
    status = 413
    title = Title("The request is too large.", "请求内容过大。")


class NotFound(RequestRefused):
    """No such path."""

    code = "not_found"
    status = 404
    title = Title("Not found.", "没有找到。")


class MethodNotAllowed(RequestRefused):
    """The path exists, but not with this method."""

    code = "method_not_allowed"
    status = 405
    title = Title("This method is not allowed here.", "不支持此请求方法。")

    def __init__(self, detail: str, *, allow: Sequence[str]) -> None:
        super().__init__(detail)
        self.allow = tuple(allow)

    def headers(self) -> dict[str, str]:
        """`Allow`: every method of the path (RFC 9110, section 10.2.1)."""
        return {"Allow": ", ".join(self.allow)}


class UnknownApp(RequestRefused):
    """The request names an app that is not configured."""

    code = "unknown_app"
    status = 400
    title = Title("This app is not known here.", "未知的应用。")


class WrongAppKind(RequestRefused):
    """This kind of app does not have this feature."""

    code = "wrong_app_kind"
    status = 422
    title = Title("This kind of app cannot do that.", "该类型的应用不支持此操作。")


# WeChat.


class WeChatError(WxAuthError):
    """An error from WeChat, or no usable answer."""

    def __init__(self, detail: str, *, errcode: int | None = None, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.errcode = errcode
        if retry_after is not None:
            self.retry_after = retry_after

    def members(self) -> Mapping[str, Any]:
        """`wechat_errcode`, if WeChat gave one."""
        return {} if self.errcode is None else {"wechat_errcode": self.errcode}


class InvalidCode(WeChatError):
    """The code is invalid, has expired, or belongs to another app."""

    code = "invalid_code"
    status = 400
    title = Title("That did not work, please try again.", "操作失败，请重试。")


class CodeUsed(WeChatError):
    """The code has been exchanged before."""

    code = "code_used"
    status = 400
    title = Title("This was already used, please try again.", "该凭证已被使用，请重试。")


class WeChatUserBlocked(WeChatError):
    """WeChat rates this person as a high risk."""

    code = "wechat_user_blocked"
    status = 403
    title = Title("WeChat does not allow this account to log in.", "微信已限制该账号登录。")


class SessionKeyExpired(WeChatError):
    """The session_key is not the one that WeChat now uses for this person."""

    code = "session_key_expired"
    status = 409
    title = Title("Please log in again, then tap once more.", "请重新登录，然后再点一次。")


class WeChatRateLimited(WeChatError):
    """WeChat's own limit: per user and minute, or the app's daily quota."""

    code = "wechat_rate_limited"
    status = 429
    title = Title("Too many attempts, please try again later.", "操作过于频繁，请稍后再试。")
    retry_after = 60


class WeChatUnavailable(WeChatError):
    """WeChat is busy, failing or unreachable."""

    code = "wechat_unavailable"
    status = 503
    title = Title("WeChat is busy, please try again.", "微信服务繁忙，请稍后再试。")
    retry_after = 3


class WeChatTimeout(WeChatError):
    """WeChat did not answer in time."""

    code = "wechat_timeout"
    status = 504
    title = Title("WeChat did not answer in time, please try again.", "微信响应超时，请重试。")


class WeChatBadResponse(WeChatError):
    """WeChat's answer is not what its documentation describes."""

    code = "wechat_bad_response"
    status = 502
    title = Title("WeChat gave an unexpected answer, please try again.", "微信返回异常，请重试。")


class WeChatMisconfigured(WeChatError):
    """WeChat rejects the app itself: its id, secret, IP address or permission."""

    code = "wechat_misconfigured"
    status = 502
    title = Title("This is not available right now.", "该功能暂不可用。")


# Access tokens.


class BearerError(WxAuthError):
    """The access token is missing, invalid or insufficient (RFC 6750, section 3)."""

    challenge: ClassVar[str]

    def headers(self) -> dict[str, str]:
        """`WWW-Authenticate` (RFC 6750, section 3)."""
        return {"WWW-Authenticate": self.challenge}


class MissingToken(BearerError):
    """No `Authorization` header, another scheme, or no token after `Bearer`."""

    code = "missing_token"
    status = 401
    title = Title("Please log in.", "请先登录。")
    challenge = "Bearer"


class InvalidToken(BearerError):
    """The token is not one of ours, or is no longer valid."""

    code = "invalid_token"
    status = 401
    title = Title("Your login is no longer valid, please log in again.", "登录已失效，请重新登录。")
    challenge = 'Bearer error="invalid_token"'

    def __init__(self, detail: str = "", *, for_log: str = "") -> None:
        super().__init__(detail)
        self.for_log = for_log
        """What the token has and what was expected, for the guard's log only. Empty for a malformed token."""


class TokenExpired(InvalidToken):
    """The token was valid and has expired."""

    code = "token_expired"
    title = Title("Your login has expired, please log in again.", "登录已过期，请重新登录。")


class InsufficientRole(BearerError):
    """The user does not have the required role."""

    code = "insufficient_role"
    status = 403
    title = Title("You are not allowed to do this.", "没有权限进行此操作。")
    challenge = 'Bearer error="insufficient_scope"'


class InsufficientScope(BearerError):
    """The token is valid, but does not allow this."""

    code = "insufficient_scope"
    status = 403
    title = Title("These credentials do not allow that.", "当前凭据无权进行此操作。")
    challenge = 'Bearer error="insufficient_scope"'


# Refresh tokens.


class SessionError(WxAuthError):
    """The refresh token cannot be exchanged. The person must log in again."""

    status = 400


class InvalidRefreshToken(SessionError):
    """The refresh token is not one of ours, or its user has been erased."""

    code = "invalid_refresh_token"
    title = Title("Your login is no longer valid, please log in again.", "登录已失效，请重新登录。")


class RefreshTokenExpired(SessionError):
    """The session was idle for too long, or has reached its maximum age."""

    code = "refresh_token_expired"
    title = Title("Your login has expired, please log in again.", "登录已过期，请重新登录。")


class RefreshTokenReused(SessionError):
    """The refresh token has been rotated already, so somebody else may have it. The session has been ended."""

    code = "refresh_token_reused"
    title = Title("You have been logged out to keep your account safe.", "为保护账号安全，已退出登录，请重新登录。")


class SessionRevoked(SessionError):
    """The session has been ended."""

    code = "session_revoked"
    title = Title("You have been logged out, please log in again.", "您已退出登录，请重新登录。")


class SessionReplaced(SessionError):
    """A newer login took the session's place, because the app lets a person have only so many."""

    code = "session_replaced"
    title = Title("You have logged in on another device.", "您的账号已在其他设备登录。")


# Codes that are scanned.


class ScanRefused(WxAuthError):
    """The person cannot log in with this code."""


class ScanOver(ScanRefused):
    """The code is unknown, expired or already decided, or another scan has taken it over."""

    code = "scan_over"
    status = 404
    title = Title("This code is no longer good, please get a new one.", "二维码已失效，请在网页上刷新。")


class ScanForwarded(ScanRefused):
    """The code was not scanned with the camera: it came from a picture or a chat, or was typed."""

    code = "scan_forwarded"
    status = 403
    title = Title("Scan with the camera, never a code sent to you.", "请用相机直接扫码，勿扫他人发来的码。")


class ScanTooFar(ScanRefused):
    """Phone and browser must be in the same network, and it is not certain that they are."""

    code = "scan_too_far"
    status = 403
    title = Title("Join the network of the computer, then scan again.", "请连接电脑所在的网络后再扫码。")


class ScanTaken(ScanRefused):
    """Somebody else has scanned the code first."""

    code = "scan_taken"
    status = 409
    title = Title("Somebody else has scanned this code.", "该二维码已被他人扫描。")


# Service clients.


class InvalidClient(WxAuthError):
    """The client's name or secret is missing or wrong."""

    code = "invalid_client"
    status = 401
    title = Title("The credentials of the service are not valid.", "服务的凭据无效。")

    def headers(self) -> dict[str, str]:
        """`WWW-Authenticate` (RFC 6749, section 5.2)."""
        return {"WWW-Authenticate": "Basic"}


class ClientLacksScope(InsufficientScope):
    """The client does not have the required scope."""

    def headers(self) -> dict[str, str]:
        """None: the request has no bearer token."""
        return {}


class NameTaken(WxAuthError):
    """A client or webhook of this name exists already."""

    code = "name_taken"
    status = 409
    title = Title("This name is taken.", "该名称已被使用。")


# Message push.


class CursorExpired(WxAuthError):
    """Events after the cursor have been deleted, or the database was restored from before the cursor."""

    code = "cursor_expired"
    status = 410
    title = Title("The service has missed events and must begin anew.", "该服务错过了事件，需重新开始读取。")


class InvalidSignature(WxAuthError):
    """The message push is not from WeChat, or not for this app."""

    code = "invalid_signature"
    status = 403
    title = Title("This message is not from WeChat.", "该消息并非来自微信。")


# The service.


class RateLimited(WxAuthError):
    """Too many requests of one kind from one address, client or user."""

    code = "rate_limited"
    status = 429
    title = Title("Too many attempts, please try again later.", "操作过于频繁，请稍后再试。")

    def __init__(self, detail: str, *, retry_after: int = 60) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class AccountDisabled(WxAuthError):
    """The user is banned."""

    code = "account_disabled"
    status = 403
    title = Title("This account has been disabled.", "该账号已被停用。")

    def __init__(
        self,
        detail: str = "this user has been disabled by an administrator",
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


class AccountLeaving(WxAuthError):
    """The person has asked to be erased, and may still change their mind."""

    code = "account_leaving"
    status = 403
    title = Title("This account is about to be deleted.", "该账号正在注销中。")

    def __init__(self, erase_at: datetime, *, user_id: UUID | None = None) -> None:
        super().__init__("the person has asked to be erased: a login with stay cancels that")
        self.erase_at = erase_at
        self.user_id = user_id

    def members(self) -> Mapping[str, Any]:
        """`erase_at`, when the user is erased."""
        return {"erase_at": self.erase_at}


class LoginTooOld(WxAuthError):
    """The change has lasting effect and requires a session that was opened recently."""

    code = "login_too_old"
    status = 403
    title = Title("Please log in again to do this.", "请重新登录后再进行此操作。")

    def __init__(
        self, detail: str = "the session must have been opened within the last ADMIN_FRESH_LOGIN seconds: log in again"
    ) -> None:
        super().__init__(detail)


class WrongPerson(WxAuthError):
    """The new `wx.login` code belongs to another person than the session."""

    code = "wrong_person"
    status = 403
    title = Title("This WeChat account is not the one that is logged in.", "当前微信与已登录的账号不是同一人。")


class SnapshotUser(WxAuthError):
    """WeChat showed a snapshot of the page, whose user is made up."""

    code = "snapshot_user"
    status = 403
    title = Title("WeChat shows a preview of this page.", "微信展示的是预览页，请点击使用完整服务。")


class SignUpClosed(WxAuthError):
    """The app is closed to new users."""

    code = "sign_up_closed"
    status = 403
    title = Title("This app is not open to new users.", "暂不开放新用户注册。")


class SignUpRefused(WxAuthError):
    """The operator's own service has refused a new user, with a text of its own or without one."""

    code = "sign_up_refused"
    status = 403
    title = Title("This service does not accept your registration.", "暂时无法为你注册。")

    def __init__(self, detail: str = "the operator's service has refused this person", *, title: str | None = None):
        super().__init__(detail)
        if title is not None:
            self.title = Title(title, title)  # type: ignore[misc]  # this error's own, in place of the class's


class SignUpUnavailable(WxAuthError):
    """The operator's own service does not say whether a new user may sign up."""

    code = "sign_up_unavailable"
    status = 503
    title = Title("Registration is not possible now, please try again.", "暂时无法注册，请稍后再试。")
    retry_after = 3


class LastAdmin(WxAuthError):
    """The last administrator must remain."""

    code = "last_admin"
    status = 409
    title = Title("The last administrator cannot be removed.", "不能移除最后一位管理员。")


class AppTaken(WxAuthError):
    """An app with this id exists already."""

    code = "app_taken"
    status = 409
    title = Title("This app is there already.", "该应用已存在。")


class AppInSettings(WxAuthError):
    """The app is defined in the settings and must be changed there."""

    code = "app_in_settings"
    status = 409
    title = Title("This app is in the settings and is changed there.", "该应用由配置文件指定，请在配置中修改。")


class PhoneTaken(WxAuthError):
    """The phone number belongs to another user, and PHONE_POLICY refuses it."""

    code = "phone_taken"
    status = 409
    title = Title("This phone number belongs to another account.", "该手机号已绑定其他账号。")


class MergeRefused(WxAuthError):
    """These two users cannot be merged."""

    code = "merge_refused"
    status = 409
    title = Title("These two accounts cannot be merged.", "这两个账号无法合并。")


class SplitRefused(WxAuthError):
    """This part cannot be split from the user."""

    code = "split_refused"
    status = 409
    title = Title("This account cannot be split.", "该账号无法拆分。")


class KeysUnavailable(WxAuthError):
    """The guard has no verification keys and cannot fetch them."""

    code = "keys_unavailable"
    status = 503
    title = Title("The login service is not reachable, please try again.", "暂时无法验证登录，请稍后再试。")
    retry_after = 5


class StorageUnavailable(WxAuthError):
    """The database does not answer."""

    code = "storage_unavailable"
    status = 503
    title = Title("The service is busy, please try again.", "服务繁忙，请稍后再试。")
    retry_after = 3


class InternalError(WxAuthError):
    """A fault of ours. The log has the details under the same `request_id`."""

    code = "internal_error"
    status = 500
    title = Title("Something went wrong, please try again.", "服务出错，请稍后再试。")
