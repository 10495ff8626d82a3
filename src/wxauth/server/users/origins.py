"""From whom each fact about a merged user came: what leaves with some of the user's identities, and what stays.

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

from wxauth.server.core.database import Transaction
from wxauth.server.users import origin_rows
from wxauth.server.users.origin_rows import Facts, KnownExternalId, OwnedIdentity

AppAndOpenid = tuple[str, str]

FIELDS: Final = ("nickname", "avatar_url", "phone")
"""The fields of a user that a merge may have filled."""

_NEVER: Final = datetime.min.replace(tzinfo=UTC)


class Side(Enum):
    """Where a fact belongs."""

    LEAVES = auto()
    STAYS = auto()
    UNKNOWN = auto()


@dataclass(frozen=True)  # without slots, for `cached_property`
class Parting:
    """A locked user, some of whose identities are about to leave."""

    user_id: UUID
    identities: Sequence[OwnedIdentity]
    """All of the user's, the oldest first."""
    leaving: Sequence[OwnedIdentity]
    facts: Facts
    external_ids: Sequence[KnownExternalId]
    """All of the user's, the present one first."""
    merges: Mapping[UUID, UUID | None]
    """The user's former ids, each with the id into which it was merged, or None if that is unknown."""

    @classmethod
    async def of(cls, transaction: Transaction, user_id: UUID, key: AppAndOpenid) -> "Parting | None":
        """The parting of an identity, and the user's others with its unionid; None if the user has no such identity."""
        identities = await origin_rows.owned_identities(transaction, user_id)
        named = next((identity for identity in identities if key_of(identity) == key), None)
        facts = await origin_rows.facts_of(transaction, user_id)
        if named is None or facts is None:
            return None
        leaving = [named]
        if named.unionid is not None:
            leaving = [identity for identity in identities if identity.unionid == named.unionid]
        external_ids = await origin_rows.known_external_ids(transaction, user_id)
        merges = await origin_rows.merges_into(transaction, user_id)
        return cls(user_id, identities, leaving, facts, external_ids, merges)

    @cached_property
    def keys(self) -> frozenset[AppAndOpenid]:
        """The identities that leave."""
        return frozenset(map(key_of, self.leaving))

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left of the user."""
        return len(self.leaving) == len(self.identities)

    def side_of(self, origin: UUID | None) -> Side:
        """Where a fact of this origin belongs."""
        return self._side(identity for identity in self.identities if identity.origin == origin)

    def side_of_field(self, name: str) -> Side:
        """Where a field belongs: the number to who has proved it last, else each to whom it came from."""
        if name == "phone" and (proofs := self._proofs(is_leaving=True)):
            return Side.LEAVES if max(proofs) > max(self._proofs(is_leaving=False), default=_NEVER) else Side.STAYS
        if name == "phone" and self.is_number_of_staying:
            return Side.STAYS
        return self.side_of(getattr(self.facts, f"{name}_from"))

    @property
    def is_number_of_staying(self) -> bool:
        """Whether one of the staying identities has proved the user's present number."""
        return bool(self._proofs(is_leaving=False))

    def fields_on(self, *sides: Side) -> Sequence[str]:
        """The fields of the user, except empty ones, that belong to one of these sides."""
        return [name for name in FIELDS if getattr(self.facts, name) is not None and self.side_of_field(name) in sides]

    @property
    def leaving_ids(self) -> Sequence[UUID]:
        """The former ids that leave: those whose identities all leave, and the ids that were merged into them."""
        whole = {former_id for former_id in self.merges if self._leaves_whole(former_id)}
        return [former_id for former_id in self.merges if not whole.isdisjoint(self.merged_through(former_id))]

    @property
    def id_of_merge(self) -> UUID | None:
        """The former id that has brought exactly the leaving identities; in a chain of merges, the first such id."""
        for candidate in self.merged_through(self.leaving[0].came_from):
            brought = {key_of(each) for each in self.identities if candidate in self.merged_through(each.came_from)}
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
        return frozenset(each.app_id for each in self.identities if key_of(each) not in self.keys)

    def _leaves_whole(self, former_id: UUID) -> bool:
        """Whether a former id's own identities leave, and those of all ids that were merged into it."""
        brought = (each for each in self.identities if former_id in self.merged_through(each.origin))
        return self.side_of(former_id) is Side.LEAVES and self._side(brought) is Side.LEAVES

    def _side(self, identities: Iterable[OwnedIdentity]) -> Side:
        leave = {key_of(identity) in self.keys for identity in identities}
        if leave == {True}:
            return Side.LEAVES
        return Side.STAYS if leave == {False} else Side.UNKNOWN

    def _proofs(self, *, is_leaving: bool) -> list[datetime]:
        """When leaving, or staying, identities have proved the user's present number."""
        some = [each for each in self.identities if (key_of(each) in self.keys) is is_leaving]
        return [each.phone_proved_at for each in some if each.phone_proved_at is not None]


def key_of(identity: OwnedIdentity) -> AppAndOpenid:
    """The app_id and openid of an identity."""
    return identity.app_id, identity.openid
