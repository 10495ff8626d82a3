"""What the routes of clients need, as dependencies."""

from typing import Annotated

from fastapi import Depends

from wxauth.server.clients.client_limits import ClientLimits
from wxauth.server.core.receivers import NameResolver
from wxauth.server.web.dependencies import provide

NameResolverDep = Annotated[NameResolver, Depends(provide(NameResolver))]
ClientLimitsDep = Annotated[ClientLimits, Depends(provide(ClientLimits))]
