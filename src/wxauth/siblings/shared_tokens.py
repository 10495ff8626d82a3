"""The apps' WeChat tokens, shared with services that call WeChat themselves."""

from datetime import timedelta
from typing import Final

from wxauth.apps.registry import Apps
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.metrics import Counter
from wxauth.core.services import part
from wxauth.core.trail import Actor, EventType, record_daily
from wxauth.errors import WrongAppKind
from wxauth.wechat.wechat_tokens import WeChatToken, WeChatTokens

LOOKED_WITHIN: Final = timedelta(minutes=1)
"""The time for which clients get a cached WeChat token before wxauth requests the current token from WeChat again.

If WeChat issues a new token during this time, clients get the old token until this time is over. `WeChatTokens.get`
explains `looked_within`.
"""

READS: Final = Counter(
    "wxauth_access_token_reads",
    "Requests of service clients for WeChat access tokens, by app and outcome: ok or the code of the error.",
    "app_id",
    "outcome",
)


@part
class SharedWeChatTokens:
    """The part that returns the apps' WeChat tokens to clients."""

    apps: Apps
    wechat_tokens: WeChatTokens
    database: Database
    clock: Clock

    async def read(self, client_id: str, app_id: str, *, ip: str | None) -> WeChatToken:
        """Return the app's WeChat token for a service client, which sent the request from the address `ip`.

        For each client and app, the audit trail records the first read of each UTC day.

        Raises: UnknownApp; WrongAppKind, if WeChat issues no such tokens to this kind of app; WeChatError.
        """
        app = self.apps.find(app_id)
        if not app.has_wechat_token:
            raise WrongAppKind(f"WeChat doesn't issue access tokens to a {app.kind}")
        with READS.outcome_of(app.app_id):
            token = await self.wechat_tokens.get(app, looked_within=LOOKED_WITHIN)
        by = Actor(client_id, ip)
        await record_daily(self.database, EventType.WECHAT_TOKEN_READ, by=by, app_id=app.app_id, now=self.clock())
        return token
