"""Reads a database's schema, so that tests can compare it."""

from tests.world import Rows

# Everything that the catalog stores about our tables, except the order of columns, because later revisions add columns
# at the end.
SCHEMA = {
    "tables": """
        SELECT relname, relkind, relpersistence, reloptions FROM pg_class WHERE relnamespace = 'public'::regnamespace
    """,
    "columns": """
        SELECT relname, attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated,
               attcollation::regcollation, attstorage, attcompression, attoptions, pg_get_expr(adbin, adrelid)
          FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
               LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
         WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
    """,
    "constraints": """
        SELECT relname, conname, condeferrable, convalidated, pg_get_constraintdef(t.oid)
          FROM pg_constraint t JOIN pg_class c ON c.oid = conrelid WHERE relnamespace = 'public'::regnamespace
    """,
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "functions": """
        SELECT proname, regexp_replace(prosrc, '[[:space:]]+', ' ', 'g')
          FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    """,
    "triggers": "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    "types": "SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace",
}


async def schema_of(rows: Rows) -> dict[str, list[str]]:
    found = {kind: map(repr, await rows.fetch(query)) for kind, query in SCHEMA.items()}
    return {kind: sorted(row for row in rows if "alembic_version" not in row) for kind, rows in found.items()}
