"""Login and what belongs to it, as dependencies of routes."""

from typing import Annotated

from fastapi import Depends

from wxauth.server.login.login import LoginLimiter, Logins
from wxauth.server.login.proof import Proofs
from wxauth.server.web.dependencies import provide

LoginLimiterDep = Annotated[LoginLimiter, Depends(provide(LoginLimiter))]
LoginsDep = Annotated[Logins, Depends(provide(Logins))]
ProofsDep = Annotated[Proofs, Depends(provide(Proofs))]
