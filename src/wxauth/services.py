"""The parts of the service, built once and handed to the routes."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Self

import httpx
from fastapi import Depends
from starlette.requests import HTTPConnection

from wxauth.clock import Clock, utc_now
from wxauth.guard.bearer import BearerGuard
from wxauth.keyring import KeyRing
from wxauth.metrics import Metrics
from wxauth.rate_limits import LoginLimiter
from wxauth.refresh_tokens import RefreshTokens
from wxauth.sealing import Sealer
from wxauth.settings import Settings
from wxauth.store.database import Database
from wxauth.tokens.issuer import TokenIssuer
from wxauth.wechat.client import WeChat
from wxauth.wechat.transport import AiohttpTransport

_CONNECT_SHARE = 0.4
"""What one connect may take of the whole exchange's time, so that the fallback host has its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything a use case needs. Tests build another one."""

    settings: Settings
    clock: Clock
    database: Database
    keys: KeyRing
    sealer: Sealer
    issuer: TokenIssuer
    refresh_tokens: RefreshTokens
    wechat: WeChat
    guard: BearerGuard
    login_limiter: LoginLimiter
    metrics: Metrics

    @classmethod
    def build(
        cls, settings: Settings, *, clock: Clock = utc_now, wechat_transport: httpx.AsyncBaseTransport | None = None
    ) -> Self:
        """Put the parts together. Opens no connection."""
        database = Database(settings.database_url.get_secret_value())
        sealer = Sealer(settings.secret_keys)
        keys = KeyRing(database, sealer, clock, max_age=timedelta(seconds=settings.signing_key_max_age))
        transport = wechat_transport or AiohttpTransport(connect_timeout=settings.wechat_timeout * _CONNECT_SHARE)
        return cls(
            settings=settings,
            clock=clock,
            database=database,
            keys=keys,
            sealer=sealer,
            issuer=TokenIssuer(issuer=settings.issuer, audience=settings.audience),
            refresh_tokens=RefreshTokens(settings.secret_keys),
            wechat=WeChat(
                transport,
                base_url=settings.wechat_base_url,
                fallback_url=settings.wechat_fallback_url,
                timeout=settings.wechat_timeout,
            ),
            guard=BearerGuard(settings.issuer, settings.audience, keys=keys, clock=lambda: clock().timestamp()),
            login_limiter=LoginLimiter(
                settings.login_rate_limit,
                redis_url=None if settings.redis_url is None else settings.redis_url.get_secret_value(),
                clock=clock,
            ),
            metrics=Metrics([app.app_id for app in settings.apps], database=database, clock=clock),
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self.wechat.aclose()
        await self.login_limiter.aclose()
        await self.database.aclose()


async def services_of(connection: HTTPConnection) -> Services:
    """The services of the app that a request came to."""
    services: Services = connection.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]
"""The parts of the service."""
