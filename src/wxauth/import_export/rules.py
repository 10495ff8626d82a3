"""The options of an import, the rules for each line in three tables, and the data that the rules examine.

Broken rules are reported in the order of the tables. The third is checked only if no rule of the others is broken.
"""

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.import_export.lines import Fault, Line
from wxauth.import_export.notes import Notes
from wxauth.import_export.queries import Found, UserToImport
from wxauth.import_export.rounded_ids import looks_rounded
from wxauth.settings.roles import STAFF_ROLES
from wxauth.users.status_queries import StatusAndRoles

Id = TypeVar("Id")
Checked = TypeVar("Checked")


def _switch(option: str, text: str) -> Any:
    return field(default=False, metadata={"option": option, "help": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of an import. The command derives its switches from the metadata of the fields."""

    dry_run: bool = _switch("--dry-run", "Check each line and report the result without storing anything.")
    overwrites: bool = _switch(
        "--overwrite", "Replace stored nicknames, pictures and phone numbers with the values in the file."
    )
    takes_roles: bool = _switch("--roles", "Change the roles of existing users.")
    takes_status: bool = _switch("--status", "Ban and unban existing users.")
    takes_attributes: bool = _switch("--attributes", "Change the attributes of existing users with JSON Merge Patch.")
    allows_admin: bool = _switch("--allow-admin", "Accept lines that grant the admin role or unban an administrator.")
    restores_erased: bool = _switch("--restore", "Accept lines whose user_id belongs to an erased user.")
    joins: bool = _switch(
        "--join",
        "Accept lines whose unionid or phone number differs from the value stored for the user with the same "
        "external_id. Use this option only if the line describes the same person.",
    )
    ids_are_exact: bool = _switch(
        "--ids-are-exact",
        "Accept a file whose external_ids look as if a spreadsheet, jq or JavaScript had rounded them.",
    )
    skips_bad_fields: bool = _switch(
        "--skip-bad-fields",
        "If a line's nickname, picture, phone number, time, attribute or ban reason is invalid, import "
        "the line without this field.",
    )
    quiet_events: bool = _switch("--quiet-events", "Don't record events for imported data.")
    """Events about stored users' status and roles, and the sessions that these end, are still recorded."""
    time_zone: ZoneInfo | None = None
    """Without one, times without an offset are refused."""


class Owners(NamedTuple):
    """The user to whom each id in a line belongs, in the order of precedence."""

    by_identity: UUID | None
    by_unionid: UUID | None
    by_external_id: UUID | None
    by_user_id: UUID | None

    @property
    def owner_id(self) -> UUID | None:
        """The line's user, who is the first that was found; None if the line creates a user."""
        return next((user_id for user_id in self if user_id is not None), None)


class CurrentData:
    """What is stored under the ids of a batch, below the changes of earlier lines. Writes change only `notes`."""

    def __init__(self, found: Found, notes: Notes) -> None:
        self.found, self.notes = found, notes
        self.users = ChainMap(notes.users, {user.id: user for user in found.users})
        self.identities = ChainMap(notes.identities, found.identities)
        self.unionids = ChainMap(notes.unionids, found.unionids)
        self.openids = ChainMap(notes.openids, found.openids)
        self.external_ids = ChainMap(notes.external_ids, found.external_ids)
        self.former_ids = ChainMap(notes.former_ids, found.former_ids)

    def owners_of(self, line: Line) -> Owners:
        identity = self.identities.get(line.key)
        return Owners(
            by_identity=None if identity is None else identity.user_id,
            by_unionid=None if line.unionid is None else self.unionids.get(line.unionid),
            by_external_id=None if line.external_id is None else self.external_ids.get(line.external_id),
            by_user_id=line.user_id if line.user_id in self.users else None,
        )

    def is_in_app(self, user_id: UUID, app_id: str) -> bool:
        is_noted = app_id in self.notes.apps_of_users.get(user_id, ())
        return is_noted or app_id in self.found.apps_of_users.get(user_id, ())

    def is_verified_by_another(self, phone: str, user_id: UUID) -> bool:
        return any(holder_id != user_id for holder_id in self.found.phone_holders.get(phone, ()))


@dataclass(slots=True)
class MatchedLine:
    line: Line
    current: CurrentData
    options: Options
    owners: Owners = field(init=False)
    owner: UserToImport | None = field(init=False)  # None if the line creates a user

    def __post_init__(self) -> None:
        self.owners = self.current.owners_of(self.line)
        owner_id = self.owners.owner_id
        self.owner = None if owner_id is None else self.current.users[owner_id]

    @property
    def is_joined_by_external_id(self) -> bool:
        """Whether the line has no user id, and only its external_id finds a user."""
        other_ids = (self.owners.by_identity, self.owners.by_unionid, self.line.user_id)
        return self.owners.by_external_id is not None and other_ids == (None, None, None)

    @property
    def is_joined_without_confirmation(self) -> bool:
        """Whether only the external_id finds the user. Another table may have given the same number to someone else."""
        return self.is_joined_by_external_id and not self.may_join

    @property
    def has_rounded_id(self) -> bool:
        """Whether the external id may be two people's, because its last digits may be lost."""
        return not self.options.ids_are_exact and looks_rounded(self.line.external_id)

    @property
    def may_join(self) -> bool:
        """Whether the operator has confirmed that the same external id means the same person."""
        return self.options.joins and not self.has_rounded_id

    @property
    def adds_second_openid(self) -> bool:
        """Whether the user already has another openid in the app, though WeChat gives each person one in each app.

        A line with a user id comes from an export, and may add one.
        """
        is_new = self.owners.by_identity is None and self.line.user_id is None
        # Without an openid, the app_id of the key is empty, and no user is in such an app.
        return self.owner is not None and is_new and self.current.is_in_app(self.owner.id, self.line.key.app_id)

    @property
    def unionid_has_another_openid(self) -> bool:
        """Whether the unionid belongs to a different openid in the line's app."""
        line = self.line
        if line.unionid is None:
            return False
        return self.current.openids.get((line.key.app_id, line.unionid), line.openid) != line.openid


@dataclass(slots=True)
class Change:
    line: Line
    current: CurrentData
    options: Options
    before: UserToImport
    after: UserToImport

    @property
    def removes_administrator(self) -> bool:
        """Whether the user is an administrator before, but not after the change."""
        before, after = StatusAndRoles.of(self.before), StatusAndRoles.of(self.after)
        return before.is_administrator and not after.is_administrator

    def any_belongs_to_another(self, ids: Sequence[Id], owners: Mapping[Id, UUID]) -> bool:
        return any(owners.get(id_, self.after.id) != self.after.id for id_ in ids)


class Rule(NamedTuple, Generic[Checked]):
    """A rule of an import, with the field that its fault names, and its text as a predicate of this field."""

    field: str
    text: Text
    is_broken: Callable[[Checked], bool]

    @property
    def fault(self) -> Fault:
        return Fault(self.field, self.text)


def _has_unionid_as_openid(matched: MatchedLine) -> bool:
    line = matched.line
    is_unionid = line.openid == line.unionid or line.openid in matched.current.notes.unionid_lines
    # A line with a user id comes from an export, and not from a file with a wrong column.
    return line.openid is not None and line.user_id is None and is_unionid


def _is_of_erased_user(matched: MatchedLine) -> bool:
    # If an earlier line has restored the user, `erased_ids` still contains the id, but `by_user_id` is set.
    is_gone = matched.line.user_id in matched.current.found.erased_ids and matched.owners.by_user_id is None
    return is_gone and not matched.options.restores_erased


def _unionid_has_second_openid(matched: MatchedLine) -> bool:
    is_by_unionid = matched.adds_second_openid and matched.owners.by_unionid is not None
    return matched.unionid_has_another_openid or is_by_unionid


def _external_id_has_second_openid(matched: MatchedLine) -> bool:
    is_by_external_id = matched.owner is not None and matched.owners.by_external_id == matched.owner.id
    return matched.adds_second_openid and is_by_external_id and not matched.may_join


def _contradicts_unionid(matched: MatchedLine) -> bool:
    # The unionids differ, because the unionid of the line does not find the owner.
    have_unionids = matched.owner is not None and matched.line.unionid is not None and matched.owner.unionid is not None
    return have_unionids and matched.is_joined_without_confirmation


def _contradicts_phone(matched: MatchedLine) -> bool:
    phone, owner = matched.line.phone, matched.owner
    if phone is None or owner is None or not matched.is_joined_without_confirmation:
        return False
    has_another = owner.phone_verified_at is not None and owner.phone != phone
    return has_another or matched.current.is_verified_by_another(phone, owner.id)


def _has_another_unionid(matched: MatchedLine) -> bool:
    identity = matched.current.identities.get(matched.line.key)
    if matched.line.unionid is None or identity is None:
        return False
    return identity.unionid not in (None, matched.line.unionid)


def _unionid_belongs_to_another(matched: MatchedLine) -> bool:
    if matched.unionid_has_another_openid:  # `_unionid_has_second_openid` already reports the unionid
        return False
    return matched.owners.by_unionid not in (None, matched.owners.owner_id)


def _has_another_external_id(matched: MatchedLine) -> bool:
    is_new = matched.line.external_id is not None and matched.owners.by_external_id is None
    return is_new and matched.owner is not None and matched.owner.external_id is not None


def _has_erased_former_id(change: Change) -> bool:
    new = set(change.line.former_ids) - change.current.former_ids.keys()
    return not change.options.restores_erased and bool(change.current.found.erased_ids & new)


def _unbans_staff(change: Change) -> bool:
    before, after = StatusAndRoles.of(change.before), StatusAndRoles.of(change.after)
    return not change.options.allows_admin and before.is_banned and after.is_staff and not after.is_banned


_ROUNDED_ID: Final = _(
    "must belong to only one person, but this line and the user with this external_id seem to be two people, because "
    "the ID looks rounded. Export the IDs again, as text. If the ID is exact, add --ids-are-exact"
)


def _with_variant_for_rounded_ids(rule: Rule[MatchedLine]) -> Sequence[Rule[MatchedLine]]:
    """Return the rule, which offers --join, and one that does not offer it, for IDs that look rounded."""
    return (
        Rule(rule.field, rule.text, lambda matched: rule.is_broken(matched) and not matched.has_rounded_id),
        Rule("external_id", _ROUNDED_ID, lambda matched: rule.is_broken(matched) and matched.has_rounded_id),
    )


UNIONID_AS_OPENID: Final = Rule(
    "openid",
    _("must not be a unionid, but equals the unionid of this line or of another line in the file"),
    _has_unionid_as_openid,
)
RULES_OF_LINES: Final[tuple[Rule[MatchedLine], ...]] = (
    Rule(
        "roles",
        _("must not contain admin or support. To import these roles, add --allow-admin"),
        lambda matched: not STAFF_ROLES.isdisjoint(matched.line.roles or ()) and not matched.options.allows_admin,
    ),
    UNIONID_AS_OPENID,
    Rule(
        "user_id",
        _("must not belong to a user who was merged into another user"),
        lambda matched: matched.line.user_id in matched.current.former_ids,
    ),
    Rule(
        "user_id",
        _("must not belong to a user who has requested erasure"),
        # Only a line that has the same time of erasure, and therefore comes from an export, may change such a user.
        lambda matched: matched.owner is not None and matched.owner.erase_at not in (None, matched.line.erase_at),
    ),
    Rule("user_id", _("must not belong to an erased user. To restore the user, add --restore"), _is_of_erased_user),
)
"""The rules for a line and its user. Of these rules, only `UNIONID_AS_OPENID` makes the refusal name other lines."""
RULES_OF_OWNERS: Final[tuple[Rule[MatchedLine], ...]] = (
    Rule(
        "unionid",
        _(
            "must correspond to only one openid in this app, because WeChat gives each user only one openid per "
            "app. It already belongs to another openid"
        ),
        _unionid_has_second_openid,
    ),
    *_with_variant_for_rounded_ids(
        Rule(
            "external_id",
            _(
                "must correspond to only one openid in this app, because WeChat gives each user only one openid per "
                "app. The user already has another openid. If both openids belong to one person, add --join to "
                "accept both"
            ),
            _external_id_has_second_openid,
        )
    ),
    *_with_variant_for_rounded_ids(
        Rule(
            "unionid",
            _(
                "must be the unionid of the user with this external_id. Otherwise, the line might belong to "
                "another person. If both belong to the same person, add --join to merge them into one user"
            ),
            _contradicts_unionid,
        )
    ),
    *_with_variant_for_rounded_ids(
        Rule(
            "phone",
            _(
                "must not contradict a verified number. Either the user with this external_id has verified "
                "another number, or another user has verified this number. If both belong to the same person, "
                "add --join to merge them into one user"
            ),
            _contradicts_phone,
        )
    ),
    Rule("unionid", _("must be the unionid that the identity already has"), _has_another_unionid),
    Rule("unionid", _("must not belong to another user"), _unionid_belongs_to_another),
    Rule(
        "external_id",
        _("must not belong to another user"),
        lambda matched: matched.owners.by_external_id not in (None, matched.owners.owner_id),
    ),
    Rule("external_id", _("must be the external_id that the user already has"), _has_another_external_id),
    Rule(
        "user_id",
        _("must be the ID of the user with this identity, unionid or external_id"),
        lambda matched: matched.owner is not None and matched.line.user_id not in (None, matched.owner.id),
    ),
)
"""All ids of a line must belong to one person, as far as stored data and earlier lines show."""
RULES_OF_CHANGES: Final[tuple[Rule[Change], ...]] = (
    Rule(
        "former_ids",
        _("must not be the ID of an existing user"),
        lambda change: any(
            former_id == change.after.id or former_id in change.current.users for former_id in change.line.former_ids
        ),
    ),
    Rule(
        "former_ids",
        _("must not belong to a user who was merged into another user"),
        lambda change: change.any_belongs_to_another(change.line.former_ids, change.current.former_ids),
    ),
    Rule(
        "former_ids", _("must not belong to an erased user. To restore the user, add --restore"), _has_erased_former_id
    ),
    Rule(
        "former_external_ids",
        _("must be given together with the external_id that replaced these IDs"),
        # Only an export, which contains the user's id, can know that the user has no current external id.
        lambda change: (
            bool(change.line.former_external_ids) and change.after.external_id is None and change.line.user_id is None
        ),
    ),
    Rule(
        "former_external_ids",
        _("must not belong to another user"),
        lambda change: change.any_belongs_to_another(change.line.former_external_ids, change.current.external_ids),
    ),
    Rule(
        "status", _("must not unban administrators or support staff. To unban them, add --allow-admin"), _unbans_staff
    ),
)
# This rule is in no table, because only the batch knows all administrators.
LAST_ADMIN: Final = _("must leave at least one administrator. Appoint another administrator first")
# This rule is in no table, because the refusal also names the earlier line.
GIVEN_BEFORE: Final = _(
    "must be the same as in the earlier line with this openid or, if there is no openid, with this "
    "unionid. Remove one of the two lines"
)
