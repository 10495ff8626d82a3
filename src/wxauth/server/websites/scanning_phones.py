"""The parameter of routes that only a phone may call: the person who scans is in a mini-program."""

from typing import Annotated

from fastapi import Depends

from wxauth.errors import InsufficientScope
from wxauth.server.apps.dependencies import AppsDep
from wxauth.server.users.account import Caller
from wxauth.server.users.callers import CallerInTurnDep, PrincipalDep


async def scanning_phone_of(caller: CallerInTurnDep, principal: PrincipalDep, apps: AppsDep) -> Caller:
    """The user behind the request's access token, in a session of a mini-program: only that one is a phone that scans.

    Raises: InsufficientScope, also in a session of a mobile app.
    """
    if apps.kind_of(principal.app_id) not in ("mini_program", None):  # None: an app that has been removed
        raise InsufficientScope("this is for a login in the mini-program: an app's session does not open it")
    return caller


PhoneDep = Annotated[Caller, Depends(scanning_phone_of)]
"""The user behind the request's access token, who is in the mini-program and has a turn."""
