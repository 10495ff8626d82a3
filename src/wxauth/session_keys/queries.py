"""The statements for session_keys. Each session_key is stored encrypted in the session of its login.

WeChat returns a session_key at each login in a mini-program, and encrypts data for the mini-program with it. For each
identity, WeChat accepts only the key that it returned last, which belongs to the newest session.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from wxauth.core.clock import LAST_ID
from wxauth.core.database import Database
from wxauth.core.statements import Nothing, Statement, pair_range
from wxauth.sessions.queries import LAST_OF_PAGE


@dataclass(frozen=True, slots=True)
class KeysInSession:
    """The sealed session_keys with which WeChat might have encrypted a session's data."""

    app_id: str
    openid: str
    newest: bytes | None = field(repr=False)  # of the identity
    own: bytes | None = field(repr=False)  # of the session itself


@dataclass(frozen=True, slots=True)
class KeyOfLogin:
    """The sealed session_key of an identity's newest login, and the status of the identity's user."""

    openid: str
    user_id: UUID
    status: str
    banned_until: datetime | None
    erase_at: datetime | None
    sealed: bytes | None = field(repr=False)  # None if that login's session has ended, or has no key


@dataclass(frozen=True, slots=True)
class SealedSessionKey:
    app_id: str
    openid: str
    session_id: UUID
    sealed: bytes = field(repr=False)


# The fragments below complete the last condition with an openid or a user.
_OF_NEWEST_LOGIN: Final = """
SELECT i.openid, users.id AS user_id, users.status, users.banned_until, users.erase_at,
       (SELECT s.session_key FROM sessions s
         -- With `=`, PostgreSQL might read all sessions in the order of their ids (see `pair_range`). With
         -- `pair_range`, it would expect to find a ninth of all rows, if it has no statistics.
         WHERE s.user_id BETWEEN i.user_id AND i.user_id
           AND s.app_id = i.app_id AND s.openid = i.openid AND s.client_id IS NULL
         ORDER BY s.user_id DESC, s.id DESC LIMIT 1) AS sealed
  FROM identities i JOIN users ON users.id = i.user_id
 WHERE i.app_id = :app_id AND """
KEY_OF_OPENID_FRAGMENT: Final = f"{_OF_NEWEST_LOGIN} i.openid = :openid"
# A former id stands for the remaining user. Two rows show that there are several identities.
KEYS_OF_USER_FRAGMENT: Final = f"""{_OF_NEWEST_LOGIN}
       i.user_id = COALESCE((SELECT user_id FROM former_users WHERE id = :user_id), :user_id) LIMIT 2"""
# WeChat now accepts only the new key, so the session of the identity's newest login gets it, too, even if its own key
# was cleared when a secret key was lost.
STORE_KEY: Final = Statement[Nothing]("""
UPDATE sessions SET session_key = :sealed
 WHERE revoked_at IS NULL
   AND id = ANY (ARRAY [:session_id::uuid, (
           SELECT newest.id FROM sessions own JOIN sessions newest USING (user_id, app_id, openid)
            -- a login after the call to WeChat might have a newer key
            WHERE own.id = :session_id AND newest.client_id IS NULL AND newest.created_at <= :asked_at
            -- by the user, too, so that PostgreSQL uses the index of both
            ORDER BY newest.user_id DESC, newest.id DESC LIMIT 1)])
""")
# Values that are encrypted with the current secret key begin with the prefix. The conditions on the id select one page
# of sessions.
_SEALED_OTHERWISE: Final = Statement[SealedSessionKey]("""
SELECT id AS session_id, app_id, openid, session_key AS sealed FROM sessions
 WHERE id > :after AND id <= :until
   AND session_key IS NOT NULL AND substring(session_key FOR octet_length(:prefix::bytea)) <> :prefix
""")
# The statement skips locked rows. If it waited for one, logins would wait for the other rows that it has locked.
_REPLACE: Final = Statement[Nothing]("""
WITH free AS (
    SELECT sessions.id, resealed
      FROM unnest(:session_ids::uuid[], :former::bytea[], :resealed::bytea[]) AS given (id, former, resealed)
      JOIN sessions ON sessions.id = given.id AND session_key = former
       FOR NO KEY UPDATE OF sessions SKIP LOCKED)
UPDATE sessions SET session_key = resealed FROM free WHERE sessions.id = free.id
""")
# The conditions are those of `READ_USER_IN_SESSION` but for removed sites, because `/v1/me/decrypt` refuses the tokens
# of sites.
KEYS_IN_SESSION: Final = Statement[KeysInSession](f"""
SELECT s.app_id, s.openid, (
           SELECT newest.session_key FROM sessions newest
            -- with an equality, PostgreSQL might read all sessions to find that none has a key
            WHERE {pair_range("newest.user_id", "s.user_id")}
              AND newest.app_id = s.app_id AND newest.openid = s.openid AND newest.session_key IS NOT NULL
            ORDER BY newest.user_id DESC, newest.id DESC LIMIT 1) AS newest,
       s.session_key AS own
  FROM sessions s JOIN users ON users.id = s.user_id
 WHERE s.id = :session_id AND s.user_id = :user_id
   AND s.revoked_at IS NULL AND s.expires_at > :now AND users.status = 'active'
""")


async def session_keys_sealed_otherwise(
    database: Database, *, prefix: bytes, after: UUID, size: int
) -> tuple[Sequence[SealedSessionKey], UUID]:
    """Return the session_keys in a page of sessions that do not begin with `prefix`, and the page's last id.

    The page consists of the first `size` sessions after `after`. For the last page, the id is `LAST_ID`.
    """
    async with database.begin() as transaction:
        last = await transaction.row(LAST_OF_PAGE, after=after, skipped=size - 1)
        until = LAST_ID if last is None else last.id
        return await transaction.rows(_SEALED_OTHERWISE, after=after, until=until, prefix=prefix), until


async def replace_session_keys(
    database: Database, former: Sequence[SealedSessionKey], resealed: Sequence[bytes | None]
) -> int:
    """Replace each key by the value at the same position in `resealed`. None clears it.

    Keys that have changed since they were read, and sessions that are locked, are left out. Return the number of
    changed keys.
    """
    async with database.begin() as transaction:
        return await transaction.run(
            _REPLACE,
            session_ids=[key.session_id for key in former],
            former=[key.sealed for key in former],
            resealed=resealed,
        )
