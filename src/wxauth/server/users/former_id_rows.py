"""The statements about former ids: those of users who were merged into another one."""

from typing import Final
from uuid import UUID

from wxauth.server.core.statements import Statement

# The user of a present or former id.
CURRENT_USER: Final = Statement[UUID]("""
SELECT id FROM users WHERE id = :user_id
 UNION ALL
SELECT user_id FROM former_users WHERE id = :user_id
 LIMIT 1
""")
"""The user of a present or former id; None if there is none."""
REMAINING_USER: Final = Statement[UUID]("SELECT user_id FROM former_users WHERE id = :former_id")
"""The user into which this one was merged; None if this id was never merged."""
FORMER_EXTERNAL_IDS: Final = Statement[str](
    "SELECT external_id FROM former_external_ids WHERE user_id = :user_id ORDER BY external_id"
)
"""The external ids of users who were merged into this one because of WeChat's unionid."""
FORMER_IDS: Final = Statement[UUID]("SELECT id FROM former_users WHERE user_id = :user_id ORDER BY merged_at, id")
"""The ids that were merged into this user, the first merge first."""
