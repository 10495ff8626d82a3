"""The origin of each fact about a merged user: what leaves with some of the user's identities, and what stays.

A merge notes the former id with each identity, unionid and external id, and with each field that it fills. This id is
the *origin*; null means the user's own part. A person's later changes have the origin of the identity that made them.
So a fact leaves if all identities of its origin leave, and stays if none does. Otherwise its owner is not known.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from functools import cached_property
from typing import Final
from uuid import UUID

from sqlmodel import SQLModel

from wxauth.server.core.database import Transaction
from wxauth.server.core.statements import Statement, columns_of
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.core.users import MERGEABLE, PROFILE_FIELDS, EarlierBan, Origins, UserFields
from wxauth.server.users.status_queries import Ban, LockedUser, StatusAndRoles

AppAndOpenid = tuple[str, str]


class OwnedIdentity(SQLModel):
    """An identity of the user."""

    app_id: str
    openid: str
    unionid: str | None
    created_at: datetime
    came_from: UUID | None
    origin: UUID | None
    """As `came_from`; that of the unionid, if the identity was added after the merge."""
    phone_proved_at: datetime | None

    @property
    def key(self) -> AppAndOpenid:
        """Its app_id and openid."""
        return self.app_id, self.openid


class Facts(UserFields, LockedUser, Origins):
    """What can move to another user besides identities, with the origin of what a merge may have filled."""

    earlier_bans: dict[str, EarlierBan] | None

    @property
    def status_and_roles(self) -> StatusAndRoles:
        """The ban and the roles of the user."""
        return StatusAndRoles.of(self)

    @property
    def bans_before_merges(self) -> dict[str, Ban]:
        """The bans from before merges, by the ids of whose they were."""
        return {key: Ban.of(earlier) for key, earlier in (self.earlier_bans or {}).items()}

    @property
    def has_earlier_ban(self) -> bool:
        """Whether the present ban was given before the last merge."""
        return self.status_and_roles.ban in self.bans_before_merges.values()

    @property
    def bans(self) -> dict[str, Ban]:
        """The bans that a merge records: those from before earlier ones, and the present one, if it was given since."""
        ban = self.status_and_roles.ban
        return self.bans_before_merges | ({} if ban is None or self.has_earlier_ban else {str(self.id): ban})


_IDENTITIES: Final = Statement[OwnedIdentity]("""
SELECT app_id, openid, i.unionid, created_at, i.came_from, COALESCE(i.came_from, unionids.came_from) AS origin,
       phone_proved_at
  FROM identities i LEFT JOIN unionids ON unionids.unionid = i.unionid
 WHERE i.user_id = :user_id
 ORDER BY created_at, app_id, openid
""")
_FACTS: Final = Statement[Facts](f"SELECT {', '.join(columns_of(Facts))} FROM users WHERE id = :user_id")
_EXTERNAL_IDS: Final = Statement[tuple[str, UUID | None, bool]]("""
SELECT external_id, external_id_from AS origin, true AS is_present
  FROM users WHERE id = :user_id AND external_id IS NOT NULL
 UNION ALL
SELECT external_id, came_from, false FROM former_external_ids WHERE user_id = :user_id
 ORDER BY is_present DESC, external_id
""")
_FORMER_IDS: Final = Statement[tuple[UUID, UUID | None]](
    "SELECT id, merged_into FROM former_users WHERE user_id = :user_id ORDER BY merged_at, id"
)


SINGLE_VALUED: Final = tuple(name for name in MERGEABLE if name != "external_id")
"""The fields of which a user has one value at a time; an external id may also be a former one."""
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


async def facts_of(transaction: Transaction, user_id: UUID) -> Facts:
    """The facts about a locked user."""
    return await transaction.one(_FACTS, user_id=user_id)


async def record_moved(transaction: Transaction, user_id: UUID, before: Facts, *, by: Actor, now: datetime) -> None:
    """Record what a locked user has got or lost since `before`."""
    after = await facts_of(transaction, user_id)
    if fields := [name for name in PROFILE_FIELDS if getattr(after, name) != getattr(before, name)]:
        data = {"fields": fields}
        await record_event(transaction, EventType.PROFILE_CHANGED, by=by, at=now, user_id=user_id, data=data)
    if after.phone != before.phone:
        kind = EventType.PHONE_REMOVED if after.phone is None else EventType.PHONE_BOUND
        await record_event(transaction, kind, by=by, at=now, user_id=user_id)
    held, holding = before.consents or {}, after.consents or {}
    for document, version in sorted({**held, **holding}.items()):
        if held.get(document) != holding.get(document):
            kind = EventType.CONSENT_GIVEN if document in holding else EventType.CONSENT_WITHDRAWN
            consent = {"document": document, "version": version}
            await record_event(transaction, kind, by=by, at=now, user_id=user_id, data=consent)


class Side(Enum):
    """Where a fact belongs."""

    LEAVES = auto()
    STAYS = auto()
    UNKNOWN = auto()


@dataclass(frozen=True)  # without slots, for `cached_property`
class Split:
    """A locked user, some of whose identities are about to leave."""

    user_id: UUID
    identities: Sequence[OwnedIdentity]
    """All of the user's, the oldest first."""
    leaving: Sequence[OwnedIdentity]
    facts: Facts
    external_ids: Sequence[tuple[str, UUID | None]]
    """All of the user's with their origins, the present one first."""
    merges: Mapping[UUID, UUID | None]
    """The user's former ids, each with the id into which it was merged, or None if that is unknown."""

    @classmethod
    async def of(cls, transaction: Transaction, user_id: UUID, key: AppAndOpenid) -> "Split | None":
        """The split of an identity, and the user's others with its unionid; None if the user has no such identity."""
        identities = await transaction.rows(_IDENTITIES, user_id=user_id)
        named = next((identity for identity in identities if identity.key == key), None)
        if named is None:
            return None
        leaving = [named]
        if named.unionid is not None:
            leaving = [identity for identity in identities if identity.unionid == named.unionid]
        external_ids = [(name, origin) for name, origin, _ in await transaction.rows(_EXTERNAL_IDS, user_id=user_id)]
        merges = dict(await transaction.rows(_FORMER_IDS, user_id=user_id))
        return cls(user_id, identities, leaving, await facts_of(transaction, user_id), external_ids, merges)

    @cached_property
    def keys(self) -> frozenset[AppAndOpenid]:
        """The identities that leave."""
        return frozenset(each.key for each in self.leaving)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left of the user."""
        return len(self.leaving) == len(self.identities)

    def side_of(self, origin: UUID | None) -> Side:
        """Where a fact of this origin belongs."""
        return self._side(identity for identity in self.identities if identity.origin == origin)

    def side_of_field(self, name: str) -> Side:
        """Where a field belongs: the number to the last user who proved it, each other to its origin."""
        if name == "phone" and (proofs := self._proofs(is_leaving=True)):
            return Side.LEAVES if max(proofs) > max(self._proofs(is_leaving=False), default=_NEVER) else Side.STAYS
        if name == "phone" and self.is_number_of_staying:
            return Side.STAYS
        return self.side_of(getattr(self.facts, f"{name}_from"))

    @property
    def is_number_of_staying(self) -> bool:
        """Whether one of the staying identities has proved the user's present number."""
        return bool(self._proofs(is_leaving=False))

    def bans_on(self, *sides: Side) -> dict[str, Ban]:
        """The bans from before merges that belong to one of these sides, by ids."""
        bans = self.facts.bans_before_merges
        origins = {key: None if key == str(self.user_id) else UUID(key) for key in bans}
        return {key: ban for key, ban in bans.items() if self.side_of(origins[key]) in sides}

    def fields_on(self, *sides: Side) -> Sequence[str]:
        """The fields of the user, except empty ones, that belong to one of these sides."""
        given = (name for name in SINGLE_VALUED if getattr(self.facts, name) is not None)
        return [name for name in given if self.side_of_field(name) in sides]

    @property
    def leaving_ids(self) -> Sequence[UUID]:
        """The former ids that leave: those whose identities all leave, and the ids that were merged into them."""
        whole = {former_id for former_id in self.merges if self._leaves_whole(former_id)}
        return [former_id for former_id in self.merges if not whole.isdisjoint(self.merged_through(former_id))]

    @property
    def id_of_merge(self) -> UUID | None:
        """The former id whose merge added exactly the leaving identities; in a chain of merges, the first such id."""
        for candidate in self.merged_through(self.leaving[0].came_from):
            brought = {each.key for each in self.identities if candidate in self.merged_through(each.came_from)}
            if brought == self.keys:
                return candidate
        return None

    def merged_through(self, former_id: UUID | None) -> list[UUID]:
        """The chain of merges from this former id on: the id itself, the one it was merged into, and so on."""
        found: list[UUID] = []
        while former_id is not None and former_id in self.merges:
            found.append(former_id)
            former_id = self.merges[former_id]
        return found

    @property
    def apps_of_leaving(self) -> frozenset[str]:
        """The apps in which only leaving identities are."""
        return frozenset(app_id for app_id, _ in self.keys) - self._apps_of_staying

    @property
    def apps_of_staying(self) -> frozenset[str]:
        """The apps in which only staying identities are."""
        return self._apps_of_staying - frozenset(app_id for app_id, _ in self.keys)

    @cached_property
    def _apps_of_staying(self) -> frozenset[str]:
        return frozenset(each.app_id for each in self.identities if each.key not in self.keys)

    def _leaves_whole(self, former_id: UUID) -> bool:
        """Whether a former id's own identities leave, and those of all ids that were merged into it."""
        brought = (each for each in self.identities if former_id in self.merged_through(each.origin))
        return self.side_of(former_id) is Side.LEAVES and self._side(brought) is Side.LEAVES

    def _side(self, identities: Iterable[OwnedIdentity]) -> Side:
        leave = {identity.key in self.keys for identity in identities}
        if leave == {True}:
            return Side.LEAVES
        return Side.STAYS if leave == {False} else Side.UNKNOWN

    def _proofs(self, *, is_leaving: bool) -> list[datetime]:
        """When leaving, or staying, identities have proved the user's present number."""
        some = [each for each in self.identities if (each.key in self.keys) is is_leaving]
        return [each.phone_proved_at for each in some if each.phone_proved_at is not None]
