"""The error responses to OAuth requests (RFC 6749, section 5.2)."""

from collections.abc import Awaitable, Callable
from functools import wraps
from http import HTTPStatus
from typing import Any, Final

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from wxauth import errors
from wxauth.core.logs import get_logger
from wxauth.web.edge import EXPECTED_KEY, PROBLEM_KEY
from wxauth_guard.errors import KeysUnavailable, RequestRefused, WxAuthError

log = get_logger()

AUTHORIZATION_PENDING: Final = "authorization_pending"  # RFC 8628, section 3.5
SLOW_DOWN: Final = "slow_down"  # RFC 8628, section 3.5


class OAuthError(Exception):
    """An error response for an OAuth client, with a code of RFC 6749, 8628, 8707 or OpenID Connect.

    The `description` is for the developer. It never contains a secret, or text that the caller sent.
    """

    # The name of the unreadable parameter, which `Unreadable` in oauth_requests.py sets if the name can be shown.
    parameter: str | None = None

    def __init__(
        self, error: str, description: str, *, status: int = HTTPStatus.BAD_REQUEST, retry_after: int | None = None
    ) -> None:
        super().__init__(error, description)
        self.error = error
        self.description = description
        self.status = status
        self.retry_after = retry_after

    def response(self) -> Response:
        """Return the HTTP response for this error (RFC 6749, section 5.2)."""
        headers = {"Cache-Control": "no-store"}
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Basic"
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        body = to_json({"error": self.error, "error_description": self.description})
        return Response(body, status_code=self.status, headers=headers, media_type="application/json")


def invalid_client(description: str) -> OAuthError:
    """Return the error for a request that does not authenticate a client, or names no known client."""
    return OAuthError("invalid_client", description, status=HTTPStatus.UNAUTHORIZED)


def oauth_error_for(error: WxAuthError) -> OAuthError | None:
    """Return the OAuth error for an error of wxauth; None if OAuth has no error code for it."""
    match error:
        case errors.InvalidClient():
            return invalid_client(error.detail)
        case errors.RateLimited() | errors.StorageUnavailable() | KeysUnavailable():
            status, retry_after = error.status, error.retry_after
            return OAuthError("temporarily_unavailable", error.detail, status=status, retry_after=retry_after)
        case errors.PayloadTooLarge():
            return OAuthError("invalid_request", error.detail, status=error.status)
        case RequestRefused():
            # After 408, the edge closes the connection. OAuth's usual status replaces all other statuses.
            status = error.status if error.status == HTTPStatus.REQUEST_TIMEOUT else HTTPStatus.BAD_REQUEST
            return OAuthError("invalid_request", error.detail, status=status)
    return None


def with_oauth_errors(
    endpoint: Callable[..., Awaitable[dict[str, Any]]],
) -> Callable[..., Awaitable[dict[str, Any] | Response]]:
    """Wrap an endpoint, whose first parameter is `request`, so that its failures become OAuth error responses."""

    @wraps(endpoint)
    async def answer(request: Request, *args: Any, **kwargs: Any) -> dict[str, Any] | Response:
        try:
            return await endpoint(request, *args, **kwargs)
        except OAuthError as exc:
            refusal = exc
        except WxAuthError as exc:
            request.scope[PROBLEM_KEY] = exc  # for the log, which shows wxauth's error and its cause
            converted = oauth_error_for(exc)
            if converted is None:
                raise
            refusal = converted
        # These errors are expected, because clients poll until the user has decided.
        if refusal.error in (AUTHORIZATION_PENDING, SLOW_DOWN):
            request.scope[EXPECTED_KEY] = True
        else:
            log.info("oauth_refused", error=refusal.error, detail=refusal.description, status=refusal.status)
        return refusal.response()

    return answer
