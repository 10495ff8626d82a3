"""Every failure a caller can meet, as one tree.

WxAuthError
├── RequestRefused        the request itself is wrong
│   ├── InvalidRequest          422 (or 400)
│   │   └── AppRefused          422  WeChat does not take the app's id or secret
│   ├── PayloadTooLarge         413
│   ├── NotFound                404
│   ├── MethodNotAllowed        405
│   └── UnknownApp              400
├── WeChatError           what WeChat said, or did not say
│   ├── InvalidCode             400  errcode 40029
│   ├── CodeUsed                400  errcode 40163
│   ├── WeChatUserBlocked       403  errcode 40226
│   ├── SessionKeyExpired       409  errcodes 87007, 87009; data that does not open
│   ├── WeChatRateLimited       429  errcodes 45009, 45011
│   ├── WeChatUnavailable       503  errcode -1 for good, no connection, upstream 5xx
│   ├── WeChatTimeout           504
│   ├── WeChatBadResponse       502
│   └── WeChatMisconfigured     502  the operator's to mend
├── BearerError           the access token, in RFC 6750's terms
│   ├── MissingToken            401
│   ├── InvalidToken            401
│   │   └── TokenExpired        401
│   ├── InsufficientRole        403
│   └── InsufficientScope       403  a website's, where a phone's is wanted
│       └── ClientLacksScope    403  a service client's
├── SessionError          the refresh token, in RFC 6749's place of it
│   ├── InvalidRefreshToken     400
│   ├── RefreshTokenExpired     400
│   ├── RefreshTokenReused      400
│   └── SessionRevoked          400
├── ScanRefused           a code that was scanned, at the phone
│   ├── ScanOver                404
│   ├── ScanForwarded           403
│   ├── ScanTooFar              403
│   └── ScanTaken               409
├── InvalidClient               401  a service client, not a user
├── InvalidSignature            403  a message push that is not WeChat's
├── RateLimited                 429  wxauth's own limit
├── AccountDisabled             403
├── LoginTooOld                 403  an administrator's act that wants a fresh login
├── WrongPerson                 403  a new wx.login that is another person's than the session
├── CursorExpired               410
├── NameTaken                   409  a service client's or a webhook's
├── SignUpClosed                403
├── LastAdmin                   409
├── AppTaken, AppInSettings     409  an app that is there already, or is the settings'
├── PhoneTaken                  409
├── MergeRefused                409
├── KeysUnavailable             503
├── StorageUnavailable          503
└── InternalError               500

`code` and the titles are public and stable. `detail` is for the developer who reads the answer: it is
sent as it is, so it never holds a secret, an upstream URL or the caller's own input.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self


class Title(NamedTuple):
    """One short sentence, fit to show the person who holds the phone."""

    en: str
    zh: str


class FieldError(NamedTuple):
    """What is wrong with one field of a request; never its value."""

    field: str
    message: str


class WxAuthError(Exception):
    """Base of all failures. Rendered as `application/problem+json` (RFC 9457)."""

    code: ClassVar[str]
    status: int
    title: ClassVar[Title]
    retry_after: int | None = None
    """Seconds, sent as `Retry-After`."""
    is_answered_by_guard: bool = False
    """Whether a guard has refused a request with it, and sees to the answer."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail

    def headers(self) -> dict[str, str]:
        """Header fields that belong to this failure."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    def members(self) -> Mapping[str, Any]:
        """Extension members of the problem document (RFC 9457, section 3.2)."""
        return {}


# The request itself.


class RequestRefused(WxAuthError):
    """The request is wrong, whoever sent it."""


class InvalidRequest(RequestRefused):
    """The body or a parameter is wrong; `errors` says which, without echoing a value."""

    code = "invalid_request"
    status = 422
    title = Title("The request is not valid.", "请求内容有误。")

    def __init__(self, detail: str, *, errors: Sequence[FieldError] = (), status: int = 422) -> None:
        super().__init__(detail)
        self.errors = tuple(errors)
        self.status = status

    @classmethod
    def of(cls, field: str, message: str) -> Self:
        """With one field that is wrong."""
        return cls(f"{field}: {message}", errors=[FieldError(field, message)])

    def members(self) -> Mapping[str, Any]:
        """`errors`, a list of `{"field", "message"}`."""
        return {"errors": [error._asdict() for error in self.errors]}


class AppRefused(InvalidRequest):
    """WeChat does not take the id or the secret that an app is to have."""

    def __init__(self, detail: str, *, errcode: int | None, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail, errors=errors)
        self.errcode = errcode

    def members(self) -> Mapping[str, Any]:
        """`errors`, and `wechat_errcode`."""
        return {**super().members(), "wechat_errcode": self.errcode}


class PayloadTooLarge(RequestRefused):
    """The body is larger than this path takes."""

    code = "payload_too_large"
    status = 413
    title = Title("The request is too large.", "请求内容过大。")


class NotFound(RequestRefused):
    """No such path."""

    code = "not_found"
    status = 404
    title = Title("Not found.", "没有找到。")


class MethodNotAllowed(RequestRefused):
    """The path is there, the method is not."""

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
    title = Title("This app is not known here.", "未知的小程序。")


# WeChat.


class WeChatError(WxAuthError):
    """What WeChat said, or did not say."""

    def __init__(self, detail: str, *, errcode: int | None = None, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.errcode = errcode
        if retry_after is not None:
            self.retry_after = retry_after

    def members(self) -> Mapping[str, Any]:
        """`wechat_errcode`, where WeChat spoke."""
        return {} if self.errcode is None else {"wechat_errcode": self.errcode}


class InvalidCode(WeChatError):
    """The code is wrong, expired, or another app's."""

    code = "invalid_code"
    status = 400
    title = Title("That did not work, please try again.", "操作失败，请重试。")


class CodeUsed(WeChatError):
    """The code has been exchanged before."""

    code = "code_used"
    status = 400
    title = Title("This was already used, please try again.", "该凭证已被使用，请重试。")


class WeChatUserBlocked(WeChatError):
    """WeChat takes this person for a high risk."""

    code = "wechat_user_blocked"
    status = 403
    title = Title("WeChat does not allow this account to log in.", "微信已限制该账号登录。")


class SessionKeyExpired(WeChatError):
    """The session_key is not, or no longer, the one that WeChat uses for this person."""

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
    """WeChat is busy, broken or out of reach."""

    code = "wechat_unavailable"
    status = 503
    title = Title("WeChat is busy, please try again.", "微信服务繁忙，请稍后再试。")
    retry_after = 3


class WeChatTimeout(WeChatError):
    """WeChat gave no answer in time."""

    code = "wechat_timeout"
    status = 504
    title = Title("WeChat did not answer in time, please try again.", "微信响应超时，请重试。")


class WeChatBadResponse(WeChatError):
    """WeChat's answer makes no sense."""

    code = "wechat_bad_response"
    status = 502
    title = Title("WeChat gave an unexpected answer, please try again.", "微信返回异常，请重试。")


class WeChatMisconfigured(WeChatError):
    """WeChat refuses the app itself: its id, secret, address or permission."""

    code = "wechat_misconfigured"
    status = 502
    title = Title("This is not available right now.", "该功能暂不可用。")


# Access tokens.


class BearerError(WxAuthError):
    """The access token is missing, bad, or does not suffice (RFC 6750, section 3)."""

    challenge: ClassVar[str]

    def headers(self) -> dict[str, str]:
        """`WWW-Authenticate`, as RFC 6750 has it."""
        return {"WWW-Authenticate": self.challenge}


class MissingToken(BearerError):
    """No `Authorization`, another scheme, or nothing after `Bearer`."""

    code = "missing_token"
    status = 401
    title = Title("Please log in.", "请先登录。")
    challenge = "Bearer"


class InvalidToken(BearerError):
    """The token is not one of ours, or no longer good."""

    code = "invalid_token"
    status = 401
    title = Title("Your login is no longer valid, please log in again.", "登录已失效，请重新登录。")
    challenge = 'Bearer error="invalid_token"'


class TokenExpired(InvalidToken):
    """The token was good and has run out."""

    code = "token_expired"
    title = Title("Your login has expired, please log in again.", "登录已过期，请重新登录。")


class InsufficientRole(BearerError):
    """The user is known and lacks the role."""

    code = "insufficient_role"
    status = 403
    title = Title("You are not allowed to do this.", "没有权限进行此操作。")
    challenge = 'Bearer error="insufficient_scope"'


class InsufficientScope(BearerError):
    """The token is good, and not for this."""

    code = "insufficient_scope"
    status = 403
    title = Title("These credentials do not allow that.", "当前凭据无权进行此操作。")
    challenge = 'Bearer error="insufficient_scope"'


# Refresh tokens.


class SessionError(WxAuthError):
    """The refresh token cannot be exchanged: log in again."""

    status = 400


class InvalidRefreshToken(SessionError):
    """The refresh token is not one of ours, or its user has been erased."""

    code = "invalid_refresh_token"
    title = Title("Your login is no longer valid, please log in again.", "登录已失效，请重新登录。")


class RefreshTokenExpired(SessionError):
    """The session has not been used for too long, or has reached its greatest age."""

    code = "refresh_token_expired"
    title = Title("Your login has expired, please log in again.", "登录已过期，请重新登录。")


class RefreshTokenReused(SessionError):
    """The refresh token has a successor already, so somebody else may have it: the session has been ended."""

    code = "refresh_token_reused"
    title = Title("You have been logged out to keep your account safe.", "为保护账号安全，已退出登录，请重新登录。")


class SessionRevoked(SessionError):
    """The session has been ended."""

    code = "session_revoked"
    title = Title("You have been logged out, please log in again.", "您已退出登录，请重新登录。")


# Codes that are scanned.


class ScanRefused(WxAuthError):
    """The person cannot log in by this code."""


class ScanOver(ScanRefused):
    """The code is unknown, has expired, or has been decided upon; or somebody else has taken it over."""

    code = "scan_over"
    status = 404
    title = Title("This code is no longer good, please get a new one.", "二维码已失效，请在网页上刷新。")


class ScanForwarded(ScanRefused):
    """The code did not come from a camera, but from a picture, a chat, or a person's fingers."""

    code = "scan_forwarded"
    status = 403
    title = Title("Scan with the camera, never a code sent to you.", "请用相机直接扫码，勿扫他人发来的码。")


class ScanTooFar(ScanRefused):
    """Phone and browser must be in one network here, and are not known to be."""

    code = "scan_too_far"
    status = 403
    title = Title("Join the network of the computer, then scan again.", "请连接电脑所在的网络后再扫码。")


class ScanTaken(ScanRefused):
    """Somebody else has scanned it first."""

    code = "scan_taken"
    status = 409
    title = Title("Somebody else has scanned this code.", "该二维码已被他人扫描。")


# Service clients.


class InvalidClient(WxAuthError):
    """The service client's name or secret is missing or wrong."""

    code = "invalid_client"
    status = 401
    title = Title("The credentials of the service are not valid.", "服务的凭据无效。")

    def headers(self) -> dict[str, str]:
        """`WWW-Authenticate`, as RFC 6749 has it."""
        return {"WWW-Authenticate": "Basic"}


class ClientLacksScope(InsufficientScope):
    """The service client is known, and may not do this."""

    def headers(self) -> dict[str, str]:
        """None: it came with no token."""
        return {}


class NameTaken(WxAuthError):
    """There is a service client or a webhook of this name."""

    code = "name_taken"
    status = 409
    title = Title("This name is taken.", "该名称已被使用。")


# Message push.


class CursorExpired(WxAuthError):
    """Events behind the cursor have been swept away, or the database is an older one than the cursor is from."""

    code = "cursor_expired"
    status = 410
    title = Title("The service has missed events and must begin anew.", "该服务错过了事件，需重新开始读取。")


class InvalidSignature(WxAuthError):
    """The message push is not WeChat's, or not for this app."""

    code = "invalid_signature"
    status = 403
    title = Title("This message is not from WeChat.", "该消息并非来自微信。")


# The service.


class RateLimited(WxAuthError):
    """Too many logins from one address, pictures or phone codes at once, or changes or refused codes in an hour."""

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


class LoginTooOld(WxAuthError):
    """The act leaves lasting power, and wants a session that has just been opened."""

    code = "login_too_old"
    status = 403
    title = Title("Please log in again to do this.", "请重新登录后再进行此操作。")

    def __init__(
        self, detail: str = "this wants a session that was opened within ADMIN_FRESH_LOGIN seconds: log in again"
    ) -> None:
        super().__init__(detail)


class WrongPerson(WxAuthError):
    """The new `wx.login` is another person's than the session."""

    code = "wrong_person"
    status = 403
    title = Title("This WeChat account is not the one that is logged in.", "当前微信与已登录的账号不是同一人。")


class SignUpClosed(WxAuthError):
    """Nobody unknown may come in."""

    code = "sign_up_closed"
    status = 403
    title = Title("This app is not open to new users.", "暂不开放新用户注册。")


class LastAdmin(WxAuthError):
    """The only administrator would be removed."""

    code = "last_admin"
    status = 409
    title = Title("The last administrator cannot be removed.", "不能移除最后一位管理员。")


class AppTaken(WxAuthError):
    """There is an app of this id already."""

    code = "app_taken"
    status = 409
    title = Title("This app is there already.", "该小程序已存在。")


class AppInSettings(WxAuthError):
    """The app is one of the settings', and is changed there."""

    code = "app_in_settings"
    status = 409
    title = Title("This app is in the settings and is changed there.", "该小程序由配置文件指定，请在配置中修改。")


class PhoneTaken(WxAuthError):
    """The phone number is another user's, and the policy is to refuse."""

    code = "phone_taken"
    status = 409
    title = Title("This phone number belongs to another account.", "该手机号已绑定其他账号。")


class MergeRefused(WxAuthError):
    """Two users cannot be made one."""

    code = "merge_refused"
    status = 409
    title = Title("These two accounts cannot be merged.", "这两个账号无法合并。")


class KeysUnavailable(WxAuthError):
    """A guard has no verification key yet and cannot get one."""

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
    """A fault of ours; the log has the rest under the same `request_id`."""

    code = "internal_error"
    status = 500
    title = Title("Something went wrong, please try again.", "服务出错，请稍后再试。")
