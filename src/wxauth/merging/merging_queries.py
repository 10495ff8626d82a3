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

# The arrays contain the former ids, too, because an event keeps the id that its user had at the time.
_IDS_OF_ONE: Final = ids_fragment(":one_id::uuid")
_IDS_OF_OTHER: Final = ids_fragment(":other_id::uuid")
HAVE_BOTH_EXTERNAL_IDS: Final = Statement[bool](
    "SELECT count(external_id) = 2 AS have_both FROM users WHERE id IN (:one_id, :other_id)"
)
# The caller holds the locks of both users and of the number. `link_by_phone` checks the other conditions.
MAY_LINK_BY_PHONE: Final = Statement[bool]("""
SELECT EXISTS (
    SELECT FROM users new_user, users holder
     WHERE new_user.id = :new_user_id AND holder.id = :holder_id
       AND new_user.created_at >= :created_since  -- the id of an older user may be stored elsewhere
       AND (SELECT count(*) FROM identities WHERE user_id = :new_user_id) = 1
       -- one WeChat account has one openid in an app, and one unionid
       AND NOT EXISTS (SELECT FROM identities of_new_user JOIN identities of_holder USING (app_id)
                        WHERE of_new_user.user_id = :new_user_id AND of_holder.user_id = :holder_id)
       AND NOT (EXISTS (SELECT FROM unionids WHERE user_id = :new_user_id)
                AND EXISTS (SELECT FROM unionids WHERE user_id = :holder_id))
       AND (new_user.external_id IS NULL OR holder.external_id IS NULL)  -- a merge would discard one of two
       -- only roles that a new user can get by signing up, because the number may be another person's by now
       AND holder.roles <@ :harmless_roles::text[]
       AND holder.status = 'active'  -- otherwise the merge would ban the new user
       -- later logins do not show that the holder still has the number, so they do not count as a verification
       AND holder.phone = :phone AND holder.phone_verified_at >= :verified_since
       -- of several holders, the number does not tell which one the new user is
       AND NOT EXISTS (SELECT FROM users third_user
                        WHERE third_user.phone = :phone AND third_user.phone_verified_at IS NOT NULL
                          AND third_user.id NOT IN (:new_user_id, :holder_id)))
""")
# Users who were split must not be merged automatically. The events of splits are never deleted.
ARE_SPLIT: Final = Statement[bool](f"""
SELECT EXISTS (SELECT FROM events
                WHERE type = 'user.split'
                  AND ((user_id = ANY ({_IDS_OF_ONE}) AND data ->> 'new_user_id' = ANY ({_IDS_OF_OTHER}::text[]))
                       OR (user_id = ANY ({_IDS_OF_OTHER}) AND data ->> 'new_user_id' = ANY ({_IDS_OF_ONE}::text[]))))
""")
# Whether a phone number, an operator or an import has joined several WeChat accounts in this user.
IS_JOINED: Final = Statement[bool]("""
-- most users were never merged: they need no search through the merges of all users
SELECT (EXISTS (SELECT FROM former_users WHERE user_id = :user_id)
        -- these events are never deleted; those with `by` report merges that WeChat has not caused
        AND EXISTS (SELECT FROM events
                     WHERE type = 'user.merged' AND data ? 'by'
                       AND user_id IN (SELECT :user_id::uuid
                                        UNION ALL
                                       SELECT id FROM former_users WHERE user_id = :user_id)))
    -- an import leaves no event
    OR (SELECT count(DISTINCT unionid) > 1 FROM identities WHERE user_id = :user_id)
""")


class UserInMerge(UserFields, LockedUser):
    """One of the two users of a merge, before or after it."""


_USER: Final = Statement[UserInMerge](f"SELECT {', '.join(columns_of(UserInMerge))} FROM users WHERE id = :user_id")
# A trigger moves the sessions of the identities, too.
_MOVE_IDENTITIES: Final = Statement[str]("""
UPDATE identities
   SET user_id = :remaining_id,
       -- the proofs are kept if the remaining user has the same number, or gets it from the former user
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
# If both users have an external id, the former user's becomes a former external id of the remaining user.
_REMEMBER_EXTERNAL_ID: Final = Statement[Nothing]("""
INSERT INTO former_external_ids (external_id, user_id)
SELECT former.external_id, remaining.id
  FROM users former, users remaining
 WHERE former.id = :former_id AND remaining.id = :remaining_id
   AND former.external_id IS NOT NULL AND remaining.external_id IS NOT NULL
""")

_MOVE_PICTURE: Final = Statement[Nothing]("""
UPDATE avatars SET user_id = remaining.id
  FROM users remaining
 WHERE avatars.user_id = :former_id AND remaining.id = :remaining_id AND remaining.avatar_url IS NULL
""")
_REMEMBER_ID: Final = Statement[Nothing](
    "INSERT INTO former_users (id, user_id, merged_at) VALUES (:former_id, :remaining_id, :now)"
)
# One statement, because an update before the deletion would store unique values twice, and a deletion before the update
# would lose the values. Consents and events keep the former user's id, through which they are found.
_MERGE: Final = Statement[Nothing](f"""
WITH former AS (
    DELETE FROM users WHERE id = :former_id
    RETURNING *
)
UPDATE users
   SET {", ".join(f"{name} = COALESCE(users.{name}, former.{name})" for name in ("unionid", *MERGEABLE_FIELDS))},
       phone_verified_at = CASE WHEN users.phone IS NULL THEN former.phone_verified_at
                                -- not in a merge by number: the carrier might have given it to another person
                                WHEN users.phone = former.phone AND :joins_verifications
                                THEN GREATEST(users.phone_verified_at, former.phone_verified_at)
                                ELSE users.phone_verified_at END,
       consents = {PRESENT_CONSENTS},
       created_at = LEAST(users.created_at, former.created_at),
       last_login_at = GREATEST(users.last_login_at, former.last_login_at),
       last_refresh_at = GREATEST(users.last_refresh_at, former.last_refresh_at)
  FROM former
 WHERE users.id = :remaining_id
""")


async def read_user(transaction: Transaction, user_id: UUID) -> UserInMerge:
    """Return what a merge needs of a locked user, who must exist."""
    return await transaction.one(_USER, user_id=user_id)


async def merge_users(
    transaction: Transaction, former_id: UUID, *, into: UUID, joins_verifications: bool, now: datetime
) -> Sequence[str]:
    """Move a locked user's data into another locked user, and delete the first. Return the app_ids of moved identities.

    The remaining user's status, roles and attributes are left to the caller.
    """
    ids = {"former_id": former_id, "remaining_id": into}
    app_ids = await transaction.values(_MOVE_IDENTITIES, **ids)
    await transaction.run(_MOVE_UNIONIDS, **ids)
    await transaction.run(_MOVE_FORMER_IDS, **ids)
    await transaction.run(_MOVE_FORMER_EXTERNAL_IDS, **ids)
    await transaction.run(_REMEMBER_EXTERNAL_ID, **ids)
    await transaction.run(_MOVE_PICTURE, **ids)
    await transaction.run(_REMEMBER_ID, **ids, now=now)
    # `_MERGE` runs last, because it deletes the row of the former user. It finds this user's consents through the row
    # that `_REMEMBER_ID` has added.
    await transaction.run(_MERGE, **ids, joins_verifications=joins_verifications)
    return app_ids


async def record_gained_data(
    transaction: Transaction, user_id: UUID, before: UserInMerge, *, by: Actor, now: datetime
) -> None:
    """Record the profile, the number and the consents that a user did not have `before` the merge."""
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
