"""The apps' WeChat tokens: handed out to services that call WeChat themselves, and force-refreshed."""

from datetime import timedelta
from typing import Final

from wxauth.errors import WrongAppKind
from wxauth.server.apps.registry import Apps
from wxauth.server.core.logs import get_logger
from wxauth.server.core.services import Services
from wxauth.server.core.settings import App
from wxauth.server.core.trail import OPERATOR, Actor, EventType, record_event
from wxauth.server.siblings.rows import record_reading
from wxauth.server.wechat.wechat_tokens import WeChatToken, WeChatTokens

LOOKED_WITHIN: Final = timedelta(minutes=1)
"""How long, at most, clients are still given a WeChat token that WeChat has replaced."""

log = get_logger()


async def read_wechat_token(services: Services, client_id: str, app_id: str, *, ip: str | None) -> WeChatToken:
    """The app's WeChat token, for a service client. The audit trail records this once a day per client.

    Raises: UnknownApp, WrongAppKind, WeChatError, StorageUnavailable.
    """
    app = _app_with_token(services, app_id)
    with services.metrics.wechat_token_read(app.app_id):
        token = await services[WeChatTokens].get(app, looked_within=LOOKED_WITHIN)
    await record_reading(services.database, Actor(client_id, ip), app_id=app.app_id, now=services.clock())
    return token


async def force_wechat_token(services: Services, app_id: str) -> None:
    """Make WeChat replace an app's token: the way out if WeChat refuses the token that it hands out.

    The former token stops working for everybody.

    Raises: UnknownApp, WrongAppKind, WeChatError, StorageUnavailable.
    """
    app = _app_with_token(services, app_id)
    async with services.database.begin() as transaction:
        await record_event(
            transaction, EventType.WECHAT_TOKEN_FORCED, by=OPERATOR, at=services.clock(), app_id=app.app_id
        )
    await services[WeChatTokens].force(app)
    log.info("access_token_forced", app_id=app.app_id)


def _app_with_token(services: Services, app_id: str) -> App:
    app = services[Apps].find(app_id)
    if not app.has_wechat_token:
        raise WrongAppKind(f"WeChat gives a {app.kind} no access token of its own")
    return app
