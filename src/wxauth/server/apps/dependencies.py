"""The apps, as a dependency of routes in every room."""

from typing import Annotated

from fastapi import Depends

from wxauth.server.apps.managing import ManagedApps
from wxauth.server.apps.registry import Apps
from wxauth.server.web.dependencies import provide

AppsDep = Annotated[Apps, Depends(provide(Apps))]
ManagedAppsDep = Annotated[ManagedApps, Depends(provide(ManagedApps))]
