"""The proof that the person is here: a new `wx.login`. A bearer alone proves nothing, because siblings see bearers."""

from wxauth.errors import WrongPerson
from wxauth.server.apps.registry import Apps
from wxauth.server.core.logs import get_logger
from wxauth.server.core.sealing import session_key_context
from wxauth.server.core.services import Services
from wxauth.server.login.login import LoginLimiter
from wxauth.server.session_keys.rows import keep_key
from wxauth.server.users.account import Caller
from wxauth.server.wechat.client import WeChat

log = get_logger()


async def prove_person(services: Services, caller: Caller, login_code: str, *, ip: str | None) -> None:
    """Check with WeChat that a `wx.login` code is of the session's identity. It counts as a login does.

    WeChat may have replaced the identity's session_key by this wx.login: the new one replaces the session's. A unionid
    in WeChat's answer changes nothing: the next login sees to it.

    Whether the session is still open is for the statement that acts upon the proof.

    Raises: RateLimited, UnknownApp, WeChatError, WrongPerson, StorageUnavailable.
    """
    app_id, openid = caller.user["app_id"], caller.user["openid"]
    await services[LoginLimiter].admit_address(ip)
    app = services[Apps].find(app_id)
    identity = await services[WeChat].exchange(app, login_code)
    if identity.openid != openid:
        log.warning("wrong_person", user_id=caller.user["id"], app_id=app_id, session_id=caller.session_id)
        raise WrongPerson("login_code is another person's than the session: log in again")
    if identity.session_key is not None:
        sealed = services.sealer.seal(identity.session_key, context=session_key_context(app_id, openid))
        await keep_key(services.database, caller.session_id, sealed)
