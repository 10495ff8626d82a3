"""The known apps: those in the settings, and those in the database, which every process reads every few seconds."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from pydantic_core import from_json, to_json

from wxauth.errors import StorageUnavailable, UnknownApp
from wxauth.server.apps.rows import SealedApp, stored_apps
from wxauth.server.core.database import Database, troubles
from wxauth.server.core.logs import get_logger
from wxauth.server.core.sealing import WRONG_SECRET_KEY, CannotOpen, Sealer, app_context
from wxauth.server.core.services import part
from wxauth.server.core.setting_types import AppKind
from wxauth.server.core.settings import App, Settings
from wxauth.server.core.users import ClaimsTemplate

REFRESH_PAUSE_SECONDS: Final = 5.0
"""Seconds between two reads of the stored apps."""

_APP_ID: Final = re.compile("[A-Za-z0-9_-]{1,64}")

log = get_logger()

AppSource = Literal["settings", "database"]


@dataclass(frozen=True, slots=True)
class KnownApp:
    """An app, and what the settings or the database contain about it."""

    app: App
    source: AppSource
    title: str | None = None
    is_enabled: bool = True
    created_at: datetime | None = None
    """When it was added; None for an app in the settings."""


@part
class Apps:
    """The apps as last read, in memory.

    If an id is both in the settings and in the database, the settings' app is used.

    Args:
        refresh_pause: Seconds between two reads of the stored apps.
        hint: A text for the developer whose app is unknown, appended to `detail`.
    """

    database: Database
    sealer: Sealer
    settings: Settings
    refresh_pause: float = REFRESH_PAUSE_SECONDS
    hint: str = ""
    _stored: dict[str, tuple[SealedApp, KnownApp]] = field(init=False, default_factory=dict)
    _is_read: bool = field(init=False, default=False)
    _last_read_failed: bool = field(init=False, default=False)
    unopened: list[str] = field(init=False, default_factory=list)
    """Ids of stored apps whose secrets cannot be unsealed with our secret keys. Nobody can log in to them."""

    def __post_init__(self) -> None:
        self._claims = self.settings.claims_template
        self._replace_apps([])

    def for_login(self, app_id: str | None) -> App:
        """The enabled app with this id; the default app for None.

        The default is the first mini-program in the settings, or else the mini-program that was added first. It stays
        the default if it is disabled, so that such logins fail instead of going to another app.

        Raises: UnknownApp, also if the app is disabled; StorageUnavailable, if the stored apps could not be read yet.
        """
        app = self._enabled.get(app_id)
        if app is None:
            raise self._unknown_app(app_id)
        return app

    def find(self, app_id: str) -> App:
        """The app with this id, even if it is disabled, because its sessions continue.

        Raises: UnknownApp; StorageUnavailable, if the stored apps could not be read yet.
        """
        return self.entry(app_id).app

    def entry(self, app_id: str) -> KnownApp:
        """As `find`, with title, source and state of the app."""
        entry = self._known.get(app_id)
        if entry is None:
            raise self._unknown_app(app_id)
        return entry

    def kind_of(self, app_id: str) -> AppKind | None:
        """The kind of an app; None if it is unknown, or was removed."""
        known = self._known.get(app_id)
        return None if known is None else known.app.kind

    def title_of(self, app_id: str | None) -> str | None:
        """The title of an enabled app, or of the default app for None; None if it has none, or is unknown."""
        app = self._enabled.get(app_id)
        return None if app is None else self._known[app.app_id].title

    def max_sessions_of(self, app_id: str) -> int | None:
        """How many sessions a person may have in an app; None if it sets no limit of its own, or is unknown."""
        known = self._known.get(app_id)
        return None if known is None else known.app.max_sessions

    def claims_of(self, app_id: str) -> ClaimsTemplate | None:
        """What is added to the access tokens of logins to an app."""
        known = self._known.get(app_id)
        return self._claims if known is None or known.app.claims is None else known.app.claims_template

    def roles_at_sign_up(self) -> frozenset[str]:
        """The roles that new users get, in any app."""
        return frozenset(role for it in self.all() for role in self.settings.roles_at_sign_up(it.app))

    def roles_of_anybody(self) -> frozenset[str]:
        """The roles of those who may sign up by themselves."""
        are_open = (it.app for it in self.all() if it.is_enabled and self.settings.may_sign_up(it.app))
        return frozenset(role for app in are_open for role in self.settings.roles_at_sign_up(app))

    def label_of(self, app_id: str | None) -> str:
        """What metrics call an app; the default app for None. An unknown id may be any text."""
        label = self.default_id if app_id is None else app_id
        return label if label is not None and label in self._known else "unknown"

    def all(self) -> Sequence[KnownApp]:
        """All apps: those in the settings, then the others in the order in which they were added."""
        return list(self._known.values())

    @property
    def default(self) -> KnownApp | None:
        """The app of logins that name none."""
        return next((known for known in self._known.values() if known.app.is_mini_program), None)

    @property
    def default_id(self) -> str | None:
        """The id of that app; None if there is none."""
        return None if self.default is None else self.default.app.app_id

    async def refresh(self) -> None:
        """Read the stored apps."""
        try:
            stored = await stored_apps(self.database)
        except StorageUnavailable:
            self._last_read_failed = True
            raise
        self._replace_apps(stored)
        self._is_read = True

    async def keep_fresh(self) -> None:
        """Refresh forever. During a database outage, the apps stay as last read."""
        while True:
            await asyncio.sleep(self.refresh_pause)
            await self.try_refresh()

    async def try_refresh(self) -> None:
        """Refresh. If that fails, log why, and keep the apps as last read."""
        try:
            await self.refresh()
        except StorageUnavailable as exc:
            troubles.note(exc)
        except Exception:
            log.exception("apps_not_read")

    def _replace_apps(self, stored: Sequence[SealedApp]) -> None:
        self._stored = self._unsealed(stored)
        known = {app.app_id: KnownApp(app, "settings") for app in self.settings.apps}
        known |= {app_id: it for app_id, (_, it) in self._stored.items() if app_id not in known}
        self._known = known
        self._enabled: dict[str | None, App] = {app_id: it.app for app_id, it in known.items() if it.is_enabled}
        default = self.default
        if default is not None and default.is_enabled:
            self._enabled[None] = default.app

    def _unsealed(self, stored: Sequence[SealedApp]) -> dict[str, tuple[SealedApp, KnownApp]]:
        """The apps that can be decrypted. The ids of the others are in `unopened`, and logged when they change."""
        opened: dict[str, tuple[SealedApp, KnownApp]] = {}
        unopened: list[str] = []
        for row in stored:
            former = self._stored.get(row.app_id)
            if former is not None and former[0] == row:
                opened[row.app_id] = former  # unchanged, so its secrets need not be decrypted again
                continue
            try:
                opened[row.app_id] = row, unsealed_app(row, self.sealer)
            except CannotOpen:
                unopened.append(row.app_id)
        if unopened and unopened != self.unopened:
            log.error("apps_not_opened", app_ids=unopened, what_to_change=WRONG_SECRET_KEY.en)
        self.unopened = unopened
        return opened

    def _unknown_app(self, app_id: str | None) -> UnknownApp | StorageUnavailable:
        if self._last_read_failed and not self._is_read:
            return StorageUnavailable("the apps have not been read yet")
        if app_id in self.unopened:
            return StorageUnavailable("this app's secret cannot be decrypted: see 'wxauth check'")
        if app_id is None:
            missing = "no app_id was given, and there is no enabled default app"
        elif _APP_ID.fullmatch(app_id):
            missing = f"there is no app {app_id} here; one that was just added is known within 15 s"
        else:
            missing = "the app_id is not of the form of an AppID, such as wx0123456789abcdef"
        return UnknownApp(f"{missing}{self.hint and f'; {self.hint}'}")


def unsealed_app(row: SealedApp, sealer: Sealer) -> KnownApp:
    """Unseal a stored app. Unknown fields, which a replica of a later version may have stored, are ignored.

    Raises: CannotOpen.
    """
    secrets = from_json(sealer.open(row.secrets, context=app_context(row.app_id)))
    values = {"app_id": row.app_id, **row.fields, **secrets}
    app = App.model_validate({name: value for name, value in values.items() if name in App.model_fields})
    return KnownApp(app, "database", row.title, row.is_enabled, row.created_at)


def sealed_app(known: KnownApp, sealer: Sealer, *, created_at: datetime) -> SealedApp:
    """The row of an app, with its secrets sealed."""
    app = known.app
    return SealedApp(
        app_id=app.app_id,
        title=known.title,
        is_enabled=known.is_enabled,
        created_at=created_at,
        fields=app.plain_fields,
        secrets=sealer.seal(to_json(app.secrets), context=app_context(app.app_id)),
    )
