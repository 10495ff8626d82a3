"""The tables, and the columns that are read of a user. Constraints and triggers refuse rows that must not be."""

from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final, Literal, TypedDict
from uuid import UUID

from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKeyConstraint,
    Index,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy import Identity as IdentityColumn
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, INET, JSONB
from sqlalchemy.event import listen
from sqlmodel import Field, SQLModel

SCHEMA_NAMES = {
    "pk": "%(table_name)s_pkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "ck": "%(table_name)s_%(constraint_name)s_check",
}
SQLModel.metadata.naming_convention = SCHEMA_NAMES

TIME = DateTime(timezone=True)
ROLE = "[a-z][a-z0-9_-]{0,31}"
CLIENT_NAME = "[a-z0-9][a-z0-9_-]{0,63}"


def _after_create(table: type[SQLModel], *statements: str) -> None:
    """What belongs to a table and SQLAlchemy has no words for: it follows the table's CREATE TABLE."""
    for statement in statements:
        listen(table.__table__, "after_create", DDL(statement.replace("%", "%%")))  # type: ignore[attr-defined, no-untyped-call]  # SQLModel adds the table


class UserStatus(StrEnum):
    """Whether a user may log in."""

    ACTIVE = "active"
    DISABLED = "disabled"


class User(SQLModel, table=True):
    """A person, known by one or more identities."""

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("unionid"),
        Index("users_administrators_idx", "id", postgresql_where=text("'admin' = ANY (roles)")),
        Index(None, "phone", postgresql_where=text("phone IS NOT NULL")),
        Index(None, "external_id", unique=True, postgresql_where=text("external_id IS NOT NULL")),
        # Room on each page, and no index on the columns that a login changes: so a login's update stays in its page.
        {"postgresql_with": {"fillfactor": 85}},
    )

    id: UUID = Field(primary_key=True)
    unionid: str | None = Field(sa_type=Text)
    nickname: str | None = Field(sa_type=Text)
    avatar_url: str | None = Field(sa_type=Text)
    phone: str | None = Field(sa_type=Text)
    roles: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False, server_default=text("'{}'")))
    status: str = Field(sa_column=Column(Text, nullable=False, server_default=text("'active'")))
    created_at: datetime = Field(sa_type=TIME)
    last_login_at: datetime | None = Field(sa_type=TIME)
    """Null until an imported user first logs in."""
    unjudged_since: datetime | None = Field(sa_type=TIME)
    """When a newcomer first logged in; null once WeChat has told the newcomer's risk. Only logins read it."""
    external_id: str | None = Field(max_length=128)  # a limit of the type costs nothing if the column is not written
    """The user's id in the operator's other services, from before wxauth."""
    phone_proved_at: datetime | None = Field(sa_type=TIME)
    """When the number was last proved by the phone button; null for one that was merely imported."""
    consents: dict[str, str] | None = Field(sa_type=JSONB)
    """The present consents, document → version. They are kept here so that a login reads no other table."""


_after_create(
    User,
    # A trigger in place of CHECKs. PostgreSQL prepares every CHECK anew for each statement that writes a row, which is
    # a fifth of a login's cost there. This trigger runs only if one of its columns is written.
    r"""
        CREATE FUNCTION check_user() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            broken text := CASE
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
                WHEN NEW.phone !~ '^\+[1-9][0-9]{1,14}$' THEN 'phone'
            END;
        BEGIN
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
            BEFORE INSERT OR UPDATE OF unionid, status, roles, nickname, avatar_url, phone ON users
            FOR EACH ROW EXECUTE FUNCTION check_user()
    """,
)


class UserRow(TypedDict):
    """A user as it is read: every column of the table but `unjudged_since`, which only logins read."""

    id: UUID
    unionid: str | None
    nickname: str | None
    avatar_url: str | None
    phone: str | None
    roles: list[str]
    status: Literal["active", "disabled"]
    created_at: datetime
    last_login_at: datetime | None
    external_id: str | None
    phone_proved_at: datetime | None
    """When the number was last proved by the phone button; None for one that was merely imported."""
    consents: dict[str, str] | None
    """The present consents, document → version. None means the same as empty."""


class UserInSession(UserRow):
    """A user, with the identity of one of their sessions."""

    app_id: str
    openid: str


USER: Final = ", ".join(f"users.{name}" for name in UserRow.__annotations__)
"""The columns of `UserRow`, for a statement's SELECT or RETURNING."""


def phone_verified(user: UserRow) -> bool | None:
    """Whether the number was proved by the phone button; None without a number."""
    return None if user["phone"] is None else user["phone_proved_at"] is not None


class Identity(SQLModel, table=True):
    """One openid in one app."""

    __tablename__ = "identities"
    __table_args__ = (
        # Sessions refer to these three columns: so a session always belongs to its identity's user.
        UniqueConstraint("app_id", "openid", "user_id"),
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
    """The unionid that WeChat last gave with this identity."""


class Unionid(SQLModel, table=True):
    """A unionid that a person has, or has had: each Open Platform account has its own, and apps move between them."""

    __tablename__ = "unionids"
    __table_args__ = (
        ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        CheckConstraint("unionid <> ''", name="unionid"),  # an empty one would make one person of many
        Index(None, "user_id"),
    )

    unionid: str = Field(sa_type=Text, primary_key=True)
    user_id: UUID


_after_create(
    Unionid,
    # A trigger, so that no statement that writes users.unionid can forget this table.
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
    """An id that was merged into another user's. Siblings may still know the person by it."""

    __tablename__ = "former_users"
    __table_args__ = (
        ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        Index(None, "user_id"),
    )

    id: UUID = Field(primary_key=True)
    user_id: UUID
    """The user that remains after all later merges."""
    merged_at: datetime = Field(sa_type=TIME)


class FormerExternalId(SQLModel, table=True):
    """An external id of a user who was merged into one with another external id. Siblings may still know it."""

    __tablename__ = "former_external_ids"
    __table_args__ = (
        ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        Index(None, "user_id"),
    )

    external_id: str = Field(max_length=128, primary_key=True)
    user_id: UUID
    """The user that remains after all later merges."""


class Consent(SQLModel, table=True):
    """A person's consent to a version of a document. A withdrawn consent stays, with the time of the withdrawal."""

    __tablename__ = "consents"
    __table_args__ = (
        CheckConstraint("document <> ''", name="document"),
        CheckConstraint("version <> ''", name="version"),
        Index(None, "user_id", "given_at", "id"),
        # Few, however many have been withdrawn.
        Index("consents_present_idx", "user_id", "document", postgresql_where=text("withdrawn_at IS NULL")),
    )

    id: UUID = Field(primary_key=True)
    user_id: UUID
    """Who gave it: a user's id, or one that was merged into it. Not a reference: there may be too many to delete or
    move in the one moment of an erasure or a merge."""
    document: str = Field(sa_type=Text)
    version: str = Field(sa_type=Text)
    given_at: datetime = Field(sa_type=TIME)
    withdrawn_at: datetime | None = Field(sa_type=TIME)
    app_id: str | None = Field(sa_type=Text)
    ip: str | None = Field(sa_type=INET)


class Session(SQLModel, table=True):
    """One login on one device."""

    __tablename__ = "sessions"
    __table_args__ = (
        # A session follows its identity: a merge moves it to the other user, an erasure deletes it.
        ForeignKeyConstraint(
            ["app_id", "openid", "user_id"],
            ["identities.app_id", "identities.openid", "identities.user_id"],
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        CheckConstraint(  # one CHECK for all, because each costs every login
            "generation >= 0 AND expires_at >= created_at AND (revoked_at IS NULL) = (revoked_reason IS NULL)"
            " AND (revoked_at IS NULL OR session_key IS NULL)",
            name="state",
        ),
        Index(None, "user_id", "id"),
        # By default autovacuum waits until a fifth of the table is dead: of 100 million sessions, 20 million dead ones.
        {
            "postgresql_with": {
                "autovacuum_vacuum_scale_factor": 0.02,
                "autovacuum_vacuum_insert_scale_factor": 0.02,
            }
        },
    )

    id: UUID = Field(primary_key=True)
    user_id: UUID
    app_id: str = Field(sa_type=Text)
    openid: str = Field(sa_type=Text)
    session_key: bytes | None = Field(sa_type=BYTEA)
    """WeChat's key for this login, sealed; gone when the session ends."""
    generation: int = Field(sa_column_kwargs={"server_default": text("0")})
    """How often the refresh token has been rotated."""
    rotated_at: datetime | None = Field(sa_type=TIME)
    ip: str | None = Field(sa_type=INET)
    user_agent: str | None = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=TIME)
    last_used_at: datetime = Field(sa_type=TIME)
    expires_at: datetime = Field(sa_type=TIME)
    revoked_at: datetime | None = Field(sa_type=TIME)
    revoked_reason: str | None = Field(sa_type=Text)
    # Only a website's session has these; the session of a mini-program does not.
    client_id: str | None = Field(sa_type=Text)
    """The site."""
    scope: str | None = Field(sa_type=Text)
    """The granted scopes, separated by spaces."""
    authenticated_at: datetime | None = Field(sa_type=TIME)
    """When the person said yes."""
    authenticated_by: str | None = Field(sa_type=Text)
    """How the person logged in, as a value of `amr` (RFC 8176)."""


class WebsiteSession(SQLModel, table=True):
    """The sessions of websites. An index on `sessions` in place of this table would cost every phone's login."""

    __tablename__ = "website_sessions"
    __table_args__ = (
        ForeignKeyConstraint(["session_id"], ["sessions.id"], ondelete="CASCADE"),
        Index(None, "session_id"),
    )

    client_id: str = Field(sa_type=Text, primary_key=True)
    session_id: UUID = Field(primary_key=True)


class PhoneAnswer(SQLModel, table=True):
    """WeChat's answer to a phone code. It costs money, and WeChat gives it once."""

    __tablename__ = "phone_answers"
    __table_args__ = (
        # Deleted together with the identity.
        ForeignKeyConstraint(
            ["app_id", "openid"],
            ["identities.app_id", "identities.openid"],
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        CheckConstraint("octet_length(code_hash) = 32", name="code_hash"),
        CheckConstraint("(sealed IS NULL) = (settled_at IS NOT NULL)", name="settled_at"),
        Index(None, "app_id", "openid"),
        Index(None, "asked_at"),
        Index(
            "phone_answers_pending_idx",
            "asked_at",
            postgresql_where=text("sealed IS NOT NULL AND refused_at IS NULL"),
        ),
    )

    code_hash: bytes = Field(sa_type=BYTEA, primary_key=True)
    """SHA-256 of app_id, openid and code."""
    app_id: str = Field(sa_type=Text)
    openid: str = Field(sa_type=Text)
    sealed: bytes | None = Field(sa_type=BYTEA)
    """WeChat's `phone_info`; gone when the number is bound."""
    asked_at: datetime = Field(sa_type=TIME)
    """When WeChat was asked."""
    refused_at: datetime | None = Field(sa_type=TIME)
    """When the number could not be bound. After that, only a request with the same code tries again."""
    settled_at: datetime | None = Field(sa_type=TIME)


class Avatar(SQLModel, table=True):
    """The picture that a user's avatar_url leads to."""

    __tablename__ = "avatars"
    __table_args__ = (
        UniqueConstraint("user_id"),
        ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        CheckConstraint("id ~ '^[A-Za-z0-9_-]{22}$'", name="id"),
        CheckConstraint("content_type IN ('image/jpeg', 'image/png')", name="content_type"),
        CheckConstraint("octet_length(content) BETWEEN 1 AND 2097152", name="content"),
    )

    id: str = Field(sa_type=Text, primary_key=True)
    """The secret part of the picture's URL: whoever has the URL may see the picture."""
    user_id: UUID
    content_type: str = Field(sa_type=Text)
    content: bytes = Field(sa_type=BYTEA)
    created_at: datetime = Field(sa_type=TIME)


_after_create(
    Avatar,
    "ALTER TABLE avatars ALTER COLUMN content SET STORAGE EXTERNAL",  # already compressed
    # A trigger, so that no statement that changes avatar_url need delete the picture. A login, which names the column,
    # pays for a comparison.
    """
        CREATE FUNCTION forget_former_avatar() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM avatars
             WHERE user_id = NEW.id AND strpos(COALESCE(NEW.avatar_url, ''), '/v1/avatars/' || id || '.') = 0;
            RETURN NULL;
        END
        $$
    """,
    """
        CREATE TRIGGER users_forget_former_avatar AFTER UPDATE OF avatar_url ON users
            FOR EACH ROW WHEN (OLD.avatar_url IS DISTINCT FROM NEW.avatar_url)
            EXECUTE FUNCTION forget_former_avatar()
    """,
)


class Event(SQLModel, table=True):
    """Something that was done. An event is never changed, except to remove an erased person's data."""

    __tablename__ = "events"
    __table_args__ = (
        CheckConstraint("type ~ '^[a-z][a-z_.]{0,63}$'", name="type"),
        CheckConstraint("actor <> ''", name="actor"),
        CheckConstraint("jsonb_typeof(data) = 'object'", name="data"),
        Index(None, "user_id", "id"),
        Index(None, "type", "id"),
        Index(None, "actor", "id", postgresql_where=text("ip IS NOT NULL")),
    )

    id: UUID = Field(primary_key=True)
    type: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=TIME)
    actor: str = Field(sa_type=Text)
    user_id: UUID | None
    """Not a reference: the event outlives the user."""
    app_id: str | None = Field(sa_type=Text)
    ip: str | None = Field(sa_type=INET)
    data: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False, server_default=text("'{}'")))


# The trigger refuses changes and deletions of events, except for an erased person's data and the sweep of old events.
_after_create(
    Event,
    """
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
    """,
    """
        CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON events
            FOR EACH ROW WHEN (current_setting('wxauth.sweeping', true) IS DISTINCT FROM 'on')
            EXECUTE FUNCTION events_are_append_only()
    """,
)


class Erasure(SQLModel, table=True):
    """An id of an erased person of whom there is something left to forget: events, consents. Any worker may go on."""

    __tablename__ = "erasures"

    user_id: UUID = Field(primary_key=True)
    about_after: UUID
    """The last event about the person that has been forgotten."""
    acted_after: UUID
    """The last event about others from which the person's address has been taken."""


class UnplacedEvent(SQLModel, table=True):
    """An event for siblings that has no place in the feed yet."""

    __tablename__ = "events_unplaced"

    event_id: UUID = Field(primary_key=True)


class FeedPlace(SQLModel, table=True):
    """An event's place in the feed for siblings."""

    __tablename__ = "feed"
    __table_args__ = (UniqueConstraint("event_id"), Index(None, "type", "position"))

    position: int = Field(sa_column=Column(BigInteger, IdentityColumn(always=True), primary_key=True))
    event_id: UUID
    type: str = Field(sa_type=Text)


class ProfileChange(SQLModel, table=True):
    """When siblings were last told that a person's profile has changed, and what has changed since.

    Only the transaction that gives places writes here, so that no login and no other change waits.
    """

    __tablename__ = "profile_changes"
    __table_args__ = (
        CheckConstraint("(event_id IS NULL) = (fields = '{}')", name="fields"),
        Index(None, "told_at"),
    )

    user_id: UUID = Field(primary_key=True)
    told_at: datetime = Field(sa_type=TIME)
    event_id: UUID | None
    """The newest event that siblings have not been told of."""
    fields: list[str] = Field(sa_type=ARRAY(Text))
    """What has changed since `told_at`."""


class SweptPlace(SQLModel, table=True):
    """The last place whose event has been swept away. Before the first sweep there is no row."""

    __tablename__ = "feed_swept"
    __table_args__ = (CheckConstraint("is_only", name="is_only"),)

    is_only: bool = Field(primary_key=True, sa_column_kwargs={"server_default": text("true")})
    position: int = Field(sa_type=BigInteger)
    event_id: UUID


_after_create(
    Event,
    """
        CREATE FUNCTION mark_unplaced() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO events_unplaced (event_id) VALUES (NEW.id);
            RETURN NULL;
        END
        $$
    """,
    # A trigger, so that no statement that records an event can forget the feed.
    """
        CREATE TRIGGER events_mark_unplaced AFTER INSERT ON events FOR EACH ROW WHEN (NEW.type IN (
            'user.created', 'user.merged', 'identity.added', 'consent.given', 'consent.withdrawn',
            'user.erased', 'user.banned', 'user.unbanned', 'user.roles_changed', 'user.phone_bound',
            'user.phone_removed', 'user.profile_changed', 'user.authorization_revoked', 'session.ended'
        )) EXECUTE FUNCTION mark_unplaced()
    """,
    # A trigger, so that a sweep of events needs no statement for the feed.
    """
        CREATE FUNCTION forget_places() RETURNS trigger LANGUAGE plpgsql AS $$
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
    """,
    """
        CREATE TRIGGER events_forget_places AFTER DELETE ON events REFERENCING OLD TABLE AS gone
            FOR EACH STATEMENT EXECUTE FUNCTION forget_places()
    """,
)


class StoredSigningKey(SQLModel, table=True):
    """A key that signs access tokens. Its private key is sealed."""

    __tablename__ = "signing_keys"
    __table_args__ = (
        UniqueConstraint("kid"),
        CheckConstraint("retires_at > activates_at", name="retires_at"),
    )

    id: UUID = Field(primary_key=True)
    kid: str = Field(sa_type=Text)
    public_jwk: dict[str, Any] = Field(sa_type=JSONB)
    private_key: bytes = Field(sa_type=BYTEA)
    """PKCS#8, sealed."""
    created_at: datetime = Field(sa_type=TIME)
    activates_at: datetime = Field(sa_type=TIME)
    """When the key begins to sign. It is published earlier."""
    retires_at: datetime | None = Field(sa_type=TIME)
    """When the key is no longer published."""


class IdTokenKey(SQLModel, table=True):
    """A key that signs id_tokens for websites, like `StoredSigningKey`. The first one is made for the first site."""

    __tablename__ = "id_token_keys"
    __table_args__ = (
        UniqueConstraint("kid"),
        CheckConstraint("retires_at > activates_at", name="retires_at"),
    )

    id: UUID = Field(primary_key=True)
    kid: str = Field(sa_type=Text)
    public_jwk: dict[str, Any] = Field(sa_type=JSONB)
    private_key: bytes = Field(sa_type=BYTEA)
    created_at: datetime = Field(sa_type=TIME)
    activates_at: datetime = Field(sa_type=TIME)
    retires_at: datetime | None = Field(sa_type=TIME)


class Scope(StrEnum):
    """What a service may do."""

    INTROSPECT = "introspect"
    """Ask whether an access token is good."""
    ACCESS_TOKEN = "access_token"  # noqa: S105 - the name of a scope
    """Get an app's WeChat token."""
    USERS = "users"
    """Look users up."""
    PHONES = "phones"
    """See their phone numbers too."""
    EVENTS = "events"
    """Read the feed."""


IdTokenAlg = Literal["RS256", "ES256"]
"""What signs a site's id_tokens: RS256 by keys of their own, or ES256 by those of access tokens."""

_EMPTY: Final = {"server_default": text("'{}'")}
_FALSE: Final = {"server_default": text("false")}


class Client(SQLModel):
    """A service or a site of the operator's own, as administrators describe it. A site logs people in.

    Only a site has a title. A service has null, false or an empty list in all columns that describe a site.
    """

    name: str = Field(sa_type=Text, primary_key=True, schema_extra={"examples": ["shop"]})
    title: str | None = Field(default=None, sa_type=Text, schema_extra={"examples": ["小店"]})
    """The name that the phone shows."""
    # The database's default is for a service that is added by a replica that does not know scopes.
    scopes: list[str] = Field(
        sa_type=ARRAY(Text),
        sa_column_kwargs={"server_default": text("'{introspect,access_token}'")},
        schema_extra={"examples": [["openid", "profile"]]},
    )
    """What it may do as a service, then what it may ask for as a site."""
    is_public: bool = Field(default=False, sa_column_kwargs=_FALSE)
    """Whether it is a page or a program, which can keep no secret."""
    device: bool = Field(default=False, sa_column_kwargs=_FALSE)
    """Whether it may use the device grant."""
    redirect_uris: list[str] = Field(
        default=[],
        sa_type=ARRAY(Text),
        sa_column_kwargs=_EMPTY,
        schema_extra={"examples": [["https://shop.example.com/callback"]]},
    )
    logout_uris: list[str] = Field(
        default=[],
        sa_type=ARRAY(Text),
        sa_column_kwargs=_EMPTY,
        schema_extra={"examples": [["https://shop.example.com/"]]},
    )
    app_id: str | None = Field(default=None, sa_type=Text)
    """The app whose mini-program code is shown; null: the default app."""
    near: bool = Field(default=False, sa_column_kwargs=_FALSE)
    """Whether phone and browser must be in one network."""
    user_code: bool = Field(default=False, sa_column_kwargs=_FALSE)
    """Whether the user codes of its devices may be typed."""
    email_domain: str | None = Field(default=None, sa_type=Text)
    id_token_alg: IdTokenAlg | None = Field(default=None, sa_type=Text, schema_extra={"examples": ["RS256"]})

    @property
    def is_site(self) -> bool:
        """Whether it may log people in."""
        return self.title is not None

    @property
    def site_scopes(self) -> list[str]:
        """The scopes that its sessions may have."""
        return [scope for scope in self.scopes if scope not in _SERVICE_SCOPES]


_SERVICE_SCOPES: Final = frozenset(map(str, Scope))


class AddedClient(Client):
    """A client, and since when."""

    created_at: datetime = Field(sa_type=TIME)
    former_secret_until: datetime | None = Field(
        default=None, sa_type=TIME, description="Until when the secret before this one works."
    )


class StoredClient(AddedClient, table=True):
    """A client with the hashes of its secrets."""

    __tablename__ = "clients"
    __table_args__ = (
        CheckConstraint(f"name ~ '^{CLIENT_NAME}$'", name="name"),
        # With a secret, a public client would be let in where only confidential ones are.
        CheckConstraint("(secret_hash IS NULL) = is_public AND octet_length(secret_hash) = 32", name="secret_hash"),
        CheckConstraint(
            "(former_secret_hash IS NULL) = (former_secret_until IS NULL) AND octet_length(former_secret_hash) = 32",
            name="former_secret",
        ),
        CheckConstraint("char_length(title) BETWEEN 1 AND 64", name="title"),
        CheckConstraint("(title IS NOT NULL) = (device OR cardinality(redirect_uris) > 0)", name="grant"),
        # A service has scopes of services only. A site has at least one other.
        CheckConstraint(f"(scopes <@ '{{{','.join(Scope)}}}') = (title IS NULL)", name="scopes"),
        # A public client proves nothing by its name: anybody could start a device's scan in its name, and the phone
        # would show a lie.
        CheckConstraint("NOT (is_public AND device)", name="is_public"),
        CheckConstraint(
            "(id_token_alg IS NULL) = (title IS NULL) AND id_token_alg IN ('RS256', 'ES256')", name="id_token_alg"
        ),
        CheckConstraint(
            "title IS NOT NULL OR NOT (is_public OR near OR user_code)"
            " AND cardinality(logout_uris) = 0 AND num_nonnulls(app_id, email_domain) = 0",
            name="service",
        ),
    )

    secret_hash: bytes | None = Field(sa_type=BYTEA, repr=False)
    """SHA-256 of the secret, which itself is kept nowhere; null if the client is public."""
    former_secret_hash: bytes | None = Field(sa_type=BYTEA, repr=False)
    """SHA-256 of the secret before this one, good until `former_secret_until`."""


class Scan(SQLModel, table=True):
    """A code that somebody may scan to log in to a site. All its secrets are stored as hashes.

    A claim names only a session, not a user: if the user is merged meanwhile, the session leads to the remaining user.
    """

    __tablename__ = "scans"
    __table_args__ = (
        UniqueConstraint("scene_hash"),
        UniqueConstraint("user_code_hash"),
        UniqueConstraint("device_code_hash"),
        UniqueConstraint("request_hash"),
        UniqueConstraint("code_hash"),
        ForeignKeyConstraint(["client_id"], ["clients.name"], ondelete="CASCADE"),
        # A device's, or a browser's on our own page.
        CheckConstraint("(device_code_hash IS NULL) <> (request_hash IS NULL)", name="kind"),
        CheckConstraint("(request_hash IS NULL) = (browser_hash IS NULL)", name="browser_hash"),
        CheckConstraint("(claimed_session_id IS NULL) = (claimed_at IS NULL)", name="claimed_at"),
        CheckConstraint(
            "verdict IS NULL OR (verdict IN ('approved', 'denied') AND claimed_at IS NOT NULL)", name="verdict"
        ),
        CheckConstraint("(verdict IS NULL) = (decided_at IS NULL)", name="decided_at"),
        CheckConstraint("(code_hash IS NULL) = (code_expires_at IS NULL)", name="code_expires_at"),
        CheckConstraint("expires_at > created_at", name="expires_at"),
        Index(None, "client_id"),
        Index(None, "expires_at"),
        Index(
            "scans_unclaimed_pages_idx",
            "expires_at",
            postgresql_where=text("request_hash IS NOT NULL AND claimed_at IS NULL"),
        ),
    )

    id: UUID = Field(primary_key=True)
    client_id: str = Field(sa_type=Text)
    scope: str = Field(sa_type=Text)
    """The scopes to be granted, separated by spaces."""
    scene_hash: bytes = Field(sa_type=BYTEA)
    """The hash of the scene, which is in the picture."""
    user_code_hash: bytes = Field(sa_type=BYTEA)
    device_code_hash: bytes | None = Field(sa_type=BYTEA)
    request_hash: bytes | None = Field(sa_type=BYTEA)
    """The hash of the id with which the page asks for its state. It must come with the cookie of the page's browser."""
    browser_hash: bytes | None = Field(sa_type=BYTEA)
    redirect_uri: str | None = Field(sa_type=Text)
    state: str | None = Field(sa_type=Text)
    nonce: str | None = Field(sa_type=Text)
    code_challenge: str | None = Field(sa_type=Text)
    browser_ip: str | None = Field(sa_type=INET)
    browser_user_agent: str | None = Field(sa_type=Text)
    poll_interval: int = Field(sa_column_kwargs={"server_default": text("2")})
    """Seconds between two polls of the device."""
    polled_at: datetime | None = Field(sa_type=TIME)
    claimed_session_id: UUID | None
    claimed_at: datetime | None = Field(sa_type=TIME)
    is_typed: bool = Field(sa_column_kwargs={"server_default": text("false")})
    """Whether the user code was typed, not the picture scanned."""
    verdict: str | None = Field(sa_type=Text)
    decided_at: datetime | None = Field(sa_type=TIME)
    code_hash: bytes | None = Field(sa_type=BYTEA)
    """The hash of the authorization code."""
    code_expires_at: datetime | None = Field(sa_type=TIME)
    session_id: UUID | None
    """The session that the scan has led to."""
    created_at: datetime = Field(sa_type=TIME)
    expires_at: datetime = Field(sa_type=TIME)


class WrongUserCodes(SQLModel, table=True):
    """How many wrong user codes a user has typed lately."""

    __tablename__ = "wrong_user_codes"
    __table_args__ = (ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),)

    user_id: UUID = Field(primary_key=True)
    since: datetime = Field(sa_type=TIME)
    number: int


class ScanPicture(SQLModel, table=True):
    """The picture of a scan, made when somebody first looks at it."""

    __tablename__ = "scan_pictures"
    __table_args__ = (
        ForeignKeyConstraint(["scan_id"], ["scans.id"], ondelete="CASCADE"),
        CheckConstraint("content_type IN ('image/jpeg', 'image/png')", name="content_type"),
        CheckConstraint("octet_length(content) BETWEEN 1 AND 2097152", name="content"),
    )

    scan_id: UUID = Field(primary_key=True)
    content_type: str = Field(sa_type=Text)
    content: bytes = Field(sa_type=BYTEA)


_after_create(ScanPicture, "ALTER TABLE scan_pictures ALTER COLUMN content SET STORAGE EXTERNAL")  # already compressed


class Webhook(SQLModel, table=True):
    """A webhook: the address to which a sibling's events are sent."""

    __tablename__ = "webhooks"
    __table_args__ = (
        UniqueConstraint("name"),
        CheckConstraint(f"name ~ '^{CLIENT_NAME}$'", name="name"),
        CheckConstraint("(former_secret IS NULL) = (former_secret_until IS NULL)", name="former_secret"),
    )

    id: UUID = Field(primary_key=True)
    """Names this webhook for ever, even if a later one gets the same name."""
    name: str = Field(sa_type=Text)
    url: str = Field(sa_type=Text)
    types: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False, server_default=text("'{}'")))
    """The shown names of the wanted types; empty for all types."""
    is_enabled: bool = Field(sa_column_kwargs={"server_default": text("true")})
    secret: bytes = Field(sa_type=BYTEA)
    """The secret that signs, sealed."""
    former_secret: bytes | None = Field(sa_type=BYTEA)
    """The former secret, which signs too until `former_secret_until`, sealed."""
    former_secret_until: datetime | None = Field(sa_type=TIME)
    created_at: datetime = Field(sa_type=TIME)
    delivered_at: datetime | None = Field(sa_type=TIME)
    """When the webhook last accepted a delivery, to the minute."""


class Delivery(SQLModel, table=True):
    """An event for a webhook. It refers to neither, so that removing a webhook with a million deliveries is quick."""

    __tablename__ = "deliveries"
    __table_args__ = (
        CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="state"),
        CheckConstraint("(state = 'pending') = (next_at IS NOT NULL)", name="next_at"),
        CheckConstraint("state = 'pending' OR NOT is_taken", name="is_taken"),
        Index(
            "deliveries_pending_idx",
            "webhook_id",
            "priority",
            "next_at",
            postgresql_where=text("state = 'pending'"),
        ),
        Index(None, "webhook_id", "state", "id"),
        {
            "postgresql_with": {
                "autovacuum_vacuum_scale_factor": 0.02,
                "autovacuum_vacuum_insert_scale_factor": 0.02,
            }
        },
    )

    webhook_id: UUID = Field(primary_key=True)
    event_id: UUID = Field(primary_key=True)
    id: UUID
    """UUIDv7, in the order in which events got their places."""
    type: str = Field(sa_type=Text)
    """The shown name of the event's type."""
    state: str = Field(sa_column=Column(Text, nullable=False, server_default=text("'pending'")))
    attempts: int = Field(sa_column_kwargs={"server_default": text("0")})
    is_taken: bool = Field(sa_column_kwargs={"server_default": text("false")})
    """Whether a process is delivering it. The process has until `next_at`."""
    status: int | None
    error: str | None = Field(sa_type=Text)
    next_at: datetime | None = Field(sa_type=TIME)
    at: datetime = Field(sa_type=TIME)
    priority: int = Field(sa_column=Column(SmallInteger, nullable=False, server_default=text("3")))
    """See `Priority` in `siblings/webhook_rows.py`; the lowest goes first."""


class DailyNumbers(SQLModel, table=True):
    """The counts of one process on one day. A day that is long over has one row, which belongs to no process."""

    __tablename__ = "daily_numbers"
    __table_args__ = (CheckConstraint("new_users >= 0 AND logins >= 0", name="numbers"),)

    day: date = Field(sa_type=Date, primary_key=True)
    process: UUID = Field(primary_key=True)
    new_users: int = Field(sa_type=BigInteger)
    logins: int = Field(sa_type=BigInteger)


class AdminLink(SQLModel, table=True):
    """A link that opens the console for an administrator, once."""

    __tablename__ = "admin_links"
    __table_args__ = (
        ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        CheckConstraint("octet_length(digest) = 32", name="digest"),
        Index(None, "user_id"),
    )

    digest: bytes = Field(sa_type=BYTEA, primary_key=True)
    """SHA-256 of the link's secret, which itself is kept nowhere."""
    user_id: UUID
    expires_at: datetime = Field(sa_type=TIME)


class ConsoleSession(SQLModel, table=True):
    """The console's sessions. They end when their user loses the role of administrator."""

    __tablename__ = "console_sessions"

    session_id: UUID = Field(primary_key=True)
    """Not a foreign key: with one, PostgreSQL would look here for each of millions of sessions that are swept."""


class StoredApp(SQLModel, table=True):
    """A mini-program that was added at run time; the settings may name others."""

    __tablename__ = "apps"
    __table_args__ = (
        CheckConstraint("app_id ~ '^[A-Za-z0-9_-]{1,64}$'", name="app_id"),
        CheckConstraint("char_length(title) BETWEEN 1 AND 64", name="title"),
        CheckConstraint("sign_up IN ('open', 'closed')", name="sign_up"),
        CheckConstraint("push_aes_key IS NULL OR push_token IS NOT NULL", name="push_aes_key"),
    )

    app_id: str = Field(sa_type=Text, primary_key=True)
    title: str | None = Field(sa_type=Text)
    """What administrators call it."""
    app_secret: bytes = Field(sa_type=BYTEA)
    """Sealed, like the two below."""
    push_token: bytes | None = Field(sa_type=BYTEA)
    push_aes_key: bytes | None = Field(sa_type=BYTEA)
    sign_up: str | None = Field(sa_type=Text)
    is_enabled: bool = Field(sa_column_kwargs={"server_default": text("true")})
    created_at: datetime = Field(sa_type=TIME)


class PushMessage(SQLModel, table=True):
    """A message of WeChat's that has been carried out. Nothing about the person can be read from it."""

    __tablename__ = "push_messages"
    __table_args__ = (CheckConstraint("octet_length(digest) = 32", name="digest"), Index(None, "received_at"))

    digest: bytes = Field(sa_type=BYTEA, primary_key=True)
    app_id: str = Field(sa_type=Text)
    received_at: datetime = Field(sa_type=TIME)


class PushNonce(SQLModel, table=True):
    """A timestamp and nonce that WeChat has signed, and the message that they first came with."""

    __tablename__ = "push_nonces"
    __table_args__ = (
        CheckConstraint("octet_length(digest) = 32", name="digest"),
        CheckConstraint("octet_length(content) = 32", name="content"),
        Index(None, "received_at"),
    )

    digest: bytes = Field(sa_type=BYTEA, primary_key=True)
    """SHA-256 of app_id, timestamp and nonce."""
    content: bytes | None = Field(sa_type=BYTEA)
    """SHA-256 of the message; null for the check of the URL, which has none."""
    received_at: datetime = Field(sa_type=TIME)


class AttemptCount(SQLModel, table=True):
    """A person's attempts of one kind within an hour or less, such as questions that use up WeChat's quota for all."""

    __tablename__ = "attempts"
    __table_args__ = (
        CheckConstraint("octet_length(key) = 32", name="key"),
        CheckConstraint("number >= 0", name="number"),
        Index(None, "since"),
    )

    key: bytes = Field(sa_type=BYTEA, primary_key=True)
    """SHA-256 of the kind and the person's identity or id. It outlives an erasure, which must not reset the count."""
    since: datetime = Field(sa_type=TIME)
    """When the count began."""
    number: int


class Sweep(SQLModel, table=True):
    """How far a sweep has come. Any worker may go on with it."""

    __tablename__ = "sweeps"

    name: str = Field(sa_type=Text, primary_key=True)
    after: UUID
    """The id of the last row that was looked at."""
    due_at: datetime = Field(sa_type=TIME)
    """When the next page is due; after the last row, when the next sweep begins."""
