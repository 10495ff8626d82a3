"""`DELETE /v1/me` and `POST /v1/me/erasure`: a person leaves."""

from typing import Any, Final

from pydantic_core import to_json
from starlette.responses import Response

from wxauth.errors import LastAdmin, Title
from wxauth.server.login.bodies import LeavingAnswer, ProofRequest
from wxauth.server.login.dependencies import PROOF_FAILURES, ProofsDep
from wxauth.server.login.leaving import leave
from wxauth.server.users.callers import CallerDep, DeviceDep, TurnsDep
from wxauth.server.web.answers import example_of
from wxauth.server.web.dependencies import ClockDep, DatabaseDep, SettingsDep
from wxauth.server.web.direct import Router

router = Router("me")

_FAILURES: Final = [*PROOF_FAILURES, LastAdmin]
_LEAVING: Final[dict[int | str, dict[str, Any]]] = {
    202: {
        "description": "With `ERASURE_GRACE_DAYS`: the user is erased then.",
        "content": {"application/json": {"example": example_of(LeavingAnswer)}},
    }
}


@router.post(
    "/v1/me/erasure",
    summary=Title("Erase my account (for clients whose DELETE has no body)", "注销我的账号（DELETE 无法带请求体时）"),
    operation_id="erase_me_by_post",
    failures=_FAILURES,
    responses=_LEAVING,
)
@router.delete("/v1/me", summary=Title("Erase my account", "注销我的账号"), failures=_FAILURES, responses=_LEAVING)
async def erase_me(
    caller: CallerDep,
    body: ProofRequest,
    proofs: ProofsDep,
    turns: TurnsDep,
    settings: SettingsDep,
    database: DatabaseDep,
    clock: ClockDep,
    device: DeviceDep,
) -> Response | None:
    """Erase the user, the identities, the sessions, and their data in the audit trail.

    `login_code` proves that the person holds the phone, because an access token may have been stolen. It must belong to
    the session's identity. The next login creates a new user. Some clients send no body with DELETE, so POST to
    `/v1/me/erasure` does the same.

    With `ERASURE_GRACE_DAYS`, all sessions end, and the rest follows at `erase_at`, unless the person logs in with
    `stay` before.
    """
    erase_at = await leave(proofs, turns, settings, database, clock, caller, login_code=body.login_code, ip=device.ip)
    if erase_at is None:
        return None
    leaving: LeavingAnswer = {"erase_at": erase_at}
    return Response(to_json(leaving), 202, headers={"Cache-Control": "no-store"}, media_type="application/json")
