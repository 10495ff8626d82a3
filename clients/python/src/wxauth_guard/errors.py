"""The failures that a guard raises, and the base class of all that wxauth answers.

`code` and the titles are public and stable. `detail` is for the developer who reads the answer: it is
sent unchanged, so it must never contain a secret, an upstream URL or the caller's input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from uuid import UUID

from wxauth_guard.i18n import Text, lazy_gettext as _

if TYPE_CHECKING:
    from typing import Self


class FieldError(NamedTuple):
    """An error in one field of a request, without the field's value."""

    field: str
    message: str


class WxAuthError(Exception):
    """Base class of all failures. Sent as `application/problem+json` (RFC 9457)."""

    code: ClassVar[str]
    status: int
    title: ClassVar[Text]
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

    def __init__(self, detail: str | None = None, *, title: Text | None = None, retry_after: int | None = None) -> None:
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


class RequestRefused(WxAuthError):
    """The request is invalid, whoever sends it."""


class InvalidRequest(RequestRefused, code="invalid_request", status=422):
    """The body or a parameter is invalid. `errors` names the fields, never their values."""

    title = _("The request isn't valid.")

    def __init__(
        self, detail: str, *, errors: Sequence[FieldError] = (), status: int = 422, title: Text | None = None
    ) -> None:
        super().__init__(detail, title=title)
        self.errors = tuple(errors)
        self.status = status

    @classmethod
    def of(cls, field: str, message: str, *, title: Text | None = None) -> Self:
        """For one invalid field. The title says what the person can change."""
        return cls(f"{field}: {message}", errors=[FieldError(field, message)], title=title)

    def members(self) -> Mapping[str, Any]:
        """`errors`, a list of `{"field", "message"}`."""
        return {"errors": [error._asdict() for error in self.errors]}


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

    title = _("Please log in.")
    challenge = "Bearer"


class InvalidToken(BearerError, code="invalid_token", status=401):
    """The token is not one of ours, or is no longer valid."""

    title = _("Your login is no longer valid. Please log in again.")
    challenge = 'Bearer error="invalid_token"'

    def __init__(self, detail: str = "", *, for_log: str = "") -> None:
        super().__init__(detail)
        self.for_log = for_log
        """What the token has and what was expected, for the guard's log only. Empty for a malformed token."""


class TokenExpired(InvalidToken, code="token_expired"):
    """The token was valid and has expired."""

    title = _("Your login has expired. Please log in again.")


class InsufficientRole(BearerError, code="insufficient_role", status=403):
    """The user does not have the required role."""

    title = _("You are not allowed to do this.")
    challenge = 'Bearer error="insufficient_scope"'


class InsufficientScope(BearerError, code="insufficient_scope", status=403):
    """The token is valid, but does not allow this."""

    title = _("These credentials don't allow this.")
    challenge = 'Bearer error="insufficient_scope"'

    def __init__(self, detail: str = "", *, scope: str = "") -> None:
        super().__init__(detail)
        self.scope = scope


class KeysUnavailable(WxAuthError, code="keys_unavailable", status=503):
    """The guard has no verification keys and cannot fetch them."""

    title = _("The login service can't be reached. Please try again.")
    retry_after = 5
