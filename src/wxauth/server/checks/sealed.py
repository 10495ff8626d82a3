"""All sealed values in the database, for checking them, resealing them, and erasing those that no key opens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, NamedTuple, TypeVar

from wxauth.server.apps.rows import SealedApp, stored_apps
from wxauth.server.checks.rows import SealedKey, some_phone_answers, some_session_keys
from wxauth.server.core.database import Database
from wxauth.server.core.sealing import (
    CannotOpen,
    Sealer,
    app_context,
    phone_answer_context,
    session_key_context,
    signing_key_context,
    webhook_secret_context,
)
from wxauth.server.events.webhook_rows import SealedWebhook, all_webhooks
from wxauth.server.keys.stored import StoredSigningKey
from wxauth.server.phones.rows import StoredAnswer
from wxauth.server.session_keys.rows import SealedSessionKey

Row = TypeVar("Row")


class Value(NamedTuple):
    """A sealed value, and the context that it is bound to."""

    sealed: bytes | None
    """None if there is no value."""
    context: bytes


@dataclass(frozen=True, slots=True)
class Kind(Generic[Row]):
    """A kind of rows that contain sealed values."""

    values: Callable[[Row], Sequence[Value]]
    """The values of a row, in the order in which its replacement takes them."""

    def opens(self, sealer: Sealer, row: Row) -> bool:
        """Whether all values of the row open."""
        return all(sealed is None or sealer.opens(sealed, context=context) for sealed, context in self.values(row))

    def sealed_anew(self, sealer: Sealer, row: Row) -> list[bytes | None] | None:
        """The values of a row, sealed with the current secret key; None if one of them does not open."""
        try:
            return [
                None if sealed is None else sealer.seal(sealer.open(sealed, context=context), context=context)
                for sealed, context in self.values(row)
            ]
        except CannotOpen:
            return None


SESSION_KEYS: Final[Kind[SealedKey | SealedSessionKey]] = Kind(
    lambda key: [Value(key.sealed, session_key_context(key.app_id, key.openid))]
)
PHONE_ANSWERS: Final[Kind[StoredAnswer]] = Kind(
    lambda answer: [Value(answer.sealed, phone_answer_context(answer.code_hash))]
)
WEBHOOKS: Final[Kind[SealedWebhook]] = Kind(
    lambda webhook: [
        Value(sealed, webhook_secret_context(webhook["id"])) for sealed in (webhook["secret"], webhook["former_secret"])
    ]
)
APPS: Final[Kind[SealedApp]] = Kind(lambda app: [Value(app["secrets"], app_context(app["app_id"]))])
SIGNING_KEYS: Final[Kind[StoredSigningKey]] = Kind(lambda key: [Value(key.private_key, signing_key_context(key.kid))])


async def some_values(database: Database, *, now: datetime) -> list[tuple[bytes, bytes]]:
    """Some values of each kind, except signing keys, which are few and all checked. Raises: StorageUnavailable."""
    values = [
        *(value for key in await some_session_keys(database) for value in SESSION_KEYS.values(key)),
        *(value for answer in await some_phone_answers(database, now=now) for value in PHONE_ANSWERS.values(answer)),
        *(value for webhook in await all_webhooks(database) for value in WEBHOOKS.values(webhook)),
        *(value for app in await stored_apps(database) for value in APPS.values(app)),
    ]
    return [(sealed, context) for sealed, context in values if sealed is not None]
