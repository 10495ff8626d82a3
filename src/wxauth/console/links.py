"""The links that log an administrator or a support user in to the console without a phone. Each link works once."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from wxauth.console import queries
from wxauth.core.database import Database
from wxauth.core.trail import OPERATOR, EventType, record_event
from wxauth.i18n import TextError, lazy_gettext as _
from wxauth.random_secrets import hash_of, new_secret
from wxauth.users.status_queries import lock_status_and_roles

CONSOLE_PATH: Final = "/admin/"
# The help of `wxauth admin link` also states this time.
LINK_LIFETIME: Final = timedelta(minutes=10)
_NO_ADMINISTRATOR: Final = _(
    "there is no administrator yet. Run 'wxauth users list', and then 'wxauth users grant USER_ID admin'"
)
_SEVERAL_ADMINISTRATORS: Final = _("there are several administrators. Choose one from 'wxauth users list --role admin'")


class NoLink(TextError):
    """A link is not created: its user may not have one, or there is not exactly one administrator."""


@dataclass(frozen=True, slots=True)
class ConsoleLink:
    """A link that opens the console once."""

    user_id: UUID
    secret: str = field(repr=False)
    expires_at: datetime


async def make_link(database: Database, user_id: UUID | None, *, now: datetime) -> ConsoleLink:
    """Create a link for an administrator or a support user, by default for the only administrator. Raises: NoLink."""
    if user_id is None:
        user_id = await _only_administrator(database)
        refusal = _NO_ADMINISTRATOR  # the error if this user stops being an administrator before the lock
    else:
        refusal = _(
            "{user_id} doesn't exist, is banned, has requested erasure, or has neither the admin nor the "
            "support role. Run 'wxauth users grant {user_id} admin'",
            user_id=user_id,
        )
    link = ConsoleLink(user_id, new_secret(), now + LINK_LIFETIME)
    async with database.begin() as transaction:
        account = await lock_status_and_roles(transaction, user_id)
        if account is None or not account.is_staff or account.is_banned or account.is_leaving:
            raise NoLink(refusal)
        digest = hash_of(link.secret)
        await transaction.run(queries.STORE_LINK, digest=digest, user_id=user_id, expires_at=link.expires_at, now=now)
        await record_event(transaction, EventType.CONSOLE_LINK_MADE, by=OPERATOR, at=now, user_id=user_id)
    return link


async def _only_administrator(database: Database) -> UUID:
    administrators = await database.values(queries.ADMINISTRATORS)
    if not administrators:
        raise NoLink(_NO_ADMINISTRATOR)
    if len(administrators) > 1:
        raise NoLink(_SEVERAL_ADMINISTRATORS)
    return administrators[0]
