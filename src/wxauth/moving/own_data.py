"""All that is stored of a person, as one document. It holds no secret, sealed or not, and nothing of anybody else."""

from base64 import b64encode
from datetime import datetime, timedelta
from hashlib import sha256
from math import ceil
from typing import Any, Final
from uuid import UUID

from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.services import Services
from wxauth.core.tables import phone_verified
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.errors import InvalidToken, NotFound, RateLimited
from wxauth.moving import own_data_rows as rows
from wxauth.people.account import Caller
from wxauth.people.attempt_rows import take_attempt
from wxauth.people.consent_bodies import consent_answers
from wxauth.people.consent_rows import consents_of
from wxauth.people.merging_rows import former_external_ids, former_ids, remaining_user

EXPORT_EVERY: Final = timedelta(minutes=1)
"""How often one person may export, over all replicas: no other request reads as much."""

EXAMPLE_OWN_DATA: Final[dict[str, Any]] = {
    "exported_at": "2026-11-20T10:00:00Z",
    "user": {
        "id": "01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17",
        "former_ids": [],
        "external_id": "10023",
        "former_external_ids": [],
        "unionid": "oTmHYjg7xLa9Yp4Zt2Vq8nCwRk1E",
        "unionids": ["oTmHYjg7xLa9Yp4Zt2Vq8nCwRk1E"],
        "nickname": "小明",
        "avatar_url": "https://example.com/avatars/1.png",
        "phone": "+8613800138000",
        "phone_verified": True,
        "phone_proved_at": "2026-11-20T08:05:00Z",
        "roles": [],
        "status": "active",
        "created_at": "2026-11-20T08:00:00Z",
        "last_login_at": "2026-11-20T08:00:00Z",
    },
    "identities": [
        {
            "app_id": "wx1a2b3c4d5e6f7a8b",
            "openid": "oGZUI0egBJY1zhBYw2KhdUfwVJJE",
            "unionid": "oTmHYjg7xLa9Yp4Zt2Vq8nCwRk1E",
            "created_at": "2026-11-20T08:00:00Z",
        }
    ],
    "sessions": [
        {
            "id": "01933c5e-8f1b-7d20-a4c5-93b1f0a7e6d2",
            "app_id": "wx1a2b3c4d5e6f7a8b",
            "openid": "oGZUI0egBJY1zhBYw2KhdUfwVJJE",
            "ip": "203.0.113.7",
            "user_agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) MicroMessenger/8.0.44",
            "created_at": "2026-11-20T08:00:00Z",
            "last_used_at": "2026-11-20T09:30:00Z",
            "expires_at": "2026-12-20T09:30:00Z",
            "ended_at": None,
            "ended_reason": None,
            "client_id": None,
            "scope": None,
            "authenticated_at": None,
            "authenticated_by": None,
        }
    ],
    "consents": [
        {
            "document": "privacy",
            "version": "2026-05",
            "given_at": "2026-11-20T08:00:00Z",
            "withdrawn_at": None,
            "app_id": "wx1a2b3c4d5e6f7a8b",
            "ip": "203.0.113.7",
        }
    ],
    "events": [],
    "avatar": None,
}

log = get_logger()


async def export_mine(services: Services, caller: Caller, *, ip: str | None) -> dict[str, Any]:
    """All that is stored of the caller. Raises: RateLimited, InvalidToken, StorageUnavailable."""
    user_id, now = caller.user["id"], services.clock()
    key = sha256(b"export\0" + user_id.bytes).digest()
    since = await take_attempt(services.database, key, at_most=1, began_by=now - EXPORT_EVERY, now=now)
    if since is not None:
        retry_after = max(1, ceil((since + EXPORT_EVERY - now).total_seconds()))
        raise RateLimited("one's own data may be had once a minute", retry_after=retry_after)
    try:
        return await export_person(services.database, user_id, by=Actor(str(user_id), ip), now=now)
    except NotFound:
        raise InvalidToken("the user has just been erased") from None


async def export_person(database: Database, user_id: UUID, *, by: Actor, now: datetime) -> dict[str, Any]:
    """All that is stored of a person; the trail records the export. A merged id leads to the user that remains.

    Raises: NotFound, StorageUnavailable.
    """
    document = await _read_and_tell(database, user_id, by=by, now=now)
    if document is None and (remaining_id := await remaining_user(database, user_id)) is not None:
        document = await _read_and_tell(database, remaining_id, by=by, now=now)
    if document is None:
        raise NotFound("there is no such user")
    log.info("user_exported", user_id=document["user"]["id"], actor=by.name)
    return document


async def _read_and_tell(database: Database, user_id: UUID, *, by: Actor, now: datetime) -> dict[str, Any] | None:
    async with database.begin() as transaction:
        document = await _read(transaction, user_id, now=now)
        if document is not None:
            await record_event(transaction, EventType.USER_EXPORTED, by=by, at=now, user_id=user_id)
        return document


async def _read(transaction: Transaction, user_id: UUID, *, now: datetime) -> dict[str, Any] | None:
    user = await rows.user_row(transaction, user_id)
    if user is None:
        return None
    former = await former_ids(transaction, user_id)
    avatar = await rows.avatar_of(transaction, user_id)
    return {
        "exported_at": now,
        "user": {
            "id": user["id"],
            "former_ids": former,
            "external_id": user["external_id"],
            "former_external_ids": await former_external_ids(transaction, user_id),
            "unionid": user["unionid"],
            "unionids": await rows.unionids_of(transaction, user_id),
            "nickname": user["nickname"],
            "avatar_url": user["avatar_url"],
            "phone": user["phone"],
            "phone_verified": phone_verified(user),
            "phone_proved_at": user["phone_proved_at"],
            "roles": user["roles"],
            "status": user["status"],
            "created_at": user["created_at"],
            "last_login_at": user["last_login_at"],
        },
        "identities": await rows.identities_of(transaction, user_id),
        "sessions": await rows.sessions_of(transaction, user_id),
        "consents": consent_answers(await consents_of(transaction, user_id)),
        "events": await rows.events_about(transaction, [user_id, *former]),
        "avatar": None
        if avatar is None
        else {"content_type": avatar[0], "content": b64encode(avatar[1]).decode(), "created_at": avatar[2]},
    }
