"""All sealed values in the database, for checking them, resealing them, and erasing those that no key opens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, NamedTuple, TypeVar

from wxauth.server.apps.rows import SealedApp, stored_apps
from wxauth.server.checks.rows import some_phone_answers, some_session_keys
from wxauth.server.core.database import Database
from wxauth.server.core.sealing import (
    CannotOpen,
    Sealer,
    app_context,
    phone_answer_context,
    session_key_context,
    signing_key_context,
    url_link_context,
    webhook_secret_context,
)
from wxauth.server.events.models import Webhook
from wxauth.server.events.webhook_rows import all_webhooks
from wxauth.server.keys.models import StoredSigningKey
from wxauth.server.phones.rows import StoredAnswer
from wxauth.server.session_keys.rows import SealedSessionKey
from wxauth.server.websites.models import SealedUrlLink
from wxauth.server.websites.rows import url_links

Row = TypeVar("Row")


class SealedValue(NamedTuple):
    """A sealed value, and the context that it is bound to."""

    sealed: bytes | None
    """None if there is no value."""
    context: bytes


@dataclass(frozen=True, slots=True)
class SealedKind(Generic[Row]):
    """A kind of rows that contain sealed values."""

    values: Callable[[Row], Sequence[SealedValue]]
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


SEALED_SESSION_KEYS: Final[SealedKind[SealedSessionKey]] = SealedKind(
    lambda key: [SealedValue(key.sealed, session_key_context(key.app_id, key.openid))]
)
SEALED_PHONE_ANSWERS: Final[SealedKind[StoredAnswer]] = SealedKind(
    lambda answer: [SealedValue(answer.sealed, phone_answer_context(answer.code_hash))]
)
SEALED_WEBHOOKS: Final[SealedKind[Webhook]] = SealedKind(
    lambda webhook: [
        SealedValue(sealed, webhook_secret_context(webhook.id)) for sealed in (webhook.secret, webhook.former_secret)
    ]
)
SEALED_APPS: Final[SealedKind[SealedApp]] = SealedKind(lambda app: [SealedValue(app.secrets, app_context(app.app_id))])
SEALED_URL_LINKS: Final[SealedKind[SealedUrlLink]] = SealedKind(
    lambda link: [SealedValue(link.sealed, url_link_context(link.app_id))]
)
SEALED_SIGNING_KEYS: Final[SealedKind[StoredSigningKey]] = SealedKind(
    lambda key: [SealedValue(key.private_key, signing_key_context(key.kid))]
)


@dataclass(slots=True)
class SealedCounts:
    """How many values of each kind were resealed or erased."""

    signing_keys: int = 0
    session_keys: int = 0
    phone_answers: int = 0
    webhook_secrets: int = 0
    """If erased, their webhooks are disabled until an administrator renews the secret."""
    apps: int = 0
    """If erased, they must be added again."""
    url_links: int = 0
    """If erased, WeChat is asked for new ones."""


async def some_values(database: Database, *, now: datetime) -> list[tuple[bytes, bytes]]:
    """Some values of each kind, except signing keys, which are few and all checked."""
    values = [
        *(value for key in await some_session_keys(database) for value in SEALED_SESSION_KEYS.values(key)),
        *(
            value
            for answer in await some_phone_answers(database, now=now)
            for value in SEALED_PHONE_ANSWERS.values(answer)
        ),
        *(value for webhook in await all_webhooks(database) for value in SEALED_WEBHOOKS.values(webhook)),
        *(value for app in await stored_apps(database) for value in SEALED_APPS.values(app)),
        *(value for link in await url_links(database) for value in SEALED_URL_LINKS.values(link)),
    ]
    return [(sealed, context) for sealed, context in values if sealed is not None]
