"""Proof that the person is present, by a new `wx.login` code. An access token is no proof: other services see it."""

from wxauth.errors import WrongPerson
from wxauth.server.apps.registry import Apps
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.parts import part
from wxauth.server.core.sealing import Sealer, session_key_context
from wxauth.server.login.login import LoginLimiter
from wxauth.server.session_keys.rows import keep_key
from wxauth.server.users.account import Caller
from wxauth.server.wechat.client import WeChat

log = get_logger()


@part
class Proofs:
    """Proves that a person is present."""

    apps: Apps
    limiter: LoginLimiter
    wechat: WeChat
    sealer: Sealer
    database: Database

    async def prove(self, caller: Caller, login_code: str, *, ip: str | None) -> None:
        """Check with WeChat that a `wx.login` code belongs to the session's identity. It is rate-limited as a login.

        The wx.login may have replaced the identity's session_key. So the new one is stored in the session. A new
        unionid is left to the next login.

        This does not check that the session is still open: the statement that relies on the proof must do that.

        Raises: RateLimited, UnknownApp, WeChatError, WrongPerson.
        """
        app_id, openid = caller.user.app_id, caller.user.openid
        await self.limiter.admit_address(ip)
        app = self.apps.find(app_id)
        identity = await self.wechat.exchange(app, login_code)
        if identity.openid != openid:
            log.warning("wrong_person", user_id=caller.user.id, app_id=app_id, session_id=caller.session_id)
            raise WrongPerson("login_code is another person's than the session: log in again")
        if identity.session_key is not None:
            sealed = self.sealer.seal(identity.session_key, context=session_key_context(app_id, openid))
            await keep_key(self.database, caller.session_id, sealed)
