"""The settings of wxauth's role, because a pooler doesn't keep those of a connection."""

from collections.abc import Sequence
from typing import Final

from wxauth.core.connecting import DEADLINES
from wxauth.core.database import Database
from wxauth.core.statements import Statement

_SETTINGS: Final = {
    **{name: f"{milliseconds / 1000:g}s" for name, milliseconds in DEADLINES.server_limits.items()},
    "jit": "off",
}
_MISSING: Final = Statement[str]("""
SELECT format('ALTER ROLE %I %sSET %s = %L', rolname,
              -- a superuser may also manage other programs' databases
              CASE WHEN rolsuper THEN format('IN DATABASE %I ', datname) ELSE '' END, name, value)
  FROM unnest(:names::text[], :values::text[]) WITH ORDINALITY AS wanted (name, value, place)
       JOIN pg_settings USING (name), pg_roles, pg_database
 WHERE rolname = session_user AND datname = current_database()
   -- What the operator has set stays, whether for the role, the database or the server. A connection of the pooler can
   -- be older than the settings of its role, so the settings are read from the catalog.
   AND reset_val = boot_val
   AND NOT EXISTS (SELECT FROM pg_db_role_setting, unnest(setconfig) entry
                    WHERE setrole IN (0, pg_roles.oid) AND setdatabase IN (0, pg_database.oid)
                      AND starts_with(entry, name || '='))
 ORDER BY place
""")


async def statements_for_role(database: Database) -> Sequence[str]:
    """Return the statements that set what the role lacks. There are none if no pooler is in front of the database."""
    if not database.is_pooled:
        return ()
    return await database.values(_MISSING, names=list(_SETTINGS), values=list(_SETTINGS.values()))
