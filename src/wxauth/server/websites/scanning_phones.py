"""The parameter of routes that only a phone may call: the person who scans is in a mini-program."""

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from wxauth.errors import InsufficientScope
from wxauth.server.apps.registry import Apps
from wxauth.server.core.services import Services
from wxauth.server.users import account
from wxauth.server.users.account import Caller
from wxauth.server.users.callers import FOR_PEOPLE, principal_of


async def scanning_phone_of(connection: HTTPConnection) -> Caller:
    """The user behind the request's access token, in a session of a mini-program: only that one is a phone that scans.

    Raises: InsufficientScope, also in a session of a mobile app.
    """
    services: Services = connection.app.state.services
    principal = await principal_of(connection)
    if services[Apps].kind_of(principal.app_id) not in ("mini_program", None):  # None: an app that has been removed
        raise InsufficientScope("this is for a login in the mini-program: an app's session does not open it")
    return await account.caller(services, principal)


PhoneDep = Annotated[Caller, Depends(scanning_phone_of), FOR_PEOPLE]
"""The user behind the request's access token, who is in the mini-program."""
