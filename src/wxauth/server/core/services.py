"""The parts of the service by name. `wxauth.server.service.build` assembles them.

The types are imported only for the type checker, so that a use case in any room can take `services` without importing
the rooms above it.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

if TYPE_CHECKING:
    from wxauth.guard.bearer import BearerGuard
    from wxauth.server.apps.registry import Apps
    from wxauth.server.core.background import Background
    from wxauth.server.core.clock import Clock
    from wxauth.server.core.database import Database
    from wxauth.server.core.promises import Promises
    from wxauth.server.core.sealing import Sealer
    from wxauth.server.core.settings import Settings
    from wxauth.server.events.delivering import Deliveries
    from wxauth.server.events.webhook_names import Names
    from wxauth.server.keys.keyring import IdTokenKeys, KeyRing
    from wxauth.server.limits.rate_limits import RateLimiter
    from wxauth.server.numbers.numbers import Numbers
    from wxauth.server.phones.phones import Phones
    from wxauth.server.pictures.avatars import Avatars
    from wxauth.server.profile.nicknames import Nicknames
    from wxauth.server.push.withdrawals import Withdrawals
    from wxauth.server.refusals.refusals import Refusals
    from wxauth.server.risk.risk import Risk
    from wxauth.server.service.prometheus import Metrics
    from wxauth.server.service.readiness import Readiness
    from wxauth.server.service.spans import Tracing
    from wxauth.server.sessions.refresh_tokens import RefreshTokens
    from wxauth.server.websites.pictures import Pictures
    from wxauth.server.websites.scan_limits import ScanLimits
    from wxauth.server.websites.secrets import UserCodes
    from wxauth.server.wechat.api import WeChatApi
    from wxauth.server.wechat.client import WeChat
    from wxauth.server.wechat.wechat_tokens import WeChatTokens
    from wxauth.tokens.issuer import TokenIssuer


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts that a use case needs. Tests build their own."""

    settings: "Settings"
    clock: "Clock"
    database: "Database"
    keys: "KeyRing"
    id_token_keys: "IdTokenKeys"
    sealer: "Sealer"
    apps: "Apps"
    issuer: "TokenIssuer"
    refresh_tokens: "RefreshTokens"
    console_tokens: "RefreshTokens"
    wechat: "WeChat"
    wechat_tokens: "WeChatTokens"
    wechat_api: "WeChatApi"
    phones: "Phones"
    nicknames: "Nicknames"
    risk: "Risk"
    background: "Background"
    promises: "Promises"
    withdrawals: "Withdrawals"
    avatars: "Avatars"
    deliveries: "Deliveries"
    webhook_names: "Names"
    guard: "BearerGuard"
    login_limiter: "RateLimiter"
    numbers: "Numbers"
    refusals: "Refusals"
    scan_limits: "ScanLimits"
    user_codes: "UserCodes"
    pictures: "Pictures"
    metrics: "Metrics"
    readiness: "Readiness"
    tracing: "Tracing | None"

    async def aclose(self) -> None:
        """Close every connection."""
        await self.avatars.aclose()
        # Each waits some seconds for its unfinished work. They wait together, so that a stop does not take the sum.
        await asyncio.gather(self.background.aclose(), self.phones.aclose(), self.deliveries.aclose())
        await self.promises.aclose()  # after the others, which may have put off more
        await self.wechat_tokens.aclose()
        await self.wechat.aclose()
        await self.wechat_api.aclose()
        await self.login_limiter.aclose()
        await asyncio.gather(self.numbers.aclose(), self.refusals.aclose())
        await self.scan_limits.aclose()
        await self.database.aclose()
        if self.tracing is not None:
            await self.tracing.aclose()


async def services_of(connection: HTTPConnection) -> Services:
    """The services of the app that received the request."""
    services: Services = connection.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]
"""The parts of the service."""
