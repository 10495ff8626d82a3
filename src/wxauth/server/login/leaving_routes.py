"""`DELETE /v1/me` and `POST /v1/me/erasure`: a person leaves."""

from wxauth.errors import (
    CodeUsed,
    InvalidCode,
    LastAdmin,
    RateLimited,
    Title,
    UnknownApp,
    WeChatUserBlocked,
    WrongPerson,
)
from wxauth.server.login.bodies import ProofRequest
from wxauth.server.login.dependencies import ProofsDep
from wxauth.server.login.leaving import leave
from wxauth.server.users.callers import CallerInTurnDep, DeviceDep
from wxauth.server.web.answers import WECHAT_FAILURES
from wxauth.server.web.dependencies import ClockDep, DatabaseDep
from wxauth.server.web.direct import Router

router = Router("me")

_FAILURES = [
    InvalidCode,
    CodeUsed,
    UnknownApp,
    RateLimited,
    WeChatUserBlocked,
    WrongPerson,
    LastAdmin,
    *WECHAT_FAILURES,
]


@router.post(
    "/v1/me/erasure",
    summary=Title("Erase my account (for clients whose DELETE has no body)", "注销我的账号（DELETE 无法带请求体时）"),
    operation_id="erase_me_by_post",
    failures=_FAILURES,
)
@router.delete("/v1/me", summary=Title("Erase my account", "注销我的账号"), failures=_FAILURES)
async def erase_me(
    caller: CallerInTurnDep,
    body: ProofRequest,
    proofs: ProofsDep,
    database: DatabaseDep,
    clock: ClockDep,
    device: DeviceDep,
) -> None:
    """Erase the user, the identities, the sessions, and their data in the audit trail.

    `login_code` proves that the person holds the phone, because an access token may have been stolen. It must belong to
    the session's identity. The next login creates a new user. Some clients send no body with DELETE, so POST to
    `/v1/me/erasure` does the same.
    """
    await leave(proofs, database, clock, caller, login_code=body.login_code, ip=device.ip)
