"""The story of a login."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from typing import Any
from uuid import UUID

from wxauth.errors import AccountDisabled
from wxauth.logs import get_logger
from wxauth.services import Services
from wxauth.settings import AppSettings
from wxauth.store.logins import Login, record_login
from wxauth.tokens.keys import SigningKey
from wxauth.wechat.client import WeChatSession

log = get_logger()


@dataclass(frozen=True, slots=True)
class Device:
    """Where a request comes from."""

    ip: str | None
    user_agent: str | None


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a login or a refresh gives. Durations in seconds."""

    access_token: str
    expires_in: int
    refresh_token: str
    refresh_expires_in: int
    session_id: UUID
    is_new_user: bool
    user: Mapping[str, Any]
    """The user, with the app_id and openid of the session."""


async def log_in(
    services: Services,
    *,
    code: str,
    app_id: str | None,
    nickname: str | None,
    avatar_url: str | None,
    device: Device,
) -> Tokens:
    """Exchange a `wx.login` code for tokens; the user is made at first sight.

    Raises: UnknownApp, WeChatError, StorageUnavailable, AccountDisabled.
    """
    now = services.clock()
    app = services.settings.app(app_id)
    signing_key = services.keys.signing_key(now)  # asked for before the code is spent

    started = perf_counter()
    wechat_session = await services.wechat.code2session(app, code)
    exchanged = perf_counter()

    refresh_expires_in = min(services.settings.refresh_token_ttl, services.settings.session_max_age)
    login = await record_login(
        services.database,
        Login(
            app_id=app.app_id,
            openid=wechat_session.openid,
            unionid=wechat_session.unionid,
            nickname=nickname,
            avatar_url=avatar_url,
            session_key=_sealed(services, app, wechat_session),
            ip=device.ip,
            user_agent=device.user_agent,
            expires_in=refresh_expires_in,
        ),
        now=now,
    )
    stored = perf_counter()

    user = login.user
    if login.is_disabled:
        log.warning("login_refused", reason="account_disabled", user_id=user["id"], app_id=app.app_id)
        raise AccountDisabled("this user has been disabled by an administrator")
    log.info(
        "logged_in",
        user_id=user["id"],
        app_id=app.app_id,
        session_id=login.session_id,
        is_new=login.is_new,
        wechat_ms=round((exchanged - started) * 1000, 1),
        database_ms=round((stored - exchanged) * 1000, 1),
    )
    return _tokens(
        services,
        signing_key,
        {**user, "app_id": app.app_id, "openid": wechat_session.openid},
        session_id=login.session_id,
        generation=0,
        refresh_expires_in=refresh_expires_in,
        is_new_user=login.is_new,
        now=now,
    )


def session_key_context(app_id: str, openid: str) -> bytes:
    """What a sealed session_key is bound to."""
    return b"\0".join((b"session_key", app_id.encode(), openid.encode()))


def _sealed(services: Services, app: AppSettings, wechat_session: WeChatSession) -> bytes:
    return services.sealer.seal(
        wechat_session.session_key, context=session_key_context(app.app_id, wechat_session.openid)
    )


def _tokens(
    services: Services,
    signing_key: SigningKey,
    user: Mapping[str, Any],
    *,
    session_id: UUID,
    generation: int,
    refresh_expires_in: int,
    is_new_user: bool,
    now: datetime,
) -> Tokens:
    expires_in = services.settings.access_token_ttl
    return Tokens(
        access_token=services.issuer.issue(
            signing_key,
            user_id=user["id"],
            session_id=session_id,
            app_id=user["app_id"],
            openid=user["openid"],
            roles=user["roles"],
            now=int(now.timestamp()),
            expires_in=expires_in,
        ),
        expires_in=expires_in,
        refresh_token=services.refresh_tokens.issue(session_id, generation),
        refresh_expires_in=refresh_expires_in,
        session_id=session_id,
        is_new_user=is_new_user,
        user=user,
    )
