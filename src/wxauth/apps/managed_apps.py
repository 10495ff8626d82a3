"""The adding, changing and removing of stored apps, for administrators."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError

from wxauth import errors
from wxauth.apps import queries
from wxauth.apps.registry import NOT_OPENED, Apps, InvalidApp, KnownApp, detail_of_invalid, sealed_app, unsealed_app
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.sealing import CannotOpen, Sealer
from wxauth.core.services import part
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.i18n import WrongValue
from wxauth.outbound.urls import NameResolver, check_url
from wxauth.settings.apps import App, AppFields
from wxauth.settings.settings import Settings
from wxauth.settings.urls import is_below
from wxauth.web.bodies import errors_of, invalid_request
from wxauth.wechat.client import WeChat, exchange_api
from wxauth.wechat.errcodes import errcode_of
from wxauth_guard.errors import FieldError, InvalidRequest

_APP_TAKEN: Final = "an app with this ID already exists"
# The documentation shows this error. A raised exception keeps its stack frames alive, so requests raise new ones.
NO_SUCH_APP: Final = errors.NotFound(errors.no_such("app"))

# Other codes are about no field. For example, 40164 means that this server's IP address is not in the whitelist.
_FIELD_OF_ERRCODE: Final = {
    40001: "app_secret",
    40013: "app_id",
    40125: "app_secret",
    40243: "app_secret",
    41002: "app_id",
    41004: "app_secret",
}

log = get_logger()


@part
class ManagedApps:
    clock: Clock
    sealer: Sealer
    apps: Apps
    settings: Settings
    database: Database
    wechat: WeChat
    name_resolver: NameResolver

    async def add(self, app: App, *, is_enabled: bool, asks_wechat: bool, by: Actor) -> KnownApp:
        """Add an app. If `asks_wechat`, WeChat must first accept its id and secret.

        Raises: AppTaken; InvalidRequest; AppRefused, if WeChat rejects the id, the secret or, for example, this
        server's IP address; WeChatError, if the check fails for another reason; StorageUnavailable.
        """
        await self.apps.refresh()
        if any(known.app.app_id == app.app_id for known in self.apps.all()):
            raise errors.AppTaken(_APP_TAKEN)
        if app.app_id == self.settings.audience or await self.database.value(queries.IS_NAME_OF_SITE, name=app.app_id):
            raise InvalidRequest.of(
                "app_id",
                "must not be the audience or the name of a site, because services couldn't distinguish the tokens",
            )
        await self._check_forward(app.push_forward)
        if asks_wechat:
            await self._ensure_wechat_accepts(app)
        now = self.clock()
        row = sealed_app(KnownApp(app, "database", is_enabled=is_enabled), self.sealer, created_at=now)
        async with self.database.begin() as transaction:
            is_added = await transaction.value(queries.ADD_APP, **row.model_dump()) is not None
            if is_added:
                await record_event(transaction, EventType.APP_ADDED, by=by, at=now, app_id=app.app_id)
        if not is_added:
            raise errors.AppTaken(_APP_TAKEN)
        log.info("app_added", app_id=app.app_id, actor=by.name)
        await self.apps.refresh()
        return self.apps.entry(app.app_id)

    async def change(self, app_id: str, changes: Mapping[str, Any], *, asks_wechat: bool, by: Actor) -> KnownApp:
        """Change fields of an app, or `is_enabled`, and return the changed app. None clears an optional field.

        If a value changes, the app is stored anew, without the stored values that `unsealed_app` ignores.

        Raises: NotFound; AppInSettings; InvalidRequest; AppRefused or WeChatError, as `add`; StorageUnavailable,
        including if the stored app cannot be used.
        """
        self._refuse_app_in_settings(app_id)
        await self._check_forward(changes.get("push_forward"))
        if asks_wechat and "app_secret" in changes:
            known = await self.read(app_id)
            await self._ensure_wechat_accepts(_app_after(known, {"app_secret": changes["app_secret"]}).app)
        now = self.clock()
        async with self.database.begin() as transaction:
            row = await transaction.row(queries.LOCK_APP, app_id=app_id)
            if row is None:
                raise errors.NotFound(NO_SUCH_APP.detail)
            before = self._unseal(row)
            after = _app_after(before, changes)
            changed_fields = [name for name, value in changes.items() if value != _value_of(before, name)]
            if changed_fields:
                changed_row = sealed_app(after, self.sealer, created_at=row.created_at)
                await transaction.run(queries.CHANGE_APP, **changed_row.model_dump(exclude={"created_at"}))
                data = {"fields": changed_fields}
                await record_event(transaction, EventType.APP_CHANGED, by=by, at=now, app_id=app_id, data=data)
        if changed_fields:
            log.info("app_changed", app_id=app_id, actor=by.name, fields=changed_fields)
        await self.apps.refresh()
        return self.apps.entry(app_id)

    async def remove(self, app_id: str, *, by: Actor) -> None:
        """Remove an app and its secrets. Open sessions continue. Raises: NotFound, AppInSettings."""
        self._refuse_app_in_settings(app_id)
        async with self.database.begin() as transaction:
            is_removed = await transaction.value(queries.DELETE_APP, app_id=app_id) is not None
            if is_removed:
                await record_event(transaction, EventType.APP_REMOVED, by=by, at=self.clock(), app_id=app_id)
        if not is_removed:
            raise errors.NotFound(NO_SUCH_APP.detail)
        log.info("app_removed", app_id=app_id, actor=by.name)
        await self.apps.refresh()

    async def read(self, app_id: str) -> KnownApp:
        """Read an app anew. Raises: NotFound; StorageUnavailable, including if it cannot be used."""
        await self.apps.refresh()
        try:
            return self.apps.entry(app_id)
        except errors.UnknownApp:
            raise errors.NotFound(NO_SUCH_APP.detail) from None

    def _refuse_app_in_settings(self, app_id: str) -> None:
        if any(app.app_id == app_id for app in self.settings.apps):
            raise errors.AppInSettings("this app is defined in WXAUTH_APPS or WXAUTH_APP_ID: change it there")

    async def _check_forward(self, url: str | None) -> None:
        if url is None:
            return
        try:
            # The name of an https URL is not resolved here, because each connection checks the addresses behind it.
            await check_url(url, resolver=self.name_resolver, resolves_https=False)
        except WrongValue as exc:
            raise InvalidRequest.of("push_forward", exc.text) from None
        if is_below(url, self.settings.issuer):
            raise InvalidRequest.of("push_forward", "must not point to wxauth itself")

    async def _ensure_wechat_accepts(self, app: App) -> None:
        try:
            await self.wechat.check_secret(app)
        except errors.WeChatMisconfigured as exc:
            raise _refusal_of(app, exc) from exc
        except errors.WeChatTimeout as exc:
            raise errors.WeChatUnavailable("WeChat didn't respond in time, so nothing is stored") from exc

    def _unseal(self, row: queries.SealedApp) -> KnownApp:
        try:
            return unsealed_app(row, self.sealer)
        except CannotOpen as exc:
            raise errors.StorageUnavailable(NOT_OPENED) from exc
        except InvalidApp as exc:
            raise errors.StorageUnavailable(detail_of_invalid(exc.field_names)) from exc


def _refusal_of(app: App, exc: errors.WeChatMisconfigured) -> errors.AppRefused:
    assert exc.errcode is not None  # `check_secret` raises this error only for an errcode
    field_name = _FIELD_OF_ERRCODE.get(exc.errcode)
    field_errors = [FieldError(field_name, "WeChat rejects the value")] if field_name else []
    detail = f"WeChat: {errcode_of(exc.errcode, api=exchange_api(app)).remedy}"
    return errors.AppRefused(detail, errcode=exc.errcode, errors=field_errors)


def _app_after(before: KnownApp, changes: Mapping[str, Any]) -> KnownApp:
    if changes.get("kind", before.app.kind) != before.app.kind:
        raise InvalidRequest.of("kind", "can't be changed: add another app")
    app_fields = {name: value for name, value in changes.items() if name in AppFields.model_fields}
    try:
        app = App.model_validate({**dict(before.app), **app_fields})
    except ValidationError as exc:
        raise invalid_request(errors_of(exc)) from None
    return replace(before, app=app, is_enabled=changes.get("is_enabled", before.is_enabled))


def _value_of(known: KnownApp, name: str) -> Any:
    return getattr(known.app if name in AppFields.model_fields else known, name)
