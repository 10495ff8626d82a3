"""A person leaves: the erasure of the own account, for which an access token is no proof."""

from datetime import datetime, timedelta
from functools import partial

from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.settings import Settings
from wxauth.server.limits.turns import Turns
from wxauth.server.login.proof import Proofs
from wxauth.server.users import account
from wxauth.server.users.account import Caller


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
    turn = partial(turns.of_session, caller.session_id, caller.user.id, ends_sessions=True)
    async with turn():
        await account.check_may_leave(database, clock, caller)
    await proofs.prove(caller, login_code, ip=ip)
    async with turn():
        return await account.erase_me(database, clock, caller, grace=timedelta(days=settings.erasure_grace_days))
