"""Adding, changing and removing apps while the service runs."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import SecretStr

from wxauth.errors import (
    AppInSettings,
    AppRefused,
    AppTaken,
    FieldError,
    InvalidRequest,
    NotFound,
    WeChatMisconfigured,
    WeChatTimeout,
    WeChatUnavailable,
)
from wxauth.server.apps.registry import KnownApp
from wxauth.server.apps.rows import SEALED, change_app, delete_app, is_name_of_site, lock_app, store_app
from wxauth.server.apps.tables import StoredApp
from wxauth.server.core.logs import get_logger
from wxauth.server.core.sealing import app_context
from wxauth.server.core.services import Services
from wxauth.server.core.settings import App
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.wechat.errcodes import CODE2SESSION, what_to_change

NO_SUCH_APP: Final = "there is no such app"
KEY_WANTS_TOKEN: Final = "wants push_token beside it"  # noqa: S105 - what is wrong with a field

_OF_THE_ID: Final = frozenset({40013, 41002})

log = get_logger()


async def add_app(
    services: Services, app: App, *, title: str | None, is_enabled: bool, is_checked: bool, by: Actor
) -> KnownApp:
    """Add an app. Every process knows it within seconds.

    Args:
        services: The parts of the service.
        app: The app.
        title: What administrators call it.
        is_enabled: Whether people may log in to it.
        is_checked: Whether WeChat is asked first if it takes id and secret.
        by: Who adds the app.

    Raises: AppTaken, InvalidRequest, AppRefused, WeChatError, StorageUnavailable.
    """
    await services.apps.refresh()
    if any(known.app.app_id == app.app_id for known in services.apps.all()):
        raise AppTaken("there is an app of this id already")
    if app.app_id == services.settings.audience or await is_name_of_site(services.database, app.app_id):
        raise InvalidRequest.of("app_id", "must not be the audience's or a site's: tokens would be confused")
    if is_checked:
        await _see_that_wechat_takes(services, app)
    now = services.clock()
    row = StoredApp(
        app_id=app.app_id,
        title=title,
        sign_up=app.sign_up,
        is_enabled=is_enabled,
        created_at=now,
        **_sealed_secrets(services, app),
    )
    async with services.database.begin() as transaction:
        is_added = await store_app(transaction, row)
        if is_added:
            await record_event(transaction, EventType.APP_ADDED, by=by, at=now, app_id=app.app_id)
    if not is_added:
        raise AppTaken("there is an app of this id already")
    log.info("app_added", app_id=app.app_id, actor=by.name)
    await services.apps.refresh()
    return services.apps.known(app.app_id)


async def change(
    services: Services, app_id: str, changes: Mapping[str, Any], *, is_checked: bool, by: Actor
) -> KnownApp:
    """Change an app's named fields. Secrets are SecretStr; None clears a field that may be empty.

    Raises: NotFound, AppInSettings, InvalidRequest, AppRefused, WeChatError, StorageUnavailable.
    """
    await _see_that_it_is_stored(services, app_id)
    if is_checked and "app_secret" in changes:
        await _see_that_wechat_takes(services, App(app_id=app_id, app_secret=changes["app_secret"]))
    stored: dict[str, Any] = {
        name: _sealed(services, app_id, name, value) if name in SEALED else value for name, value in changes.items()
    }
    now = services.clock()
    async with services.database.begin() as transaction:
        before = await lock_app(transaction, app_id)
        if before is None:
            raise NotFound(NO_SUCH_APP)
        after = StoredApp(**{**before.model_dump(), **stored})
        if after.push_aes_key is not None and after.push_token is None:
            raise InvalidRequest.of("push_aes_key", KEY_WANTS_TOKEN)
        changed = [name for name in changes if _differs(services, name, before, changes[name])]
        if changed:
            await change_app(transaction, after)
            data = {"fields": changed}
            await record_event(transaction, EventType.APP_CHANGED, by=by, at=now, app_id=app_id, data=data)
    if changed:
        log.info("app_changed", app_id=app_id, actor=by.name, fields=changed)
    await services.apps.refresh()
    return services.apps.known(app_id)


async def remove_app(services: Services, app_id: str, *, by: Actor) -> None:
    """Remove an app with its secrets. Nobody can log in to it any more; sessions that are open stay open.

    Raises: NotFound, AppInSettings, StorageUnavailable.
    """
    await _see_that_it_is_stored(services, app_id)
    async with services.database.begin() as transaction:
        is_removed = await delete_app(transaction, app_id)
        if is_removed:
            await record_event(transaction, EventType.APP_REMOVED, by=by, at=services.clock(), app_id=app_id)
    if not is_removed:
        raise NotFound(NO_SUCH_APP)
    log.info("app_removed", app_id=app_id, actor=by.name)
    await services.apps.refresh()


async def read_app(services: Services, app_id: str) -> KnownApp:
    """An app as it is stored now. Raises: NotFound, StorageUnavailable."""
    await services.apps.refresh()
    found = next((known for known in services.apps.all() if known.app.app_id == app_id), None)
    if found is None:
        raise NotFound(NO_SUCH_APP)
    return found


async def _see_that_it_is_stored(services: Services, app_id: str) -> None:
    """Raises: AppInSettings. An app that is not stored either is found out by the statement that changes it."""
    if any(app.app_id == app_id for app in services.settings.apps):
        raise AppInSettings("this app is one of WXAUTH_APPS, or WXAUTH_APP_ID: change it there")


async def _see_that_wechat_takes(services: Services, app: App) -> None:
    """Raises: AppRefused, if WeChat does not take id or secret; WeChatUnavailable and other WeChatError."""
    try:
        await services.wechat.check_secret(app)
    except WeChatMisconfigured as exc:
        if exc.errcode is None:
            raise
        field = "app_id" if exc.errcode in _OF_THE_ID else "app_secret"
        problem = FieldError(field, "WeChat does not take it")
        detail = f"WeChat: {what_to_change(exc.errcode, api=CODE2SESSION)}"
        raise AppRefused(detail, errcode=exc.errcode, errors=[problem]) from exc
    except WeChatTimeout as exc:
        raise WeChatUnavailable("WeChat gave no answer in time, so that nothing is stored") from exc


def _sealed_secrets(services: Services, app: App) -> dict[str, Any]:
    return {name: _sealed(services, app.app_id, name, getattr(app, name)) for name in SEALED}


def _sealed(services: Services, app_id: str, name: str, value: SecretStr | None) -> bytes | None:
    if value is None:
        return None
    return services.sealer.seal(value.get_secret_value().encode(), context=app_context(app_id, name))


def _differs(services: Services, name: str, before: StoredApp, value: Any) -> bool:
    """Whether this value differs from the stored one. Sealed values are opened: each sealing gives other bytes."""
    former = getattr(before, name)
    if name not in SEALED or former is None or value is None:
        return bool(former != value)
    opened = services.sealer.open(former, context=app_context(before.app_id, name))
    return bool(opened != value.get_secret_value().encode())
