"""The table of users' consents to documents (setting `CONSENTS`), and the statements that read and change it.

Each transaction that records or withdraws a consent also updates the present consents in the user's row.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import INET
from sqlmodel import Field, SQLModel

from wxauth.core.clock import LAST_ID, new_id
from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.models import TIME, Address
from wxauth.core.statements import Nothing, Statement, fragment
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.core.users import UserInSession
from wxauth.errors import NotFound
from wxauth.limits.queries import CONSENTS_GIVEN
from wxauth.users.user_queries import ids_fragment
from wxauth_guard.errors import InvalidRequest, InvalidToken

NOT_IN_FORCE: Final = "Must be the version that is in force"
NOT_AGREED: Final = "the user hasn't agreed to this document"
# Of two requests for one user, the second waits here, and then reads the changed consents.
_LOCK: Final = Statement[tuple[dict[str, str] | None]]("SELECT consents FROM users WHERE id = :user_id FOR UPDATE")
_ADD_TO_USER: Final = Statement[Nothing](
    "UPDATE users SET consents = COALESCE(consents, '{}') || :given::jsonb WHERE id = :user_id"
)
_REMOVE_FROM_USER: Final = Statement[Nothing](
    "UPDATE users SET consents = NULLIF(consents - :document::text, '{}') WHERE id = :user_id"
)
_IDS_FRAGMENT: Final = ids_fragment(":user_id::uuid")
# Merges and imports store these consents. If the operator puts an earlier version in force again, `give_consents`
# stores that version, and a later merge or import stores the newest one again. The earlier version is then due again.
PRESENT_CONSENTS: Final = f"""
       (SELECT jsonb_object_agg(document, version)
          FROM (SELECT DISTINCT ON (document) document, version FROM consents
                 WHERE user_id = ANY ({ids_fragment("users.id")}) AND withdrawn_at IS NULL
                 ORDER BY document, given_at DESC, id DESC) AS newest)"""

log = get_logger()


class ConsentRow(SQLModel):
    """A consent to a version of a document."""

    id: UUID = Field(primary_key=True, exclude=True)
    document: str = Field(sa_type=Text, schema_extra={"examples": ["privacy"]})
    version: str = Field(sa_type=Text, schema_extra={"examples": ["2026-05"]})
    given_at: datetime = Field(sa_type=TIME)
    withdrawn_at: datetime | None = Field(
        sa_type=TIME, description="When the consent was withdrawn; null while it is valid."
    )
    app_id: str | None = Field(
        sa_type=Text,
        description="The app in which the consent was given; null if unknown, for an imported consent.",
        schema_extra={"examples": ["wx1a2b3c4d5e6f7a8b"]},
    )
    ip: Address = Field(
        sa_type=INET,
        description="The IP address from which the consent was given, or only its network if the consent is old. Null "
        "if unknown.",
    )


class Consent(ConsentRow, table=True):
    """The table of consents, in which withdrawn ones stay."""

    __tablename__ = "consents"

    # A present or former id. A user may have more rows than one transaction could move, so there is no foreign key.
    user_id: UUID


# The user can have a valid consent to the version, although `users.consents` contains another one, for example if the
# operator has put an earlier version in force again.
_ADD: Final = Statement[UUID](f"""
INSERT INTO consents (id, user_id, document, version, given_at, app_id, ip)
SELECT :id, :user_id, :document, :version, :now, :app_id, :ip::text::inet
 WHERE NOT EXISTS (SELECT FROM consents
                    WHERE user_id = ANY ({_IDS_FRAGMENT}) AND document = :document AND version = :version
                      AND withdrawn_at IS NULL)
RETURNING id
""")
_WITHDRAW: Final = Statement[Nothing](f"""
UPDATE consents SET withdrawn_at = :now
 WHERE user_id = ANY ({_IDS_FRAGMENT}) AND document = :document AND withdrawn_at IS NULL
""")
NEWEST_CONSENTS: Final = Statement[ConsentRow](f"""
-- LATERAL, because the index sorts only the consents of one id by time
SELECT page.*
  FROM unnest({_IDS_FRAGMENT}) AS ids (id) CROSS JOIN LATERAL (
       SELECT id, document, version, given_at, withdrawn_at, app_id, ip FROM consents
        WHERE user_id = ids.id
          AND (given_at, id) < (COALESCE(:after_at::timestamptz, 'infinity'),
                                COALESCE(:after_id::uuid, '{fragment(str(LAST_ID))}'))
        ORDER BY given_at DESC, id DESC LIMIT :limit) page
 ORDER BY given_at DESC, id DESC LIMIT :limit
""")
# After a merge, a user can have several valid consents to one version.
_VALID: Final = Statement[ConsentRow](f"""
SELECT DISTINCT ON (document) id, document, version, given_at, withdrawn_at, app_id, ip
  FROM consents JOIN unnest(:documents::text[], :versions::text[]) AS wanted (document, version)
       USING (document, version)
 WHERE user_id = ANY ({_IDS_FRAGMENT}) AND withdrawn_at IS NULL
 ORDER BY document, given_at DESC, id DESC
""")


async def valid_consents(database: Database, user_id: UUID, in_force: Mapping[str, str]) -> Sequence[ConsentRow]:
    """Return the user's valid consents to the versions in force, the newest first."""
    rows = await database.rows(_VALID, user_id=user_id, documents=list(in_force), versions=list(in_force.values()))
    return sorted(rows, key=lambda row: (row.given_at, row.id), reverse=True)


def missing_from(agreed: Mapping[str, str] | None, wanted: Mapping[str, str]) -> dict[str, str]:
    """Return the wanted documents whose wanted version the user has not agreed to."""
    versions = agreed or {}
    return {document: version for document, version in wanted.items() if versions.get(document) != version}


def check_in_force(requested: Mapping[str, str], in_force: Mapping[str, str]) -> None:
    """Raise InvalidRequest if one of these versions is not in force."""
    for document, version in requested.items():
        if document not in in_force:
            raise InvalidRequest.of("body", "Must be a document that is in force")
        if version != in_force[document]:
            raise InvalidRequest.of(document, NOT_IN_FORCE)


async def give_consents(
    database: Database, user: UserInSession, requested: Mapping[str, str], *, ip: str | None, now: datetime
) -> Mapping[str, str]:
    """Record that a user agrees to these versions, if that is new. Return all versions that the user agrees to.

    Raises: InvalidToken, if the user has just been merged or erased; RateLimited. None of the consents is then
    recorded.
    """
    user_id, app_id = user.id, user.app_id
    by = Actor(str(user_id), ip)
    recorded: list[Mapping[str, str]] = []
    async with database.begin() as transaction:
        before = await _lock_consents(transaction, user_id)
        new_consents = missing_from(before, requested)
        for document, version in new_consents.items():
            consent = {"document": document, "version": version}
            consent_id = new_id(now)
            if await transaction.value(_ADD, id=consent_id, user_id=user_id, **consent, app_id=app_id, ip=ip, now=now):
                await CONSENTS_GIVEN.count_user(transaction, user, now=now)
                await record_event(
                    transaction, EventType.CONSENT_GIVEN, by=by, at=now, user_id=user_id, app_id=app_id, data=consent
                )
                recorded.append(consent)
        if new_consents:
            await transaction.run(_ADD_TO_USER, user_id=user_id, given=new_consents)
    for recorded_consent in recorded:
        log.info("consent_given", user_id=user_id, app_id=app_id, **recorded_consent)
    return {**before, **new_consents}


async def withdraw_consent(
    database: Database, user_id: UUID, document: str, *, app_id: str, ip: str | None, now: datetime
) -> None:
    """Withdraw the consent to all versions of a document. Raises: NotFound; InvalidToken."""
    by = Actor(str(user_id), ip)
    async with database.begin() as transaction:
        agreed = await _lock_consents(transaction, user_id)
        version = agreed.get(document)
        if version is None:
            raise NotFound(NOT_AGREED)
        await transaction.run(_WITHDRAW, user_id=user_id, document=document, now=now)
        await transaction.run(_REMOVE_FROM_USER, user_id=user_id, document=document)
        data = {"document": document, "version": version}
        await record_event(
            transaction, EventType.CONSENT_WITHDRAWN, by=by, at=now, user_id=user_id, app_id=app_id, data=data
        )
    log.info("consent_withdrawn", user_id=user_id, app_id=app_id, document=document, version=version)


async def _lock_consents(transaction: Transaction, user_id: UUID) -> Mapping[str, str]:
    row = await transaction.row(_LOCK, user_id=user_id)
    if row is None:
        raise InvalidToken("this user has just been merged or erased")
    return row[0] or {}
