"""The apps that users log in to. The settings define some of them, and the database stores others.

`Apps` finds apps in memory. `ManagedApps` adds, changes and removes stored apps for administrators.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from wxauth import errors
from wxauth.apps import queries
from wxauth.core.background import attempt, keep_doing
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.sealing import WRONG_SECRET_KEY, CannotOpen, Sealer, app_context
from wxauth.core.services import part
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.outbound.urls import NameResolver, check_url
from wxauth.settings.apps import APP_ID, App, AppFields, AppKind
from wxauth.settings.claims import Template
from wxauth.settings.http_urls import is_below
from wxauth.settings.settings import Settings
from wxauth.terminal import WrongValue
from wxauth.web.bodies import errors_of, invalid_request
from wxauth.wechat.client import WeChat, exchange_api
from wxauth.wechat.errcodes import errcode_of
from wxauth_guard.errors import FieldError, InvalidRequest

REFRESH_PAUSE_SECONDS: Final = 5.0
"""The number of seconds between two reads of the stored apps."""

AppSource = Literal["settings", "database"]
"""The place where an app is defined."""

_APP_TAKEN: Final = "an app with this ID already exists"
_NOT_OPENED: Final = "this app's secrets can't be decrypted: run 'wxauth check'"
NO_SUCH_APP: Final = errors.NotFound("this app doesn't exist")
"""The failure that the documentation shows for an unknown app.

A request raises a new exception, because a raised exception keeps its stack frames alive.
"""

_FIELDS_OF_ERRCODES: Final = {
    40001: "app_secret",
    40013: "app_id",
    40125: "app_secret",
    40243: "app_secret",
    41002: "app_id",
    41004: "app_secret",
}
"""The field that each of WeChat's error codes is about.

Other codes are not about a field. For example, 40164 means that this server's IP address is not in the whitelist.
"""

log = get_logger()


@dataclass(frozen=True, slots=True)
class KnownApp:
    """An app, with its source and its state. The source is the settings or the database."""

    app: App
    source: AppSource
    is_enabled: bool = True
    created_at: datetime | None = None
    """The time at which the app was added; None for an app in the settings."""
    ignored: Sequence[str] = ()
    """The fields whose stored values are no longer valid.

    These values are ignored. Otherwise an old logo, for example, would prevent all logins to the app.
    """


@part
class Apps:
    """The apps in memory, as last read.

    If the settings and the database contain an app with the same id, the app in the settings is used.

    Args:
        refresh_pause: The number of seconds between two reads of the stored apps.
        hint: A text that is appended to `detail` for the developer if an app is unknown.
    """

    database: Database
    sealer: Sealer
    settings: Settings
    refresh_pause: float = REFRESH_PAUSE_SECONDS
    hint: str = ""
    default: KnownApp | None = field(init=False)
    """The app for logins that name no app; None if there is no mini-program. The app may be disabled."""
    unopened: list[str] = field(init=False, default_factory=list)
    """The ids of the stored apps that `unsealed_app` could not return.

    Either the app's secrets cannot be decrypted, or a required value is no longer valid. wxauth does not distinguish
    these cases. Its texts name only the first one.

    Users cannot log in to these apps, unless the settings contain an app with the same id.
    """
    _by_id: dict[str, KnownApp] = field(init=False)
    """All apps by id, in the order of `all`."""
    _enabled: dict[str | None, App] = field(init=False)
    """The enabled apps by id. The key None also finds the default app, if this app is enabled."""
    _ignored: dict[str, Sequence[str]] = field(init=False, default_factory=dict)
    """The ignored fields of each stored app that has such fields, as last read."""
    _is_read: bool = field(init=False, default=False)
    """Whether the stored apps have been read at least once."""
    _has_failed: bool = field(init=False, default=False)
    """Whether at least one read has failed because the database was unavailable."""

    def __post_init__(self) -> None:
        self._replace_apps([])

    def for_login(self, app_id: str | None) -> App:
        """Return the enabled app with this id; the default app for None.

        The default is the first mini-program in the settings or, if there is none, the mini-program that was added
        first. A disabled app remains the default app, so that logins without an app id fail instead of using another
        app. But a stored app in `unopened` is never the default app.

        Raises: UnknownApp, including for a disabled app; StorageUnavailable, if the stored apps could not be read
        yet, or if the app is in `unopened`.
        """
        app = self._enabled.get(app_id)
        if app is None:
            raise self._unknown_app(app_id)
        return app

    def find(self, app_id: str) -> App:
        """Return the app with this id, even if the app is disabled. The sessions of a disabled app continue.

        Raises: UnknownApp; StorageUnavailable, if the stored apps could not be read yet, or if the app is in
        `unopened`.
        """
        return self.entry(app_id).app

    def entry(self, app_id: str) -> KnownApp:
        """Return the app with its source and state. Raises: the errors of `find`."""
        known = self._by_id.get(app_id)
        if known is None:
            raise self._unknown_app(app_id)
        return known

    def kind_of(self, app_id: str) -> AppKind | None:
        """Return the kind of an app; None if the app is unknown, for example because it was removed."""
        known = self._by_id.get(app_id)
        return None if known is None else known.app.kind

    def find_enabled(self, app_id: str | None) -> App | None:
        """Return the enabled app with this id, or the default app for None. Return None if there is no such app."""
        return self._enabled.get(app_id)

    def max_sessions_of(self, app_id: str) -> int | None:
        """Return the maximum number of open sessions of an identity in an app.

        Return None if the app is unknown or sets no limit.
        """
        known = self._by_id.get(app_id)
        return None if known is None else known.app.max_sessions

    def claims_of(self, app_id: str) -> Template:
        """Return the template of the claims that are added to the access tokens of an app's logins.

        If the app is unknown or has no template, return the template in the settings.
        """
        known = self._by_id.get(app_id)
        if known is None or known.app.claims is None:
            return self.settings.claims
        return known.app.claims

    def roles_of_new_users(self) -> frozenset[str]:
        """Return the roles that a new user can get by signing up with one of the enabled apps that allow sign-ups."""
        roles: set[str] = set()
        for known in self.all():
            if known.is_enabled and self.settings.may_sign_up(known.app):
                roles.update(self.settings.roles_at_sign_up(known.app))
        return frozenset(roles)

    def label_of(self, app_id: str | None) -> str:
        """Return the label that an app has in metrics, which is its id. None means the default app.

        All unknown ids share the label `unknown`, because a caller may send any text as an id.
        """
        label = self.default_id if app_id is None else app_id
        return label if label is not None and label in self._by_id else "unknown"

    def all(self) -> Sequence[KnownApp]:
        """Return all apps: those in the settings, then the others in the order in which they were added."""
        return list(self._by_id.values())

    @property
    def default_id(self) -> str | None:
        """The id of the default app; None if there is none."""
        return None if self.default is None else self.default.app.app_id

    async def refresh(self) -> None:
        """Read the stored apps. Raises: StorageUnavailable."""
        try:
            stored = await self.database.rows(queries.STORED_APPS)
        except errors.StorageUnavailable:
            self._has_failed = True
            raise
        self._replace_apps(stored)
        self._is_read = True

    async def keep_fresh(self) -> None:
        """Read the stored apps periodically, forever. During a database outage, keep the apps that were read last.

        The first read comes after a pause, because the service has called `try_refresh` at its start.
        """
        await asyncio.sleep(self.refresh_pause)
        await keep_doing(self.refresh, pause=self.refresh_pause, failure_event="apps_not_read")

    async def try_refresh(self) -> None:
        """Read the stored apps. If that fails, log the reason, and keep the apps that were read last."""
        await attempt(self.refresh, failure_event="apps_not_read")

    def _replace_apps(self, stored: Sequence[queries.SealedApp]) -> None:
        """Replace the apps in memory with the apps in the settings and these stored apps."""
        in_settings = {app.app_id: KnownApp(app, "settings") for app in self.settings.apps}
        # The first operand puts the apps in the settings first. The last operand gives them precedence.
        self._by_id = in_settings | self._unseal_all(stored) | in_settings
        self.default = next((known for known in self._by_id.values() if known.app.is_mini_program), None)
        self._enabled = {app_id: known.app for app_id, known in self._by_id.items() if known.is_enabled}
        if self.default is not None and self.default.is_enabled:
            self._enabled[None] = self.default.app

    def _unseal_all(self, stored: Sequence[queries.SealedApp]) -> dict[str, KnownApp]:
        """Return the apps that `unsealed_app` returns, by id, and put the ids of the other apps into `unopened`.

        Log the ids of these other apps, and the ignored fields of all apps, when they change.
        """
        opened: dict[str, KnownApp] = {}
        unopened: list[str] = []
        for row in stored:
            try:
                opened[row.app_id] = unsealed_app(row, self.sealer)
            except CannotOpen:
                unopened.append(row.app_id)
        if unopened and unopened != self.unopened:
            log.error("apps_not_opened", app_ids=unopened, what_to_change=WRONG_SECRET_KEY)
        self.unopened = unopened
        ignored = {app_id: known.ignored for app_id, known in opened.items() if known.ignored}
        if ignored and ignored != self._ignored:
            log.error("app_fields_ignored", apps=ignored, what_to_change="set these fields again")
        self._ignored = ignored
        return opened

    def _unknown_app(self, app_id: str | None) -> errors.UnknownApp | errors.StorageUnavailable:
        """Return the error for an app that is unknown, disabled, not read yet, or in `unopened`."""
        if self._has_failed and not self._is_read:
            return errors.StorageUnavailable("the apps have not been read yet")
        if app_id in self.unopened:
            return errors.StorageUnavailable(_NOT_OPENED)
        if app_id in self._by_id:
            return errors.UnknownApp(f"the app {app_id} is disabled")
        if app_id is None:
            missing = "the request has no app_id, and there is no enabled default app"
        elif APP_ID.fullmatch(app_id):
            # A process waits for `refresh_pause`, and then reads the apps for at most `Deadlines.total`: 13 s in all.
            missing = f"the app {app_id} doesn't exist. A new app takes effect within 15 s"
        else:
            missing = "the app_id doesn't have the form of an AppID such as wx0123456789abcdef"
        return errors.UnknownApp(f"{missing}; {self.hint}" if self.hint else missing)


def unsealed_app(row: queries.SealedApp, sealer: Sealer) -> KnownApp:
    """Return a stored app with its secrets decrypted.

    Fields that only a later version of wxauth knows are ignored, and so are optional values that are no longer valid.

    Raises: CannotOpen, if the secrets cannot be decrypted, or if a required value is no longer valid.
    """
    secrets = from_json(sealer.open(row.secrets, context=app_context(row.app_id)))
    values = {"app_id": row.app_id, **row.fields, **secrets}
    known_names = values.keys() & App.model_fields.keys()
    ignored: set[str] = set()
    while True:
        try:
            app = App.model_validate({name: values[name] for name in known_names - ignored})
            return KnownApp(app, "database", row.is_enabled, row.created_at, sorted(ignored))
        except ValidationError as exc:
            invalid = {error["loc"][0] for error in errors_of(exc)}
            # If a field is invalid although it was left out, it is a required field.
            if invalid <= ignored:
                raise CannotOpen from None
            ignored |= invalid  # without these fields, another field may become invalid


def sealed_app(known: KnownApp, sealer: Sealer, *, created_at: datetime) -> queries.SealedApp:
    """Return the row that stores an app, with its secrets encrypted.

    `created_at` is a separate argument, because `known` does not contain this time if the app is new.
    """
    app = known.app
    return queries.SealedApp(
        app_id=app.app_id,
        is_enabled=known.is_enabled,
        created_at=created_at,
        fields=app.plain_fields,
        secrets=sealer.seal(to_json(app.secrets), context=app_context(app.app_id)),
    )


@part
class ManagedApps:
    """The part that adds, changes and removes apps."""

    clock: Clock
    sealer: Sealer
    apps: Apps
    settings: Settings
    database: Database
    wechat: WeChat
    name_resolver: NameResolver

    async def add(self, app: App, *, is_enabled: bool, asks_wechat: bool, by: Actor) -> KnownApp:
        """Add an app, and return it. Other processes can use the app after their next refresh.

        If `asks_wechat`, WeChat must first accept the app's id and secret.

        Raises: AppTaken; InvalidRequest, if the id is the audience or the name of a site, or if wxauth must not send
        requests to the URL in `push_forward`; AppRefused, if WeChat rejects the id, the secret or, for example, this
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
        row = sealed_app(KnownApp(app, "database", is_enabled), self.sealer, created_at=now)
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
        """Change fields of an app, or `is_enabled`, and return the changed app.

        `changes` contains the new values by name. None clears an optional field. If `asks_wechat`, WeChat must first
        accept a new secret. Other processes use the changed app after their next refresh.

        If at least one value changes, the app is stored anew, without the stored values that `unsealed_app` ignores.

        Raises: NotFound; AppInSettings; InvalidRequest, if a value is invalid, or if the kind would change;
        AppRefused or WeChatError, as in `add`; StorageUnavailable, including if the app's secrets cannot be decrypted,
        or if a required value is no longer valid.
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
        """Remove an app and its secrets. After that, users cannot log in to the app. Open sessions continue.

        In other processes, the removal takes effect at their next refresh.

        Raises: NotFound, AppInSettings, StorageUnavailable.
        """
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
        """Read the stored apps again, and return the app with this id, which the settings or the database define.

        Raises: NotFound; StorageUnavailable, including if the app is in `Apps.unopened`.
        """
        await self.apps.refresh()
        for known in self.apps.all():
            if known.app.app_id == app_id:
                return known
        if app_id in self.apps.unopened:
            raise errors.StorageUnavailable(_NOT_OPENED)
        raise errors.NotFound(NO_SUCH_APP.detail)

    def _refuse_app_in_settings(self, app_id: str) -> None:
        """Raise AppInSettings if the app is defined in the settings."""
        if any(app.app_id == app_id for app in self.settings.apps):
            raise errors.AppInSettings("this app is defined in WXAUTH_APPS or WXAUTH_APP_ID: change it there")

    async def _check_forward(self, url: str | None) -> None:
        """Refuse a URL to which messages must not be forwarded. Raises: InvalidRequest."""
        if url is None:
            return
        try:
            # The name of an https URL is not resolved, because `wxauth check` checks the addresses behind it.
            await check_url(url, resolver=self.name_resolver, resolves_https=False)
        except WrongValue as exc:
            raise InvalidRequest.of("push_forward", exc.text) from None
        if is_below(url, self.settings.issuer):
            raise InvalidRequest.of("push_forward", "must not point to wxauth itself")

    async def _ensure_wechat_accepts(self, app: App) -> None:
        """Check with WeChat that the app's id and secret are valid.

        Raises: AppRefused, if WeChat rejects them or, for example, this server's IP address; WeChatUnavailable, if
        WeChat does not respond in time; WeChatError, for any other failure.
        """
        try:
            await self.wechat.check_secret(app)
        except errors.WeChatMisconfigured as exc:
            raise _refusal_of(app, exc) from exc
        except errors.WeChatTimeout as exc:
            raise errors.WeChatUnavailable("WeChat didn't respond in time, so nothing is stored") from exc

    def _unseal(self, row: queries.SealedApp) -> KnownApp:
        """Return a stored app with its secrets decrypted. Raises: StorageUnavailable, if `unsealed_app` fails."""
        try:
            return unsealed_app(row, self.sealer)
        except CannotOpen as exc:
            raise errors.StorageUnavailable(_NOT_OPENED) from exc


def _refusal_of(app: App, exc: errors.WeChatMisconfigured) -> errors.AppRefused:
    """Return the error for an app that WeChat has rejected.

    If WeChat's error code is about the id or the secret, the error names this field.
    """
    assert exc.errcode is not None  # `check_secret` raises this error only for an errcode
    field_name = _FIELDS_OF_ERRCODES.get(exc.errcode)
    field_errors = [FieldError(field_name, "WeChat rejects the value")] if field_name else []
    detail = f"WeChat: {errcode_of(exc.errcode, api=exchange_api(app)).remedy}"
    return errors.AppRefused(detail, errcode=exc.errcode, errors=field_errors)


def _app_after(before: KnownApp, changes: Mapping[str, Any]) -> KnownApp:
    """Return the app after these changes.

    Raises: InvalidRequest, if the result is not valid, or if the changes contain another kind.
    """
    if changes.get("kind", before.app.kind) != before.app.kind:
        raise InvalidRequest.of("kind", "can't be changed: add another app")
    app_fields = {name: value for name, value in changes.items() if name in AppFields.model_fields}
    try:
        app = App.model_validate({**dict(before.app), **app_fields})
    except ValidationError as exc:
        raise invalid_request(errors_of(exc)) from None
    return replace(before, app=app, is_enabled=changes.get("is_enabled", before.is_enabled))


def _value_of(known: KnownApp, name: str) -> Any:
    """Return the value of `is_enabled`, or of a field of `AppFields`."""
    return getattr(known.app if name in AppFields.model_fields else known, name)
