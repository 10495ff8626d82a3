"""The routes for sites: the device grant, tokens, revocation, and the claims about a user."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, NotRequired

from fastapi import Depends
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from wxauth.clients.clients import find_site
from wxauth.clients.models import OPENID_SCOPE, claims_of
from wxauth.clients.oauth_errors import OAuthError, invalid_client, with_oauth_errors
from wxauth.clients.oauth_requests import BROWSER_USER_AGENT, SiteCredentials, form_of, form_parameters, is_form
from wxauth.i18n import lazy_gettext as _
from wxauth.login.schemas import EXAMPLE_JWT
from wxauth.settings.addresses import plain_address
from wxauth.sites.asking import SiteLogins
from wxauth.sites.door import POLL_INTERVAL_SECONDS, SCAN_LASTS
from wxauth.sites.models import RequestFields
from wxauth.sites.requests import SiteRequests
from wxauth.sites.responses import Unanswerable
from wxauth.sites.secrets import QR_CODE_PATH, qr_code_url
from wxauth.sites.targets import Target
from wxauth.sites.tokens import DEVICE_CODE_GRANT, SiteTokens, no_device_grant
from wxauth.users.callers import DeviceDep, read_caller, verified
from wxauth.web.answers import BEARER, GUARDED, Entails
from wxauth.web.dependencies import ClockDep, DatabaseDep, SettingsDep, VerifierDep, provide
from wxauth.web.direct import Router
from wxauth.web.schemas import EXAMPLE_USER_ID
from wxauth_guard.claims import Principal
from wxauth_guard.errors import InsufficientScope, InvalidRequest, InvalidToken

SiteLoginsDep = Annotated[SiteLogins, Depends(provide(SiteLogins))]
SiteRequestsDep = Annotated[SiteRequests, Depends(provide(SiteRequests))]
SiteCredentialsDep = Annotated[SiteCredentials, Depends(provide(SiteCredentials))]
SiteTokensDep = Annotated[SiteTokens, Depends(provide(SiteTokens))]
DEVICE_PATH: Final = "/v1/device_authorization"
TOKEN_PATH: Final = "/v1/token"  # noqa: S105 - no password
REVOKE_PATH: Final = "/v1/revoke"
USERINFO_PATH: Final = "/v1/userinfo"
END_SESSION_PATH: Final = "/v1/end_session"
OPENID_METADATA_PATH: Final = "/.well-known/openid-configuration"
_ASSERTION_PARAMETERS: Final = ("client_assertion_type", "client_assertion")  # RFC 7521, section 4.2
_MAX_USER_AGENT: Final = 512  # characters that wxauth stores
router = Router("websites")


class DeviceAuthorizationAnswer(TypedDict):
    """The codes to show to the user, and the device code to poll with (RFC 8628, section 3.2)."""

    device_code: Annotated[str, Field(examples=["8Yk3..."])]
    user_code: Annotated[str, Field(examples=["WDJB-MJHT"])]
    verification_uri: Annotated[str, Field(examples=["https://auth.example.com/d"])]
    verification_uri_complete: Annotated[str, Field(examples=["https://auth.example.com/d/kq0Vf5Zc3n8xYt1bW7uR2A"])]
    expires_in: Annotated[int, Field(description="Lifetime of the codes in seconds.", examples=[180])]
    interval: Annotated[int, Field(description="Seconds between two polls.", examples=[2])]
    code_image: Annotated[
        str,
        Field(
            description="The URL of the picture of the QR code to show.",
            examples=["https://auth.example.com/v1/scans/kq0Vf5Zc3n8xYt1bW7uR2A/code"],
        ),
    ]


class WebTokensAnswer(TypedDict):
    """The tokens of a site (RFC 6749, section 5.1)."""

    access_token: Annotated[str, Field(examples=[EXAMPLE_JWT])]
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, Field(description="Lifetime of the access token in seconds.", examples=[900])]
    scope: Annotated[str, Field(examples=["openid profile"])]
    refresh_token: Annotated[str, Field(examples=["wxr_..."])]
    id_token: NotRequired[Annotated[str, Field(examples=["eyJhbGciOiJSUzI1NiIsImtpZCI6Ii4uLiIsInR5cCI6IkpXVCJ9..."])]]


class UserinfoAnswer(TypedDict):
    """The claims about a user that the scopes of the site allow (OpenID Connect Core, section 5.1)."""

    sub: Annotated[str, Field(examples=[EXAMPLE_USER_ID])]
    name: NotRequired[Annotated[str, Field(examples=["小明"])]]
    picture: NotRequired[Annotated[str, Field(examples=["https://example.com/avatars/1.png"])]]
    updated_at: NotRequired[Annotated[int, Field(examples=[1795161600])]]
    phone_number: NotRequired[Annotated[str, Field(description="E.164.")]]
    phone_number_verified: NotRequired[bool]
    email: NotRequired[
        Annotated[str, Field(description="A made-up address, for products that require an e-mail address.")]
    ]
    email_verified: NotRequired[bool]
    roles: NotRequired[list[str]]


def _error_responses(*errors: str) -> dict[int | str, dict[str, Any]]:
    by_status = {
        HTTPStatus.BAD_REQUEST: errors,
        HTTPStatus.UNAUTHORIZED: ("invalid_client",),
        HTTPStatus.TOO_MANY_REQUESTS: ("temporarily_unavailable",),
        HTTPStatus.SERVICE_UNAVAILABLE: ("temporarily_unavailable",),
    }
    return {
        status: {
            "description": ", ".join(f"`{code}`" for code in codes),
            "content": {"application/json": {"example": {"error": codes[0], "error_description": "…"}}},
        }
        for status, codes in by_status.items()
    }


def _form_request(example: dict[str, str], others: Iterable[str]) -> dict[str, Any]:
    body = form_parameters("client_id", "client_secret", *others, **example)["requestBody"]
    # `{}` makes HTTP Basic optional, because a client may send its secret in the form, and a public client has none.
    return {"security": [{"service_client": []}, {}], "requestBody": {"required": True, **body}}


@router.post(
    DEVICE_PATH,
    summary=_("Start a device sign-in (RFC 8628)"),
    response_model=DeviceAuthorizationAnswer,
    responses=_error_responses("invalid_request", "invalid_scope", "invalid_target", "unauthorized_client"),
    openapi_extra=_form_request(
        {"scope": "openid profile", "browser_ip": "203.0.113.7", "browser_user_agent": "Mozilla/5.0 …"}, ["resource"]
    ),
)
@with_oauth_errors
async def authorize_device(
    request: Request,
    settings: SettingsDep,
    site_logins: SiteLoginsDep,
    credentials: SiteCredentialsDep,
    device: DeviceDep,
) -> dict[str, Any]:
    """Start a login, and get the codes to show to the user, and a `device_code` to poll for the user's decision.

    If the user uses a browser, send its `browser_ip` and `browser_user_agent`. The phone shows them, so that users can
    distinguish their own login from somebody else's.
    """
    client, form = await credentials.client_of(request, ip=device.ip)
    if not client.device:
        raise no_device_grant()
    ip = _address(form.get("browser_ip"))
    user_agent = _printable(form.get(BROWSER_USER_AGENT, "")[:_MAX_USER_AGENT]) or None
    target = Target.requested(settings, client, form)
    sign_in_request = RequestFields(scope=target.scope_for(form.get("scope")), resource=target.url)
    try:
        started = await site_logins.start_for_device(
            client, sign_in_request, ip=ip, user_agent=user_agent, requested_ip=device.ip
        )
    except Unanswerable:
        raise invalid_client("this client has just been removed") from None
    issuer = settings.issuer
    return {
        "device_code": started.polling_secret,
        "user_code": started.user_code,
        "verification_uri": f"{issuer}{QR_CODE_PATH}",
        "verification_uri_complete": qr_code_url(issuer, started.scene),
        "expires_in": int(SCAN_LASTS.total_seconds()),
        "interval": POLL_INTERVAL_SECONDS,
        "code_image": f"{issuer}/v1/scans/{started.scene}/code",
    }


@router.post(
    TOKEN_PATH,
    summary=_("Get tokens (RFC 6749)"),
    response_model=WebTokensAnswer,
    responses=_error_responses(
        "invalid_grant",
        "invalid_request",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "invalid_target",
        "authorization_pending",
        "slow_down",
        "access_denied",
        "expired_token",
    ),
    openapi_extra=_form_request(
        {"grant_type": DEVICE_CODE_GRANT, "device_code": "8Yk3..."},
        ["code", "redirect_uri", "code_verifier", "refresh_token", "scope", "resource", *_ASSERTION_PARAMETERS],
    ),
)
@with_oauth_errors
async def exchange(
    request: Request, site_tokens: SiteTokensDep, credentials: SiteCredentialsDep, device: DeviceDep
) -> dict[str, Any]:
    """Get tokens for an authorization code, a device code or a refresh token.

    A code works once. A refresh token works again only for a short time (`REFRESH_REUSE_GRACE`), and only until the
    next one is used, in case the response to its first use was lost.
    """
    client, form = await credentials.client_of(request, ip=device.ip, endpoints=[TOKEN_PATH])
    return await site_tokens.issue(client, form, ip=device.ip)


@router.post(
    REVOKE_PATH,
    summary=_("Revoke a token (RFC 7009)"),
    response_class=Response,
    responses={
        HTTPStatus.OK: {
            "description": "The token's session has ended, if it had one",
            "headers": {"Cache-Control": {"schema": {"const": "no-store"}}},
        },
        **_error_responses("invalid_request"),
    },
    openapi_extra=_form_request({"token": "wxr_..."}, ["token_type_hint", *_ASSERTION_PARAMETERS]),
)
@with_oauth_errors
async def revoke(
    request: Request, site_tokens: SiteTokensDep, credentials: SiteCredentialsDep, device: DeviceDep
) -> dict[str, Any]:
    """End the session of one of the client's access or refresh tokens. The status is 200 for any token."""
    # Any assertion may name the token endpoint as its audience (RFC 7523, section 3).
    client, form = await credentials.client_of(request, ip=device.ip, endpoints=[TOKEN_PATH, REVOKE_PATH])
    await site_tokens.revoke(client, form.required("token"))
    return {}


class _MalformedBearer(InvalidRequest):
    """The error for a request whose form is malformed, or contains an access token in addition to the header."""

    def headers(self) -> dict[str, str]:
        """Return the header `WWW-Authenticate` (RFC 6750, section 3.1)."""
        return {"WWW-Authenticate": 'Bearer error="invalid_request"'}


async def bearer_of_userinfo(request: Request, verifier: VerifierDep, clock: ClockDep) -> Principal:
    """Return the user of the access token in the header, or in the form's `access_token` (RFC 6750, section 2.2)."""
    try:
        token = (await form_of(request)).get("access_token") if is_form(request) else None
    except OAuthError as exc:
        raise _MalformedBearer(exc.description, status=HTTPStatus.BAD_REQUEST) from None
    if token is None:
        return await verified(request, verifier, clock)
    if "authorization" in request.headers:
        raise _MalformedBearer(
            "send the access token either in the header or in the form", status=HTTPStatus.BAD_REQUEST
        )
    return await verifier.verify(token, now=clock().timestamp())


_BearerDep = Annotated[Principal, Depends(bearer_of_userinfo), Entails(failures=GUARDED, security=BEARER)]


@router.get(
    USERINFO_PATH,
    summary=_("Read the user's claims (OpenID Connect)"),
    response_model=UserinfoAnswer,
    failures=[InsufficientScope],
)
@router.post(
    USERINFO_PATH,
    summary=_("Read the user's claims with POST (OpenID Connect)"),
    operation_id="read_userinfo_by_post",
    response_model=UserinfoAnswer,
    failures=[InsufficientScope],
)
async def read_userinfo(principal: _BearerDep, database: DatabaseDep, clock: ClockDep) -> dict[str, Any]:
    """Return the current claims about the user that the scopes of a website's access token allow.

    With POST, the form's `access_token` may contain the token instead of the header.
    """
    if OPENID_SCOPE not in principal.scope:
        raise InsufficientScope("this request requires a website's token with the scope openid")
    caller = await read_caller(database, principal, now=clock())
    client = await find_site(database, principal.claims["client_id"])
    if client is None:
        raise InvalidToken("this client has been removed")
    return {"sub": str(caller.user.id), **claims_of(caller.user, client, principal.scope)}


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text).strip()


def _address(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return str(plain_address(text.strip()))
    except ValueError:
        raise OAuthError("invalid_request", "browser_ip must be an IP address") from None
