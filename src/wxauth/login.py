"""The story of a login."""

from dataclasses import dataclass
from time import perf_counter

from wxauth.errors import AccountDisabled
from wxauth.logs import get_logger
from wxauth.services import Services
from wxauth.settings import AppSettings
from wxauth.store.logins import LoggedIn, Login, record_login
from wxauth.wechat.client import WeChatSession

log = get_logger()


@dataclass(frozen=True, slots=True)
class Device:
    """Where a request comes from."""

    ip: str | None
    user_agent: str | None


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a login gives. Durations in seconds."""

    access_token: str
    expires_in: int
    refresh_token: str
    refresh_expires_in: int
    app: AppSettings
    openid: str
    login: LoggedIn


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
    access_token = services.issuer.issue(
        signing_key,
        user_id=user["id"],
        session_id=login.session_id,
        app_id=app.app_id,
        openid=wechat_session.openid,
        roles=user["roles"],
        now=int(now.timestamp()),
        expires_in=services.settings.access_token_ttl,
    )
    log.info(
        "logged_in",
        user_id=user["id"],
        app_id=app.app_id,
        session_id=login.session_id,
        is_new=login.is_new,
        wechat_ms=round((exchanged - started) * 1000, 1),
        database_ms=round((stored - exchanged) * 1000, 1),
    )
    return Tokens(
        access_token=access_token,
        expires_in=services.settings.access_token_ttl,
        refresh_token=services.refresh_tokens.issue(login.session_id, generation=0),
        refresh_expires_in=refresh_expires_in,
        app=app,
        openid=wechat_session.openid,
        login=login,
    )


def session_key_context(app_id: str, openid: str) -> bytes:
    """What a sealed session_key is bound to."""
    return b"\0".join((b"session_key", app_id.encode(), openid.encode()))


def _sealed(services: Services, app: AppSettings, wechat_session: WeChatSession) -> bytes:
    return services.sealer.seal(
        wechat_session.session_key, context=session_key_context(app.app_id, wechat_session.openid)
    )
