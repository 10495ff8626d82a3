"""The parts of the service, built once and handed to the routes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Annotated, Final, Self

import httpx
from fastapi import Depends
from starlette.requests import HTTPConnection

from wxauth import background, keyring, phones, policies, withdrawals
from wxauth.avatars import Avatars
from wxauth.background import Background
from wxauth.clock import Clock, utc_now
from wxauth.guard.bearer import BearerGuard
from wxauth.keyring import KeyRing
from wxauth.metrics import Metrics
from wxauth.phones import LATE, Phones
from wxauth.policies import Policies
from wxauth.rate_limits import LoginLimiter
from wxauth.refresh_tokens import RefreshTokens
from wxauth.sealing import Sealer
from wxauth.settings import Settings
from wxauth.store.access_tokens import claim_forcing
from wxauth.store.database import DEADLINES, Database, Deadlines
from wxauth.tokens.issuer import TokenIssuer
from wxauth.wechat.access_tokens import AccessTokens, Forcing
from wxauth.wechat.api import WeChatApi
from wxauth.wechat.client import BUSY_PAUSES, WeChat
from wxauth.wechat.transport import AiohttpTransport
from wxauth.withdrawals import Withdrawals

CONNECT_SHARE = 0.4
"""What one connect may take of the whole exchange's time, so that the fallback host has its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Seconds for which the parts wait, in production as they say themselves. A test that is about one shortens it."""

    database: Deadlines = DEADLINES
    farewell: float = background.FAREWELL
    keys_refresh: float = keyring.REFRESH_PAUSE
    phones_farewell: float = phones.FAREWELL_TO_WECHAT
    phones_of_others: Sequence[float] = phones.PAUSES_FOR_OTHERS
    phones_store: float = phones.STORE_PAUSE
    policies_ban: float = policies.BAN_PAUSE
    policies_longest: float = policies.PATIENCE
    wechat_busy: Sequence[float] = BUSY_PAUSES
    withdrawals_patience: float = withdrawals.PATIENCE
    withdrawals_retry: float = withdrawals.RETRY_PAUSE


WAITS: Final = Waits()


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
    access_tokens: AccessTokens
    wechat_api: WeChatApi
    phones: Phones
    policies: Policies
    background: Background
    withdrawals: Withdrawals
    avatars: Avatars
    guard: BearerGuard
    login_limiter: LoginLimiter
    metrics: Metrics

    @classmethod
    def build(
        cls,
        settings: Settings,
        *,
        clock: Clock = utc_now,
        wechat_transport: httpx.AsyncBaseTransport | None = None,
        waits: Waits = WAITS,
    ) -> Self:
        """Put the parts together. Opens no connection."""
        database = Database(settings.database_url.get_secret_value(), deadlines=waits.database)
        sealer = Sealer(settings.secret_keys)
        keys = KeyRing(
            database,
            sealer,
            clock,
            max_age=timedelta(seconds=settings.signing_key_max_age),
            refresh_pause=waits.keys_refresh,
        )
        metrics = Metrics([app.app_id for app in settings.apps], database=database, clock=clock)

        def make_transport() -> httpx.AsyncBaseTransport:
            return wechat_transport or AiohttpTransport(connect_timeout=settings.wechat_timeout * CONNECT_SHARE)

        make_wechat = partial(
            WeChat,
            base_url=settings.wechat_base_url,
            fallback_url=settings.wechat_fallback_url,
            busy_pauses=waits.wechat_busy,
            observe=metrics.wechat_call,
        )
        wechat = make_wechat(make_transport(), timeout=settings.wechat_timeout)
        # Connections of their own: an API that hangs, and is waited for, takes none from the logins.
        api_transport = make_transport()
        api_wechat = make_wechat(api_transport, timeout=settings.wechat_timeout)
        patient_wechat = make_wechat(api_transport, timeout=settings.wechat_timeout + LATE)
        quiet_wechat = make_wechat(api_transport, timeout=settings.wechat_timeout, tells_refusals=False)

        async def may_force(app_id: str) -> Forcing:
            return Forcing(await claim_forcing(database, app_id, now=clock()))

        access_tokens = AccessTokens(wechat, clock, may_force=may_force)
        background = Background(patience=settings.wechat_timeout + waits.database.whole, farewell=waits.farewell)
        return cls(
            settings=settings,
            clock=clock,
            database=database,
            keys=keys,
            sealer=sealer,
            issuer=TokenIssuer(issuer=settings.issuer, audience=settings.audience),
            refresh_tokens=RefreshTokens(settings.secret_keys),
            wechat=wechat,
            access_tokens=access_tokens,
            wechat_api=WeChatApi(api_wechat, access_tokens),
            phones=Phones(
                database,
                sealer,
                WeChatApi(patient_wechat, access_tokens),
                clock,
                timeout=settings.wechat_timeout,
                may_share=settings.phone_policy == "share",
                check_openid=settings.phone_check_openid,
                store_pause=waits.phones_store,
                pauses_for_others=waits.phones_of_others,
                farewell=waits.phones_farewell,
            ),
            policies=Policies(
                database,
                WeChatApi(quiet_wechat, access_tokens),
                clock,
                background=background,
                find_app=settings.app,
                risk=settings.risk_policy,
                nickname=settings.nickname_check,
                observe=metrics.policy_check,
                longest_wait=waits.policies_longest,
                ban_pause=waits.policies_ban,
            ),
            background=background,
            withdrawals=Withdrawals(
                settings, database, clock, patience=waits.withdrawals_patience, retry_pause=waits.withdrawals_retry
            ),
            avatars=Avatars(database, clock, issuer=settings.issuer),
            guard=BearerGuard(settings.issuer, settings.audience, keys=keys, clock=lambda: clock().timestamp()),
            login_limiter=LoginLimiter(
                settings.login_rate_limit,
                redis_url=None if settings.redis_url is None else settings.redis_url.get_secret_value(),
                clock=clock,
            ),
            metrics=metrics,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self.avatars.aclose()
        # Each waits some seconds for what it has under way; together, so that a stop does not take their sum.
        await asyncio.gather(self.background.aclose(), self.withdrawals.aclose(), self.phones.aclose())
        await self.access_tokens.aclose()
        await self.wechat.aclose()
        await self.wechat_api.aclose()  # the connections of phones and policies too
        await self.login_limiter.aclose()
        await self.database.aclose()


async def services_of(connection: HTTPConnection) -> Services:
    """The services of the app that a request came to."""
    services: Services = connection.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]
"""The parts of the service."""
