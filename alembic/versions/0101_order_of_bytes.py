"""Frees every text column and its indexes from the order that the operating system defines.

An index in the database's own collation misses rows as soon as that order changes: with another C library, or another
version of ICU. A person who is not found would become a new one.

Logins go on meanwhile. New indexes are built beside the old ones, and then each group of tables is switched to them in
one transaction of some milliseconds, which changes the catalog alone: neither rows nor large indexes are written.
"""

from sqlalchemy import text

from alembic import op

revision, down_revision, transactional = "0101", "0100", False

C = 'COLLATE "C"'
GROUPS = (
    ("identities", "phone_answers", "picture_checks", "browser_logins"),
    ("users", "avatars"),
    ("unionids", "former_external_ids"),
    ("sessions", "website_sessions"),
    ("events", "feed"),
    ("consents", "deliveries", "refusals"),
    ("clients", "site_logins", "scan_pictures", "browser_login_sites"),
    ("apps", "js_tickets", "webhooks", "sweeps", "signing_keys", "alembic_version"),
)
"""Tables that are switched together. Those of the last two are small: PostgreSQL rebuilds their indexes."""
REPLACED = {
    "avatars_pkey": f"UNIQUE avatars (id {C})",
    "browser_logins_app_id_openid_idx": f"browser_logins (app_id {C}, openid {C})",
    "deliveries_receiver_id_state_id_idx": f"deliveries (receiver_id, state {C}, id)",
    "events_type_id_idx": f"events (type {C}, id)",
    "feed_type_position_idx": f"feed (type {C}, position)",
    "former_external_ids_pkey": f"UNIQUE former_external_ids (external_id {C})",
    "identities_pkey": f"UNIQUE identities (app_id {C}, openid {C})",
    "phone_answers_app_id_openid_idx": f"phone_answers (app_id {C}, openid {C})",
    "picture_checks_app_id_openid_idx": f"picture_checks (app_id {C}, openid {C})",
    "picture_checks_pkey": f"UNIQUE picture_checks (app_id {C}, trace_id {C})",
    "refusals_code_id_idx": f"refusals (code {C}, id)",
    "refusals_request_id_idx": f"refusals (request_id {C})",
    "unionids_pkey": f"UNIQUE unionids (unionid {C})",
    "users_unionid_key": f"UNIQUE users (unionid {C})",
    "website_sessions_pkey": f"UNIQUE website_sessions (client_id {C}, session_id)",
}
"""Indexes of large tables, which get another of the same columns."""
MEANWHILE = {
    "events_actor_id_idx": f"events (actor {C}, id)",
    "identities_app_id_unionid_idx": f"UNIQUE identities (app_id {C}, unionid {C})",
    "users_external_id_idx": f"UNIQUE users (external_id {C})",
    "users_phone_idx": f"users (phone {C})",
}
"""What stands in for partial indexes without which logins or erasures would be slow, or a key be given twice.

PostgreSQL would build a partial index anew while it changes the type of a column: nobody could read meanwhile.
"""
PARTIAL = {
    "consents_present_idx": "consents (user_id, document) WHERE withdrawn_at IS NULL",
    "deliveries_pending_idx": "deliveries (receiver_id, priority, next_at) WHERE state = 'pending'",
    "events_actor_id_idx": "events (actor, id) WHERE ip IS NOT NULL",
    "events_actor_type_id_idx": "events (actor, type, id) WHERE (actor = user_id::text) IS NOT TRUE",
    "identities_app_id_unionid_idx": "UNIQUE identities (app_id, unionid) WHERE unionid IS NOT NULL",
    "refusals_app_id_id_idx": "refusals (app_id, id) WHERE app_id IS NOT NULL",
    "users_administrators_idx": "users (id) WHERE 'admin' = ANY (roles)",
    "users_erase_at_idx": "users (erase_at) WHERE erase_at IS NOT NULL AND status = 'active'",
    "users_external_id_idx": "UNIQUE users (external_id) WHERE external_id IS NOT NULL",
    "users_nickname_bigrams_idx": "users USING gin (nickname_bigrams(nickname)) WHERE nickname IS NOT NULL",
    "users_phone_idx": "users (phone) WHERE phone IS NOT NULL",
}
"""Partial indexes of large tables, which are dropped with the switch, and built after it."""
SWITCH = """
DO $switch$
DECLARE
    tables CONSTANT regclass[] := '{{{tables}}}';
    statements text[];
    statement text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = ANY (tables) AND attnum > 0 AND NOT attisdropped
                      AND attcollation NOT IN (0, '{collation}'::regcollation)) THEN
        RETURN;
    END IF;
    PERFORM set_config('lock_timeout', '300', true);
    FOR try IN REVERSE 20 .. 1 LOOP
        BEGIN
            LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE;
            WITH texts AS (
                SELECT attrelid, array_agg(attnum) AS numbers,
                       string_agg(format('ALTER %I TYPE %s COLLATE {collation}', attname,
                                         format_type(atttypid, atttypmod)), ', ')
                           FILTER (WHERE attgenerated = '') AS changes
                  FROM pg_attribute
                 WHERE attrelid = ANY (tables) AND attnum > 0 AND NOT attisdropped AND attcollation <> 0
                 GROUP BY attrelid
            ), kept AS (
                SELECT t.oid, conname, conrelid::regclass AS on_table, contype,
                       pg_get_constraintdef(t.oid) || CASE WHEN convalidated THEN '{not_valid}' ELSE '' END AS def
                  FROM pg_constraint t
                 WHERE contype IN ('c', 'f')
                   AND EXISTS (SELECT FROM texts WHERE attrelid = conrelid AND numbers && conkey
                                                    OR attrelid = confrelid AND numbers && confkey)
            ), beside AS (
                SELECT c.relname AS name, left(c.relname, -9) AS former, indrelid::regclass AS on_table, t.contype
                  FROM pg_index JOIN pg_class c ON c.oid = indexrelid
                       LEFT JOIN pg_constraint t ON conrelid = indrelid AND conname = left(c.relname, -9)
                 WHERE indrelid = ANY (tables) AND right(c.relname, 9) = '_by_bytes'
            ), steps (number, statement) AS (
                SELECT 1, format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass)
                  FROM pg_trigger WHERE tgrelid = ANY (tables) AND NOT tgisinternal
                UNION ALL
                SELECT 2, format('ALTER TABLE %s DROP CONSTRAINT %I', on_table, conname) FROM kept
                UNION ALL
                SELECT 3, format(CASE WHEN contype IS NULL THEN 'DROP INDEX %2$I'
                                      ELSE 'ALTER TABLE %s DROP CONSTRAINT %I' END, on_table, former) FROM beside
                UNION ALL
                SELECT 3, format('DROP INDEX %I', relname) FROM pg_index JOIN pg_class c ON c.oid = indexrelid
                 WHERE indrelid = ANY (tables) AND relname = ANY ('{{{partial}}}')
                UNION ALL
                SELECT 4, format('ALTER TABLE %s DROP COLUMN site', attrelid::regclass)
                  FROM pg_attribute WHERE attrelid = ANY (tables) AND attgenerated <> '' AND NOT attisdropped
                UNION ALL
                SELECT 5, format('ALTER TABLE %s %s', attrelid::regclass, changes) FROM texts
                UNION ALL
                SELECT 6, format('ALTER TABLE %s ADD site text COLLATE {collation} GENERATED ALWAYS AS (%s) STORED',
                                 attrelid::regclass, pg_get_expr(adbin, adrelid))
                  FROM pg_attribute JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
                 WHERE attrelid = ANY (tables) AND attgenerated <> '' AND NOT attisdropped
                UNION ALL
                SELECT 7, pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_attribute ON attrelid = indrelid
                 WHERE indrelid = ANY (tables) AND attgenerated <> '' AND NOT attisdropped AND attnum = ANY (indkey)
                UNION ALL
                SELECT 7, format(CASE contype
                                     WHEN 'p' THEN 'ALTER TABLE %s ADD CONSTRAINT %I PRIMARY KEY USING INDEX %I'
                                     WHEN 'u' THEN 'ALTER TABLE %s ADD CONSTRAINT %I UNIQUE USING INDEX %I'
                                     ELSE 'ALTER INDEX %3$I RENAME TO %2$I' END, on_table, former, name) FROM beside
                UNION ALL
                SELECT 8, format('ALTER TABLE %s ADD CONSTRAINT %I %s', on_table, conname, def) FROM kept
                UNION ALL
                SELECT 9, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = ANY (tables) AND NOT tgisinternal
            )
            SELECT array_agg(steps.statement ORDER BY number) INTO statements FROM steps;
            FOREACH statement IN ARRAY statements LOOP
                EXECUTE statement;
            END LOOP;
            -- A prepared statement whose columns have another collation is refused. Outside of a transaction it is
            -- prepared again; within one it fails. So this waits for a moment at which nobody within one waits for
            -- these tables, and ends idle connections, which would use it later.
            PERFORM pg_stat_clear_snapshot();
            IF try > 1 AND EXISTS (
                SELECT FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock' AND xact_start < query_start
                   AND pg_backend_pid() = ANY (pg_blocking_pids(pid))) THEN
                RAISE lock_not_available;
            END IF;
            PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE datname = current_database() AND usename = session_user AND state = 'idle'
                AND application_name = current_setting('application_name')
                AND query <> 'ROLLBACK' -- another 'wxauth migrate' that waits for its turn
                AND backend_start < clock_timestamp() - interval '1 second';
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            IF try = 1 THEN
                RAISE;
            END IF;
        END;
        PERFORM pg_sleep(0.2 + random() / 5);
    END LOOP;
END
$switch$
"""
VALIDATE = """
DO $validate$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format('ALTER TABLE %s VALIDATE CONSTRAINT %I', conrelid::regclass, conname)
          FROM pg_constraint WHERE conrelid = '{table}'::regclass AND NOT convalidated
    LOOP
        EXECUTE statement;
    END LOOP;
END
$validate$
"""
BIGRAMS = """
CREATE OR REPLACE FUNCTION nickname_bigrams(nickname text) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    folded text := {folded};
    bigrams text[] := '{{}}';
BEGIN
    FOR n IN 1 .. char_length(folded) - 1 LOOP
        bigrams := bigrams || substr(folded, n, 2);
    END LOOP;
    RETURN bigrams;
END
$$
"""
# Latin, Greek, Cyrillic, and the wide letters of Chinese keyboards: lower() folds them as the machine's locale does.
CAPITALS = "".join(
    letter
    for first, last in ("Àſ", "ΆΫ", "ЀЯ", "ＡＺ")
    for letter in map(chr, range(ord(first), ord(last) + 1))
    if letter != letter.lower() and len(letter.lower()) == 1
)
FOLDED = f"translate(lower(nickname {C}), '{CAPITALS}', '{CAPITALS.lower()}')"


def upgrade() -> None:
    """Build indexes, switch to them, and build anew those that cannot be there before; may be run again."""
    for suffix, indexes in (("by_bytes", REPLACED), ("meanwhile", MEANWHILE)):
        for name, definition in indexes.items():
            if not _is_switched(_table(definition)):
                _build(f"{name}_{suffix}", definition)
    _switch(C.removeprefix("COLLATE "), not_valid=" NOT VALID", partial=",".join(PARTIAL))
    op.execute(BIGRAMS.format(folded=FOLDED))
    for name, definition in PARTIAL.items():
        _build(name, definition)
    for name in MEANWHILE:
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}_meanwhile")
    for tables in GROUPS:
        for table in tables:
            op.execute(VALIDATE.format(table=table))
            # A column has lost its statistics. Those of an empty table would have it read whole when it grows.
            if _is("SELECT reltuples > 0 FROM pg_class WHERE oid = to_regclass(:name)", table):
                op.execute(f"ANALYZE {table}")


def downgrade() -> None:
    """Return to the database's own collation, while nobody can use a table whose indexes are built."""
    op.execute("DROP INDEX CONCURRENTLY IF EXISTS users_nickname_bigrams_idx")
    _switch('"default"', not_valid="", partial="")
    op.execute(BIGRAMS.format(folded="lower(nickname)"))
    _build("users_nickname_bigrams_idx", PARTIAL["users_nickname_bigrams_idx"])


def _switch(collation: str, *, not_valid: str, partial: str) -> None:
    for tables in GROUPS:
        words = {"tables": ", ".join(tables), "collation": collation, "not_valid": not_valid, "partial": partial}
        op.execute(SWITCH.format(**words))
        # Until connections made meanwhile may be ended, too.
        op.execute("SELECT pg_sleep(1.1) WHERE EXISTS (SELECT FROM sessions)")


def _build(name: str, definition: str) -> None:
    """Build an index, unless a former try has."""
    if not _is("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)", name):
        unique, _, on = definition.rpartition("UNIQUE ")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute(f"CREATE {unique or _}INDEX CONCURRENTLY {name} ON {on}")


def _table(definition: str) -> str:
    return definition.removeprefix("UNIQUE ").partition(" ")[0]


def _is_switched(table: str) -> bool:
    """Whether no column of the table has the database's own collation."""
    query = """
        SELECT NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass(:name) AND attnum > 0
                              AND NOT attisdropped AND attcollation = '"default"'::regcollation)
    """
    return _is(query, table)


def _is(query: str, name: str) -> bool:
    return not op.get_context().as_sql and bool(op.get_bind().execute(text(query), {"name": name}).scalar())
