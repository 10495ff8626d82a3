"""Dependencies of routes in every room: the caller of a request, and the device."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends
from starlette.requests import HTTPConnection

from wxauth.errors import InsufficientRole, InsufficientScope, LoginTooOld
from wxauth.server.core.ip_addresses import plain_address
from wxauth.server.core.services import Services
from wxauth.server.core.trail import Actor
from wxauth.server.core.users import STAFF_ROLES
from wxauth.server.sessions.devices import Device
from wxauth.server.sessions.rows import session_opened_at
from wxauth.server.users import account
from wxauth.server.users.account import Caller
from wxauth.server.users.standing import ADMIN
from wxauth.server.web.answers import BEARER, GUARDED, Entails, Failure
from wxauth.tokens.claims import Principal

_MAX_USER_AGENT: Final = 512
_FOR_ADMINISTRATORS: Final[Sequence[Failure]] = (InsufficientRole, InsufficientScope, *GUARDED)

FOR_PEOPLE: Final = Entails(failures=(InsufficientScope, *GUARDED), security=BEARER)
"""The documentation of a parameter that refuses a website's token."""
ROLES_SCOPE: Final = "roles"
"""The scope that lets a website see a person's roles."""
ADMIN_SCOPE: Final = "wxauth:admin"
"""The scope that lets an administrator's website session use `/v1/admin`. Only our own pages get it."""


def is_of_website(principal: Principal) -> bool:
    """Whether this is a website's token, which is limited to its scope. A mini-program's token has no such limit."""
    return "app_id" in principal.claims  # only a website's token has this claim


def sees_roles(principal: Principal) -> bool:
    """Whether answers to this token may contain the person's roles."""
    return not is_of_website(principal) or ROLES_SCOPE in principal.scope


async def principal_of(connection: HTTPConnection) -> Principal:
    """The user of the request's access token. Raises: InsufficientScope, for a website's token; the guard's errors."""
    services: Services = connection.app.state.services
    principal = await services.guard(connection)
    if is_of_website(principal):
        raise InsufficientScope("this is for a login in the mini-program: a website's token does not open it")
    return principal


PrincipalDep = Annotated[Principal, Depends(principal_of), FOR_PEOPLE]
"""The user of the access token. The session is not checked: the route must do that itself."""


async def any_principal_of(connection: HTTPConnection) -> Principal:
    """The user of the request's access token, which may be a website's. Raises: the guard's errors."""
    services: Services = connection.app.state.services
    return await services.guard(connection)


AnyPrincipalDep = Annotated[Principal, Depends(any_principal_of), Entails(failures=GUARDED, security=BEARER)]
"""The user of the access token, which may be a website's. The session is not checked, as in `PrincipalDep`."""


async def caller_of(connection: HTTPConnection) -> Caller:
    """The user of the request's access token, as stored now. Raises: as `principal_of` and `account.caller`."""
    services: Services = connection.app.state.services
    return await account.caller(services, await principal_of(connection))


CallerDep = Annotated[Caller, Depends(caller_of), FOR_PEOPLE]
"""The user of the access token. An ended session, and a banned or erased user, are refused at once."""


async def any_caller_of(connection: HTTPConnection) -> Caller:
    """The user of the request's access token, as stored now, also for a website.

    A website without the scope `roles` sees no roles.
    """
    services: Services = connection.app.state.services
    principal = await services.guard(connection)
    caller = await account.caller(services, principal)
    if sees_roles(principal):
        return caller
    return replace(caller, user={**caller.user, "roles": []})


AnyCallerDep = Annotated[Caller, Depends(any_caller_of), Entails(failures=GUARDED, security=BEARER)]
"""As `CallerDep`, but also for a website's token."""


async def device_of(connection: HTTPConnection) -> Device:
    """The device from which the request comes. Its address is the one that `BehindProxies` has found."""
    client = connection.scope.get("client")
    user_agent = None
    for name, value in connection.scope["headers"]:
        if name == b"user-agent":
            user_agent = value[:_MAX_USER_AGENT].decode("latin-1")
            break
    return Device(ip=None if client is None else _plain_ip(client[0]), user_agent=user_agent)


DeviceDep = Annotated[Device, Depends(device_of)]


@dataclass(frozen=True, slots=True)
class Staff:
    """A member of staff, with the address of the request."""

    actor: Actor
    is_administrator: bool


async def staff_of(connection: HTTPConnection) -> Staff:
    """The member of staff who sends the request, by the roles stored now.

    Raises: InsufficientRole, InsufficientScope; as `account.caller`.
    """
    services: Services = connection.app.state.services
    principal = await services.guard(connection)
    if is_of_website(principal) and ADMIN_SCOPE not in principal.scope:
        raise InsufficientScope("a website's token does not administer")
    user = (await account.caller(services, principal)).user
    if STAFF_ROLES.isdisjoint(user["roles"]):
        raise InsufficientRole("this needs the role admin, or for a part of it support")
    return Staff(Actor(str(user["id"]), (await device_of(connection)).ip), ADMIN in user["roles"])


StaffDep = Annotated[Staff, Depends(staff_of), Entails(failures=_FOR_ADMINISTRATORS, security=BEARER)]
"""The member of staff who sends the request. Whoever has just lost the role is refused at once."""


async def administrator_of(connection: HTTPConnection) -> Actor:
    """The administrator who sends the request. Raises: as `staff_of`."""
    staff = await staff_of(connection)
    if not staff.is_administrator:
        raise InsufficientRole("this needs the role admin")
    return staff.actor


AdministratorDep = Annotated[Actor, Depends(administrator_of), Entails(failures=_FOR_ADMINISTRATORS, security=BEARER)]
"""The administrator who sends the request. Whoever has just been demoted or banned is refused at once."""


async def fresh_login_of(connection: HTTPConnection) -> bool:
    """Whether the request's session was opened within `ADMIN_FRESH_LOGIN` seconds."""
    services: Services = connection.app.state.services
    return await is_fresh(services, (await services.guard(connection)).session_id)


FreshLoginDep = Annotated[bool, Depends(fresh_login_of), Entails(failures=(LoginTooOld, *GUARDED), security=BEARER)]
"""Whether the session was opened recently, for operations that require that only in some cases."""


async def is_fresh(services: Services, session_id: UUID) -> bool:
    """Whether a session was opened within `ADMIN_FRESH_LOGIN`, so that a stolen token gives no lasting access.

    Raises: StorageUnavailable.
    """
    longest = services.settings.admin_fresh_login
    if not longest:
        return True
    opened_at = await session_opened_at(services.database, session_id)
    return opened_at is not None and services.clock() - opened_at <= timedelta(seconds=longest)


async def fresh_administrator_of(connection: HTTPConnection) -> Actor:
    """The administrator who sends the request, if the session was opened recently.

    Raises: LoginTooOld; as `administrator_of`.
    """
    administrator = await administrator_of(connection)
    if not await fresh_login_of(connection):
        raise LoginTooOld
    return administrator


FreshAdministratorDep = Annotated[
    Actor, Depends(fresh_administrator_of), Entails(failures=(LoginTooOld, *_FOR_ADMINISTRATORS), security=BEARER)
]
"""As `AdministratorDep`, for changes with lasting effect: requires a login within `ADMIN_FRESH_LOGIN`."""


@lru_cache(maxsize=4096)
def _plain_ip(host: str) -> str | None:
    try:
        return str(plain_address(host))
    except ValueError:
        return None  # a unix socket
