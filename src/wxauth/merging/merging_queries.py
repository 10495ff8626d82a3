"""The statements that merge two users who are the same person, and the queries that decide whether wxauth may do so."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from wxauth.core.database import Transaction
from wxauth.core.statements import Nothing, Statement, columns_of
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.core.users import MERGEABLE_FIELDS, PROFILE_FIELDS, UserFields
from wxauth.users.consent_queries import PRESENT_CONSENTS
from wxauth.users.status_queries import LockedUser
from wxauth.users.user_queries import ids_fragment

# For each of two users, the SQL of an array of the user's present id and all former ids. `ARE_SPLIT` needs the former
# ids, because an event keeps the id that its user had at the time.
_IDS_OF_ONE: Final = ids_fragment(":one_id::uuid")
_IDS_OF_OTHER: Final = ids_fragment(":other_id::uuid")
HAVE_BOTH_EXTERNAL_IDS: Final = Statement[bool](
    "SELECT count(external_id) = 2 AS have_both FROM users WHERE id IN (:one_id, :other_id)"
)
"""The query that returns whether each of two users has an external id."""
# The caller holds the locks of both users and of the number.
MAY_LINK_BY_PHONE: Final = Statement[bool]("""
SELECT EXISTS (
    SELECT FROM users new_user, users holder
     WHERE new_user.id = :new_user_id AND holder.id = :holder_id
       AND new_user.created_at >= :created_since
       AND (SELECT count(*) FROM identities WHERE user_id = :new_user_id) = 1
       AND NOT EXISTS (SELECT FROM identities of_new_user JOIN identities of_holder USING (app_id)
                        WHERE of_new_user.user_id = :new_user_id AND of_holder.user_id = :holder_id)
       AND NOT (EXISTS (SELECT FROM unionids WHERE user_id = :new_user_id)
                AND EXISTS (SELECT FROM unionids WHERE user_id = :holder_id))
       AND (new_user.external_id IS NULL OR holder.external_id IS NULL)
       AND holder.roles <@ :harmless_roles::text[] AND holder.status = 'active'
       AND holder.phone = :phone AND holder.phone_verified_at >= :verified_since
       AND NOT EXISTS (SELECT FROM users third_user
                        WHERE third_user.phone = :phone AND third_user.phone_verified_at IS NOT NULL
                          AND third_user.id NOT IN (:new_user_id, :holder_id)))
""")
"""The query that checks whether wxauth may merge a new user into the holder of the same phone number.

The conditions prevent the theft of accounts. `link_by_phone` lists all of them, and checks some of them itself.
"""
ARE_SPLIT: Final = Statement[bool](f"""
SELECT EXISTS (SELECT FROM events
                WHERE type = 'user.split'
                  AND ((user_id = ANY ({_IDS_OF_ONE}) AND data ->> 'new_user_id' = ANY ({_IDS_OF_OTHER}::text[]))
                       OR (user_id = ANY ({_IDS_OF_OTHER}) AND data ->> 'new_user_id' = ANY ({_IDS_OF_ONE}::text[]))))
""")
"""The query that returns whether one of two users was split off from the other.

wxauth must not merge such users automatically. The query finds the events of splits, which wxauth never deletes.
"""
# wxauth never deletes the events of merges. The events with `by` in their data report merges that WeChat has not
# caused. An import that joins several accounts leaves no such event, so the query recognizes the joined user only by
# identities with different unionids. Most users were never merged. For them, the first EXISTS avoids a search through
# the merges of all users.
IS_JOINED: Final = Statement[bool]("""
SELECT (EXISTS (SELECT FROM former_users WHERE user_id = :user_id)
        AND EXISTS (SELECT FROM events
                     WHERE type = 'user.merged' AND data ? 'by'
                       AND user_id IN (SELECT :user_id::uuid
                                        UNION ALL
                                       SELECT id FROM former_users WHERE user_id = :user_id)))
    OR (SELECT count(DISTINCT unionid) > 1 FROM identities WHERE user_id = :user_id)
""")
"""The query that returns whether a phone number, an operator or an import has joined several WeChat accounts."""


class UserInMerge(UserFields, LockedUser):
    """The data of one of the two users in a merge, before the merge or after it."""


_USER: Final = Statement[UserInMerge](f"SELECT {', '.join(columns_of(UserInMerge))} FROM users WHERE id = :user_id")
# A trigger moves the sessions of the identities, too. The identities keep the proofs of the removed user's number only
# if the remaining user has the same number, or gets it from the removed user.
_MOVE_IDENTITIES: Final = Statement[str]("""
UPDATE identities
   SET user_id = :remaining_id,
       phone_proved_at = CASE WHEN COALESCE(remaining.phone, former.phone) = former.phone THEN phone_proved_at END
  FROM users former, users remaining
 WHERE user_id = :former_id AND former.id = :former_id AND remaining.id = :remaining_id
RETURNING app_id
""")
_MOVE_UNIONIDS: Final = Statement[Nothing]("UPDATE unionids SET user_id = :remaining_id WHERE user_id = :former_id")
_MOVE_FORMER_IDS: Final = Statement[Nothing](
    "UPDATE former_users SET user_id = :remaining_id WHERE user_id = :former_id"
)
_MOVE_FORMER_EXTERNAL_IDS: Final = Statement[Nothing](
    "UPDATE former_external_ids SET user_id = :remaining_id WHERE user_id = :former_id"
)
# If both users have an external id, the removed user's external id becomes a former external id of the remaining user.
_REMEMBER_EXTERNAL_ID: Final = Statement[Nothing]("""
INSERT INTO former_external_ids (external_id, user_id)
SELECT former.external_id, remaining.id
  FROM users former, users remaining
 WHERE former.id = :former_id AND remaining.id = :remaining_id
   AND former.external_id IS NOT NULL AND remaining.external_id IS NOT NULL
""")
# The uploaded picture of the removed user moves only if the remaining user has no picture.
_MOVE_PICTURE: Final = Statement[Nothing]("""
UPDATE avatars SET user_id = remaining.id
  FROM users remaining
 WHERE avatars.user_id = :former_id AND remaining.id = :remaining_id AND remaining.avatar_url IS NULL
""")
_REMEMBER_ID: Final = Statement[Nothing](
    "INSERT INTO former_users (id, user_id, merged_at) VALUES (:former_id, :remaining_id, :now)"
)
# One statement deletes the removed user, and gives this user's values to the remaining user. With two statements, an
# update before the deletion would store unique values twice, and a deletion before the update would lose the values.
# The caller has locked both users.
_MERGE: Final = Statement[Nothing](f"""
WITH former AS (
    DELETE FROM users WHERE id = :former_id
    RETURNING *
)
UPDATE users
   SET {", ".join(f"{name} = COALESCE(users.{name}, former.{name})" for name in ("unionid", *MERGEABLE_FIELDS))},
       phone_verified_at = CASE WHEN users.phone IS NULL THEN former.phone_verified_at
                              WHEN users.phone = former.phone AND NOT :is_by_phone
                              THEN GREATEST(users.phone_verified_at, former.phone_verified_at)
                              ELSE users.phone_verified_at END,
       consents = {PRESENT_CONSENTS},
       created_at = LEAST(users.created_at, former.created_at),
       last_login_at = GREATEST(users.last_login_at, former.last_login_at)
  FROM former
 WHERE users.id = :remaining_id
""")


async def read_user(transaction: Transaction, user_id: UUID) -> UserInMerge:
    """Return the data that a merge needs of a locked user. The user must exist."""
    return await transaction.one(_USER, user_id=user_id)


async def merge_users(
    transaction: Transaction, former_id: UUID, *, into: UUID, is_by_phone: bool, now: datetime
) -> Sequence[str]:
    """Merge a locked user into another locked user, and delete the first one. Return the app_id of each moved identity.

    The removed user's identities, with their sessions, move to the remaining user. So do the unionids, the former ids
    and the former external ids. The removed user's own id becomes a former id of the remaining user. If both users have
    an external id, the removed user's external id becomes a former external id.

    The remaining user keeps their unionid and `MERGEABLE_FIELDS`. If one of these fields is empty, the user gets the
    removed user's value. The earlier creation time, the later time of last login, and the consents of both users are
    kept. If both users have the same number, the later proof of it is kept. In a merge by phone number, the remaining
    user's proof is kept instead, because the removed user might be another person, to whom the carrier has given the
    number.

    This function does not change the status, the roles or the attributes of the remaining user.
    """
    ids = {"former_id": former_id, "remaining_id": into}
    app_ids = await transaction.values(_MOVE_IDENTITIES, **ids)
    await transaction.run(_MOVE_UNIONIDS, **ids)
    await transaction.run(_MOVE_FORMER_IDS, **ids)
    await transaction.run(_MOVE_FORMER_EXTERNAL_IDS, **ids)
    await transaction.run(_REMEMBER_EXTERNAL_ID, **ids)
    await transaction.run(_MOVE_PICTURE, **ids)
    await transaction.run(_REMEMBER_ID, **ids, now=now)
    # `_MERGE` runs last, because it deletes the row of the removed user. It finds this user's consents through the row
    # that `_REMEMBER_ID` has added.
    await transaction.run(_MERGE, **ids, is_by_phone=is_by_phone)
    return app_ids


async def record_gained_data(
    transaction: Transaction, user_id: UUID, before: UserInMerge, *, by: Actor, now: datetime
) -> None:
    """Record the profile, the phone number and the consents that the remaining user has received from the removed user.

    One event reports the nickname and the picture, and one the phone number. Each consent has an event of its own.

    `user_id` is the id of the remaining user, and `before` is the data of this user before the merge.
    """
    after = await read_user(transaction, user_id)
    fields = [name for name in PROFILE_FIELDS if getattr(after, name) != getattr(before, name)]
    if fields:
        data = {"fields": fields}
        await record_event(transaction, EventType.PROFILE_CHANGED, by=by, at=now, user_id=user_id, data=data)
    if after.phone != before.phone:
        await record_event(transaction, EventType.PHONE_BOUND, by=by, at=now, user_id=user_id)
    consents_before = before.consents or {}
    for document, version in sorted((after.consents or {}).items()):
        if consents_before.get(document) != version:
            consent = {"document": document, "version": version}
            await record_event(transaction, EventType.CONSENT_GIVEN, by=by, at=now, user_id=user_id, data=consent)
