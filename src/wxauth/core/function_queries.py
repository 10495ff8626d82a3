"""The statement that gives wxauth's functions their own search_path."""

from typing import Final

from wxauth.core.rights_queries import VERSION_TABLE
from wxauth.core.statements import Statement

# A writer whose search_path lacks the schema, such as pg_restore, would otherwise not find the tables in a trigger. A
# function that names no table gets none, because a search_path costs 1 to 3 µs for each call, and a returning login
# calls only such a function. PostgreSQL looks in pg_temp first unless the search_path contains it.
SEARCH_PATHS: Final = Statement[str](rf"""
SELECT format('ALTER FUNCTION %s SET search_path = %I, pg_temp', p.oid::regprocedure, nspname)
  FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace,
       regexp_replace(regexp_replace(prosrc, '--[^\n]*', '', 'g'), '''[^'']*''', '', 'g') code
 WHERE n.oid = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('{VERSION_TABLE}'))
   AND proname = ANY (:functions::text[]) AND pg_has_role(proowner, 'USAGE')
   AND NOT EXISTS (SELECT FROM unnest(proconfig) setting WHERE starts_with(setting, 'search_path='))
   AND code ~ ('\m(' || array_to_string(:tables::text[], '|') || ')\M')
 ORDER BY 1
""")
