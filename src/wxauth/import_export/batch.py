"""A batch of an import. Its lines are applied one by one, like logins, and then stored together."""

import json
from collections import ChainMap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final
from uuid import UUID

from wxauth.core.clock import new_id
from wxauth.core.database import Transaction
from wxauth.core.trail import OPERATOR, EventType, event, record_events
from wxauth.core.users import PROFILE_FIELDS, UserStatus
from wxauth.import_export import queries
from wxauth.import_export.lines import ATTRIBUTES, Fault, Line
from wxauth.import_export.options import Options
from wxauth.import_export.queries import ConsentsNoted, Found, GivenFields, HeldIdentity, Made, UserToImport
from wxauth.import_export.rules import (
    GIVEN_BEFORE,
    LAST_ADMIN,
    RULES_OF_CHANGES,
    RULES_OF_LINES,
    RULES_OF_OWNERS,
    UNIONID_AS_OPENID,
    Case,
    Change,
    Known,
)
from wxauth.users.attributes import WrongAttributes, changed_names, patched
from wxauth.users.status_queries import ADMIN, StatusAndRoles, StatusChange, change_status_and_roles

_A_MOMENT: Final = timedelta(microseconds=1)
_OF_EVERY_LINE: Final = ("unionid", "external_id", "created_at", "last_login_at", "consents")
"""The fields of a user to which each line can add something."""
_SINGLE_VALUED: Final = [
    name for name in Line.model_fields if name in UserToImport.model_fields and name not in _OF_EVERY_LINE
]
"""The fields with one value per user. If two lines of one identity gave different values, one value would be lost."""


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


class LineRefused(Exception):
    """The line is invalid, or contradicts stored data or an earlier line."""

    def __init__(self, faults: Sequence[Fault], others: Sequence[int] = ()) -> None:
        super().__init__()
        self.faults = faults
        self.others = others
        """The numbers of the other lines that the line contradicts."""


class AdministratorEnds(Exception):
    """A line would remove an administrator, but not all administrators are locked, so this one may be the last."""


class Batch:
    """A batch, which applies lines one by one to the stored data and to the changes of earlier lines.

    The caller has locked the users in `found`. If `has_administrators`, it has also locked all administrators. `made`
    collects the changes. It may already contain changes of earlier lines that were not stored.
    """

    def __init__(self, found: Found, *, has_administrators: bool, made: Made, options: Options, now: datetime) -> None:
        self._found = found
        self._has_administrators = has_administrators
        self._options = options
        self._options_of_new = replace(options, takes_roles=True, takes_status=True, takes_attributes=True)
        self._now = now
        self.made = made
        self._known = Known(found, made)
        self._users_before = {user.id: user for user in found.users}
        # The set is complete if all administrators are locked.
        self._administrators = {
            user_id for user_id in self._users_before if StatusAndRoles.of(self._known.users[user_id]).is_administrator
        }
        self._added: list[tuple[UUID, str | None, EventType]] = []
        self._new_consents: list[dict[str, Any]] = []

    def take(self, number: int, line: Line) -> LineOutcome:
        """Apply a line. A line that contradicts stored data, or an earlier line, changes nothing.

        Raises: LineRefused; AdministratorEnds.
        """
        case = Case(line, self._known, self._options)
        self._check(case)
        before = case.owner
        given = self._given(number, line)
        former = before or queries.nobody_yet(line.user_id or new_id(self._now), line.created_at or self._now)
        user = self._updated(former, line, self._options_of_new if before is None else self._options)
        self._check_change(Change(line, self._known, self._options, former, user))
        self.made.first_lines.setdefault(user.id, number)
        if given:
            self.made.given[line.key] = given
        is_changed = user != before
        # If the user changed, or in a dry run, later lines must see the user as this line has left it.
        if is_changed or self._options.dry_run:
            self._known.users[user.id] = user
        if StatusAndRoles.of(user).is_administrator:
            self._administrators.add(user.id)
        else:
            self._administrators.discard(user.id)
        if before is None:
            self._added.append((user.id, line.app_id if line.openid else None, EventType.USER_CREATED))
        elif line.openid and line.key not in self._known.identities:
            self._added.append((user.id, line.app_id, EventType.IDENTITY_ADDED))
        for taken in (self._take_names, self._take_identity, self._take_consents):
            is_changed = taken(line, user) or is_changed
        if before is None:
            return LineOutcome.CREATED
        if case.is_joined_by_external_id:
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
                # The times of successive previous ids differ by a microsecond, because an export sorts previous ids by
                # `merged_at`.
                {"id": former_id, "user_id": user_id, "merged_at": self._now + place * _A_MOMENT}
                for place, (former_id, user_id) in enumerate(made.former_ids.items())
            ],
            queries.ADD_FORMER_EXTERNAL_IDS: [
                {"external_id": external_id, "user_id": user_id}
                for external_id, user_id in made.external_ids.items()
                if external_id != self._known.users[user_id].external_id
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

    def _check(self, case: Case) -> None:
        """Check that all ids of the line belong to one user, and that the line may change that user.

        Raises: LineRefused.
        """
        broken = [rule for rule in RULES_OF_LINES if rule.is_broken(case)]
        contradicted = [rule for rule in RULES_OF_OWNERS if rule.is_broken(case)]
        if not (broken or contradicted):
            return
        first_lines = self.made.first_lines if contradicted else {}
        others = {first_lines[user_id] for user_id in case.owners if user_id in first_lines}
        if UNIONID_AS_OPENID in broken and case.line.openid != case.line.unionid:
            others.add(self.made.unionid_lines[case.line.key[1]])
        raise LineRefused([rule.fault for rule in (*broken, *contradicted)], sorted(others))

    def _given(self, number: int, line: Line) -> GivenFields:
        """Return the fields that this line and earlier lines of its identity have given.

        Raises: LineRefused, if an earlier line contradicts this one.
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
        if line.external_id not in self._known.external_ids:  # a previous id does not replace a removed one
            fields.external_id = user.external_id or line.external_id
        fields.created_at = min(user.created_at, line.created_at or user.created_at)
        fields.last_login_at = max(filter(None, (user.last_login_at, line.last_login_at)), default=None)
        return fields

    def _fill(self, user: UserToImport, line: Line, *, overwrites: bool) -> None:
        for name in PROFILE_FIELDS:
            if (given := getattr(line, name)) is not None and (overwrites or getattr(user, name) is None):
                setattr(user, name, given)
        is_wanted = line.phone != user.phone and (overwrites or user.phone is None)
        if line.phone is not None and is_wanted and not self._known.is_verified_by_another(line.phone, user.id):
            user.phone, user.phone_verified_at = line.phone, None

    def _check_change(self, change: Change) -> None:
        """Check the change of a line's user. Raises: LineRefused, AdministratorEnds."""
        faults = [rule.fault for rule in RULES_OF_CHANGES if rule.is_broken(change)]
        if change.ends_administrator:
            if not self._has_administrators:
                raise AdministratorEnds
            if self._administrators <= {change.after.id}:
                faults.append(Fault("status" if ADMIN in change.after.roles else "roles", LAST_ADMIN))
        if faults:
            raise LineRefused(faults)

    def _take_names(self, line: Line, user: UserToImport) -> bool:
        """Note the unionid, external ids and previous ids that find the user. Return whether any of them is new."""
        names: tuple[tuple[Sequence[Any], ChainMap[Any, UUID]], ...] = (
            ([line.unionid], self._known.unionids),
            ([line.external_id, *line.former_external_ids], self._known.external_ids),
            (line.former_ids, self._known.former_ids),
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
            self._known.openids[app_id, line.unionid] = line.openid
        self.made.apps_of_users.setdefault(user.id, set()).add(app_id)
        before = self._known.identities.get(key)
        if before is None:
            created_at = line.identity_created_at or line.created_at or self._now
            self._known.identities[key] = HeldIdentity(user.id, line.unionid, created_at)
            return True
        after = before._replace(
            unionid=before.unionid or line.unionid,
            created_at=min(before.created_at, line.identity_created_at or before.created_at),
        )
        if after != before:
            self._known.identities[key] = after
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
        """Yield the events of the changes, as rows of the trail."""
        row = partial(event, by=OPERATOR, at=self._now)
        for user_id, app_id, kind in self._added:
            roles = self.made.users[user_id].roles if kind is EventType.USER_CREATED else ()
            yield row(kind, user_id=user_id, app_id=app_id, data={"roles": roles} if roles else {})
        for former_id, user_id in self.made.former_ids.items():
            yield row(EventType.USER_MERGED, user_id=user_id, data={"former_id": former_id})  # the actor is unknown
        for user in users:
            for kind, data in _changes_of(user, self._users_before.get(user.id)):
                yield row(kind, user_id=user.id, data=data)
        for user_id, held, holding in noted:
            for document, version in sorted((holding or {}).items() - (held or {}).items()):
                consent = {"document": document, "version": version}
                yield row(EventType.CONSENT_GIVEN, user_id=user_id, data=consent)


def _changes_of(user: UserToImport, stored: UserToImport | None) -> Iterator[tuple[EventType, dict[str, Any]]]:
    """Yield the types and the data of the events that report how a user differs from the stored one.

    A user who is not stored yet is new. `change_status_and_roles` records the ban of a stored user.
    """
    before = stored or queries.nobody_yet(user.id, user.created_at)
    changed = [name for name in PROFILE_FIELDS if getattr(before, name) != getattr(user, name)]
    if stored is not None and changed:
        yield EventType.PROFILE_CHANGED, {"fields": changed}
    if stored is None and (ban := StatusAndRoles.of(user).ban) is not None:
        yield EventType.USER_BANNED, ban.data
    if before.phone != user.phone:
        yield EventType.PHONE_BOUND, {}
    if before.erase_at != user.erase_at:
        yield EventType.USER_LEAVING, {"erase_at": user.erase_at}
    if names := changed_names(before.attributes or {}, user.attributes or {}):
        yield EventType.ATTRIBUTES_CHANGED, {"names": names}


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
