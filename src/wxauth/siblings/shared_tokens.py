"""The apps' WeChat tokens, shared with services that call WeChat themselves."""

from datetime import timedelta
from typing import Final

from wxauth.apps.registry import Apps
from wxauth.core.apps import App
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.metrics import Counter
from wxauth.core.services import part
from wxauth.core.trail import OPERATOR, Actor, EventType, record_daily, record_event
from wxauth.errors import WrongAppKind
from wxauth.wechat.wechat_tokens import WeChatToken, WeChatTokens

log = get_logger()

LOOKED_WITHIN: Final = timedelta(minutes=1)
"""How long, at most, clients are still given a WeChat token that WeChat has replaced."""

READS: Final = Counter(
    "wxauth_access_token_reads",
    "Requests of service clients for WeChat access tokens, by app and outcome: ok or the code of the error.",
    "app_id",
    "outcome",
)


@part
class SharedWeChatTokens:
    """Hands out the apps' WeChat tokens, and replaces them."""

    apps: Apps
    wechat_tokens: WeChatTokens
    database: Database
    clock: Clock

    async def read(self, client_id: str, app_id: str, *, ip: str | None) -> WeChatToken:
        """The app's WeChat token, for a service client. The audit trail records this once a day per client.

        Raises: UnknownApp, WrongAppKind, WeChatError.
        """
        app = self._app_with_token(app_id)
        with READS.outcome_of(app.app_id):
            token = await self.wechat_tokens.get(app, looked_within=LOOKED_WITHIN)
        read, by = EventType.WECHAT_TOKEN_READ, Actor(client_id, ip)
        await record_daily(self.database, read, by=by, app_id=app.app_id, now=self.clock())
        return token

    async def force(self, app_id: str) -> None:
        """Make WeChat replace an app's token: the way out if WeChat refuses the token that it hands out.

        The former token stops working for everybody.

        Raises: UnknownApp, WrongAppKind, WeChatError.
        """
        app = self._app_with_token(app_id)
        forced, now = EventType.WECHAT_TOKEN_FORCED, self.clock()
        async with self.database.begin() as transaction:
            await record_event(transaction, forced, by=OPERATOR, at=now, app_id=app.app_id)
        await self.wechat_tokens.force(app)
        log.info("access_token_forced", app_id=app.app_id)

    def _app_with_token(self, app_id: str) -> App:
        app = self.apps.find(app_id)
        if not app.has_wechat_token:
            raise WrongAppKind(f"WeChat gives a {app.kind} no access token of its own")
        return app
