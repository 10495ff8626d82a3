"""The statements for browsers' logins.

What is done with a login is done while its user is locked. Where all sessions of a user end, in `sessions/rows.py`, the
logins of the user's browsers are deleted. The order of locks is that of `rows.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from wxauth.server.core.database import Database, Sweep, Transaction
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.core.users import MAY_LOG_IN, USER, UserInSession
from wxauth.server.websites.rows import lock_with_user


class BrowserPerson(UserInSession):
    """The person whose login a browser has."""

    login_id: UUID
    authenticated_at: datetime
    authenticated_by: str
    codes_at: list[datetime]
    knows_site: bool
    """Whether the login has given the site in question a code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLogin:
    """A browser's login after a proof, and the proof of which its cookie's value is made."""

    id: UUID
    proof_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A login to a site by which a person has proved who uses a browser."""

    id: UUID
    client_id: str
    user_id: UUID
    app_id: str
    openid: str
    authenticated_at: datetime
    authenticated_by: str


_WHOSE_PART: Final = """
  FROM browser_logins l JOIN identities i ON (i.app_id, i.openid) = (l.app_id, l.openid)
  JOIN users ON users.id = i.user_id"""
_PRESENT: Final = "l.cookie_hash = :cookie_hash AND l.authenticated_at > :proved_after"
_PERSON_PART: Final = f"""
SELECT {USER}, l.app_id, l.openid, l.id AS login_id, l.authenticated_at, l.authenticated_by, l.codes_at,
       EXISTS (SELECT FROM browser_login_sites b
                WHERE b.browser_login_id = l.id AND b.client_id = :client_id) AS knows_site{_WHOSE_PART}
 WHERE {_PRESENT} AND {MAY_LOG_IN}"""  # noqa: S608 - put together from constants
_FIND: Final = Statement[BrowserPerson](_PERSON_PART)
_LOCK_USER: Final = Statement[UUID](f"""
SELECT users.id{_WHOSE_PART} WHERE {_PRESENT} FOR NO KEY UPDATE OF users
""")
# The row is locked for the sweep, which skips it.
_LOCKED: Final = Statement[BrowserPerson](f"{_PERSON_PART} FOR NO KEY UPDATE OF l")
_COUNT: Final = Statement[Nothing]("""
WITH login AS (UPDATE browser_logins SET codes_at = :codes_at::timestamptz[] WHERE id = :id RETURNING id)
INSERT INTO browser_login_sites (browser_login_id, client_id) SELECT id, :client_id FROM login ON CONFLICT DO NOTHING
""")
# A browser that does not send the login's value has not received it yet: two of its tabs have gone on at once, or the
# same proof comes again. It gets the same value once more, because one login has one value.
_RENEW: Final = Statement[StoredLogin]("""
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
_ADD: Final = Statement[StoredLogin]("""
INSERT INTO browser_logins (id, browser_hash, cookie_hash, proof_id, app_id, openid, authenticated_at, authenticated_by)
VALUES (:id, :browser_hash, :new_hash, :proof_id, :app_id, :openid, :authenticated_at, :authenticated_by)
ON CONFLICT (cookie_hash) DO NOTHING
RETURNING id, proof_id
""")
# Waits for a removal of the client, and then finds none. It also touches a row that is there already, to return it.
_ADD_SITE: Final = Statement[UUID]("""
INSERT INTO browser_login_sites (browser_login_id, client_id)
SELECT :id, name FROM clients WHERE name = :client_id FOR KEY SHARE
ON CONFLICT (browser_login_id, client_id) DO UPDATE SET client_id = excluded.client_id
RETURNING browser_login_id
""")
_DELETE: Final = Statement[Nothing]("DELETE FROM browser_logins WHERE id = :id")
sweep_browser_logins: Final = Sweep.of("browser_logins", key="id", by="authenticated_at")


async def find_browser_person(
    database: Database, cookie_hash: bytes, *, client_id: str, proved_after: datetime
) -> BrowserPerson | None:
    """The person whose login a browser has, unless banned; None without a login."""
    return await database.row(_FIND, cookie_hash=cookie_hash, client_id=client_id, proved_after=proved_after)


async def lock_browser_person(
    transaction: Transaction, cookie_hash: bytes, *, client_id: str, proved_after: datetime
) -> BrowserPerson | None:
    """Lock the user of a browser's login, even during a merge; None if there is none that may be used."""
    present = {"cookie_hash": cookie_hash, "proved_after": proved_after}
    return await lock_with_user(transaction, _LOCK_USER, present, _LOCKED, {**present, "client_id": client_id})


async def store_code_times(
    transaction: Transaction, person: BrowserPerson, codes_at: Sequence[datetime], *, client_id: str
) -> None:
    """Store when a locked login has made codes, the last one for this site, which exists."""
    await transaction.run(_COUNT, id=person.login_id, codes_at=codes_at, client_id=client_id)


async def store_proof(
    transaction: Transaction,
    proof: Proof,
    *,
    login_id: UUID,
    browser_hash: bytes,
    cookie_hash: bytes | None,
    new_hash: bytes,
    proved_after: datetime,
) -> StoredLogin | None:
    """Renew the login of the proof's user in this browser, or make one with the id `login_id`.

    `cookie_hash` is that of the value which the browser has sent. None if the site has been removed.
    """
    values = {
        "browser_hash": browser_hash,
        "new_hash": new_hash,
        "proof_id": proof.id,
        "app_id": proof.app_id,
        "openid": proof.openid,
        "authenticated_at": proof.authenticated_at,
        "authenticated_by": proof.authenticated_by,
    }
    stored = await transaction.row(
        _RENEW, **values, cookie_hash=cookie_hash, proved_after=proved_after, user_id=proof.user_id
    ) or await transaction.row(_ADD, **values, id=login_id)
    if stored is None or await transaction.value(_ADD_SITE, id=stored.id, client_id=proof.client_id) is None:
        return None
    return stored


async def delete_browser_login(transaction: Transaction, login_id: UUID) -> None:
    """Delete a login whose user is locked."""
    await transaction.run(_DELETE, id=login_id)
