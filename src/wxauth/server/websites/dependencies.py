"""The parts of login on websites, as dependencies of routes."""

from typing import Annotated

from fastapi import Depends

from wxauth.server.web.dependencies import provide
from wxauth.server.websites.authorizations import Authorizations
from wxauth.server.websites.continuing import Continuing
from wxauth.server.websites.id_tokens import IdTokenHints
from wxauth.server.websites.links import Links
from wxauth.server.websites.phone_id_tokens import PhoneIdTokens
from wxauth.server.websites.scan_pictures import ScanPictures
from wxauth.server.websites.scans import Scans
from wxauth.server.websites.site_requests import SiteRequests
from wxauth.server.websites.site_tokens import SiteTokens
from wxauth.server.websites.visits import Visits

AuthorizationsDep = Annotated[Authorizations, Depends(provide(Authorizations))]
ContinuingDep = Annotated[Continuing, Depends(provide(Continuing))]
IdTokenHintsDep = Annotated[IdTokenHints, Depends(provide(IdTokenHints))]
LinksDep = Annotated[Links, Depends(provide(Links))]
PhoneIdTokensDep = Annotated[PhoneIdTokens, Depends(provide(PhoneIdTokens))]
ScanPicturesDep = Annotated[ScanPictures, Depends(provide(ScanPictures))]
ScansDep = Annotated[Scans, Depends(provide(Scans))]
SiteRequestsDep = Annotated[SiteRequests, Depends(provide(SiteRequests))]
SiteTokensDep = Annotated[SiteTokens, Depends(provide(SiteTokens))]
VisitsDep = Annotated[Visits, Depends(provide(Visits))]
