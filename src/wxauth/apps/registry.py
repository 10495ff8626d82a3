"""The apps that users log in to, in the memory of this process.

The settings define some of them, and the database stores others.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import field
from typing import Final

from wxauth import errors
from wxauth.apps import queries
from wxauth.apps.stored_apps import NOT_OPENED, InvalidApp, KnownApp, detail_of_invalid, unsealed_app
from wxauth.core.chores import attempt, keep_doing
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.sealing import WRONG_SECRET_KEY, CannotOpen, Sealer
from wxauth.core.services import part
from wxauth.settings.apps import APP_ID, App, AppKind
from wxauth.settings.claims import Template
from wxauth.settings.settings import Settings

REFRESH_PAUSE_SECONDS: Final = 5.0
"""The number of seconds between two reads of the stored apps."""

log = get_logger()


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
    """The ids of the stored apps whose secrets cannot be decrypted. Users cannot log in to these apps.

    A stored app that the settings replace is not among them.
    """
    invalid: dict[str, Sequence[str]] = field(init=False, default_factory=dict)
    """The required fields whose stored values are no longer valid, by the id of the app.

    Users cannot log in to these apps either.
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
        app. But a stored app that cannot be used (see `why_unusable`) is never the default app.

        Raises: UnknownApp, including for a disabled app; StorageUnavailable, if the stored apps could not be read
        yet, or if the stored app cannot be used.
        """
        app = self._enabled.get(app_id)
        if app is None:
            raise self._unknown_app(app_id)
        return app

    def find(self, app_id: str) -> App:
        """Return the app with this id, even if the app is disabled. The sessions of a disabled app continue.

        Raises: UnknownApp; StorageUnavailable, if the stored apps could not be read yet, or if the stored app cannot be
        used.
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

    def why_unusable(self, app_id: str | None) -> str | None:
        """Return why a stored app cannot be used; None if it can be used, or if there is no such app."""
        if app_id in self.unopened:
            return NOT_OPENED
        if app_id in self.invalid:
            return detail_of_invalid(self.invalid[app_id])
        return None

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
        self._by_id = in_settings | self._unseal_all([row for row in stored if row.app_id not in in_settings])
        self.default = next((known for known in self._by_id.values() if known.app.is_mini_program), None)
        self._enabled = {app_id: known.app for app_id, known in self._by_id.items() if known.is_enabled}
        if self.default is not None and self.default.is_enabled:
            self._enabled[None] = self.default.app

    def _unseal_all(self, stored: Sequence[queries.SealedApp]) -> dict[str, KnownApp]:
        """Return the stored apps that can be used, by id. Put the others into `unopened` and `invalid`.

        Log the ids of these others, and the ignored fields of all apps, when they change.
        """
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
        """Return the error for an app that is unknown, disabled or not read yet, or that cannot be used."""
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
