"""The caller of a request, and what users do with their own account."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from wxauth.errors import InvalidToken, NotFound
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.logs import get_logger
from wxauth.server.core.trail import Actor, EventType
from wxauth.server.core.users import UserInSession
from wxauth.server.sessions.rows import (
    EndReason,
    OpenSession,
    are_of_one_user,
    end_session,
    end_sessions,
    open_sessions,
    user_in_session,
)
from wxauth.server.users import erasing
from wxauth.server.users.erasing import leave_later
from wxauth.server.users.standing import UserIsGone, locked_user
from wxauth.server.web.paging import Page
from wxauth.tokens.claims import Principal

log = get_logger()


@dataclass(frozen=True, slots=True)
class Caller:
    """The user of a request, in the session of its access token. Both are as stored now."""

    session_id: UUID
    user: UserInSession


async def caller(database: Database, principal: Principal, *, now: datetime) -> Caller:
    """Read the user of a verified access token.

    Raises: InvalidToken, if the session has ended, or the user was banned or erased since the token was signed.
    """
    user = await user_in_session(database, session_id=principal.session_id, user_id=principal.id, now=now)
    if user is None:
        raise InvalidToken("the session has ended")
    return Caller(principal.session_id, user)


@asynccontextmanager
async def locked_caller(
    database: Database, caller: Caller, *, may_end_an_administrator: bool = False, now: datetime
) -> AsyncIterator[Transaction]:
    """A transaction in which the caller is locked, whose session is still open.

    Since the request began, the user may have been merged or banned, or this identity split off.

    Raises: InvalidToken; LastAdmin, as `locked_user`.
    """
    user_id, session_id = caller.user.id, caller.session_id
    try:
        async with locked_user(database, user_id, may_end_an_administrator=may_end_an_administrator) as (
            transaction,
            _,
        ):
            if await user_in_session(transaction, session_id=session_id, user_id=user_id, now=now) is None:
                raise InvalidToken("the session has ended")
            yield transaction
    except UserIsGone:
        raise InvalidToken("the user has just been merged or erased") from None


async def check_may_leave(database: Database, clock: Clock, caller: Caller) -> None:
    """Check that the caller could be erased now. Raises: LastAdmin, InvalidToken."""
    async with locked_caller(database, caller, may_end_an_administrator=True, now=clock()):
        pass


async def erase_me(database: Database, clock: Clock, caller: Caller, *, grace: timedelta) -> datetime | None:
    """Erase the caller, after the days of grace. The next login after that makes a new user.

    Returns when the caller is erased; None if that is done.

    Raises: LastAdmin, InvalidToken.
    """
    user_id, now = caller.user.id, clock()
    erase_at = now + grace if grace else None
    async with locked_caller(database, caller, may_end_an_administrator=True, now=now) as transaction:
        if erase_at is None:
            await erasing.erase_user(transaction, user_id, by=Actor(str(user_id)), now=now)
        else:
            await leave_later(transaction, user_id, erase_at=erase_at, now=now)
    log.info("user_erased" if erase_at is None else EventType.USER_LEAVING.logged, user_id=user_id)
    return erase_at


async def list_sessions(
    database: Database, clock: Clock, caller: Caller, *, after: tuple[datetime, UUID] | None, limit: int
) -> Page[OpenSession]:
    """A page of the caller's open sessions, the last used first."""
    found = await open_sessions(database, caller.user.id, now=clock(), limit=limit + 1, after=after)
    return Page.by_time(found, limit, lambda session: (session.last_used_at, session.id))


async def end_other_sessions(database: Database, clock: Clock, caller: Caller) -> None:
    """Sign the caller out everywhere else. Raises: InvalidToken."""
    user_id, now = caller.user.id, clock()
    # Locked, as by everybody who ends several sessions, to avoid deadlocks.
    async with locked_caller(database, caller, now=now) as transaction:
        await end_sessions(
            transaction,
            user_id,
            reason=EndReason.SIGNED_OUT_ELSEWHERE,
            by=Actor(str(user_id)),
            now=now,
            kept=caller.session_id,
        )


async def end_my_session(database: Database, clock: Clock, caller: Caller, session_id: UUID) -> None:
    """End one of the caller's sessions. Idempotent. Raises: NotFound."""
    if not await are_of_one_user(database, session_id, caller.session_id):
        raise NotFound("there is no such session of yours")
    is_this_one = session_id == caller.session_id
    reason = EndReason.SIGNED_OUT if is_this_one else EndReason.SIGNED_OUT_ELSEWHERE
    await end_session(database, session_id=session_id, reason=reason, now=clock())
    log.info("logged_out", user_id=caller.user.id, session_id=session_id)
