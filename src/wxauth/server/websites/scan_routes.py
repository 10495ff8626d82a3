"""`/v1/me/scans`: the phone claims a code, and approves or denies the login."""

from typing import Final
from uuid import UUID

from fastapi import APIRouter

from wxauth.errors import (
    CodeUsed,
    InsufficientScope,
    InvalidCode,
    InvalidRequest,
    LoginTooOld,
    PayloadTooLarge,
    RateLimited,
    ScanForwarded,
    ScanOver,
    ScanTaken,
    ScanTooFar,
    UnknownApp,
    WeChatUserBlocked,
    WrongPerson,
)
from wxauth.server.core.services import ServicesDep
from wxauth.server.users.callers import CallerDep, DeviceDep
from wxauth.server.web.answers import BEARER_SECURITY, GUARDED, WECHAT_FAILURES, answers, failures
from wxauth.server.web.direct import DirectRoute, operation_id
from wxauth.server.websites import scans
from wxauth.server.websites.bodies import EXAMPLE_CLAIMED, ApproveRequest, ClaimedAnswer, ClaimRequest, claimed_answer
from wxauth.server.websites.rows import Verdict

_WRONG_ID: Final = InvalidRequest.of("scan_id", "Input should be a valid UUID")

router = APIRouter(route_class=DirectRoute, tags=["scans"], generate_unique_id_function=operation_id)


@router.post(
    "/v1/me/scans",
    summary="Claim a code that was scanned",
    responses=answers(
        EXAMPLE_CLAIMED,
        InvalidRequest.of("body", "wants one of scene, url and user_code"),
        PayloadTooLarge,
        ScanOver,
        ScanForwarded,
        ScanTooFar,
        LoginTooOld,
        ScanTaken,
        RateLimited,
        InsufficientScope,
        *GUARDED,
    ),
    openapi_extra=BEARER_SECURITY,
)
async def claim_scan(caller: CallerDep, body: ClaimRequest, services: ServicesDep, device: DeviceDep) -> ClaimedAnswer:
    """Claim a code, and learn which site wants to log the person in.

    Show all of the answer, and make "refuse" as easy to reach as "log in". The first user to claim a code holds it for
    a minute, or until the decision. Only the session that holds the claim may decide. Another session of the same user
    takes the claim over. The console's code wants a fresh login of an administrator: `ADMIN_FRESH_LOGIN`.
    """
    return claimed_answer(await scans.claim(services, caller, body.opening, ip=device.ip))


@router.post(
    "/v1/me/scans/{scan_id}/approve",
    summary="Log in to the site",
    status_code=204,
    responses=failures(
        InvalidRequest.of("login_code", "Field required"),
        PayloadTooLarge,
        InvalidCode,
        CodeUsed,
        UnknownApp,
        RateLimited,
        WeChatUserBlocked,
        WrongPerson,
        ScanOver,
        InsufficientScope,
        *WECHAT_FAILURES,
        *GUARDED,
    ),
    openapi_extra=BEARER_SECURITY,
)
async def approve_scan(
    caller: CallerDep, scan_id: UUID, body: ApproveRequest, services: ServicesDep, device: DeviceDep
) -> None:
    """The person says yes: the site gets a session. Repeated, it is 204 again until the code would have expired.

    `login_code` proves that the person is at the phone, because an access token may have been stolen. It must be of the
    same identity as the session, which also gets the new `session_key`.
    """
    await scans.approve(services, caller, scan_id, body.login_code, ip=device.ip)


@router.post(
    "/v1/me/scans/{scan_id}/deny",
    summary="Refuse the site",
    status_code=204,
    responses=failures(_WRONG_ID, ScanOver, InsufficientScope, *GUARDED),
    openapi_extra=BEARER_SECURITY,
)
async def deny_scan(caller: CallerDep, scan_id: UUID, services: ServicesDep, device: DeviceDep) -> None:
    """The person says no: the site gets nothing."""
    await scans.decide(services, caller, scan_id, Verdict.DENIED, ip=device.ip)
