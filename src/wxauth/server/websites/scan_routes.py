"""`/v1/me/scans`: the phone claims a code, and approves or denies the login."""

from uuid import UUID

from wxauth.errors import (
    LoginTooOld,
    RateLimited,
    ScanForwarded,
    ScanOver,
    ScanTaken,
    ScanTooFar,
    Title,
)
from wxauth.server.login.bodies import ProofRequest
from wxauth.server.login.login import PROOF_FAILURES
from wxauth.server.users.callers import DeviceDep
from wxauth.server.web.direct import Router
from wxauth.server.websites.bodies import ClaimedAnswer, ClaimRequest, NumberAnswer, claimed_answer
from wxauth.server.websites.dependencies import ScansDep
from wxauth.server.websites.scanning_phones import PhoneDep

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
