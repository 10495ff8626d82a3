"""The dependencies that identify who has sent a request: the user, the user's role, and the device.

docs/contribute/architecture.md ("Where to look first") says which of them a route takes. Code that has already verified
the access token calls `read_caller` or `any_caller_of`.
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
from wxauth.settings.roles import ADMIN, STAFF_ROLES
from wxauth.users.status_queries import UserIsGone, locked_user
from wxauth.web.answers import BEARER, GUARDED, Entails
from wxauth.web.dependencies import ClockDep, DatabaseDep, SettingsDep, VerifierDep, provide
from wxauth.web.direct import NO_PARAMETERS, check_query_names
from wxauth_guard.bearer import authorizations_of, bearer_token
from wxauth_guard.claims import Principal
from wxauth_guard.errors import InsufficientRole, InsufficientScope, InvalidRequest, InvalidToken

_MAX_USER_AGENT_BYTES: Final = 512  # each session stores its User-Agent, and a client can send a very long one
ADMIN_SCOPE: Final = "wxauth:admin"
"""Lets a staff member's website session use `/v1/admin`. Only wxauth's console gets it."""
_UNKNOWN_FILTER: Final = InvalidRequest.of("filter", NO_PARAMETERS)


@dataclass(frozen=True, slots=True)
class Caller:
    """The session of the access token, and its user as read for this request."""

    session_id: UUID
    user: UserInSession


async def read_caller(database: Database, principal: Principal, *, now: datetime) -> Caller:
    """Read the user of a verified access token.

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
    """Lock the caller, and check the session again: the user might have been merged, banned or split.

    Raises: InvalidToken; LastAdmin, if the caller is the only administrator and `could_remove_administrator` is set.
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
    """Return whether the scope limits what this token may do, as it does for a website, but not for an app."""
    return "scope" in principal.claims  # only a website's token has this claim


def sees_roles(principal: Principal) -> bool:
    """Return whether responses to this access token may contain the user's roles."""
    return not is_of_website(principal) or ROLES_SCOPE in principal.scope


async def verified(connection: HTTPConnection, verifier: VerifierDep, clock: ClockDep) -> Principal:
    """Verify the request's access token, of an app or a website."""
    token = bearer_token(*authorizations_of(connection.scope))
    return await verifier.verify(token, now=clock().timestamp())


# No query of the database has run, so the session may have ended.
VerifiedDep = Annotated[Principal, Depends(verified), Entails(failures=GUARDED, security=BEARER)]


async def principal_of(principal: VerifiedDep) -> Principal:
    """Refuse a website's token."""
    if is_of_website(principal):
        raise InsufficientScope("this request requires a login in the mini-program, not a website's token")
    return principal


PrincipalDep = Annotated[Principal, Depends(principal_of), Entails(failures=(InsufficientScope,))]


async def caller_of(principal: PrincipalDep, database: DatabaseDep, clock: ClockDep) -> Caller:
    return await read_caller(database, principal, now=clock())


# Each request reads the caller anew, which refuses a banned user or an ended session at once.
CallerDep = Annotated[Caller, Depends(caller_of)]

ConcurrencyDep = Annotated[Concurrency, Depends(provide(Concurrency))]


async def caller_in_turn_of(
    request: Request, principal: PrincipalDep, concurrency: ConcurrencyDep, database: DatabaseDep, clock: ClockDep
) -> AsyncIterator[Caller]:
    """Wait in the queues of the session and the user, and yield the caller."""
    await request.body()  # first, so that a slow upload does not hold a place in the queues
    async with concurrency.of_session(principal.session_id, principal.id):
        yield await read_caller(database, principal, now=clock())


# Routes that open a transaction use this dependency, so that few of a user's transactions run at the same time.
CallerInTurnDep = Annotated[Caller, Depends(caller_in_turn_of), Entails(failures=(RateLimited,))]


async def caller_ending_sessions_of(
    request: Request, principal: PrincipalDep, concurrency: ConcurrencyDep, database: DatabaseDep, clock: ClockDep
) -> AsyncIterator[Caller]:
    """Wait in the queues of requests that end sessions, and yield the caller."""
    await request.body()
    # Requests that end their own session have a queue that a stolen token cannot keep full, because the first of them
    # ends the token's session.
    ends_own_session = request.path_params.get("session_id") == str(principal.session_id)
    async with concurrency.of_session((principal.session_id, ends_own_session), principal.id, ends_sessions=True):
        yield await read_caller(database, principal, now=clock())


# The user's other requests do not delay those that end sessions, which have queues of their own.
CallerEndingSessionsDep = Annotated[Caller, Depends(caller_ending_sessions_of), Entails(failures=(RateLimited,))]


async def any_caller_of(principal: VerifiedDep, database: DatabaseDep, clock: ClockDep) -> Caller:
    """Return the caller of an app's or a website's token, without roles if the token's scope lacks `roles`."""
    caller = await read_caller(database, principal, now=clock())
    if sees_roles(principal):
        return caller
    return replace(caller, user=caller.user.model_copy(update={"roles": []}))


async def device_of(connection: HTTPConnection) -> Device:
    """Return the device, with the address that `BehindProxies` has found. The address of a Unix socket is None."""
    client = connection.scope.get("client")
    ip = None if client is None else _plain_ip(client[0])
    user_agent = None
    for name, value in connection.scope["headers"]:
        if name == b"user-agent":
            user_agent = value[:_MAX_USER_AGENT_BYTES].decode("latin-1")
            break
    return Device(ip=ip, user_agent=user_agent)


DeviceDep = Annotated[Device, Depends(device_of)]


@lru_cache(maxsize=4096)
def _plain_ip(host: str) -> str | None:
    try:
        return str(plain_address(host))
    except ValueError:
        return None  # the client has connected through a Unix socket


async def staff_of(
    connection: HTTPConnection, principal: VerifiedDep, database: DatabaseDep, clock: ClockDep, device: DeviceDep
) -> Actor:
    """Return the staff member who sends the request. Without the role `admin`, they have `must_spare_staff`."""
    if is_of_website(principal) and ADMIN_SCOPE not in principal.scope:
        raise InsufficientScope("administration doesn't accept a website's token")
    caller = await read_caller(database, principal, now=clock())
    user = caller.user
    if STAFF_ROLES.isdisjoint(user.roles):
        raise InsufficientRole("this request requires the role admin or, for some requests, support")
    check_query_names(connection)  # a search that ignored a misspelled filter would find everything
    return Actor(str(user.id), device.ip, must_spare_staff=ADMIN not in user.roles)


StaffDep = Annotated[Actor, Depends(staff_of), Entails(failures=(InsufficientRole, InsufficientScope, _UNKNOWN_FILTER))]


async def administrator_of(staff: StaffDep) -> Actor:
    """Refuse staff who are not administrators."""
    if staff.must_spare_staff:
        raise InsufficientRole("this request requires the role admin")
    return staff


AdministratorDep = Annotated[Actor, Depends(administrator_of)]


async def fresh_login_of(principal: VerifiedDep, settings: SettingsDep, database: DatabaseDep, clock: ClockDep) -> bool:
    """Return whether the request's session is recent enough for `ADMIN_FRESH_LOGIN`."""
    return await is_fresh(database, principal.session_id, max_age_seconds=settings.admin_fresh_login, now=clock())


# Routes that require a recent login only in some cases use this dependency.
FreshLoginDep = Annotated[bool, Depends(fresh_login_of), Entails(failures=(LoginTooOld,))]


async def is_fresh(database: Database | Transaction, session_id: UUID, *, max_age_seconds: int, now: datetime) -> bool:
    """Return whether a session was opened in the last `max_age_seconds` (0: no matter when)."""
    if not max_age_seconds:
        return True
    opened_at = await database.value(OPENED_AT, session_id=session_id)
    return opened_at is not None and now - opened_at <= timedelta(seconds=max_age_seconds)


async def fresh_administrator_of(administrator: AdministratorDep, has_fresh_login: FreshLoginDep) -> Actor:
    """Refuse an administrator whose login is too old."""
    if not has_fresh_login:
        raise LoginTooOld
    return administrator


# A stolen token must not make changes with a lasting effect, so the routes for such changes use this dependency.
FreshAdministratorDep = Annotated[Actor, Depends(fresh_administrator_of), Entails(failures=(LoginTooOld,))]
