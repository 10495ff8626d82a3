"""The audit trail, which records who did what to whom, when and from where. Events contain no secrets.

A database trigger refuses to change or delete an event, except to erase a user's data, or in housekeeping's sweep.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, Self, Unpack
from uuid import UUID

from typing_extensions import TypedDict

from wxauth.core.clock import new_id
from wxauth.core.database import Database, Transaction
from wxauth.core.statements import Nothing, Statement, fragment
from wxauth.i18n import Text, lazy_gettext as _


@dataclass(frozen=True, slots=True)
class Actor:
    """The user, service or program that does something, and its IP address."""

    name: str
    """The id of a user, the name of a service client, or the name of `SYSTEM`, `OPERATOR` or `WECHAT`.

    Only a service client that moderates users has `client:` before its name, such as `client:risk` (see `_moderator` in
    siblings/user_routes.py).
    """
    ip: str | None = None
    must_spare_staff: bool = False  # true for staff with only the role `support`, and for clients that moderate


SYSTEM: Final = Actor("system")
OPERATOR: Final = Actor("operator")  # who runs a command
WECHAT: Final = Actor("wechat")  # which reports changes through message push


class EventType(StrEnum):
    """The types of events. Each type has a name, a meaning, the data that other services receive, and further data.

    For example, other services receive `user.banned` without data, and the trail also stores `reason` and `until`. If
    `sent` is missing or None, other services do not receive the event. The data that other services receive is not
    personal, and remains when a user is erased.

    `scripts/docs` writes the rows of the guides from these types. Tests compare the types with the guides, with the
    database's trigger, and with the events that wxauth records during the tests.
    """

    _value_: str
    meaning: Text
    sent: tuple[str, ...] | None  # the names of the data that other services receive
    data: frozenset[str]  # all names that the event's data may contain

    def __new__(cls, value: str, meaning: Text, sent: str | None = None, further: str = "") -> Self:
        """`sent` and `further` list names of data, separated by spaces."""
        kind = str.__new__(cls, value)
        kind._value_, kind.meaning = value, meaning
        kind.sent = None if sent is None else tuple(sent.split())
        kind.data = frozenset(f"{sent or ''} {further}".split())
        return kind

    USER_CREATED = "user.created", _("Logged in for the first time"), "roles hook"
    USER_MERGED = "user.merged", _("Another user was merged into this user"), "former_id by"
    USER_SPLIT = (
        "user.split",
        _("Some identities were split off into a separate user"),
        "new_user_id app_ids kept_app_ids",
    )
    IDENTITY_ADDED = "identity.added", _("Another identity was added"), ""
    IDENTITY_REMOVED = "identity.removed", _("An identity was removed"), ""
    CONSENT_GIVEN = "consent.given", _("Agreed to a document"), "document version"
    CONSENT_WITHDRAWN = "consent.withdrawn", _("Withdrew consent to a document"), "document version"
    USER_ERASED = "user.erased", _("Permanently erased"), "former_ids"
    USER_EXPORTED = "user.exported", _("All of the user’s data was exported")
    USER_BANNED = "user.banned", _("Banned"), "", "reason until"
    USER_UNBANNED = "user.unbanned", _("The ban was lifted"), ""
    ROLES_CHANGED = "user.roles_changed", _("Roles were changed"), "before after"
    PHONE_BOUND = "user.phone_bound", _("A phone number was added"), ""
    PHONE_REMOVED = "user.phone_removed", _("The phone number was removed"), "reason"
    PROFILE_CHANGED = "user.profile_changed", _("The profile was changed"), "fields"
    ATTRIBUTES_CHANGED = "user.attributes_changed", _("Attributes changed"), "names"
    AUTHORIZATION_REVOKED = "user.authorization_revoked", _("Withdrew authorization in WeChat"), "fields"
    USER_LEAVING = "user.leaving", _("Requested erasure of the account"), "erase_at"
    USER_STAYED = "user.stayed", _("Cancelled the erasure"), ""
    SESSION_ENDED = "session.ended", _("A session ended"), "session_ids reason"

    STAFF_SEARCHED = "staff.searched", _("A staff member searched for users"), None, "term found count"
    STAFF_READ = "staff.read", _("A staff member viewed the user’s data"), None, "what user_ids"
    SCAN_APPROVED = "scan.approved", _("Approved a login with a QR code"), None, "scan_id client_id browser_ip"
    SITE_AUTHORIZED = "site.authorized", _("Logged in to a website"), None, "client_id door resource scope"
    SIGNING_KEY_ROTATED = "signing_key.rotated", _("A new signing key was published"), None, "kid"
    SIGNING_KEY_WITHDRAWN = "signing_key.withdrawn", _("A signing key was withdrawn"), None, "kid"
    CONSOLE_LINK_MADE = "console.link_made", _("A link to the console was created")
    CONSOLE_OPENED = "console.opened", _("Opened the console"), None, "session_id by"
    APP_ADDED = "app.added", _("An app was added")
    APP_CHANGED = "app.changed", _("An app was changed"), None, "fields"
    APP_REMOVED = "app.removed", _("An app was removed")
    CLIENT_ADDED = "client.added", _("A service was added"), None, "name scopes"
    CLIENT_CHANGED = "client.changed", _("A service was changed"), None, "name scopes fields"
    CLIENT_SECRET_RENEWED = "client.secret_renewed", _("A service’s secret was rotated"), None, "name"
    CLIENT_REMOVED = "client.removed", _("A service was removed"), None, "name"
    WEBHOOK_ADDED = "webhook.added", _("A webhook was added"), None, "name url types is_enabled"
    WEBHOOK_CHANGED = "webhook.changed", _("A webhook was changed"), None, "name url types is_enabled"
    WEBHOOK_SECRET_RENEWED = "webhook.secret_renewed", _("A webhook’s secret was rotated"), None, "name"
    WEBHOOK_DISABLED = (
        "webhook.disabled",
        _("A webhook was disabled, because it returned 410 or lost its secret"),
        None,
        "name",
    )
    WEBHOOK_REMOVED = "webhook.removed", _("A webhook was removed"), None, "name"
    WECHAT_TOKEN_READ = "access_token.read", _("A service read WeChat’s access token")
    CLIENT_SIGNED = "client.signed", _("A service signed data with a session_key")

    @property
    def log_event(self) -> str:
        """Return a name such as `user_banned`."""
        return self.value.replace(".", "_")


SENT_TO_SIBLINGS: Final[Mapping[str, tuple[str, ...]]] = {
    kind: kind.sent for kind in EventType if kind.sent is not None
}

# All data of these events outlives the user, so they must not have further data (see `EventType`).
_TYPES_KEEPING_DATA: Final = [kind for kind, names in SENT_TO_SIBLINGS.items() if names]
_RECORD: Final = Statement[Nothing]("""
INSERT INTO events (id, type, at, actor, user_id, app_id, ip, data)
VALUES (:id, :type, :at, :actor, :user_id, :app_id, :ip::text::inet, :data::jsonb)
""")
_RECORD_ALL: Final = Statement[Nothing]("""
INSERT INTO events (id, type, at, actor, user_id, app_id, ip, data)
SELECT id, type, at, actor, user_id, app_id, ip, data FROM jsonb_populate_recordset(NULL::events, :events)
""")
# The id is derived from the type, actor, app and day. Therefore a second event on the same day has the same id, and is
# not stored.
_RECORD_DAILY: Final = Statement[Nothing]("""
INSERT INTO events (id, type, at, actor, app_id, ip) VALUES (:id, :type, :now, :actor, :app_id, :ip::text::inet)
ON CONFLICT (id) DO NOTHING
""")
# The data of an event after its user is erased.
ERASED_DATA: Final = f"""
CASE WHEN events.type IN ({", ".join(f"'{fragment(name)}'" for name in _TYPES_KEEPING_DATA)})
     THEN events.data ELSE '{{}}' END"""
# An event for which this is true keeps the IP address from which the user was erased.
REPORTS_ERASURE: Final = """
(events.type = 'user.erased'
 OR (events.type = 'session.ended' AND events.data ->> 'reason' = 'erased'))"""


class About(TypedDict, total=False):
    user_id: UUID | None
    app_id: str | None
    data: Mapping[str, Any] | None


def event(kind: EventType, *, by: Actor, at: datetime, **about: Unpack[About]) -> dict[str, Any]:
    """Return an event as a row of the trail, without recording it."""
    row = {"id": new_id(at), "type": kind.value, "at": at, "actor": by.name, "ip": by.ip}
    return {**row, "user_id": about.get("user_id"), "app_id": about.get("app_id"), "data": about.get("data") or {}}


def data_for_siblings(kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of an event's data that other services receive."""
    return {name: data[name] for name in SENT_TO_SIBLINGS.get(kind, ()) if name in data}


async def record_event(
    transaction: Transaction, kind: EventType, *, by: Actor, at: datetime, **about: Unpack[About]
) -> None:
    """Record an event in the transaction that makes the change.

    If the event is about a user, the transaction must have locked the user. The user's newest event might have a later
    time or a higher id, for example because the clocks of two replicas differ. In this case, a trigger gives the new
    event an id and, if necessary, a time just after those of the newest event. Therefore the events of each user are in
    the order of the commits.
    """
    await transaction.run(_RECORD, **event(kind, by=by, at=at, **about))


async def record_events(transaction: Transaction, events: Sequence[Mapping[str, Any]]) -> None:
    """Record any number of events at once, each as `record_event` would."""
    if events:
        await transaction.run(_RECORD_ALL, events=events)


async def record_daily(database: Database, kind: EventType, *, by: Actor, app_id: str, now: datetime) -> None:
    """Record an event about an app and the client `by`, at most once per UTC day in all processes together."""
    event_id = _id_of_day(kind, by.name, app_id, now=now)
    await database.run(_RECORD_DAILY, id=event_id, type=kind.value, now=now, actor=by.name, app_id=app_id, ip=by.ip)


# A UUIDv7 (RFC 9562, section 5.7), in which a hash of the names replaces the random bits.
def _id_of_day(*names: str, now: datetime) -> UUID:
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    milliseconds = int(day.timestamp() * 1000).to_bytes(6, "big")
    after_time = bytearray(sha256("\0".join(names).encode()).digest()[:10])
    # Four bits contain the version of the UUID, which is 7, and two bits contain its variant, which is binary 10.
    after_time[0] = 0x70 | after_time[0] & 0x0F
    after_time[2] = 0x80 | after_time[2] & 0x3F
    return UUID(bytes=milliseconds + after_time)
