"""The statements for logins to sites through any door, for browsers' logins, and for the pictures that WeChat makes.

Every decision about a login is made while its row is locked. Lock it, read it, change its fields, and `save` them. So
the second of two simultaneous requests sees what the first has done. Every decision that leads to a session is made
while the user is locked, too, because under this lock, all sessions of a user are ended and the logins of the user's
browsers deleted, as bans, merges and erasures do. Locks are taken in this order, so that transactions cannot deadlock:

1. the user, and then what is changed only under this lock: the user's sessions and the logins of the user's browsers;
2. the site's client, then the row of the login, by one statement. The row of a page is locked before the row of a press
(a use of its button).

A new row waits only for its client.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal, LiteralString, TypeVar
from uuid import UUID

import asyncpg

from wxauth.clients.models import Client
from wxauth.core.database import Database, Sweep, Transaction
from wxauth.core.statements import Nothing, Statement, columns_of, fragment
from wxauth.core.users import MAY_LOG_IN, USER, UserInSession
from wxauth.site_logins.doors import Door
from wxauth.site_logins.models import OPEN, RequestFields, SiteLoginFields
from wxauth.wechat.received import CodePicture

if TYPE_CHECKING:  # imports FastAPI, which commands do not need
    from wxauth.users.callers import Caller

_ATTEMPTS: Final = 3

Person = TypeVar("Person", bound=UserInSession)


class Mistake(StrEnum):
    """The mistakes after which the browser is not redirected, because the target cannot be trusted."""

    REQUEST = "request"
    CLIENT = "client_id"
    REDIRECT_URI = "redirect_uri"
    DOCUMENT = "client_document"


class Unanswerable(Exception):
    """The browser is not redirected to the site, but gets a page that explains the mistake.

    `received` is the redirect URI of the request, or the host of a client's document, in a form that can be shown.
    `parameter` is the name of the parameter that cannot be read, if it is known.
    """

    def __init__(
        self,
        mistake: Mistake,
        *,
        site: Client | None = None,
        received: str | None = None,
        parameter: str | None = None,
    ) -> None:
        super().__init__(mistake)
        self.mistake = mistake
        self.site = site
        self.received = received
        self.parameter = parameter


class SiteLogin(SiteLoginFields):
    """A stored login, with the options and the apps of its site."""

    title: str
    redirect_uris: list[str]
    scopes: list[str]
    near: bool
    user_code: bool
    sso: bool
    link: bool
    site_app_id: str | None
    account_app_id: str | None
    website_app_id: str | None
    proof_id: UUID | None
    """The proof of its browser's login; None without such a login, or if it has ended."""
    user_id: UUID | None
    """The user of its identity."""


class LockedLogin(SiteLogin):
    """A login whose row is locked."""

    is_phone_in: bool
    """Whether the phone's session that has claimed it is still open; False if none has."""


_COLUMNS: Final = columns_of(SiteLoginFields)
_FOR_GOOD: Final = {
    *RequestFields.model_fields,
    *("id", "client_id", "created_at", "page_hash", "browser_hash", "query", "pressed_on", "device_code_hash"),
    *("poll_interval", "polled_at", "scene_hash", "user_code_hash", "state_hash"),
}
"""The columns that no decision changes."""
_CHANGED: Final[tuple[LiteralString, ...]] = tuple(name for name in _COLUMNS if name not in _FOR_GOOD)
_GIVEN_IP: Final = ":browser_ip::text::inet"
_WITH_LOCKED_CLIENT: Final = """
  FROM site_logins l LEFT JOIN LATERAL (SELECT * FROM clients WHERE name = l.site FOR KEY SHARE) c ON true
 WHERE c.removed_by IS NULL"""
_OPEN_STAGES: Final = ", ".join(f"'{fragment(stage.value)}'" for stage in OPEN)
_HAS_CLIENT: Final = Statement[bool](
    "SELECT EXISTS (SELECT FROM clients WHERE name = :client_id AND removed_by IS NULL)"
)


def _listed(
    names: Collection[LiteralString], before: LiteralString = "", ip: LiteralString = "browser_ip"
) -> LiteralString:
    return ", ".join(ip if name == "browser_ip" else f"{before}{name}" for name in names)


_LOGIN_COLUMNS: Final = f"""
SELECT {_listed(_COLUMNS, "l.", "host(l.browser_ip) AS browser_ip")},
       COALESCE(l.client_name, c.title) AS title, COALESCE(c.redirect_uris, ARRAY[l.redirect_uri]) AS redirect_uris,
       COALESCE(c.scopes, '{{}}') AS scopes, c.near IS TRUE AS near, c.user_code IS TRUE AS user_code,
       c.link IS NOT FALSE AS link, (c.sso AND l.resource IS NULL) IS TRUE AS sso, c.app_id AS site_app_id,
       CASE WHEN l.resource IS NULL THEN c.account_app_id END AS account_app_id,
       CASE WHEN l.resource IS NULL THEN c.website_app_id END AS website_app_id,
       (SELECT b.proof_id FROM browser_logins b WHERE b.id = l.browser_login_id) AS proof_id,
       (SELECT i.user_id FROM identities i WHERE (i.app_id, i.openid) = (l.app_id, l.openid)) AS user_id"""
# Logins of a removed site are left out. A client that is described by a document has no row.
_LOGIN: Final = f"""{_LOGIN_COLUMNS}
  FROM site_logins l LEFT JOIN clients c ON c.name = l.site WHERE c.removed_by IS NULL"""

# If the user code is taken, or the client was removed, nothing is stored.
_ADD: Final = Statement[UUID](f"""
INSERT INTO site_logins ({_listed(_COLUMNS)})
SELECT {_listed(_COLUMNS, ":", _GIVEN_IP)}
  FROM (VALUES (true)) AS one
  LEFT JOIN LATERAL (SELECT name FROM clients WHERE name = :client_id AND removed_by IS NULL FOR KEY SHARE) c ON true
 WHERE :client_name::text IS NOT NULL OR c.name IS NOT NULL
ON CONFLICT DO NOTHING RETURNING id
""")
_FOUND_BY: Final[Mapping[tuple[str, ...], Statement[SiteLogin]]] = {
    columns: Statement[SiteLogin](
        f"{_LOGIN} AND {' AND '.join(f'l.{fragment(name)} = :{fragment(name)}' for name in columns)}"
    )
    for columns in (
        ("id",),
        ("page_hash", "browser_hash"),
        ("state_hash", "browser_hash"),
        ("device_code_hash",),
        ("code_hash",),
    )
}
# This is the last link to WeChat that a page's browser has received. Ids do not show which one it is, because clocks
# differ, so links are counted while their page is locked.
LINK: Final = Statement[SiteLogin](f"""{_LOGIN}
   AND l.pressed_on = :page_id AND l.door = '{fragment(Door.LINK)}'
 ORDER BY l.presses DESC LIMIT 1
""")
# The statement finds nothing if the login was deleted, for example with its client. It orders two decisions about one
# login. The second waits here, and then sees what the first has stored.
LOCK: Final = Statement[LockedLogin](f"""{_LOGIN_COLUMNS},
       EXISTS (SELECT FROM sessions s
                WHERE s.id = l.claimed_session_id AND s.revoked_at IS NULL AND s.expires_at > :now)
           AS is_phone_in{_WITH_LOCKED_CLIENT} AND l.id = :id
   FOR UPDATE OF l
""")
# The statement finds the login of this scene, or of a user code with one of these hashes. It orders the requests of two
# phones.
LOCK_SHOWN: Final = Statement[SiteLogin](f"""{_LOGIN_COLUMNS}{_WITH_LOCKED_CLIENT}
   AND (l.scene_hash = :scene_hash OR l.user_code_hash = ANY (:user_code_hashes::bytea[]))
   FOR UPDATE OF l
""")
_SAVE: Final = Statement[Nothing](f"""
UPDATE site_logins SET ({_listed(_CHANGED)}) = ROW ({_listed(_CHANGED, ":", _GIVEN_IP)})
 WHERE id = :id
""")
# The statement stores the time of a device's poll, and returns whether it is too early, in which case the interval
# becomes `more` seconds longer. It orders two polls. The second waits here, and then reads the time of the first.
POLL: Final = Statement[bool]("""
WITH before AS (
    SELECT id, polled_at + make_interval(secs => poll_interval) > :now AS is_too_early
      FROM site_logins WHERE id = :id FOR UPDATE
)
UPDATE site_logins l
   SET polled_at = :now, poll_interval = poll_interval + CASE WHEN before.is_too_early THEN :more ELSE 0 END
  FROM before WHERE l.id = before.id
RETURNING COALESCE(before.is_too_early, false)
""")
# The caller holds the locks of the login and of its user.
OPEN_SESSION: Final = Statement[Nothing]("""
WITH opened AS (
    INSERT INTO sessions (id, user_id, app_id, openid, ip, user_agent, created_at, last_used_at, expires_at,
                          client_id, scope, authenticated_at, authenticated_by, resource, client_name,
                          resource_title)
    SELECT :session_id, :user_id, app_id, openid, browser_ip, browser_user_agent, :now, :now, :expires_at, client_id,
           scope, authenticated_at, authenticated_by, resource, CASE WHEN resource IS NOT NULL THEN :client_name END,
           :resource_title
      FROM site_logins WHERE id = :id
)
INSERT INTO website_sessions (client_id, session_id, browser_login_id)
SELECT client_id, :session_id, browser_login_id FROM site_logins WHERE id = :id
""")
_SWEEP: Final = Statement[UUID]("""
DELETE FROM site_logins WHERE id = ANY (ARRAY(
    SELECT id FROM site_logins l
     WHERE kept_until < :now
       AND COALESCE((SELECT kept_until FROM site_logins page WHERE page.id = l.pressed_on), l.kept_until) < :now
     LIMIT :size FOR UPDATE SKIP LOCKED))
RETURNING id
""")

_LOCK_USER: Final = Statement[UUID]("""
SELECT users.id FROM identities i JOIN users ON users.id = i.user_id WHERE i.app_id = :app_id AND i.openid = :openid
   FOR NO KEY UPDATE OF users
""")
_PERSON: Final = Statement[UserInSession](f"""
SELECT {USER}, i.app_id, i.openid
  FROM identities i JOIN users ON users.id = i.user_id
 WHERE i.app_id = :app_id AND i.openid = :openid
   AND {MAY_LOG_IN}
""")
_PERSON_IN_SESSION: Final = Statement[UserInSession](f"""
SELECT {USER}, s.app_id, s.openid
  FROM sessions s JOIN users ON users.id = s.user_id
 WHERE s.id = :session_id AND s.revoked_at IS NULL AND s.expires_at > :now AND {MAY_LOG_IN}
""")
# The statement finds whether the user of this identity, or of this unionid, has one of these roles. An import might
# have stored the unionid in place of the openid.
HAS_ANY_ROLE: Final = Statement[bool]("""
SELECT EXISTS (
    SELECT FROM users
     WHERE roles && :roles::text[]
       AND id IN (SELECT user_id FROM identities WHERE app_id = :app_id AND openid = :openid
                   UNION ALL SELECT user_id FROM unionids WHERE unionid = :unionid
                   UNION ALL SELECT user_id FROM identities
                              WHERE app_id = :app_id AND openid = :unionid AND awaits_login))
""")


async def add(asked: Database | Transaction, login: SiteLoginFields) -> bool:
    """Store a new login.

    Return False if its user code is taken. Raises: Unanswerable, if its client no longer exists.
    """
    if await asked.value(_ADD, **{name: getattr(login, name) for name in _COLUMNS}) is not None:
        return True
    if login.client_name is None and not await asked.value(_HAS_CLIENT, client_id=login.client_id):
        raise Unanswerable(Mistake.CLIENT)
    return False


async def save(transaction: Transaction, login: SiteLogin) -> None:
    """Store the changed fields of a locked login."""
    await transaction.run(_SAVE, id=login.id, **{name: getattr(login, name) for name in _CHANGED})


async def find(database: Database, **key: UUID | bytes) -> SiteLogin | None:
    """Return the login with this id, page or state of a browser, device code, or authorization code.

    The keys are those of `_FOUND_BY`.
    """
    return await database.row(_FOUND_BY[tuple(key)], **key)


async def lock_person(transaction: Transaction, *, app_id: str | None, openid: str | None) -> UserInSession | None:
    """Lock the user of an identity, even during a merge; None without one, or if the user cannot log in."""
    identity = {"app_id": app_id, "openid": openid}
    return await lock_with_user(transaction, _LOCK_USER, identity, _PERSON, identity)


async def lock_caller(transaction: Transaction, caller: "Caller", *, now: datetime) -> UserInSession | None:
    """Lock the user of a caller's session, even during a merge; None if user or session can no longer log in."""
    identity = {"app_id": caller.user.app_id, "openid": caller.user.openid}
    session = {"session_id": caller.session_id, "now": now}
    return await lock_with_user(transaction, _LOCK_USER, identity, _PERSON_IN_SESSION, session)


async def lock_with_user(
    transaction: Transaction,
    lock: Statement[UUID],
    whose: Mapping[str, object],
    read: Statement[Person],
    what: Mapping[str, object],
) -> Person | None:
    """Lock a user with `lock`, and read the same user with `read`; None if `read` finds no user.

    `whose` contains the parameters of `lock`, and `what` those of `read`.
    """
    for _ in range(_ATTEMPTS):
        # None if a merge was in progress, after which the identity belongs to the remaining user.
        locked_id = await transaction.value(lock, **whose)
        person = await transaction.row(read, **what)
        if person is None or person.id == locked_id:  # otherwise it has moved to another user since
            return person
    return None


async def sweep_site_logins(database: Database, *, size: int, now: datetime) -> int:
    """Delete expired logins, at most `size`. Return their number."""
    return len(await database.values(_SWEEP, now=now, size=size))


class BrowserPerson(UserInSession):
    """The user whose login a browser has."""

    login_id: UUID
    authenticated_at: datetime
    authenticated_by: str
    codes_at: list[datetime]
    knows_site: bool
    """Whether the login has given a code to the site in question."""


_WHOSE_BROWSER: Final = """
  FROM browser_logins l JOIN identities i ON (i.app_id, i.openid) = (l.app_id, l.openid)
  JOIN users ON users.id = i.user_id"""
_PRESENT: Final = "l.cookie_hash = :cookie_hash AND l.authenticated_at > :proved_after"
_BROWSER_PERSON_FRAGMENT: Final = f"""
SELECT {USER}, l.app_id, l.openid, l.id AS login_id, l.authenticated_at, l.authenticated_by, l.codes_at,
       EXISTS (SELECT FROM browser_login_sites b
                WHERE b.browser_login_id = l.id AND b.client_id = :client_id) AS knows_site{_WHOSE_BROWSER}
 WHERE {_PRESENT} AND {MAY_LOG_IN}"""
BROWSER_PERSON: Final = Statement[BrowserPerson](_BROWSER_PERSON_FRAGMENT)
_LOCK_BROWSERS_USER: Final = Statement[UUID](f"""
SELECT users.id{_WHOSE_BROWSER} WHERE {_PRESENT} FOR NO KEY UPDATE OF users
""")
# The row is locked for the sweep (the deletion of expired rows), which skips it.
_LOCKED_BROWSER_PERSON: Final = Statement[BrowserPerson](f"{_BROWSER_PERSON_FRAGMENT} FOR NO KEY UPDATE OF l")
# The statement stores when a locked login has made codes, the last of them for this existing site.
COUNT_CODE: Final = Statement[Nothing]("""
WITH login AS (UPDATE browser_logins SET codes_at = :codes_at::timestamptz[] WHERE id = :id RETURNING id)
INSERT INTO browser_login_sites (browser_login_id, client_id) SELECT id, :client_id FROM login ON CONFLICT DO NOTHING
""")
# If a browser does not send the login's value, it has not received it yet, because two of its tabs continued
# simultaneously, or a proof was repeated. It gets that value once more, because a login has only one value.
_RENEW_BROWSER_LOGIN: Final = Statement[tuple[UUID, UUID]]("""
UPDATE browser_logins l
   SET browser_hash = :browser_hash, app_id = :app_id, openid = :openid, authenticated_at = :authenticated_at,
       authenticated_by = :authenticated_by,
       cookie_hash = CASE WHEN l.cookie_hash = :cookie_hash THEN :new_hash ELSE l.cookie_hash END,
       proof_id = CASE WHEN l.cookie_hash = :cookie_hash THEN :proof_id ELSE l.proof_id END
  FROM identities i
 WHERE (l.cookie_hash = :cookie_hash OR l.browser_hash = :browser_hash) AND l.authenticated_at > :proved_after
   AND (i.app_id, i.openid) = (l.app_id, l.openid) AND i.user_id = :user_id
RETURNING l.id, l.proof_id
""")
_ADD_BROWSER_LOGIN: Final = Statement[tuple[UUID, UUID]]("""
INSERT INTO browser_logins (id, browser_hash, cookie_hash, proof_id, app_id, openid, authenticated_at, authenticated_by)
VALUES (:id, :browser_hash, :new_hash, :proof_id, :app_id, :openid, :authenticated_at, :authenticated_by)
ON CONFLICT (cookie_hash) DO NOTHING
RETURNING id, proof_id
""")
_ADD_SITE: Final = Statement[Nothing]("""
INSERT INTO browser_login_sites (browser_login_id, client_id) VALUES (:id, :client_id) ON CONFLICT DO NOTHING
""")
DELETE_BROWSER_LOGIN: Final = Statement[Nothing]("DELETE FROM browser_logins WHERE id = :id")
sweep_browser_logins: Final = Sweep.of("browser_logins", key="id", by="authenticated_at")


async def lock_browser_person(
    transaction: Transaction, cookie_hash: bytes, *, client_id: str, proved_after: datetime
) -> BrowserPerson | None:
    """Lock the user of a browser's login, even during a merge; None if there is no usable login."""
    present = {"cookie_hash": cookie_hash, "proved_after": proved_after}
    return await lock_with_user(
        transaction, _LOCK_BROWSERS_USER, present, _LOCKED_BROWSER_PERSON, {**present, "client_id": client_id}
    )


async def store_proof(
    transaction: Transaction,
    proof: LockedLogin,
    person: UserInSession,
    *,
    login_id: UUID,
    browser_hash: bytes,
    cookie_hash: bytes,
    new_hash: bytes,
    proved_after: datetime,
) -> tuple[UUID, UUID] | None:
    """Renew the login of this user, who is locked, in this browser, or create one with the id `login_id`.

    `cookie_hash` is the hash of the value that the browser has sent, and the proof is locked. Return the login's id,
    and the proof from which its cookie's value is derived. The proof is None if the value was made earlier, for a login
    that has ended.
    """
    values = {
        "browser_hash": browser_hash,
        "new_hash": new_hash,
        "proof_id": proof.id,
        "app_id": person.app_id,
        "openid": person.openid,
        "authenticated_at": proof.authenticated_at,
        "authenticated_by": proof.authenticated_by,
    }
    stored = await transaction.row(
        _RENEW_BROWSER_LOGIN, **values, cookie_hash=cookie_hash, proved_after=proved_after, user_id=person.id
    ) or await transaction.row(_ADD_BROWSER_LOGIN, **values, id=login_id)
    if stored is not None:
        await transaction.run(_ADD_SITE, id=stored[0], client_id=proof.client_id)
    return stored


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCode:
    """A code to scan whose picture is requested."""

    id: UUID
    app_id: str | None
    """The app of the site."""
    content: bytes | None
    """The picture; None if it has not been made yet."""
    content_type: Literal["image/jpeg", "image/png"] | None


# The code is shown until the user has decided.
SHOWN_CODE: Final = Statement[ShownCode](f"""
SELECT l.id, c.app_id, p.content, p.content_type
  FROM site_logins l LEFT JOIN clients c ON c.name = l.site LEFT JOIN scan_pictures p ON p.login_id = l.id
 WHERE c.removed_by IS NULL
   AND l.scene_hash = :scene_hash AND l.user_code_hash IS NOT NULL AND l.stage IN ({_OPEN_STAGES})
   AND l.created_at > :scanned_since AND l.expires_at > :now
""")
# If two processes make one picture, both get the picture that was stored first.
_KEEP_PICTURE: Final = Statement[CodePicture]("""
INSERT INTO scan_pictures (login_id, content_type, content)
SELECT id, :content_type, :content FROM site_logins WHERE id = :id
ON CONFLICT (login_id) DO UPDATE SET login_id = excluded.login_id
RETURNING content_type, content
""")


async def keep_picture(database: Database, login_id: UUID, picture: CodePicture) -> CodePicture:
    """Store a code's picture, and return it. If another was stored first, return that one."""
    try:
        stored = await database.row(
            _KEEP_PICTURE, id=login_id, content_type=picture.content_type, content=picture.content
        )
    except asyncpg.ForeignKeyViolationError:  # the login has just been deleted
        return picture
    return stored or picture
