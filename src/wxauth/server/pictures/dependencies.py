"""The pictures, as a dependency of routes."""

from typing import Annotated

from fastapi import Depends

from wxauth.server.pictures.avatars import Avatars
from wxauth.server.web.dependencies import provide

AvatarsDep = Annotated[Avatars, Depends(provide(Avatars))]
