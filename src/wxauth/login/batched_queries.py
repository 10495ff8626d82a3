"""The two statements of most logins, each in a form for one login and a form for several logins at once.

Both forms consist of the same fragments. The module `core.batching` describes when each form is used.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, LiteralString

from wxauth.core.batching import Batched
from wxauth.core.statements import fragment
from wxauth.core.trail import EventType
from wxauth.core.users import MAY_LOG_IN, USER, USER_IN_SESSION, UserInSession


class UserAtLogin(UserInSession):
    """The user of a login. If the user is banned or about to be erased, wxauth refuses the login."""

    banned_until: datetime | None
    """The time at which the ban ends; None if the user is not banned, or if the ban has no end."""


_BAN_COLUMN: Final = "users.banned_until"
USER_AT_LOGIN: Final = f"{USER_IN_SESSION}, {_BAN_COLUMN}"
"""The SQL columns of a `UserAtLogin`, for a statement's SELECT or RETURNING."""
_FOUND_USER_MAY_LOG_IN: Final = MAY_LOG_IN.replace("users.", "found_user.")
OPEN_FRAGMENT: Final = """
    INSERT INTO sessions
           (id, user_id, app_id, openid, session_key, ip, user_agent, created_at, last_used_at, expires_at)
    SELECT :session_id, id, :app_id, :openid, :session_key, :ip::text::inet, :user_agent,
           :now::timestamptz, :now, :now + make_interval(secs => :expires_in)"""
"""The beginning of the SQL that opens a session.

The fragment ends before FROM, because each statement selects the user's row differently.
"""
_COMMON_TYPES: Final[Mapping[str, LiteralString]] = {
    "app_id": "text",
    "openid": "text",
    "unionid": "text",
    "nickname": "text",
    "avatar_url": "text",
    "ip": "text",
    "user_agent": "text",
    "session_id": "uuid",
    "session_key": "bytea",
    "expires_in": "int",
    "now": "timestamptz",
}
"""The PostgreSQL types of the parameters of both statements.

The statements take addresses and JSON as text, and cast them, so that PostgreSQL parses both. Otherwise asyncpg would
first parse each address, and the codec for jsonb in `core/connecting.py` would serialize the JSON, which is already
serialized, again.
"""
# The condition is true if an imported identity of the app has the person's unionid in place of an openid.
# `awaits_login` means that nobody has logged in with the identity since the import.
_IS_MISNAMED: Final = """EXISTS (SELECT FROM identities misnamed
                      WHERE misnamed.app_id = :app_id AND misnamed.openid = :unionid AND misnamed.awaits_login)"""
# The condition is true if the identity is known.
_IS_KNOWN: Final = "EXISTS (SELECT FROM identities i WHERE i.app_id = :app_id AND i.openid = :openid)"
# The condition selects the user of a login that `RETURNING_LOGIN` serves.
_IS_RETURNING: Final = f"""i.app_id = :app_id AND i.openid = :openid AND users.id = i.user_id AND NOT i.awaits_login
       AND (:unionid::text IS NULL OR i.unionid = :unionid OR (i.unionid IS NULL AND users.unionid = :unionid))
       AND (NOT ({MAY_LOG_IN})
            OR ((:nickname::text IS NULL OR users.nickname = :nickname)
                AND (:avatar_url::text IS NULL OR users.avatar_url = :avatar_url)))
       AND users.identity_lost_at IS NULL"""


def _returning_fragment(
    source: LiteralString, number: LiteralString = "", join_asked: LiteralString = ""
) -> LiteralString:
    """Return the SQL that records logins of known users, and opens their sessions.

    `source` is the rest of the UPDATE after FROM, including the WHERE clause that selects the users. In the form for
    several logins, `source` must contain a table with the name or alias `asked`, because `Batched` reads the parameters
    from the columns of `asked`. In this form, `number` is the column with the login's number, followed by a comma, and
    `join_asked` joins the table `asked` of `Batched`.
    """
    return f"""found_user AS (
    UPDATE users
       SET last_login_at = CASE WHEN {MAY_LOG_IN} THEN :now ELSE users.last_login_at END
      FROM {source}
    RETURNING {number}{USER_AT_LOGIN}
), opened AS ({OPEN_FRAGMENT}
      FROM found_user{join_asked} WHERE {_FOUND_USER_MAY_LOG_IN} AND :session_id::uuid IS NOT NULL
    ON CONFLICT (id) DO NOTHING
)"""


# This statement is for a known identity, if the login gives no unionid, nickname or picture that differs from the
# stored one. It compares nickname and picture, because most mini-programs send the stored values with each login. It
# records the login in the user's row, and opens a session. It does not find an imported identity with which nobody has
# logged in yet. For a user who is banned or about to be erased, it returns the unchanged user whatever nickname and
# picture the login gives, and opens no session.
#
# The caller creates the id of the session, so that the statement opens only one session even if wxauth sends it twice.
# The id is null if the login must open no session. The statement locks only the user's row, because a lock on the
# identity's row would write another page. If the statement waits for the lock, it still sees the identity's row as it
# was before the wait. Therefore, a change that takes an identity away from a user sets `identity_lost_at` in the user's
# row, which PostgreSQL reads again after the wait. An import also sets this column, so that the next login checks the
# identity. If the column is set, the statement returns no row, and the module `login_queries` locks the user to handle
# the login. A login more than an hour later clears the column, because no statement runs that long.
#
# The form for several logins waits for no lock, because it leaves out users whom another transaction has locked. If
# the batch contains several logins of one user, UPDATE changes the row for one, and the statement leaves out the
# others. `Batched` then runs these logins alone. A login with an unknown identity gets a row of nulls, which counts as
# no row.
RETURNING_LOGIN: Final = Batched[UserAtLogin](
    "returning_login",
    f"WITH {_returning_fragment(f'identities i WHERE {_IS_RETURNING}')} SELECT * FROM found_user",
    f""", locked AS (
    SELECT asked.*, users.id AS user_id FROM asked, identities i, users
     WHERE {_IS_RETURNING} FOR NO KEY UPDATE OF users SKIP LOCKED
), {_returning_fragment("locked AS asked WHERE users.id = asked.user_id", "asked.n, ", " JOIN asked USING (n)")}
SELECT * FROM found_user RIGHT JOIN (
    SELECT n FROM asked WHERE n IN (SELECT n FROM found_user)
        OR NOT {_IS_KNOWN}) AS answered USING (n)
""",
    **_COMMON_TYPES,
)


def _signing_up_fragment(source: LiteralString = "", join_asked: LiteralString = "") -> LiteralString:
    """Return the SQL that creates users, and opens their sessions.

    In the form for several logins, `source` is a FROM clause with the logins' parameters, and `join_asked` joins these
    parameters to the new users. Both must name the table `asked`, because `Batched` reads the parameters from the
    columns of `asked`.
    """
    return f"""holder AS (
    INSERT INTO unionids (unionid, user_id)
    SELECT :unionid, :new_user_id{source}
     WHERE :unionid::text IS NOT NULL AND NOT {_IS_KNOWN} AND NOT {_IS_MISNAMED}
    ON CONFLICT DO NOTHING
    RETURNING user_id
), new_user AS (
    INSERT INTO users (id, unionid, nickname, avatar_url, roles, created_at, last_login_at, external_id, attributes)
    SELECT :new_user_id::uuid, :unionid::text, :nickname::text, :avatar_url::text,
           string_to_array(:roles::text, ' '), :now::timestamptz, :now,
           CASE WHEN NOT EXISTS (SELECT FROM users WHERE external_id = :external_id)
                     AND NOT EXISTS (SELECT FROM former_external_ids WHERE external_id = :external_id)
                THEN :external_id::text END,
           :attributes::text::jsonb{source}
     WHERE CASE WHEN :unionid::text IS NULL THEN NOT {_IS_KNOWN}
                ELSE EXISTS (SELECT FROM holder WHERE user_id = :new_user_id) END
    RETURNING {USER}, {_BAN_COLUMN}
), identity AS (
    INSERT INTO identities (app_id, openid, user_id, created_at, unionid)
    SELECT :app_id, :openid, id, :now, :unionid FROM new_user{join_asked}
), event AS (
    INSERT INTO events (id, type, at, actor, user_id, app_id, ip, data)
    SELECT :event_id, '{fragment(EventType.USER_CREATED.value)}', :now, id::text, id, :app_id, :ip::text::inet,
           :created_data::text::jsonb
      FROM new_user{join_asked}
), opened AS ({OPEN_FRAGMENT}
      FROM new_user{join_asked} WHERE :session_id::uuid IS NOT NULL
)"""


_NEW_USER_COLUMNS: Final = "new_user.*, :app_id::text AS app_id, :openid::text AS openid"
# This statement is for an unknown identity with an unknown unionid, or without a unionid. It creates a user. It inserts
# the row of the unionid first. If two logins with one unionid run at the same time, the second waits for the row of the
# first, and then creates no user. If two logins with one identity and no unionid run at the same time, the second
# violates the primary key of identities. If an imported identity has the unionid in place of an openid, the statement
# creates no user, and the module `login_queries` corrects the identity. The statement leaves out an external id that
# another user has or had. If two new users get the same external id at the same time, the unique index lets only one of
# the logins succeed. As in `RETURNING_LOGIN`, the id of the session is null if the login must open no session.
#
# The form for several logins waits at most 20 ms for the row of another login, and then fails, so that each login of
# the batch runs alone. If the batch contains several logins of one identity, the statement takes the first, and leaves
# out the others. A login with a unionid that belongs to another user gets a row of nulls, which counts as no row.
SIGN_UP: Final = Batched[UserAtLogin](
    "sign_up",
    f"WITH {_signing_up_fragment()} SELECT {_NEW_USER_COLUMNS} FROM new_user",
    f""", one_of_each_identity AS (
    SELECT DISTINCT ON (app_id, openid) asked.*
      FROM asked, (SELECT set_config('lock_timeout', '20ms', true)) AS impatient ORDER BY app_id, openid, n
), {_signing_up_fragment(" FROM one_of_each_identity AS asked", " JOIN asked ON :new_user_id = id")}
SELECT asked.n, {_NEW_USER_COLUMNS} FROM asked LEFT JOIN new_user ON :new_user_id = id
 WHERE id IS NOT NULL OR EXISTS (SELECT FROM unionids WHERE unionids.unionid = :unionid)
""",
    **_COMMON_TYPES,
    new_user_id="uuid",
    roles="text",
    external_id="text",
    attributes="text",
    event_id="uuid",
    created_data="text",
)
