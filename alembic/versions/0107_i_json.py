"""The conversion of stored attributes and claims to I-JSON (RFC 7493).

A number that a double doesn't hold becomes text with the same digits. A noncharacter such as U+FFFF becomes U+FFFD.
"""

from alembic import op

revision, down_revision, transactional = "0107", "0106", False

NONCHARACTERS = "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF)) + "\ufdd0-\ufdef"
# A number of at most 15 digits is exact.
MAY_BE_WRONG = f"[0-9.]{{16}}|[{NONCHARACTERS}]"

FUNCTION = f"""
    CREATE OR REPLACE FUNCTION i_json_of(value jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE
    -- Otherwise, a database could print doubles with fewer digits than they have.
    SET extra_float_digits = 1 AS $$
    BEGIN
        CASE jsonb_typeof(value)
        WHEN 'object' THEN
            RETURN (SELECT COALESCE(jsonb_object_agg(i_json_of(to_jsonb(key)) #>> '{{}}', i_json_of(member)), '{{}}')
                      FROM jsonb_each(value) AS members (key, member));
        WHEN 'array' THEN
            RETURN (SELECT COALESCE(jsonb_agg(i_json_of(item) ORDER BY place), '[]')
                      FROM jsonb_array_elements(value) WITH ORDINALITY AS items (item, place));
        WHEN 'string' THEN
            RETURN to_jsonb(regexp_replace(value #>> '{{}}', '[{NONCHARACTERS}]', '\ufffd', 'g'));
        WHEN 'number' THEN
            RETURN CASE
                WHEN value::numeric = 0 THEN value
                -- The cast to double precision would fail.
                WHEN abs(value::numeric) NOT BETWEEN 5e-324 AND 1.7976931348623157e308 THEN to_jsonb(value #>> '{{}}')
                WHEN value::numeric = value::numeric::double precision::text::numeric THEN value
                ELSE to_jsonb(value #>> '{{}}')
            END;
        ELSE
            RETURN value;
        END CASE;
    END $$
"""
# Each batch is a transaction, so that logins of the users in a batch wait only briefly.
USERS = f"""
    DO $$
    DECLARE
        begin_after uuid := '00000000-0000-0000-0000-000000000000';
        last_id uuid;
    BEGIN
        LOOP
            SELECT id INTO last_id FROM (
                SELECT id FROM users WHERE id > begin_after ORDER BY id LIMIT 5000) AS page ORDER BY id DESC LIMIT 1;
            EXIT WHEN last_id IS NULL;
            UPDATE users SET attributes = i_json_of(attributes)
             WHERE id > begin_after AND id <= last_id AND attributes::text ~ '{MAY_BE_WRONG}'
               AND i_json_of(attributes) <> attributes;
            COMMIT;
            begin_after := last_id;
        END LOOP;
    END $$
"""


def upgrade() -> None:
    """Convert the attributes of users, and the claims of apps and clients."""
    op.execute(FUNCTION)
    op.execute(USERS)
    op.execute("""
        UPDATE apps SET fields = jsonb_set(fields, '{claims}', i_json_of(fields -> 'claims'))
         WHERE fields ? 'claims' AND i_json_of(fields -> 'claims') <> fields -> 'claims'
    """)
    op.execute("UPDATE clients SET claims = i_json_of(claims) WHERE i_json_of(claims) <> claims")
    op.execute("""
        -- squawk-ignore ban-drop-function
        DROP FUNCTION i_json_of(jsonb)
    """)


def downgrade() -> None:
    """Keep the texts, because it isn't known which of them were numbers."""
