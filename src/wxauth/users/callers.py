"""The dependencies that identify who has sent a request: the user, the user's role, and the device.

The routes of all packages use these dependencies. Code that has already verified the access token calls `read_caller`
instead, or `any_caller_of`, which hides the roles from a website without the scope `roles`. `locked_caller` locks the
caller for a change.

A route for the users of an app takes `CallerDep` if it only reads, or if it limits concurrent requests itself. Any
other such route takes `CallerWhoEndsDep` if it ends the caller's sessions, and otherwise `CallerInTurnDep`. If a route
checks the session itself, `PrincipalDep` is enough. A route for staff takes `StaffDep` or `AdministratorDep`, or
`FreshAdministratorDep` if its changes have a lasting effect.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends
from starlette.requests import HTTPConnection, Request

from wxauth.core.database import Database, Transaction
from wxauth.core.trail import Actor
from wxauth.core.users import ROLES_SCOPE, UserInSession
from wxauth.errors import LoginTooOld, RateLimited
from wxauth.limits.concurrency import Concurrency
from wxauth.sessions.devices import Device
from wxauth.sessions.queries import OPENED_AT, READ_USER_IN_SESSION
from wxauth.settings.addresses import plain_address
from wxauth.settings.roles import STAFF_ROLES
from wxauth.users.status_queries import ADMIN, UserIsGone, locked_user
from wxauth.web.answers import BEARER, GUARDED, Entails
from wxauth.web.dependencies import ClockDep, DatabaseDep, SettingsDep, VerifierDep, provide
from wxauth.web.direct import NO_PARAMETERS, check_query_names
from wxauth_guard.bearer import authorizations_of, bearer_token
from wxauth_guard.claims import Principal
from wxauth_guard.errors import InsufficientRole, InsufficientScope, InvalidRequest, InvalidToken

_MAX_USER_AGENT: Final = 512
"""The largest number of bytes of a User-Agent that a `Device` contains.

wxauth cuts off the rest, because it stores the User-Agent with each session, and a client can send a very long one.
"""

ADMIN_SCOPE: Final = "wxauth:admin"
"""The scope that lets a staff member's website session use `/v1/admin`. Only wxauth's console gets this scope."""
_UNKNOWN_FILTER: Final = InvalidRequest.of("filter", NO_PARAMETERS)
"""The error for an unknown query parameter, as an example in the API description."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a request: the session of the access token, and its user as read for this request."""

    session_id: UUID
    user: UserInSession


async def read_caller(database: Database, principal: Principal, *, now: datetime) -> Caller:
    """Return the caller with this verified access token. The user is read from the database.

    Raises: InvalidToken, if the session has ended or expired, if the user was banned, merged or erased since the token
        was signed, or if the client of a website's session was removed.
    """
    user = await database.row(READ_USER_IN_SESSION, session_id=principal.session_id, user_id=principal.id, now=now)
    if user is None:
        raise InvalidToken("the session has ended")
    return Caller(principal.session_id, user)


@asynccontextmanager
async def locked_caller(
    database: Database, caller: Caller, *, could_remove_administrator: bool = False, now: datetime
) -> AsyncIterator[Transaction]:
    """Open a transaction that locks the caller, and check that the caller's session is still open.

    The check is necessary because, since the request began, the user might have been merged or banned, or the session's
    identity might have been split off. A route whose change may remove an administrator sets
    `could_remove_administrator`. In that case, the caller must not be the only administrator.

    Raises: InvalidToken, as `read_caller` does; LastAdmin, if `could_remove_administrator` is True, and the caller is
        the only administrator; TooManyChanges.
    """
    user_id, session_id = caller.user.id, caller.session_id
    try:
        locked = locked_user(database, user_id, could_remove_administrator=could_remove_administrator)
        async with locked as (transaction, _account):
            if await transaction.row(READ_USER_IN_SESSION, session_id=session_id, user_id=user_id, now=now) is None:
                raise InvalidToken("the session has ended")
            yield transaction
    except UserIsGone:
        raise InvalidToken("this user has just been merged or erased") from None


def is_of_website(principal: Principal) -> bool:
    """Return whether an access token is a website's token.

    The scope limits the rights of a website's token. An app's own token has no such limit.
    """
    return "scope" in principal.claims  # only a website's token has this claim


def sees_roles(principal: Principal) -> bool:
    """Return whether responses to a request with this access token may contain the user's roles."""
    return not is_of_website(principal) or ROLES_SCOPE in principal.scope


async def verified(connection: HTTPConnection, verifier: VerifierDep, clock: ClockDep) -> Principal:
    """Verify the request's access token, which may be an app's or a website's, and return the token's user.

    Raises: MissingToken, InvalidToken, TokenExpired, KeysUnavailable; InvalidRequest, if there are two `Authorization`
        headers.
    """
    token = bearer_token(*authorizations_of(connection.scope))
    return await verifier.verify(token, now=clock().timestamp())


VerifiedDep = Annotated[Principal, Depends(verified), Entails(failures=GUARDED, security=BEARER)]
"""The user of the request's access token, which may be an app's or a website's.

This dependency does not query the database, so the session may have ended. A route for which this matters must check
the session itself.
"""


async def principal_of(principal: VerifiedDep) -> Principal:
    """Return the user of the request's access token. Raises: InsufficientScope, if the token is a website's."""
    if is_of_website(principal):
        raise InsufficientScope("this request requires a login in the mini-program, not a website's token")
    return principal


PrincipalDep = Annotated[Principal, Depends(principal_of), Entails(failures=(InsufficientScope,))]
"""The user of an app's access token. As `VerifiedDep` says, the session may have ended."""


async def caller_of(principal: PrincipalDep, database: DatabaseDep, clock: ClockDep) -> Caller:
    """Return the caller of a request with an app's access token. Raises: InvalidToken, as `read_caller` does."""
    return await read_caller(database, principal, now=clock())


CallerDep = Annotated[Caller, Depends(caller_of)]
"""The caller with an app's access token.

Each request reads the user and the session from the database. Therefore, wxauth immediately refuses a user who was
banned or erased, and a user whose session has ended.
"""


ConcurrencyDep = Annotated[Concurrency, Depends(provide(Concurrency))]


async def caller_in_turn_of(
    request: Request, principal: PrincipalDep, concurrency: ConcurrencyDep, database: DatabaseDep, clock: ClockDep
) -> AsyncIterator[Caller]:
    """Wait for the whole body, then wait in the queues of the session and the user, and yield the caller.

    The function waits for the body first, so that a slow upload does not hold a place in the queues.

    Raises: RateLimited, if a queue is full, or if no place becomes free in time; InvalidToken, as `read_caller` does.
    """
    await request.body()
    async with concurrency.of_session(principal.session_id, principal.id):
        yield await read_caller(database, principal, now=clock())


CallerInTurnDep = Annotated[Caller, Depends(caller_in_turn_of), Entails(failures=(RateLimited,))]
"""The caller as in `CallerDep`, for operations that open a transaction.

The queues limit the number of such operations of one user that run at the same time. An operation that has its own
limit does not need them.
"""


async def caller_who_ends_of(
    request: Request, principal: PrincipalDep, concurrency: ConcurrencyDep, database: DatabaseDep, clock: ClockDep
) -> AsyncIterator[Caller]:
    """Wait for the whole body, then wait in the queues of requests that end sessions, and yield the caller.

    Requests that end the access token's own session wait in a separate queue. An attacker with a stolen token cannot
    keep that queue full, because each request in it ends the stolen session.

    Raises: RateLimited, if a queue is full, or if no place becomes free in time; InvalidToken, as `read_caller` does.
    """
    await request.body()
    ends_own_session = request.path_params.get("session_id") == str(principal.session_id)
    async with concurrency.of_session((principal.session_id, ends_own_session), principal.id, ends_sessions=True):
        yield await read_caller(database, principal, now=clock())


CallerWhoEndsDep = Annotated[Caller, Depends(caller_who_ends_of), Entails(failures=(RateLimited,))]
"""The caller as in `CallerInTurnDep`, for operations that end sessions.

These operations have their own queues, so that the user's operations of other kinds do not delay them.
"""


async def any_caller_of(principal: VerifiedDep, database: DatabaseDep, clock: ClockDep) -> Caller:
    """Return the caller with this access token, which may be an app's or a website's.

    If a website's token lacks the scope `roles`, the returned user has no roles.

    Raises: InvalidToken, as `read_caller` does.
    """
    caller = await read_caller(database, principal, now=clock())
    if sees_roles(principal):
        return caller
    return replace(caller, user=caller.user.model_copy(update={"roles": []}))


async def device_of(connection: HTTPConnection) -> Device:
    """Return the device that has sent the request, with the address that `BehindProxies` has found.

    The address is None if the client has connected through a Unix socket. The User-Agent is None if the request has no
    such header, and is cut off after `_MAX_USER_AGENT` bytes.
    """
    client = connection.scope.get("client")
    ip = None if client is None else _plain_ip(client[0])
    headers = connection.scope["headers"]
    user_agents = (value[:_MAX_USER_AGENT].decode("latin-1") for name, value in headers if name == b"user-agent")
    return Device(ip=ip, user_agent=next(user_agents, None))


DeviceDep = Annotated[Device, Depends(device_of)]


@lru_cache(maxsize=4096)
def _plain_ip(host: str) -> str | None:
    """Return the address in the form of `plain_address`, for example `192.0.2.1` for `::ffff:192.0.2.1`.

    Return None if the host is not an address. The results for the last 4,096 hosts are cached, because most hosts send
    several requests.
    """
    try:
        return str(plain_address(host))
    except ValueError:
        return None  # the client has connected through a Unix socket


async def staff_of(
    connection: HTTPConnection, principal: VerifiedDep, database: DatabaseDep, clock: ClockDep, device: DeviceDep
) -> Actor:
    """Return the member of staff who sends the request, according to the roles stored now.

    A member who has the role `support`, but not `admin`, must not act on staff. Therefore, the returned actor has
    `must_spare_staff`.

    Refuse unknown query parameters, because a search that ignored a misspelled filter would find everything.

    Raises: InsufficientRole, if the user is not staff; InsufficientScope, if a website's token lacks `ADMIN_SCOPE`;
        InvalidRequest, if a query parameter is unknown; InvalidToken, as `read_caller` does.
    """
    if is_of_website(principal) and ADMIN_SCOPE not in principal.scope:
        raise InsufficientScope("administration doesn't accept a website's token")
    caller = await read_caller(database, principal, now=clock())
    user = caller.user
    if STAFF_ROLES.isdisjoint(user.roles):
        raise InsufficientRole("this request requires the role admin or, for some requests, support")
    check_query_names(connection)
    return Actor(str(user.id), device.ip, must_spare_staff=ADMIN not in user.roles)


StaffDep = Annotated[Actor, Depends(staff_of), Entails(failures=(InsufficientRole, InsufficientScope, _UNKNOWN_FILTER))]
"""The member of staff who sends the request. wxauth immediately refuses a user who has lost the role."""


async def administrator_of(staff: StaffDep) -> Actor:
    """Return the administrator who sends the request. Raises: InsufficientRole, if the user is only `support`."""
    if staff.must_spare_staff:
        raise InsufficientRole("this request requires the role admin")
    return staff


AdministratorDep = Annotated[Actor, Depends(administrator_of)]
"""The administrator who sends the request. wxauth immediately refuses a user who was demoted or banned."""


async def fresh_login_of(principal: VerifiedDep, settings: SettingsDep, database: DatabaseDep, clock: ClockDep) -> bool:
    """Return whether the request's session counts as recent according to `ADMIN_FRESH_LOGIN`: see `is_fresh`."""
    return await is_fresh(database, principal.session_id, max_age_seconds=settings.admin_fresh_login, now=clock())


FreshLoginDep = Annotated[bool, Depends(fresh_login_of), Entails(failures=(LoginTooOld,))]
"""Whether the request's session was opened recently, for operations that require a recent login only in some cases."""


async def is_fresh(database: Database | Transaction, session_id: UUID, *, max_age_seconds: int, now: datetime) -> bool:
    """Return whether a session still exists, and was opened in the last `max_age_seconds` seconds.

    This check prevents a stolen token from giving lasting access. If `max_age_seconds` is 0, the check is off, and
    every session counts as recent.
    """
    if not max_age_seconds:
        return True
    opened_at = await database.value(OPENED_AT, session_id=session_id)
    return opened_at is not None and now - opened_at <= timedelta(seconds=max_age_seconds)


async def fresh_administrator_of(administrator: AdministratorDep, has_fresh_login: FreshLoginDep) -> Actor:
    """Return the administrator who sends the request. Raises: LoginTooOld, if the session was not opened recently."""
    if not has_fresh_login:
        raise LoginTooOld
    return administrator


FreshAdministratorDep = Annotated[Actor, Depends(fresh_administrator_of), Entails(failures=(LoginTooOld,))]
"""The administrator as in `AdministratorDep`, for changes with a lasting effect, which require a recent login."""
