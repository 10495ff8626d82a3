"""The statements that merge two users, or take identities away from one: to a new user, or to be erased."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString
from uuid import UUID

from wxauth.server.core.database import Transaction
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.core.users import MERGEABLE
from wxauth.server.merging.origin_queries import SINGLE_VALUED, Side, Split, record_moved
from wxauth.server.sessions.queries import EndReason, end_sessions
from wxauth.server.users.consent_queries import PRESENT_CONSENTS, ids_of
from wxauth.server.users.erasure_queries import erase_person_data
from wxauth.server.users.status_queries import Ban
from wxauth.server.users.user_queries import CLEAR_FIELDS


@dataclass(frozen=True, slots=True)
class People:
    """The users of an identity and of a unionid that is new to it."""

    user_id: UUID | None
    """The identity's user."""
    holder_id: UUID | None
    """The unionid's user."""
    misnamed_id: UUID | None = None
    """The user of an imported identity of the same app, which has this unionid in place of its openid."""

    @property
    def two(self) -> tuple[UUID, UUID] | None:
        """Both, if they are two users."""
        if self.user_id is None or self.holder_id is None or self.user_id == self.holder_id:
            return None
        return self.user_id, self.holder_id


_ONE_FRAGMENT: Final = ids_of(":one_id::uuid")
_OTHER_FRAGMENT: Final = ids_of(":other_id::uuid")
PEOPLE: Final = Statement[People]("""
SELECT (SELECT user_id FROM identities WHERE app_id = :app_id AND openid = :openid) AS user_id,
       (SELECT user_id FROM unionids WHERE unionid = :unionid) AS holder_id,
       (SELECT user_id FROM identities
         WHERE app_id = :app_id AND openid = :unionid AND openid <> :openid AND awaits_login) AS misnamed_id
""")
"""The users of an identity and of a unionid, in the only row."""
HOLD_UNIONID: Final = Statement[Nothing]("INSERT INTO unionids (unionid, user_id) VALUES (:unionid, :user_id)")
"""Give a unionid that nobody has to a locked user. The second of two who do so at once is a conflict."""
# The unionid is stored by the login, under the rules of any other late unionid.
_CORRECT_OPENID: Final = Statement[Nothing]("""
UPDATE identities SET openid = :openid, unionid = NULL
 WHERE app_id = :app_id AND openid = :unionid
   AND NOT EXISTS (SELECT FROM identities it WHERE it.app_id = :app_id AND it.openid = :openid)
""")
_DELETE_MISNAMED: Final = Statement[Nothing]("""
DELETE FROM identities WHERE app_id = :app_id AND openid = :unionid
   AND EXISTS (SELECT FROM identities it WHERE it.app_id = :app_id AND it.openid = :openid)
""")
KEEP_MISNAMED: Final = Statement[Nothing](
    "UPDATE identities SET awaits_login = false WHERE app_id = :app_id AND openid = :unionid"
)
"""Leave an identity alone that has a unionid in place of its openid."""
NAME_IDENTITY: Final = Statement[Nothing]("""
WITH named AS (UPDATE identities SET unionid = :unionid WHERE app_id = :app_id AND openid = :openid RETURNING user_id)
UPDATE users SET unionid = :unionid FROM named WHERE users.id = named.user_id
""")
"""Store the unionid that WeChat last gave for an identity, in the rows of the identity and its user."""
# A trigger moves the identities' sessions with them.
# They keep their proofs of a number only if it is also the remaining user's.
_MOVE_IDENTITIES: Final = Statement[str]("""
UPDATE identities
   SET user_id = :into, came_from = COALESCE(came_from, :former_id),
       phone_proved_at = CASE WHEN COALESCE(remaining.phone, former.phone) = former.phone THEN phone_proved_at END
  FROM users former, users remaining
 WHERE user_id = :former_id AND former.id = :former_id AND remaining.id = :into
RETURNING app_id
""")
_MOVE_UNIONIDS: Final = Statement[Nothing](
    "UPDATE unionids SET user_id = :into, came_from = COALESCE(came_from, :former_id) WHERE user_id = :former_id"
)
_MOVE_FORMER_USERS: Final = Statement[Nothing]("UPDATE former_users SET user_id = :into WHERE user_id = :former_id")
_MOVE_EXTERNAL_IDS: Final = Statement[Nothing]("""
UPDATE former_external_ids SET user_id = :into, came_from = COALESCE(came_from, :former_id) WHERE user_id = :former_id
""")
_REMEMBER_FORMER_USER: Final = Statement[Nothing](
    "INSERT INTO former_users (id, user_id, merged_at, merged_into) VALUES (:former_id, :into, :now, :into)"
)
_NOTE_BANS: Final = Statement[Nothing]("UPDATE users SET earlier_bans = :bans::jsonb WHERE id = :user_id")
HAVE_BOTH_EXTERNAL_IDS: Final = Statement[bool](
    "SELECT count(external_id) = 2 AS have_both FROM users WHERE id IN (:one_id, :other_id)"
)
# Both users and the number are locked.
MAY_LINK_BY_PHONE: Final = Statement[bool]("""
SELECT EXISTS (
    SELECT FROM users newcomer, users holder
     WHERE newcomer.id = :newcomer_id AND holder.id = :holder_id
       AND newcomer.created_at >= :created_since
       AND (SELECT count(*) FROM identities WHERE user_id = :newcomer_id) = 1
       AND NOT EXISTS (SELECT FROM identities one JOIN identities other USING (app_id)
                        WHERE one.user_id = :newcomer_id AND other.user_id = :holder_id)
       AND NOT (EXISTS (SELECT FROM unionids WHERE user_id = :newcomer_id)
                AND EXISTS (SELECT FROM unionids WHERE user_id = :holder_id))
       AND (newcomer.external_id IS NULL OR holder.external_id IS NULL)
       AND holder.roles <@ :harmless_roles::text[] AND holder.status = 'active'
       AND holder.phone = :phone AND holder.phone_verified_at >= :verified_since
       AND NOT EXISTS (SELECT FROM users other
                        WHERE other.phone = :phone AND other.phone_verified_at IS NOT NULL
                          AND other.id NOT IN (:newcomer_id, :holder_id)))
""")
"""Whether a new user can be merged into the holder of a number without a risk that the account is stolen."""
ARE_SPLIT: Final = Statement[bool](f"""
SELECT EXISTS (SELECT FROM events
                WHERE type = 'user.split'
                  AND (user_id = ANY ({_ONE_FRAGMENT}) AND data ->> 'new_user_id' = ANY ({_OTHER_FRAGMENT}::text[])
                       OR user_id = ANY ({_OTHER_FRAGMENT}) AND data ->> 'new_user_id' = ANY ({_ONE_FRAGMENT}::text[])))
""")
"""Whether one of these two was split from the other: no automatic merge then. Such events are never deleted."""
# WeChat does not know of these merges. Their events are never deleted. An import has none, but joins two unionids.
IS_JOINED: Final = Statement[bool]("""
SELECT EXISTS (SELECT FROM former_users WHERE user_id = :user_id)
   AND EXISTS (SELECT FROM events
                WHERE type = 'user.merged' AND data ? 'by'
                  AND user_id IN (SELECT :user_id::uuid UNION ALL SELECT id FROM former_users WHERE user_id = :user_id))
    OR (SELECT count(DISTINCT unionid) > 1 FROM identities WHERE user_id = :user_id)
""")
"""Whether the user was joined from several WeChat accounts: by a phone number, an operator, or an import."""


class _Leaving:
    """What leaves a locked user with some identities: the parameters of the statements below, by name."""

    def __init__(
        self,
        split: Split,
        new_user_id: UUID,
        *,
        external_ids: Collection[str],
        lost: Collection[str],
        givers: Iterable[UUID],
    ) -> None:
        facts = split.facts
        self.user_id: Final = split.user_id
        self.new_user_id: Final = new_user_id
        """Who gets what leaves; the user's own id if it is erased."""
        self.app_ids, self.openids = zip(*split.keys, strict=True)
        self.unionid: Final = split.leaving[0].unionid
        self.created_at: Final = split.leaving[0].created_at
        self.former_ids: Final = [former_id for former_id in split.leaving_ids if former_id != new_user_id]
        """The former ids that become those of the new user."""
        self.its_ids: Final = [new_user_id, *self.former_ids]
        """All ids of who leaves: the origins of their unionids."""
        self.moved: Final = split.fields_on(Side.LEAVES)
        """The fields that the new user gets."""
        self.fields: Final = list(lost)
        """The fields that the user loses."""
        leaving = [each for each in split.external_ids if each[0] in external_ids]
        moving = sorted(leaving, key=lambda each: each[1] != split.id_of_merge)
        self.moving: Final = [name for name, _ in moving]
        """The external ids that leave, the present one of the new user first; in parallel, their origins."""
        self.moving_from: Final = [origin if origin in self.former_ids else None for _, origin in moving]
        # A former id does not replace a removed one.
        none: list[tuple[str | None, UUID | None]] = [(None, None)] if facts.external_id is None else []
        staying = [*none, *(each for each in split.external_ids if each not in moving)]
        self.staying: Final = [name for name, _ in staying]
        self.staying_from: Final = [origin for _, origin in staying]
        sides = {giver: split.side_of(giver) for giver in givers} | {split.user_id: split.side_of(None)}
        self.leaving_givers: Final = [giver for giver, side in sides.items() if side is Side.LEAVES]
        """The ids under which stored consents leave."""
        self.unknown_givers: Final = [giver for giver, side in sides.items() if side is Side.UNKNOWN]
        """The ids under which only the app shows whether they leave."""
        self.apps_of_leaving: Final = list(split.apps_of_leaving)
        self.apps_of_staying: Final = list(split.apps_of_staying)
        self.bans: Final = split.bans_on(Side.STAYS, Side.UNKNOWN)
        """Those from before merges that do not leave."""
        self.is_reason_lost: Final = facts.has_earlier_ban and facts.status_and_roles.ban not in self.bans.values()

    async def run(self, transaction: Transaction, statements: Sequence[Statement[object]]) -> None:
        """Run statements, each with the values that it names."""
        for statement in statements:
            await transaction.run(statement, **{name: getattr(self, name) for name in statement.names})


_FREE_EXTERNAL_IDS: Final = Statement[Nothing]("DELETE FROM former_external_ids WHERE user_id = :user_id")
_KEEP_EXTERNAL_ID: Final = Statement[Nothing]("""
UPDATE users SET external_id = (:staying::text[])[1], external_id_from = (:staying_from::uuid[])[1] WHERE id = :user_id
""")


def _former_external_ids_fragment(user_id: LiteralString, names: LiteralString) -> LiteralString:
    return f"""
INSERT INTO former_external_ids (external_id, user_id, came_from)
SELECT external_id, {user_id}, came_from
  FROM unnest(:{names}::text[], :{names}_from::uuid[]) WITH ORDINALITY AS given (external_id, came_from, place)
 WHERE place > 1
"""


_KEEP_FORMER_EXTERNAL_IDS: Final = Statement[Nothing](_former_external_ids_fragment(":user_id", "staying"))
_GIVE_FORMER_EXTERNAL_IDS: Final = Statement[Nothing](_former_external_ids_fragment(":new_user_id", "moving"))
# The user gets the unionid of the newest identity that stays.
_GIVE_UP_UNIONID: Final = Statement[Nothing]("""
UPDATE users
   SET unionid = (SELECT i.unionid FROM identities i
                   WHERE i.user_id = :user_id AND i.unionid IS NOT NULL
                     AND (i.app_id, i.openid) NOT IN (SELECT * FROM unnest(:app_ids::text[], :openids::text[]))
                   ORDER BY i.created_at DESC LIMIT 1)
 WHERE id = :user_id
   AND (users.unionid = :unionid
        OR users.unionid IN (SELECT unionid FROM unionids
                              WHERE user_id = :user_id AND came_from = ANY (:its_ids::uuid[])))
""")
_MOVE_AVATAR: Final = Statement[Nothing]("""
UPDATE avatars SET user_id = :new_user_id WHERE user_id = :user_id AND 'avatar_url' = ANY (:moved::text[])
""")
# Proofs of a number that stays with the user end.
_SPLIT_IDENTITIES: Final = Statement[Nothing]("""
UPDATE identities
   SET user_id = :new_user_id, came_from = CASE WHEN came_from = ANY (:former_ids::uuid[]) THEN came_from END,
       phone_proved_at = CASE WHEN 'phone' = ANY (:moved::text[]) THEN phone_proved_at END
  FROM unnest(:app_ids::text[], :openids::text[]) AS i (app_id, openid)
 WHERE (identities.app_id, identities.openid) = (i.app_id, i.openid)
""")
# The reason for a ban is about the person who leaves, if it was theirs before. A split then lifts the ban; an erasure
# does not, because somebody could lift a ban by closing an account.
_GIVE_UP_PROOF_AND_REASON: Final = Statement[Nothing]("""
UPDATE users
   SET phone_verified_at = CASE WHEN phone_verified_at IS NOT NULL
                                THEN COALESCE((SELECT max(phone_proved_at) FROM identities
                                                WHERE identities.user_id = users.id), phone_verified_at) END,
       ban_reason = CASE WHEN :is_reason_lost THEN NULL ELSE ban_reason END,
       earlier_bans = NULLIF(:bans::jsonb, '{}')
 WHERE id = :user_id
""")
# The unionid of these identities, and those merged with the former ids that leave, except unionids of identities that
# stay.
_ARE_LEAVING_UNIONIDS: Final = """
       user_id = :user_id AND (unionid = :unionid OR came_from = ANY (:its_ids::uuid[]))
   AND NOT EXISTS (SELECT FROM identities i WHERE i.user_id = :user_id AND i.unionid = unionids.unionid)"""
_SPLIT_UNIONIDS: Final = Statement[Nothing](f"""
UPDATE unionids
   SET user_id = :new_user_id, came_from = CASE WHEN came_from = ANY (:former_ids::uuid[]) THEN came_from END
 WHERE {_ARE_LEAVING_UNIONIDS}
""")
_DELETE_UNIONIDS: Final = Statement[Nothing](f"DELETE FROM unionids WHERE {_ARE_LEAVING_UNIONIDS}")
_TAKE_BACK: Final = Statement[Nothing]("DELETE FROM former_users WHERE id = :new_user_id")
_MOVE_FORMER_IDS: Final = Statement[Nothing](
    "UPDATE former_users SET user_id = :new_user_id WHERE id = ANY (:former_ids::uuid[])"
)
# A trigger deletes the identities' sessions with them.
_ERASE_IDENTITIES: Final = Statement[Nothing]("""
DELETE FROM identities USING unnest(:app_ids::text[], :openids::text[]) AS gone (app_id, openid)
 WHERE (identities.app_id, identities.openid) = (gone.app_id, gone.openid)
""")
_OTHER_APPS: Final = Statement[str]("""
SELECT app_id FROM identities WHERE user_id = :user_id AND (app_id, openid) <> (:app_id, :openid)
""")
# A unionid that no other identity has was known by this one alone.
_ERASE_IDENTITY: Final = Statement[Nothing]("""
WITH gone AS (
    DELETE FROM identities WHERE app_id = :app_id AND openid = :openid RETURNING unionid
), others AS (
    SELECT unionid, created_at FROM identities
     WHERE user_id = :user_id AND (app_id, openid) <> (:app_id, :openid)
), lost AS (
    DELETE FROM unionids USING gone
     WHERE unionids.unionid = gone.unionid AND NOT EXISTS (SELECT FROM others WHERE others.unionid = gone.unionid)
    RETURNING unionids.unionid
)
UPDATE users
   SET unionid = (SELECT unionid FROM others WHERE unionid IS NOT NULL ORDER BY created_at DESC LIMIT 1)
  FROM lost WHERE users.id = :user_id AND users.unionid = lost.unionid
""")
_LEAVING_FRAGMENT: Final = """(user_id = ANY (:leaving_givers::uuid[])
        OR user_id = ANY (:unknown_givers::uuid[]) AND app_id = ANY (:apps_of_leaving::text[]))"""
_MOVE_CONSENTS: Final = Statement[Nothing](f"UPDATE consents SET user_id = :new_user_id WHERE {_LEAVING_FRAGMENT}")
_DELETE_UNKNOWN_CONSENTS: Final = Statement[Nothing]("""
DELETE FROM consents
 WHERE user_id = ANY (:unknown_givers::uuid[]) AND (app_id = ANY (:apps_of_staying::text[])) IS NOT TRUE
""")
_DELETE_CONSENTS: Final = Statement[Nothing](f"DELETE FROM consents WHERE {_LEAVING_FRAGMENT}")
_NOTE_CONSENTS: Final = Statement[Nothing](
    f"UPDATE users SET consents = {PRESENT_CONSENTS} WHERE id IN (:user_id, :new_user_id)"
)


def _field_fragment(name: LiteralString) -> LiteralString:
    return f"""CASE WHEN '{name}' = ANY (:moved::text[]) THEN {name} END,
       CASE WHEN '{name}' = ANY (:moved::text[]) AND {name}_from = ANY (:former_ids::uuid[]) THEN {name}_from END"""


_ADD: Final = Statement[Nothing](f"""
INSERT INTO users (id, unionid, created_at, last_login_at, phone_verified_at,
                   external_id, external_id_from, {", ".join(f"{name}, {name}_from" for name in SINGLE_VALUED)})
SELECT :new_user_id, :unionid, :created_at, last_login_at,
       CASE WHEN 'phone' = ANY (:moved::text[])
            THEN COALESCE((SELECT max(phone_proved_at) FROM identities
                            WHERE (app_id, openid) IN (SELECT * FROM unnest(:app_ids::text[], :openids::text[]))),
                          phone_verified_at) END,
       (:moving::text[])[1], (:moving_from::uuid[])[1], {", ".join(_field_fragment(name) for name in SINGLE_VALUED)}
  FROM users WHERE id = :user_id
""")
_SPLIT: Final = (
    _FREE_EXTERNAL_IDS,  # before each is stored again, with its user
    _KEEP_EXTERNAL_ID,  # before `_ADD`, as the new user may get the one before
    _KEEP_FORMER_EXTERNAL_IDS,
    _GIVE_UP_UNIONID,  # before `_ADD`, as the new user may get it, and while the user has those of all identities
    _ADD,  # before all that refers to the new user; while the user has the fields, and identities their proofs
    _GIVE_FORMER_EXTERNAL_IDS,
    _MOVE_AVATAR,  # before `CLEAR_FIELDS`, at which a trigger deletes the user's picture
    _SPLIT_IDENTITIES,  # before `CLEAR_FIELDS`, at which a trigger ends the proofs of the user's identities
    CLEAR_FIELDS,
    _GIVE_UP_PROOF_AND_REASON,
    _SPLIT_UNIONIDS,  # after the identities, as the unionids of those that are left stay
    _TAKE_BACK,
    _MOVE_FORMER_IDS,
    _MOVE_CONSENTS,
    _DELETE_UNKNOWN_CONSENTS,  # after those that are known to leave
    _NOTE_CONSENTS,  # last, as it counts what each user has now
)
_ERASE: Final = (  # in the order of a split, for the same reasons
    _FREE_EXTERNAL_IDS,
    _KEEP_EXTERNAL_ID,
    _KEEP_FORMER_EXTERNAL_IDS,
    _GIVE_UP_UNIONID,
    _ERASE_IDENTITIES,
    CLEAR_FIELDS,
    _GIVE_UP_PROOF_AND_REASON,  # after the identities, as only the proofs of those that are left count
    _DELETE_UNIONIDS,
    _DELETE_CONSENTS,
    _NOTE_CONSENTS,
)


def _origin_fragment(name: LiteralString) -> LiteralString:
    return f"""{name}_from = CASE WHEN users.{name} IS NULL
                                THEN COALESCE(former.{name}_from, former.id) ELSE users.{name}_from END"""


# Deletes the former user and updates the remaining one in one statement, because otherwise unique values would exist
# twice for a moment. The caller has locked both.
_MERGE: Final = Statement[Nothing](f"""
WITH before AS (
    SELECT external_id FROM users WHERE id = :into
), former AS (
    DELETE FROM users WHERE id = :former_id
    RETURNING *
), moved AS (
    UPDATE avatars SET user_id = users.id FROM former, users
     WHERE avatars.user_id = former.id AND users.id = :into AND users.avatar_url IS NULL
), remembered AS (
    INSERT INTO former_external_ids (external_id, user_id, came_from)
    SELECT former.external_id, :into, COALESCE(former.external_id_from, former.id) FROM former, before
     WHERE former.external_id IS NOT NULL AND before.external_id IS NOT NULL
)
UPDATE users
   SET {", ".join(f"{name} = COALESCE(users.{name}, former.{name})" for name in ("unionid", *MERGEABLE))},
       phone_verified_at = CASE WHEN users.phone IS NULL THEN former.phone_verified_at
                              WHEN users.phone = former.phone AND NOT :is_by_phone
                              THEN GREATEST(users.phone_verified_at, former.phone_verified_at)
                              ELSE users.phone_verified_at END,
       {", ".join(_origin_fragment(name) for name in MERGEABLE if name != "phone")},
       phone_from = CASE WHEN users.phone IS NULL THEN COALESCE(former.phone_from, former.id)
                         WHEN users.phone = former.phone THEN users.id -- of one of the two
                         ELSE users.phone_from END,
       consents = {PRESENT_CONSENTS},
       created_at = LEAST(users.created_at, former.created_at),
       last_login_at = GREATEST(users.last_login_at, former.last_login_at)
  FROM former
 WHERE users.id = :into
""")


async def merge_users(
    transaction: Transaction, former_id: UUID, *, into: UUID, is_by_phone: bool, now: datetime
) -> Sequence[str]:
    """Merge a user into another one, and remember the former id. Only empty fields of the other user are filled.

    Returns the app of each identity that was moved.

    The proof of a number that both have is the later one; in a merge by phone number, the remaining user's.
    """
    app_ids = await transaction.values(_MOVE_IDENTITIES, former_id=former_id, into=into)
    for statement in (_MOVE_UNIONIDS, _MOVE_FORMER_USERS, _MOVE_EXTERNAL_IDS):
        await transaction.run(statement, former_id=former_id, into=into)
    # Before `_MERGE`, which finds the former user's consents by this row: they are not moved, as there may be many.
    await transaction.run(_REMEMBER_FORMER_USER, former_id=former_id, into=into, now=now)
    await transaction.run(_MERGE, former_id=former_id, into=into, is_by_phone=is_by_phone)
    return app_ids


async def correct_openid(transaction: Transaction, *, app_id: str, openid: str, unionid: str) -> None:
    """Give the identity that has a unionid as its openid the right one; delete it, if there is one with the right one.

    The user of the unionid, who is also this identity's, is locked.
    """
    for statement in (_CORRECT_OPENID, _DELETE_MISNAMED):
        await transaction.run(statement, app_id=app_id, openid=openid, unionid=unionid)


async def note_bans(transaction: Transaction, user_id: UUID, bans: Mapping[str, Ban]) -> None:
    """Note whose bans those of a merged user were, by ids."""
    if bans:
        await transaction.run(_NOTE_BANS, user_id=user_id, bans=bans)


async def split_user(
    transaction: Transaction, split: Split, *, new_user_id: UUID, external_ids: Collection[str]
) -> None:
    """Move the leaving identities of a locked user, which include all with their unionid, to a new user.

    The new user's id is a former id of the user, or a new one. The new user gets these external ids, the fields and
    former ids that leave, and their consents. Fields of unknown origin are lost. If the id under which consents are
    stored does not show who gave them, the app does; if both have an identity there, they are deleted.
    """
    # Consents under an id that leaves move with it.
    kept = [former_id for former_id in split.merges if former_id not in (new_user_id, *split.leaving_ids)]
    lost = split.fields_on(Side.LEAVES, Side.UNKNOWN)
    leaving = _Leaving(split, new_user_id, external_ids=external_ids, lost=lost, givers=kept)
    await leaving.run(transaction, _SPLIT)


async def erase_identities(
    transaction: Transaction, user_id: UUID, *, app_id: str, openid: str, by: Actor, now: datetime
) -> bool:
    """Erase an identity of a locked user and all others with its unionid, and the facts known to be theirs.

    These are name, picture, number, external ids and consents, the reason for a ban, and events and refusals of the
    former ids. The identities' sessions are deleted, and recorded as ended. What the user has lost is recorded, so that
    who knows users by events alone loses it too.

    Returns False, and does nothing, if the user has no other identity.
    """
    split = await Split.of(transaction, user_id, (app_id, openid))
    if split is None or split.is_whole:
        return False
    lost = [name for name in split.fields_on(Side.LEAVES) if name != "phone" or not split.is_number_of_staying]
    await end_sessions(transaction, user_id, reason=EndReason.ERASED, by=by, now=now, identities=split.keys)
    gone = [name for name, origin in split.external_ids if split.side_of(origin) is Side.LEAVES]
    leaving = _Leaving(split, user_id, external_ids=gone, lost=lost, givers=split.merges)
    await leaving.run(transaction, _ERASE)
    await erase_person_data(transaction, split.leaving_ids)
    for left_app_id in sorted(split.apps_of_leaving):
        await record_event(transaction, EventType.IDENTITY_REMOVED, by=by, at=now, user_id=user_id, app_id=left_app_id)
    await record_moved(transaction, user_id, split.facts, by=by, now=now)
    return True


async def erase_identity(
    transaction: Transaction, user_id: UUID, *, app_id: str, openid: str, by: Actor, now: datetime
) -> bool:
    """Erase this identity of a locked user alone: all else stays with the others, also those with its unionid.

    Returns False, and does nothing, if the user has no other identity.
    """
    identity = {"app_id": app_id, "openid": openid}
    other_apps = await transaction.values(_OTHER_APPS, user_id=user_id, **identity)
    if not other_apps:
        return False
    await end_sessions(transaction, user_id, reason=EndReason.ERASED, by=by, now=now, identities=[(app_id, openid)])
    await transaction.run(_ERASE_IDENTITY, user_id=user_id, **identity)
    if app_id not in other_apps:
        await record_event(transaction, EventType.IDENTITY_REMOVED, by=by, at=now, user_id=user_id, app_id=app_id)
    return True
