"""Login and what belongs to it, as dependencies of routes, and how a proof fails."""

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import Depends

from wxauth.errors import CodeUsed, InvalidCode, RateLimited, UnknownApp, WeChatUserBlocked, WrongPerson
from wxauth.server.login.login import LoginLimiter, Logins
from wxauth.server.login.proof import Proofs
from wxauth.server.web.answers import WECHAT_FAILURES, Failure
from wxauth.server.web.dependencies import provide

LoginLimiterDep = Annotated[LoginLimiter, Depends(provide(LoginLimiter))]
LoginsDep = Annotated[Logins, Depends(provide(Logins))]
ProofsDep = Annotated[Proofs, Depends(provide(Proofs))]

PROOF_FAILURES: Final[Sequence[Failure]] = (
    InvalidCode,
    CodeUsed,
    UnknownApp,
    RateLimited,
    WeChatUserBlocked,
    WrongPerson,
    *WECHAT_FAILURES,
)
"""The failures of a request with the proof that the person is present."""
