"""Giving and withdrawing consents to the documents in force (`CONSENTS`)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from pydantic import BeforeValidator, ConfigDict, Field, RootModel

from wxauth.errors import InvalidRequest, InvalidToken, NotFound
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.core.users import UserInSession
from wxauth.server.limits.rows import CONSENTS_GIVEN
from wxauth.server.users.consent_rows import add_consent, lock_consents, note_given, withdraw_consent
from wxauth.server.web.paging import OrEmpty, TimedPageQuery

log = get_logger()


def missing_from(given: Mapping[str, str] | None, in_force: Mapping[str, str]) -> dict[str, str]:
    """The documents in force, with their versions, to which a person has not agreed."""
    agreed = given or {}
    return {document: version for document, version in in_force.items() if agreed.get(document) != version}


def check_in_force(requested: Mapping[str, str], in_force: Mapping[str, str]) -> None:
    """Check that these documents and versions are in force. Raises: InvalidRequest."""
    for document, version in requested.items():
        if document not in in_force:
            raise InvalidRequest.of("body", "Names a document that is not in force")
        if version != in_force[document]:
            raise InvalidRequest.of(document, "Not the version that is in force")


async def give_consents(
    database: Database, user: UserInSession, requested: Mapping[str, str], *, ip: str | None, now: datetime
) -> Mapping[str, str]:
    """Record that a user agrees to these documents. Returns all present consents, document → version.

    Consents that the user has given before are not recorded again.

    Raises: InvalidToken, if the user has just been erased; RateLimited.
    """
    user_id, app_id = user.id, user.app_id
    by = Actor(str(user_id), ip)
    async with database.begin() as transaction:
        before = await lock_consents(transaction, user_id)
        if before is None:
            raise InvalidToken("the user has just been erased")
        given = missing_from(before, requested)
        for document, version in given.items():
            consent = {"document": document, "version": version}
            if await add_consent(transaction, user_id, **consent, app_id=app_id, openid=user.openid, ip=ip, now=now):
                await CONSENTS_GIVEN.count_user(transaction, user, now=now)
                await record_event(
                    transaction, EventType.CONSENT_GIVEN, by=by, at=now, user_id=user_id, app_id=app_id, data=consent
                )
        if given:
            await note_given(transaction, user_id, given)
    for document, version in given.items():
        log.info("consent_given", user_id=user_id, app_id=app_id, document=document, version=version)
    return {**before, **given}


async def withdraw(
    database: Database, user_id: UUID, document: str, *, app_id: str, ip: str | None, now: datetime
) -> None:
    """Record that a user withdraws their consent. Raises: NotFound, InvalidToken."""
    async with database.begin() as transaction:
        before = await lock_consents(transaction, user_id)
        if before is None:
            raise InvalidToken("the user has just been erased")
        version = before.get(document)
        if version is not None:
            await withdraw_consent(transaction, user_id, document=document, now=now)
            await record_event(
                transaction,
                EventType.CONSENT_WITHDRAWN,
                by=Actor(str(user_id), ip),
                at=now,
                user_id=user_id,
                app_id=app_id,
                data={"document": document, "version": version},
            )
    if version is None:
        raise NotFound("this document has not been agreed to")
    log.info("consent_withdrawn", user_id=user_id, app_id=app_id, document=document, version=version)


MAX_CONSENTS: Final = 100
"""The largest page of consents, and the default."""


def _texts(value: object) -> object:
    # Refused here, because pydantic's own message would repeat a name that was sent.
    if not (isinstance(value, dict) and all(isinstance(version, str) for version in value.values())):
        raise ValueError("Must be an object of documents and versions, both text")
    return value


class ConsentsRequest(RootModel[Annotated[dict[str, str], BeforeValidator(_texts)]]):
    """The documents that the user agrees to, each with the version in force."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"privacy": "2026-05"}]}, hide_input_in_errors=True)


class ConsentsQuery(TimedPageQuery):
    """Which of one's consents to list."""

    limit: Annotated[int, Field(ge=1, le=MAX_CONSENTS), OrEmpty] = MAX_CONSENTS
