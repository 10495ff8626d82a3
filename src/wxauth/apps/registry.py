"""The apps that users log in to, from the settings and the database, in the memory of this process.

The secrets of an app are stored encrypted.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from wxauth import errors
from wxauth.apps.queries import STORED_APPS, SealedApp
from wxauth.core.background import attempt, keep_doing
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.sealing import WRONG_SECRET_KEY, CannotOpen, Sealer, app_context
from wxauth.core.services import part
from wxauth.settings.apps import APP_ID, App, AppKind
from wxauth.settings.claims import Template
from wxauth.settings.settings import Settings
from wxauth.web.bodies import errors_of

REFRESH_PAUSE_SECONDS: Final = 5.0
NOT_OPENED: Final = "this app's secrets can't be decrypted: run 'wxauth check'"

AppSource = Literal["settings", "database"]

log = get_logger()


class InvalidApp(Exception):
    """A stored app has required values that are no longer valid."""

    def __init__(self, field_names: Sequence[str]) -> None:
        super().__init__(field_names)
        self.field_names = field_names


@dataclass(frozen=True, slots=True)
class KnownApp:
    app: App
    source: AppSource
    is_enabled: bool = True
    created_at: datetime | None = None  # None for an app in the settings
    ignored: Sequence[str] = ()
    """Fields with stored values that are no longer valid. An old logo must not prevent all logins."""


def unsealed_app(row: SealedApp, sealer: Sealer) -> KnownApp:
    """Decrypt a stored app. Fields of a later version, and optional values that are no longer valid, are ignored.

    Raises: CannotOpen, if the secrets cannot be decrypted; InvalidApp, if a required value is no longer valid.
    """
    secrets = from_json(sealer.open(row.secrets, context=app_context(row.app_id)))
    values = {"app_id": row.app_id, **row.fields, **secrets}
    names = values.keys() & App.model_fields.keys()
    ignored: set[str] = set()
    while True:
        try:
            app = App.model_validate({name: values[name] for name in names - ignored})
            return KnownApp(app, "database", row.is_enabled, row.created_at, sorted(ignored))
        except ValidationError as exc:
            invalid = {error["loc"][0] for error in errors_of(exc)}
            # If a field is invalid although it was left out, it is a required field.
            if invalid <= ignored:
                raise InvalidApp(sorted(invalid)) from None
            ignored |= invalid  # without these fields, another field may become invalid


def sealed_app(known: KnownApp, sealer: Sealer, *, created_at: datetime) -> SealedApp:
    """Return the row of an app. A new app in `known` has no `created_at` yet."""
    app = known.app
    return SealedApp(
        app_id=app.app_id,
        is_enabled=known.is_enabled,
        created_at=created_at,
        fields=app.plain_fields,
        secrets=sealer.seal(to_json(app.secrets), context=app_context(app.app_id)),
    )


def detail_of_invalid(field_names: Sequence[str]) -> str:
    return f"the stored {' and '.join(field_names)} of this app must be replaced: remove the app, and add it again"


@part
class Apps:
    """The apps in memory, as last read. An app in the settings replaces a stored app with the same id."""

    database: Database
    sealer: Sealer
    settings: Settings
    refresh_pause: float = REFRESH_PAUSE_SECONDS
    hint: str = ""  # for the developer, in the error for an unknown app
    default: KnownApp | None = field(init=False)
    """The app for logins that name no app, which may be disabled."""
    unopened: list[str] = field(init=False, default_factory=list)
    """Stored apps whose secrets cannot be decrypted, without those that the settings replace."""
    invalid: dict[str, Sequence[str]] = field(init=False, default_factory=dict)
    """The required fields whose stored values are no longer valid, by the id of the app."""
    _by_id: dict[str, KnownApp] = field(init=False)  # in the order of `all`
    _enabled: dict[str | None, App] = field(init=False)
    """The key None finds the default app, if it is enabled."""
    _ignored: dict[str, Sequence[str]] = field(init=False, default_factory=dict)  # as last read
    _is_read: bool = field(init=False, default=False)
    _has_failed: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._replace_apps([])

    def for_login(self, app_id: str | None) -> App:
        """Return the enabled app with this id; for None the first mini-program, in the settings or by age.

        A disabled app remains the default, so that logins without an app id fail instead of using another app.

        Raises: UnknownApp, including for a disabled app; StorageUnavailable, if the stored apps could not be read yet,
        or if the stored app cannot be used.
        """
        app = self._enabled.get(app_id)
        if app is None:
            raise self._unknown_app(app_id)
        return app

    def find(self, app_id: str) -> App:
        """Return the app with this id, even if it is disabled: its sessions continue. Raises: as `entry`."""
        return self.entry(app_id).app

    def entry(self, app_id: str) -> KnownApp:
        """Return the app with its source and state. Raises: UnknownApp; StorageUnavailable, as `for_login`."""
        known = self._by_id.get(app_id)
        if known is None:
            raise self._unknown_app(app_id)
        return known

    def kind_of(self, app_id: str) -> AppKind | None:
        """Return None if the app is unknown, for example because it was removed."""
        known = self._by_id.get(app_id)
        return None if known is None else known.app.kind

    def find_enabled(self, app_id: str | None) -> App | None:
        """Return the enabled app with this id, or for None the default app. Return None if there is none."""
        return self._enabled.get(app_id)

    def max_sessions_of(self, app_id: str) -> int | None:
        """Return the largest number of open sessions of an identity, if the app limits it."""
        known = self._by_id.get(app_id)
        return None if known is None else known.app.max_sessions

    def claims_of(self, app_id: str) -> Template:
        known = self._by_id.get(app_id)
        if known is None or known.app.claims is None:
            return self.settings.claims
        return known.app.claims

    def may_sign_up(self, app: App) -> bool:
        return (app.sign_up or self.settings.sign_up) == "open"

    def roles_at_sign_up(self, app: App) -> Sequence[str]:
        return self.settings.sign_up_roles if app.sign_up_roles is None else app.sign_up_roles

    def roles_of_new_users(self) -> frozenset[str]:
        """Return the roles that a new user can get by signing up with any enabled app."""
        roles: set[str] = set()
        for known in self.all():
            if known.is_enabled and self.may_sign_up(known.app):
                roles.update(self.roles_at_sign_up(known.app))
        return frozenset(roles)

    def label_of(self, app_id: str | None) -> str:
        """Return an app's label in metrics. All unknown ids share one, because a caller may send any text."""
        if app_id is None and self.default is not None:
            return self.default.app.app_id
        return app_id if app_id is not None and app_id in self._by_id else "unknown"

    def why_unusable(self, app_id: str | None) -> str | None:
        if app_id in self.unopened:
            return NOT_OPENED
        if app_id in self.invalid:
            return detail_of_invalid(self.invalid[app_id])
        return None

    def all(self) -> Sequence[KnownApp]:
        """Return the apps in the settings, then the others in the order in which they were added."""
        return list(self._by_id.values())

    @property
    def default_id(self) -> str | None:
        return None if self.default is None else self.default.app.app_id

    async def refresh(self) -> None:
        """Read the stored apps. Raises: StorageUnavailable."""
        try:
            stored = await self.database.rows(STORED_APPS)
        except errors.StorageUnavailable:
            self._has_failed = True
            raise
        self._replace_apps(stored)
        self._is_read = True

    async def keep_fresh(self) -> None:
        """Read the stored apps forever, beginning after a pause."""
        await asyncio.sleep(self.refresh_pause)  # the start has just called `try_refresh`
        await keep_doing(self.refresh, pause=self.refresh_pause, failure_event="apps_not_read")

    async def try_refresh(self) -> None:
        """Read the stored apps or, after a failure, keep those that were read last."""
        await attempt(self.refresh, failure_event="apps_not_read")

    def _replace_apps(self, stored: Sequence[SealedApp]) -> None:
        in_settings = {app.app_id: KnownApp(app, "settings") for app in self.settings.apps}
        self._by_id = in_settings | self._unseal_all([row for row in stored if row.app_id not in in_settings])
        self.default = next((known for known in self._by_id.values() if known.app.is_mini_program), None)
        self._enabled = {app_id: known.app for app_id, known in self._by_id.items() if known.is_enabled}
        if self.default is not None and self.default.is_enabled:
            self._enabled[None] = self.default.app

    def _unseal_all(self, stored: Sequence[SealedApp]) -> dict[str, KnownApp]:
        """Return the stored apps that can be used. Note the others and, when they change, log them."""
        opened: dict[str, KnownApp] = {}
        unopened: list[str] = []
        invalid: dict[str, Sequence[str]] = {}
        for row in stored:
            try:
                opened[row.app_id] = unsealed_app(row, self.sealer)
            except CannotOpen:
                unopened.append(row.app_id)
            except InvalidApp as exc:
                invalid[row.app_id] = exc.field_names
        if unopened and unopened != self.unopened:
            log.error("apps_not_opened", app_ids=unopened, what_to_change=WRONG_SECRET_KEY)
        self.unopened = unopened
        if invalid and invalid != self.invalid:
            log.error("apps_not_valid", apps=invalid, what_to_change="remove these apps, and add them again")
        self.invalid = invalid
        ignored = {app_id: known.ignored for app_id, known in opened.items() if known.ignored}
        if ignored and ignored != self._ignored:
            log.error("app_fields_ignored", apps=ignored, what_to_change="set these fields again")
        self._ignored = ignored
        return opened

    def _unknown_app(self, app_id: str | None) -> errors.UnknownApp | errors.StorageUnavailable:
        if self._has_failed and not self._is_read:
            return errors.StorageUnavailable("the apps have not been read yet")
        reason = self.why_unusable(app_id)
        if reason is not None:
            return errors.StorageUnavailable(reason)
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
