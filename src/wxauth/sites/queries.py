"""The statements for logins to sites through any door.

A transaction that decides about a login locks the login's row with the statement that reads it, changes its fields, and
stores them with `save`. Therefore, the second of two simultaneous requests waits, and then sees what the first has
stored. A transaction whose decision leads to a session also locks the user. Bans, merges and erasures hold the same
lock while they end all sessions of a user and delete the logins of the user's browsers. Every transaction takes the
locks in this order, so that no two transactions can deadlock:

1. the user;
2. the site's client, and then the login's row, in one statement. A page's row is locked before the row of a press (a
   use of the page's button).

The user's sessions and the logins of the user's browsers are locked at any point after the user, because wxauth ends
them only under the user's lock. The statement that adds a row locks only the site's client.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, LiteralString
from uuid import UUID

import asyncpg
from sqlmodel import SQLModel

from wxauth.core.database import Database, Transaction
from wxauth.core.statements import Nothing, Statement, columns_of, fragment
from wxauth.sites.door import Door
from wxauth.sites.models import UNDECIDED, RequestFields, SiteLoginFields
from wxauth.sites.responses import Mistake, Unanswerable
from wxauth.wechat.api import CodePicture


class SiteOptions(SQLModel):
    """The options and the apps of a login's site. Most are empty for a client that a metadata document describes."""

    title: str
    redirect_uris: list[str]
    scopes: list[str]
    near: bool
    user_code: bool  # for the codes that the site itself shows; those on wxauth's pages can always be typed
    sso: bool
    link: bool
    site_app_id: str | None  # for QR codes and links; None for the default app
    account_app_id: str | None  # the service account, in WeChat's browser; None for a resource
    website_app_id: str | None  # for WeChat's page on a computer; None for a resource


class SiteLogin(SiteLoginFields, SiteOptions):
    """A stored login, with the options of its site, the proof of its browser's login, and its user."""

    proof_id: UUID | None  # of the browser's login, if that login has not ended; not a column of this login
    user_id: UUID | None


class LockedLogin(SiteLogin):
    """A login whose row `LOCK` has locked. `LOCK_SHOWN` also locks the row, but needs no `is_phone_session_open`."""

    is_phone_session_open: bool  # False if no session has claimed the login


_COLUMNS: Final = columns_of(SiteLoginFields)
# No decision changes these columns. `POLL` changes `poll_interval` and `polled_at`.
_UNCHANGED: Final = {
    *RequestFields.model_fields,
    "id",
    "client_id",
    "created_at",
    "page_hash",
    "browser_hash",
    "query",
    "pressed_on",
    "device_code_hash",
    "requested_ip",
    "poll_interval",
    "polled_at",
    "scene_hash",
    "user_code_hash",
    "state_hash",
}
_SAVED: Final[tuple[LiteralString, ...]] = tuple(name for name in _COLUMNS if name not in _UNCHANGED)
_IP_COLUMNS: Final = ("browser_ip", "requested_ip")
_IP_PARAMETER: Final = ":{name}::text::inet"  # The first cast lets the driver send the address as text.
# PostgreSQL computes `site`: it is the `client_id` of a registered client, and null for an unregistered client. The
# client is locked in a subquery, because PostgreSQL cannot lock the nullable side of an outer join.
_WITH_LOCKED_CLIENT: Final = """
  FROM site_logins l LEFT JOIN LATERAL (SELECT * FROM clients WHERE name = l.site FOR KEY SHARE) c ON true
 WHERE c.removed_by IS NULL"""
_UNDECIDED_STAGES: Final = ", ".join(f"'{fragment(stage.value)}'" for stage in UNDECIDED)
_HAS_CLIENT: Final = Statement[bool](
    "SELECT EXISTS (SELECT FROM clients WHERE name = :client_id AND removed_by IS NULL)"
)


def _listed(
    names: Collection[LiteralString], prefix: LiteralString = "", ip: LiteralString = "{name}"
) -> LiteralString:
    return ", ".join(ip.format(name=name) if name in _IP_COLUMNS else f"{prefix}{name}" for name in names)


# A client that a document describes has no row in `clients`, so its `c` columns are null. Its pages may have a link,
# but it has none of the other options. For a request that names a resource, wxauth offers neither single sign-on nor
# WeChat's pages, as in `targets.for_resource`.
_LOGIN_COLUMNS: Final = f"""
SELECT {_listed(_COLUMNS, "l.", "host(l.{name}) AS {name}")},
       COALESCE(l.client_name, c.title) AS title, COALESCE(c.redirect_uris, ARRAY[l.redirect_uri]) AS redirect_uris,
       COALESCE(c.scopes, '{{}}') AS scopes, c.near IS TRUE AS near, c.user_code IS TRUE AS user_code,
       c.link IS NOT FALSE AS link, (c.sso AND l.resource IS NULL) IS TRUE AS sso, c.app_id AS site_app_id,
       CASE WHEN l.resource IS NULL THEN c.account_app_id END AS account_app_id,
       CASE WHEN l.resource IS NULL THEN c.website_app_id END AS website_app_id,
       (SELECT b.proof_id FROM browser_logins b WHERE b.id = l.browser_login_id) AS proof_id,
       (SELECT i.user_id FROM identities i WHERE (i.app_id, i.openid) = (l.app_id, l.openid)) AS user_id"""
# The query leaves out the logins of a removed site.
_LOGIN: Final = f"""{_LOGIN_COLUMNS}
  FROM site_logins l LEFT JOIN clients c ON c.name = l.site WHERE c.removed_by IS NULL"""

# The statement stores nothing if the user code is taken, or if the client was removed.
_ADD: Final = Statement[UUID](f"""
INSERT INTO site_logins ({_listed(_COLUMNS)})
SELECT {_listed(_COLUMNS, ":", _IP_PARAMETER)}
  FROM (VALUES (true)) AS single_row  -- for the outer join, because an unregistered client has no row in `clients`
  -- a subquery, as in `_WITH_LOCKED_CLIENT`
  LEFT JOIN LATERAL (SELECT name FROM clients WHERE name = :client_id AND removed_by IS NULL FOR KEY SHARE) c ON true
 WHERE :client_name::text IS NOT NULL OR c.name IS NOT NULL
ON CONFLICT DO NOTHING RETURNING id
""")


def _finding(*columns: LiteralString) -> Statement[SiteLogin]:
    conditions = " AND ".join(f"l.{name} = :{name}" for name in columns)
    return Statement[SiteLogin](f"{_LOGIN} AND {conditions}")


BY_ID: Final = _finding("id")
BY_PAGE: Final = _finding("browser_hash", "page_hash")
BY_STATE: Final = _finding("browser_hash", "state_hash")
BY_DEVICE_CODE: Final = _finding("device_code_hash")
BY_SCENE: Final = _finding("scene_hash")
# Whether a device accepts login codes that users type.
TAKES_USER_CODES: Final = Statement[bool](
    "SELECT EXISTS (SELECT FROM clients WHERE device AND user_code AND removed_by IS NULL)"
)
BY_CODE: Final = _finding("code_hash")
# The statement finds the last link to WeChat that the browser of a page has received. The order of ids does not show
# which link is the last, because the clocks of replicas differ. Therefore, wxauth numbers the links while it holds the
# lock of their page.
LAST_LINK: Final = Statement[SiteLogin](f"""{_LOGIN}
   AND l.pressed_on = :page_id AND l.door = '{fragment(Door.LINK)}'
 ORDER BY l.presses DESC LIMIT 1
""")
# The statement finds nothing if the login was deleted, or if its client was removed.
LOCK: Final = Statement[LockedLogin](f"""{_LOGIN_COLUMNS},
       EXISTS (SELECT FROM sessions s
                WHERE s.id = l.claimed_session_id AND s.revoked_at IS NULL AND s.expires_at > :now)
           AS is_phone_session_open{_WITH_LOCKED_CLIENT} AND l.id = :id
   FOR UPDATE OF l
""")
# The statement finds and locks the login of this scene, or of a user code with one of these hashes.
LOCK_SHOWN: Final = Statement[SiteLogin](f"""{_LOGIN_COLUMNS}{_WITH_LOCKED_CLIENT}
   AND (l.scene_hash = :scene_hash OR l.user_code_hash = ANY (:user_code_hashes::bytea[]))
   FOR UPDATE OF l
""")
_SAVE: Final = Statement[Nothing](f"""
UPDATE site_logins SET ({_listed(_SAVED)}) = ROW ({_listed(_SAVED, ":", _IP_PARAMETER)})
 WHERE id = :id
""")
# The statement stores the time of a device's poll, and returns whether the poll is too early. If it is, the interval
# becomes `extra_seconds` longer.
POLL: Final = Statement[bool]("""
WITH before AS (
    SELECT id, polled_at + make_interval(secs => poll_interval) > :now AS is_too_early
      FROM site_logins WHERE id = :id FOR UPDATE
)
UPDATE site_logins l
   SET polled_at = :now, poll_interval = poll_interval + CASE WHEN before.is_too_early THEN :extra_seconds ELSE 0 END
  FROM before WHERE l.id = before.id
RETURNING COALESCE(before.is_too_early, false)
""")
# The statement opens the session of a login, and adds it to the sessions of its site. The caller holds the locks of the
# login and of its user. A session stores the name of its client only if it is for a resource.
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
       -- the row of a press is kept as long as its page; for any other row, the subquery is null
       AND COALESCE((SELECT kept_until FROM site_logins page WHERE page.id = l.pressed_on), l.kept_until) < :now
     LIMIT :size FOR UPDATE SKIP LOCKED))  -- does not wait for logins
RETURNING id
""")


async def add(database: Database | Transaction, login: SiteLoginFields) -> bool:
    """Store a new login. Return False, and store nothing, if another login has the same user code.

    Raises: Unanswerable, if the client of the login no longer exists.
    """
    if await database.value(_ADD, **{name: getattr(login, name) for name in _COLUMNS}) is not None:
        return True
    if login.client_name is None and not await database.value(_HAS_CLIENT, client_id=login.client_id):
        raise Unanswerable(Mistake.CLIENT)
    return False


async def save(transaction: Transaction, login: SiteLogin) -> None:
    """Store the columns of a locked login, except those in `_UNCHANGED`."""
    await transaction.run(_SAVE, id=login.id, **{name: getattr(login, name) for name in _SAVED})


async def sweep_site_logins(database: Database, *, size: int, now: datetime) -> int:
    """Delete up to `size` logins whose `kept_until` has passed. Return the number of deleted logins."""
    return len(await database.values(_SWEEP, now=now, size=size))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCode:
    """A login whose code can be scanned, with the picture of the code."""

    id: UUID
    app_id: str | None  # that the site names for its QR codes; None for the default app
    content: bytes | None
    content_type: Literal["image/jpeg", "image/png"] | None

    @property
    def picture(self) -> CodePicture | None:
        return CodePicture(self.content, self.content_type) if self.content and self.content_type else None


# The statement finds the code only until the user has decided, or the code has expired.
SHOWN_CODE: Final = Statement[ShownCode](f"""
SELECT l.id, c.app_id, p.content, p.content_type
  FROM site_logins l LEFT JOIN clients c ON c.name = l.site LEFT JOIN scan_pictures p ON p.login_id = l.id
 WHERE c.removed_by IS NULL
   -- the row of a link also has a scene, but only a login with a code to scan has a user code
   AND l.scene_hash = :scene_hash AND l.user_code_hash IS NOT NULL AND l.stage IN ({_UNDECIDED_STAGES})
   -- a code can expire before its login (see `scan_ends_at`)
   AND l.created_at > :created_after AND l.expires_at > :now
""")
# If two processes make the picture of one code, both get the picture that was stored first. DO UPDATE changes nothing,
# but with DO NOTHING, the statement would not return the stored picture.
_KEEP_PICTURE: Final = Statement[CodePicture]("""
INSERT INTO scan_pictures (login_id, content_type, content)
SELECT id, :content_type, :content FROM site_logins WHERE id = :id
ON CONFLICT (login_id) DO UPDATE SET login_id = excluded.login_id
RETURNING content_type, content
""")


async def keep_picture(database: Database, login_id: UUID, picture: CodePicture) -> CodePicture:
    """Store a code's picture, and return it. If another process has stored a picture first, return that picture."""
    try:
        stored = await database.row(
            _KEEP_PICTURE, id=login_id, content_type=picture.content_type, content=picture.content
        )
    except asyncpg.ForeignKeyViolationError:  # the login was deleted during the statement
        return picture
    if stored is None:  # the login was deleted before the statement
        return picture
    return stored
