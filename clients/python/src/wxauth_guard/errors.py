"""The errors that a guard raises, and the base class of every error that wxauth returns.

`code` and the titles are public and stable. `detail` is for the developer who reads the response. It is sent unchanged,
so it must never contain a secret, an upstream URL except the issuer's, or a caller's input whose form was not checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple
from uuid import UUID

from wxauth_guard.i18n import Text, lazy_gettext as _

if TYPE_CHECKING:
    from typing import Self

# A client waits this long before it tries again. A guard without keys tries to read them at least this often.
KEYS_RETRY_SECONDS: Final = 5


class FieldError(NamedTuple):
    """An error in one field of a request, without the field's value."""

    field: str
    message: str


class WxAuthError(Exception):
    """The base class of all errors that are sent as `application/problem+json` (RFC 9457)."""

    code: ClassVar[str]
    status: int
    title: Text
    detail: str = ""
    retry_after: int | None = None
    user_id: UUID | None = None  # the user whom the failure concerns; recorded for staff, and in no response
    app_id: str | None = None  # the app that a failed login named, or the default app; recorded for staff
    # A guard that is a FastAPI dependency raised this error, so the guard's own handler may respond to it.
    is_answered_by_guard: bool = False

    def __init_subclass__(cls, *, code: str | None = None, status: int | None = None) -> None:
        super().__init_subclass__()
        if code is not None:
            cls.code = code
        if status is not None:
            cls.status = status

    def __init__(self, detail: str | None = None, *, title: Text | None = None, retry_after: int | None = None) -> None:
        if detail is not None:
            self.detail = detail
        super().__init__(self.detail)
        if title is not None:
            self.title = title
        if retry_after is not None:
            self.retry_after = retry_after

    def headers(self) -> dict[str, str]:
        """Return `Retry-After`, if the error has one. Subclasses add their own header fields."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    def members(self) -> Mapping[str, Any]:
        """Return the extension members of the problem document (RFC 9457, section 3.2)."""
        return {}


class RequestRefused(WxAuthError):
    """The request itself is refused, no matter who sends it."""


class InvalidRequest(RequestRefused, code="invalid_request", status=422):
    """The body, a parameter or a header is invalid. `errors` names the fields, never their values."""

    title = _("The request isn't valid.")

    def __init__(
        self, detail: str, *, errors: Sequence[FieldError] = (), status: int | None = None, title: Text | None = None
    ) -> None:
        super().__init__(detail, title=title)
        self.errors = tuple(errors)
        if status is not None:
            self.status = status

    @classmethod
    def of(cls, field: str, message: str, *, title: Text | None = None) -> Self:
        """Return an error about one invalid field. `title` can tell the user what to change."""
        return cls(f"{field}: {message}", errors=[FieldError(field, message)], title=title)

    def members(self) -> Mapping[str, Any]:
        """Return the member `errors`, a list of objects with the members `field` and `message`."""
        return {"errors": [error._asdict() for error in self.errors]}


class BearerError(WxAuthError):
    """The access token is missing, invalid or insufficient (RFC 6750, section 3)."""

    bearer_error: ClassVar[str | None] = None  # RFC 6750, section 3.1; None if the request has no token
    scope: str = ""  # the scopes that a new token needs, so that a client asks for no others
    resource_metadata: str | None = None  # RFC 9728, section 5.1; None if the guard has no resource

    def headers(self) -> dict[str, str]:
        """Return `WWW-Authenticate` (RFC 6750, section 3), and `Retry-After` if the error has one."""
        parameters = {
            "error": self.bearer_error,
            "scope": self.scope,
            "resource_metadata": self.resource_metadata,
        }
        texts = [f'{name}="{value}"' for name, value in parameters.items() if value]
        return {**super().headers(), "WWW-Authenticate": f"Bearer {', '.join(texts)}".rstrip()}


class MissingToken(BearerError, code="missing_token", status=401):
    """The request has no `Authorization` header, or one whose scheme is not `Bearer`, or no token after `Bearer`."""

    title = _("Please log in.")


class InvalidToken(BearerError, code="invalid_token", status=401):
    """The token is not wxauth's, is not for this audience, or is not valid at this time."""

    title = _("Your login is no longer valid. Please log in again.")
    bearer_error = "invalid_token"

    def __init__(self, detail: str = "", *, for_log: str = "") -> None:
        super().__init__(detail)
        self.for_log = for_log  # in no response; empty if `detail` says everything


class TokenExpired(InvalidToken, code="token_expired"):
    """The token was valid and has expired."""

    title = _("Your login has expired. Please log in again.")


class SessionRevoked(InvalidToken, code="session_revoked"):
    """The token was valid, but wxauth says that its session has ended, or that its user is banned."""

    title = _("You have been logged out. Please log in again.")


class InsufficientRole(WxAuthError, code="insufficient_role", status=403):
    """The user does not have all of the required roles.

    It has no challenge: at `insufficient_scope`, an agent asks its user for another approval, which grants no role.
    """

    title = _("You don't have permission to do this.")


class InsufficientScope(BearerError, code="insufficient_scope", status=403):
    """The token is valid, but its scopes do not allow this request."""

    title = _("Your credentials don't have permission to do this.")
    bearer_error = "insufficient_scope"

    def __init__(self, detail: str = "", *, scope: str = "") -> None:
        super().__init__(detail)
        self.scope = scope


class KeysUnavailable(WxAuthError, code="keys_unavailable", status=503):
    """The guard does not have the key that the verification needs, and could not fetch it yet."""

    title = _("The login service can't be reached. Please try again.")
    retry_after = KEYS_RETRY_SECONDS


class VerificationUnavailable(WxAuthError, code="verification_unavailable", status=503):
    """wxauth, which must be asked about each request, gave no answer, or one that cannot be trusted."""

    title = _("The login service can't be reached. Please try again.")
    retry_after = KEYS_RETRY_SECONDS

    def __init__(self, detail: str = "", *, is_unreachable: bool = False) -> None:
        super().__init__(detail)
        # If this is True, a guard with `or_offline` decides by the token alone.
        self.is_unreachable = is_unreachable
