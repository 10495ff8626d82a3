"""A batch of an import. Its lines are applied one by one, like logins, and then stored together."""

import json
from collections import ChainMap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final, NamedTuple
from uuid import UUID

from wxauth.core.clock import new_id
from wxauth.core.database import Transaction
from wxauth.core.trail import OPERATOR, EventType, event, record_events
from wxauth.core.users import PROFILE_FIELDS, UserStatus
from wxauth.import_export import queries
from wxauth.import_export.lines import WRONG_ATTRIBUTES, Fault, Line
from wxauth.import_export.notes import GivenFields, GivenValue, Notes
from wxauth.import_export.queries import ChangedConsents, Found, IdentityData, UserToImport
from wxauth.import_export.rules import (
    GIVEN_BEFORE,
    LAST_ADMIN,
    RULES_OF_CHANGES,
    RULES_OF_LINES,
    RULES_OF_OWNERS,
    UNIONID_AS_OPENID,
    Change,
    CurrentData,
    MatchedLine,
    Options,
)
from wxauth.settings.roles import ADMIN
from wxauth.users.attributes import WrongAttributes, changed_names, patched
from wxauth.users.status_queries import StatusAndRoles, StatusChange, change_status_and_roles

_MICROSECOND: Final = timedelta(microseconds=1)
# Two lines of one identity may differ in these: rules check the ids, and `Batch` merges the times and the consents.
_WITH_OWN_RULES: Final = ("unionid", "external_id", "created_at", "last_login_at", "consents")
# Two lines of one identity must agree in these: a user has one value of each field, and a second would be lost.
_SINGLE_VALUED: Final = [
    name for name in Line.model_fields if name in UserToImport.model_fields and name not in _WITH_OWN_RULES
]


class LineOutcome(StrEnum):
    CREATED = "created"
    UPDATED = "updated"
    JOINED = "joined"  # only the external_id found the user, who got an identity or a unionid
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    BLANK = "blank"


class LineRefused(Exception):
    """A line is invalid, or contradicts stored data or another line."""

    def __init__(self, faults: Sequence[Fault], other_lines: Sequence[int] = ()) -> None:
        super().__init__()
        self.faults = faults
        self.other_lines = other_lines
        """The numbers of lines that the refused line might contradict."""


class AdministratorsNotLocked(Exception):
    """A line would remove an administrator. The batch has not locked all of them, so this might be the last one."""


class _Addition(NamedTuple):
    kind: EventType
    user_id: UUID
    app_id: str | None  # None if the line of a new user contains no identity


class Batch:
    """A batch of lines, which are applied one by one to the stored data and to the changes of earlier lines.

    Args:
        found: The stored data that the lines name. The caller has locked its users.
        has_all_administrators: Whether the caller has locked all administrators, who are then in `found.users` or,
            from earlier batches of a dry run, in `notes.users`.
        notes: The notes of earlier batches that concern these lines, to which the batch adds its own.
    """

    def __init__(
        self, found: Found, *, has_all_administrators: bool, notes: Notes, options: Options, now: datetime
    ) -> None:
        self._found = found
        self._has_all_administrators = has_all_administrators
        self._options = options
        # These three options protect the data of existing users. A new user gets all data of the line.
        self._options_of_new = replace(options, takes_roles=True, takes_status=True, takes_attributes=True)
        self._now = now
        self.notes = notes
        self._current = CurrentData(found, notes)  # `apply` also writes through this view, which changes only `notes`
        self._stored_users = {user.id: user for user in found.users}
        # The set is complete if `has_all_administrators`.
        self._administrators = {
            user_id for user_id, user in self._current.users.items() if StatusAndRoles.of(user).is_administrator
        }
        self._additions: list[_Addition] = []
        self._new_consents: list[dict[str, Any]] = []

    def apply(self, number: int, line: Line) -> LineOutcome:
        """Apply the line with this number in the file. A line that is refused changes nothing.

        Raises: LineRefused, if the line breaks a rule, or contradicts an earlier line; AdministratorsNotLocked.
        """
        matched = MatchedLine(line, self._current, self._options)
        self._check_line(matched)
        given = self._given_fields(number, line)
        is_new = matched.owner is None
        before = matched.owner or queries.new_user(line.user_id or new_id(self._now), line.created_at or self._now)
        after = self._updated(before, line, is_new=is_new)
        self._check_change(Change(line, self._current, self._options, before, after))
        # From here on, the line is accepted.
        self.notes.first_lines.setdefault(after.id, number)
        if given:
            self.notes.given[line.key] = given
        changes_user = is_new or after != before
        self._note_user(after, is_changed=changes_user)
        self._note_addition(line, after.id, is_new=is_new)  # before `_note_identity`, which adds the identity
        adds_ids = self._note_ids(line, after.id)
        changes_identity = self._note_identity(line, after.id)
        adds_consents = self._note_consents(line, after.id)
        if is_new:
            return LineOutcome.CREATED
        if matched.is_joined_by_external_id:
            return LineOutcome.JOINED
        is_changed = changes_user or adds_ids or changes_identity or adds_consents
        return LineOutcome.UPDATED if is_changed else LineOutcome.UNCHANGED

    async def store(self, transaction: Transaction) -> list[StatusChange]:
        """Write the changes and their events, and return the changes of stored users' status and roles.

        `quiet_events` leaves only the events of these changes, and of the sessions that end because of them.

        Raises: one of `core.outages.CONFLICTS`, if another transaction has written the same data.
        """
        stored = self._stored_users
        new = [user for user_id, user in self.notes.users.items() if user_id not in stored]
        changed = [user for user_id, user in self.notes.users.items() if user_id in stored]
        consents = await queries.store(
            transaction,
            self._rows(new, changed),
            identities=list(self.notes.identities.keys() | self._found.identities.keys()),
            consenting_user_ids=list({consent["user_id"] for consent in self._new_consents}),
        )
        if not self._options.quiet_events:
            await record_events(transaction, list(self._events([*new, *changed], consents)))
        changes: list[StatusChange] = []
        for user in changed:
            before, after = StatusAndRoles.of(stored[user.id]), StatusAndRoles.of(user)
            if before != after:
                changes.append(StatusChange(user.id, before, after))
        await change_status_and_roles(transaction, changes, by=OPERATOR, now=self._now)
        return changes

    def _rows(self, new: Sequence[UserToImport], changed: Sequence[UserToImport]) -> queries.RowsByStatement:
        notes, stored_identities = self.notes, self._found.identities
        # `awaits_login` says that nobody has logged in with an imported identity. `CHANGE_IDENTITIES` ignores this key.
        identities = {
            key: {**key._asdict(), "awaits_login": True, **identity._asdict()}
            for key, identity in notes.identities.items()
        }
        return {
            queries.ADD_USERS: new,
            queries.CHANGE_USERS: changed,
            queries.ADD_UNIONIDS: [
                {"unionid": unionid, "user_id": user_id} for unionid, user_id in notes.unionids.items()
            ],
            queries.ADD_IDENTITIES: [row for key, row in identities.items() if key not in stored_identities],
            queries.CHANGE_IDENTITIES: [row for key, row in identities.items() if key in stored_identities],
            queries.ADD_FORMER_IDS: [
                # The times of successive former ids differ by a microsecond, because an export sorts former ids by
                # `merged_at`.
                {"id": former_id, "user_id": user_id, "merged_at": self._now + place * _MICROSECOND}
                for place, (former_id, user_id) in enumerate(notes.former_ids.items())
            ],
            queries.ADD_FORMER_EXTERNAL_IDS: [
                {"external_id": external_id, "user_id": user_id}
                for external_id, user_id in notes.external_ids.items()
                if external_id != self._current.users[user_id].external_id
            ],
            queries.ADD_CONSENTS: self._new_consents,
        }

    def _check_line(self, matched: MatchedLine) -> None:
        broken_of_line = [rule for rule in RULES_OF_LINES if rule.is_broken(matched)]
        broken_of_owner = [rule for rule in RULES_OF_OWNERS if rule.is_broken(matched)]
        broken = [*broken_of_line, *broken_of_owner]
        if not broken:
            return
        other_lines: set[int] = set()
        # Earlier lines about the owners may be the reason, so the refusal names the first such line for each owner.
        if broken_of_owner:
            first_lines = self.notes.first_lines
            other_lines.update(first_lines[user_id] for user_id in matched.owners if user_id in first_lines)
        # If the openid is not the line's own unionid, it is the unionid of another line in the file.
        if UNIONID_AS_OPENID in broken and matched.line.openid != matched.line.unionid:
            other_lines.add(self.notes.unionid_lines[matched.line.key.openid])
        faults = dict.fromkeys(rule.fault for rule in broken)  # several rules can find the same rounded ID
        raise LineRefused(list(faults), sorted(other_lines))

    def _given_fields(self, number: int, line: Line) -> GivenFields:
        earlier = self.notes.given.get(line.key, {})
        hashes = {name: _hash(getattr(line, name)) for name in _SINGLE_VALUED}
        given = {name: GivenValue(number, hash_) for name, hash_ in hashes.items() if hash_ is not None}
        contradicted = [name for name in given if name in earlier and given[name].hash != earlier[name].hash]
        # With `takes_attributes`, both patches are applied, one after the other. Otherwise, only a line that creates a
        # user sets attributes, so those of a second line would be lost.
        if self._options.takes_attributes and "attributes" in contradicted:
            contradicted.remove("attributes")
        if contradicted:
            lines = sorted({earlier[name].line for name in contradicted})
            raise LineRefused([Fault(name, GIVEN_BEFORE) for name in contradicted], lines)
        return given | earlier  # a refusal names the first line that has given a field

    def _updated(self, user: UserToImport, line: Line, *, is_new: bool) -> UserToImport:
        options = self._options_of_new if is_new else self._options
        updated = user.model_copy()
        _update_profile(updated, line, overwrites=options.overwrites)
        self._update_phone(updated, line, overwrites=options.overwrites)
        _update_status_and_roles(updated, line, options)
        if is_new:
            updated.erase_at = line.erase_at
        if line.attributes and options.takes_attributes:
            try:
                updated.attributes = patched(user.attributes or {}, line.attributes) or None
            except WrongAttributes:
                raise LineRefused([WRONG_ATTRIBUTES]) from None
        updated.unionid = user.unionid or line.unionid
        # A known external id is the current external id of the user or a former one, so there is nothing to add.
        if line.external_id not in self._current.external_ids:
            updated.external_id = user.external_id or line.external_id
        updated.created_at = min(user.created_at, line.created_at or user.created_at)
        updated.last_login_at = max(filter(None, (user.last_login_at, line.last_login_at)), default=None)
        # An exported `last_seen_at` often repeats the time of the last login, which is no change.
        if line.last_seen_at and (updated.last_seen_at is None or line.last_seen_at > updated.last_seen_at):
            updated.last_refresh_at = line.last_seen_at
        return updated

    def _update_phone(self, user: UserToImport, line: Line, *, overwrites: bool) -> None:
        """The line's number counts as unverified."""
        if line.phone is None or line.phone == user.phone:
            return
        if user.phone is not None and not overwrites:
            return
        # A number that another user has verified is not taken away from that user.
        if not self._current.is_verified_by_another(line.phone, user.id):
            user.phone, user.phone_verified_at = line.phone, None

    def _check_change(self, change: Change) -> None:
        faults = [rule.fault for rule in RULES_OF_CHANGES if rule.is_broken(change)]
        if change.removes_administrator:
            if not self._has_all_administrators:
                raise AdministratorsNotLocked
            if self._administrators <= {change.after.id}:
                faults.append(Fault("status" if ADMIN in change.after.roles else "roles", LAST_ADMIN))
        if faults:
            raise LineRefused(faults)

    def _note_user(self, user: UserToImport, *, is_changed: bool) -> None:
        # A later batch of a dry run may find an unchanged user only by an id that this line adds.
        if is_changed or self._options.dry_run:
            self._current.users[user.id] = user
        if StatusAndRoles.of(user).is_administrator:
            self._administrators.add(user.id)
        else:
            self._administrators.discard(user.id)

    def _note_addition(self, line: Line, user_id: UUID, *, is_new: bool) -> None:
        if is_new:
            app_id = None if line.openid is None else line.app_id
            self._additions.append(_Addition(EventType.USER_CREATED, user_id, app_id))
        elif line.openid is not None and line.key not in self._current.identities:
            self._additions.append(_Addition(EventType.IDENTITY_ADDED, user_id, line.app_id))

    def _note_ids(self, line: Line, user_id: UUID) -> bool:
        ids_and_owners: tuple[tuple[Sequence[Any], ChainMap[Any, UUID]], ...] = (
            ([line.unionid], self._current.unionids),
            ([line.external_id, *line.former_external_ids], self._current.external_ids),
            (line.former_ids, self._current.former_ids),
        )
        adds_ids = False
        for ids, owners in ids_and_owners:
            new_ids = [id_ for id_ in ids if id_ is not None and id_ not in owners]
            owners.update(dict.fromkeys(new_ids, user_id))
            adds_ids = adds_ids or bool(new_ids)
        return adds_ids

    def _note_identity(self, line: Line, user_id: UUID) -> bool:
        if line.openid is None:
            return False
        key = line.key
        if line.unionid is not None:
            self._current.openids[key.app_id, line.unionid] = line.openid
        self.notes.apps_of_users.setdefault(user_id, set()).add(key.app_id)
        before = self._current.identities.get(key)
        if before is None:
            created_at = line.identity_created_at or line.created_at or self._now
            self._current.identities[key] = IdentityData(user_id, line.unionid, created_at)
            return True
        after = before._replace(
            unionid=before.unionid or line.unionid,
            created_at=min(before.created_at, line.identity_created_at or before.created_at),
        )
        if after != before:
            self._current.identities[key] = after
        return after != before

    def _note_consents(self, line: Line, user_id: UUID) -> bool:
        if not line.consents:
            return False
        new: list[dict[str, Any]] = []
        stored = self._found.consents.get(user_id, ())
        noted = self.notes.consents.setdefault(user_id, set())
        for consent in line.consents:
            key = (consent.document, consent.version, consent.given_at)
            if key not in stored and key not in noted:
                noted.add(key)
                new.append({"id": new_id(self._now), "user_id": user_id, **consent.model_dump()})
        self._new_consents += new
        return bool(new)

    def _events(self, users: Iterable[UserToImport], consents: Iterable[ChangedConsents]) -> Iterator[dict[str, Any]]:
        row = partial(event, by=OPERATOR, at=self._now)
        for kind, user_id, app_id in self._additions:
            roles = self.notes.users[user_id].roles if kind is EventType.USER_CREATED else ()
            yield row(kind, user_id=user_id, app_id=app_id, data={"roles": roles} if roles else {})
        for former_id, user_id in self.notes.former_ids.items():
            yield row(EventType.USER_MERGED, user_id=user_id, data={"former_id": former_id})
        for user in users:
            for kind, data in _changes_of(user, self._stored_users.get(user.id)):
                yield row(kind, user_id=user.id, data=data)
        for changed in consents:
            for document, version in sorted((changed.after or {}).items() - (changed.before or {}).items()):
                consent = {"document": document, "version": version}
                yield row(EventType.CONSENT_GIVEN, user_id=changed.user_id, data=consent)


def _changes_of(user: UserToImport, stored: UserToImport | None) -> Iterator[tuple[EventType, dict[str, Any]]]:
    before = stored or queries.new_user(user.id, user.created_at)
    changed = [name for name in PROFILE_FIELDS if getattr(before, name) != getattr(user, name)]
    if stored is not None and changed:
        yield EventType.PROFILE_CHANGED, {"fields": changed}
    ban = StatusAndRoles.of(user).ban
    if stored is None and ban is not None:  # `change_status_and_roles` records the bans of stored users
        yield EventType.USER_BANNED, ban.data
    if before.phone != user.phone:
        yield EventType.PHONE_BOUND, {}
    if before.erase_at != user.erase_at:
        yield EventType.USER_LEAVING, {"erase_at": user.erase_at}
    names = changed_names(before.attributes or {}, user.attributes or {})
    if names:
        yield EventType.ATTRIBUTES_CHANGED, {"names": names}


def _update_profile(user: UserToImport, line: Line, *, overwrites: bool) -> None:
    for name in PROFILE_FIELDS:
        value = getattr(line, name)
        if value is not None and (overwrites or getattr(user, name) is None):
            setattr(user, name, value)


def _update_status_and_roles(user: UserToImport, line: Line, options: Options) -> None:
    if options.takes_roles and line.roles is not None and set(line.roles) != set(user.roles):
        user.roles = line.roles
    if options.takes_status and line.status is UserStatus.DISABLED:
        user.status, user.ban_reason, user.banned_until = "disabled", line.ban_reason, line.banned_until
    elif options.takes_status and line.status is not None:
        user.status, user.ban_reason, user.banned_until = "active", None, None


def _hash(value: object) -> int | None:
    match value:
        case None:
            return None
        case dict():
            return hash(json.dumps(value, sort_keys=True))
        case list():
            return hash(frozenset(value))  # the order of roles does not matter
        case _:
            return hash(value)
