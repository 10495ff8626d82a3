"""The statements about pictures, and about their checks at WeChat."""

from dataclasses import dataclass
from typing import Final

from sqlmodel import SQLModel

from wxauth.server.core.statements import Statement
from wxauth.server.core.users import ORIGIN, USER_IN_SESSION, UserInSession


@dataclass(frozen=True, slots=True)
class Avatar:
    """A user's picture."""

    id: str
    """22 unguessable characters."""
    content_type: str
    content: bytes


REPLACE_AVATAR: Final = Statement[UserInSession](f"""
WITH person AS (
    UPDATE users SET avatar_url = :url, avatar_url_from = {ORIGIN} WHERE id = :user_id AND status = 'active'
    RETURNING {USER_IN_SESSION}
), stored AS (
    INSERT INTO avatars (id, user_id, content_type, content, created_at)
        SELECT :id, id, :content_type, :content, :now FROM person
    ON CONFLICT (user_id) DO UPDATE
       SET id = excluded.id, content_type = excluded.content_type, content = excluded.content,
           created_at = excluded.created_at
)
SELECT * FROM person
""")
"""Replace a user's picture. Returns the changed user; no row if the user is banned or erased."""
READ_AVATAR: Final = Statement[Avatar]("SELECT id, content_type, content FROM avatars WHERE id = :avatar_id")
"""The picture of this id; None if there is none."""


class TakenCheck(SQLModel):
    """A check that was asked for, and WeChat's answer, if it has given one."""

    suggest: str | None
    label: int | None
    is_shown: bool
    """Whether the picture is still that of the user."""


# Either half may be stored first: WeChat's message may arrive before its answer to the call is stored. Each statement
# returns what the other half has.
NOTE_ASKED: Final = Statement[str | None]("""
INSERT INTO picture_checks (app_id, trace_id, openid, avatar_id, at)
    SELECT app_id, :trace_id::text, openid, :avatar_id::text, :now::timestamptz FROM identities
     WHERE app_id = :app_id AND openid = :openid FOR KEY SHARE
ON CONFLICT (app_id, trace_id) DO UPDATE SET openid = excluded.openid, avatar_id = excluded.avatar_id
RETURNING suggest
""")
"""Remember what was asked. Returns the verdict: null if there is none; no row if the identity was just erased."""
NOTE_ANSWERED: Final = Statement[str | None]("""
INSERT INTO picture_checks (app_id, trace_id, suggest, label, at) VALUES (:app_id, :trace_id, :suggest, :label, :now)
ON CONFLICT (app_id, trace_id) DO UPDATE SET suggest = excluded.suggest, label = excluded.label
RETURNING openid
""")
"""Remember what WeChat answered. Returns whose picture it is, null if that is not known yet."""
TAKE_CHECK: Final = Statement[TakenCheck]("""
DELETE FROM picture_checks WHERE app_id = :app_id AND trace_id = :trace_id AND openid IS NOT NULL
RETURNING suggest, label, EXISTS (SELECT FROM avatars WHERE id = avatar_id AND user_id = :user_id) AS is_shown
""")
"""Delete a check of this user, who is locked, and return it; None if there is none, or none any longer."""
SWEEP_CHECKS: Final = Statement[str]("""
DELETE FROM picture_checks WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM picture_checks WHERE at < :before ORDER BY at LIMIT :size FOR UPDATE SKIP LOCKED))
RETURNING CASE WHEN openid IS NULL THEN '' ELSE app_id END AS unanswered_of
""")
"""Delete up to `size` checks that began before a time. Returns the app of each, or '' if nothing was asked."""
