"""The session_keys, as a dependency of routes."""

from typing import Annotated

from fastapi import Depends

from wxauth.server.session_keys.session_keys import SessionKeys
from wxauth.server.web.dependencies import provide

SessionKeysDep = Annotated[SessionKeys, Depends(provide(SessionKeys))]
