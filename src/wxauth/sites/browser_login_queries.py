"""The statements for the logins of browsers, which sites share."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from wxauth.core.database import Transaction
from wxauth.core.statements import Nothing, Statement
from wxauth.core.upkeep import Sweep
from wxauth.core.users import MAY_LOG_IN, USER, UserInSession
from wxauth.sites.queries import LockedLogin
from wxauth.sites.user_queries import lock_with_user


class BrowserUser(UserInSession):
    login_id: UUID
    authenticated_at: datetime
    authenticated_by: str
    codes_at: list[datetime]  # of the latest codes, for the limit on codes per minute
    knows_site: bool  # whether the site of the query has received a code from this login


@dataclass(frozen=True, slots=True)
class StoredBrowserLogin:
    """The login of a browser, which a user's proof has just created or renewed."""

    id: UUID
    proof_id: UUID  # The login's cookie is derived from this proof.


_FROM_BROWSER_LOGIN: Final = """
  FROM browser_logins l JOIN identities i ON (i.app_id, i.openid) = (l.app_id, l.openid)
  JOIN users ON users.id = i.user_id"""
_IS_VALID: Final = "l.cookie_hash = :cookie_hash AND l.authenticated_at > :proved_after"
_BROWSER_USER_FRAGMENT: Final = f"""
SELECT {USER}, l.app_id, l.openid, l.id AS login_id, l.authenticated_at, l.authenticated_by, l.codes_at,
       EXISTS (SELECT FROM browser_login_sites b
                WHERE b.browser_login_id = l.id AND b.client_id = :client_id) AS knows_site{_FROM_BROWSER_LOGIN}
 WHERE {_IS_VALID} AND {MAY_LOG_IN}"""
BROWSER_USER: Final = Statement[BrowserUser](_BROWSER_USER_FRAGMENT)  # finds no user who may not log in
_LOCK_BROWSER_USER: Final = Statement[UUID](f"""
SELECT users.id{_FROM_BROWSER_LOGIN} WHERE {_IS_VALID} FOR NO KEY UPDATE OF users
""")
# The statement locks the browser's login, so that the sweep (the deletion of expired rows) skips it.
_LOCK_BROWSER_LOGIN: Final = Statement[BrowserUser](f"{_BROWSER_USER_FRAGMENT} FOR NO KEY UPDATE OF l")
# The caller has locked the site's client, to which the new row refers.
RECORD_CODE: Final = Statement[Nothing]("""
WITH login AS (UPDATE browser_logins SET codes_at = :codes_at::timestamptz[] WHERE id = :id RETURNING id)
INSERT INTO browser_login_sites (browser_login_id, client_id) SELECT id, :client_id FROM login ON CONFLICT DO NOTHING
""")
_RENEW_BROWSER_LOGIN: Final = Statement[StoredBrowserLogin]("""
UPDATE browser_logins l
   SET browser_hash = :browser_hash, app_id = :app_id, openid = :openid, authenticated_at = :authenticated_at,
       authenticated_by = :authenticated_by,
       -- If two tabs continued, or if a proof was repeated, the first request has changed the cookie. The second keeps
       -- this cookie, so that both responses contain the same.
       cookie_hash = CASE WHEN l.cookie_hash = :cookie_hash THEN :new_cookie_hash ELSE l.cookie_hash END,
       proof_id = CASE WHEN l.cookie_hash = :cookie_hash THEN :proof_id ELSE l.proof_id END
  FROM identities i
 -- Two logins may match, one by its cookie and one by the browser. The cookie of either will do for their user.
 WHERE (l.cookie_hash = :cookie_hash OR l.browser_hash = :browser_hash) AND l.authenticated_at > :proved_after
   AND (i.app_id, i.openid) = (l.app_id, l.openid) AND i.user_id = :user_id
RETURNING l.id, l.proof_id
""")
_ADD_BROWSER_LOGIN: Final = Statement[StoredBrowserLogin]("""
INSERT INTO browser_logins (id, browser_hash, cookie_hash, proof_id, app_id, openid, authenticated_at, authenticated_by)
VALUES (:id, :browser_hash, :new_cookie_hash, :proof_id, :app_id, :openid, :authenticated_at, :authenticated_by)
ON CONFLICT (cookie_hash) DO NOTHING
RETURNING id, proof_id
""")
_ADD_SITE: Final = Statement[Nothing]("""
INSERT INTO browser_login_sites (browser_login_id, client_id) VALUES (:id, :client_id) ON CONFLICT DO NOTHING
""")
DELETE_BROWSER_LOGIN: Final = Statement[Nothing]("DELETE FROM browser_logins WHERE id = :id")
sweep_browser_logins: Final = Sweep.of("browser_logins", key="id", by="authenticated_at")


async def lock_browser_user(
    transaction: Transaction, cookie_hash: bytes, *, client_id: str = "", proved_after: datetime
) -> BrowserUser | None:
    """Lock and return the user of a browser's login; None if there is no valid login, or if its user may not log in.

    `cookie_hash` is the hash of the login's cookie. `client_id` is the site for the result's `knows_site`.
    """
    cookie = {"cookie_hash": cookie_hash, "proved_after": proved_after}
    return await lock_with_user(
        transaction, _LOCK_BROWSER_USER, cookie, _LOCK_BROWSER_LOGIN, {**cookie, "client_id": client_id}
    )


async def store_proof(
    transaction: Transaction,
    proving_login: LockedLogin,
    user: UserInSession,
    *,
    login_id: UUID,
    browser_hash: bytes,
    cookie_hash: bytes,
    new_cookie_hash: bytes,
    proved_after: datetime,
) -> StoredBrowserLogin | None:
    """Renew the login of a locked user in this browser, or create a login with the id `login_id`.

    `proving_login`, which the caller has locked, proves who uses the browser. `new_cookie_hash` is the same whenever
    this proof is repeated. Return None if a proof is repeated after, for example, another user has logged in with the
    browser.
    """
    values = {
        "browser_hash": browser_hash,
        "new_cookie_hash": new_cookie_hash,
        "proof_id": proving_login.id,
        "app_id": user.app_id,
        "openid": user.openid,
        "authenticated_at": proving_login.authenticated_at,
        "authenticated_by": proving_login.authenticated_by,
    }
    stored = await transaction.row(
        _RENEW_BROWSER_LOGIN, **values, cookie_hash=cookie_hash, proved_after=proved_after, user_id=user.id
    )
    if stored is None:
        stored = await transaction.row(_ADD_BROWSER_LOGIN, **values, id=login_id)
    if stored is not None:
        await transaction.run(_ADD_SITE, id=stored.id, client_id=proving_login.client_id)
    return stored
