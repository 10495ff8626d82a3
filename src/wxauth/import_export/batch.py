"""The rules of an import, by which lines are applied one by one, like logins, and stored together."""

import json
from collections import ChainMap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from wxauth.core.clock import new_id
from wxauth.core.database import Transaction
from wxauth.core.trail import OPERATOR, EventType, event, record_events
from wxauth.core.users import PROFILE_FIELDS, UserStatus
from wxauth.i18n import lazy_gettext as _
from wxauth.import_export import queries
from wxauth.import_export.lines import ATTRIBUTES, Fault, Line
from wxauth.import_export.queries import ConsentsNoted, Found, GivenFields, HeldIdentity, Made, UserToImport
from wxauth.settings.roles import STAFF_ROLES
from wxauth.users.attributes import WrongAttributes, changed_names, patched
from wxauth.users.status_queries import ADMIN, StatusAndRoles, StatusChange, change_status_and_roles

_A_MOMENT: Final = timedelta(microseconds=1)
_OF_EVERY_LINE: Final = ("unionid", "external_id", "created_at", "last_login_at", "consents")
"""The fields of a user to which each line can add something."""
_SINGLE_VALUED: Final = [
    name for name in Line.model_fields if name in UserToImport.model_fields and name not in _OF_EVERY_LINE
]
"""The fields with one value per user. If two lines of one identity contained them, one value would be lost."""

ADMINISTRATOR: Final = Fault("roles", _("must not contain admin or support unless you give --allow-admin"))
UNBANNED_ADMIN: Final = Fault(
    "status", _("must not unban administrators or support staff unless you give --allow-admin")
)
LAST_ADMIN: Final = _("must leave at least one administrator: appoint another one first")
MERGED_AWAY: Final = Fault("user_id", _("must not belong to a user who was merged into another one"))
ERASED: Final = Fault("user_id", _("must not belong to an erased user; --restore restores the user"))
LEAVING: Final = Fault("user_id", _("must not belong to a user who has asked to be erased"))
ANOTHER_USER: Final = Fault("user_id", _("must be the user with this identity, unionid or external_id"))
UNIONID_AS_OPENID: Final = Fault(
    "openid", _("must not be a unionid, but is the unionid of this line or of another line in the file")
)
SECOND_OPENID: Final = Fault(
    "unionid",
    _("must belong to one openid in this app, because WeChat gives each person one. Another openid already has it"),
)
SECOND_OPENID_OF_EXTERNAL_ID: Final = Fault(
    "external_id",
    _(
        "must belong to one openid in this app, because WeChat gives each person one. The user already has "
        "another openid. If they are one person, --join accepts both"
    ),
)
ANOTHER_UNIONID: Final = Fault("unionid", _("must be the one that the identity already has"))
UNIONID_OF_EXTERNAL_ID: Final = Fault(
    "unionid",
    _(
        "must be the unionid of the user with this external_id, because these may be two people. If they are one "
        "person, --join makes them one user"
    ),
)
PHONE_OF_EXTERNAL_ID: Final = Fault(
    "phone",
    _(
        "must not contradict a verified number: the user with this external_id has verified another number, or "
        "another user has verified this one. If they are one person, --join makes them one user"
    ),
)
UNIONID_TAKEN: Final = Fault("unionid", _("must not belong to another user"))
EXTERNAL_ID_TAKEN: Final = Fault("external_id", _("must not belong to another user"))
ANOTHER_EXTERNAL_ID: Final = Fault("external_id", _("must be the one that the user already has"))
GIVEN_BEFORE: Final = _(
    "must be as in the earlier line with the same openid, or with only the same unionid: remove one of the two lines"
)
FORMER_ID_OF_A_USER: Final = Fault("former_ids", _("must not be a user's id"))
FORMER_ID_ERASED: Final = Fault("former_ids", _("must not belong to an erased user; --restore restores the user"))
FORMER_ID_TAKEN: Final = Fault("former_ids", _("must not belong to a user who was merged into another one"))
NO_EXTERNAL_ID: Final = Fault(
    "former_external_ids", _("must be given together with the external_id that replaced them")
)
FORMER_EXTERNAL_ID_TAKEN: Final = Fault("former_external_ids", _("must not belong to another user"))
Signs = Iterator[tuple[Fault, bool]]
"""Possible faults, in the order in which they are reported, each with whether the line has it."""


class LineOutcome(StrEnum):
    """The result of a line."""

    CREATED = "created"
    """The line created a new user."""
    UPDATED = "updated"
    JOINED = "joined"
    """The line added an identity to a user that it found only by external_id."""
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    BLANK = "blank"


def _switch(option: str, text: str) -> Any:
    return field(default=False, metadata={"option": option, "help": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of an import. Each switch has the name and the help that the command shows."""

    dry_run: bool = _switch("--dry-run", "Check each line and report the result, but don't store anything.")
    overwrite: bool = _switch("--overwrite", "Replace stored nicknames, pictures and numbers with those in the file.")
    takes_roles: bool = _switch("--roles", "Change the roles of existing users.")
    takes_status: bool = _switch("--status", "Ban and unban existing users.")
    takes_attributes: bool = _switch("--attributes", "Change the attributes of existing users with a JSON Merge Patch.")
    allow_admin: bool = _switch("--allow-admin", "Accept lines that have the role admin or unban an administrator.")
    restore: bool = _switch("--restore", "Accept lines whose user_id belongs to an erased user.")
    joins: bool = _switch(
        "--join",
        "Accept lines whose unionid or phone number differs from that of the user with the same external_id. Use "
        "this only if they are the same person.",
    )
    skips_bad_fields: bool = _switch(
        "--skip-bad-fields",
        "Import a line without its nickname, picture, number, time, attribute or ban reason if that field is invalid.",
    )
    quiet_events: bool = _switch("--quiet-events", "Don't record events for what the file adds.")
    """Changes of stored users' status and roles are recorded even with this option."""
    time_zone: ZoneInfo | None = None
    """The time zone of times without an offset; None means that such times are refused."""


class LineRefused(Exception):
    """The line is invalid, or contradicts stored data or an earlier line."""

    def __init__(self, faults: Sequence[Fault], others: Sequence[int] = ()) -> None:
        super().__init__()
        self.faults = faults
        self.others = others
        """The numbers of the other lines that it contradicts."""


class AdministratorEnds(Exception):
    """A line would remove an administrator while not all of them are locked, so that it might be the last one."""


class Owners(NamedTuple):
    """The users that are found by the ids in a line."""

    by_identity: UUID | None
    by_unionid: UUID | None
    by_external_id: UUID | None
    by_user_id: UUID | None

    @property
    def owner_id(self) -> UUID | None:
        """The user that the line belongs to; None if the line creates one."""
        return next(filter(None, self), None)

    def is_joined(self, line: Line) -> bool:
        """Return whether the line is joined to its owner only by its external_id, not by openid, unionid or user id."""
        return self.by_external_id is not None and {self.by_identity, self.by_unionid, line.user_id} == {None}


class Batch:
    """Applies lines one by one to the stored data and to the changes of earlier lines.

    The users that were found are locked. With `has_administrators`, all administrators are locked, too. `made` collects
    the changes, and can contain changes of earlier lines that were not stored.
    """

    def __init__(self, found: Found, *, has_administrators: bool, made: Made, options: Options, now: datetime) -> None:
        self._found = found
        self._has_administrators = has_administrators
        self._options = options
        self._options_of_new = replace(options, takes_roles=True, takes_status=True, takes_attributes=True)
        self._now = now
        self.made = made
        self._users_before = {user.id: user for user in found.users}
        # Lookups see both maps, and writes change only the first one.
        self._users = ChainMap(made.users, self._users_before)
        self._identities = ChainMap(made.identities, found.identities)
        self._unionids = ChainMap(made.unionids, found.unionids)
        self._openids = ChainMap(made.openids, found.openids)
        self._external_ids = ChainMap(made.external_ids, found.external_ids)
        self._former_ids = ChainMap(made.former_ids, found.former_ids)
        # The set is complete if all administrators are locked.
        self._administrators = {
            user_id for user_id in self._users_before if StatusAndRoles.of(self._users[user_id]).is_administrator
        }
        self._added: list[tuple[UUID, str | None, EventType]] = []
        self._new_consents: list[dict[str, Any]] = []

    def take(self, number: int, line: Line) -> LineOutcome:
        """Apply a line. A line that contradicts stored data, or an earlier line, changes nothing.

        Raises: LineRefused; AdministratorEnds.
        """
        owners = self._owners(line)
        before = None if owners.owner_id is None else self._users[owners.owner_id]
        self._check_owner(line, owners, before)
        given = self._given(number, line)
        former = before or queries.nobody_yet(line.user_id or new_id(self._now), line.created_at or self._now)
        user = self._updated(former, line, self._options_of_new if before is None else self._options)
        if faults := [*self._faults_of_former_ids(line, user), *self._fault_of_status(former, user)]:
            raise LineRefused(faults)

        self.made.first_lines.setdefault(user.id, number)
        if given:
            self.made.given[line.key] = given
        is_changed = user != before
        # If users changed, or nothing is stored, later lines must find them by what this line has said.
        if is_changed or self._options.dry_run:
            self._users[user.id] = user
        if StatusAndRoles.of(user).is_administrator:
            self._administrators.add(user.id)
        else:
            self._administrators.discard(user.id)
        if before is None:
            self._added.append((user.id, line.app_id if line.openid else None, EventType.USER_CREATED))
        elif line.openid and line.key not in self._identities:
            self._added.append((user.id, line.app_id, EventType.IDENTITY_ADDED))
        for taken in (self._take_names, self._take_identity, self._take_consents):
            is_changed = taken(line, user) or is_changed
        if before is None:
            return LineOutcome.CREATED
        if owners.is_joined(line):
            return LineOutcome.JOINED
        return LineOutcome.UPDATED if is_changed else LineOutcome.UNCHANGED

    async def store(self, transaction: Transaction) -> list[StatusChange]:
        """Write the changes, and return the users whose status or roles changed. Raises: one of `CONFLICTS`."""
        made, before, known = self.made, self._users_before, self._found.identities
        changed = [user for user_id, user in made.users.items() if user_id in before]
        new = [user for user_id, user in made.users.items() if user_id not in before]
        identities = {
            (app_id, openid): {"app_id": app_id, "openid": openid, "awaits_login": True, **held._asdict()}
            for (app_id, openid), held in made.identities.items()
        }
        written: queries.Written = {
            queries.ADD_USERS: new,
            queries.CHANGE_USERS: changed,
            queries.ADD_UNIONIDS: [{"unionid": name, "user_id": user_id} for name, user_id in made.unionids.items()],
            queries.ADD_IDENTITIES: [row for key, row in identities.items() if key not in known],
            queries.CHANGE_IDENTITIES: [row for key, row in identities.items() if key in known],
            queries.ADD_FORMER_IDS: [
                # Times are a microsecond apart in the order of the file, because an export sorts previous ids by
                # `merged_at`.
                {"id": former_id, "user_id": user_id, "merged_at": self._now + place * _A_MOMENT}
                for place, (former_id, user_id) in enumerate(made.former_ids.items())
            ],
            queries.ADD_FORMER_EXTERNAL_IDS: [
                {"external_id": external_id, "user_id": user_id}
                for external_id, user_id in made.external_ids.items()
                if external_id != self._users[user_id].external_id
            ],
            queries.ADD_CONSENTS: self._new_consents,
        }
        givers = list({consent["user_id"] for consent in self._new_consents})
        noted = await queries.store(transaction, written, identities=[*{*identities, *known}], givers=givers)
        if not self._options.quiet_events:
            await record_events(transaction, list(self._events([*new, *changed], noted)))
        accounts = [(user.id, StatusAndRoles.of(before[user.id]), StatusAndRoles.of(user)) for user in changed]
        moved = [(user_id, former, account) for user_id, former, account in accounts if former != account]
        return await change_status_and_roles(transaction, moved, by=OPERATOR, now=self._now)

    def _owners(self, line: Line) -> Owners:
        identity = self._identities.get(line.key)
        return Owners(
            by_identity=None if identity is None else identity.user_id,
            by_unionid=self._unionids.get(line.unionid) if line.unionid else None,
            by_external_id=self._external_ids.get(line.external_id) if line.external_id else None,
            by_user_id=line.user_id if line.user_id in self._users else None,
        )

    def _check_owner(self, line: Line, owners: Owners, owner: UserToImport | None) -> None:
        """Check that all ids belong to one user, and that the line may change that user. Raises: LineRefused."""
        unfit = self._unfitness(line, owners, owner)
        contradictions = [*self._two_people(line, owners, owner), *self._taken_names(line, owners, owner)]
        if faults := [fault for fault, is_so in (*unfit, *contradictions) if is_so]:
            first_lines = self.made.first_lines if any(is_so for _, is_so in contradictions) else {}
            others = {first_lines[user_id] for user_id in owners if user_id in first_lines}
            if UNIONID_AS_OPENID in faults and line.openid != line.unionid:
                others.add(self.made.unionid_lines[line.key[1]])
            raise LineRefused(faults, sorted(others))

    def _unfitness(self, line: Line, owners: Owners, owner: UserToImport | None) -> Signs:
        """Return the faults of a line that contradict no other line."""
        is_gone = line.user_id in self._found.erased_ids and owners.by_user_id is None
        yield ADMINISTRATOR, not STAFF_ROLES.isdisjoint(line.roles or ()) and not self._options.allow_admin
        yield UNIONID_AS_OPENID, self._has_unionid_as_openid(line)
        yield MERGED_AWAY, line.user_id in self._former_ids
        # A user who has asked to be erased may only be changed by a newer export, which has the same time of erasure.
        yield LEAVING, owner is not None and owner.erase_at not in (None, line.erase_at)
        yield ERASED, is_gone and not self._options.restore

    def _two_people(self, line: Line, owners: Owners, owner: UserToImport | None) -> Signs:
        """Return the signs that a line and its owner are different people.

        They can be, for example, because two tables both count their rows from 1.

        WeChat gives each person one openid in each app. Only an export, which contains the user's id, or the operator
        can know that two accounts belong to one person.
        """
        is_new = owners.by_identity is None and line.user_id is None
        would_be_second = owner is not None and is_new and self._is_in_app(owner.id, line.key[0])
        is_by_external_id = owners.by_external_id == owners.owner_id and not self._options.joins
        yield SECOND_OPENID, self._has_another_openid(line) or (would_be_second and owners.by_unionid is not None)
        yield SECOND_OPENID_OF_EXTERNAL_ID, would_be_second and is_by_external_id
        if owner is not None and is_by_external_id and owners.is_joined(line):
            yield UNIONID_OF_EXTERNAL_ID, None not in (line.unionid, owner.unionid)
            if line.phone is not None:
                has_another = owner.phone_verified_at is not None and owner.phone != line.phone
                yield PHONE_OF_EXTERNAL_ID, has_another or self._is_verified_by_another(line.phone, owner.id)

    def _taken_names(self, line: Line, owners: Owners, owner: UserToImport | None) -> Signs:
        """Return the signs that an id in a line belongs to another user, or that the owner has a different one."""
        held = self._identities.get(line.key)
        is_kept = owner is not None and owner.external_id is not None
        yield ANOTHER_UNIONID, bool(line.unionid and held and held.unionid not in (None, line.unionid))
        yield UNIONID_TAKEN, owners.by_unionid not in (None, owners.owner_id) and not self._has_another_openid(line)
        yield EXTERNAL_ID_TAKEN, owners.by_external_id not in (None, owners.owner_id)
        yield ANOTHER_EXTERNAL_ID, bool(line.external_id) and owners.by_external_id is None and is_kept
        yield ANOTHER_USER, owner is not None and line.user_id not in (None, owner.id)

    def _has_unionid_as_openid(self, line: Line) -> bool:
        """Return whether the openid is one of the file's unionids, as if it came from the wrong column.

        Exports are always right.
        """
        is_own_or_anothers = line.openid == line.unionid or line.openid in self.made.unionid_lines
        return line.openid is not None and line.user_id is None and is_own_or_anothers

    def _has_another_openid(self, line: Line) -> bool:
        """Return whether the unionid of the line has a different openid in its app."""
        return bool(line.unionid and self._openids.get((line.key[0], line.unionid), line.openid) != line.openid)

    def _given(self, number: int, line: Line) -> GivenFields:
        """Return the fields in all lines of this identity.

        Raises: LineRefused, if another line contradicts this one.
        """
        before = self.made.given.get(line.key, {})
        hashed = {name: _hash(getattr(line, name)) for name in _SINGLE_VALUED}
        given = {name: (number, each) for name, each in hashed.items() if each is not None}
        wrong = [name for name in given if name in before and given[name][1] != before[name][1]]
        # Patches of attributes are applied one after the other.
        if self._options.takes_attributes and "attributes" in wrong:
            wrong.remove("attributes")
        if wrong:
            lines = sorted({before[name][0] for name in wrong})
            raise LineRefused([Fault(name, GIVEN_BEFORE) for name in wrong], lines)
        return given | before

    def _is_in_app(self, user_id: UUID, app_id: str) -> bool:
        return (user_id, app_id) in self._found.apps_of_users or app_id in self.made.apps_of_users.get(user_id, ())

    def _updated(self, user: UserToImport, line: Line, options: Options) -> UserToImport:
        """Return the user with the values that the line adds or changes. Raises: LineRefused."""
        fields = user.model_copy()
        self._fill(fields, line, overwrites=options.overwrite)
        _take_status_and_roles(fields, line, options)
        if options is self._options_of_new:
            fields.erase_at = line.erase_at
        if line.attributes and options.takes_attributes:
            try:
                fields.attributes = patched(user.attributes or {}, line.attributes) or None
            except WrongAttributes:
                raise LineRefused([ATTRIBUTES]) from None
        fields.unionid = user.unionid or line.unionid
        if line.external_id not in self._external_ids:  # a previous id does not replace an id that was removed
            fields.external_id = user.external_id or line.external_id
        fields.created_at = min(user.created_at, line.created_at or user.created_at)
        fields.last_login_at = max(filter(None, (user.last_login_at, line.last_login_at)), default=None)
        return fields

    def _fill(self, user: UserToImport, line: Line, *, overwrites: bool) -> None:
        for name in PROFILE_FIELDS:
            if (given := getattr(line, name)) is not None and (overwrites or getattr(user, name) is None):
                setattr(user, name, given)
        is_wanted = line.phone != user.phone and (overwrites or user.phone is None)
        if line.phone is not None and is_wanted and not self._is_verified_by_another(line.phone, user.id):
            user.phone, user.phone_verified_at = line.phone, None

    def _is_verified_by_another(self, phone: str, user_id: UUID) -> bool:
        return any(holder_id != user_id for holder_id in self._found.verified.get(phone, ()))

    def _faults_of_former_ids(self, line: Line, user: UserToImport) -> Iterator[Fault]:
        if any(former_id == user.id or former_id in self._users for former_id in line.former_ids):
            yield FORMER_ID_OF_A_USER
        if any(self._former_ids.get(former_id, user.id) != user.id for former_id in line.former_ids):
            yield FORMER_ID_TAKEN
        if not self._options.restore and self._found.erased_ids & (set(line.former_ids) - self._former_ids.keys()):
            yield FORMER_ID_ERASED
        # Only an export knows which id is the present one.
        if line.former_external_ids and user.external_id is None and line.user_id is None:
            yield NO_EXTERNAL_ID
        if any(self._external_ids.get(name, user.id) != user.id for name in line.former_external_ids):
            yield FORMER_EXTERNAL_ID_TAKEN

    def _fault_of_status(self, before: UserToImport, after: UserToImport) -> Iterator[Fault]:
        former, account = StatusAndRoles.of(before), StatusAndRoles.of(after)
        if not self._options.allow_admin and former.is_banned and account.is_staff and not account.is_banned:
            yield UNBANNED_ADMIN
        if former.is_administrator and not account.is_administrator:
            if not self._has_administrators:
                raise AdministratorEnds
            if self._administrators <= {after.id}:
                yield Fault("status" if ADMIN in after.roles else "roles", LAST_ADMIN)

    def _take_names(self, line: Line, user: UserToImport) -> bool:
        """Store the unionid, external ids and previous ids that find the user. Return whether one of them is new."""
        names: tuple[tuple[Sequence[Any], ChainMap[Any, UUID]], ...] = (
            ([line.unionid], self._unionids),
            ([line.external_id, *line.former_external_ids], self._external_ids),
            (line.former_ids, self._former_ids),
        )
        new = [(known, name) for given, known in names for name in given if name and name not in known]
        for known, name in new:
            known[name] = user.id
        return bool(new)

    def _take_identity(self, line: Line, user: UserToImport) -> bool:
        if line.openid is None:
            return False
        key = app_id, _ = line.key
        if line.unionid:
            self._openids[app_id, line.unionid] = line.openid
        self.made.apps_of_users.setdefault(user.id, set()).add(app_id)
        before = self._identities.get(key)
        if before is None:
            created_at = line.identity_created_at or line.created_at or self._now
            self._identities[key] = HeldIdentity(user.id, line.unionid, created_at)
            return True
        after = before._replace(
            unionid=before.unionid or line.unionid,
            created_at=min(before.created_at, line.identity_created_at or before.created_at),
        )
        if after != before:
            self._identities[key] = after
        return after != before

    def _take_consents(self, line: Line, user: UserToImport) -> bool:
        new: list[dict[str, Any]] = []
        known = self.made.consents.setdefault(user.id, set()) if line.consents else set()
        for consent in line.consents:
            key = (consent.document, consent.version, consent.given_at)
            if (user.id, key) not in self._found.consents and key not in known:
                known.add(key)
                new.append({"id": new_id(self._now), "user_id": user.id, **consent.model_dump()})
        self._new_consents += new
        return bool(new)

    def _events(self, users: Iterable[UserToImport], noted: Iterable[ConsentsNoted]) -> Iterator[dict[str, Any]]:
        row = partial(event, by=OPERATOR, at=self._now)
        for user_id, app_id, kind in self._added:
            roles = self.made.users[user_id].roles if kind is EventType.USER_CREATED else ()
            yield row(kind, user_id=user_id, app_id=app_id, data={"roles": roles} if roles else {})
        for former_id, user_id in self.made.former_ids.items():
            yield row(EventType.USER_MERGED, user_id=user_id, data={"former_id": former_id})  # the actor is unknown
        for user in users:
            stored = self._users_before.get(user.id)
            before = stored or queries.nobody_yet(user.id, user.created_at)
            changed = [name for name in PROFILE_FIELDS if getattr(before, name) != getattr(user, name)]
            if stored is not None and changed:
                yield row(EventType.PROFILE_CHANGED, user_id=user.id, data={"fields": changed})
            # `change_status_and_roles` records the ban of a stored user.
            if stored is None and (ban := StatusAndRoles.of(user).ban) is not None:
                yield row(EventType.USER_BANNED, user_id=user.id, data=ban.data)
            if before.phone != user.phone:
                yield row(EventType.PHONE_BOUND, user_id=user.id)
            if before.erase_at != user.erase_at:
                yield row(EventType.USER_LEAVING, user_id=user.id, data={"erase_at": user.erase_at})
            if names := changed_names(before.attributes or {}, user.attributes or {}):
                yield row(EventType.ATTRIBUTES_CHANGED, user_id=user.id, data={"names": names})
        for user_id, held, holding in noted:
            for document, version in sorted((holding or {}).items() - (held or {}).items()):
                consent = {"document": document, "version": version}
                yield row(EventType.CONSENT_GIVEN, user_id=user_id, data=consent)


def _take_status_and_roles(user: UserToImport, line: Line, options: Options) -> None:
    if options.takes_roles and line.roles is not None and set(line.roles) != set(user.roles):
        user.roles = line.roles
    if options.takes_status and line.status is UserStatus.DISABLED:
        user.status, user.ban_reason, user.banned_until = "disabled", line.ban_reason, line.banned_until
    elif options.takes_status and line.status is not None:
        user.status, user.ban_reason, user.banned_until = "active", None, None


def _hash(value: object) -> int | None:
    """Return a hash that is equal for equal values in this process; None for None."""
    match value:
        case None:
            return None
        case dict():
            return hash(json.dumps(value, sort_keys=True))
        case list():
            return hash(frozenset(value))
        case _:
            return hash(value)
