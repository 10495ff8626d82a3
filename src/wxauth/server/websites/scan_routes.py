"""Routes for the phone: it claims a code and decides, logs in to the site that it shows, and gets id_tokens."""

from uuid import UUID

from wxauth.errors import (
    InvalidRequest,
    LoginTooOld,
    RateLimited,
    ScanForwarded,
    ScanOver,
    ScanTaken,
    ScanTooFar,
    Title,
    WrongAppKind,
)
from wxauth.server.login.bodies import ProofRequest
from wxauth.server.login.login import PROOF_FAILURES
from wxauth.server.users.callers import CallerInTurnDep, DeviceDep
from wxauth.server.web.direct import Router
from wxauth.server.websites.authorize import Unanswerable
from wxauth.server.websites.bodies import (
    AuthorizationAnswer,
    AuthorizationRequest,
    ClaimedAnswer,
    ClaimRequest,
    NumberAnswer,
    PhoneIdTokenAnswer,
    PhoneIdTokenRequest,
    claimed_answer,
)
from wxauth.server.websites.dependencies import AuthorizationsDep, PhoneDep, PhoneIdTokensDep, ScansDep
from wxauth.server.websites.id_tokens import LASTS_SECONDS
from wxauth.server.websites.oauth_requests import OAuthError, check_parameters

router = Router("scans")


@router.post(
    "/v1/me/scans",
    summary=Title("Claim a scanned code", "认领扫到的码"),
    failures=[ScanOver, ScanForwarded, ScanTooFar, LoginTooOld, ScanTaken, RateLimited],
)
async def claim_scan(caller: PhoneDep, body: ClaimRequest, scans: ScansDep, device: DeviceDep) -> ClaimedAnswer:
    """Claim a code. The answer names the site to which the person would log in.

    Show all of the answer, and make "refuse" as easy to reach as "log in". The first user to claim a code holds it for
    a minute, or until the decision. Only the session that holds the claim may decide. Another session of the same user
    takes over the claim. The console's code requires an administrator who has logged in within `ADMIN_FRESH_LOGIN`.
    """
    return claimed_answer(await scans.claim(caller, body.opening, ip=device.ip))


@router.post(
    "/v1/me/scans/{scan_id}/approve",
    summary=Title("Approve a login", "登录该网站"),
    response_model=NumberAnswer,
    responses={204: {"description": "Approved: there is no number to show"}},
    failures=[*PROOF_FAILURES, ScanOver],
)
async def approve_scan(
    caller: PhoneDep, scan_id: UUID, body: ProofRequest, scans: ScansDep, device: DeviceDep
) -> NumberAnswer | None:
    """The person approves: the site gets a session. Idempotent: 204 again until the code would have expired.

    After a link (`"link": true`), the answer is a number, which the person types in the browser before the site gets a
    session. The same `login_code` gets the same number again.

    `login_code` proves that the person holds the phone, because an access token may have been stolen. It must belong to
    the session's identity. The session also gets the new `session_key`.
    """
    shown = await scans.approve(caller, scan_id, body.login_code, ip=device.ip)
    return None if shown is None else {"number": shown.number, "expires_in": shown.expires_in}


@router.post("/v1/me/scans/{scan_id}/deny", summary=Title("Deny a login", "拒绝该网站"), failures=[ScanOver])
async def deny_scan(caller: PhoneDep, scan_id: UUID, scans: ScansDep, device: DeviceDep) -> None:
    """The person denies the login: the site gets nothing."""
    await scans.deny(caller, scan_id, ip=device.ip)


@router.post(
    "/v1/me/authorizations",
    summary=Title("Log in to a site shown in the mini-program", "登录小程序内打开的网站"),
    failures=PROOF_FAILURES,
)
async def authorize_site(
    caller: PhoneDep, body: AuthorizationRequest, authorizations: AuthorizationsDep, device: DeviceDep
) -> AuthorizationAnswer:
    """Answer the request that a site in a web-view has made to `/v1/authorize`. Open `redirect_to` in a web-view.

    The body has the parameters of that request, as strings, and `login_code`: as for an approval, an access token alone
    opens no session. An error that concerns the site is in `redirect_to`, as `error`. `login_required` means that the
    site requires a newer login: log in again, then repeat the request.
    """
    try:
        parameters = check_parameters(list(body.parameters.items()))
        url = await authorizations.answer(caller, body.login_code, parameters, device=device)
    except OAuthError as exc:
        raise InvalidRequest.of("body", exc.description) from None
    except Unanswerable as exc:
        raise InvalidRequest.of(exc.mistake, "must be one that the site was added with") from None
    return {"redirect_to": url}


id_token_router = Router("me")


@id_token_router.post(
    "/v1/me/id-token",
    summary=Title("Get an id_token for another back end", "获取用于其他后端的 id_token"),
    failures=[*PROOF_FAILURES, WrongAppKind],
)
async def make_id_token(
    caller: CallerInTurnDep, body: PhoneIdTokenRequest, id_tokens: PhoneIdTokensDep, device: DeviceDep
) -> PhoneIdTokenAnswer:
    """Get an id_token of a client that was added with `--phone-id-token`, such as Supabase, to log in there.

    `login_code` proves that the person holds the phone, because an access token may have been stolen. It must belong to
    the session's identity. The id_token names no session, and opens none here: it is no `id_token_hint`.
    """
    token = await id_tokens.issue(caller, body.client_id, body.login_code, body.nonce or None, ip=device.ip)
    return {"id_token": token, "expires_in": LASTS_SECONDS}
