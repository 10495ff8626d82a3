"""The statements for links that open the console, and for the sessions that these links open."""

from typing import Final
from uuid import UUID

from wxauth.core.statements import Nothing, Statement
from wxauth.core.users import IS_ADMINISTRATOR, MAY_LOG_IN, USER, UserInSession

# Two rows are enough to show that there are several administrators.
ADMINISTRATORS: Final = Statement[UUID](f"""
SELECT id FROM users WHERE {IS_ADMINISTRATOR} ORDER BY id LIMIT 2
""")
# In addition to storing a link, the statement deletes expired links.
STORE_LINK: Final = Statement[Nothing]("""
WITH expired AS (
    DELETE FROM admin_links WHERE expires_at <= :now
)
INSERT INTO admin_links (digest, user_id, expires_at) VALUES (:digest, :user_id, :expires_at)
""")
OPEN_SESSION_BY_LINK: Final = Statement[UserInSession](f"""
WITH link AS (
    -- A second request with the same link waits here for the first one, and then finds no link. The link is used up
    -- even if its user may not log in, or is no longer staff.
    DELETE FROM admin_links WHERE digest = :digest AND expires_at > :now RETURNING user_id
), link_user AS (
    -- The lock waits for a change of roles, which holds it while it ends the open sessions. Otherwise, this session
    -- could outlive the role.
    SELECT {USER} FROM users JOIN link ON users.id = link.user_id WHERE {MAY_LOG_IN} AND roles && :staff_roles::text[]
       FOR NO KEY UPDATE OF users
), identity AS (
    -- locked, so that the identity still belongs to the user when the session is stored
    SELECT i.app_id, i.openid, i.user_id FROM identities i JOIN link_user ON i.user_id = link_user.id
     ORDER BY i.created_at DESC, i.app_id, i.openid LIMIT 1 FOR SHARE OF i
), opened AS (
    INSERT INTO sessions (id, user_id, app_id, openid, ip, user_agent, created_at, last_used_at, expires_at,
                          client_id, scope)
    SELECT :session_id, user_id, app_id, openid, :ip::text::inet, :user_agent, :now, :now, :expires_at,
           :client_id, :scope
      FROM identity
)
SELECT link_user.*, identity.app_id, identity.openid
  FROM link_user JOIN identity ON identity.user_id = link_user.id
""")
