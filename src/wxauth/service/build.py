"""The parts of the service, put together once."""

from datetime import timedelta
from functools import partial

import httpx

from wxauth.avatars import Avatars
from wxauth.core.background import Background
from wxauth.core.clock import Clock, utc_now
from wxauth.core.database import DEADLINE, Database
from wxauth.core.sealing import Sealer
from wxauth.core.services import Services
from wxauth.core.settings import Settings
from wxauth.guard.bearer import BearerGuard
from wxauth.keys.keyring import KeyRing
from wxauth.metrics import Metrics
from wxauth.phones import LATE, Phones
from wxauth.policies import Policies
from wxauth.rate_limits import LoginLimiter
from wxauth.refresh_tokens import RefreshTokens
from wxauth.tokens.issuer import TokenIssuer
from wxauth.wechat.api import WeChatApi
from wxauth.wechat.client import WeChat
from wxauth.wechat.rows import claim_forcing
from wxauth.wechat.transport import CONNECT_SHARE, AiohttpTransport
from wxauth.wechat.wechat_tokens import Forcing, WeChatTokens
from wxauth.withdrawals import Withdrawals


def build_services(
    settings: Settings, *, clock: Clock = utc_now, wechat_transport: httpx.AsyncBaseTransport | None = None
) -> Services:
    """Put the parts together. Opens no connection."""
    database = Database(settings.database_url.get_secret_value())
    sealer = Sealer(settings.secret_keys)
    keys = KeyRing(database, sealer, clock, max_age=timedelta(seconds=settings.signing_key_max_age))
    metrics = Metrics([app.app_id for app in settings.apps], database=database, clock=clock)

    def make_transport() -> httpx.AsyncBaseTransport:
        return wechat_transport or AiohttpTransport(connect_timeout=settings.wechat_timeout * CONNECT_SHARE)

    make_wechat = partial(
        WeChat,
        base_url=settings.wechat_base_url,
        fallback_url=settings.wechat_fallback_url,
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

    wechat_tokens = WeChatTokens(wechat, clock, may_force=may_force)
    background = Background(patience=settings.wechat_timeout + DEADLINE)
    return Services(
        settings=settings,
        clock=clock,
        database=database,
        keys=keys,
        sealer=sealer,
        issuer=TokenIssuer(issuer=settings.issuer, audience=settings.audience),
        refresh_tokens=RefreshTokens(settings.secret_keys),
        wechat=wechat,
        wechat_tokens=wechat_tokens,
        wechat_api=WeChatApi(api_wechat, wechat_tokens),
        phones=Phones(
            database,
            sealer,
            WeChatApi(patient_wechat, wechat_tokens),
            clock,
            timeout=settings.wechat_timeout,
            may_share=settings.phone_policy == "share",
            check_openid=settings.phone_check_openid,
        ),
        policies=Policies(
            database,
            WeChatApi(quiet_wechat, wechat_tokens),
            clock,
            background=background,
            find_app=settings.app,
            risk=settings.risk_policy,
            nickname=settings.nickname_check,
            observe=metrics.policy_check,
        ),
        background=background,
        withdrawals=Withdrawals(settings, database, clock),
        avatars=Avatars(database, clock, issuer=settings.issuer),
        guard=BearerGuard(settings.issuer, settings.audience, keys=keys, clock=lambda: clock().timestamp()),
        login_limiter=LoginLimiter(
            settings.login_rate_limit,
            redis_url=None if settings.redis_url is None else settings.redis_url.get_secret_value(),
            clock=clock,
        ),
        metrics=metrics,
    )
