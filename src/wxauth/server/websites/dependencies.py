"""The parts of login on websites, as dependencies of routes; and the phone that scans."""

from typing import Annotated

from fastapi import Depends

from wxauth.errors import InsufficientScope
from wxauth.server.apps.registry import AppsDep
from wxauth.server.users.account import Caller
from wxauth.server.users.callers import CallerInTurnDep, PrincipalDep
from wxauth.server.web.dependencies import provide
from wxauth.server.websites.authorizations import Authorizations
from wxauth.server.websites.continuing import Continuing
from wxauth.server.websites.id_tokens import PhoneIdTokens
from wxauth.server.websites.links import Links
from wxauth.server.websites.scan_codes import ScanPictures
from wxauth.server.websites.scans import Scans
from wxauth.server.websites.site_requests import SiteRequests
from wxauth.server.websites.site_tokens import SiteTokens
from wxauth.server.websites.visits import Visits

AuthorizationsDep = Annotated[Authorizations, Depends(provide(Authorizations))]
ContinuingDep = Annotated[Continuing, Depends(provide(Continuing))]
LinksDep = Annotated[Links, Depends(provide(Links))]
PhoneIdTokensDep = Annotated[PhoneIdTokens, Depends(provide(PhoneIdTokens))]
ScanPicturesDep = Annotated[ScanPictures, Depends(provide(ScanPictures))]
ScansDep = Annotated[Scans, Depends(provide(Scans))]
SiteRequestsDep = Annotated[SiteRequests, Depends(provide(SiteRequests))]
SiteTokensDep = Annotated[SiteTokens, Depends(provide(SiteTokens))]
VisitsDep = Annotated[Visits, Depends(provide(Visits))]


async def scanning_phone_of(caller: CallerInTurnDep, principal: PrincipalDep, apps: AppsDep) -> Caller:
    """The user behind the request's access token, in a session of a mini-program: only that one is a phone that scans.

    Raises: InsufficientScope, also in a session of a mobile app.
    """
    if apps.kind_of(principal.app_id) not in ("mini_program", None):  # None: an app that has been removed
        raise InsufficientScope("this is for a login in the mini-program: an app's session does not open it")
    return caller


PhoneDep = Annotated[Caller, Depends(scanning_phone_of)]
"""The user behind the request's access token, who is in the mini-program and has a turn."""
