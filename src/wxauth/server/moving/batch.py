"""The rules of an import: lines are applied one by one, as logins are, and stored together."""

import json
from collections import ChainMap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from wxauth.server.core.clock import new_id
from wxauth.server.core.database import Transaction
from wxauth.server.core.trail import OPERATOR, EventType, event, record_events
from wxauth.server.core.users import PROFILE, STAFF_ROLES, UserStatus
from wxauth.server.moving.lines import ATTRIBUTES, Fault, Line
from wxauth.server.moving.rows import (
    ADD_CONSENTS,
    ADD_FORMER_EXTERNAL_IDS,
    ADD_FORMER_IDS,
    ADD_IDENTITIES,
    ADD_UNIONIDS,
    ADD_USERS,
    CHANGE_IDENTITIES,
    CHANGE_USERS,
    ConsentsNoted,
    Found,
    GivenFields,
    HeldIdentity,
    IdentityKey,
    Made,
    UserToImport,
    Written,
    nobody_yet,
    store,
)
from wxauth.server.users.attributes import WrongAttributes, changed_names, patched
from wxauth.server.users.standing_rows import ADMIN, Standing, StandingChange, change_standings

_A_MOMENT: Final = timedelta(microseconds=1)
_OF_EVERY_LINE: Final = ("unionid", "external_id", "created_at", "last_login_at", "consents")
"""The fields of a user to which each line may add something."""
_GIVEN_ONCE: Final = [
    name for name in Line.model_fields if name in UserToImport.model_fields and name not in _OF_EVERY_LINE
]
"""The fields with one value per user: if two lines of one identity had them, one value would be lost."""
_BY_RULE: Final = ("phone", "roles", "status", "ban_reason", "banned_until", "attributes", "erase_at")
"""Those of which `_updated` decides what a line changes."""
_FILLED: Final = [name for name in _GIVEN_ONCE if name not in _BY_RULE]
"""Those that a line fills if they are empty, or replaces with --overwrite."""

ADMINISTRATOR: Final = Fault("roles", "must be without admin and support, unless --allow-admin is given")
UNBANNED_ADMIN: Final = Fault(
    "status", "must leave banned administrators and support staff banned, unless --allow-admin is given"
)
LAST_ADMIN: Final = "must leave an administrator: make another one first"
MERGED: Final = Fault("user_id", "must not have been merged into another user")
ERASED: Final = Fault("user_id", "must not have been erased, except with --restore")
LEAVING: Final = Fault("user_id", "must not be of a user who has asked to be erased")
ANOTHER_USER: Final = Fault("user_id", "must be the user whom the identity, the unionid or the external_id names")
SECOND_OPENID: Final = Fault(
    "unionid", "must be of one openid in this app: WeChat gives each person one, and another one has it"
)
SECOND_OPENID_OF_EXTERNAL_ID: Final = Fault(
    "external_id",
    "must be of one openid in this app: WeChat gives each person one, and the user has another one;"
    " only if they are one person, --join accepts both",
)
ANOTHER_UNIONID: Final = Fault("unionid", "must be the one that the identity has already")
UNIONID_OF_EXTERNAL_ID: Final = Fault(
    "unionid",
    "must be the one of the user whom the external_id names: these may be two people; only if they are one person,"
    " --join makes them one user",
)
PHONE_OF_EXTERNAL_ID: Final = Fault(
    "phone",
    "must not contradict a verified number: the user whom the external_id names has verified another one, or"
    " another user this one; only if they are one person, --join makes them one user",
)
UNIONID_TAKEN: Final = Fault("unionid", "must not be another user's")
EXTERNAL_ID_TAKEN: Final = Fault("external_id", "must not be another user's")
ANOTHER_EXTERNAL_ID: Final = Fault("external_id", "must be the one that the user has already")
GIVEN_BEFORE: Final = "must be as in the earlier line with this openid: remove one of the two lines"
FORMER_ID_OF_A_USER: Final = Fault("former_ids", "must not be the id of a user")
FORMER_ID_ERASED: Final = Fault("former_ids", "must not have been erased, except with --restore")
FORMER_ID_TAKEN: Final = Fault("former_ids", "must not have been merged into another user")
NO_EXTERNAL_ID: Final = Fault("former_external_ids", "must be given with the external_id that replaced them")
FORMER_EXTERNAL_ID_TAKEN: Final = Fault("former_external_ids", "must not be another user's")
_UNFIT: Final = frozenset({ADMINISTRATOR, MERGED, ERASED, LEAVING})
"""The faults of a line by itself, which contradict no other line."""


class LineOutcome(StrEnum):
    """The result of a line."""

    CREATED = "created"
    """The line created a new user."""
    UPDATED = "updated"
    JOINED = "joined"
    """The line updated a user that it found by external_id alone: it added an identity."""
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    BLANK = "blank"


def _switch(option: str, text: str) -> Any:
    return field(default=False, metadata={"option": option, "help": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of an import. Each switch has the name and the help that the command shows."""

    dry_run: bool = _switch("--dry-run", "Check each line and report the result, but store nothing.")
    overwrite: bool = _switch("--overwrite", "Replace stored names, pictures and numbers with those of the file.")
    takes_roles: bool = _switch("--roles", "Change the roles of users who exist already.")
    takes_status: bool = _switch("--status", "Ban and unban users who exist already.")
    takes_attributes: bool = _switch(
        "--attributes", "Change the attributes of users who exist already, as a merge patch."
    )
    allow_admin: bool = _switch("--allow-admin", "Accept lines with the role admin, or that unban an administrator.")
    restore: bool = _switch("--restore", "Accept lines whose user_id is that of an erased user.")
    joins: bool = _switch("--join", "Accept lines that contradict the user whom only their external_id names.")
    skips_bad_fields: bool = _switch(
        "--skip-bad-fields", "Import lines without a bad name, picture, number, time, attribute or ban reason."
    )
    quiet_events: bool = _switch("--quiet-events", "Write no events of what the file adds.")
    """The standing of stored users is recorded even so."""
    time_zone: ZoneInfo | None = None
    """That of the times without an offset; None: these are refused."""


class LineRefused(Exception):
    """A line that is invalid, or contradicts stored data or an earlier line."""

    def __init__(self, faults: Sequence[Fault], others: Sequence[int] = ()) -> None:
        super().__init__()
        self.faults = faults
        self.others = others
        """The earlier lines that it contradicts."""


class AdministratorEnds(Exception):
    """A line would end an administrator, but not all of them are locked: it is not known whether one would be left."""


class Batch:
    """Applies lines one by one to the stored data and the changes of the lines before.

    The users that were found are locked, and all administrators with them, if it `has_administrators`. `made` collects
    the changes, and may have those of earlier lines that were not stored.
    """

    def __init__(self, found: Found, *, has_administrators: bool, made: Made, options: Options, now: datetime) -> None:
        self._found = found
        self._has_administrators = has_administrators
        self._options = options
        self._options_of_new = replace(options, takes_roles=True, takes_status=True, takes_attributes=True)
        self._now = now
        self.made = made
        self._users_before = {user.id: user for user in found.users}
        # Lookups see both maps; writes change only the first one.
        self._users = ChainMap(made.users, self._users_before)
        self._identities = ChainMap(made.identities, found.identities)
        self._unionids = ChainMap(made.unionids, found.unionids)
        self._openids = ChainMap(made.openids, found.openids)
        self._external_ids = ChainMap(made.external_ids, found.external_ids)
        self._former_ids = ChainMap(made.former_ids, found.former_ids)
        # Complete, if all administrators are locked.
        self._administrators = {
            user_id for user_id in self._users_before if Standing.of(self._users[user_id]).is_administrator
        }
        self._added: list[tuple[UUID, str | None, EventType]] = []
        self._new_consents: list[dict[str, Any]] = []

    def take(self, number: int, line: Line) -> LineOutcome:
        """Apply a line. A line that contradicts stored data, or an earlier line, changes nothing.

        Raises: LineRefused; AdministratorEnds.
        """
        owner_id = self._owner(line)
        given = self._given(number, line)
        is_joined = self._names_alone(line)
        before = None if owner_id is None else self._users[owner_id]
        former = before or nobody_yet(line.user_id or new_id(self._now), line.created_at or self._now)
        user = self._updated(former, line, self._options_of_new if before is None else self._options)
        if faults := [*self._faults_of_former_ids(line, user), *self._fault_of_standing(before, user)]:
            raise LineRefused(faults)

        self.made.first_lines.setdefault(user.id, number)
        if given:
            self.made.given[line.app_id, line.openid] = given
        is_changed = user != before
        if is_changed or self._options.dry_run:  # a later line finds by a name that is not stored whom no line changed
            self._users[user.id] = user
        if Standing.of(user).is_administrator:
            self._administrators.add(user.id)
        else:
            self._administrators.discard(user.id)
        if (line.app_id, line.openid) not in self._identities:
            kind = EventType.USER_CREATED if before is None else EventType.IDENTITY_ADDED
            self._added.append((user.id, line.app_id, kind))
        for taken in (self._take_names, self._take_identity, self._take_consents):
            is_changed = taken(line, user) or is_changed
        if before is None:
            return LineOutcome.CREATED
        if is_joined:
            return LineOutcome.JOINED
        return LineOutcome.UPDATED if is_changed else LineOutcome.UNCHANGED

    async def store(self, transaction: Transaction) -> list[StandingChange]:
        """Write the changes, and return the users whose standing changed. Raises: one of `CONFLICTS`."""
        made, before = self.made, self._users_before
        changed = [(before[user_id], user) for user_id, user in made.users.items() if user_id in before]
        new = [user for user_id, user in made.users.items() if user_id not in before]
        written: Written = {
            ADD_USERS: new,
            CHANGE_USERS: [user for _, user in changed],
            ADD_UNIONIDS: [{"unionid": unionid, "user_id": user_id} for unionid, user_id in made.unionids.items()],
            ADD_IDENTITIES: _rows_of(made.identities, self._found.identities, is_new=True),
            CHANGE_IDENTITIES: _rows_of(made.identities, self._found.identities, is_new=False),
            ADD_FORMER_IDS: [
                # A microsecond apart in the order of the file, because an export sorts former ids by `merged_at`.
                {"id": former_id, "user_id": user_id, "merged_at": self._now + place * _A_MOMENT}
                for place, (former_id, user_id) in enumerate(made.former_ids.items())
            ],
            ADD_FORMER_EXTERNAL_IDS: [
                {"external_id": external_id, "user_id": user_id}
                for external_id, user_id in made.external_ids.items()
                if external_id != self._users[user_id].external_id
            ],
            ADD_CONSENTS: self._new_consents,
        }
        givers = list({consent["user_id"] for consent in self._new_consents})
        noted = await store(transaction, written, givers=givers)
        if not self._options.quiet_events:
            await record_events(transaction, list(self._events(new, changed, noted)))
        standings = [(user.id, Standing.of(former), Standing.of(user)) for former, user in changed]
        moved = [(user_id, former, standing) for user_id, former, standing in standings if former != standing]
        return await change_standings(transaction, moved, by=OPERATOR, now=self._now)

    def _owner(self, line: Line) -> UUID | None:
        """The user to whom the line belongs; None if the line creates one. Raises: LineRefused."""
        identity = self._identities.get((line.app_id, line.openid))
        by_identity = None if identity is None else identity.user_id
        by_unionid = self._unionids.get(line.unionid) if line.unionid else None
        by_external_id = self._external_ids.get(line.external_id) if line.external_id else None
        by_user_id = line.user_id if line.user_id in self._users else None
        owner_id = by_identity or by_unionid or by_external_id or by_user_id
        is_gone = line.user_id in self._found.erased_ids and line.user_id not in self._users
        has_another_unionid = bool(line.unionid and identity and identity.unionid not in (None, line.unionid))
        has_external_id = owner_id is not None and self._users[owner_id].external_id is not None
        openid = self._openids.get((line.app_id, line.unionid), line.openid) if line.unionid else line.openid
        # WeChat has one openid for each person and app, as at a login. Only an export, which has the user's id, or the
        # operator can know that two accounts are of one person.
        would_be_second = identity is None and line.user_id is None and self._is_in_app(owner_id, line.app_id)
        signs = (
            (ADMINISTRATOR, not STAFF_ROLES.isdisjoint(line.roles or ()) and not self._options.allow_admin),
            (MERGED, line.user_id in self._former_ids),
            (LEAVING, self._is_leaving_without(line, owner_id)),
            (ERASED, is_gone and not self._options.restore),
            (SECOND_OPENID, openid != line.openid or (would_be_second and by_unionid is not None)),
            (
                SECOND_OPENID_OF_EXTERNAL_ID,
                would_be_second and by_external_id == owner_id and not self._options.joins,
            ),
            *self._contradictions(line, owner_id),
            (ANOTHER_UNIONID, has_another_unionid),
            (UNIONID_TAKEN, by_unionid not in (None, owner_id) and openid == line.openid),
            (EXTERNAL_ID_TAKEN, by_external_id not in (None, owner_id)),
            (ANOTHER_EXTERNAL_ID, bool(line.external_id) and by_external_id is None and has_external_id),
            (ANOTHER_USER, owner_id is not None and line.user_id not in (None, owner_id)),
        )
        if faults := [fault for fault, is_so in signs if is_so]:
            contradicts = not _UNFIT.issuperset(faults)
            owners = (by_identity, by_unionid, by_external_id, by_user_id) if contradicts else ()
            lines = {self.made.first_lines.get(owner) for owner in owners if owner is not None}
            raise LineRefused(faults, sorted(filter(None, lines)))
        return owner_id

    def _given(self, number: int, line: Line) -> GivenFields:
        """The fields in all lines of this identity. Raises: LineRefused, if another one contradicts this one."""
        before = self.made.given.get((line.app_id, line.openid), {})
        given = {name: (number, hashed) for name in _GIVEN_ONCE if (hashed := _hash(getattr(line, name))) is not None}
        wrong = [name for name in given.keys() & before.keys() if given[name][1] != before[name][1]]
        if self._options.takes_attributes and "attributes" in wrong:  # one patch after the other
            wrong.remove("attributes")
        if wrong:
            found = [Fault(name, GIVEN_BEFORE) for name in _GIVEN_ONCE if name in wrong]
            raise LineRefused(found, sorted({before[name][0] for name in wrong}))
        return given | before

    def _is_leaving_without(self, line: Line, owner_id: UUID | None) -> bool:
        """Whether the user has asked to be erased, and the file does not know: an export of theirs does."""
        erase_at = None if owner_id is None else self._users[owner_id].erase_at
        return erase_at is not None and erase_at != line.erase_at

    def _names_alone(self, line: Line) -> bool:
        """Whether only its external_id joins a line to a user: no openid, unionid or id of the user does."""
        return (
            line.external_id in self._external_ids
            and line.user_id is None
            and (line.app_id, line.openid) not in self._identities
            and line.unionid not in self._unionids
        )

    def _contradictions(self, line: Line, owner_id: UUID | None) -> Iterator[tuple[Fault, bool]]:
        """The signs that an external_id is of two people, as if two tables both count their rows from 1."""
        if owner_id is None or self._options.joins or not self._names_alone(line):
            return
        owner = self._users[owner_id]
        yield UNIONID_OF_EXTERNAL_ID, None not in (line.unionid, owner.unionid)
        has_verified_another = owner.phone_verified_at is not None and owner.phone != line.phone
        yield (
            PHONE_OF_EXTERNAL_ID,
            line.phone is not None and (has_verified_another or self._is_verified_by_another(line.phone, owner_id)),
        )

    def _is_in_app(self, user_id: UUID | None, app_id: str) -> bool:
        if user_id is None:
            return False
        return (user_id, app_id) in self._found.apps_of_users or app_id in self.made.apps_of_users.get(user_id, ())

    def _updated(self, user: UserToImport, line: Line, options: Options) -> UserToImport:
        fields = user.model_copy()
        for name in _FILLED:
            given = getattr(line, name)
            if given is not None and (options.overwrite or getattr(user, name) is None):
                setattr(fields, name, given)
        if (
            line.phone is not None
            and line.phone != user.phone
            and (options.overwrite or user.phone is None)
            and not self._is_verified_by_another(line.phone, user.id)
        ):
            fields.phone, fields.phone_verified_at = line.phone, None
        if options.takes_roles and line.roles is not None and set(line.roles) != set(user.roles):
            fields.roles = line.roles
        if options.takes_status and line.status is UserStatus.DISABLED:
            fields.status, fields.ban_reason, fields.banned_until = "disabled", line.ban_reason, line.banned_until
        elif options.takes_status and line.status is not None:
            fields.status, fields.ban_reason, fields.banned_until = "active", None, None
        if options is self._options_of_new:
            fields.erase_at = line.erase_at
        if line.attributes and options.takes_attributes:
            try:
                fields.attributes = patched(user.attributes or {}, line.attributes) or None
            except WrongAttributes:
                raise LineRefused([ATTRIBUTES]) from None
        fields.unionid = user.unionid or line.unionid
        if line.external_id not in self._external_ids:  # a former one does not replace a removed one
            fields.external_id = user.external_id or line.external_id
        fields.created_at = min(user.created_at, line.created_at or user.created_at)
        fields.last_login_at = max(filter(None, (user.last_login_at, line.last_login_at)), default=None)
        return fields

    def _is_verified_by_another(self, phone: str, user_id: UUID) -> bool:
        return any(holder_id != user_id for holder_id in self._found.verified.get(phone, ()))

    def _faults_of_former_ids(self, line: Line, user: UserToImport) -> Iterator[Fault]:
        if any(former_id == user.id or former_id in self._users for former_id in line.former_ids):
            yield FORMER_ID_OF_A_USER
        if any(self._former_ids.get(former_id, user.id) != user.id for former_id in line.former_ids):
            yield FORMER_ID_TAKEN
        if not self._options.restore and not self._found.erased_ids.isdisjoint(
            former_id for former_id in line.former_ids if former_id not in self._former_ids
        ):
            yield FORMER_ID_ERASED
        if line.former_external_ids and user.external_id is None and line.user_id is None:  # an export knows
            yield NO_EXTERNAL_ID
        if any(self._external_ids.get(name, user.id) != user.id for name in line.former_external_ids):
            yield FORMER_EXTERNAL_ID_TAKEN

    def _fault_of_standing(self, before: UserToImport | None, after: UserToImport) -> Iterator[Fault]:
        if before is None:
            return
        former, standing = Standing.of(before), Standing.of(after)
        if not self._options.allow_admin and former.is_banned and standing.is_staff and not standing.is_banned:
            yield UNBANNED_ADMIN
        if former.is_administrator and not standing.is_administrator:
            if not self._has_administrators:
                raise AdministratorEnds
            if self._administrators <= {after.id}:
                yield Fault("status" if ADMIN in after.roles else "roles", LAST_ADMIN)

    def _take_names(self, line: Line, user: UserToImport) -> bool:
        """Keep the unionid, external id and former ids by which the user is found.

        Returns whether one of them is new.
        """
        is_new = False
        names: tuple[tuple[Sequence[Any], ChainMap[Any, UUID]], ...] = (
            ([line.unionid], self._unionids),
            ([line.external_id, *line.former_external_ids], self._external_ids),
            (line.former_ids, self._former_ids),
        )
        for given, known in names:
            for name in given:
                if name and name not in known:
                    known[name] = user.id
                    is_new = True
        return is_new

    def _take_identity(self, line: Line, user: UserToImport) -> bool:
        key = line.app_id, line.openid
        if line.unionid:
            self._openids[line.app_id, line.unionid] = line.openid
        self.made.apps_of_users.setdefault(user.id, set()).add(line.app_id)
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

    def _events(
        self,
        new: Iterable[UserToImport],
        changed: Iterable[tuple[UserToImport, UserToImport]],
        noted: Iterable[ConsentsNoted],
    ) -> Iterator[dict[str, Any]]:
        row = partial(event, by=OPERATOR, at=self._now)
        for user_id, app_id, kind in self._added:
            roles = self.made.users[user_id].roles if kind is EventType.USER_CREATED else ()
            yield row(kind, user_id=user_id, app_id=app_id, data={"roles": roles} if roles else {})
        for former_id, user_id in self.made.former_ids.items():
            yield row(EventType.USER_MERGED, user_id=user_id, data={"former_id": former_id})  # the actor is unknown
        for user in new:
            if (ban := Standing.of(user).ban) is not None:
                yield row(EventType.USER_BANNED, user_id=user.id, data=ban.data)
            if user.phone is not None:
                yield row(EventType.PHONE_BOUND, user_id=user.id)
            if user.erase_at is not None:
                yield row(EventType.USER_LEAVING, user_id=user.id, data={"erase_at": user.erase_at})
            if user.attributes:
                yield row(EventType.ATTRIBUTES_CHANGED, user_id=user.id, data={"names": sorted(user.attributes)})
        for before, after in changed:
            fields = [name for name in PROFILE if getattr(before, name) != getattr(after, name)]
            if fields:
                yield row(EventType.PROFILE_CHANGED, user_id=after.id, data={"fields": fields})
            if before.phone != after.phone:
                yield row(EventType.PHONE_BOUND, user_id=after.id)
            if names := changed_names(before.attributes or {}, after.attributes or {}):
                yield row(EventType.ATTRIBUTES_CHANGED, user_id=after.id, data={"names": names})
        for user_id, held, holding in noted:
            for document, version in sorted((holding or {}).items()):
                if (held or {}).get(document) != version:
                    consent = {"document": document, "version": version}
                    yield row(EventType.CONSENT_GIVEN, user_id=user_id, data=consent)


def _hash(value: object) -> int | None:
    """Equal for equal values, in this process; None for no value."""
    match value:
        case None:
            return None
        case dict():
            return hash(json.dumps(value, sort_keys=True))
        case list():
            return hash(frozenset(value))
        case _:
            return hash(value)


def _rows_of(
    made: dict[IdentityKey, HeldIdentity], before: dict[IdentityKey, HeldIdentity], *, is_new: bool
) -> list[dict[str, Any]]:
    return [
        {"app_id": app_id, "openid": openid, **identity._asdict()}
        for (app_id, openid), identity in made.items()
        if ((app_id, openid) not in before) == is_new
    ]
