"""The proof that the user of a session is present, which is a new login code, and the rate limit of login codes."""

from collections.abc import Sequence
from typing import Final

from wxauth.apps.registry import Apps
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.sealing import Sealer
from wxauth.core.services import part
from wxauth.errors import WrongPerson
from wxauth.limits.rate_limits import RateLimiter
from wxauth.session_keys.queries import STORE_KEY
from wxauth.users.callers import Caller
from wxauth.web.answers import CODE_FAILURES, Failure
from wxauth.wechat.client import WeChat

PROOF_FAILURES: Final[Sequence[Failure]] = (*CODE_FAILURES, WrongPerson)

log = get_logger()


class LoginLimiter(RateLimiter):
    """The limit on logins and proofs from one address. It has its own class, because parts are found by their class."""


@part
class Proofs:
    apps: Apps
    limiter: LoginLimiter
    wechat: WeChat
    sealer: Sealer
    database: Database
    clock: Clock

    async def prove(self, caller: Caller, login_code: str, *, ip: str | None) -> None:
        """Check with WeChat that a new login code belongs to the session's identity, within the rate limit of logins.

        In a mini-program, the call of `wx.login` might have replaced the session_key, so the new one is stored.
        Whether the session has ended is for the caller's own statement to check.

        Raises: RateLimited, UnknownApp, WeChatError; WrongPerson, if the code belongs to another identity.
        """
        app_id = caller.user.app_id
        await self.limiter.admit_address(ip)
        app = self.apps.find(app_id)
        asked_at = self.clock()
        # There is no check for snapshots, because the made-up user of a snapshot has a different openid.
        identity = await self.wechat.exchange(app, login_code)
        if identity.openid != caller.user.openid:
            log.warning("wrong_person", user_id=caller.user.id, app_id=app_id, session_id=caller.session_id)
            raise WrongPerson("login_code belongs to a different person from the session's user: log in again")
        # A new unionid is left to the next login, which stores it.
        sealed = self.sealer.seal_session_key(identity.session_key, app.app_id, identity.openid)
        if sealed is not None:
            await self.database.run(STORE_KEY, session_id=caller.session_id, sealed=sealed, asked_at=asked_at)
