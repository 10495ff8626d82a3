"""The schema of the first release.

Each column of text is ordered by its bytes. An index in the database's own collation misses rows as soon as that order
changes, for example with another C library, or another version of ICU. A user who is not found would become a new user.

This revision replaces the revisions from before the first release. The schema of the last four of them
(`wxauth.core.revisions.REPLACED`) lacks at most what `AFTER_REPLACED` adds.
"""

from alembic import op

revision = "0113"
down_revision = None

# The capital letters outside ASCII that a search for nicknames folds: Latin, Greek, Cyrillic, and the full-width
# letters of Chinese keyboards. PostgreSQL's own lower() folds them only in some locales.
CAPITALS = "".join(
    letter
    for first, last in ("Àſ", "ΆΫ", "ЀЯ", "ＡＺ")
    for letter in map(chr, range(ord(first), ord(last) + 1))
    if letter != letter.lower() and len(letter.lower()) == 1
)

AFTER_REPLACED = (
    """
    CREATE TABLE IF NOT EXISTS issuers (
        issuer TEXT COLLATE "C" NOT NULL,
        used_at TIMESTAMP WITH TIME ZONE NOT NULL,
        CONSTRAINT issuers_pkey PRIMARY KEY (issuer)
    )
    """,
    "ALTER TABLE site_logins ADD COLUMN IF NOT EXISTS requested_ip INET",
    """
    ALTER TABLE clients
        ADD COLUMN IF NOT EXISTS omit_email_verified BOOLEAN DEFAULT false NOT NULL,
        ADD COLUMN IF NOT EXISTS i_verify_this_address BOOLEAN DEFAULT false NOT NULL,
        ADD COLUMN IF NOT EXISTS id_token_ttl BIGINT
    """,
    "ALTER TABLE signing_keys ADD COLUMN IF NOT EXISTS id_token_ttl BIGINT DEFAULT 0 NOT NULL",
    "ALTER TABLE alembic_version DROP COLUMN IF EXISTS digest",
    f"UPDATE alembic_version SET version_num = '{revision}'",
)


def upgrade() -> None:
    """Create all tables, with their indexes, functions and triggers."""
    op.execute('ALTER TABLE alembic_version ALTER version_num TYPE VARCHAR(32) COLLATE "C"')
    op.execute("""
        CREATE TABLE events (
            id UUID NOT NULL,
            type TEXT COLLATE "C" NOT NULL,
            at TIMESTAMP WITH TIME ZONE NOT NULL,
            user_id UUID,
            app_id TEXT COLLATE "C",
            actor TEXT COLLATE "C" NOT NULL,
            data JSONB DEFAULT '{}' NOT NULL,
            ip INET,
            CONSTRAINT events_pkey PRIMARY KEY (id),
            CONSTRAINT events_type_check CHECK (type ~ '^[a-z][a-z_.]{0,63}$'),
            CONSTRAINT events_actor_check CHECK (actor <> ''),
            CONSTRAINT events_data_check CHECK (jsonb_typeof(data) = 'object')
        )
    """)
    op.execute("CREATE INDEX events_actor_id_idx ON events (actor, id) WHERE ip IS NOT NULL")
    # This index finds the events that an actor caused and that are not about the actor. Most events are caused by users
    # and are about themselves, so the index on `user_id` finds them.
    op.execute(
        "CREATE INDEX events_actor_type_id_idx ON events (actor, type, id) WHERE (actor = user_id::text) IS NOT TRUE"
    )
    op.execute("CREATE INDEX events_type_id_idx ON events (type, id)")
    op.execute("CREATE INDEX events_user_id_id_idx ON events (user_id, id)")
    # This trigger refuses changes and deletions of events, except to remove an erased user's data, to truncate old
    # addresses, and to delete old events.
    op.execute("""
        CREATE FUNCTION events_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'UPDATE' AND NEW.ip IS NULL AND NEW.data IN ('{}', OLD.data)
               AND (NEW.id, NEW.type, NEW.at, NEW.actor, NEW.user_id, NEW.app_id)
                   IS NOT DISTINCT FROM (OLD.id, OLD.type, OLD.at, OLD.actor, OLD.user_id, OLD.app_id) THEN
                RETURN NEW;
            END IF;
            RAISE EXCEPTION 'events are append-only';
        END
        $$
    """)
    op.execute("""
        CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON events
            FOR EACH ROW WHEN (current_setting('wxauth.sweeping', true) IS DISTINCT FROM 'on')
            EXECUTE FUNCTION events_are_append_only()
    """)
    # Each event about a user sorts after the user's newest event, by id and by time. The transaction that records the
    # event has locked the user, so this is the order of the commits, even if the clocks of two replicas differ, or a
    # clock is set back. An id (UUIDv7) begins with 48 bits of milliseconds. If the new id or time is too early, the
    # trigger sets the id, and if necessary the time, to the millisecond after the newest event.
    #
    # A plan made while the table was small, or analyzed while it contained one user, would read the whole table for
    # each event, so that 30,000 events took over two minutes. Therefore the function forbids sequential scans, and
    # compares rows, for which only the index on both columns fits. With `user_id = …`, the planner would drop any order
    # by the user, and might read the primary key backwards.
    op.execute("""
        CREATE FUNCTION put_after_newest() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
        DECLARE
            newest record;
            milliseconds bigint;
        BEGIN
            SELECT id, at INTO newest FROM events
             WHERE (user_id, id) >= (NEW.user_id, '00000000-0000-0000-0000-000000000000')
               AND (user_id, id) <= (NEW.user_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
             ORDER BY user_id DESC, id DESC LIMIT 1;
            IF newest.id >= NEW.id OR newest.at > NEW.at THEN
                milliseconds := ('x' || left(replace(newest.id::text, '-', ''), 12))::bit(48)::bigint + 1;
                NEW.id := (lpad(to_hex(milliseconds), 12, '0') || right(replace(NEW.id::text, '-', ''), 20))::uuid;
                NEW.at := greatest(NEW.at, newest.at + interval '1 millisecond');
            END IF;
            RETURN NEW;
        END
        $$
    """)
    op.execute("""
        CREATE TRIGGER events_put_after_newest BEFORE INSERT ON events
            FOR EACH ROW EXECUTE FUNCTION put_after_newest()
    """)
    # Other services read the feed, which numbers the events about users. A new event waits in `events_unplaced` for its
    # number. With a trigger, no statement that records an event can omit the feed. The trigger selects events by the
    # beginning of their types, so that a new type needs no revision. The export of a user only reads data, so it is not
    # in the feed. The condition is not a WHEN, because PostgreSQL would parse the stored form of a WHEN for each
    # statement, which made a first login 4 % slower.
    op.execute("""
        CREATE FUNCTION mark_unplaced() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF split_part(NEW.type, '.', 1) IN ('user', 'identity', 'consent', 'session')
               AND NEW.type <> 'user.exported' THEN
                INSERT INTO events_unplaced (event_id) VALUES (NEW.id);
            END IF;
            RETURN NULL;
        END
        $$
    """)
    op.execute("""
        CREATE TRIGGER events_mark_unplaced AFTER INSERT ON events
            FOR EACH ROW EXECUTE FUNCTION mark_unplaced()
    """)
    # With a trigger, the statement that deletes old events need not delete their rows in the feed. `feed_swept` has one
    # row, with the last place that was deleted. A reader that has not got that far learns that it has missed events.
    op.execute("""
        CREATE FUNCTION delete_places() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM events_unplaced USING gone WHERE event_id = gone.id;
            WITH swept AS (
                DELETE FROM feed USING gone WHERE event_id = gone.id RETURNING position, event_id
            )
            INSERT INTO feed_swept (position, event_id)
            SELECT position, event_id FROM swept ORDER BY position DESC LIMIT 1
            ON CONFLICT (is_only) DO UPDATE SET position = excluded.position, event_id = excluded.event_id
             WHERE feed_swept.position < excluded.position;
            RETURN NULL;
        END
        $$
    """)
    op.execute("""
        CREATE TRIGGER events_delete_places AFTER DELETE ON events REFERENCING OLD TABLE AS gone
            FOR EACH STATEMENT EXECUTE FUNCTION delete_places()
    """)
    op.execute("""
        CREATE TABLE apps (
            app_id TEXT COLLATE "C" NOT NULL,
            is_enabled BOOLEAN DEFAULT true NOT NULL,
            created_at TIMESTAMP WITH TIME ZONE NOT NULL,
            fields JSONB NOT NULL,
            secrets BYTEA NOT NULL,
            CONSTRAINT apps_pkey PRIMARY KEY (app_id),
            CONSTRAINT apps_app_id_check CHECK (app_id ~ '^[A-Za-z0-9_-]{1,64}$'),
            CONSTRAINT apps_fields_check CHECK (jsonb_typeof(fields) = 'object')
        )
    """)
    # The constraints have these reasons. With a secret, a public client would be accepted where only confidential
    # clients are. A public client cannot prove its name, so an attacker could start a device's scan in its name, and
    # the phone would show the wrong site. Without PKCE and without a secret, an attacker who intercepts a code could
    # redeem it. A service, which has no title, has only scopes of services, and a site has at least one other scope.
    op.execute("""
        CREATE TABLE clients (
            name TEXT COLLATE "C" NOT NULL,
            title TEXT COLLATE "C",
            logo TEXT COLLATE "C",
            scopes TEXT[] COLLATE "C" DEFAULT '{introspect,access_token}' NOT NULL,
            is_public BOOLEAN DEFAULT false NOT NULL,
            device BOOLEAN DEFAULT false NOT NULL,
            redirect_uris TEXT[] COLLATE "C" DEFAULT '{}' NOT NULL,
            logout_uris TEXT[] COLLATE "C" DEFAULT '{}' NOT NULL,
            app_id TEXT COLLATE "C",
            account_app_id TEXT COLLATE "C",
            website_app_id TEXT COLLATE "C",
            backchannel_logout_uri TEXT COLLATE "C",
            near BOOLEAN DEFAULT false NOT NULL,
            user_code BOOLEAN DEFAULT false NOT NULL,
            email_domain TEXT COLLATE "C",
            link BOOLEAN DEFAULT false NOT NULL,
            sso BOOLEAN DEFAULT false NOT NULL,
            phone_id_token BOOLEAN DEFAULT false NOT NULL,
            pkce TEXT COLLATE "C" DEFAULT 'required' NOT NULL,
            id_token_alg TEXT COLLATE "C",
            resources TEXT[] COLLATE "C" DEFAULT '{}' NOT NULL,
            claims JSONB,
            created_at TIMESTAMP WITH TIME ZONE NOT NULL,
            former_secret_until TIMESTAMP WITH TIME ZONE,
            secret_hash BYTEA,
            former_secret_hash BYTEA,
            removed_by TEXT COLLATE "C",
            id UUID DEFAULT gen_random_uuid() NOT NULL,
            omit_email_verified BOOLEAN DEFAULT false NOT NULL,
            i_verify_this_address BOOLEAN DEFAULT false NOT NULL,
            id_token_ttl BIGINT,
            CONSTRAINT clients_pkey PRIMARY KEY (name),
            CONSTRAINT clients_id_key UNIQUE (id),
            CONSTRAINT clients_name_check CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
            CONSTRAINT clients_secret_hash_check CHECK ((secret_hash IS NULL) = is_public AND
                octet_length(secret_hash) = 32),
            CONSTRAINT clients_former_secret_check CHECK ((former_secret_hash IS NULL) = (former_secret_until IS
                NULL) AND octet_length(former_secret_hash) = 32),
            CONSTRAINT clients_title_check CHECK (char_length(title) BETWEEN 1 AND 64),
            CONSTRAINT clients_grant_check CHECK ((title IS NOT NULL) = (device OR cardinality(redirect_uris) > 0
                OR phone_id_token)),
            CONSTRAINT clients_scopes_check CHECK ((scopes <@
                '{introspect,access_token,users,phones,unionids,events,attributes,sign,moderate,js_sign}') = (title IS
                NULL)),
            CONSTRAINT clients_is_public_check CHECK (NOT (is_public AND device)),
            CONSTRAINT clients_id_token_alg_check CHECK ((id_token_alg IS NULL) = (title IS NULL) AND
                id_token_alg IN ('RS256', 'ES256')),
            CONSTRAINT clients_service_check CHECK (title IS NOT NULL OR NOT (is_public OR near OR user_code)
                AND cardinality(logout_uris) = 0 AND num_nonnulls(app_id, account_app_id, website_app_id,
                email_domain) = 0),
            CONSTRAINT clients_sso_check CHECK (NOT sso OR (cardinality(redirect_uris) > 0 AND NOT near)),
            CONSTRAINT clients_link_check CHECK (NOT link OR (cardinality(redirect_uris) > 0 AND NOT near)),
            CONSTRAINT clients_phone_id_token_check CHECK (NOT phone_id_token OR ('openid' = ANY (scopes) AND NOT
                near)),
            CONSTRAINT clients_pkce_check CHECK (pkce = 'required' OR (pkce = 'optional' AND title IS NOT NULL AND
                NOT is_public))
        )
    """)
    op.execute("""
        CREATE TABLE js_tickets (
            app_id TEXT COLLATE "C" NOT NULL,
            ticket BYTEA,
            ends_at TIMESTAMP WITH TIME ZONE NOT NULL,
            renews_at TIMESTAMP WITH TIME ZONE NOT NULL,
            leased_until TIMESTAMP WITH TIME ZONE NOT NULL,
            CONSTRAINT js_tickets_pkey PRIMARY KEY (app_id)
        )
    """)
    op.execute("""
        CREATE TABLE consents (
            id UUID NOT NULL,
            user_id UUID NOT NULL,
            document TEXT COLLATE "C" NOT NULL,
            version TEXT COLLATE "C" NOT NULL,
            given_at TIMESTAMP WITH TIME ZONE NOT NULL,
            withdrawn_at TIMESTAMP WITH TIME ZONE,
            app_id TEXT COLLATE "C",
            ip INET,
            CONSTRAINT consents_pkey PRIMARY KEY (id),
            CONSTRAINT consents_document_check CHECK (document <> ''),
            CONSTRAINT consents_version_check CHECK (version <> '')
        )
    """)
    # PostgreSQL assumes five consents for each user. Otherwise, if it analyzed the table while the table contained one
    # user, a join would read the whole table.
    op.execute("ALTER TABLE consents ALTER COLUMN user_id SET (n_distinct = -0.2)")
    # Without the withdrawn consents, the index stays small.
    op.execute("CREATE INDEX consents_present_idx ON consents (user_id, document) WHERE withdrawn_at IS NULL")
    op.execute("CREATE INDEX consents_user_id_given_at_id_idx ON consents (user_id, given_at, id)")
    # The number only orders the events. It is no key, because a tool that set the sequence back would make logins
    # violate that key.
    op.execute("""
        CREATE TABLE events_unplaced (
            number BIGINT GENERATED ALWAYS AS IDENTITY (CYCLE),
            event_id UUID NOT NULL,
            CONSTRAINT events_unplaced_pkey PRIMARY KEY (event_id)
        )
    """)
    op.execute("""
        CREATE TABLE feed (
            position BIGINT GENERATED ALWAYS AS IDENTITY,
            event_id UUID NOT NULL,
            type TEXT COLLATE "C" NOT NULL,
            CONSTRAINT feed_pkey PRIMARY KEY (position),
            CONSTRAINT feed_event_id_key UNIQUE (event_id)
        )
    """)
    op.execute("CREATE INDEX feed_type_position_idx ON feed (type, position)")
    op.execute("""
        CREATE TABLE feed_swept (
            is_only BOOLEAN DEFAULT true NOT NULL,
            position BIGINT NOT NULL,
            event_id UUID NOT NULL,
            CONSTRAINT feed_swept_pkey PRIMARY KEY (is_only),
            CONSTRAINT feed_swept_is_only_check CHECK (is_only)
        )
    """)
    op.execute("""
        CREATE TABLE webhooks (
            name TEXT COLLATE "C" NOT NULL,
            url TEXT COLLATE "C" NOT NULL,
            types TEXT[] COLLATE "C" DEFAULT '{}' NOT NULL,
            is_enabled BOOLEAN DEFAULT true NOT NULL,
            created_at TIMESTAMP WITH TIME ZONE NOT NULL,
            id UUID NOT NULL,
            secret BYTEA NOT NULL,
            former_secret BYTEA,
            former_secret_until TIMESTAMP WITH TIME ZONE,
            delivered_at TIMESTAMP WITH TIME ZONE,
            CONSTRAINT webhooks_pkey PRIMARY KEY (id),
            CONSTRAINT webhooks_name_key UNIQUE (name),
            CONSTRAINT webhooks_name_check CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
            CONSTRAINT webhooks_former_secret_check CHECK ((former_secret IS NULL) = (former_secret_until IS NULL))
        )
    """)
    op.execute("""
        CREATE TABLE deliveries (
            id UUID NOT NULL,
            event_id UUID NOT NULL,
            type TEXT COLLATE "C" NOT NULL,
            state TEXT COLLATE "C" DEFAULT 'pending' NOT NULL,
            attempts INTEGER DEFAULT 0 NOT NULL,
            status INTEGER,
            error TEXT COLLATE "C",
            next_at TIMESTAMP WITH TIME ZONE,
            at TIMESTAMP WITH TIME ZONE NOT NULL,
            receiver_id UUID NOT NULL,
            user_id UUID,
            is_leased BOOLEAN DEFAULT false NOT NULL,
            priority SMALLINT DEFAULT 3 NOT NULL,
            CONSTRAINT deliveries_pkey PRIMARY KEY (receiver_id, event_id),
            CONSTRAINT deliveries_state_check CHECK (state IN ('pending', 'delivered', 'failed')),
            CONSTRAINT deliveries_next_at_check CHECK ((state = 'pending') = (next_at IS NOT NULL)),
            CONSTRAINT deliveries_is_leased_check CHECK (state = 'pending' OR NOT is_leased)
        )
         WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02)
    """)
    op.execute("""
        CREATE INDEX deliveries_pending_idx ON deliveries (receiver_id, priority, next_at) WHERE state = 'pending'
    """)
    op.execute("""
        CREATE INDEX deliveries_first_tries_idx ON deliveries (receiver_id, user_id, event_id)
         WHERE attempts = 0 OR attempts = 1 AND is_leased
    """)
    op.execute("CREATE INDEX deliveries_receiver_id_state_id_idx ON deliveries (receiver_id, state, id)")
    op.execute("""
        CREATE TABLE sweeps (
            name TEXT COLLATE "C" NOT NULL,
            after UUID NOT NULL,
            due_at TIMESTAMP WITH TIME ZONE NOT NULL,
            CONSTRAINT sweeps_pkey PRIMARY KEY (name)
        )
    """)
    op.execute("""
        CREATE TABLE signing_keys (
            id UUID NOT NULL,
            alg TEXT COLLATE "C" NOT NULL,
            kid TEXT COLLATE "C" NOT NULL,
            public_jwk JSONB NOT NULL,
            private_key BYTEA NOT NULL,
            created_at TIMESTAMP WITH TIME ZONE NOT NULL,
            activates_at TIMESTAMP WITH TIME ZONE NOT NULL,
            retires_at TIMESTAMP WITH TIME ZONE,
            id_token_ttl BIGINT DEFAULT 0 NOT NULL,
            CONSTRAINT signing_keys_pkey PRIMARY KEY (id),
            CONSTRAINT signing_keys_kid_key UNIQUE (kid),
            CONSTRAINT signing_keys_alg_check CHECK (alg IN ('ES256', 'RS256')),
            CONSTRAINT signing_keys_retires_at_check CHECK (retires_at > activates_at)
        )
    """)
    # The URLs under which the service has issued tokens. With them, `wxauth check` notices a move to another domain.
    op.execute("""
        CREATE TABLE issuers (
            issuer TEXT COLLATE "C" NOT NULL,
            used_at TIMESTAMP WITH TIME ZONE NOT NULL,
            CONSTRAINT issuers_pkey PRIMARY KEY (issuer)
        )
    """)
    op.execute("""
        CREATE TABLE attempts (
            key BYTEA NOT NULL,
            since TIMESTAMP WITH TIME ZONE NOT NULL,
            number INTEGER NOT NULL,
            CONSTRAINT attempts_pkey PRIMARY KEY (key),
            CONSTRAINT attempts_key_check CHECK (octet_length(key) = 32),
            CONSTRAINT attempts_number_check CHECK (number >= 0)
        )
    """)
    op.execute("CREATE INDEX attempts_since_idx ON attempts (since)")
    op.execute("""
        CREATE TABLE hourly_numbers (
            hour TIMESTAMP WITH TIME ZONE NOT NULL,
            process UUID NOT NULL,
            new_users BIGINT NOT NULL,
            logins BIGINT NOT NULL,
            CONSTRAINT hourly_numbers_pkey PRIMARY KEY (hour, process),
            CONSTRAINT hourly_numbers_numbers_check CHECK (new_users >= 0 AND logins >= 0)
        )
    """)
    op.execute("""
        CREATE TABLE push_messages (
            digest BYTEA NOT NULL,
            content BYTEA,
            kept_until TIMESTAMP WITH TIME ZONE NOT NULL,
            CONSTRAINT push_messages_pkey PRIMARY KEY (digest),
            CONSTRAINT push_messages_digest_check CHECK (octet_length(digest) = 32),
            CONSTRAINT push_messages_content_check CHECK (octet_length(content) = 32)
        )
    """)
    op.execute("CREATE INDEX push_messages_kept_until_idx ON push_messages (kept_until)")
    op.execute("""
        CREATE TABLE refusals (
            id UUID NOT NULL,
            at TIMESTAMP WITH TIME ZONE NOT NULL,
            code TEXT COLLATE "C" NOT NULL,
            wechat_errcode INTEGER,
            app_id TEXT COLLATE "C",
            user_id UUID,
            network CIDR,
            request_id TEXT COLLATE "C" NOT NULL,
            count INTEGER DEFAULT 1 NOT NULL,
            CONSTRAINT refusals_pkey PRIMARY KEY (id)
        )
    """)
    op.execute("CREATE INDEX refusals_app_id_id_idx ON refusals (app_id, id) WHERE app_id IS NOT NULL")
    op.execute("CREATE INDEX refusals_code_id_idx ON refusals (code, id)")
    op.execute("CREATE INDEX refusals_network_id_idx ON refusals (network, id) WHERE network IS NOT NULL")
    op.execute("CREATE INDEX refusals_request_id_idx ON refusals (request_id)")
    op.execute("CREATE INDEX refusals_user_id_id_idx ON refusals (user_id, id) WHERE user_id IS NOT NULL")
    # A login updates the user's row. The new version of the row stays in the same page (HOT), because each page has
    # free space, and the columns that a login changes are in no index.
    op.execute("""
        CREATE TABLE users (
            id UUID NOT NULL,
            unionid TEXT COLLATE "C",
            nickname TEXT COLLATE "C",
            avatar_url TEXT COLLATE "C",
            phone TEXT COLLATE "C",
            roles TEXT[] COLLATE "C" DEFAULT '{}' NOT NULL,
            status TEXT COLLATE "C" DEFAULT 'active' NOT NULL,
            created_at TIMESTAMP WITH TIME ZONE NOT NULL,
            last_login_at TIMESTAMP WITH TIME ZONE,
            external_id VARCHAR(128) COLLATE "C",
            phone_verified_at TIMESTAMP WITH TIME ZONE,
            consents JSONB,
            attributes JSONB,
            erase_at TIMESTAMP WITH TIME ZONE,
            ban_reason TEXT COLLATE "C",
            banned_until TIMESTAMP WITH TIME ZONE,
            identity_lost_at TIMESTAMP WITH TIME ZONE,
            last_refresh_at TIMESTAMP WITH TIME ZONE,
            CONSTRAINT users_pkey PRIMARY KEY (id),
            CONSTRAINT users_unionid_key UNIQUE (unionid)
        )
         WITH (fillfactor = 85)
    """)
    op.execute("CREATE INDEX users_administrators_idx ON users (id) WHERE 'admin' = ANY (roles)")
    op.execute("CREATE INDEX users_banned_until_idx ON users (banned_until) WHERE banned_until IS NOT NULL")
    op.execute("CREATE INDEX users_erase_at_idx ON users (erase_at) WHERE erase_at IS NOT NULL AND status = 'active'")
    op.execute("CREATE UNIQUE INDEX users_external_id_idx ON users (external_id) WHERE external_id IS NOT NULL")
    op.execute("CREATE INDEX users_phone_idx ON users (phone) WHERE phone IS NOT NULL")
    # A trigger replaces CHECK constraints. PostgreSQL prepares every constraint again for each statement that writes a
    # row, which was a fifth of a login's cost in PostgreSQL. An update runs the trigger only if the update sets one of
    # the trigger's columns. The first comparison accepts most new users, so that PostgreSQL does not prepare the
    # others.
    op.execute(r"""
        CREATE FUNCTION check_user() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            broken text;
        BEGIN
            -- Most newcomers. PostgreSQL then need not prepare the rest.
            IF NEW.status = 'active' AND NEW.roles = '{}' AND (NEW.unionid = '') IS NOT TRUE
               AND num_nonnulls(NEW.nickname, NEW.avatar_url, NEW.phone, NEW.ban_reason, NEW.banned_until) = 0 THEN
                RETURN NEW;
            END IF;
            broken := CASE
                WHEN NEW.unionid = '' THEN 'unionid' -- would make one person of many
                WHEN NEW.status NOT IN ('active', 'disabled') THEN 'status'
                WHEN cardinality(NEW.roles) > 32 THEN 'roles_number'
                -- Almost nobody has a role. The first comparison refuses NULL, and a comma inside a role.
                WHEN cardinality(NEW.roles) > 0
                     AND (NEW.roles = string_to_array(array_to_string(NEW.roles, ','), ',')
                          AND array_to_string(NEW.roles, ',') ~ '^[a-z][a-z0-9_-]{0,31}(,[a-z][a-z0-9_-]{0,31})*$')
                         IS NOT TRUE THEN 'roles'
                WHEN char_length(NEW.nickname) NOT BETWEEN 1 AND 64 THEN 'nickname'
                WHEN char_length(NEW.avatar_url) NOT BETWEEN 1 AND 2048 THEN 'avatar_url'
                WHEN NEW.phone !~ '^[+][1-9][0-9]{1,14}$' THEN 'phone'
                WHEN char_length(NEW.ban_reason) NOT BETWEEN 1 AND 500 THEN 'ban_reason'
                WHEN NEW.status = 'active' AND num_nonnulls(NEW.ban_reason, NEW.banned_until) > 0 THEN 'ban'
            END;
            IF broken IS NOT NULL THEN
                RAISE EXCEPTION 'users.% breaks its rule', broken
                      USING ERRCODE = 'check_violation', TABLE = 'users', CONSTRAINT = 'users_' || broken || '_check';
            END IF;
            RETURN NEW;
        END
        $$
    """)
    op.execute("""
        CREATE TRIGGER users_check
            BEFORE INSERT OR UPDATE
                OF unionid, status, roles, nickname, avatar_url, phone, ban_reason, banned_until ON users
            FOR EACH ROW EXECUTE FUNCTION check_user()
    """)
    # The index over this function finds parts of nicknames with two characters or more, because two characters can be a
    # whole Chinese name. Trigrams would need three characters, and an extension. The function is in PL/pgSQL, because a
    # function in SQL takes fourteen times as long (170 µs).
    op.execute(f"""
        CREATE FUNCTION nickname_bigrams(nickname text) RETURNS text[]
            LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
        DECLARE
            folded text := translate(lower(nickname COLLATE "C"), '{CAPITALS}', '{CAPITALS.lower()}');
            bigrams text[] := '{{}}';
        BEGIN
            FOR n IN 1 .. char_length(folded) - 1 LOOP
                bigrams := bigrams || substr(folded, n, 2);
            END LOOP;
            RETURN bigrams;
        END
        $$
    """)
    op.execute("""
        CREATE INDEX users_nickname_bigrams_idx ON users USING gin (nickname_bigrams(nickname))
            WHERE nickname IS NOT NULL
    """)
    op.execute("""
        CREATE TABLE erasures (
            user_id UUID NOT NULL,
            about_after UUID NOT NULL,
            acted_after UUID NOT NULL,
            CONSTRAINT erasures_pkey PRIMARY KEY (user_id)
        )
    """)
    op.execute("""
        CREATE TABLE admin_links (
            digest BYTEA NOT NULL,
            user_id UUID NOT NULL,
            expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
            CONSTRAINT admin_links_pkey PRIMARY KEY (digest),
            CONSTRAINT admin_links_user_id_fkey FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE,
            CONSTRAINT admin_links_digest_check CHECK (octet_length(digest) = 32)
        )
    """)
    op.execute("CREATE INDEX admin_links_user_id_idx ON admin_links (user_id)")
    op.execute("""
        CREATE TABLE avatars (
            id TEXT COLLATE "C" NOT NULL,
            user_id UUID NOT NULL,
            content_type TEXT COLLATE "C" NOT NULL,
            content BYTEA NOT NULL,
            created_at TIMESTAMP WITH TIME ZONE NOT NULL,
            CONSTRAINT avatars_pkey PRIMARY KEY (id),
            CONSTRAINT avatars_user_id_key UNIQUE (user_id),
            CONSTRAINT avatars_user_id_fkey FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE,
            CONSTRAINT avatars_id_check CHECK (id ~ '^[A-Za-z0-9_-]{22}$'),
            CONSTRAINT avatars_content_type_check CHECK (content_type IN ('image/jpeg', 'image/png')),
            CONSTRAINT avatars_content_check CHECK (octet_length(content) BETWEEN 1 AND 2097152)
        )
    """)
    # The content is already compressed.
    op.execute("ALTER TABLE avatars ALTER COLUMN content SET STORAGE EXTERNAL")
    # With a trigger, the statements that change avatar_url need not delete the previous picture. A login sets this
    # column, too, but if the value stays the same, the only cost is the comparison in WHEN.
    op.execute("""
        CREATE FUNCTION delete_former_avatar() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM avatars
             WHERE user_id = NEW.id AND strpos(COALESCE(NEW.avatar_url, ''), '/v1/avatars/' || id || '.') = 0;
            RETURN NULL;
        END
        $$
    """)
    op.execute("""
        CREATE TRIGGER users_delete_former_avatar AFTER UPDATE OF avatar_url ON users
            FOR EACH ROW WHEN (OLD.avatar_url IS DISTINCT FROM NEW.avatar_url)
            EXECUTE FUNCTION delete_former_avatar()
    """)
    # A session belongs to the user of its identity, which a trigger on `identities` ensures. By default, autovacuum
    # waits until a fifth of the rows are dead, which would be 20 million of 100 million sessions.
    op.execute("""
        CREATE TABLE sessions (
            id UUID NOT NULL,
            user_id UUID NOT NULL,
            app_id TEXT COLLATE "C" NOT NULL,
            openid TEXT COLLATE "C" NOT NULL,
            session_key BYTEA,
            generation INTEGER DEFAULT 0 NOT NULL,
            rotated_at TIMESTAMP WITH TIME ZONE,
            ip INET,
            user_agent TEXT COLLATE "C",
            opened_ip INET,
            opened_user_agent TEXT COLLATE "C",
            created_at TIMESTAMP WITH TIME ZONE NOT NULL,
            last_used_at TIMESTAMP WITH TIME ZONE NOT NULL,
            expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
            revoked_at TIMESTAMP WITH TIME ZONE,
            revoked_reason TEXT COLLATE "C",
            client_id TEXT COLLATE "C",
            scope TEXT COLLATE "C",
            authenticated_at TIMESTAMP WITH TIME ZONE,
            authenticated_by TEXT COLLATE "C",
            site_knows BOOLEAN,
            resource TEXT COLLATE "C",
            client_name TEXT COLLATE "C",
            resource_title TEXT COLLATE "C",
            CONSTRAINT sessions_pkey PRIMARY KEY (id),
            CONSTRAINT sessions_user_id_fkey FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
        )
         WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02)
    """)
    op.execute("CREATE INDEX sessions_user_id_id_idx ON sessions (user_id, id)")
    # A trigger replaces a CHECK constraint, as for users, and costs a login a third as much. It runs after the write,
    # because PostgreSQL locks a row for every trigger that runs before an update.
    op.execute("""
        CREATE FUNCTION check_session() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NOT (NEW.generation >= 0 AND NEW.expires_at >= NEW.created_at
                    AND (NEW.revoked_at IS NULL) = (NEW.revoked_reason IS NULL)
                    AND (NEW.revoked_at IS NULL OR NEW.session_key IS NULL)) THEN
                RAISE EXCEPTION 'a session breaks its rules'
                      USING ERRCODE = 'check_violation', TABLE = 'sessions', CONSTRAINT = 'sessions_state_check';
            END IF;
            RETURN NULL;
        END
        $$
    """)
    op.execute("""
        CREATE TRIGGER sessions_check
            AFTER INSERT OR UPDATE
                OF generation, created_at, expires_at, revoked_at, revoked_reason, session_key ON sessions
            FOR EACH ROW EXECUTE FUNCTION check_session()
    """)
    # With a trigger, no statement that ends a session can omit the message to its site (back-channel logout). A session
    # that has expired is already over, so no message is sent.
    op.execute("""
        CREATE FUNCTION queue_backchannel_logout() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.client_id IS NOT NULL AND OLD.revoked_at IS NULL AND NEW.expires_at > NEW.revoked_at
               AND NEW.site_knows IS NOT TRUE THEN
                INSERT INTO deliveries (receiver_id, event_id, id, type, user_id, priority, next_at, at)
                SELECT id, NEW.id, NEW.id, 'logout', NEW.user_id,
                       CASE WHEN NEW.revoked_reason IN ('banned', 'administrator') THEN -2 ELSE -1 END,
                       NEW.revoked_at, NEW.revoked_at
                  FROM clients
                 WHERE name = NEW.client_id AND removed_by IS NULL AND backchannel_logout_uri IS NOT NULL;
            END IF;
            RETURN NULL;
        END
        $$
    """)
    op.execute("""
        CREATE TRIGGER sessions_queue_backchannel_logout AFTER UPDATE OF revoked_at ON sessions
            FOR EACH ROW EXECUTE FUNCTION queue_backchannel_logout()
    """)
    # This trigger replaces a foreign key of `website_sessions`. For a foreign key, PostgreSQL would search that table
    # for every session that is deleted, but millions of sessions are of phones, and have no row there. Each statement
    # that adds a row to `website_sessions` also adds its session.
    op.execute("""
        CREATE FUNCTION delete_website_sessions() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM website_sessions USING gone WHERE gone.client_id IS NOT NULL AND session_id = gone.id;
            RETURN NULL;
        END
        $$
    """)
    op.execute("""
        CREATE TRIGGER sessions_delete_website_sessions AFTER DELETE ON sessions REFERENCING OLD TABLE AS gone
            FOR EACH STATEMENT EXECUTE FUNCTION delete_website_sessions()
    """)
    op.execute("""
        CREATE TABLE identities (
            app_id TEXT COLLATE "C" NOT NULL,
            openid TEXT COLLATE "C" NOT NULL,
            user_id UUID NOT NULL,
            created_at TIMESTAMP WITH TIME ZONE NOT NULL,
            unionid TEXT COLLATE "C",
            phone_proved_at TIMESTAMP WITH TIME ZONE,
            -- created by an import, perhaps with a unionid in place of the openid, which the first login corrects
            awaits_login BOOLEAN DEFAULT false NOT NULL,
            CONSTRAINT identities_pkey PRIMARY KEY (app_id, openid),
            CONSTRAINT identities_user_id_fkey FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE,
            CONSTRAINT identities_app_id_check CHECK (app_id <> ''),
            CONSTRAINT identities_openid_check CHECK (openid <> '')
        )
    """)
    # The index is unique, because WeChat gives each person one openid in each app.
    op.execute("""
        CREATE UNIQUE INDEX identities_app_id_unionid_idx ON identities (app_id, unionid) WHERE unionid IS NOT NULL
    """)
    op.execute("CREATE INDEX identities_user_id_idx ON identities (user_id)")
    # Sessions move with their identity to another user, and are deleted with it. A foreign key would do that, too, but
    # each login would lock, and so write, the identity's row. Every transaction that opens a session locks the user's
    # row, so the trigger updates this row first. That way, the trigger sees the sessions that such a transaction has
    # opened, and a login that waits for the row sees `identity_lost_at`.
    op.execute("""
        CREATE FUNCTION take_sessions_along() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE users SET identity_lost_at = now() WHERE id = OLD.user_id;
            IF TG_OP = 'DELETE' THEN
                DELETE FROM sessions WHERE user_id = OLD.user_id AND app_id = OLD.app_id AND openid = OLD.openid;
            ELSE
                UPDATE sessions SET user_id = NEW.user_id, app_id = NEW.app_id, openid = NEW.openid
                 WHERE user_id = OLD.user_id AND app_id = OLD.app_id AND openid = OLD.openid;
            END IF;
            RETURN NULL;
        END
        $$
    """)
    op.execute("""
        CREATE TRIGGER identities_take_sessions_along AFTER DELETE OR UPDATE OF user_id, app_id, openid ON identities
            FOR EACH ROW EXECUTE FUNCTION take_sessions_along()
    """)
    # With a trigger, each statement that replaces or clears users.phone ends the proofs of the previous number.
    op.execute("""
        CREATE FUNCTION end_phone_proofs() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE identities SET phone_proved_at = NULL WHERE user_id = NEW.id AND phone_proved_at IS NOT NULL;
            RETURN NULL;
        END
        $$
    """)
    op.execute("""
        CREATE TRIGGER users_end_phone_proofs AFTER UPDATE OF phone ON users
            FOR EACH ROW WHEN (OLD.phone IS NOT NULL AND OLD.phone IS DISTINCT FROM NEW.phone)
            EXECUTE FUNCTION end_phone_proofs()
    """)
    # An empty unionid would merge many people into one user.
    op.execute("""
        CREATE TABLE unionids (
            unionid TEXT COLLATE "C" NOT NULL,
            user_id UUID NOT NULL,
            CONSTRAINT unionids_pkey PRIMARY KEY (unionid),
            CONSTRAINT unionids_user_id_fkey FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE,
            CONSTRAINT unionids_unionid_check CHECK (unionid <> '')
        )
    """)
    op.execute("CREATE INDEX unionids_user_id_idx ON unionids (user_id)")
    # With a trigger, every statement that writes users.unionid also writes this table.
    op.execute("""
        CREATE FUNCTION remember_unionid() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO unionids (unionid, user_id) VALUES (NEW.unionid, NEW.id) ON CONFLICT DO NOTHING;
            RETURN NULL;
        END
        $$
    """)
    op.execute("""
        CREATE TRIGGER users_remember_unionid AFTER INSERT OR UPDATE OF unionid ON users
            FOR EACH ROW WHEN (NEW.unionid IS NOT NULL) EXECUTE FUNCTION remember_unionid()
    """)
    op.execute("""
        CREATE TABLE former_users (
            id UUID NOT NULL,
            user_id UUID NOT NULL,
            merged_at TIMESTAMP WITH TIME ZONE NOT NULL,
            CONSTRAINT former_users_pkey PRIMARY KEY (id),
            CONSTRAINT former_users_user_id_fkey FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
        )
    """)
    op.execute("CREATE INDEX former_users_user_id_idx ON former_users (user_id)")
    op.execute("""
        CREATE TABLE former_external_ids (
            external_id VARCHAR(128) COLLATE "C" NOT NULL,
            user_id UUID NOT NULL,
            CONSTRAINT former_external_ids_pkey PRIMARY KEY (external_id),
            CONSTRAINT former_external_ids_user_id_fkey FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
        )
    """)
    op.execute("CREATE INDEX former_external_ids_user_id_idx ON former_external_ids (user_id)")
    # WeChat's responses to phone codes. They are deleted with their identity, and keep it if a merge moves it to
    # another user.
    op.execute("""
        CREATE TABLE phone_answers (
            code_hash BYTEA NOT NULL,
            app_id TEXT COLLATE "C" NOT NULL,
            openid TEXT COLLATE "C" NOT NULL,
            sealed BYTEA,
            asked_at TIMESTAMP WITH TIME ZONE NOT NULL,
            refused_at TIMESTAMP WITH TIME ZONE,
            settled_at TIMESTAMP WITH TIME ZONE,
            CONSTRAINT phone_answers_pkey PRIMARY KEY (code_hash),
            CONSTRAINT phone_answers_app_id_openid_fkey FOREIGN KEY(app_id, openid) REFERENCES identities
                (app_id, openid) ON DELETE CASCADE ON UPDATE CASCADE,
            CONSTRAINT phone_answers_code_hash_check CHECK (octet_length(code_hash) = 32),
            CONSTRAINT phone_answers_settled_at_check CHECK ((sealed IS NULL) = (settled_at IS NOT NULL))
        )
    """)
    op.execute("CREATE INDEX phone_answers_app_id_openid_idx ON phone_answers (app_id, openid)")
    op.execute("CREATE INDEX phone_answers_asked_at_idx ON phone_answers (asked_at)")
    op.execute("""
        CREATE INDEX phone_answers_pending_idx ON phone_answers (asked_at) WHERE sealed IS NOT NULL AND refused_at
            IS NULL
    """)
    op.execute("""
        CREATE TABLE website_sessions (
            client_id TEXT COLLATE "C" NOT NULL,
            session_id UUID NOT NULL,
            browser_login_id UUID,
            CONSTRAINT website_sessions_pkey PRIMARY KEY (client_id, session_id)
        )
    """)
    op.execute("CREATE INDEX website_sessions_session_id_idx ON website_sessions (session_id)")
    op.execute("""
        CREATE INDEX website_sessions_browser_login_id_idx ON website_sessions (browser_login_id) WHERE
            browser_login_id IS NOT NULL
    """)
    # A door is a way to log in. Through the doors account, website and sso, a login is approved without a session on a
    # phone. Through every other door, such a session claims and approves the login. If the session ends before the site
    # has logged the user in, the login ends, too.
    op.execute("""
        CREATE TABLE site_logins (
            scope TEXT COLLATE "C" NOT NULL,
            redirect_uri TEXT COLLATE "C" NOT NULL,
            state TEXT COLLATE "C",
            response_mode TEXT COLLATE "C" NOT NULL,
            nonce TEXT COLLATE "C",
            code_challenge TEXT COLLATE "C",
            hinted_user_id UUID,
            resource TEXT COLLATE "C",
            client_name TEXT COLLATE "C",
            id UUID NOT NULL,
            client_id TEXT COLLATE "C" NOT NULL,
            stage TEXT COLLATE "C" NOT NULL,
            door TEXT COLLATE "C",
            browser_ip INET,
            browser_user_agent TEXT COLLATE "C",
            created_at TIMESTAMP WITH TIME ZONE NOT NULL,
            expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
            kept_until TIMESTAMP WITH TIME ZONE NOT NULL,
            page_hash BYTEA,
            browser_hash BYTEA,
            query TEXT COLLATE "C",
            presses INTEGER DEFAULT 0 NOT NULL,
            wrong_numbers INTEGER DEFAULT 0 NOT NULL,
            pressed_on UUID,
            device_code_hash BYTEA,
            poll_interval INTEGER DEFAULT 2 NOT NULL,
            polled_at TIMESTAMP WITH TIME ZONE,
            scene_hash BYTEA,
            user_code_hash BYTEA,
            claimed_session_id UUID,
            claimed_at TIMESTAMP WITH TIME ZONE,
            login_code_hash BYTEA,
            number BYTEA,
            state_hash BYTEA,
            wechat_code_hash BYTEA,
            outcome TEXT COLLATE "C",
            app_id TEXT COLLATE "C",
            openid TEXT COLLATE "C",
            authenticated_at TIMESTAMP WITH TIME ZONE,
            authenticated_by TEXT COLLATE "C",
            granted_until TIMESTAMP WITH TIME ZONE,
            browser_login_id UUID,
            code_hash BYTEA,
            code_expires_at TIMESTAMP WITH TIME ZONE,
            session_id UUID,
            site TEXT COLLATE "C"
                GENERATED ALWAYS AS (CASE WHEN client_name IS NULL THEN client_id ELSE NULL::text END) STORED,
            requested_ip INET, -- from which a device has started the login
            CONSTRAINT site_logins_pkey PRIMARY KEY (id),
            CONSTRAINT site_logins_site_fkey FOREIGN KEY(site) REFERENCES clients (name) ON DELETE CASCADE,
            CONSTRAINT site_logins_app_id_openid_fkey FOREIGN KEY(app_id, openid) REFERENCES identities
                (app_id, openid) ON DELETE CASCADE ON UPDATE CASCADE,
            CONSTRAINT site_logins_client_name_check CHECK (client_name IS NULL OR resource IS NOT NULL),
            CONSTRAINT site_logins_stage_check CHECK (stage IN ('asked', 'claimed', 'approved', 'refused', 'coded',
                'redeemed')),
            CONSTRAINT site_logins_door_check CHECK (door IN ('scan', 'typed', 'mini_program', 'account', 'website',
                'link', 'sso')),
            CONSTRAINT site_logins_response_mode_check CHECK (response_mode IN ('query', 'form_post')),
            CONSTRAINT site_logins_expires_at_check CHECK (expires_at >= created_at),
            CONSTRAINT site_logins_kept_until_check CHECK (kept_until >= expires_at),
            CONSTRAINT site_logins_query_check CHECK (query IS NULL OR browser_login_id IS NOT NULL),
            CONSTRAINT site_logins_stage_door_check CHECK ((stage = 'asked' AND claimed_at IS NULL) OR door IS NOT
                NULL),
            CONSTRAINT site_logins_number_check CHECK (num_nulls(login_code_hash, number) IN (0, 2)),
            CONSTRAINT site_logins_outcome_check CHECK (outcome IS NULL OR wechat_code_hash IS NOT NULL),
            CONSTRAINT site_logins_openid_check CHECK (openid IS NULL OR num_nulls(app_id, door, authenticated_at,
                authenticated_by, granted_until) = 0),
            CONSTRAINT site_logins_claimed_session_id_check CHECK (openid IS NULL OR (door IN ('account', 'website',
                'sso')) = (claimed_session_id IS NULL)),
            CONSTRAINT site_logins_browser_login_id_check CHECK (door <> 'sso' OR browser_login_id IS NOT NULL),
            CONSTRAINT site_logins_code_check CHECK (num_nulls(code_hash, code_expires_at) IN (0, 2)),
            CONSTRAINT site_logins_session_id_check CHECK ((stage = 'redeemed') = (session_id IS NOT NULL))
        )
    """)
    op.execute("""
        CREATE INDEX site_logins_app_id_openid_idx ON site_logins (app_id, openid) WHERE openid IS NOT NULL
    """)
    op.execute("CREATE INDEX site_logins_site_idx ON site_logins (site)")
    op.execute("""
        CREATE INDEX site_logins_claimed_session_id_idx ON site_logins (claimed_session_id) WHERE openid IS NULL AND
            claimed_session_id IS NOT NULL
    """)
    # An erasure uses this index to find the logins that only this user could have approved. It finds the logins that
    # the user has approved by their identity.
    op.execute("""
        CREATE INDEX site_logins_hinted_user_id_idx ON site_logins (hinted_user_id) WHERE hinted_user_id IS NOT NULL
    """)
    op.execute("CREATE INDEX site_logins_kept_until_idx ON site_logins (kept_until)")
    op.execute("CREATE INDEX site_logins_pressed_on_idx ON site_logins (pressed_on) WHERE pressed_on IS NOT NULL")
    op.execute("CREATE UNIQUE INDEX site_logins_code_hash_idx ON site_logins (code_hash) WHERE code_hash IS NOT NULL")
    op.execute("CREATE UNIQUE INDEX site_logins_page_hash_idx ON site_logins (page_hash) WHERE page_hash IS NOT NULL")
    op.execute("""
        CREATE UNIQUE INDEX site_logins_device_code_hash_idx ON site_logins (device_code_hash) WHERE device_code_hash
            IS NOT NULL
    """)
    op.execute("""
        CREATE UNIQUE INDEX site_logins_scene_hash_idx ON site_logins (scene_hash) WHERE scene_hash IS NOT NULL
    """)
    op.execute("""
        CREATE UNIQUE INDEX site_logins_state_hash_idx ON site_logins (state_hash) WHERE state_hash IS NOT NULL
    """)
    op.execute("""
        CREATE UNIQUE INDEX site_logins_user_code_hash_idx ON site_logins (user_code_hash) WHERE user_code_hash IS NOT
            NULL
    """)
    op.execute("""
        CREATE TABLE scan_pictures (
            login_id UUID NOT NULL,
            content_type TEXT COLLATE "C" NOT NULL,
            content BYTEA NOT NULL,
            CONSTRAINT scan_pictures_pkey PRIMARY KEY (login_id),
            CONSTRAINT scan_pictures_login_id_fkey FOREIGN KEY(login_id) REFERENCES site_logins (id) ON DELETE CASCADE,
            CONSTRAINT scan_pictures_content_type_check CHECK (content_type IN ('image/jpeg', 'image/png')),
            CONSTRAINT scan_pictures_content_check CHECK (octet_length(content) BETWEEN 1 AND 2097152)
        )
    """)
    # The content is already compressed.
    op.execute("ALTER TABLE scan_pictures ALTER COLUMN content SET STORAGE EXTERNAL")
    op.execute("""
        CREATE TABLE browser_logins (
            id UUID NOT NULL,
            browser_hash BYTEA NOT NULL,
            cookie_hash BYTEA NOT NULL,
            proof_id UUID NOT NULL,
            app_id TEXT COLLATE "C" NOT NULL,
            openid TEXT COLLATE "C" NOT NULL,
            authenticated_at TIMESTAMP WITH TIME ZONE NOT NULL,
            authenticated_by TEXT COLLATE "C" NOT NULL,
            codes_at TIMESTAMP WITH TIME ZONE[] DEFAULT '{}' NOT NULL,
            CONSTRAINT browser_logins_pkey PRIMARY KEY (id),
            CONSTRAINT browser_logins_app_id_openid_fkey FOREIGN KEY(app_id, openid) REFERENCES identities
                (app_id, openid) ON DELETE CASCADE ON UPDATE CASCADE,
            CONSTRAINT browser_logins_cookie_hash_key UNIQUE (cookie_hash),
            CONSTRAINT browser_logins_cookie_hash_check CHECK (octet_length(cookie_hash) = 32)
        )
    """)
    op.execute("CREATE INDEX browser_logins_app_id_openid_idx ON browser_logins (app_id, openid)")
    op.execute("CREATE INDEX browser_logins_authenticated_at_idx ON browser_logins (authenticated_at)")
    op.execute("CREATE INDEX browser_logins_browser_hash_idx ON browser_logins (browser_hash)")
    op.execute("""
        CREATE TABLE browser_login_sites (
            browser_login_id UUID NOT NULL,
            client_id TEXT COLLATE "C" NOT NULL,
            CONSTRAINT browser_login_sites_pkey PRIMARY KEY (browser_login_id, client_id),
            CONSTRAINT browser_login_sites_browser_login_id_fkey FOREIGN KEY(browser_login_id) REFERENCES
                browser_logins (id) ON DELETE CASCADE,
            CONSTRAINT browser_login_sites_client_id_fkey FOREIGN KEY(client_id) REFERENCES clients (name) ON
                DELETE CASCADE
        )
    """)
    op.execute("CREATE INDEX browser_login_sites_client_id_idx ON browser_login_sites (client_id)")


def downgrade() -> None:
    """Drop everything that `upgrade` has created."""
    op.execute("DROP TABLE browser_login_sites")
    op.execute("DROP TABLE browser_logins")
    op.execute("DROP TABLE scan_pictures")
    op.execute("DROP TABLE site_logins")
    op.execute("DROP TABLE website_sessions")
    op.execute("DROP TABLE phone_answers")
    op.execute("DROP TABLE unionids")
    op.execute("DROP TABLE sessions")
    op.execute("DROP TABLE identities")
    op.execute("DROP TABLE former_users")
    op.execute("DROP TABLE former_external_ids")
    op.execute("DROP TABLE avatars")
    op.execute("DROP TABLE admin_links")
    op.execute("DROP TABLE webhooks")
    op.execute("DROP TABLE users")
    op.execute("DROP TABLE sweeps")
    op.execute("DROP TABLE signing_keys")
    op.execute("DROP TABLE issuers")
    op.execute("DROP TABLE refusals")
    op.execute("DROP TABLE push_messages")
    op.execute("DROP TABLE hourly_numbers")
    op.execute("DROP TABLE feed_swept")
    op.execute("DROP TABLE feed")
    op.execute("DROP TABLE events_unplaced")
    op.execute("DROP TABLE events")
    op.execute("DROP TABLE erasures")
    op.execute("DROP TABLE deliveries")
    op.execute("DROP TABLE js_tickets")
    op.execute("DROP TABLE consents")
    op.execute("DROP TABLE clients")
    op.execute("DROP TABLE attempts")
    op.execute("DROP TABLE apps")
    op.execute("DROP FUNCTION events_are_append_only()")
    op.execute("DROP FUNCTION put_after_newest()")
    op.execute("DROP FUNCTION mark_unplaced()")
    op.execute("DROP FUNCTION delete_places()")
    op.execute("DROP FUNCTION check_user()")
    op.execute("DROP FUNCTION nickname_bigrams(text)")
    op.execute("DROP FUNCTION delete_former_avatar()")
    op.execute("DROP FUNCTION check_session()")
    op.execute("DROP FUNCTION queue_backchannel_logout()")
    op.execute("DROP FUNCTION delete_website_sessions()")
    op.execute("DROP FUNCTION take_sessions_along()")
    op.execute("DROP FUNCTION remember_unionid()")
    op.execute("DROP FUNCTION end_phone_proofs()")
