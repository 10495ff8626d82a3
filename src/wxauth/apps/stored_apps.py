"""An app with its source and state, and the row that stores it in the database, with its secrets encrypted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from wxauth.apps.queries import SealedApp
from wxauth.core.sealing import Sealer, app_context
from wxauth.settings.apps import App
from wxauth.web.bodies import errors_of

AppSource = Literal["settings", "database"]
"""The place where an app is defined."""

NOT_OPENED: Final = "this app's secrets can't be decrypted: run 'wxauth check'"
"""The detail of the error for a stored app whose secrets no secret key decrypts."""


class InvalidApp(Exception):
    """The error for a stored app with a required value that is no longer valid."""

    def __init__(self, field_names: Sequence[str]) -> None:
        super().__init__(field_names)
        self.field_names = field_names
        """The names of the required fields whose values are not valid, in alphabetical order."""


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


def unsealed_app(row: SealedApp, sealer: Sealer) -> KnownApp:
    """Return a stored app with its secrets decrypted.

    Fields that only a later version of wxauth knows are ignored, and so are optional values that are no longer valid.

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
    """Return the row that stores an app, with its secrets encrypted.

    `created_at` is a separate argument, because `known` does not contain this time if the app is new.
    """
    app = known.app
    return SealedApp(
        app_id=app.app_id,
        is_enabled=known.is_enabled,
        created_at=created_at,
        fields=app.plain_fields,
        secrets=sealer.seal(to_json(app.secrets), context=app_context(app.app_id)),
    )


def detail_of_invalid(field_names: Sequence[str]) -> str:
    """Return the detail of the error for a stored app with these invalid required fields."""
    return f"the stored {' and '.join(field_names)} of this app must be replaced: remove the app, and add it again"
