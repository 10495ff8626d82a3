"""The key rings, as dependencies of routes."""

from typing import Annotated

from fastapi import Depends

from wxauth.server.keys.keyring import IdTokenKeys, KeyRing
from wxauth.server.web.dependencies import provide

KeyRingDep = Annotated[KeyRing, Depends(provide(KeyRing))]
IdTokenKeysDep = Annotated[IdTokenKeys, Depends(provide(IdTokenKeys))]
