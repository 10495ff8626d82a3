"""Adding, changing and removing apps while the service runs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import Depends
from pydantic import ValidationError

from wxauth.errors import (
    AppInSettings,
    AppRefused,
    AppTaken,
    FieldError,
    InvalidRequest,
    NotFound,
    StorageUnavailable,
    WeChatMisconfigured,
    WeChatTimeout,
    WeChatUnavailable,
)
from wxauth.server.apps.registry import Apps, KnownApp, sealed_app, unsealed_app
from wxauth.server.apps.rows import SealedApp, change_app, delete_app, is_name_of_site, lock_app, store_app
from wxauth.server.core.addresses import NameResolver, RefusedUrl, check_url
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.sealing import CannotOpen, Sealer
from wxauth.server.core.services import part
from wxauth.server.core.setting_types import is_below
from wxauth.server.core.settings import App, AppFields, Settings
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.web.dependencies import provide
from wxauth.server.web.direct import invalid_request
from wxauth.server.wechat.client import WeChat, exchange_api
from wxauth.server.wechat.errcodes import what_to_change

NO_SUCH_APP: Final = "there is no such app"

_OF_THE_ID: Final = frozenset({40013, 41002})

log = get_logger()


@part
class ManagedApps:
    """Adds, changes and removes apps."""

    clock: Clock
    sealer: Sealer
    apps: Apps
    settings: Settings
    database: Database
    wechat: WeChat
    name_resolver: NameResolver

    async def add(self, app: App, *, title: str | None, is_enabled: bool, is_checked: bool, by: Actor) -> KnownApp:
        """Add an app. Every process knows it within seconds. With `is_checked`, WeChat must first accept id and secret.

        Raises: AppTaken, InvalidRequest, AppRefused, WeChatError.
        """
        await self.apps.refresh()
        if any(known.app.app_id == app.app_id for known in self.apps.all()):
            raise AppTaken("there is an app of this id already")
        if app.app_id == self.settings.audience or await is_name_of_site(self.database, app.app_id):
            raise InvalidRequest.of("app_id", "must not be the audience's or a site's: tokens would be confused")
        await self._check_forward(app.push_forward)
        if is_checked:
            await self._ensure_wechat_accepts(app)
        now = self.clock()
        row = sealed_app(KnownApp(app, "database", title, is_enabled), self.sealer, created_at=now)
        async with self.database.begin() as transaction:
            is_added = await store_app(transaction, row)
            if is_added:
                await record_event(transaction, EventType.APP_ADDED, by=by, at=now, app_id=app.app_id)
        if not is_added:
            raise AppTaken("there is an app of this id already")
        log.info("app_added", app_id=app.app_id, actor=by.name)
        await self.apps.refresh()
        return self.apps.entry(app.app_id)

    async def change(self, app_id: str, changes: Mapping[str, Any], *, is_checked: bool, by: Actor) -> KnownApp:
        """Change the given fields of an app, by name. Secrets are SecretStr. None clears an optional field.

        Raises: NotFound, AppInSettings, InvalidRequest, AppRefused, WeChatError.
        """
        await self._ensure_stored(app_id)
        await self._check_forward(changes.get("push_forward"))
        if is_checked and "app_secret" in changes:
            known = await self.read(app_id)
            await self._ensure_wechat_accepts(_app_after(known, {"app_secret": changes["app_secret"]}).app)
        now = self.clock()
        async with self.database.begin() as transaction:
            row = await lock_app(transaction, app_id)
            if row is None:
                raise NotFound(NO_SUCH_APP)
            before = self._unsealed(row)
            after = _app_after(before, changes)
            changed = [name for name, value in changes.items() if value != _value(before, name)]
            if changed:
                await change_app(transaction, sealed_app(after, self.sealer, created_at=row.created_at))
                data = {"fields": changed}
                await record_event(transaction, EventType.APP_CHANGED, by=by, at=now, app_id=app_id, data=data)
        if changed:
            log.info("app_changed", app_id=app_id, actor=by.name, fields=changed)
        await self.apps.refresh()
        return self.apps.entry(app_id)

    async def remove(self, app_id: str, *, by: Actor) -> None:
        """Remove an app and its secrets. Nobody can log in to it any more. Open sessions continue.

        Raises: NotFound, AppInSettings.
        """
        await self._ensure_stored(app_id)
        async with self.database.begin() as transaction:
            is_removed = await delete_app(transaction, app_id)
            if is_removed:
                await record_event(transaction, EventType.APP_REMOVED, by=by, at=self.clock(), app_id=app_id)
        if not is_removed:
            raise NotFound(NO_SUCH_APP)
        log.info("app_removed", app_id=app_id, actor=by.name)
        await self.apps.refresh()

    async def read(self, app_id: str) -> KnownApp:
        """Read an app, after refreshing the registry. Raises: NotFound."""
        await self.apps.refresh()
        found = next((known for known in self.apps.all() if known.app.app_id == app_id), None)
        if found is None:
            raise NotFound(NO_SUCH_APP)
        return found

    async def _ensure_stored(self, app_id: str) -> None:
        """Raises: AppInSettings. If the app does not exist at all, the statement that changes it finds no row."""
        if any(app.app_id == app_id for app in self.settings.apps):
            raise AppInSettings("this app is one of WXAUTH_APPS, or WXAUTH_APP_ID: change it there")

    async def _check_forward(self, url: str | None) -> None:
        """Raises: InvalidRequest, if messages must not be handed on to this URL."""
        if url is None:
            return
        try:
            await check_url(url, resolver=self.name_resolver)
        except RefusedUrl as exc:
            raise InvalidRequest.of("push_forward", str(exc)) from None
        if is_below(url, self.settings.issuer):
            raise InvalidRequest.of("push_forward", "must not lead to wxauth itself")

    async def _ensure_wechat_accepts(self, app: App) -> None:
        """Raises: AppRefused, if WeChat rejects id or secret; WeChatUnavailable and other WeChatError."""
        try:
            await self.wechat.check_secret(app)
        except WeChatMisconfigured as exc:
            if exc.errcode is None:
                raise
            field = "app_id" if exc.errcode in _OF_THE_ID else "app_secret"
            problem = FieldError(field, "WeChat does not take it")
            detail = f"WeChat: {what_to_change(exc.errcode, api=exchange_api(app))}"
            raise AppRefused(detail, errcode=exc.errcode, errors=[problem]) from exc
        except WeChatTimeout as exc:
            raise WeChatUnavailable("WeChat gave no answer in time, so that nothing is stored") from exc

    def _unsealed(self, row: SealedApp) -> KnownApp:
        try:
            return unsealed_app(row, self.sealer)
        except CannotOpen as exc:
            raise StorageUnavailable("this app's secrets cannot be decrypted: see 'wxauth check'") from exc


def _app_after(before: KnownApp, changes: Mapping[str, Any]) -> KnownApp:
    """The app after these changes. Raises: InvalidRequest, if the result is not valid."""
    if changes.get("kind", before.app.kind) != before.app.kind:
        raise InvalidRequest.of("kind", "must stay as it is: add another app")
    of_app = {name: value for name, value in changes.items() if name in AppFields.model_fields}
    try:
        app = App.model_validate({**dict(before.app), **of_app})
    except ValidationError as exc:
        raise invalid_request(exc.errors(include_url=False, include_context=False, include_input=False)) from None
    return replace(before, app=app, **{name: value for name, value in changes.items() if name not in of_app})


def _value(known: KnownApp, name: str) -> Any:
    return getattr(known.app if name in AppFields.model_fields else known, name)


AppsDep = Annotated[Apps, Depends(provide(Apps))]
ManagedAppsDep = Annotated[ManagedApps, Depends(provide(ManagedApps))]
