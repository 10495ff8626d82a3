"""Links that open the console once, without a phone."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from wxauth.server.console import rows
from wxauth.server.core.database import Database
from wxauth.server.core.trail import OPERATOR, EventType, record_event
from wxauth.server.users.standing_rows import lock_standing
from wxauth.texts import hash_of, new_secret

CONSOLE_PATH: Final = "/admin/"
LINK_LIFETIME: Final = timedelta(minutes=10)


class NoAdministrator(Exception):
    """There is no administrator, or this user is not staff."""


class SeveralAdministrators(Exception):
    """There are several administrators: the caller must name one."""


@dataclass(frozen=True, slots=True)
class ConsoleLink:
    """A link that opens the console once."""

    user_id: UUID
    secret: str = field(repr=False)
    expires_at: datetime


async def make_link(database: Database, user_id: UUID | None, *, now: datetime) -> ConsoleLink:
    """Make a link for this administrator or support user; for None, for the only administrator.

    Raises: NoAdministrator, SeveralAdministrators.
    """
    if user_id is None:
        administrators = await database.values(rows.ADMINISTRATORS)
        if len(administrators) > 1:
            raise SeveralAdministrators
        user_id = administrators[0] if administrators else None
    if user_id is None:
        raise NoAdministrator
    link = ConsoleLink(user_id, new_secret(), now + LINK_LIFETIME)
    async with database.begin() as transaction:
        standing = await lock_standing(transaction, user_id)
        if standing is None or not standing.is_staff or standing.is_banned or standing.is_leaving:
            raise NoAdministrator
        digest = hash_of(link.secret)
        await transaction.run(rows.STORE_LINK, digest=digest, user_id=user_id, expires_at=link.expires_at, now=now)
        await record_event(transaction, EventType.CONSOLE_LINK_MADE, by=OPERATOR, at=now, user_id=user_id)
    return link
