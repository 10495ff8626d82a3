"""The key rings, as dependencies of routes."""

from typing import Annotated

from fastapi import Depends

from wxauth.server.keys.issuing import Issuer
from wxauth.server.keys.keyring import IdTokenKeys, KeyRing
from wxauth.server.web.dependencies import provide

IssuerDep = Annotated[Issuer, Depends(provide(Issuer))]
KeyRingDep = Annotated[KeyRing, Depends(provide(KeyRing))]
IdTokenKeysDep = Annotated[IdTokenKeys, Depends(provide(IdTokenKeys))]
