"""The statements that read from whom each fact about a user came."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlmodel import SQLModel

from wxauth.server.core.database import Transaction
from wxauth.server.core.statements import Statement


class OwnedIdentity(SQLModel):
    """An identity of the user."""

    app_id: str
    openid: str
    unionid: str | None
    created_at: datetime
    came_from: UUID | None
    origin: UUID | None
    """As `came_from`; that of the unionid, if the identity came after the merge."""
    phone_proved_at: datetime | None


class Facts(SQLModel):
    """The fields that a merge may have filled, each with its origin."""

    nickname: str | None
    nickname_from: UUID | None
    avatar_url: str | None
    avatar_url_from: UUID | None
    phone: str | None
    phone_from: UUID | None
    ban_reason: str | None
    ban_from: UUID | None


class KnownExternalId(SQLModel):
    """A present or former external id of the user."""

    external_id: str
    origin: UUID | None
    is_present: bool


class _FormerId(SQLModel):
    id: UUID
    merged_into: UUID | None


_IDENTITIES: Final = Statement[OwnedIdentity]("""
SELECT app_id, openid, i.unionid, created_at, i.came_from, COALESCE(i.came_from, unionids.came_from) AS origin,
       phone_proved_at
  FROM identities i LEFT JOIN unionids ON unionids.unionid = i.unionid
 WHERE i.user_id = :user_id
 ORDER BY created_at, app_id, openid
""")
_FACTS: Final = Statement[Facts](f"SELECT {', '.join(Facts.model_fields)} FROM users WHERE id = :user_id")  # noqa: S608 - put together from constants
_EXTERNAL_IDS: Final = Statement[KnownExternalId]("""
SELECT external_id, external_id_from AS origin, true AS is_present
  FROM users WHERE id = :user_id AND external_id IS NOT NULL
 UNION ALL
SELECT external_id, came_from, false FROM former_external_ids WHERE user_id = :user_id
 ORDER BY is_present DESC, external_id
""")
_FORMER_IDS: Final = Statement[_FormerId](
    "SELECT id, merged_into FROM former_users WHERE user_id = :user_id ORDER BY merged_at, id"
)


async def owned_identities(transaction: Transaction, user_id: UUID) -> Sequence[OwnedIdentity]:
    """The identities of a locked user, the oldest first."""
    return await transaction.rows(_IDENTITIES, user_id=user_id)


async def facts_of(transaction: Transaction, user_id: UUID) -> Facts | None:
    """The fields of a locked user, with their origins; None if there is no such user."""
    return await transaction.row(_FACTS, user_id=user_id)


async def known_external_ids(transaction: Transaction, user_id: UUID) -> Sequence[KnownExternalId]:
    """The external ids of a locked user, the present one first."""
    return await transaction.rows(_EXTERNAL_IDS, user_id=user_id)


async def merges_into(transaction: Transaction, user_id: UUID) -> dict[UUID, UUID | None]:
    """The former ids of a locked user, each with the id into which it was merged, or None if that is unknown."""
    return {row.id: row.merged_into for row in await transaction.rows(_FORMER_IDS, user_id=user_id)}
