"""The routes that a phone calls: to decide scans, to log in to a site in a web-view, and to get an id_token."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel, Field
from starlette.requests import Request

from wxauth.apps.routes import AppsDep
from wxauth.clients.oauth_errors import OAuthError
from wxauth.clients.oauth_requests import check_parameters
from wxauth.errors import LoginTooOld, RateLimited, ScanForwarded, ScanOver, ScanTaken, ScanTooFar, WrongAppKind
from wxauth.i18n import lazy_gettext as _
from wxauth.login.proofs import PROOF_FAILURES
from wxauth.login.routes import ProofRequest
from wxauth.login.schemas import EXAMPLE_JWT, LoginCode
from wxauth.sites.doors.mini_program_logins import MiniProgramLogins
from wxauth.sites.doors.phone_id_tokens import PHONE_ID_TOKEN_SECONDS, PhoneIdTokens
from wxauth.sites.doors.scan_schemas import ClaimedAnswer, ClaimRequest, NumberAnswer
from wxauth.sites.doors.scans import Scans
from wxauth.sites.responses import Mistake, Unanswerable
from wxauth.users.callers import Caller, CallerInTurnDep, DeviceDep, PrincipalDep
from wxauth.web.dependencies import provide
from wxauth.web.direct import Router
from wxauth.web.schemas import body_like
from wxauth_guard.errors import FieldError, InsufficientScope, InvalidRequest
from wxauth_guard.problems import preferred_language

MiniProgramLoginsDep = Annotated[MiniProgramLogins, Depends(provide(MiniProgramLogins))]
PhoneIdTokensDep = Annotated[PhoneIdTokens, Depends(provide(PhoneIdTokens))]
ScansDep = Annotated[Scans, Depends(provide(Scans))]
router = Router("scans")


async def scanning_phone_of(caller: CallerInTurnDep, principal: PrincipalDep, apps: AppsDep) -> Caller:
    """Return the caller of a request, whose session must be in a mini-program, because only mini-programs can scan."""
    # The kind is None if the app has been removed. Its sessions continue.
    if apps.kind_of(principal.app_id) not in ("mini_program", None):
        raise InsufficientScope("this request requires a login in the mini-program, not in an app")
    return caller


# The request has waited for its turn among the user's requests.
PhoneDep = Annotated[Caller, Depends(scanning_phone_of)]


@router.post(
    "/v1/me/scans",
    summary=_("Claim a scanned QR code or a login code"),
    failures=[ScanOver, ScanForwarded, ScanTooFar, LoginTooOld, ScanTaken, RateLimited],
)
async def claim_scan(
    request: Request, caller: PhoneDep, body: ClaimRequest, scans: ScansDep, device: DeviceDep
) -> ClaimedAnswer:
    """Claim a scanned QR code, a typed login code, or a link that has opened the mini-program.

    The response names the site. If the site asks for access to a resource, the response also lists what the site may do
    there on the user's behalf.

    Show the whole response, and make "refuse" as easy to reach as "log in". The first user to claim a code holds it for
    a minute, or until the decision. Only the session that holds the claim may decide. If another session of the same
    user claims the code, that session takes over the claim. If the site requires it, or if the user is an administrator
    or support staff and `SCAN_ADMIN_ANYWHERE` is not set, the phone and the browser must be on the same network. For
    the console's code, administrators and support staff must have logged in within `ADMIN_FRESH_LOGIN`. They can never
    claim a link.
    """
    return await scans.claim(caller, body, language=preferred_language(request.headers), ip=device.ip)


@router.post(
    "/v1/me/scans/{scan_id}/approve",
    summary=_("Approve a sign-in request"),
    response_model=NumberAnswer,
    responses={HTTPStatus.NO_CONTENT: {"description": "Approved: there is no number to show"}},
    failures=[*PROOF_FAILURES, ScanOver, ScanTooFar, LoginTooOld],
)
async def approve_scan(
    caller: PhoneDep, scan_id: UUID, body: ProofRequest, scans: ScansDep, device: DeviceDep
) -> NumberAnswer | None:
    """Approve the sign-in request of a claimed scan, so that the site gets a session.

    After a scanned or typed code, the response is 204. Until the code would have expired, a repeated request returns
    204, too.

    After a link (`"link": true`), the response is a number, which the user types in the browser before the site gets a
    session. The same `login_code` gets the same number again.

    `login_code` proves that the user holds the phone, because an access token might have been stolen. It must belong to
    the session's identity. The session also gets the new `session_key`. As for the claim, the phone and the browser may
    have to be on the same network, and the console may require a newer login.
    """
    return await scans.approve(caller, scan_id, body.login_code, ip=device.ip)


@router.post("/v1/me/scans/{scan_id}/deny", summary=_("Deny a sign-in request"), failures=[ScanOver])
async def deny_scan(caller: PhoneDep, scan_id: UUID, scans: ScansDep) -> None:
    """Deny the sign-in request of a claimed scan ("refuse"), so that the site gets nothing.

    The request is idempotent.
    """
    await scans.deny(caller, scan_id)


# `Mistake.REQUEST` is missing, because only the login page reports it.
_WRONG_FIELDS: Final[Mapping[Mistake, FieldError]] = {
    Mistake.CLIENT: FieldError("client_id", "must be the id of a site that a mini-program may log in to"),
    Mistake.DOCUMENT: FieldError("client_id", "must be the URL of a valid metadata document at an allowed host"),
    Mistake.REDIRECT_URI: FieldError("redirect_uri", "must be a redirect URI of the site"),
}


class AuthorizationRequest(BaseModel):
    """A site's sign-in request (the parameters of `/v1/authorize`), and a new `wx.login` code as proof of presence."""

    model_config = body_like(
        {
            "login_code": "0a1B2c3D4e5F6g7H8i9J",
            "client_id": "shop",
            "redirect_uri": "https://shop.example.com/callback",
            "response_type": "code",
            "scope": "openid profile",
            "state": "af0ifjsldkj",
            "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
            "code_challenge_method": "S256",
        },
        extra="allow",
    )
    # With this annotation, Pydantic requires that the additional fields, which are the site's parameters, are strings.
    __pydantic_extra__: dict[str, str] = Field(init=False)

    login_code: LoginCode = Field(
        description="The code from a new `wx.login` call. It works once, within five minutes.", repr=False
    )

    @property
    def parameters(self) -> Mapping[str, str]:
        return self.__pydantic_extra__


class AuthorizationAnswer(BaseModel):
    """The response with the URL to open in the web-view."""

    redirect_to: str = Field(
        description="The site's `redirect_uri` with `code`, `state` and `iss`, or with `error`. For `form_post`, the "
        "URL of a page that posts these parameters to the site.",
        examples=[
            "https://shop.example.com/callback?code=SplxlOBeZQQYbYS6&state=af0&iss=https%3A%2F%2Fauth.example.com"
        ],
    )


@router.post(
    "/v1/me/authorizations",
    summary=_("Log in to a site opened in the mini-program"),
    failures=PROOF_FAILURES,
)
async def authorize_site(
    caller: PhoneDep, body: AuthorizationRequest, mini_program_logins: MiniProgramLoginsDep, device: DeviceDep
) -> AuthorizationAnswer:
    """Complete the sign-in request that a site in a web-view has sent to `/v1/authorize`.

    The body contains the parameters of that request, as strings, and `login_code`, because an access token alone cannot
    open a session.

    Open the returned `redirect_to` in a web-view. An error that is meant for the site is in its parameter `error`,
    unless the site has chosen `form_post`. If the error is `login_required`, the site requires a newer login, so log in
    again and repeat the request.
    """
    try:
        parameters = check_parameters(list(body.parameters.items()))
        url = await mini_program_logins.answer(caller, body.login_code, parameters, device=device)
    except OAuthError as exc:
        raise InvalidRequest.of("body", exc.description) from None
    except Unanswerable as exc:
        wrong_field = _WRONG_FIELDS[exc.mistake]
        raise InvalidRequest.of(wrong_field.field, wrong_field.message) from None
    return AuthorizationAnswer(redirect_to=url)


class PhoneIdTokenRequest(ProofRequest):
    """The client whose id_token a phone gets, and the proof that the user is present."""

    model_config = body_like({"client_id": "supabase", "login_code": "0a1B2c3D4e5F6g7H8i9J"})

    client_id: str = Field(description="A client that was added with `--phone-id-token`.")
    nonce: str | None = Field(
        default=None, max_length=512, description="Returned unchanged in the id_token, for back ends that compare it."
    )


class PhoneIdTokenAnswer(BaseModel):
    """An id_token for another back end."""

    id_token: str = Field(description="A JWT of OpenID Connect.", examples=[EXAMPLE_JWT], repr=False)
    expires_in: int = Field(default=PHONE_ID_TOKEN_SECONDS, description="Lifetime in seconds.")


@router.post(
    "/v1/me/id-token",
    summary=_("Get an id_token for another back end"),
    tag="me",  # not "scans", because mobile apps, which cannot scan, also get id_tokens
    failures=[*PROOF_FAILURES, WrongAppKind],
)
async def make_id_token(
    caller: CallerInTurnDep, body: PhoneIdTokenRequest, id_tokens: PhoneIdTokensDep, device: DeviceDep
) -> PhoneIdTokenAnswer:
    """Get an id_token for a client that was added with `--phone-id-token`, such as Supabase, to log in there.

    `login_code` proves that the user holds the phone, because an access token might have been stolen. It must belong to
    the session's identity. The id_token belongs to no session of wxauth, so it cannot be used as `id_token_hint`.
    """
    # An empty nonce counts as no nonce.
    token = await id_tokens.issue(caller, body.client_id, body.login_code, body.nonce or None, ip=device.ip)
    return PhoneIdTokenAnswer(id_token=token)
