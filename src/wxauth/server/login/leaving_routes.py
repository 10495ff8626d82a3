"""A person leaves: `DELETE /v1/me` and `POST /v1/me/erasure`, for which an access token is no proof."""

from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final

from fastapi import Depends
from pydantic_core import to_json
from starlette.responses import Response

from wxauth.errors import LastAdmin, Title
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.settings import Settings
from wxauth.server.core.trail import Actor, EventType
from wxauth.server.limits.turns import Turns
from wxauth.server.login.bodies import LeavingAnswer, ProofRequest
from wxauth.server.login.login import PROOF_FAILURES, Proofs
from wxauth.server.users.callers import Caller, CallerDep, DeviceDep, TurnsDep, locked_caller
from wxauth.server.users.erasure_rows import erase_user, leave_later
from wxauth.server.web.answers import example_of
from wxauth.server.web.dependencies import ClockDep, DatabaseDep, SettingsDep, provide
from wxauth.server.web.direct import Router

log = get_logger()

_FAILURES: Final = [*PROOF_FAILURES, LastAdmin]
_LEAVING: Final[dict[int | str, dict[str, Any]]] = {
    202: {
        "description": "With `ERASURE_GRACE_DAYS`: the user is erased then.",
        "content": {"application/json": {"example": example_of(LeavingAnswer)}},
    }
}


async def leave(
    proofs: Proofs,
    turns: Turns,
    settings: Settings,
    database: Database,
    clock: Clock,
    caller: Caller,
    *,
    login_code: str,
    ip: str | None,
) -> datetime | None:
    """Erase the caller, proved by a new login at WeChat. WeChat is asked only about somebody who may leave.

    Returns when the caller is erased, if there are days of grace; None if that is done.

    Raises: LastAdmin, InvalidToken, RateLimited, UnknownApp, WeChatError, WrongPerson.
    """
    user_id = caller.user.id
    turn = partial(turns.of_session, caller.session_id, user_id, ends_sessions=True)
    locked = partial(locked_caller, database, caller, may_end_an_administrator=True)
    async with turn(), locked(now=clock()):
        pass
    await proofs.prove(caller, login_code, ip=ip)
    now, grace = clock(), timedelta(days=settings.erasure_grace_days)
    erase_at = now + grace if grace else None
    async with turn(), locked(now=now) as transaction:
        if erase_at is None:
            await erase_user(transaction, user_id, by=Actor(str(user_id)), now=now)
        else:
            await leave_later(transaction, user_id, erase_at=erase_at, now=now)
    log.info("user_erased" if erase_at is None else EventType.USER_LEAVING.logged, user_id=user_id)
    return erase_at


router = Router("me")

ProofsDep = Annotated[Proofs, Depends(provide(Proofs))]


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
