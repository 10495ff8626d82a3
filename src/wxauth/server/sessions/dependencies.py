"""The refresh tokens, as a dependency of routes."""

from typing import Annotated

from fastapi import Depends

from wxauth.server.sessions.refresh_tokens import RefreshTokens
from wxauth.server.web.dependencies import provide

RefreshTokensDep = Annotated[RefreshTokens, Depends(provide(RefreshTokens))]
