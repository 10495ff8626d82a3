"""The failures that only the service reports. `wxauth_guard.errors` contains the base class and the other failures.

The API documentation usually shows the first line of a class's docstring as the example of `detail`, so this line must
be a sentence for developers who use the API.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from wxauth.i18n import Text, lazy_gettext as _
from wxauth_guard.errors import FieldError, InsufficientScope, InvalidRequest, RequestRefused, WxAuthError

# The titles for faults that the user can correct.
NICKNAME_REFUSED: Final = _("This nickname can't be used. Please choose another.")
PICTURE_OF_ANOTHER_KIND: Final = _("Pictures must be JPEG, PNG or WebP files.")
PICTURE_TOO_LARGE: Final = _("Pictures can be up to 2 MB.")


class AppRefused(InvalidRequest):
    """WeChat rejects the id or the secret given for an app, or this server's requests about the app."""

    def __init__(self, detail: str, *, errcode: int, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail, errors=errors)
        self.errcode = errcode

    def members(self) -> Mapping[str, Any]:
        return {**super().members(), "wechat_errcode": self.errcode}


class PayloadTooLarge(RequestRefused, code="payload_too_large", status=413):
    """The body is larger than this path accepts."""

    title = _("The request is too large.")


class NotFound(RequestRefused, code="not_found", status=404):
    """The path does not exist, or the object that it names does not."""

    title = _("Not found.")


def no_such(noun: str) -> str:
    """Return the detail of NotFound if nothing has the id or the name in the request."""
    return f"this {noun} doesn't exist"


class MethodNotAllowed(RequestRefused, code="method_not_allowed", status=405):
    """The path exists, but does not support this method."""

    title = _("This request method isn't supported.")

    def __init__(self, detail: str, *, allow: Sequence[str]) -> None:
        super().__init__(detail)
        self.allow = tuple(allow)

    def headers(self) -> dict[str, str]:
        """Return the methods that the path supports (RFC 9110, section 10.2.1)."""
        return {"Allow": ", ".join(self.allow)}


class UnknownApp(RequestRefused, code="unknown_app", status=400):
    """The request names an app that is not configured.

    The error is also returned if the app is disabled, or if the request names no app and there is no default app.
    """

    title = _("This app doesn't exist.")


class WrongAppKind(RequestRefused, code="wrong_app_kind", status=422):
    """This kind of app does not have this feature."""

    title = _("This kind of app doesn't support this feature.")


# Failures of requests to WeChat.


class WeChatError(WxAuthError):
    """WeChat returned an error, or no usable response."""

    def __init__(self, detail: str, *, errcode: int | None = None, retry_after: int | None = None) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.errcode = errcode

    def members(self) -> Mapping[str, Any]:
        return {} if self.errcode is None else {"wechat_errcode": self.errcode}


class InvalidCode(WeChatError, code="invalid_code", status=400):
    """The `wx.login` code is invalid, has expired, or belongs to another app.

    The error is also returned for a phone code, for example if the number was removed after the user shared it.
    """

    title = _("WeChat couldn't verify this request. Please try again.")


class CodeUsed(WeChatError, code="code_used", status=400):
    """The `wx.login` code has been exchanged before.

    The error is also returned for a phone code that has been exchanged before.
    """

    title = _("This WeChat code has already been used. Please try again.")


class WeChatUserBlocked(WeChatError, code="wechat_user_blocked", status=403):
    """WeChat classifies this user as high-risk."""

    title = _("WeChat doesn't allow this account to log in.")


class SessionKeyExpired(WeChatError, code="session_key_expired", status=409):
    """The session_key is not the one that WeChat now uses for this user.

    The error is also returned if wxauth stores no session_key of the user, or cannot decrypt the stored one.
    """

    title = _("Your WeChat session has expired. Log in and tap again.")


class WeChatRateLimited(WeChatError, code="wechat_rate_limited", status=429):
    """WeChat's own limit is reached, for example the limit per user and minute, or the app's daily quota."""

    title = _("Too many attempts. Please try again later.")
    retry_after = 60


class WeChatUnavailable(WeChatError, code="wechat_unavailable", status=503):
    """WeChat is busy, failing or unreachable."""

    title = _("WeChat isn't available right now. Please try again.")
    retry_after = 3


class WeChatTimeout(WeChatError, code="wechat_timeout", status=504):
    """WeChat did not respond in time."""

    title = _("WeChat didn't respond in time. Please try again.")
    retry_after = 3


class WeChatBadResponse(WeChatError, code="wechat_bad_response", status=502):
    """WeChat's response is not what its documentation describes."""

    title = _("WeChat sent an unexpected response. Please try again.")


class WeChatMisconfigured(WeChatError, code="wechat_misconfigured", status=502):
    """WeChat rejects the app's id, secret or permissions, or the IP address of this server."""

    title = _("This feature isn't available right now.")


# Failures of refresh tokens, after which the user must log in again.


class InvalidRefreshToken(WxAuthError, code="invalid_refresh_token", status=400):
    """wxauth has not issued the refresh token, or no longer stores its session.

    wxauth deletes a session when its user is erased, and some time after the session has ended.
    """

    title = _("Your login is no longer valid. Please log in again.")


class RefreshTokenExpired(WxAuthError, code="refresh_token_expired", status=400):
    """The session was idle for too long, or has reached its maximum age."""

    title = _("Your login has expired. Please log in again.")


class RefreshTokenReused(WxAuthError, code="refresh_token_reused", status=400):
    """The refresh token has been rotated already, so somebody else might have it.

    Therefore the session has been ended.
    """

    title = _("You were logged out to protect your account. Log in again.")


class SessionRevoked(WxAuthError, code="session_revoked", status=400):
    """The session has been ended.

    The console also returns this error if a link or an authorization code opens no session.
    """

    title = _("You have been logged out. Please log in again.")


class SessionReplaced(WxAuthError, code="session_replaced", status=400):
    """A newer login replaced the session, because the app limits the sessions of a user."""

    title = _("Your account is now logged in on another device.")


# Failures of logins with a QR code, a login code or a link.


class ScanOver(WxAuthError, code="scan_over", status=404):
    """The QR code is unknown or expired, its login is already decided, or the user has scanned it in another session.

    The error is also returned if the resource of the login is no longer in the settings.
    """

    title = _("This QR code has expired. Refresh it on the web page.")


class ScanForwarded(WxAuthError, code="scan_forwarded", status=403):
    """The page was opened in a way that another person could have caused by forwarding the QR code or the link.

    A QR code must be scanned with the camera, and not be read from a picture (unless `SCAN_ENTRY` is `any`) or opened
    by a link. A login link must be opened outside WeChat. The error is also returned if the user has typed a login
    code, and the login accepts none.
    """

    title = _("Scan the QR code on the screen, not one that someone sent.")


class ScanTooFar(WxAuthError, code="scan_too_far", status=403):
    """The phone and the browser must be on the same network, but it is not certain that they are.

    The error is also returned if administrators or support staff try to log in through a login link, because they must
    scan a QR code.
    """

    title = _("Connect your phone to the computer's network. Scan again.")


class ScanTaken(WxAuthError, code="scan_taken", status=409):
    """Another user has scanned the QR code first.

    The error is also returned if another user has typed the login code, or has opened the link, first.
    """

    title = _("Someone else has already scanned this QR code.")


# Failures of service clients.


class InvalidClient(WxAuthError, code="invalid_client", status=401):
    """The client's name or secret is missing or wrong."""

    title = _("The client credentials are invalid.")

    def headers(self) -> dict[str, str]:
        """Return the challenge for HTTP Basic (RFC 6749, section 5.2)."""
        return {"WWW-Authenticate": "Basic"}


class ClientLacksScope(InsufficientScope):
    """The client does not have the required scope."""

    def headers(self) -> dict[str, str]:
        """Return no headers, because the request has no bearer token."""
        return {}


class NameTaken(WxAuthError, code="name_taken", status=409):
    """A client or webhook with this name exists already.

    The name of a removed client remains taken until all of the client's sessions have ended.
    """

    title = _("This name is already taken.")


# Failures of the event feed and of message push.


class CursorExpired(WxAuthError, code="cursor_expired", status=410):
    """Events after the cursor have been deleted, or the database was restored to a time before the cursor."""

    title = _("This cursor has expired. Read the data from the beginning.")


class InvalidSignature(WxAuthError, code="invalid_signature", status=403):
    """The message push is not from WeChat, or not for this app.

    wxauth also assumes this if the timestamp is wrong, if the signature already belongs to another message, or if the
    message is not encrypted as the app's settings require.
    """

    title = _("This message isn't from WeChat.")


class PushNotForwarded(WxAuthError, code="push_not_forwarded", status=503):
    """The receiver at the app's `push_forward` did not accept the message, so WeChat must send it again.

    The error is also returned if wxauth has not sent the message to the receiver, for example because too many messages
    of the app are being forwarded.
    """

    title = _("The message couldn't be forwarded.")


# Other failures.


class RateLimited(WxAuthError, code="rate_limited", status=429):
    """One address, client or user, or all of them together, have sent too many requests of one kind."""

    title = _("Too many attempts. Please try again later.")
    retry_after = 60


class AccountDisabled(WxAuthError, code="account_disabled", status=403):
    """The user is banned."""

    title = _("This account has been disabled.")

    def __init__(
        self,
        detail: str = "this user is banned",
        *,
        until: datetime | None = None,
        user_id: UUID | None = None,
    ) -> None:
        super().__init__(detail)
        self.until = until  # when the ban ends automatically
        self.user_id = user_id  # for the record of the refused login; the response does not contain it

    def members(self) -> Mapping[str, Any]:
        return {} if self.until is None else {"until": self.until}


class AccountLeaving(WxAuthError, code="account_leaving", status=403):
    """The user has asked to be erased, and may still change their mind."""

    title = _("This account is scheduled for deletion.")

    def __init__(self, erase_at: datetime, *, user_id: UUID | None = None) -> None:
        super().__init__('the user has requested erasure: a login with "stay": true cancels the erasure')
        self.erase_at = erase_at
        self.user_id = user_id  # for the record of the refused login; the response does not contain it

    def members(self) -> Mapping[str, Any]:
        return {"erase_at": self.erase_at}


class LoginTooOld(WxAuthError, code="login_too_old", status=403):
    """The change has lasting effect and requires a session that was opened recently.

    The error is also returned if staff try to approve a login with the scope `wxauth:admin` in an older session.
    """

    title = _("Please log in again to continue.")
    detail = "this request requires a login within the last ADMIN_FRESH_LOGIN seconds: log in again"


class WrongPerson(WxAuthError, code="wrong_person", status=403):
    """The new `wx.login` code does not belong to the session's user."""

    title = _("You are logged in with a different WeChat account.")


class SnapshotUser(WxAuthError, code="snapshot_user", status=403):
    """WeChat showed a preview of the page, and invented the user of this preview.

    The error is also returned if WeChat might have invented the user, because the unionid already belongs to another
    openid of the app.
    """

    title = _("This is only a preview. Use the full service to continue.")


class SignUpClosed(WxAuthError, code="sign_up_closed", status=403):
    """The app is closed to new users."""

    title = _("This app isn't accepting new users.")


class SignUpRefused(WxAuthError, code="sign_up_refused", status=403):
    """The operator's own service has refused a new user, and may have sent a text for the user."""

    title = _("This service didn't accept your registration.")

    def __init__(self, detail: str = "the operator's service refused this user", *, title: str | None = None) -> None:
        # The operator's text is the value of a placeholder, so it may contain braces, and is not translated.
        super().__init__(detail, title=None if title is None else Text("{title}", title=title))


class SignUpUnavailable(WxAuthError, code="sign_up_unavailable", status=503):
    """The operator's own service returned no decision about a new user."""

    title = _("You can't register right now. Please try again later.")
    retry_after = 3


class LastAdmin(WxAuthError, code="last_admin", status=409):
    """The last administrator must remain."""

    title = _("The last administrator can't be removed.")


class AppTaken(WxAuthError, code="app_taken", status=409):
    """An app with this id exists already."""

    title = _("This app has already been added.")


class AppInSettings(WxAuthError, code="app_in_settings", status=409):
    """The app is defined in the settings and must be changed there."""

    title = _("This app is defined in the settings. Change it there.")


class PhoneTaken(WxAuthError, code="phone_taken", status=409):
    """The phone number belongs to another user, and PHONE_POLICY refuses it."""

    title = _("This phone number belongs to another account.")


class ExternalIdTaken(WxAuthError, code="external_id_taken", status=409):
    """Another user has this external id, or a user who was merged into another one had it."""

    title = _("This ID is already assigned to another account.")


class MergeRefused(WxAuthError, code="merge_refused", status=409):
    """These two users cannot be merged."""

    title = _("These two accounts can't be merged.")


class SplitRefused(WxAuthError, code="split_refused", status=409):
    """This identity cannot be split off from the user."""

    title = _("This identity can't be split off from the account.")


class StorageUnavailable(WxAuthError, code="storage_unavailable", status=503):
    """The database does not respond.

    wxauth also raises this error if the database responds, but a request cannot succeed now, for example because the
    database accepts no writes, or because too many requests are changing one user at the same time.
    """

    title = _("The service isn't available now. Please try again later.")
    retry_after = 3


# The database responds, but others have changed the same data first.
BUSY_TITLE: Final = _("The service is busy. Please try again.")


class InternalError(WxAuthError, code="internal_error", status=500):
    """An internal fault has occurred. The log has the details under the same `request_id`."""

    title = _("Something went wrong. Please try again.")
