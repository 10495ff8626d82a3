"""The tables of users, identities and unionids, of merged users, and of unfinished erasures."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import INET, JSONB
from sqlmodel import Field, SQLModel

from wxauth.server.core.models import TIME, after_create
from wxauth.server.core.users import EarlierBan, Origins, UserFields


class User(UserFields, Origins, table=True):
    """A person, known by one or more identities."""

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("unionid"),
        Index("users_administrators_idx", "id", postgresql_where=text("'admin' = ANY (roles)")),
        Index(None, "phone", postgresql_where=text("phone IS NOT NULL")),
        Index(None, "external_id", unique=True, postgresql_where=text("external_id IS NOT NULL")),
        Index(None, "banned_until", postgresql_where=text("banned_until IS NOT NULL")),
        Index(None, "erase_at", postgresql_where=text("erase_at IS NOT NULL AND status = 'active'")),
        # With room on each page, and no index on the columns that a login changes, its update stays in the page (HOT).
        {"postgresql_with": {"fillfactor": 85}},
    )

    unjudged_since: datetime | None = Field(sa_type=TIME)
    """When a new user first logged in; null once WeChat has rated their risk. Only logins read it."""
    ban_reason: str | None = Field(sa_type=Text)
    """The reason for the ban, for staff only."""
    banned_until: datetime | None = Field(sa_type=TIME)
    """When housekeeping lifts the ban; null for a ban without an end."""
    identity_lost_at: datetime | None = Field(sa_type=TIME)
    """When an identity last left this user. Only logins read it: see `_RETURN` in `login/login_rows.py`."""
    earlier_bans: dict[str, EarlierBan] | None = Field(sa_type=JSONB)
    """The bans before the merges, by the former user's id. A split restores them; null once a ban is lifted."""


after_create(
    User,
    # A trigger instead of CHECKs. PostgreSQL prepares every CHECK anew for each statement that writes a row, a fifth of
    # a login's cost there. This trigger runs only if one of its columns is written.
    r"""
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
    """,
    """
        CREATE TRIGGER users_check
            BEFORE INSERT OR UPDATE
                OF unionid, status, roles, nickname, avatar_url, phone, ban_reason, banned_until ON users
            FOR EACH ROW EXECUTE FUNCTION check_user()
    """,
)


# An index for parts of nicknames from two characters on, because two are a whole Chinese name. Trigrams need three, and
# an extension. In plpgsql, because a function in SQL takes fourteen times as long: 170 µs.
after_create(
    User,
    """
        CREATE FUNCTION nickname_bigrams(nickname text) RETURNS text[]
            LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
        DECLARE
            folded text := lower(nickname);
            bigrams text[] := '{}';
        BEGIN
            FOR n IN 1 .. char_length(folded) - 1 LOOP
                bigrams := bigrams || substr(folded, n, 2);
            END LOOP;
            RETURN bigrams;
        END
        $$
    """,
    """
        CREATE INDEX users_nickname_bigrams_idx ON users USING gin (nickname_bigrams(nickname))
            WHERE nickname IS NOT NULL
    """,
)


class Identity(SQLModel, table=True):
    """One openid in one app."""

    __tablename__ = "identities"
    __table_args__ = (
        ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        CheckConstraint("app_id <> ''", name="app_id"),
        CheckConstraint("openid <> ''", name="openid"),
        Index(None, "user_id"),
        # WeChat has one openid for each person and app.
        Index(None, "app_id", "unionid", unique=True, postgresql_where=text("unionid IS NOT NULL")),
    )

    app_id: str = Field(sa_type=Text, primary_key=True)
    openid: str = Field(sa_type=Text, primary_key=True)
    user_id: UUID
    created_at: datetime = Field(sa_type=TIME)
    unionid: str | None = Field(sa_type=Text)
    """The unionid that WeChat last gave for this identity."""
    came_from: UUID | None
    """The user who had it before its first merge; null if no merge has moved it. A split needs it to undo a merge."""
    phone_proved_at: datetime | None = Field(sa_type=TIME)
    """When this identity last proved the user's present number with the phone button."""


after_create(
    Identity,
    # Sessions move with their identity to another user, and are deleted with it. A foreign key would do the same, but
    # each login would lock, and so write, the identity's row. Whoever opens a session has locked the user's row. So
    # that row is updated first: sessions that were being opened are then visible here, and a login that waits for the
    # row sees `identity_lost_at`.
    """
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
    """,
    """
        CREATE TRIGGER identities_take_sessions_along AFTER DELETE OR UPDATE OF user_id, app_id, openid ON identities
            FOR EACH ROW EXECUTE FUNCTION take_sessions_along()
    """,
    # A trigger, so that each statement that replaces or clears users.phone ends the proofs of the former number.
    """
        CREATE FUNCTION end_phone_proofs() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE identities SET phone_proved_at = NULL WHERE user_id = NEW.id AND phone_proved_at IS NOT NULL;
            RETURN NULL;
        END
        $$
    """,
    """
        CREATE TRIGGER users_end_phone_proofs AFTER UPDATE OF phone ON users
            FOR EACH ROW WHEN (OLD.phone IS NOT NULL AND OLD.phone IS DISTINCT FROM NEW.phone)
            EXECUTE FUNCTION end_phone_proofs()
    """,
)


class StoredUnionid(SQLModel, table=True):
    """A present or former unionid of a person. Each Open Platform account has its own, and apps move between them."""

    __tablename__ = "unionids"
    __table_args__ = (
        ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        CheckConstraint("unionid <> ''", name="unionid"),  # an empty one would merge many people into one user
        Index(None, "user_id"),
    )

    unionid: str = Field(sa_type=Text, primary_key=True)
    user_id: UUID
    came_from: UUID | None
    """As `Identity.came_from`."""


after_create(
    StoredUnionid,
    # A trigger, so that every statement that writes users.unionid also writes this table.
    """
        CREATE FUNCTION remember_unionid() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO unionids (unionid, user_id) VALUES (NEW.unionid, NEW.id) ON CONFLICT DO NOTHING;
            RETURN NULL;
        END
        $$
    """,
    """
        CREATE TRIGGER users_remember_unionid AFTER INSERT OR UPDATE OF unionid ON users
            FOR EACH ROW WHEN (NEW.unionid IS NOT NULL) EXECUTE FUNCTION remember_unionid()
    """,
)


class FormerUser(SQLModel, table=True):
    """The id of a user who was merged into another one. Other services may still know the person by it."""

    __tablename__ = "former_users"
    __table_args__ = (
        ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        Index(None, "user_id"),
    )

    id: UUID = Field(primary_key=True)
    user_id: UUID
    """The user that remains after all later merges."""
    merged_at: datetime = Field(sa_type=TIME)
    merged_into: UUID | None
    """The id into which it was merged at that time; null if it was imported, because that is unknown."""


class FormerExternalId(SQLModel, table=True):
    """The external id of a user who was merged into one with another external id. Other services may still know it."""

    __tablename__ = "former_external_ids"
    __table_args__ = (
        ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        Index(None, "user_id"),
    )

    external_id: str = Field(max_length=128, primary_key=True)
    user_id: UUID
    """The user that remains after all later merges."""
    came_from: UUID | None
    """As `Identity.came_from`; null if it was imported."""


class Erasure(SQLModel, table=True):
    """An id of an erased person whose events, consents or refused logins are not all erased yet."""

    __tablename__ = "erasures"

    user_id: UUID = Field(primary_key=True)
    about_after: UUID
    """The last event about the person whose data has been removed."""
    acted_after: UUID
    """The last event by the person from which their address has been removed."""


class Consent(SQLModel, table=True):
    """A person's consent to a version of a document. A withdrawn consent stays, with the time of the withdrawal."""

    __tablename__ = "consents"
    __table_args__ = (
        CheckConstraint("document <> ''", name="document"),
        CheckConstraint("version <> ''", name="version"),
        Index(None, "user_id", "given_at", "id"),
        # A small index, however many consents have been withdrawn.
        Index("consents_present_idx", "user_id", "document", postgresql_where=text("withdrawn_at IS NULL")),
    )

    id: UUID = Field(primary_key=True)
    user_id: UUID
    """The id of the user, or of a former user who was merged. Not a foreign key: there may be too many rows for one
    transaction to delete or move at an erasure or a merge."""
    document: str = Field(sa_type=Text)
    version: str = Field(sa_type=Text)
    given_at: datetime = Field(sa_type=TIME)
    withdrawn_at: datetime | None = Field(sa_type=TIME)
    app_id: str | None = Field(sa_type=Text)
    ip: str | None = Field(sa_type=INET)


# One user may be all that ANALYZE has seen: a join would then read the whole table.
after_create(Consent, "ALTER TABLE consents ALTER COLUMN user_id SET (n_distinct = -0.2)")
